"""`measured/effects-<key>.bin`: what a model was asked about directions; here what each adds to the residual stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checksum import hex_digest, xxh3_64
from .disk import read_bytes
from .errors import MlpeekError
from .hooks import Hook

# α, KL, whether it was reached, and what the norm of the MLP's output multiplies by: the numbers before the push.
_HEAD = 4
# Files of another version hold other records.
_VERSION = 2


def push(
    root: Path, model_sha256: str, d_model: int, vocab: int, hook: Hook, name: str, columns: NDArray[np.float32], feature: int
) -> NDArray[np.float32]:
    """What α = 1 of a direction adds to the residual stream `[d_model]`, from the first file that holds it.

    `columns` `[k, d]` are the directions of the set `name`, which a file knows by their checksum. Raises `MlpeekError` where the
    effect of the direction was not measured.
    """
    digest = hex_digest(columns)
    for path in sorted((root / "measured").glob("effects-*.bin")):
        data = read_bytes(path)
        end = data.find(b"\n")
        try:
            about = json.loads(data[: max(end, 0)])
            prompts = len(about["ask"]["prompts"])
            same = (about["effects"], about["hook"], about["columns"]) == (name, str(hook), digest)
            of = about["of"]
            same = same and (of["version"], of["of"]["weights"]) == (_VERSION, model_sha256)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        size = 4 * (_HEAD + d_model) + 2 * prompts * vocab
        for at in range(end + 1, len(data) - size - 11, size + 12) if same else ():
            record = data[at : at + 4 + size]
            # What follows a record with a wrong checksum counts as absent.
            if xxh3_64(record) != int.from_bytes(data[at + 4 + size : at + 12 + size], "little"):
                break
            if int.from_bytes(record[:4], "little") == feature:
                return np.frombuffer(record, "<f4", d_model, 4 + 4 * _HEAD).copy()
    raise MlpeekError(f"the effect of direction {feature} of {name} was not measured: study.effects({name!r}) measures it")
