"""The checks of tests/gpu/check: each prints its lines through the run, and raises where it cannot."""

import json
import pathlib
import shutil
import traceback

import numpy as np
import plan as plans
from running import Failed, Skipped
from safetensors.numpy import load_file, save_file

HOOKS = ["mlp.hook_post", "hook_mlp_out", "hook_resid_post"]
# What is left to rounding: of the largest value in f32; of transformers' own error in bf16; of ‖A‖² between two fits.
F32_LIMIT, BF16_RATIO, FIT_LIMIT = 1e-4, 1.25, 1e-4
# On a card a rate passes from this share of the reference's on; on the CPU it is no verdict.
LEAST_SHARE = 0.9


def rms_error(a, b):
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b.astype(np.float64)))


def largest_error(a, b):
    return float(np.abs(a.astype(np.float64) - b).max() / np.abs(b).max())


def same_shape(a, b, what):
    if a.shape != b.shape:
        raise Failed(f"{what} has the shape {a.shape}, and {b.shape} in transformers")
    if not np.isfinite(a).all():
        raise Failed(f"{what} has values that are not finite")


def expected(run, step):
    run.reference(step)
    return load_file(run.work / "reference" / f"{step}.safetensors")


def held_to(run, name, dtype, ours, exact, own):
    """Tensors in `dtype` beside transformers' in f32 (`exact`) and in the same dtype (`own`)."""
    for key in exact:
        if key not in ours:
            raise Failed(f"there is no {key}")
        same_shape(ours[key], exact[key], key)
    if dtype == "f32":
        worst = max(exact, key=lambda key: largest_error(ours[key], exact[key]))
        run.within(name, largest_error(ours[worst], exact[worst]), F32_LIMIT, f"the worst is {worst}")
        return
    errors = {key: (rms_error(ours[key], exact[key]), rms_error(own[key], exact[key])) for key in exact}
    worst = max(errors, key=lambda key: errors[key][0] / max(errors[key][1], 1e-12))
    mine, theirs = errors[worst]
    verdict = "PASS" if mine <= BF16_RATIO * theirs else "FAIL"
    run.line(name, mine, theirs, verdict=verdict, note=f"at most {BF16_RATIO}; the worst is {worst}")


def rate(run, name, ours, reference, unit, note=""):
    """A speed beside the reference's, more is better."""
    verdict = "RATE" if run.device == "cpu" else "PASS" if ours >= LEAST_SHARE * reference else "FAIL"
    run.line(name, ours, reference, verdict=verdict, unit=unit, note=note)


def limit_share(run, name, ours, key, unit):
    """What share of a measured limit of the card a rate is; no verdict."""
    most = run.reference("facts").get(key)
    if most:
        run.line(name, ours, most, verdict="RATE", unit=unit, note="the limit is what torch reaches here")


def each(run, name, work, cases):
    """The same for several cases, of which one that fails does not hide the others."""
    for case in cases:
        full = ".".join([name, *case])
        guarded(run, full, lambda case=case, full=full: work(full, *case))


def guarded(run, name, work):
    try:
        work()
    except Skipped as skipped:
        run.line(name, verdict="SKIP", note=str(skipped))
    except Failed as failed:
        run.line(name, verdict="FAIL", note=str(failed))
    except Exception as error:
        with open(run.work / "log" / "errors", "a") as log:
            traceback.print_exc(file=log)
        run.line(name, verdict="FAIL", note=f"{type(error).__name__}: {str(error)[:300]}")


def doctor(run):
    ran = run.mlpeek("doctor", "--device", run.device, limit=150, may_fail=True)
    made = [o for o in ran.objects if "check" in o]
    bad = [f"{o['check']}: {o['detail']}" for o in made if not o["ok"]]
    if not made:
        raise Failed(f"exit status {ran.status}: {' | '.join(ran.said.strip().splitlines()[-3:])[-400:]}")
    verdict = "FAIL" if bad or ran.status else "PASS"
    run.line("doctor", len(made) - len(bad), len(made), verdict=verdict, unit="checks", note="; ".join(bad)[:400])
    for found in made:
        if found["check"].startswith("rate"):
            run.line("doctor.rate", verdict="RATE", note=found["detail"])


