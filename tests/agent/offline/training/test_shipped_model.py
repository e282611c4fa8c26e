"""The shipped model: it is what its card says, small, fast, and right about a plain case."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent import models
from agent.offline.evaluation import trial
from agent.offline.evaluation.virtual_buildings import Plan, household_pool, make_building
from agent.offline.training.tflite_writer import write
from core.scoring.model import CompactModel, ModelRefused, _same_arithmetic
from core.scoring.model_file import FORMAT, Network
from core.scoring.posterior import FEATURES

CARD = Path(__file__).resolve().parents[4] / "docs" / "model-card.md"


@pytest.fixture(scope="module")
def model() -> CompactModel:
    return models.in_use(None).states


def test_it_says_where_it_comes_from(model: CompactModel) -> None:
    meta = model.file.metadata
    assert set(model.features) <= set(FEATURES)
    assert len(model.file.golden.outputs) >= 16
    assert sum(w.size + b.size for w, b in model.file.network.layers) < 10_000
    assert meta["training"]["kinds"] >= 60
    assert 0.7 <= meta["calibration"]["temperature"] <= 4
    assert len(meta["training"]["sha256"]) == 64
    assert meta["created_with"].startswith("checkmeter ")


def test_the_card_is_this_models(model: CompactModel) -> None:
    assert model.sha256 in CARD.read_text(encoding="utf-8")


def test_a_site_files_own_model_is_taken_or_refused_with_the_reason(tmp_path: Path) -> None:
    own = tmp_path / "own.tflite"
    own.write_bytes(models.shipped())
    assert models.in_use(own).named.sha256 == models.in_use(None).named.sha256
    own.write_bytes(models.shipped()[:-1])
    with pytest.raises(ModelRefused):
        models.in_use(own)


def test_model_and_runtime_take_less_than_20_mb() -> None:
    script = """
import numpy, json, hashlib
def resident_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
import agent, core.scoring.features
before = resident_mb()
from agent import models
model = models.in_use(None).states
model.score(numpy.zeros((200, len(model.features)), numpy.float32))
print(resident_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert 0 < float(done.stdout) <= 20


def test_a_score_of_ones_own_leaves_the_stating_to_the_shipped_model(tmp_path: Path) -> None:
    own = tmp_path / "own.tflite"
    network = Network(np.zeros(2), ((np.array([[1.0, -1.0]]), np.zeros(1)),))
    inputs = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    golden = {"inputs": inputs.tolist(), "outputs": network.predict(inputs.astype(np.float64)).tolist()}
    names = ["usage_change", "alarm"]
    about = {"format": FORMAT, "features": names, "threshold": 0.5, "scaling": {"mean": [0.0, 0.0]}, "golden": golden}
    own.write_bytes(write(network, about))
    found = models.in_use(own)
    assert found.scorer is not None
    assert found.named is found.scorer
    assert found.states.sha256 == models.in_use(None).states.sha256


def test_it_names_a_plain_thief_in_a_building_it_never_saw(model: CompactModel) -> None:
    plan = Plan(flats=12, days=63, theft="scaled", onset_day=42, least_share=0.03)
    building = make_building((5, 1), household_pool(5, households=12, days=63), plan)
    found = trial.run(building, None, states=model)
    thief = building.thieves[0]
    last = found.evidence[-1]
    assert last.suspects[0].meter == trial.meters(building)[thief]
    assert last.suspects[0].probability > 0.5
    assert last.model_score == last.suspects[0].probability  # one probability, wherever it stands
    told = sum(s.probability for s in last.suspects) + last.upstream_probability + last.unexplained_probability
    assert told == pytest.approx(1, abs=0.06)
    assert found.suspicion.argmax() == thief
    assert np.delete(found.suspicion, thief).max() < 0.3


def test_the_runtime_leaves_the_smallest_numbers_to_the_agent() -> None:
    """On ARM the import of TFLite used to switch the process to flush-to-zero; a fresh process shows it."""
    code = (
        "import threading, numpy as np; from agent import models; m = models.in_use(None).states\n"
        "m.score(np.zeros((3, len(m.features)), np.float32))\n"
        "lives = []; t = threading.Thread(target=lambda: lives.append(5e-324 * 1.0 > 0.0)); t.start(); t.join()\n"
        "print(5e-324 * 1.0 > 0.0, *lives, np.finfo(np.float64).smallest_subnormal > 0)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.stdout.strip(), done.returncode) == ("True True True", 0), done.stderr


def test_whatever_the_runtime_does_to_the_arithmetic_ends_with_the_call() -> None:
    libm = ctypes.CDLL(None)
    downward = {"x86_64": 0x400}.get(platform.machine(), 0x800000)  # FE_DOWNWARD of <fenv.h>
    one, three = np.float64(1.0), np.float64(3.0)
    with _same_arithmetic():
        assert libm.fesetround(downward) == 0
        below = -one / three
    assert libm.fegetround() == 0
    assert below < -one / three


def test_a_tap_is_no_flats(model: CompactModel) -> None:
    plan = Plan(flats=12, days=63, theft="tap", onset_day=42, least_share=0.04)
    building = make_building((6, 1), household_pool(5, households=12, days=63), plan)
    last = trial.run(building, None, states=model).evidence[-1]
    assert last.upstream_probability > 0.5
    assert all(s.probability < 0.3 for s in last.suspects)
