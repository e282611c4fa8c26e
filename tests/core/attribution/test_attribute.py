"""Who it is: every mechanism against nobody, on a small synthetic building."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from core.attribution.attribute import STATISTICS, Attribution, Onset, Priors, attribute
from core.attribution.rows import Rows

THIEF, SLOTS = 3, 48
Maker = Callable[..., object]


def scale(h) -> None:
    h.shown[h.after, THIEF] *= 0.5


def bypass(h) -> None:
    h.shown[h.after, THIEF] = 0.6


def constant(h) -> None:
    h.shown[h.after, THIEF] = 0.7 * h.used[: h.onset, THIEF].mean()


def recording(h) -> None:
    week = h.used[h.onset - 14 * SLOTS : h.onset - 7 * SLOTS, THIEF]
    rows = len(h.tap) - h.onset
    h.shown[h.after, THIEF] = 0.6 * np.resize(week, rows)
    h.shown[h.onset - 14 * SLOTS : h.onset - 7 * SLOTS, THIEF] *= 0.6
    h.used[h.onset - 14 * SLOTS : h.onset - 7 * SLOTS, THIEF] *= 0.6


def ceiling(h) -> None:
    h.shown[h.after, THIEF] = np.minimum(h.shown[h.after, THIEF], np.quantile(h.used[: h.onset, THIEF], 0.5))


def zeroed_hours(h) -> None:
    h.shown[(np.arange(len(h.tap)) >= h.onset) & (h.hour < 6), THIEF] = 0


def bypassed_circuit(h) -> None:
    evening = (np.arange(len(h.tap)) >= h.onset) & (h.hour >= 17) & (h.hour < 23)
    h.shown[evening, THIEF] = np.maximum(h.shown[evening, THIEF] - 120, 0)


@pytest.mark.parametrize(
    ("steal", "names"),
    [
        (scale, {"under-registration"}),
        (bypass, {"bypass"}),
        (constant, {"constant"}),
        (recording, {"recording"}),
        (ceiling, {"ceiling"}),
        (zeroed_hours, {"zeroed hours"}),
        (bypassed_circuit, {"bypassed circuit"}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_mechanism_names_the_thief_and_itself(house: Maker, steal, names, seed: int) -> None:
    h = house(seed)
    steal(h)
    found = attribute(h.rows(), h.when)
    assert found.probability[THIEF] > 0.9
    assert found.mechanism[THIEF] in names
    assert found.probability.sum() + found.nobody == pytest.approx(1)


@pytest.mark.parametrize("kind", ["steady", "switched", "household"])
def test_a_tap_ahead_of_the_meters_is_nobodys(house: Maker, kind: str) -> None:
    h = house(3)
    rows = np.arange(len(h.tap))
    if kind == "steady":
        h.tap[h.after] = 150
    elif kind == "switched":
        h.tap[(rows >= h.onset) & (((h.hour - 20) % 24) < 12)] = 300
    else:
        h.tap[h.after] = house(77).used[h.after, 0]
    found = attribute(h.rows(), h.when)
    assert found.nobody > 0.9
    assert found.probability.max() < 0.05


def test_a_flat_that_falls_empty_is_told_from_the_one_that_steals(house: Maker) -> None:
    """Both meters fall to next to nothing on the same day: only one flat's load is what is missing."""
    h = house(4)
    bypass(h)
    h.used[h.after, 6] *= 0.03
    h.shown[h.after, 6] = h.used[h.after, 6]
    found = attribute(h.rows(), h.when)
    assert found.probability[THIEF] > 0.9
    assert found.probability[6] < 0.05


def test_a_flat_that_falls_empty_when_a_tap_begins_is_not_accused(house: Maker) -> None:
    h = house(5)
    h.tap[h.after] = 250
    h.used[h.after, 6] *= 0.03
    h.shown[h.after, 6] = h.used[h.after, 6]
    found = attribute(h.rows(), h.when)
    assert found.probability[6] < 0.05
    assert found.nobody > 0.9


def test_a_flat_empty_since_long_before_is_not_accused_of_what_begins_now(house: Maker) -> None:
    h = house(6)
    scale(h)
    h.used[h.onset - 20 * SLOTS :, 6] *= 0.03
    h.shown[h.onset - 20 * SLOTS :, 6] = h.used[h.onset - 20 * SLOTS :, 6]
    found = attribute(h.rows(), h.when)
    assert found.probability[THIEF] > 0.9
    assert found.probability[6] < 0.02


@pytest.mark.parametrize(("steal", "name"), [(scale, "under-registration"), (bypass, "bypass")])
def test_what_was_there_from_the_start_has_no_before(house: Maker, steal, name: str) -> None:
    h = house(7, after_days=30, past_days=0)
    steal(h)
    found = attribute(h.rows(), Onset(0, 0, 0))
    assert int(np.argmax(found.probability)) == THIEF
    assert found.mechanism[THIEF] == name
    assert found.probability[THIEF] > 0.6


def test_signs_and_the_models_odds_are_log_likelihood_ratios(house: Maker) -> None:
    h = house(8, after_days=1)
    h.tap[h.after] = 40
    sure = Priors(lapse=0.0, lapse_at_once=0.0)
    plain = attribute(h.rows(), h.when, priors=sure)
    told = np.zeros(10)
    told[2] = 2.0
    for found in (
        attribute(h.rows(), h.when, signs=told, priors=sure),
        attribute(h.rows(), h.when, prior_log_odds=told, priors=sure),
    ):
        gain = np.log(found.probability[2] / found.nobody) - np.log(plain.probability[2] / plain.nobody)
        assert gain == pytest.approx(2.0)


