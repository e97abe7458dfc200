"""Loads a control vector with llama.cpp and holds its logits against the program's:
control_vector.py MODEL.gguf V.gguf LOGITS.safetensors"""

import ctypes
import importlib.metadata
import sys

import numpy as np
from gguf import GGUFReader
from llama_cpp import Llama, llama_cpp
from safetensors.numpy import load_file

IDS = [3, 7, 1, 9, 4, 2]
held = load_file(sys.argv[3])
model = Llama(sys.argv[1], n_ctx=64, logits_all=True, verbose=False, n_threads=1)


def logits():
    model.reset()
    model.eval(IDS)
    return np.array(model.scores[: len(IDS)])


def off(a, b):
    return np.abs(a - b).max()


def put(vectors):
    """As llama.cpp's own loader lays them out: that of block k at (k - 1) · width."""
    width = model.n_embd()
    layers = llama_cpp.llama_model_n_layer(model._model.model)
    data = np.zeros((layers, width), np.float32)
    for block, values in vectors.items():
        data[block - 1] = values
    set_vector = getattr(llama_cpp, "llama_set_adapter_cvec", None) or llama_cpp.llama_apply_adapter_cvec
    pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    context = model._ctx.ctx
    assert set_vector(context, pointer, data.size, width, 1, layers) == 0


plain = logits()
vectors = {int(t.name.removeprefix("direction.")): t.data for t in GGUFReader(sys.argv[2]).tensors}
put(vectors)
steered = logits()
moved = off(held["plain"], held["steered"])
alike = (off(plain, held["plain"]), off(steered, held["steered"]))
put({block + 1: values for block, values in vectors.items()})
elsewhere = off(logits(), held["steered"])
print("llama-cpp-python", importlib.metadata.version("llama-cpp-python"), "moved", moved, "off by", alike, "one block later by", elsewhere)
# llama.cpp keeps keys and values in f16, with a control vector and without.
assert max(alike) < 5e-3 * moved, (alike, moved)
assert elsewhere > 0.1 * moved, (elsewhere, moved)

np.float_ = np.float64  # repeng 0.4 names a type that numpy 2 has no more
try:
    from repeng import ControlVector
except ImportError as error:
    print("repeng is not there:", error)
else:
    read = ControlVector.import_gguf(sys.argv[2])
    assert set(read.directions) == set(vectors)
    assert all((read.directions[k] == vectors[k]).all() for k in vectors)
    print("repeng", importlib.metadata.version("repeng"), "reads the same")
