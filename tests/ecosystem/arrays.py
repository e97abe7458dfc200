"""Reads exported arrays and a control vector with their own tools: arrays.py F.npz F.safetensors V.gguf"""

import importlib.metadata
import json
import sys

import numpy as np
from gguf import GGUFReader
from safetensors import safe_open

npz = np.load(sys.argv[1])
about = json.loads(npz["about"].item())
with safe_open(sys.argv[2], "numpy") as file:
    said = file.metadata()
    assert set(file.keys()) == set(npz.files) - {"about"}, (list(file.keys()), npz.files)
    for name in file.keys():
        array = file.get_tensor(name)
        assert array.dtype == npz[name].dtype and (array == npz[name]).all(), name
assert about == said and said["hook"] == "blocks.1.mlp.hook_post", said
assert len(json.loads(said["texts"])) == npz["samples"].max() + 1
assert np.allclose(np.linalg.norm(npz["Z"], axis=0), 1, atol=1e-5)

reader = GGUFReader(sys.argv[3])
assert [t.name for t in reader.tensors] == ["direction.1"], reader.tensors
assert reader.tensors[0].tensor_type.name == "F32" and list(reader.tensors[0].shape) == [32]
assert reader.fields["general.architecture"].contents() == "controlvector"
assert reader.fields["controlvector.layer_count"].contents() == 1
print("numpy", np.__version__, "safetensors", importlib.metadata.version("safetensors"), "gguf", importlib.metadata.version("gguf"))
