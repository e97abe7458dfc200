"""The activations of a hook: the shards of a cache as one array that is mapped, not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checksum import xxh3_64
from .disk import bf16_to_f32, mapped, size_of
from .errors import MlpeekError, about_file
from .hooks import Hook

_HEADER = 64
_MAGIC = b"MLPKROWS"
_DTYPES = {0: ("f32", "<f4"), 1: ("f16", "<f2"), 2: ("bf16", "<u2")}
_SHARD = re.compile(r"shard-(\d{6,10})\.rows")
_REMEDY = "restore it, or delete it and every later shard beside it and run the same collect again, which goes on from there"


class Activations:
    """Activations A `[n, d]` of one hook, a row a token, in the order of the study's tokens.

    Index it as an array: `a[10]`, `a[100:200]`, `a[rows, :5]`, `a[mask]`. Rows of one shard come as a view of the file, rows of
    several as a copy. Values of an f32 or f16 cache have that type; those of a bf16 cache, which numpy does not have, are cast to
    float32 (`parts` has them as they are). `np.asarray(a)` is the whole array, in memory where there are several shards;
    `a.blocks()` goes through it a block at a time.
    """

    def __init__(self, folder: Path, hook: Hook, width: int, rows: int) -> None:
        #: Where in the model.
        self.hook = hook
        #: How values are stored: `f32`, `f16` or `bf16`.
        self.stored = "f32"
        self._paths: list[Path] = []
        self._sums: list[int] = []
        self._whole: list[NDArray[Any]] = []
        self._open(folder, width)
        held = sum(map(len, self._whole))
        if held < rows:
            raise about_file(folder, f"holds {held} rows where {rows} are due; run the same collect again")
        #: The shards as they lie on disk, each `[rows, d]`: float32, float16, or bfloat16 as uint16.
        self.parts: list[NDArray[Any]] = []
        for part in self._whole:
            # A cache may be ahead of the tokens for an instant while collecting goes on.
            part = part[: max(0, rows - sum(map(len, self.parts)))]
            if len(part):
                self.parts.append(part)
        self._starts = np.cumsum([0, *map(len, self.parts)])
        #: n and d.
        self.shape: tuple[int, int] = (rows, width)
        #: The type of the values that indexing gives.
        self.dtype: np.dtype[Any] = np.dtype(np.float16 if self.stored == "f16" else np.float32)

    def _open(self, folder: Path, width: int) -> None:
        found = sorted(int(m[1]) for m in map(_SHARD.fullmatch, _names(folder)) if m)
        if not found:
            raise about_file(folder, "holds no complete shard yet; run collect first")
        first_row = 0
        for index in range(found[-1] + 1):
            path = folder / f"shard-{index:06}.rows"
            if index not in found:
                raise about_file(path, f"this shard is missing; {_REMEDY}")
            size = size_of(path)
            with path.open("rb") as file:
                head = file.read(_HEADER)
            stored, dtype, rows, checksum = _header(path, head, size, width, first_row)
            if index and stored != self.stored:
                raise about_file(path, f"has another dtype than the first shard; {_REMEDY}")
            self.stored = stored
            self._paths.append(path)
            self._sums.append(checksum)
            self._whole.append(mapped(path, dtype, (rows, width), _HEADER))
            first_row += rows

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return 2

    def __repr__(self) -> str:
        return f"<Activations {self.shape[0]} × {self.shape[1]} at {self.hook}, {self.stored}, {len(self.parts)} shard(s)>"

    def _numbers(self, raw: NDArray[Any]) -> NDArray[Any]:
        return bf16_to_f32(raw) if self.stored == "bf16" else raw

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, *others = key if isinstance(key, tuple) else (key,)
        if len(others) > 1:
            raise IndexError("activations have two dimensions")
        columns = others[0] if others else slice(None)
        if rows is Ellipsis:
            rows = slice(None)
        if isinstance(rows, (int, np.integer)):
            part, row = self._place(int(rows))
            return self._numbers(self.parts[part][row, columns])
        if isinstance(rows, slice):
            return self._numbers(self._slice(rows, columns))
        return self._numbers(self._gather(np.asarray(rows), columns))

    def _place(self, row: int) -> tuple[int, int]:
        n = self.shape[0]
        if not -n <= row < n:
            raise IndexError(f"row {row} of {n}")
        row %= n
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return part, row - int(self._starts[part])

    def _slice(self, rows: slice, columns: Any) -> NDArray[Any]:
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            return self._gather(np.arange(start, stop, step), columns)
        pieces = []
        for part, first in zip(self.parts, self._starts):
            low, high = max(start - first, 0), min(stop - first, len(part))
            if low < high:
                pieces.append(part[low:high, columns])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self._none(columns)

    def _gather(self, rows: NDArray[Any], columns: Any) -> NDArray[Any]:
        n = self.shape[0]
        if rows.dtype == bool:
            if rows.shape != (n,):
                raise IndexError(f"a mask of {rows.shape} for {n} rows")
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
            raise IndexError("rows are chosen by a number, a slice, a list of numbers or a mask")
        if rows.size == 0:
            return self._none(columns)
        if rows.min() < -n or rows.max() >= n:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {n}")
        rows = np.where(rows < 0, rows + n, rows)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        sample = self.parts[0][:0][:, columns]
        if sample.ndim == 1:
            out = np.empty(len(rows), sample.dtype)
        else:
            out = np.empty((len(rows), *sample.shape[1:]), sample.dtype)
        for number in np.unique(parts):
            here = parts == number
            out[here] = self.parts[number][rows[here] - self._starts[number]][:, columns]
        return out

    def _none(self, columns: Any) -> NDArray[Any]:
        return self._whole[0][:0][:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = self[:]
        if copy is False and len(self.parts) > 1:
            raise ValueError("several shards make one array only by a copy")
        return np.array(whole, dtype=dtype, copy=True) if copy else np.asarray(whole, dtype=dtype)

    def blocks(self, rows: int = 4096) -> Iterator[NDArray[Any]]:
        """The rows in their order, at most `rows` at a time `[≤ rows, d]`; each block is within one shard."""
        if rows < 1:
            raise ValueError("a block has at least one row")
        for part in self.parts:
            for at in range(0, len(part), rows):
                yield self._numbers(part[at : at + rows])

    def to_torch(self, rows: slice = slice(None), **how: Any) -> Any:
        """Rows as a torch tensor in memory (bf16 stays bfloat16); `how` goes to `Tensor.to`: `device=`, `dtype=`."""
        import torch

        raw = self._slice(rows, slice(None))
        if self.stored == "bf16":
            return torch.from_numpy(np.array(raw).view(np.int16)).view(torch.bfloat16).to(**how)
        return torch.from_numpy(np.array(raw)).to(**how)

    def verify(self) -> None:
        """Reads every shard once and compares its checksum; raises `MlpeekError` that names the first damaged one."""
        for path, part, checksum in zip(self._paths, self._whole, self._sums):
            if xxh3_64(part) != checksum:
                raise about_file(path, f"its data is damaged (checksum); {_REMEDY}")


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError as problem:
        raise about_file(folder, f"cannot be read: {problem.strerror}") from None


def _header(path: Path, head: bytes, size: int, width: int, first_row: int) -> tuple[str, str, int, int]:
    """How values are stored, numpy's word for it, the number of rows and the checksum of the data."""

    def wrong(problem: str) -> MlpeekError:
        return about_file(path, f"{problem}; {_REMEDY}")

    if len(head) < _HEADER:
        raise wrong(f"truncated: {size} bytes, shorter than a header")
    if not head.startswith(_MAGIC):
        raise wrong("not a shard of mlpeek")

    def number(at: int, length: int = 8) -> int:
        return int.from_bytes(head[at : at + length], "little")

    if xxh3_64(head[:56]) != number(56):
        raise wrong("its header is damaged (checksum)")
    if number(8, 4) != 1:
        raise wrong(f"shard version {number(8, 4)}; this package reads version 1")
    if number(12, 4) not in _DTYPES:
        raise wrong(f"unknown dtype number {number(12, 4)}")
    stored, dtype = _DTYPES[number(12, 4)]
    columns, rows = number(16), number(24)
    if columns != width:
        raise wrong(f"has {columns} values a row where the study says {width}")
    due = _HEADER + rows * columns * np.dtype(dtype).itemsize
    if size != due:
        raise wrong(f"{'truncated' if size < due else 'too long'}: {size} bytes where its header says {due}")
    if number(32) != first_row:
        raise wrong(f"starts at row {number(32)} where row {first_row} is due")
    return stored, dtype, rows, number(40)
