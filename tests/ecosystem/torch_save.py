"""Saves the Z of an exported .npz as torch and numpy do: torch_save.py F.npz V.pt V.npy"""

import sys

import numpy as np
import torch

z = np.load(sys.argv[1])["Z"]
directions = torch.tensor(z).T  # a view: the file holds the strides
torch.save({"V": torch.nn.Parameter(directions), "made_by": "a test", "layer": 1}, sys.argv[2])
np.save(sys.argv[3], np.asfortranarray(z))
print("torch", torch.__version__, "numpy", np.__version__)
