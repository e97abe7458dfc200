"""What a person noted of features (`notes.json`) and what judges said (`descriptions.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import read_json
from .errors import about_file


@dataclass(frozen=True)
class Note:
    """What is noted of a feature."""

    #: The name.
    name: str | None = None
    #: Free text.
    text: str = ""
    #: Tags, without `#`.
    tags: tuple[str, ...] = ()
    #: 1 to 5.
    rating: int | None = None
    #: The cosine where a refit carried the note over to a feature that is only somewhat alike.
    doubtful: float | None = None


def _of(path: Path, all: Mapping[str, Any], fit: str) -> dict[str, Any]:
    found = all.get(fit, {})
    if not isinstance(found, dict):
        raise about_file(path, f"has no object for {fit!r}; mend or move it")
    return found


def _by_feature(path: Path, value: Any, kind: type) -> dict[int, Any]:
    fine = isinstance(value, dict) and all(key.isdecimal() and isinstance(one, kind) for key, one in value.items())
    if not fine:
        raise about_file(path, "is not keyed by feature as mlpeek writes it; mend or move it")
    return {int(key): one for key, one in value.items()}


def read_notes(path: Path, fit: str) -> tuple[dict[int, Note], list[str]]:
    """The notes on a fit's features, and lines of notes whose feature a refit took away."""
    if not path.exists():
        return {}, []
    found = _of(path, read_json(path), fit)
    names = _by_feature(path, found.get("names", {}), str)
    details = _by_feature(path, found.get("details", {}), dict)
    notes = {}
    for feature in sorted(names.keys() | details.keys()):
        about = details.get(feature, {})
        tags, text, rating = about.get("tags", []), about.get("text", ""), about.get("rating")
        if not isinstance(tags, list) or not isinstance(text, str) or not isinstance(rating, (int, type(None))):
            raise about_file(path, f"feature {feature} of {fit!r} has no note as mlpeek writes it; mend or move it")
        notes[feature] = Note(names.get(feature), text, tuple(map(str, tags)), rating, about.get("doubtful"))
    unplaced = found.get("unplaced", [])
    return notes, [str(line) for line in unplaced] if isinstance(unplaced, list) else []


def read_descriptions(path: Path, fit: str) -> dict[int, dict[str, Any]]:
    """What judges said of a fit's features."""
    return _by_feature(path, _of(path, read_json(path), fit), dict) if path.exists() else {}
