"""`make bench-forecast` in small: the tables come out, and their figures are those of the recording."""

from __future__ import annotations

import numpy as np
from click.testing import CliRunner

from agent.offline.evaluation.bench_forecast import WARM_DAYS, building_w, main, run, scores
from agent.offline.evaluation.virtual_buildings import household_pool


def test_a_small_run_prints_its_table() -> None:
    arguments = ["--flats", "2", "--buildings", "1", "--days", "98", "--interval-s", "3600", "--without-lightgbm"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 buildings of 2 flats, 3600 s, 8 days each" in done.output
    assert "mean of 7 days" in done.output
    assert "LightGBM" not in done.output


def test_the_rules_beside_it_are_what_they_are_called() -> None:
    pool = household_pool(3, 6, WARM_DAYS + 5, 3600)
    load_w = building_w(pool, 4, (1, 0))
    found = scores(run(load_w, 3600), 3600, None)
    week = np.abs(load_w[WARM_DAYS - 7 : -7] - load_w[WARM_DAYS:]).mean()
    seven = np.mean([np.abs(load_w[d - 7 : d].mean(axis=0) - load_w[d]).mean() for d in range(WARM_DAYS, len(load_w))])
    np.testing.assert_allclose(found["week ago"]["nmae"], week / load_w[WARM_DAYS:].mean())
    np.testing.assert_allclose(found["mean of 7 days"]["mase"], seven / week)
