"""What transformers computes for tests/gpu/check, which starts this; it is of no use alone.

    python tests/gpu/reference.py WORK STEP…

WORK holds plan.json. Each step leaves WORK/reference/STEP.json, with `error` where it failed, and its tensors beside it; one
that fails does not keep the later ones from running. A step is `facts`, `make.MODEL`, or KIND.MODEL.DTYPE, where KIND is load,
parity, long, collect or steer (which takes all dtypes). Steps of one model share its weights in memory.
"""

import gc
import json
import os
import pathlib
import shutil
import sys
import time
import traceback

import plan as plans
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

WORK = pathlib.Path(sys.argv[1])
PLAN = json.loads((WORK / "plan.json").read_text())
DEVICE = torch.device(PLAN["device"])
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
CONFIGS = {"llama": LlamaConfig, "gemma2": Gemma2Config}
OUT = WORK / "reference"


def wait():
    if DEVICE.type == "cuda":
        torch.cuda.synchronize(DEVICE)


def seconds_of(work):
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def free():
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def facts():
    """The card, and what a large product and a copy reach on it."""
    if DEVICE.type == "cpu":
        return {"name": "cpu", "torch": torch.__version__}
    card = torch.cuda.get_device_properties(DEVICE)
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = lambda: [a @ b for _ in range(10)]  # noqa: E731
    product()
    flops = 10 * 2 * n**3 / seconds_of(product)
    x = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    y = torch.empty_like(x)
    copy = lambda: [y.copy_(x) for _ in range(10)]  # noqa: E731
    copy()
    bandwidth = 10 * 2 * x.numel() / seconds_of(copy)
    uuid = str(getattr(card, "uuid", "")) or None
    return {
        "name": card.name, "torch": torch.__version__, "memory": card.total_memory, "flops": flops / 1e12, "bandwidth": bandwidth / 1e9,
        "uuid": uuid if uuid is None or uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}",
    }


def make(name):
    """Weights far from the initialiser: norms not 1, attention that is not flat, logits of some spread."""
    generator = torch.Generator(device=DEVICE).manual_seed(100 + len(name))
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(CONFIGS[name](**PLAN["shapes"][name]), dtype=torch.bfloat16)
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=generator, device=DEVICE).to(p.dtype))
                continue
            if "embed_tokens" in key:
                scale = 2.0 / p.shape[1] ** 0.5 if tied else 1.0
            else:
                gain = 1.5 if "q_proj" in key or "k_proj" in key else 2.5 if "lm_head" in key else 1.0
                scale = gain / p.shape[1] ** 0.5
            p.normal_(0.0, scale, generator=generator)
    model.tie_weights()
    directory, partial = WORK / name, WORK / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    (partial / "generation_config.json").unlink(missing_ok=True)
    plans.write_tokenizer(partial, PLAN["shapes"][name]["vocab_size"])
    shutil.rmtree(directory, ignore_errors=True)
    partial.rename(directory)
    size = sum(f.stat().st_size for f in directory.glob("*.safetensors"))
    return {"bytes": size, "parameters": sum(p.numel() for p in model.parameters())}


class Held:
    """One model in one dtype at a time; the first load is timed."""

    def __init__(self, name):
        self.name, self.model, self.dtype, self.seconds = name, None, None, None

    def get(self, dtype):
        if self.dtype == dtype:
            return self.model
        # Anew for each dtype: what .float() widens stays rounded in buffers, such as Gemma's √d.
        self.model = self.dtype = None
        free()
        start = time.perf_counter()
        self.model = load(WORK / self.name, DTYPES[dtype])
        self.model(input_ids=torch.tensor([[1, 5]], device=DEVICE))
        wait()
        self.seconds = self.seconds or time.perf_counter() - start
        self.dtype = dtype
        return self.model


def load(directory, dtype):
    attention = "eager" if directory.name == "gemma2" else "sdpa"
    options = dict(dtype=dtype, attn_implementation=attention, local_files_only=True)
    try:
        import accelerate  # noqa: F401  (weights go to the card one by one with it)

        options["device_map"] = {"": DEVICE}
    except ImportError:
        pass
    return AutoModelForCausalLM.from_pretrained(directory, **options).to(DEVICE).eval()


def first(x):
    return x[0] if isinstance(x, tuple) else x


