"""The layout of a compact model: a strict reader of the one .tflite form that this project writes.

It owns the FlatBuffers reading and the seal; it never runs a model and knows no TFLite runtime. A TFLite
runtime trusts the offsets, sizes and operators of the file that it is given, so a file is read here first, and
by a reader that knows nothing but our own form: subtract the mean, fully connected layers (ReLU between them),
logistic. Every offset and count is checked against the file's end before it is followed, and a field which our
writer never writes is a refusal: what the runtime will see has been seen here, all of it.

Layout: Apache TensorFlow Lite schema version 3 (file identifier "TFL3"), slot numbers as in its schema.fbs.
The seal is a SHA-256 over the whole file with its own 64 hex digits taken as zeros. It finds damage and careless
edits. It is no signature: who sends a model over the network is checked before the bytes come here.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.arrays import Floats

MAX_BYTES = 1 << 20  # a compact model has a few KiB: bounds what a hostile sender can make us read
MAX_ITEMS = 64  # tensors, operators, buffers
MAX_FEATURES = 512
MAX_WIDTH = 256
METADATA_NAME = "checkmeter"
FORMAT = "checkmeter-model/1"
SEAL_KEY = b'"content_sha256":"'
SUB, FULLY_CONNECTED, LOGISTIC = 41, 9, 14  # BuiltinOperator
NO_OPTIONS, FULLY_CONNECTED_OPTIONS, SUB_OPTIONS = 0, 8, 28  # BuiltinOptions
NO_ACTIVATION, RELU = 0, 1  # ActivationFunctionType
GOLDEN_VECTORS = 16  # at least so many

F32 = NDArray[np.float32]


class ModelRefused(Exception):
    """The bytes are no model that may run here; the message says why. The model in use stays in use."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a model computes: logistic(layer(relu(layer(... (x - mean))))).

    `mean` has shape [features]; each layer is (weights [out, in], bias [out]); the last has one output. The
    division by the features' scale is in the first layer's weights.
    """

    mean: Floats
    layers: tuple[tuple[Floats, Floats], ...]

    def logit(self, rows: Floats) -> Floats:
        """Log-odds of theft for rows of shape [n, features], in float64: the reference for every runtime."""
        signal = rows - self.mean
        for index, (weights, bias) in enumerate(self.layers):
            signal = signal @ weights.T + bias
            if index < len(self.layers) - 1:
                signal = np.maximum(signal, 0.0)
        return np.asarray(signal[:, 0])

    def predict(self, rows: Floats) -> Floats:
        """Probability of theft for rows of shape [n, features]."""
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(self.logit(rows), -700.0, 700.0))))


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs [n, features] and the trained model's outputs [n], for the runtime to repeat."""

    inputs: F32
    outputs: Floats


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that has passed every check which needs no runtime."""

    network: Network
    features: tuple[str, ...]
    threshold: float
    golden: Golden
    metadata: dict[str, Any]
    sha256: str  # of the whole file


class _Table:
    """One FlatBuffers table: fields by slot, every position checked before it is used."""

    __slots__ = ("_content", "_position", "_size", "_slots", "_what")

    def __init__(self, content: bytes, position: int, what: str, slots: int) -> None:
        """Read the vtable at `position`; a field beyond the first `slots` is refused."""
        self._content, self._position, self._what = content, position, what
        if position % 4:
            raise ModelRefused(f"{what} at offset {position} is not aligned: damaged, or not ours")
        vtable = position - _scalar(content, position, "<i", what)
        length, self._size = _scalar(content, vtable, "<H", what), _scalar(content, vtable + 2, "<H", what)
        if length < 4 or length % 2 or vtable + length > len(content) or position + self._size > len(content):
            raise ModelRefused(f"{what} at offset {position} runs over the end of the file: truncated or damaged")
        self._slots = struct.unpack_from(f"<{(length - 4) // 2}H", content, vtable + 4)
        foreign = [slot for slot, entry in enumerate(self._slots) if entry and slot >= slots]
        if foreign:
            raise ModelRefused(f"{what} has a field {foreign[0]} which checkmeter never writes: made elsewhere")

    def scalar(self, slot: int, layout: str, default: int = 0) -> int:
        entry = self._slots[slot] if slot < len(self._slots) else 0
        if not entry:
            return default
        if entry < 4 or entry + struct.calcsize(layout) > self._size:
            raise ModelRefused(f"field {slot} of {self._what} lies outside its table: damaged")
        return _scalar(self._content, self._position + entry, layout, self._what)

    def target(self, slot: int) -> int:
        """Position that the offset in `slot` leads to; 0 where the field is absent."""
        offset = self.scalar(slot, "<I")
        return self._position + self._slots[slot] + offset if offset else 0

    def vector(self, slot: int, item_octets: int, most: int) -> tuple[int, int]:
        """(position, count) of a vector whose items all lie within the file; (0, 0) where it is absent."""
        position = self.target(slot)
        if not position:
            return 0, 0
        count = _scalar(self._content, position, "<I", self._what)
        if position % 4 or count > most or position + 4 + count * item_octets > len(self._content):
            raise ModelRefused(f"field {slot} of {self._what}: {count} items do not fit: truncated or damaged")
        return position + 4, count

    def integers(self, slot: int) -> list[int]:
        position, count = self.vector(slot, 4, MAX_ITEMS)
        return list(struct.unpack_from(f"<{count}i", self._content, position))

    def table(self, slot: int, what: str, slots: int) -> _Table | None:
        position = self.target(slot)
        return _Table(self._content, position, what, slots) if position else None

    def tables(self, slot: int, what: str, slots: int) -> list[_Table]:
        position, count = self.vector(slot, 4, MAX_ITEMS)
        steps = range(position, position + 4 * count, 4)
        return [
            _Table(self._content, at + _scalar(self._content, at, "<I", what), f"{what} {index}", slots)
            for index, at in enumerate(steps)
        ]

    def octets(self, slot: int) -> tuple[int, bytes]:
        """(position, content) of a vector of octets."""
        position, count = self.vector(slot, 1, MAX_BYTES)
        return position, self._content[position : position + count]

    def string(self, slot: int) -> str:
        """A string with the zero after it that a runtime in C reads up to; "" where it is absent."""
        position, octets = self.octets(slot)
        if position and self._content[position + len(octets) : position + len(octets) + 1] != b"\0":
            raise ModelRefused(f"a string of {self._what} has no end: damaged")
        return octets.decode("latin-1")


def _scalar(content: bytes, position: int, layout: str, what: str) -> int:
    if position < 0 or position + struct.calcsize(layout) > len(content):
        raise ModelRefused(f"{what} points outside the file: truncated or damaged")
    value: int = struct.unpack_from(layout, content, position)[0]
    return value


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A float32 tensor: a constant when it has octets, else a signal with a free batch dimension."""

    shape: tuple[int, ...]
    free_batch: bool
    octets: bytes

    def constant(self, shape: tuple[int, ...], what: str) -> Floats:
        if self.shape != shape or self.free_batch or len(self.octets) != 4 * math.prod(shape):
            raise ModelRefused(f"{what} has shape {self.shape} and {len(self.octets)} octets, expected {shape}")
        values = np.frombuffer(self.octets, "<f4").reshape(shape)
        if not np.isfinite(values).all():
            raise ModelRefused(f"{what} holds values that are not finite: damaged")
        return values.astype(np.float64)

    def signal(self, what: str) -> int:
        """The width of a signal of shape [batch, width]."""
        if len(self.shape) != 2 or self.shape[0] != 1 or not self.free_batch or self.octets:
            raise ModelRefused(f"{what} has shape {self.shape}, expected [batch, width] with a free batch")
        return self.shape[1]


