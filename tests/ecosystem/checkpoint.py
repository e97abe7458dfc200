"""Opens an edited checkpoint with transformers and holds its logits against the program's: checkpoint.py DIR LOGITS.safetensors"""

import sys

import torch
import transformers
from safetensors.torch import load_file

model, info = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
held = load_file(sys.argv[2])["logits"]
with torch.no_grad():
    logits = model(torch.tensor([[3, 7, 1, 9, 4, 2]])).logits[0]
off = (logits - held).abs().max().item()
assert off < 1e-4 * held.abs().max().item(), off
print("transformers", transformers.__version__, "computes the same to", off)
