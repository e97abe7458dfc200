"""The rows of a study as tokens of its texts: `tokens.bin` and `tokens.samples-<i>.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checksum import hex_digest, xxh3_64
from .disk import parse_json, read_bytes
from .errors import about_file

_HEADER = 64
_MAGIC = b"MLPKTOKS"
_REMEDY = "restore it from a copy, or delete it and run the same collect again, which then starts from the first sample"


class Sample(NamedTuple):
    """A text of the corpus and its label, where it has one."""

    text: str
    label: str | None


class Token(NamedTuple):
    """One row: the token's id and text, its position in its sample (BOS counts, and has no row), and the sample's number."""

    id: int
    piece: str
    position: int
    sample: int


@dataclass(frozen=True)
class Tokens:
    """The n tokens that the rows of every array of the study belong to. `len(tokens)` is n, `tokens[i]` one `Token`."""

    #: `[n]` uint32: the token's number in the vocabulary.
    ids: NDArray[np.uint32]
    #: `[n]` uint32: its position in its sample.
    positions: NDArray[np.uint32]
    #: `[n]` uint32: the number of its sample in `study.samples`.
    samples: NDArray[np.uint32]
    #: The text of each id that occurs, as mlpeek shows it.
    pieces: dict[int, str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> Token:
        id = int(self.ids[row])
        return Token(id, self.pieces[id], int(self.positions[row]), int(self.samples[row]))

    def strings(self, rows: slice | NDArray[np.integer] = slice(None)) -> list[str]:
        """The texts of some rows' tokens, or of all."""
        return [self.pieces[id] for id in self.ids[rows].tolist()]

    def rows_of(self, sample: int) -> slice:
        """The rows of a sample; they follow each other."""
        low, high = np.searchsorted(self.samples, [sample, sample + 1])
        return slice(int(low), int(high))


def of_matrix(rows: int) -> Tokens:
    """The rows of an imported matrix, which have no tokens: each is named by its number."""
    numbers = np.arange(rows, dtype=np.uint32)
    return Tokens(numbers, np.zeros(rows, np.uint32), numbers, {i: f"row {i}" for i in range(rows)})


@dataclass
class _Segment:
    first_sample: int
    counts: NDArray[np.uint32]
    pairs: NDArray[np.uint32]
    pieces: list[tuple[int, str]]


def _is_header(head: bytes) -> bool:
    sound = len(head) == _HEADER and head.startswith(_MAGIC)
    return sound and xxh3_64(head[:56]) == int.from_bytes(head[56:], "little") and head[8:12] == b"\1\0\0\0"


def _segment(data: bytes, at: int) -> tuple[_Segment, int] | None:
    """The segment at byte `at` and where it ends; `None` where it is torn, damaged or foreign."""
    head = data[at : at + _HEADER]
    if not _is_header(head):
        return None
    piece_count = int.from_bytes(head[12:16], "little")
    samples, rows, first_sample, length, checksum = np.frombuffer(head, "<u8", 5, 16).tolist()
    payload = data[at + _HEADER : at + _HEADER + length]
    if len(payload) != length or xxh3_64(payload) != checksum or 4 * samples + 8 * rows > length:
        return None
    counts = np.frombuffer(payload, "<u4", samples)
    if int(counts.sum(dtype=np.uint64)) != rows:
        return None
    pairs = np.frombuffer(payload, "<u4", 2 * rows, 4 * samples).reshape(rows, 2)
    pieces, place = [], 4 * samples + 8 * rows
    for _ in range(piece_count):
        if place + 8 > length:
            return None
        id, size = int.from_bytes(payload[place : place + 4], "little"), int.from_bytes(payload[place + 4 : place + 8], "little")
        place += 8 + size
        if place > length:
            return None
        try:
            pieces.append((id, payload[place - size : place].decode()))
        except UnicodeDecodeError:
            return None
    return (_Segment(first_sample, counts, pairs, pieces), at + _HEADER + length) if place == length else None


def read_tokens(path: Path, rows: int, sample_count: int) -> Tokens:
    """The token table, of which `rows` rows must be whole.

    A last segment that was cut short counts as absent, since a kill can leave it; damage before whole segments is an error.
    """
    data = read_bytes(path) if path.exists() else b""
    segments: list[_Segment] = []
    at = due = 0
    while (found := _segment(data, at)) is not None:
        segment, end = found
        if segment.first_sample != due:
            raise about_file(path, f"damaged at byte {at}: samples are missing before it; {_REMEDY}")
        segments.append(segment)
        at, due = end, due + len(segment.counts)
    later = data.find(_MAGIC, at + 1)
    while later != -1:
        if _is_header(data[later : later + _HEADER]):
            raise about_file(path, f"damaged at byte {at} (checksum); {_REMEDY}")
        later = data.find(_MAGIC, later + 1)
    held = sum(len(segment.pairs) for segment in segments)
    if held < rows:
        problem = f"truncated or damaged: {held} of {rows} rows are whole; run the same collect again, which goes on from there"
        raise about_file(path, problem)
    if due > sample_count:
        raise about_file(path, "holds more samples than the study's corpora; restore it from a copy")
    pieces = {id: piece for segment in segments for id, piece in segment.pieces}
    pairs = np.concatenate([np.empty((0, 2), np.uint32), *(segment.pairs for segment in segments)])
    counts = np.concatenate([np.empty(0, np.uint32), *(segment.counts for segment in segments)])
    samples = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    unknown = set(np.unique(pairs[:, 0]).tolist()) - pieces.keys()
    if unknown:
        raise about_file(path, f"has no text for token {min(unknown)}; {_REMEDY}")
    ids, positions = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    return Tokens(ids, positions, samples, pieces)


def read_samples(path: Path, expected: int) -> list[Sample]:
    """The texts and labels of one corpus."""
    data = read_bytes(path)
    damaged = about_file(path, "damaged (checksum); restore it from a copy")
    if not data.endswith(b"\n"):
        raise damaged
    split = data.rfind(b"\n", 0, len(data) - 1) + 1
    footer = parse_json(path, data[split:], "last line: ")
    if not isinstance(footer, dict) or footer.get("xxh3") != hex_digest(data[:split]):
        raise damaged
    samples = []
    for line in data[:split].split(b"\n")[:-1]:
        value = parse_json(path, line)
        text, label = (value.get("text"), value.get("label")) if isinstance(value, dict) else (None, None)
        if not isinstance(text, str) or not (label is None or isinstance(label, str)):
            raise damaged
        samples.append(Sample(text, label))
    if not len(samples) == footer.get("samples") == expected:
        raise about_file(path, f"holds {len(samples)} samples where study.json says {expected}")
    return samples