def hooked(model, name, layers, ids):
    """Hooks of some layers and the logits, in f32."""
    seen, handles = {}, []
    keep = lambda key: lambda *a: seen.__setitem__(key, first(a[-1])[0].float().cpu())  # noqa: E731
    for i in layers:
        layer, at = model.model.layers[i], f"blocks.{i}."
        out = layer.post_feedforward_layernorm if name == "gemma2" else layer.mlp
        handles += [
            layer.mlp.down_proj.register_forward_pre_hook(keep(at + "mlp.hook_post")),
            out.register_forward_hook(keep(at + "hook_mlp_out")),
            layer.register_forward_hook(keep(at + "hook_resid_post")),
        ]
    logits = model(input_ids=torch.tensor([ids], device=DEVICE), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return {k: v.contiguous() for k, v in {"logits": logits.float().cpu(), **seen}.items()}


def load_step(held, dtype):
    held.get(dtype)
    return {"seconds": held.seconds}


def parity(held, dtype):
    name = held.name
    computed = hooked(held.get(dtype), name, PLAN["hooked"][name], PLAN["prompt"][name])
    save_file(computed, OUT / f"parity.{name}.{dtype}.safetensors")
    return {}


def long(held, dtype):
    name, ids, seen = held.name, PLAN["long"][held.name], []
    model = held.get(dtype)
    at = torch.linspace(0, len(ids) - 1, 128, dtype=torch.float64).long()
    keep = lambda module, args: seen.append(args[0][0, at.to(DEVICE)].float().cpu())  # noqa: E731
    handle = model.model.layers[PLAN["last"][name]].mlp.down_proj.register_forward_pre_hook(keep)
    try:
        model.model(input_ids=torch.tensor([ids], device=DEVICE), use_cache=False)
    finally:
        handle.remove()
    save_file({"rows": seen[0].contiguous(), "at": at}, OUT / f"long.{name}.{dtype}.safetensors")
    return {}


def collect(held, dtype):
    """A hook with .cpu() and tofile, as one writes it first: 8,192 tokens at once, no head."""
    model, corpus = held.get(dtype), PLAN["corpus"]
    at_once = max(1, 8192 // len(corpus[0]))
    path = OUT / "collect.llama.rows"
    with open(path, "wb") as file:

        def keep(module, args):
            x = args[0].flatten(0, 1).cpu()
            (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy().tofile(file)

        handle = model.model.layers[PLAN["last"]["llama"]].mlp.down_proj.register_forward_pre_hook(keep)

        def run(texts):
            for start in range(0, len(texts), at_once):
                model.model(input_ids=torch.tensor(texts[start : start + at_once], device=DEVICE), use_cache=False)
            file.flush()
            os.fsync(file.fileno())

        run(corpus[:at_once])
        file.seek(0)
        seconds = seconds_of(lambda: run(corpus))
        handle.remove()
    return {"seconds": seconds, "tokens": sum(map(len, corpus)), "width": model.config.intermediate_size}


def adding(model, layer, vector, rows):
    """Adds a vector at mlp.hook_post of the rows whose entry is 1."""
    at = model.model.layers[layer].mlp.down_proj
    vector = vector.to(DEVICE)
    rows = torch.tensor(rows, device=DEVICE)[:, None, None]
    hook = lambda module, args: ((args[0].float() + rows * vector).to(args[0].dtype),)  # noqa: E731
    return at.register_forward_pre_hook(hook)


def steer(held, _):
    """For each dtype: what `generate` continues with; how our ids stand by the logits of a whole pass in f32; the KL at our α."""
    asked = json.loads((WORK / "steer.json").read_text())
    direction = load_file(WORK / "direction.safetensors")["z"].float()
    prompt, layer, new = PLAN["prompt"]["llama"], PLAN["steered_layer"], PLAN["new_tokens"]
    both = torch.tensor([prompt, prompt], device=DEVICE)
    found, logits = {}, {}
    for dtype in PLAN["dtypes"]:
        model = held.get(dtype)
        options = dict(do_sample=False, eos_token_id=None, pad_token_id=0, attention_mask=torch.ones_like(both))
        handle = adding(model, layer, asked["alpha"] * direction, [0.0, 1.0])
        try:
            ids = model.generate(both, max_new_tokens=2, min_new_tokens=2, **options)
            short = seconds_of(lambda: model.generate(both, max_new_tokens=2, min_new_tokens=2, **options))
            keep = []
            long = seconds_of(lambda: keep.append(model.generate(both, max_new_tokens=new, min_new_tokens=new, **options)))
        finally:
            handle.remove()
        ids = keep[0][:, len(prompt) :].tolist()
        found[dtype] = {"plain": ids[0], "added": ids[1], "step_seconds": (long - short) / (new - 2)}
        # The logits that each of our ids was taken by, of the same ids in both dtypes.
        for taken in PLAN["dtypes"]:
            for kind, row in (("plain", 0.0), ("added", 1.0)):
                sequence = torch.tensor([prompt + asked[taken][kind]], device=DEVICE)
                handle = adding(model, layer, asked["alpha"] * direction, [row])
                try:
                    whole = model(input_ids=sequence, use_cache=False).logits[0, len(prompt) - 1 : -1].float().cpu()
                finally:
                    handle.remove()
                logits[dtype, taken, kind] = whole
        for taken in PLAN["dtypes"]:
            found[dtype][f"kl_at_{taken}"] = kl(model, prompt, layer, direction, asked[taken]["kl_alpha"])
    for taken in PLAN["dtypes"]:
        for kind in ("plain", "added"):
            exact = logits["f32", taken, kind]
            chosen = torch.tensor(asked[taken][kind])[:, None]
            margin = exact.max(1).values - exact.gather(1, chosen)[:, 0]
            noise = (logits[taken, taken, kind] - exact).abs().max() if taken != "f32" else 1e-4 * exact.abs().max()
            found[taken][f"{kind}_margin"], found[taken][f"{kind}_noise"] = float(margin.max()), float(noise)
    return found


def kl(model, prompt, layer, direction, alpha):
    ids = torch.tensor([prompt], device=DEVICE)
    base = model(input_ids=ids, use_cache=False).logits[0, -1].double().log_softmax(-1)
    handle = adding(model, layer, alpha * direction, [1.0])
    try:
        steered = model(input_ids=ids, use_cache=False).logits[0, -1].double().log_softmax(-1)
    finally:
        handle.remove()
    return float((base.exp() * (base - steered)).sum())


STEPS = {"load": load_step, "parity": parity, "long": long, "collect": collect, "steer": steer}


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    OUT.mkdir(exist_ok=True)
    held = {}
    for step in sys.argv[2:]:
        kind, name, dtype = (step.split(".") + ["", ""])[:3]
        try:
            with torch.no_grad():
                if kind == "facts":
                    found = facts()
                elif kind == "make":
                    found = make(name)
                else:
                    found = STEPS[kind](held.setdefault(name, Held(name)), dtype)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}
        free()
        partial = OUT / f"{step}.json.partial"
        partial.write_text(json.dumps(found))
        partial.rename(OUT / f"{step}.json")


main()
