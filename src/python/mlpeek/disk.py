"""The kinds of files that a study is made of: JSON, lines of JSON, safetensors.

Files may come from anywhere: every length is checked against what the file holds before it is believed, nothing is executed, and
every error names the file.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checksum import hex_digest
from .errors import MlpeekError, about_file

# The types of safetensors that numpy has, and bfloat16 as the bits that it is.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}
# What the safetensors crate takes for a header at most.
_MOST_HEADER = 100_000_000
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}")


def is_name(name: str) -> bool:
    """Whether mlpeek would give a fit, an autoencoder or an evaluation this name."""
    return _NAME.fullmatch(name) is not None


def names_with(root: Path, file: str) -> list[str]:
    """The folders under `root` that have a name of mlpeek's and hold `file`, sorted."""
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if is_name(entry.name) and (entry / file).is_file())


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise about_file(path, f"cannot be read: {problem.strerror}") from None


def parse_json(path: Path, data: bytes | str, where: str = "") -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise about_file(path, f"{where}no JSON: {problem}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds."""
    value = parse_json(path, read_bytes(path))
    if not isinstance(value, dict):
        raise about_file(path, "holds no JSON object")
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that grows by whole lines; a last line that was cut short is left out. None where there is no file."""
    if not path.exists():
        return []
    lines = read_bytes(path).split(b"\n")[:-1]
    values = [parse_json(path, line, f"line {i}: ") for i, line in enumerate(lines, 1)]
    for i, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise about_file(path, f"line {i}: no JSON object")
    return values


def member(path: Path, value: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """`value[key]`, which must be there and of that type."""
    found = value.get(key)
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise about_file(path, f"has no \"{key}\" as mlpeek writes it")
    return found


def number(path: Path, value: Mapping[str, Any], key: str) -> float | None:
    """`value[key]`, which is a number or is not there."""
    return None if value.get(key) is None else float(member(path, value, key, (int, float)))


def mapped(path: Path, dtype: str, shape: tuple[int, ...], offset: int = 0) -> NDArray[Any]:
    """An array in a file, mapped for reading; the caller has checked that the file is so long."""
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    try:
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    except (OSError, ValueError) as problem:
        raise about_file(path, f"cannot be mapped: {problem}") from None


def size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as problem:
        raise about_file(path, f"cannot be read: {problem.strerror}") from None


class StoredFile:
    """A file that a fit's `config.json` knows by name, length and checksum."""

    def __init__(self, config: Path, about: Mapping[str, Any]) -> None:
        name = member(config, about, "file", str)
        self.bytes: int = member(config, about, "bytes", int)
        self.xxh3: str = member(config, about, "xxh3", str)
        self.path = config.parent / name
        # The name comes from a file: it must not lead out of the folder.
        if Path(name).name != name or name in ("", ".", "..") or "\0" in name or len(name) > 255:
            raise about_file(config, f"names {name[:80]!r}, which is no plain file name")

    def check_length(self) -> None:
        found = size_of(self.path)
        if found != self.bytes:
            raise about_file(self.path, f"truncated or foreign: {found} bytes, not {self.bytes}; fit again")

    def check(self, data: bytes | NDArray[Any]) -> None:
        if hex_digest(data) != self.xxh3:
            raise about_file(self.path, "damaged (checksum); restore it from a copy or fit again")


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a safetensors file, mapped, and its metadata. bfloat16 comes as uint16 (see `bf16_to_f32`)."""
    size = size_of(path)

    def foreign(what: str) -> MlpeekError:
        return about_file(path, f"no safetensors file ({what})")

    if size < 8:
        raise foreign("shorter than its header")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_MOST_HEADER, size - 8):
            raise foreign("its header is longer than it is")
        header = parse_json(path, file.read(length))
    if not isinstance(header, dict):
        raise foreign("its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, about in header.items():
        try:
            dtype, shape, (begin, end) = _DTYPES[about["dtype"]], tuple(about["shape"]), about["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise foreign(f"tensor {name!r}") from None
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        if not whole or end > size - 8 - length or math.prod(shape) * np.dtype(dtype).itemsize != end - begin:
            raise foreign(f"the size of {name!r}")
        tensors[name] = mapped(path, dtype, shape, 8 + length + begin)
    return tensors, metadata if isinstance(metadata, dict) else {}


def bf16_to_f32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bfloat16 numbers that are held as uint16: the upper halves of float32."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)
