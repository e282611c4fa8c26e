"""The compact model on the gateway: load, verify, score.

It owns the TFLite runtime and takes octets; where they come from, and what is done with a score, it does not
know. `load` lets the runtime see a file only after core/scoring/model_file.py has read the whole of it, and gives a
model back only after the runtime has repeated the golden vectors that the trained model left in the file. Whoever holds
a model in use replaces it by what `load` returns, so that a refusal changes nothing.

The runtime's wheels for ARM are linked with -ffast-math: merely loading one puts the thread, and every thread it
starts later, into flush-to-zero, where the smallest numbers of the whole agent are lost. So the floating-point
environment (ISO C 7.6) is kept and put back around whatever the runtime does.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from core.scoring.model_file import F32, ModelFile, ModelRefused, parse

__all__ = ["GOLDEN_TOLERANCE", "CompactModel", "ModelRefused", "load"]

GOLDEN_TOLERANCE = 1e-4
FENV_BYTES = 256  # fenv_t has 32 octets on x86-64, 16 on arm64, 4 on armhf
RUNTIMES = ("tflite_runtime.interpreter", "ai_edge_litert.interpreter")  # tflite_runtime ends with Python 3.11


class CompactModel:
    """A verified model. One thread uses it: a TFLite interpreter has one set of buffers."""

    def __init__(self, file: ModelFile, interpreter: Any, runtime: str) -> None:
        """Made by `load`."""
        self.file = file
        self.runtime = runtime
        self.features = file.features
        self.threshold = file.threshold
        self.sha256 = file.sha256
        self._interpreter = interpreter
        self._input: int = interpreter.get_input_details()[0]["index"]
        self._output: int = interpreter.get_output_details()[0]["index"]
        self._rows = -1

    def score(self, rows: F32) -> F32:
        """Probability of theft [n] for features [n, len(self.features)] in the order of `self.features`.

        A row with a value that is not finite scores NaN: unknown, not innocent.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise ValueError(f"features of shape {rows.shape}, expected [n, {len(self.features)}]")
        if not len(rows):
            return np.empty(0, np.float32)
        known = np.isfinite(rows)
        whole = bool(known.all())
        filled = np.asarray(rows if whole else np.where(known, rows, 0), np.float32)
        with _same_arithmetic():
            if len(rows) != self._rows:  # a zone's size does not change: once, in practice
                self._interpreter.resize_tensor_input(self._input, rows.shape)
                self._interpreter.allocate_tensors()
                self._rows = len(rows)
            self._interpreter.set_tensor(self._input, filled)
            self._interpreter.invoke()
            scores: F32 = self._interpreter.get_tensor(self._output)[:, 0]
        if not whole:
            scores[~known.all(axis=1)] = np.nan
        return scores


def load(content: bytes, available: Collection[str] | None = None) -> CompactModel:
    """Check `content`, hand it to the runtime and have it repeat its golden vectors.

    `available` are the features the caller can compute; a model that asks for others is refused. Raises
    ModelRefused with the reason.
    """
    file = parse(content)
    if available is not None and (unknown := [name for name in file.features if name not in available]):
        raise ModelRefused(
            f"the model needs features that are not computed here: {', '.join(unknown)}; train it on a table "
            "made by `checkmeter features` of this version"
        )
    runtime, module = _runtime()
    try:
        # Without the default delegate: XNNPACK gains nothing on a few KiB, costs memory and writes to stderr.
        plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with _same_arithmetic():
            interpreter = module.Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
            interpreter.allocate_tensors()
        model = CompactModel(file, interpreter, runtime)
        error = golden_error(model)
    except (RuntimeError, ValueError) as failure:
        raise ModelRefused(f"the TFLite runtime refuses the file: {failure}") from failure
    if not error <= GOLDEN_TOLERANCE:
        raise ModelRefused(
            f"golden vectors missed by {error:.2g}, at most {GOLDEN_TOLERANCE:g} allowed: this runtime "
            f"({runtime}) does not compute what was trained"
        )
    return model


def golden_error(model: CompactModel) -> float:
    """Greatest difference between the runtime's and the trained model's output on the golden vectors."""
    golden = model.file.golden
    return float(np.max(np.abs(model.score(golden.inputs) - golden.outputs)))


def _runtime() -> tuple[str, Any]:
    for name in RUNTIMES:
        try:
            with _same_arithmetic():
                return name.partition(".")[0], importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModelRefused("no TFLite runtime is installed: pip install tflite-runtime (or ai-edge-litert)")


@contextmanager
def _same_arithmetic() -> Iterator[None]:
    """Leave rounding, flush-to-zero and exception flags of this thread as they were before."""
    libm = ctypes.CDLL(None)  # the interpreter itself is linked with libm
    before = ctypes.create_string_buffer(FENV_BYTES)
    libm.fegetenv(before)
    try:
        yield
    finally:
        libm.fesetenv(before)
