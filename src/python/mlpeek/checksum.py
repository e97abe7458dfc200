"""The checksum of a study's files: XXH3-64 with seed 0, as its specification defines it.

numpy does the long inputs, some 200 MB a second, so that the package asks for no compiled module of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_P32_1, _P32_2, _P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_P64_1, _P64_2, _P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P64_4, _P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5

# The default secret of the specification.
_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_STRIPE = 64
_STRIPES_A_BLOCK = (len(_SECRET) - _STRIPE) // 8
_BLOCK = _STRIPE * _STRIPES_A_BLOCK
# Blocks whose stripes are summed at once: 4 MiB of input.
_TOGETHER = 4096


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product & _MASK) ^ (product >> 64)


def _avalanche(h: int) -> int:
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & _MASK
    return h ^ h >> 32


def _avalanche_xxh64(h: int) -> int:
    h ^= h >> 33
    h = h * _P64_2 & _MASK
    h ^= h >> 29
    h = h * _P64_3 & _MASK
    return h ^ h >> 32


def _mix(data: bytes, at: int, secret: int) -> int:
    return _fold(_u64(data, at) ^ _u64(_SECRET, secret), _u64(data, at + 8) ^ _u64(_SECRET, secret + 8))


def _short(data: bytes) -> int:
    """Of at most 16 bytes."""
    n = len(data)
    if n == 0:
        return _avalanche_xxh64(_u64(_SECRET, 56) ^ _u64(_SECRET, 64))
    if n <= 3:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return _avalanche_xxh64(combined ^ _u32(_SECRET, 0) ^ _u32(_SECRET, 4))
    if n <= 8:
        h = (_u32(data, n - 4) + (_u32(data, 0) << 32)) ^ _u64(_SECRET, 8) ^ _u64(_SECRET, 16)
        h ^= ((h << 49 | h >> 15) ^ (h << 24 | h >> 40)) & _MASK
        h = h * 0x9FB21C651E98DF25 & _MASK
        h ^= (h >> 35) + n
        h = h * 0x9FB21C651E98DF25 & _MASK
        return h ^ h >> 28
    low = _u64(data, 0) ^ _u64(_SECRET, 24) ^ _u64(_SECRET, 32)
    high = _u64(data, n - 8) ^ _u64(_SECRET, 40) ^ _u64(_SECRET, 48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return _avalanche((n + swapped + high + _fold(low, high)) & _MASK)


def _middle(data: bytes) -> int:
    """Of 17 to 240 bytes."""
    n = len(data)
    total = n * _P64_1
    if n <= 128:
        for i in range((n - 1) // 32 + 1):
            total += _mix(data, 16 * i, 32 * i) + _mix(data, n - 16 * (i + 1), 32 * i + 16)
        return _avalanche(total & _MASK)
    total += sum(_mix(data, 16 * i, 16 * i) for i in range(8))
    total = _avalanche(total & _MASK)
    total += sum(_mix(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, n // 16))
    return _avalanche((total + _mix(data, n - 16, 119)) & _MASK)


_SECRET_ARRAY = np.frombuffer(_SECRET, np.uint8)
_KEYS = np.stack([_SECRET_ARRAY[8 * i : 8 * i + _STRIPE].view("<u8") for i in range(_STRIPES_A_BLOCK)])
_SCRAMBLE = _SECRET_ARRAY[len(_SECRET) - _STRIPE :].view("<u8")
_LAST = _SECRET_ARRAY[len(_SECRET) - _STRIPE - 7 : -7].copy().view("<u8")
_NEIGHBOURS = np.arange(8) ^ 1
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def _stripes(data: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What stripes `[…, stripes, 8]` add to the eight sums, `[…, 8]`."""
    keyed = data ^ keys
    added: NDArray[np.uint64] = (keyed & _LOW) * (keyed >> _HALF) + data[..., _NEIGHBOURS]
    return np.asarray(added.sum(axis=-2, dtype=np.uint64))


def _long(data: NDArray[np.uint8]) -> int:
    """Of more than 240 bytes."""
    n = len(data)
    sums = np.array([_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1], np.uint64)
    shift, prime = np.uint64(47), np.uint64(_P32_1)
    blocks = (n - 1) // _BLOCK
    for first in range(0, blocks, _TOGETHER):
        last = min(first + _TOGETHER, blocks)
        part = data[first * _BLOCK : last * _BLOCK].view("<u8").reshape(-1, _STRIPES_A_BLOCK, 8)
        for added in _stripes(part, _KEYS):
            sums += added
            sums ^= sums >> shift
            sums ^= _SCRAMBLE
            sums *= prime
    stripes = (n - 1 - blocks * _BLOCK) // _STRIPE
    if stripes:
        rest = data[blocks * _BLOCK : blocks * _BLOCK + stripes * _STRIPE].view("<u8").reshape(-1, 8)
        sums += _stripes(rest, _KEYS[:stripes])
    sums += _stripes(data[n - _STRIPE :].copy().view("<u8")[None], _LAST[None])
    total = n * _P64_1
    for i in range(4):
        total += _fold(int(sums[2 * i]) ^ _u64(_SECRET, 11 + 16 * i), int(sums[2 * i + 1]) ^ _u64(_SECRET, 19 + 16 * i))
    return _avalanche(total & _MASK)


def xxh3_64(data: bytes | NDArray[np.generic]) -> int:
    """The checksum of bytes, or of an array's bytes in C order (which a mapped array keeps in its file)."""
    if isinstance(data, np.ndarray):
        array = np.ascontiguousarray(data).reshape(-1).view(np.uint8).view(np.ndarray)
    else:
        array = np.frombuffer(data, np.uint8)
    if len(array) > 240:
        return _long(array)
    short = array.tobytes()
    return _short(short) if len(short) <= 16 else _middle(short)


def hex_digest(data: bytes | NDArray[np.generic]) -> str:
    """[`xxh3_64`] as a study's JSON files hold it: 16 hexadecimal digits."""
    return f"{xxh3_64(data):016x}"
