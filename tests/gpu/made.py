"""Makes the random models of tests/gpu/check where there is no PyTorch: the same shapes and scales, with NumPy's numbers.

Run as: made.py WORK make.NAME ...
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import plan as plans
from safetensors.numpy import save_file

ARCHITECTURES = {"llama": ("LlamaForCausalLM", "hidden_act", "silu"), "gemma2": ("Gemma2ForCausalLM", "hidden_activation", "gelu_pytorch_tanh")}
NORMS = {
    "llama": ["input_layernorm", "post_attention_layernorm"],
    "gemma2": ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"],
}


def weights(name, shape, rng):
    """Norms not 1, attention that is not flat, logits of some spread, as the models that PyTorch makes."""
    hidden, wide, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    tied = shape.get("tie_word_embeddings", True)
    matrices = {"model.embed_tokens": (shape["vocab_size"], hidden, 2.0 if tied else hidden**0.5)}
    if not tied:
        matrices["lm_head"] = (shape["vocab_size"], hidden, 2.5)
    vectors = ["model.norm"]
    for layer in range(shape["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        vectors += [f"{block}.{norm}" for norm in NORMS[name]]
        matrices |= {
            f"{block}.self_attn.q_proj": (queries, hidden, 1.5),
            f"{block}.self_attn.k_proj": (keys, hidden, 1.5),
            f"{block}.self_attn.v_proj": (keys, hidden, 1.0),
            f"{block}.self_attn.o_proj": (hidden, queries, 1.0),
            f"{block}.mlp.gate_proj": (wide, hidden, 1.0),
            f"{block}.mlp.up_proj": (wide, hidden, 1.0),
            f"{block}.mlp.down_proj": (hidden, wide, 1.0),
        }
    # Gemma multiplies by 1 + w.
    centre = 1.0 if name == "llama" else 0.0
    out = {f"{key}.weight": centre + 0.2 * rng.standard_normal(hidden) for key in vectors}
    for key, (rows, columns, gain) in matrices.items():
        out[f"{key}.weight"] = gain / columns**0.5 * rng.standard_normal((rows, columns))
    return {key: value.astype(np.float32) for key, value in out.items()}


def make(work, name, shape):
    made = weights(name, shape, np.random.default_rng(100 + len(name)))
    directory, partial = work / name, work / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(made, partial / "model.safetensors")
    architecture, key, activation = ARCHITECTURES[name]
    config = {"architectures": [architecture], "model_type": name, "dtype": "float32", key: activation} | shape
    (partial / "config.json").write_text(json.dumps(config))
    plans.write_tokenizer(partial, shape["vocab_size"])
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    size = (directory / "model.safetensors").stat().st_size
    return {"bytes": size, "parameters": sum(value.size for value in made.values())}


if __name__ == "__main__":
    work = pathlib.Path(sys.argv[1])
    plan = json.loads((work / "plan.json").read_text())
    for step in sys.argv[2:]:
        name = step.split(".")[1]
        (work / "reference" / f"{step}.json").write_text(json.dumps(make(work, name, plan["shapes"][name])))
