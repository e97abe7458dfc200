"""Steers a Hugging Face model with a feature of a study and gets the text that mlpeek gets.

    python steer.py STUDY FEATURE "I think that"

For families whose MLP ends in `down_proj` (Llama, Mistral, Qwen, SmolLM); greedy, in f32.
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mlpeek

study, feature, prompt = mlpeek.open(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
ours = study.steer(feature, prompt, kl=0.25, temperature=0, max_tokens=20, device="cpu")

direction = study.fit().direction(feature)
tokenizer = AutoTokenizer.from_pretrained(study.model["id"])
model = AutoModelForCausalLM.from_pretrained(study.model["id"], dtype=torch.float32)

# mlp.hook_post is the input of the down projection: α times the feature's column is added to it at every token.
assert direction.site == "mlp.hook_post"
push = ours["alpha"] * direction.to_torch()
down = model.get_submodule(f"model.layers.{direction.layer}.mlp.down_proj")
down.register_forward_pre_hook(lambda module, inputs: (inputs[0] + push,))

ids = [study.bos] * (study.bos is not None) + tokenizer.encode(prompt, add_special_tokens=False)
out = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=20, pad_token_id=0)
theirs = tokenizer.decode(out[0, len(ids):], skip_special_tokens=True)
print(f"mlpeek       {prompt}{ours['steered'][0]}\ntransformers {prompt}{theirs}")
sys.exit(ours["steered"][0] != theirs)
