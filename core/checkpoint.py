"""State as bytes, bit for bit: named arrays and plain values, a header, a checksum.

It knows nothing of what the values mean. Floats keep every bit, NaN included; a torn or foreign text is refused.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"CMS1"
_HEAD = struct.Struct("<4sII")  # magic, CRC-32 of what follows, length of the header


def pack(values: Mapping[str, Any]) -> bytes:
    """Bytes of `values`: NumPy arrays, and whatever JSON can say (infinities and NaN allowed)."""
    header: list[list[Any]] = []
    body: list[bytes] = []
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            raw = np.ascontiguousarray(value)
            header.append([name, raw.dtype.str, list(raw.shape)])
            body.append(raw.tobytes())
        else:
            header.append([name, None, value])
    text = json.dumps(header, separators=(",", ":")).encode()
    rest = text + b"".join(body)
    return _HEAD.pack(_MAGIC, zlib.crc32(rest), len(text)) + rest


def unpack(state: bytes) -> dict[str, Any]:
    """The values that `pack` was given.

    Raises:
        ValueError: torn, changed, or not ours.
    """
    if len(state) < _HEAD.size:
        raise ValueError(f"not a state: {len(state)} bytes")
    magic, crc, length = _HEAD.unpack_from(state)
    rest = state[_HEAD.size :]
    if magic != _MAGIC or zlib.crc32(rest) != crc or length > len(rest):
        raise ValueError("not a state of this version, or torn")
    at = length
    values: dict[str, Any] = {}
    for name, kind, value in json.loads(rest[:length]):
        if kind is None:
            values[name] = value
            continue
        size = math.prod(value)
        array: NDArray[Any] = np.frombuffer(rest, np.dtype(kind), size, at)
        at += array.nbytes
        values[name] = array.reshape(value).copy()
    return values