def parse(content: bytes) -> ModelFile:
    """Read and check a whole model file; nothing in it is executed.

    Raises ModelRefused with the reason: truncated, made elsewhere, changed after it was written, or not
    consistent in itself.
    """
    if len(content) > MAX_BYTES:
        raise ModelRefused(f"{len(content)} octets: a compact model has less than {MAX_BYTES}")
    if len(content) < 64 or content[4:8] != b"TFL3":
        raise ModelRefused("not a TensorFlow Lite file (no TFL3 identifier): give a file made by checkmeter train")
    model = _Table(content, _scalar(content, 0, "<I", "the root"), "the model", 7)
    if (version := model.scalar(0, "<I")) != 3:
        raise ModelRefused(f"schema version {version}, expected 3")
    operators = [_operator_code(code) for code in model.tables(1, "operator code", 4)]
    placed = []
    for buffer in model.tables(4, "buffer", 1):
        at, octets = buffer.octets(0)
        if octets and at % 16:
            raise ModelRefused(f"a buffer at offset {at} is not aligned to 16 octets")
        placed.append((at, octets))
    model.string(3)
    subgraphs = model.tables(2, "subgraph", 4)
    if len(subgraphs) != 1:
        raise ModelRefused(f"{len(subgraphs)} subgraphs, expected 1: made elsewhere")
    network = _network(subgraphs[0], operators, [octets for _, octets in placed])
    entries = model.tables(6, "metadata entry", 2)
    names = [entry.string(0) for entry in entries]
    if names != [METADATA_NAME]:
        raise ModelRefused(f"metadata entries {names}, expected ['{METADATA_NAME}']: made elsewhere")
    index = entries[0].scalar(1, "<I")
    if index >= len(placed):
        raise ModelRefused(f"the metadata is in buffer {index} of {len(placed)}: damaged")
    _check_seal(content, *placed[index])
    return _with_metadata(content, network, placed[index][1])