def parity(run):
    def one(full, model, dtype):
        if dtype not in run.plan["dtypes"]:
            raise Skipped("the CPU computes in f32")
        layers, ids = run.plan["hooked"][model], run.plan["prompt"][model]
        ours, ran = run.forward(model, dtype, ids, layers, HOOKS, full)
        if run.device != "cpu" and "on cpu" in ran.said:
            raise Failed(f"it was computed on the CPU: {ran.said.strip()[-200:]}")
        exact, own = expected(run, f"parity.{model}.f32"), expected(run, f"parity.{model}.{dtype}")
        held_to(run, full, dtype, ours, exact, own)

    each(run, "parity", one, [(model, dtype) for model in run.plan["shapes"] for dtype in ("f32", "bf16")])


def cached_rows(study, layer):
    """The rows of a study's cache, in f32."""
    parts = []
    for path in sorted(pathlib.Path(study, "cache", f"blocks.{layer}.mlp.hook_post").glob("shard-*.rows")):
        head = path.read_bytes()[:64] if path.stat().st_size < 1 << 20 else open(path, "rb").read(64)
        kind, width = int.from_bytes(head[12:16], "little"), int.from_bytes(head[16:24], "little")
        count = int.from_bytes(head[24:32], "little")
        stored = np.memmap(path, ["<f4", "<f2", "<u2"][kind], "r", 64)[: count * width].reshape(count, width)
        parts.append((kind, stored))
    if not parts:
        raise Failed(f"{study} has no rows of layer {layer}")
    return parts


def pick(parts, rows):
    """Some rows of the shards, ascending."""
    out, start = [], 0
    for kind, stored in parts:
        here = [r - start for r in rows if start <= r < start + len(stored)]
        picked = np.array(stored[here])
        out.append((picked.astype(np.uint32) << 16).view(np.float32) if kind == 2 else picked.astype(np.float32))
        start += len(stored)
    return np.concatenate(out)


def collected(run, model, layer, corpus, name, dtype, limit):
    study = run.out(name)
    ran = run.mlpeek(
        "collect", "--model", run.model(model), "--device", run.device, "--layer", layer, "--dtype", dtype, "--data", corpus,
        "--out", study, limit=limit,
    )
    return study, ran.objects[-1]


def long(run):
    def one(full, model):
        ids, dtype, last = run.plan["long"][model], run.plan["collect_dtype"], run.plan["last"][model]
        corpus = run.work / f"{full}.jsonl"
        corpus.write_text(json.dumps({"text": plans.text(ids)}) + "\n")
        study, found = collected(run, model, last, corpus, full, dtype, 120)
        if found["token_count"] != len(ids):
            raise Failed(f"{found['token_count']} rows of {len(ids)} tokens")
        exact, own = expected(run, f"long.{model}.f32"), expected(run, f"long.{model}.{dtype}")
        wanted = exact.pop("at").tolist()
        held_to(run, full, dtype, {"rows": pick(cached_rows(study, last), wanted)}, exact, own)

    each(run, "long", one, [(model,) for model in run.plan["shapes"]])


def load(run):
    dtype = run.plan["dtypes"][0]
    theirs = run.reference(f"load.llama.{dtype}")["seconds"]
    seconds = min(run.forward("llama", dtype, [1, 5], [0], HOOKS[:1], "load")[1].seconds for _ in range(2))
    size = run.reference("make.llama")["bytes"]
    rate(run, "load", 1 / seconds, 1 / theirs, "loads/s", f"{seconds:.2f} s of the whole command, {theirs:.2f} s from_pretrained")
    run.line("load.bytes", size / seconds / 1e9, size / theirs / 1e9, verdict="RATE", unit="GB/s")


