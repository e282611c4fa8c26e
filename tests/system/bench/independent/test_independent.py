"""The measuring world is measured: its balance closes, its truth is what it took away, its score counts rightly."""

from __future__ import annotations

import numpy as np
import pytest

from tests.system.bench.independent import ahead, honest, thefts
from tests.system.bench.independent.homes import DAY
from tests.system.bench.independent.kinds import KINDS
from tests.system.bench.independent.score import judge, wilson
from tests.system.bench.independent.world import Reading, Recording, building

CATALOGUE = (thefts, ahead, honest)  # importing them fills KINDS
DAYS = 6


def drawn(kind: str, seed: int = 5, onset: int = 3 * DAY) -> Recording:
    """A house with fine registers, all read, so that its arithmetic can be seen."""
    house = building(np.random.default_rng(seed), DAYS, house=KINDS[kind].house or "metered", warm=False)
    house.reading = Reading(1800, "profile", 0.0, 0.0)
    house.main_step_wh = house.step_wh = 1.0
    KINDS[kind].act(house, onset)
    return house.recording()


def missing_kwh(recording: Recording, first_day: int, last_day: int) -> float:
    """Main less the sum of the subs between two midnights, from the registers as they were read."""
    rows = [int(np.searchsorted(recording.times_s, day * DAY * 60)) for day in (first_day, last_day)]
    used = recording.registers_kwh[rows[1]] - recording.registers_kwh[rows[0]]
    return float(used[0] - used[1:].sum())


def test_an_honest_balance_closes_to_copper_burden_and_class():
    recording = drawn("plain")
    used = recording.mean_w * 24 * 5 / 1000
    assert 0.0 < missing_kwh(recording, 0, 5) + 0.012 * used < 0.05 * used
    assert not recording.loss_w.any()


@pytest.mark.parametrize("kind", ["jumper", "squatter", "lost_element", "caretaker", "miner_in_the_cellar", "braked"])
def test_what_is_taken_is_what_the_registers_miss(kind):
    recording = drawn(kind)
    before, after = missing_kwh(recording, 1, 3), missing_kwh(recording, 3, 5)
    taken = float(recording.loss_w[3 * DAY : 5 * DAY].sum()) / 60_000
    assert taken > 0.2
    assert not recording.loss_w[: 3 * DAY].any()
    assert after - before == pytest.approx(taken, rel=0.2, abs=0.6)


def test_a_neighbours_loss_is_no_loss_of_the_balance():
    assert not drawn("from_the_neighbour").loss_w.any()


def word(**said: object) -> dict[str, object]:
    usual = {"alert": "a", "revision": 1, "state": "raised", "kind": "bypass", "at": 2.0 * DAY, "onset": 1.5 * DAY}
    usual |= {"loss_w": 100.0, "interval": [80.0, 120.0], "loss_kwh": 1.2, "suspects": [("f1", 0.95)], "upstream": 0.01}
    return usual | {"unexplained": 0.0, "true_w": 110.0, "true_kwh": 1.3, "ever_kwh": 1.3} | said


def record(words: list[dict[str, object]], **told: object) -> dict[str, object]:
    return {"guilty": {"f1": DAY}, "onset": DAY, "balance": True, "thieves": 1, "over": [], "words": words} | told


def test_the_score_tells_a_thief_from_an_innocent_and_a_false_alarm_from_a_finding():
    right = judge(record([word()]))
    assert right["first"] == {"f1"}
    assert right["delay"] == pytest.approx(1.0)
    assert right["covered"]
    assert not right["innocent"]
    wrong = judge(record([word(), word(revision=2, state="updated", at=2.5 * DAY, suspects=[("f2", 0.92)])]))
    assert wrong["innocent"] == {"f2"}
    assert wrong["last"] == {"f2"}
    early = judge(record([word(at=0.5 * DAY, onset=0.1 * DAY)]))
    assert (early["false"], early["found"]) == (1, False)
    house = judge(record([word(suspects=[("f1", 0.5)])], guilty={}, onset=None))
    assert house["false"] == 1


def test_nonsense_is_seen():
    seen = judge(record([word(loss_w=-5.0, interval=[-20.0, 10.0])]))["nonsense"]
    zero = {"names while zero is in the interval": 1, "raised with zero in its interval": 1}
    assert seen == zero | {"negative watts": 1}
    again = [word(), word(revision=2, state="cleared", at=3.0 * DAY), word(alert="b", at=3.5 * DAY, onset=1.6 * DAY)]
    assert judge(record(again))["nonsense"]["raised again within two days of its end"] == 1
    assert not judge(record([word()]))["nonsense"]


def test_wilson_is_wilson():
    assert wilson(49, 50) == "49/50 (0.90 to 1.00)"