def test_one_of_two_thieves_is_first(house: Maker) -> None:
    h = house(9, after_days=14)
    scale(h)
    h.shown[h.after, 7] *= 0.6
    found = attribute(h.rows(), h.when)
    first = int(np.argmax(found.probability))
    assert first in {THIEF, 7}
    assert found.probability[[THIEF, 7]].sum() > 0.9, "nobody else is accused"


def test_a_swinging_loss_is_dated_from_where_the_balance_began_to_swing(house: Maker) -> None:
    """A constant reading swings the balance both ways; the alarm dates it 12 days late, when all of it looks normal."""
    h = house(10, after_days=16)
    h.shown[h.after, THIEF] = h.used[: h.onset, THIEF].mean()
    late = h.onset + 12 * SLOTS
    found = attribute(h.rows(), Onset(late - 24, late, late + 24))
    assert found.probability[THIEF] > 0.9
    assert found.mechanism[THIEF] == "constant"


@pytest.mark.parametrize(("change", "name"), [(1.15, "over-registration"), (None, "constant")])
def test_a_surplus_is_a_fast_meters_or_an_artificial_ones(house: Maker, change: float | None, name: str) -> None:
    h = house(11)
    if change:
        h.shown[h.after, THIEF] *= change
    else:
        h.shown[h.after, THIEF] = 1.5 * h.used[: h.onset, THIEF].mean()
    found = attribute(h.rows(), h.when, surplus=True)
    assert found.probability[THIEF] > 0.9
    assert found.mechanism[THIEF] == name


def test_unread_generation_is_nobodys_surplus(house: Maker) -> None:
    h = house(12)
    rows = np.arange(len(h.tap))
    h.tap[(rows >= h.onset) & (h.hour >= 9) & (h.hour < 17)] = -250
    found = attribute(h.rows(), h.when, surplus=True)
    assert found.nobody > 0.9


def test_gaps_are_borne(house: Maker) -> None:
    """Unknown residual rows, unknown and bridged rows of flats: the verdict stands, nothing becomes NaN."""
    h = house(1)
    scale(h)
    rows = h.rows()
    rng = np.random.default_rng(0)
    sub, residual = rows.sub_wh.copy(), rows.residual_wh.copy()
    residual[rng.random(len(residual)) < 0.2] = np.nan
    sub[rng.random(sub.shape) < 0.02] = np.nan
    bridged = rng.random(sub.shape) < 0.05
    found = attribute(replace(rows, sub_wh=sub, residual_wh=residual, estimated=bridged), h.when)
    assert found.probability[THIEF] > 0.9
    assert np.isfinite(found.statistics).all()


def test_without_any_known_row_the_prior_is_returned(house: Maker) -> None:
    h = house(1)
    rows = h.rows()
    found = attribute(replace(rows, residual_wh=np.full(len(rows.day), np.nan)), h.when)
    assert found.nobody == Priors().nobody_prior
    assert found.probability == pytest.approx(np.full(10, (1 - found.nobody) / 10))


def finer(rows: Rows, times: int) -> Rows:
    """The same energy in rows `times` as short."""
    share = np.full(times, 1.0 / times)
    return replace(
        rows,
        sub_wh=np.kron(rows.sub_wh, share[:, None]),
        residual_wh=np.kron(rows.residual_wh, share),
        boundary_variance_wh2=np.append(np.repeat(rows.boundary_variance_wh2[:-1], times), 625.0),
        day=np.repeat(rows.day, times),
        slot=np.repeat(rows.slot, times) * times + np.tile(np.arange(times), len(rows.slot)),
        slots_per_day=rows.slots_per_day * times,
        estimated=None,
    )


def test_finer_rows_are_added_up(house: Maker) -> None:
    h = house(2)
    scale(h)
    coarse, onset = h.rows(estimated=None), h.when
    times = 6
    fine = attribute(finer(coarse, times), Onset(onset.lo * times, onset.best * times, onset.hi * times))
    plain: Attribution = attribute(coarse, onset)
    assert fine.probability == pytest.approx(plain.probability, abs=1e-9)


def test_the_statistics_say_what_the_flat_did(house: Maker) -> None:
    h = house(2)
    bypass(h)
    found = attribute(h.rows(), h.when)
    said = dict(zip(STATISTICS, found.statistics[THIEF], strict=True))
    used_w = 2 * h.used[h.after, THIEF].mean()
    assert said["deficit_w"] == pytest.approx(used_w, rel=0.25)
    assert said["level_ratio"] < 0.05
    assert said["conservation_match"] > 2
    assert said["flat_signature"] > 4
    honest = np.delete(found.statistics[:, STATISTICS.index("conservation_t")], THIEF)
    assert np.abs(honest).max() < 3 < said["conservation_t"]


def test_an_onset_outside_its_bounds_widens_them(house: Maker) -> None:
    """Rows between the best onset and a later lower bound carry the loss: they must not teach what is normal."""
    h = house(1, after_days=14)
    scale(h)
    inside = attribute(h.rows(), Onset(h.onset, h.onset, h.onset + 48))
    outside = attribute(h.rows(), Onset(h.onset + 10 * 48, h.onset, h.onset + 48))
    assert outside.probability == pytest.approx(inside.probability)
