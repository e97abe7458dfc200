"""What the tests read: a small random Llama with a byte tokenizer, a corpus, and a study that the program makes of them.

Everything is made on the spot with numpy alone, once a run; tests that damage a file copy the study first.
"""

import atexit
import functools
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

import mlpeek

LAYERS, D_MODEL, D_MLP, HEADS, VOCAB = 3, 32, 64, 4, 258
LABELS = {"sea": ["tide", "boat", "wave"], "days": ["monday", "friday", "noon"], "food": ["bread", "soup", "rice"]}


@functools.cache
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="mlpeek-python-"))
    atexit.register(shutil.rmtree, path, True)
    # Nothing of the user's: no model, no configuration, no Hub.
    os.environ.update(MLPEEK_HOME=str(path / "home"), HF_HOME=str(path / "hf"), HF_HUB_OFFLINE="1")
    return path


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(a.astype("<f4").tobytes() for a in tensors.values()))


def read_safetensors(path):
    """The f32 tensors of a file that the program wrote, read in the plainest way."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    out = {}
    for name, about in header.items():
        if name != "__metadata__" and about["dtype"] == "F32":
            begin, end = about["data_offsets"]
            out[name] = np.frombuffer(data[start + begin : start + end], "<f4").reshape(about["shape"])
    return out


@functools.cache
def model():
    """A directory in Hugging Face layout, which transformers opens too."""
    path = folder() / "tiny-llama"
    path.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D_MODEL, "intermediate_size": D_MLP,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "float32",
    }
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    for name, value in {"config.json": config, "tokenizer.json": tokenizer(), "tokenizer_config.json": names}.items():
        (path / name).write_text(json.dumps(value))
    random = np.random.default_rng(7)
    shapes = {"model.embed_tokens.weight": (VOCAB, D_MODEL), "model.norm.weight": (D_MODEL,), "lm_head.weight": (VOCAB, D_MODEL)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}{norm}_layernorm.weight": (D_MODEL,) for norm in ("input", "post_attention")}
        shapes |= {f"{at}self_attn.{p}_proj.weight": (D_MODEL, D_MODEL) for p in "qkvo"}
        shapes |= {f"{at}mlp.{p}_proj.weight": (D_MLP, D_MODEL) for p in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (D_MODEL, D_MLP)
    tensors = {name: random.uniform(-0.5, 0.5, shape).astype("f4") + ("norm" in name) for name, shape in shapes.items()}
    # Letters alone are ever the likeliest, so that generated text is text.
    letters = np.zeros(VOCAB, bool)
    letters[ord("a") : ord("z") + 1] = letters[ord(" ")] = True
    tensors["lm_head.weight"][~letters] *= 0.01
    write_safetensors(path / "model.safetensors", tensors)
    return path


def tokenizer():
    """Byte-level BPE without merges: a token a byte, each by GPT-2's printable stand-in."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    vocab = {chr(b if b in printable else 256 + others.index(b)): b for b in range(256)}
    added = [
        {"id": id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for id, text in ((256, "<s>"), (257, "</s>"))
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "added_tokens": added, "pre_tokenizer": level,
        "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []},
    }


def corpus(name, count):
    texts = {
        label: [f"{words[i % 3]} and {words[(i + 1) % 3]} {i}" for i in range(count)] for label, words in LABELS.items()
    }
    path = folder() / name
    path.write_text(json.dumps(texts))
    return path


@functools.cache
def study():
    """A study of two hooks with two shards each, two fits, notes, and an autoencoder."""
    path = folder() / "study"
    mlpeek.run("collect", "--model", model(), "--layer", "0,1", "--data", corpus("first.json", 16), "--out", path)
    mlpeek.run("collect", "--append", "--data", corpus("second.json", 5), "--out", path)
    fit = ("fit", path, "-k", "6", "--sparsity", "0.1", "--layer", "1")
    mlpeek.run(*fit, "--name", "one", "--max-sweeps", "8")
    mlpeek.run(*fit, "--name", "two", "--max-sweeps", "3", "--centre", "--scale-neurons")
    mlpeek.run("notes", path, "3", "water #wet *4 -- of ships", "--fit", "one")
    train = ("--latents", "12", "--top-k", "3", "--epochs", "2", "--layer", "1", "--name", "t")
    mlpeek.run("sae", "train", path, *train)
    return path


def copy(name):
    """A copy of the study to damage."""
    path = folder() / "copies" / name
    shutil.copytree(study(), path)
    return path
