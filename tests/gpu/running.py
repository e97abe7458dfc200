"""What the checks of tests/gpu/check share: the table, the children that are started, the folder that they work in."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import plan as plans

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """What went wrong, in a line."""


class Skipped(Exception):
    """Why a check is not made."""


def last_lines(path, count=3):
    """The end of what a child said on standard error, in a line."""
    lines = path.read_text(errors="replace").replace("\r", "\n").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    return " | ".join(said[-count:])[-400:] or "nothing was said on standard error"


class Run:
    """The work folder, the program and the children that were started."""

    def __init__(self, work, program, device, as_json, seconds, alone=None):
        # Why transformers computes no references, where it does not.
        self.alone = alone
        self.work, self.program, self.device, self.as_json = work, program, device, as_json
        self.end_at = time.perf_counter() + seconds
        # What checks of one run share: the tensors of a short text, and what steering did on both sides.
        self.usual = self.steering = None
        self.begun = set()
        self.plan = plans.make(device)
        self.failed, self.counts, self.number, self.tried = False, {}, 0, {}
        for name in ("log", "reference", "out"):
            (work / name).mkdir(parents=True, exist_ok=True)
        (work / "plan.json").write_text(json.dumps(self.plan))

    # What is printed.

    def line(self, name, ours=None, reference=None, ratio=None, verdict="PASS", note="", unit=""):
        if ratio is None and isinstance(ours, (int, float)) and isinstance(reference, (int, float)) and reference:
            ratio = ours / reference
        self.failed |= verdict == "FAIL"
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        if self.as_json:
            values = {"name": name, "ours": ours, "reference": reference, "ratio": ratio, "unit": unit or None}
            print(json.dumps(values | {"verdict": verdict, "note": note or None}), flush=True)
            return
        shown = [x if isinstance(x, str) else "-" if x is None else f"{x:.4g}" for x in (ours, reference, ratio)]
        note = "  ".join(x for x in (unit, note) if x)
        print(f"{name:<26} {shown[0]:>10} {shown[1]:>10} {shown[2]:>8} {verdict:<4}  {note}".rstrip(), flush=True)

    def within(self, name, ours, limit, note=""):
        """A value that passes up to a limit; not a number fails."""
        self.line(name, ours, limit, verdict="PASS" if ours <= limit else "FAIL", note=note)

    # What is run.

    def child(self, label, command, limit, env=None, may_fail=False):
        """Runs a command in a process group of its own, ended with the group at its time limit."""
        self.check_time()
        limit = min(limit, self.end_at - time.perf_counter())
        self.number += 1
        out, err = (self.work / "log" / f"{self.number:03}-{label}.{end}" for end in ("out", "err"))
        with open(self.work / "log" / "commands", "a") as log:
            log.write(f"{self.number:03} {' '.join(map(str, command))}\n")
        start = time.perf_counter()
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            started = subprocess.Popen(
                [str(c) for c in command], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
                env=os.environ | (env or {}),
            )
            try:
                status = started.wait(limit)
            except subprocess.TimeoutExpired:
                self.end(started)
                self.check_time()
                raise Failed(f"{label}: not done after {limit:.0f} s: {last_lines(err)}") from None
            except BaseException:
                self.end(started)
                raise
        seconds = time.perf_counter() - start
        if status and not may_fail:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise Failed(f"{label}: {how}: {last_lines(err)}")
        return status, out, err, seconds

    def check_time(self):
        if self.end_at - time.perf_counter() < 5:
            raise Skipped("no time is left of --limit; go on with --work and --only")

    @staticmethod
    def end(started):
        try:
            os.killpg(started.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        started.wait()

    def mlpeek(self, *args, limit=60, env=None, may_fail=False):
        """The program with --json; its objects, seconds, and what it said."""
        status, out, err, seconds = self.child(args[0], [self.program, *args, "--json"], limit, env, may_fail)
        objects = []
        for text in out.read_text(errors="replace").splitlines():
            try:
                objects.append(json.loads(text))
            except ValueError:
                raise Failed(f"{args[0]} printed a line that is no JSON: {text[:120]}") from None
        if not objects and not may_fail:
            raise Failed(f"{args[0]} printed nothing: {last_lines(err)}")
        return Ran(status, objects, err.read_text(errors="replace"), seconds)

    def reference(self, step, limit=150):
        """What transformers found in a step; the steps of its group are done together, once a run."""
        path = self.work / "reference" / f"{step}.json"
        if step.count(".") == 2:
            self.model(step.split(".")[1])
        if self.alone and not step.startswith("make."):
            raise Skipped(self.alone)
        if step in self.tried and not path.exists():
            raise self.tried[step]
        if not self.found(path) and step not in self.tried:
            group = next((g for g in self.groups() if step in g), [step])
            missing = [s for s in group if not self.found(self.work / "reference" / f"{s}.json")]
            if self.alone:
                missing = [s for s in missing if s.startswith("make.")]
            unknown = Failed(f"the reference {step} was not computed: see {self.work / 'log'}")
            self.tried.update(dict.fromkeys(missing, unknown))
            for old in missing:
                (self.work / "reference" / f"{old}.json").unlink(missing_ok=True)
            try:
                maker = "made.py" if self.alone else "reference.py"
                self.child("reference", [sys.executable, HERE / maker, self.work, *missing], limit)
            except (Failed, Skipped) as stopped:
                self.tried.update(dict.fromkeys(missing, stopped))
        if not path.exists():
            raise self.tried[step]
        found = json.loads(path.read_text())
        if "error" in found:
            raise Failed(f"the reference {step}: {found['error']}")
        return found

    @staticmethod
    def found(path):
        return path.exists() and "error" not in json.loads(path.read_text())

    def groups(self):
        """Steps that share a process and the weights in it: those in a model's first dtype, then in its next."""
        dtypes, out = self.plan["dtypes"], [["facts", "make.llama", "make.gemma2"]]
        for model in self.plan["shapes"]:
            steps = [f"load.{model}.{dtypes[0]}"]
            for dtype in dtypes:
                steps += [f"parity.{model}.{dtype}", f"long.{model}.{dtype}"]
                if model == "llama" and dtype == self.plan["collect_dtype"]:
                    steps.append(f"collect.{model}.{dtype}")
            out.append(steps)
        return out

    # What several checks need, made once in a work folder.

    def model(self, name):
        self.reference(f"make.{name}")
        return self.work / name

    def computing(self, dtype):
        """Where a model computes, and on a card in what."""
        return ["--device", self.device] + ([] if self.device == "cpu" else ["--dtype", dtype])

    def corpus(self, name):
        path = self.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": plans.text(ids)}) + "\n" for ids in self.plan[name]))
        return path

    def out(self, name):
        """A place for what the program writes, empty."""
        path = self.work / "out" / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path

    def forward(self, model, dtype, ids, layers, hooks, name, limit=60, env=None):
        from safetensors.numpy import load_file

        path = self.out(f"{name}.safetensors")
        args = ["forward", "--model", self.model(model), *self.computing(dtype), "--ids", ",".join(map(str, ids))]
        args += ["--layer", ",".join(map(str, layers)), "--hook", ",".join(hooks), "--out", path]
        ran = self.mlpeek(*args, limit=limit, env=env)
        return load_file(path), ran

    def card_only(self, why="it is about a card"):
        if self.device == "cpu":
            raise Skipped(f"--device cpu: {why}")


class Ran:
    """What one run of the program gave."""

    def __init__(self, status, objects, said, seconds):
        self.status, self.objects, self.said, self.seconds = status, objects, said, seconds