def collect(run):
    dtype, last, corpus = run.plan["collect_dtype"], run.plan["last"]["llama"], run.plan["corpus"]
    study, found = collected(run, "llama", last, run.corpus("corpus"), "study", dtype, 150)
    shutil.rmtree(run.work / "study", ignore_errors=True)
    study.rename(run.work / "study")
    if found["dtype"] != dtype:
        raise Failed(f"the study holds {found['dtype']}, and not {dtype}")
    theirs = run.reference(f"collect.llama.{dtype}", 150)
    rows, width = theirs["tokens"], theirs["width"]
    if (found["token_count"], found["width"]) != (rows, width):
        raise Failed(f"{found['token_count']} × {found['width']} values, and not {rows} × {width}")

    def values():
        wanted = sorted(set(np.linspace(0, rows - 1, 512).astype(int).tolist()))
        stored = np.memmap(run.work / "reference" / "collect.llama.rows", "<u2" if dtype == "bf16" else "<f4", "r")
        reference = pick([(2 if dtype == "bf16" else 0, stored[: rows * width].reshape(rows, width))], wanted)
        ours = pick(cached_rows(run.work / "study", last), wanted)
        same_shape(ours, reference, "the cache")
        if dtype == "f32":
            run.within("collect.values", largest_error(ours, reference), F32_LIMIT)
            return
        # Two computations in bf16, each as far from f32 as transformers' at the same hook.
        key = f"blocks.{last}.mlp.hook_post"
        noise = rms_error(expected(run, f"parity.llama.{dtype}")[key], expected(run, "parity.llama.f32")[key])
        run.within("collect.values", rms_error(ours, reference), 1.5 * BF16_RATIO * noise, "bf16 beside bf16")

    guarded(run, "collect.values", values)
    ours = rows / found["elapsed_s"]
    rate(run, "collect.rate", ours, rows / theirs["seconds"], "tokens/s")
    shape = run.plan["shapes"]["llama"]
    per_token = run.reference("make.llama")["parameters"] - 2 * shape["vocab_size"] * shape["hidden_size"]
    limit_share(run, "collect.flops", 2 * per_token * ours / 1e12, "flops", "TFLOP/s")


def fit_input(run):
    """A study of some rows of the collected one, as f32; made once in a work folder."""
    study = run.work / "rows"
    if (study / "study.json").exists():
        return study
    if not (run.work / "study" / "study.json").exists():
        run.check_time()
        raise Failed("there is no collected study: see collect")
    rows = pick(cached_rows(run.work / "study", run.plan["last"]["llama"]), range(run.plan["fit"]["rows"]))
    np.save(run.work / "rows.npy", rows)
    run.mlpeek("import", run.work / "rows.npy", "--out", run.out("rows"), limit=120)
    (run.work / "out" / "rows").rename(study)
    return study


def fitted(run, study, device, name, features, sweeps, limit):
    ran = run.mlpeek(
        "fit", study, "--features", features, "--max-sweeps", sweeps, "--patience", 1000, "--device", device, "--name", name,
        "--fresh", limit=limit,
    )
    found = ran.objects[-1]
    if found.get("event") != "fitted":
        raise Failed(f"the last line of fit is of {found.get('event')}")
    return found, ran


def factors(study, name):
    """Y and Z of a fit, by its files (mlpeek guide files)."""
    fit = pathlib.Path(study, "fits", name)
    saved = json.loads((fit / "config.json").read_text())["saved"]
    y = np.fromfile(fit / saved["y"]["file"], "<f4").reshape(saved["features"], saved["rows"]).T
    stored = load_file(fit / saved["z"]["file"])
    z = np.zeros((saved["neurons"], saved["features"]), "f4")
    for j in range(saved["features"]):
        part = slice(int(stored["offsets"][j]), int(stored["offsets"][j + 1]))
        z[stored["indices"][part], j] = stored["values"][part]
    return y, z


def fit(run):
    if not (run.work / "study" / "study.json").exists() and "collect" not in run.begun:
        begin(run, "collect")
    study, asked = fit_input(run), run.plan["fit"]
    on_device, ran = fitted(run, study, run.device, "device", asked["features"], asked["sweeps"], 150)
    if run.device != "cpu" and "the CPU fits" in ran.said:
        raise Failed(f"the CPU fitted: {ran.said.strip()[-200:]}")

    def residual():
        rows = np.load(run.work / "rows.npy", mmap_mode="r")
        y, z = factors(study, "device")
        squares = [0.0, 0.0]
        for start in range(0, len(rows), 4096):
            block = rows[start : start + 4096].astype(np.float64)
            squares[0] += np.square(block - y[start : start + 4096].astype(np.float64) @ z.T.astype(np.float64)).sum()
            squares[1] += np.square(block).sum()
        error, said = squares[0] / squares[1], on_device["relative_error"]
        verdict = "PASS" if abs(said - error) <= FIT_LIMIT else "FAIL"
        run.line("fit.residual", said, error, verdict=verdict, note="‖A − YZᵀ‖² / ‖A‖² in f64 from the saved factors")

    guarded(run, "fit.residual", residual)

    def beside_the_cpu():
        run.card_only("one device alone")
        on_cpu, _ = fitted(run, study, "cpu", "cpu", asked["features"], asked["sweeps"], 200)
        errors = on_device["relative_error"], on_cpu["relative_error"]
        verdict = "PASS" if abs(errors[0] - errors[1]) <= FIT_LIMIT else "FAIL"
        run.line("fit.error", *errors, verdict=verdict, note=f"they differ by {abs(errors[0] - errors[1]):.1e}")
        sweep, start = [], []
        for found in (on_device, on_cpu):
            sweep.append(max(found["elapsed_s"], 1e-9) / max(found["sweep_count"], 1))
            start.append(found["init_s"])
        run.line("fit.sweep", *sweep, verdict="PASS" if sweep[0] < sweep[1] else "FAIL", unit="s", note="card and CPU")
        run.line("fit.start", *start, verdict="RATE", unit="s", note="card and CPU")

    guarded(run, "fit.error", beside_the_cpu)


