"""Holds the program on a card against transformers on the same card, with random models made on the spot.

It prints a line a check: name, our value, the reference's, their ratio, and PASS, FAIL (with the reason), SKIP (with the
reason) or RATE (a speed, which is no verdict). The exit status is 1 if a check failed, 2 if none could be made.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import plan as plans
from running import Run

HERE = pathlib.Path(__file__).resolve().parent
EPILOG = """\
checks, in their order:
  parity   hooks of three layers and logits in f32 (largest difference, limit 1e-4 of the largest value) and in bf16
           (error against transformers in f32, at most 1.25 times transformers' own in bf16)
  long     one row of 9,000 tokens (Llama), of 5,000 (Gemma 2, whose window is 4,096): the last layer's activations
  load     seconds from the start of the program to two tokens' logits, beside from_pretrained
  collect  400 texts of 512 tokens at the last layer, beside a hook with .cpu() and tofile: values and tokens a second
  kl       the KL at the strength that --kl 0.25 finds, beside transformers' at that strength
  steer    128 greedy tokens, with and without a vector added, beside generate: the same ids, or ids that are as likely
           within the error of the dtype; tokens a second
  fit      400 features: the error on the card and on the CPU (within 1e-4), the reported error beside one computed from the
           saved factors, seconds a sweep and of the start
  uuid     CUDA_VISIBLE_DEVICES by UUID gives the same tensors; a UUID that no card has is refused
  path     a PATH without nvidia-smi gives the same tensors, and free memory is known
  missing  --device cuda:99 is refused in a line
  doctor   the program's own self-test on the device (mlpeek doctor --device)

It needs Python with torch (for the card), transformers 5, safetensors and numpy; accelerate is used where it is there.
On a card it needs 40 GB of free disk in the work folder. With --device cpu all of it runs on toy shapes in minutes, and
what needs a card is skipped; there it does without torch and transformers too, and skips what is held against them.
MLPEEK_TEST_DEVICE=generic then has the program compute by the operations of a card.

examples:
  tests/gpu/check --program target/release/mlpeek
  tests/gpu/check --program target/release/mlpeek --work /scratch/check --only fit --only steer
  PYTHON=venv/bin/python tests/gpu/check --device cpu --program target/release/mlpeek
"""


def arguments():
    parser = argparse.ArgumentParser(
        prog="tests/gpu/check", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", help="the program [default: MLPEEK, or target/release/mlpeek]")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu [default: cuda]")
    parser.add_argument("--work", type=pathlib.Path, help="work folder, kept; models and references in it are used again "
                        "[default: a temporary one, removed at the end]")
    parser.add_argument("--only", action="append", metavar="NAME", help="only these checks; may be repeated")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="checks that have not begun by then are skipped, and "
                        "a child is ended [default: 360 on a card, none on the CPU]")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser.parse_args()


def refuse(problem):
    print(f"tests/gpu/check: {problem}", file=sys.stderr)
    sys.exit(2)


def needed(device):
    """What a run needs, said where it is missing; why references cannot be computed where it can do without them."""
    missing = [name for name in ("torch", "transformers", "safetensors", "numpy") if importlib.util.find_spec(name) is None]
    if device == "cpu" and missing and set(missing) <= {"torch", "transformers"}:
        return f"{' and '.join(missing)} not found: what is held against transformers is not made"
    if missing:
        refuse(f"{sys.executable} lacks {', '.join(missing)}: pip install torch transformers safetensors numpy accelerate")
    version = importlib.metadata.version("transformers")
    if int(version.split(".")[0]) < 5:
        refuse(f"transformers {version} is too old: 5 or later is needed")
    if device != "cpu":
        seen = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
        asked = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, timeout=120)
        if asked.stdout.strip() in ("", "0"):
            refuse(f"torch sees no card; --device cpu runs toy shapes. {asked.stderr.strip()[-200:]}")
    return None


def main():
    args = arguments()
    if args.device not in ("cpu", "cuda") and not (args.device.startswith("cuda:") and args.device[5:].isdigit()):
        refuse(f"--device {args.device}: give cuda, cuda:N or cpu")
    alone = needed(args.device)
    import checks  # Only now: it needs NumPy and safetensors.

    names = list(checks.CHECKS)
    unknown = [name for name in args.only or [] if name not in names]
    if unknown:
        refuse(f"no check is named {', '.join(unknown)}: there are {', '.join(names)}")
    program = args.program or os.environ.get("MLPEEK") or HERE.parent.parent / "target/release/mlpeek"
    program = pathlib.Path(shutil.which(program) or program).resolve()
    if not os.access(program, os.X_OK) or program.is_dir():
        refuse(f"{program} is not a program: name it with --program or MLPEEK")
    work = args.work or pathlib.Path(tempfile.mkdtemp(prefix="mlpeek-gpu-check-"))
    work.mkdir(parents=True, exist_ok=True)
    work = work.resolve()
    earlier = work / "plan.json"
    if earlier.exists() and json.loads(earlier.read_text()) != plans.make(args.device):
        refuse(f"{work} is of a run with another device or other sizes: give another --work")
    limit = args.limit or (float("inf") if args.device == "cpu" else 360)
    run, start = Run(work, program, args.device, args.json, limit, alone), time.perf_counter()
    try:
        checks.run_all(run, args.only or names)
    finally:
        if args.work is None:
            for entry in work.iterdir() if run.failed else []:
                if entry.name != "log":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            if run.failed:
                print(f"what was said lies in {work / 'log'}", file=sys.stderr)
            else:
                shutil.rmtree(work, ignore_errors=True)
    if not args.json:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(run.counts.items()))
        print(f"{counts}; {time.perf_counter() - start:.0f} s", flush=True)
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    sys.exit(main())
