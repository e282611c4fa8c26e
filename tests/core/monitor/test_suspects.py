"""What is stated of a loss: the model's word, unchanged, remembered for each loss, over a restart too."""

from __future__ import annotations

import numpy as np
import pytest

from core.monitor.spec import Settings, ZoneSpec
from core.monitor.zone_monitor import ZoneMonitor
from core.scoring.posterior import FEATURES, REVISIONS

FLATS, DAY, HOURS = 12, 48, 0.5
ZONE = ZoneSpec("building", tuple(f"flat-{k}" for k in range(FLATS)), (1.0,) * FLATS)


class Even:
    """A model to which all rows are the same."""

    features = FEATURES

    def score(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 0.5, np.float32)


def stating() -> ZoneMonitor:
    return ZoneMonitor(ZONE, HOURS, Settings(), states=Even())


def test_the_models_word_is_stated_as_it_is_of_a_question_too(house, watched, since) -> None:
    lit = house(20).tapped(np.full(20 * DAY, 15.0 * FLATS))
    _, evidence = watched(lit, monitor=stating())
    told = [item for item in evidence if item.active]
    assert any(item.question for item in told)
    share = pytest.approx(1 / (FLATS + 2), abs=1e-6)
    for item in told:
        assert [s.probability for s in item.suspects] == [share] * FLATS
        assert (item.upstream_probability, item.unexplained_probability) == (share, share)
        assert item.model_score == share


def test_a_loss_has_a_memory_of_its_own_that_is_bounded_and_outlives_a_restart(house, watched) -> None:
    monitor, _ = watched(house(20).tapped(np.full(20 * DAY, 15.0 * FLATS)), monitor=stating())
    ((key, memory),) = monitor.suspects._memory.items()
    assert 1 <= len(memory.kept) <= REVISIONS
    again = stating()
    again.suspects.restore(monitor.suspects.pack(), monitor.history, monitor.life.loss)
    assert list(again.suspects._memory) == [key]
    for one, other in zip(again.suspects._memory[key].kept, memory.kept, strict=True):
        np.testing.assert_array_equal(one, other)
