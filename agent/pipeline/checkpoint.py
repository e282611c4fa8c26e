"""The pipeline's state in parts, so that a flash is spared: a part that has not changed is not written again.

It owns which values share a part, by how often they change: the loss model's covariance changes once a day and is most
of the octets; a meter's daily profile changes in one hour of its day; the rest is small and changes with each row. The
head names every part with its checksum, so that parts of two moments are never taken for one state. It knows nothing of
what the values mean, nor of the disk: the store skips a part that it has already.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.checkpoint import pack, unpack

HEAD = "pipeline"
PARTS = "parts"
_BY_HOUR = ("aligner.profile_w", "aligner.profile_rows")  # [meters, 24]
_BY_DAY = re.compile(r"(\d+)\.(x|p|told|load_w|absorbed|noise)")  # of zone n


def split(values: Mapping[str, Any]) -> dict[str, bytes]:
    """Name -> octets of each part; `HEAD` is the one that `join` begins with."""
    head: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name in _BY_HOUR:
            for hour in range(value.shape[1]):
                parts.setdefault(f"{HEAD}.hour-{hour:02}", {})[name] = value[:, hour]
        elif (found := _BY_DAY.fullmatch(name)) is not None:
            parts.setdefault(f"{HEAD}.model-{found[1]}", {})[name] = value
        else:
            head[name] = value
    packed = {name: pack(part) for name, part in parts.items()}
    head[PARTS] = {name: zlib.crc32(octets) for name, octets in packed.items()}
    return {HEAD: pack(head), **packed}


def join(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """The values that `split` was given.

    Raises:
        ValueError: a part is missing, torn, not ours, or of another moment.
    """
    values = unpack(parts.get(HEAD, b""))
    for name, crc in values.pop(PARTS, {}).items():
        octets = parts.get(name)
        if octets is None or zlib.crc32(octets) != crc:
            raise ValueError(f"the checkpoint's part {name} is missing, or of another moment")
        part = unpack(octets)
        if name.startswith(f"{HEAD}.hour-"):
            for key, column in part.items():
                values.setdefault(key, []).append(column)
        else:
            values |= part
    for key in _BY_HOUR:
        if key in values:
            values[key] = np.stack(values[key], axis=1)
    return values