def direction(run):
    """A study of a few texts with a small fit, whose feature 0 steers; made once in a work folder."""
    study, layer = run.work / "small", run.plan["steered_layer"]
    path = run.work / "direction.safetensors"
    if not path.exists():
        made, _ = collected(run, "llama", layer, run.corpus("small_corpus"), "small", run.plan["collect_dtype"], 120)
        shutil.rmtree(study, ignore_errors=True)
        made.rename(study)
        fitted(run, study, "cpu", "steered", 8, 5, 120)
        z = factors(study, "steered")[1][:, 0].copy()
        save_file({"z": z / np.linalg.norm(z)}, path)
    return study


def steered(run, dtype, *options, limit=90):
    study = direction(run)
    compute = run.computing(dtype)
    ran = run.mlpeek(
        "steer", study, "0", "--fit", "steered", "--prompt", plans.text(run.plan["prompt"]["llama"]), "--temperature", 0,
        *compute, *options, limit=limit,
    )
    return ran.objects[-1], ran.seconds


def asked_of_steering(run):
    """What the program does, which transformers is then held against: the strength of a KL, and ids at that strength."""
    path = run.work / "steer.json"
    found = {}
    for dtype in run.plan["dtypes"]:
        searched, _ = steered(run, dtype, "--kl", 0.25, "--max-tokens", 1)
        found[dtype] = {"kl_alpha": searched["alpha"], "kl": searched["kl"], "remark": searched["remark"]}
        found.setdefault("alpha", searched["alpha"])
        new = run.plan["new_tokens"]
        texts, seconds = steered(run, dtype, "--alpha", found["alpha"], "--max-tokens", new)
        if dtype == run.plan["dtypes"][0]:
            first = steered(run, dtype, "--alpha", found["alpha"], "--max-tokens", 2)[1]
            found[dtype]["step_seconds"] = (seconds - first) / (new - 2)
        for kind, name in (("plain", "baseline"), ("added", "steered")):
            ids = plans.ids_of(texts[name][0])
            if len(ids) != new or not all(0 <= i < run.plan["shapes"]["llama"]["vocab_size"] for i in ids):
                raise Failed(f"the {name} text has {len(ids)} ids of the vocabulary, and not {new}")
            found[dtype][kind] = ids
    path.write_text(json.dumps(found))
    return found


def steering(run):
    """What the program and transformers did, once a run; so is the failure."""
    if run.steering is None:
        try:
            ours = asked_of_steering(run)
            step = "steer.llama.all"
            (run.work / "reference" / f"{step}.json").unlink(missing_ok=True)
            run.steering = ours, run.reference(step, 150)
        except (Failed, Skipped) as stopped:
            run.steering = stopped
    if isinstance(run.steering, Exception):
        raise run.steering
    return run.steering


def kl(run):
    ours, theirs = steering(run)

    def one(full, dtype):
        if dtype not in run.plan["dtypes"]:
            raise Skipped("the CPU computes in f32")
        mine, exact = ours[dtype]["kl"], theirs["f32"][f"kl_at_{dtype}"]
        own = theirs[dtype][f"kl_at_{dtype}"]
        limit = 0.01 * exact if dtype == "f32" else max(0.05 * exact, 2 * abs(own - exact))
        verdict = "PASS" if abs(mine - exact) <= limit and abs(mine - 0.25) < 0.05 else "FAIL"
        note = f"α {ours[dtype]['kl_alpha']:.4g}; within {limit:.1g}; asked for 0.25"
        run.line(full, mine, exact, verdict=verdict, note="; ".join(filter(None, [note, ours[dtype]["remark"]])))

    each(run, "kl", one, [("f32",), ("bf16",)])