def _operator_code(code: _Table) -> int:
    # The runtime takes the greater of the old octet and the newer int32; field 1 would be a custom operator.
    operator = max(code.scalar(0, "<b"), code.scalar(3, "<i"))
    if code.target(1) or operator not in (SUB, FULLY_CONNECTED, LOGISTIC) or code.scalar(2, "<i", 1) != 1:
        raise ModelRefused(f"operator {operator} is not one of ours (SUB, FULLY_CONNECTED, LOGISTIC): made elsewhere")
    return operator


def _network(graph: _Table, operators: list[int], buffers: list[bytes]) -> Network:
    """Follow the chain of operators from the input to the output; nothing may lie beside it."""
    tensors: list[_Tensor] = []
    for tensor in graph.tables(0, "tensor", 8):
        shape, signature, _ = tuple(tensor.integers(0)), tensor.integers(7), tensor.string(3)
        buffer = tensor.scalar(2, "<I")
        if tensor.scalar(1, "<b") or tensor.target(4) or tensor.scalar(5, "<b") or tensor.target(6):
            raise ModelRefused(f"tensor {len(tensors)} is not plain float32: made elsewhere")
        if buffer >= len(buffers) or not shape or not all(1 <= n <= MAX_FEATURES for n in shape):
            raise ModelRefused(f"tensor {len(tensors)} has shape {shape} in buffer {buffer}: damaged")
        if signature and signature != [-1, *shape[1:]]:
            raise ModelRefused(f"tensor {len(tensors)} has shape {shape} with signature {signature}: damaged")
        tensors.append(_Tensor(shape, bool(signature), buffers[buffer]))
    unused = set(range(len(tensors)))

    def take(index: int) -> _Tensor:
        if index not in unused:
            raise ModelRefused(
                f"tensor {index} of {len(tensors)} is not there or used twice: damaged or made elsewhere"
            )
        unused.discard(index)
        return tensors[index]

    steps = graph.tables(3, "operator", 5)
    ends = graph.integers(1), graph.integers(2)
    if len(ends[0]) != 1 or len(ends[1]) != 1 or len(steps) < 3:
        raise ModelRefused(f"{len(ends[0])} inputs, {len(ends[1])} outputs, {len(steps)} operators: made elsewhere")
    current = ends[0][0]
    features = width = take(current).signal("the input")
    mean = np.zeros(0)
    layers: list[tuple[Floats, Floats]] = []
    for place, step in enumerate(steps):
        code, what = step.scalar(0, "<I"), f"operator {place}"
        expected = SUB if place == 0 else LOGISTIC if place == len(steps) - 1 else FULLY_CONNECTED
        if code >= len(operators) or operators[code] != expected:
            raise ModelRefused(f"{what} is not the one expected there ({expected}): made elsewhere")
        inputs, outputs = step.integers(1), step.integers(2)
        wanted = {SUB: 2, FULLY_CONNECTED: 3, LOGISTIC: 1}[expected]
        if len(inputs) != wanted or len(outputs) != 1 or inputs[0] != current:
            raise ModelRefused(f"{what} does not follow the one before it: damaged or made elsewhere")
        last = place == len(steps) - 2
        _check_options(step, expected, RELU if expected == FULLY_CONNECTED and not last else NO_ACTIVATION, what)
        current = outputs[0]
        out = take(current).signal(f"the output of {what}")
        if expected == SUB:
            mean = take(inputs[1]).constant((width,), "the mean")
        elif expected == FULLY_CONNECTED:
            weights = take(inputs[1]).constant((out, width), f"the weights of {what}")
            layers.append((weights, take(inputs[2]).constant((out,), f"the bias of {what}")))
        if (out != width and expected != FULLY_CONNECTED) or out > max(MAX_WIDTH, features):
            raise ModelRefused(f"{what} gives {out} values for {width}: damaged")
        width = out
    if current != ends[1][0] or width != 1 or unused:
        raise ModelRefused(f"the chain ends at tensor {current} with {width} values, {len(unused)} tensors beside it")
    return Network(mean, tuple(layers))


