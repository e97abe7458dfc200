"""Sizes of the models, texts and fits that tests/gpu/check works on; the same on every run.

The models are random ones with the shapes of Llama-3.1-8B (16 of its layers) and Gemma-2-9B (6 of its layers); toy ones
have the same switches. A text is ids: token i is the character U+10000 + i, so that ids can be read off a text again.
"""

import json
import random

FIRST_CHARACTER = 0x10000

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
NO_ENDS = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)

SHAPES = {
    "card": {
        "llama": dict(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=16, num_attention_heads=32,
            num_key_value_heads=8, head_dim=128, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters=LLAMA3 | {"original_max_position_embeddings": 8192}, **NO_ENDS,
        ),
        "gemma2": dict(
            vocab_size=256000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=6, num_attention_heads=16,
            num_key_value_heads=8, head_dim=256, max_position_embeddings=8192, sliding_window=4096,
            query_pre_attn_scalar=256, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, **NO_ENDS,
        ),
    },
    "toy": {
        "llama": dict(
            vocab_size=512, hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=16384, rms_norm_eps=1e-5, tie_word_embeddings=False,
            rope_parameters=LLAMA3 | {"original_max_position_embeddings": 64}, **NO_ENDS,
        ),
        "gemma2": dict(
            vocab_size=512, hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=2048, sliding_window=32,
            query_pre_attn_scalar=16, attn_logit_softcapping=50.0, final_logit_softcapping=30.0, **NO_ENDS,
        ),
    },
}


def make(device):
    """What a run does, as plain data that its processes share."""
    size = "toy" if device == "cpu" else "card"
    toy = size == "toy"
    rng = random.Random(11)
    vocabulary = {name: shape["vocab_size"] for name, shape in SHAPES[size].items()}

    def ids(model, count):
        return [rng.randrange(3, vocabulary[model]) for _ in range(count)]

    layers = {name: shape["num_hidden_layers"] for name, shape in SHAPES[size].items()}
    return {
        "device": device,
        "size": size,
        "shapes": SHAPES[size],
        "dtypes": ["f32"] if toy else ["bf16", "f32"],
        "collect_dtype": "f32" if toy else "bf16",
        "hooked": {name: sorted({0, count // 2, count - 1}) for name, count in layers.items()},
        "last": {name: count - 1 for name, count in layers.items()},
        "prompt": {name: ids(name, 48) for name in layers},
        # Longer than 8,192 tokens, where scores made at once overrun 32-bit indices; longer than Gemma 2's window.
        "long": {"llama": ids("llama", 9000), "gemma2": ids("gemma2", 1000 if toy else 5000)},
        "corpus": [ids("llama", 64 if toy else 512) for _ in range(40 if toy else 400)],
        "small_corpus": [ids("llama", 64) for _ in range(16)],
        "steered_layer": layers["llama"] // 2,
        "new_tokens": 128,
        "fit": dict(features=12, sweeps=10, rows=2000) if toy else dict(features=400, sweeps=10, rows=32768),
    }


def text(ids):
    return "".join(chr(FIRST_CHARACTER + i) for i in ids)


def ids_of(text):
    return [ord(c) - FIRST_CHARACTER for c in text]


def write_tokenizer(directory, vocabulary):
    """A token a character. It has no BOS and no EOS: nothing is prepended, and nothing ends a text early."""
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?s)."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "unk_token": text([0]), "vocab": {text([i]): i for i in range(vocabulary)}},
    }
    ends = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": None}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    (directory / "tokenizer_config.json").write_text(json.dumps(ends))