def steer(run):
    ours, theirs = steering(run)

    def one(full, kind, dtype):
        if dtype not in run.plan["dtypes"]:
            raise Skipped("the CPU computes in f32")
        mine, found = ours[dtype][kind], theirs[dtype]
        same = next((i for i, (a, b) in enumerate(zip(mine, found[kind])) if a != b), len(mine))
        margin, noise = found[f"{kind}_margin"], found[f"{kind}_noise"]
        verdict = "PASS" if same == len(mine) or margin <= 2 * noise else "FAIL"
        note = f"in f32 each is within {margin:.2g} of the largest logit, {dtype} errs by {noise:.2g}"
        run.line(full, same, len(mine), verdict=verdict, unit="ids the same", note=note)

    each(run, "steer", one, [(kind, dtype) for kind in ("plain", "added") for dtype in ("f32", "bf16")])

    def added_does_something():
        first = run.plan["dtypes"][0]
        differ = sum(a != b for a, b in zip(ours[first]["plain"], ours[first]["added"]))
        run.line("steer.differ", differ, run.plan["new_tokens"], verdict="PASS" if differ else "FAIL", unit="ids")

    guarded(run, "steer.differ", added_does_something)
    first = run.plan["dtypes"][0]
    mine, other = (max(x[first]["step_seconds"], 1e-9) for x in (ours, theirs))
    rate(run, "steer.rate", 2 / mine, 2 / other, "tokens/s", "two rows at once")
    size = run.reference("make.llama")["bytes"]
    limit_share(run, "steer.bytes", size / mine / 1e9, "bandwidth", "GB/s")


def same_tensors(run, name, env):
    """The tensors of a short text under another environment are those of the usual one."""
    dtype, ids = run.plan["dtypes"][0], run.plan["prompt"]["llama"]
    if run.usual is None:
        run.usual, _ = run.forward("llama", dtype, ids, [0, run.plan["last"]["llama"]], HOOKS[:1], "usual")
    other, ran = run.forward("llama", dtype, ids, [0, run.plan["last"]["llama"]], HOOKS[:1], name, env=env)
    worst = max(largest_error(other[key], run.usual[key]) for key in run.usual)
    return worst, ran


def refused(run, name, args, env=None):
    """A command that cannot be done ends with a line."""
    ran = run.mlpeek(*args, limit=60, env=env, may_fail=True)
    said = [line for line in ran.said.splitlines() if line.strip()]
    bad = "it ended with 0" if ran.status == 0 else f"signal {-ran.status}" if ran.status < 0 else ""
    bad = bad or ("it panicked" if "panicked" in ran.said else "it said nothing" if not said else "")
    run.line(name, ran.status, verdict="FAIL" if bad else "PASS", note="; ".join(filter(None, [bad, (said or [""])[-1][-200:]])))


def two_tokens(run, name, device):
    args = ["forward", "--model", run.model("llama"), "--device", device, "--ids", "1,5", "--layer", "0"]
    return args + ["--out", run.out(f"{name}.safetensors")]


def uuid(run):
    run.card_only()
    found = run.reference("facts")["uuid"]
    if not found:
        raise Skipped("this torch does not tell the card's UUID")
    if run.device != "cuda":
        raise Skipped("it is made with --device cuda")
    worst, _ = same_tensors(run, "uuid", {"CUDA_VISIBLE_DEVICES": found})
    run.within("uuid", worst, 1e-6, found)
    nobody = {"CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000000"}
    refused(run, "uuid.unknown", two_tokens(run, "uuid.unknown", "cuda"), nobody)


def path(run):
    run.card_only()
    empty = run.work / "empty"
    empty.mkdir(exist_ok=True)
    worst, ran = same_tensors(run, "path", {"PATH": str(empty)})
    run.within("path", worst, 1e-6)
    unknown = [line.strip() for line in ran.said.splitlines() if "unknown" in line]
    run.line("path.memory", verdict="FAIL" if unknown else "PASS", note="; ".join(unknown)[:300] or "free memory is known")


def missing(run):
    run.card_only()
    refused(run, "missing", two_tokens(run, "missing", "cuda:99"))


CHECKS = {
    "parity": parity, "long": long, "load": load, "collect": collect, "kl": kl, "steer": steer, "fit": fit, "uuid": uuid,
    "path": path, "missing": missing, "doctor": doctor,
}


def begin(run, name):
    run.begun.add(name)
    guarded(run, name, lambda: CHECKS[name](run))


def run_all(run, names):
    for name in CHECKS:
        if name in names:
            begin(run, name)
