"""The time of a day's extreme, from paths: probabilities, on every word size."""

from __future__ import annotations

import numpy as np
import pytest

from core.forecast.calendar import Calendar
from core.forecast.peaks import ExtremeHead


@pytest.mark.parametrize(("sign", "step"), [(1, 70), (-1, 20)])
def test_where_all_paths_have_their_extreme_it_is_expected(sign: int, step: int) -> None:
    head = ExtremeHead(sign, 900.0, Calendar())
    paths = np.full((5, head.steps), 500.0)
    paths[:, step] += sign * 300.0
    found = head.probability(paths, np.full(5, 0.2), head.times(0, 20_000))
    assert found.argmax() == step
    assert found.sum() == pytest.approx(1.0)


def test_the_place_of_an_instant_is_an_index_and_right_beyond_32_bits() -> None:
    day, step = Calendar((), (3600.0,)).place(np.array([1_700_000_000.0, 4_300_000_000.0]), 900.0)
    assert day.dtype == step.dtype == np.intp
    assert day.tolist() == [19_675, 49_768]
    assert step.tolist() == [92, 53]
