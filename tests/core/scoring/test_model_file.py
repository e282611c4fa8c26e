"""A .tflite file is read whole, by our own reader, before a runtime sees it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.offline.training.tflite_writer import write
from core.scoring.model import GOLDEN_TOLERANCE, load
from core.scoring.model_file import MAX_BYTES, SEAL_KEY, ModelRefused, Network, parse

Reseal = Callable[[bytes], bytes]


def test_what_was_written_is_read_back(content: bytes, network: Network) -> None:
    file = parse(content)
    assert file.features == tuple(f"feature_{i}" for i in range(5))
    assert len(file.network.layers) == 2
    rows = np.random.default_rng(0).normal(size=(50, 5))
    assert np.abs(file.network.predict(rows) - network.predict(rows)).max() < 1e-6


def test_the_same_network_gives_the_same_octets(content: bytes, network: Network, metadata: dict[str, Any]) -> None:
    assert write(network, metadata) == content


def test_every_buffer_is_aligned_to_16_octets(content: bytes, network: Network) -> None:
    for weights, bias in network.layers:
        for values in (weights, bias):
            assert content.index(np.asarray(values, "<f4").tobytes()) % 16 == 0


def test_a_batch_of_any_size_scores_like_the_trained_network(content: bytes, network: Network) -> None:
    model = load(content)
    rng = np.random.default_rng(1)
    for size in (1, 200, 3, 1):
        rows = rng.normal(size=(size, 5)).astype(np.float32)
        assert np.abs(model.score(rows) - network.predict(rows.astype(float))).max() < 1e-5
    assert model.score(np.empty((0, 5), np.float32)).shape == (0,)


def test_a_row_that_is_not_finite_scores_nan_and_the_others_do_not(content: bytes, network: Network) -> None:
    rows = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    expected = network.predict(rows.astype(float))
    rows[2, 3] = np.nan
    scores = load(content).score(rows)
    assert np.isnan(scores[2])
    assert np.abs(np.delete(scores - expected, 2)).max() < 1e-5


def test_rows_of_the_wrong_width_are_our_own_fault(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected \[n, 5\]"):
        load(content).score(np.zeros((2, 4), np.float32))


def test_every_truncation_is_refused(content: bytes) -> None:
    for length in range(len(content)):
        with pytest.raises(ModelRefused):
            parse(content[:length])


def test_every_changed_octet_breaks_the_seal(content: bytes) -> None:
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 0x11
        with pytest.raises(ModelRefused):
            parse(bytes(changed))


def test_a_changed_weight_is_refused_with_what_to_do(content: bytes, network: Network) -> None:
    at = content.index(np.asarray(network.layers[0][0], "<f4").tobytes())
    changed = content[:at] + struct.pack("<f", 9.0) + content[at + 4 :]
    with pytest.raises(ModelRefused, match=r"changed after it was written.*fetch it again"):
        parse(changed)


def test_a_resealed_change_of_weights_misses_the_golden_vectors(
    content: bytes, network: Network, reseal: Reseal
) -> None:
    at = content.index(np.asarray(network.layers[0][0], "<f4").tobytes())
    changed = reseal(content[:at] + struct.pack("<f", 9.0) + content[at + 4 :])
    parse(changed)
    with pytest.raises(ModelRefused, match="golden vectors missed"):
        load(changed)


def test_hostile_and_resealed_files_are_refused_or_harmless(content: bytes, reseal: Reseal) -> None:
    """Every octet of the structure, changed five ways and sealed again: nothing but ModelRefused, and what passes
    does not bring the runtime down."""
    metadata = content.index(b'{"content_sha256"')
    structure = [*range(metadata), *range(content.rindex(b"checkmeter") - 64, len(content))]
    passed = []
    for position in structure:
        for value in {0, 1, 0x7F, 0x80, 0xFF} - {content[position]}:
            changed = bytearray(content)
            changed[position] = value
            sealed = reseal(bytes(changed))
            try:
                parse(sealed)
            except ModelRefused:
                continue
            passed.append(sealed)
    assert passed  # names, padding and the like: the check is not merely the seal
    child = os.fork()
    if child == 0:  # a crash of the runtime must fail this test, not end it
        for sealed in passed:
            try:
                load(sealed)
            except ModelRefused:
                continue
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        (b"", "not a TensorFlow Lite file"),
        (b"\x7fELF" + bytes(200), "not a TensorFlow Lite file"),
        (b"\x10\0\0\0TFL3" + bytes(200), "the model"),
        (bytes(MAX_BYTES + 1), "a compact model has less"),
    ],
)
def test_foreign_files_are_refused(foreign: bytes, reason: str) -> None:
    with pytest.raises(ModelRefused, match=reason):
        parse(foreign)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "checkmeter-model/2"}, "this version reads"),
        ({"features": ["a", "b", "c", "d"]}, "4 feature names for 5 inputs"),
        ({"features": ["a", "a", "b", "c", "d"]}, "a name twice"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"threshold": "high"}, "cannot be read"),
        ({"scaling": {"mean": [0, 0, 0, 0, 0]}}, "scaling"),
        ({"golden": {"inputs": [[0] * 5], "outputs": [0.5]}}, "1 golden vectors"),
    ],
)
def test_metadata_must_fit_the_network(
    network: Network, metadata: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        parse(write(network, metadata | change))


def test_a_network_that_is_not_finite_is_refused(network: Network, metadata: dict[str, Any]) -> None:
    broken = Network(network.mean, (*network.layers[:1], (network.layers[1][0], np.array([np.nan]))))
    with pytest.raises(ModelRefused, match="not finite"):
        parse(write(broken, metadata))


def test_features_that_nobody_computes_are_refused(content: bytes) -> None:
    with pytest.raises(ModelRefused, match="not computed here: feature_4"):
        load(content, {"feature_0", "feature_1", "feature_2", "feature_3"})
    assert load(content, [f"feature_{i}" for i in range(9)]).threshold == 0.5


def test_golden_vectors_bind_the_runtime_to_the_trained_model(network: Network, metadata: dict[str, Any]) -> None:
    outputs = list(metadata["golden"]["outputs"])
    outputs[5] += 2 * GOLDEN_TOLERANCE
    golden = metadata["golden"] | {"outputs": outputs}
    with pytest.raises(ModelRefused, match=r"golden vectors missed by 0\.0002"):
        load(write(network, metadata | {"golden": golden}))


def test_the_seal_is_over_the_whole_file(content: bytes) -> None:
    at = content.index(SEAL_KEY)
    with pytest.raises(ModelRefused, match="no content_sha256"):
        parse(content[:at] + b'"content_sha257":"' + content[at + len(SEAL_KEY) :])
