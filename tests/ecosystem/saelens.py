"""Opens an exported directory with SAELens and holds its reconstruction against the program's: saelens.py DIR ROWS.safetensors"""

import importlib.metadata
import sys

import torch
from safetensors.torch import load_file
from sae_lens import SAE

sae = SAE.load_from_disk(sys.argv[1], device="cpu")
held = load_file(sys.argv[2])
with torch.no_grad():
    back = sae.decode(sae.encode(held["x"]))
off = (back - held["reconstruction"]).abs().max().item()
size = held["reconstruction"].abs().max().item()
assert type(sae).__name__ == "StandardSAE", type(sae)
assert off <= 1e-5 * size, (off, size)
print("sae-lens", importlib.metadata.version("sae-lens"), "reconstructs the same to", off, "of", size)
