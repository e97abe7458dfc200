"""Evaluations of steering: `evaluations/<name>/`, a plan and lines that only grow."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from .disk import read_json, read_json_lines

# What tells the texts of an evaluation apart.
_KEY = ("method", "label", "target", "sign", "prompt", "sample")


class Evaluation:
    """What one `mlpeek eval steering` has generated and judged so far. `study.run("eval steering", …)` sums it up."""

    def __init__(self, root: Path, name: str) -> None:
        #: Its name in the study.
        self.name = name
        #: Its directory.
        self.path: Path = root / "evaluations" / name

    def __repr__(self) -> str:
        return f"<Evaluation {self.name}>"

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What was asked for: directions, labels, KL targets, prompts, sampling."""
        return read_json(self.path / "plan.json")

    @cached_property
    def strengths(self) -> list[dict[str, Any]]:
        """The α that was found for each direction and KL target."""
        return read_json_lines(self.path / "strengths.jsonl")

    @cached_property
    def texts(self) -> list[dict[str, Any]]:
        """The texts that were generated: objects of `method`, `label`, `target`, `sign` (0: unsteered), `prompt` and `sample`, which
        tell them apart, and `alpha`, `kl`, `text`, `nll`, `distinct`."""
        return read_json_lines(self.path / "texts.jsonl")

    @cached_property
    def judged(self) -> dict[str, list[dict[str, Any]]]:
        """The judgements, by judge as its file is called; of a text that was judged again the last one counts."""
        out = {}
        for path in sorted(self.path.glob("judged-*.jsonl")):
            last = {tuple(str(line.get(key)) for key in _KEY): line for line in read_json_lines(path)}
            out[path.name.removeprefix("judged-").removesuffix(".jsonl")] = list(last.values())
        return out
