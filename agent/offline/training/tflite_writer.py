"""Writes a network as a .tflite file: float32, free batch dimension, metadata and seal inside.

It owns the encoding and knows nothing of training; core/scoring/model_file.py reads exactly this form. Slot numbers are
those of the Apache TensorFlow Lite schema, version 3; a slot that holds its default is not written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from core.scoring.model_file import (
    FULLY_CONNECTED,
    FULLY_CONNECTED_OPTIONS,
    LOGISTIC,
    METADATA_NAME,
    RELU,
    SEAL_KEY,
    SUB,
    SUB_OPTIONS,
    Network,
    digest,
)

OPERATORS = (SUB, FULLY_CONNECTED, LOGISTIC)
OPTIONS = {SUB: SUB_OPTIONS, FULLY_CONNECTED: FULLY_CONNECTED_OPTIONS}


def write(network: Network, metadata: dict[str, Any]) -> bytes:
    """The file of `network` with `metadata` (JSON-able) inside, sealed. The same input gives the same octets."""
    return _Writer().write(network, metadata)


def _table(builder: flatbuffers.Builder, fields: dict[int, tuple[str, int]]) -> int:
    """A table with `fields`: slot -> (Int8, Uint8, Int32, Uint32 or UOffsetTRelative, value)."""
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, (kind, value) in sorted(fields.items(), reverse=True):
        getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return int(builder.EndObject())


def _offset(value: int) -> tuple[str, int]:
    return "UOffsetTRelative", value


class _Writer:
    """Builds the parts leaf first, as FlatBuffers wants them."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(4096)
        self._buffers: list[bytes] = [b""]  # buffer 0 is the empty one, by the schema
        self._tensors: list[int] = []
        self._steps: list[int] = []

    def write(self, network: Network, metadata: dict[str, Any]) -> bytes:
        width = len(network.mean)
        self._current = first = self._signal("features", width)
        self._step(SUB, [self._constant("mean", network.mean)], "centred", width)
        for index, (weights, bias) in enumerate(network.layers):
            last = index == len(network.layers) - 1
            constants = [self._constant(f"weights_{index}", weights), self._constant(f"bias_{index}", bias)]
            self._step(FULLY_CONNECTED, constants, f"layer_{index}", len(bias), 0 if last else RELU)
        self._step(LOGISTIC, [], "theft_probability", 1)
        text = json.dumps(metadata | {"content_sha256": "0" * 64}, separators=(",", ":"), sort_keys=True)
        self._buffers.append(text.encode())
        return _seal(self._file(first))

    def _file(self, first: int) -> bytes:
        builder = self._builder
        graph = {
            0: _offset(self._vector(self._tensors)),
            1: _offset(self._integers([first])),
            2: _offset(self._integers([self._current])),
            3: _offset(self._vector(self._steps)),
        }
        subgraph = _table(builder, graph)
        name = builder.CreateString(METADATA_NAME)
        entry = _table(builder, {0: _offset(name), 1: ("Uint32", len(self._buffers) - 1)})
        buffers = []
        for octets in self._buffers:
            # The schema's force_align is ignored by FlatBuffers for Python: pad by hand, or weights land anywhere.
            builder.Prep(16, len(octets))
            buffers.append(_table(builder, {0: _offset(builder.CreateByteVector(octets))} if octets else {}))
        codes = [_table(builder, {0: ("Int8", code), 2: ("Int32", 1), 3: ("Int32", code)}) for code in OPERATORS]
        model = {
            0: ("Uint32", 3),
            1: _offset(self._vector(codes)),
            2: _offset(self._vector([subgraph])),
            3: _offset(builder.CreateString("checkmeter")),
            4: _offset(self._vector(buffers)),
            6: _offset(self._vector([entry])),
        }
        builder.Finish(_table(builder, model), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _vector(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _integers(self, values: Sequence[int]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependInt32(value)
        return int(self._builder.EndVector())

    def _tensor(self, name: str, shape: Sequence[int], buffer: int, *, free_batch: bool) -> int:
        fields = {0: _offset(self._integers(shape)), 3: _offset(self._builder.CreateString(name))}
        if buffer:
            fields[2] = ("Uint32", buffer)
        if free_batch:
            fields[7] = _offset(self._integers([-1, *shape[1:]]))
        self._tensors.append(_table(self._builder, fields))
        return len(self._tensors) - 1

    def _constant(self, name: str, values: np.ndarray[Any, Any]) -> int:
        self._buffers.append(np.ascontiguousarray(values, "<f4").tobytes())
        return self._tensor(name, values.shape, len(self._buffers) - 1, free_batch=False)

    def _signal(self, name: str, width: int) -> int:
        return self._tensor(name, (1, width), 0, free_batch=True)

    def _step(self, operator: int, constants: list[int], name: str, width: int, activation: int = 0) -> None:
        out = self._signal(name, width)
        inputs, outputs = self._integers([self._current, *constants]), self._integers([out])
        fields = {0: ("Uint32", OPERATORS.index(operator)), 1: _offset(inputs), 2: _offset(outputs)}
        if operator in OPTIONS:
            fields[3] = ("Uint8", OPTIONS[operator])
            fields[4] = _offset(_table(self._builder, {0: ("Int8", activation)} if activation else {}))
        self._steps.append(_table(self._builder, fields))
        self._current = out


def _seal(content: bytes) -> bytes:
    at = content.index(SEAL_KEY + b"0" * 64) + len(SEAL_KEY)
    return content[:at] + digest(content, at) + content[at + 64 :]