def _check_options(step: _Table, operator: int, activation: int, what: str) -> None:
    kind = {SUB: SUB_OPTIONS, FULLY_CONNECTED: FULLY_CONNECTED_OPTIONS, LOGISTIC: NO_OPTIONS}[operator]
    options = step.table(4, f"the options of {what}", 1)
    found = options.scalar(0, "<b") if options else NO_ACTIVATION
    if step.scalar(3, "<B") != kind or found != activation or bool(options) != bool(kind):
        raise ModelRefused(f"{what} has options that checkmeter never writes: made elsewhere")


def _check_seal(content: bytes, position: int, metadata: bytes) -> None:
    at = metadata.find(SEAL_KEY)
    found = metadata[at + len(SEAL_KEY) :][:64] if at >= 0 else b""
    if len(found) != 64 or metadata.count(SEAL_KEY) != 1:
        raise ModelRefused("the metadata has no content_sha256: made elsewhere or damaged")
    expected = digest(content, position + at + len(SEAL_KEY))
    if found != expected:
        raise ModelRefused(
            f"the file was changed after it was written: SHA-256 {expected[:12].decode()}..., its seal says "
            f"{found[:12].decode('latin-1')}...; fetch it again from where it was made"
        )


def digest(content: bytes, at: int) -> bytes:
    """Hex SHA-256 of `content` with the 64 digits of the seal at `at` taken as zeros."""
    return hashlib.sha256(content[:at] + b"0" * 64 + content[at + 64 :]).hexdigest().encode()


def _with_metadata(content: bytes, network: Network, octets: bytes) -> ModelFile:
    try:
        metadata = json.loads(octets.decode("utf-8"))
        features = tuple(metadata["features"])
        threshold = float(metadata["threshold"])
        mean = np.asarray(metadata["scaling"]["mean"], np.float64)
        golden = Golden(
            np.asarray(metadata["golden"]["inputs"], np.float32), np.asarray(metadata["golden"]["outputs"], np.float64)
        )
        form = metadata["format"]
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise ModelRefused(f"the metadata cannot be read ({type(error).__name__}: {error})") from None
    if form != FORMAT:
        raise ModelRefused(f"model format {form!r}, this version reads {FORMAT!r}: train it again or update checkmeter")
    count = len(network.mean)
    if len(set(features)) != count or len(features) != count or not all(isinstance(name, str) for name in features):
        raise ModelRefused(f"{len(features)} feature names for {count} inputs, or a name twice")
    if mean.shape != (count,) or not np.array_equal(mean.astype(np.float32), network.mean.astype(np.float32)):
        raise ModelRefused("the scaling in the metadata is not the one in the model")
    if not 0.0 < threshold < 1.0:
        raise ModelRefused(f"threshold {threshold} is not between 0 and 1")
    cases = len(golden.outputs)
    if cases < GOLDEN_VECTORS or golden.inputs.shape != (cases, count) or golden.outputs.shape != (cases,):
        raise ModelRefused(f"{cases} golden vectors of shape {golden.inputs.shape}, at least {GOLDEN_VECTORS} expected")
    if not (np.isfinite(golden.inputs).all() and np.isfinite(golden.outputs).all()):
        raise ModelRefused("the golden vectors hold values that are not finite")
    return ModelFile(network, features, threshold, golden, metadata, hashlib.sha256(content).hexdigest())
