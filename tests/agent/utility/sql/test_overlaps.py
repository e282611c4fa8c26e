"""Intervals of one zone that overlap: whichever comes first stays, and no moment of a day counts twice."""

from __future__ import annotations

import random
import threading
from itertools import pairwise, permutations
from typing import Any

import pytest

from agent.utility.sql.batch import Letter, day_rows
from agent.utility.sql.schema import BALANCE, BALANCE_DAY, DAY_S
from agent.utility.sql.server import StoreUnavailable
from agent.utility.sql.store import Store, open_store
from tests.agent.utility.sql.test_store import TODAY, days

MIDNIGHT_S = (TODAY - 2) * DAY_S


def interval(zone: int, start_s: int, seconds: int, joules: int | None = None) -> Letter:
    """A balance of two days ago, a joule a second."""
    main_j = seconds if joules is None else joules
    row = (zone, MIDNIGHT_S + start_s, seconds, main_j, main_j - 100, 60, 40, 10, 990_000)
    return Letter(1, f"{zone}/{start_s}/{seconds}".encode(), b"payload", ((BALANCE, row),))


def spans(store: Store, zone: int) -> list[tuple[int, int]]:
    rows: list[Any] = store.rows("SELECT start_s, seconds FROM balance WHERE zone_key = ? ORDER BY start_s", (zone,))
    return [(start_s - MIDNIGHT_S, start_s - MIDNIGHT_S + seconds) for start_s, seconds in rows]


def sound(store: Store, sent: list[Letter]) -> None:
    """No two intervals overlap, every one left out overlaps one that is there, and the days are their sums."""
    rows: list[Any] = store.rows(f"SELECT {', '.join(BALANCE.names)} FROM balance ORDER BY zone_key, start_s")
    for before, after in pairwise(rows):
        assert before[0] != after[0] or before[1] + before[2] <= after[1], (before, after)
    kept = {row[:3] for row in rows}
    for item in sent:
        zone, start_s, seconds = item.rows[0][1][:3]
        assert (zone, start_s, seconds) in kept or any(
            row[0] == zone and row[1] < start_s + seconds and start_s < row[1] + row[2] for row in rows
        ), (zone, start_s, seconds)
    names = ", ".join(BALANCE_DAY.names[:-1])
    told = store.rows(f"SELECT {names} FROM balance_day ORDER BY zone_key, day")
    assert told == [row[:-1] for row in day_rows(rows)]


QUARTERS = [interval(1, 900 * n, 900) for n in range(96)]
HALVES = [interval(1, 1800 * n, 1800) for n in range(48)]


class TestAnIntervalThatChanged:
    def test_a_half_hour_over_a_quarter_does_not_count_twice(self, store: Store) -> None:
        """The gateway went over to half hours at 10:20; its first one contains a quarter that is here already."""
        assert store.apply(QUARTERS[:41]).new == 41
        told = store.apply(HALVES[20:])
        assert told.new == 27
        assert [item.topic for item in told.overlapping] == [b"1/36000/1800"]
        assert days(store)[0][2:5] == (68, 41 * 900 + 27 * 1800, 41 * 900 + 27 * 1800)
        sound(store, QUARTERS[:41] + HALVES[20:])

    def test_all_quarters_and_then_all_halves(self, store: Store) -> None:
        assert store.apply(QUARTERS).new == 96
        told = store.apply(HALVES)
        assert (told.new, len(told.overlapping)) == (0, 48)
        assert days(store)[0][2:4] == (96, DAY_S)

    def test_a_repeat_is_no_overlap(self, store: Store) -> None:
        store.apply([*QUARTERS[:3], HALVES[10]])
        assert store.apply([*QUARTERS[:3], HALVES[10]]) == (0, ())
        assert len(store.apply([HALVES[0]]).overlapping) == 1
        assert len(store.apply([HALVES[0]]).overlapping) == 1, "each time the same"
        sound(store, [*QUARTERS[:3], HALVES[10], HALVES[0]])

    def test_a_repeat_with_other_figures_is_a_repeat(self, store: Store) -> None:
        store.apply([interval(1, 0, 900), interval(1, 1800, 1800)])
        assert store.apply([interval(1, 0, 900, 7), interval(1, 1800, 1800, 7)]) == (0, ())
        assert days(store)[0][4] == 2700

    def test_the_same_start_and_another_length(self, store: Store) -> None:
        store.apply([interval(1, 0, 900)])
        told = store.apply([interval(1, 0, 1800), interval(2, 0, 1800)])
        assert told.new == 1
        assert [item.topic for item in told.overlapping] == [b"1/0/1800"]

    def test_in_one_batch(self, store: Store) -> None:
        told = store.apply([interval(1, 900, 900), interval(1, 0, 1800), interval(1, 1800, 900), interval(2, 0, 900)])
        assert told.new == 3
        assert len(told.overlapping) == 1
        sound(store, [interval(1, 900, 900), interval(1, 0, 1800), interval(1, 1800, 900), interval(2, 0, 900)])

    def test_lengths_that_round_to_the_same_seconds(self, store: Store) -> None:
        """Multiples of 900.4 s are on a grid, too; the fifth of them begins 2 s after a quarter of an hour."""
        store.apply([interval(1, 4500, 900)])
        told = store.apply([interval(1, 4502, 900)])
        assert (told.new, len(told.overlapping)) == (0, 1)

    def test_other_zones_and_days_are_left_alone(self, store: Store) -> None:
        batch = [interval(zone, 900 + DAY_S * day, 900) for zone in (1, 2) for day in (0, 1)]
        store.apply(batch)
        told = store.apply([interval(1, 0, 1800), interval(2, 1800, 900), interval(3, 0, 1800)])
        assert told.new == 2
        assert [item.topic for item in told.overlapping] == [b"1/0/1800"]
        sound(store, [*batch, interval(1, 0, 1800), interval(2, 1800, 900), interval(3, 0, 1800)])

    def test_a_day_from_before_lengths_were_kept(self, empty_dsn: str) -> None:
        with open_store(empty_dsn, make=True) as store:
            store.migrate(MIDNIGHT_S + 2 * DAY_S, keep_days=5)
            self.of_version_3(store)

    def of_version_3(self, store: Store) -> None:
        store.apply(QUARTERS[:10])
        store.rows("ALTER TABLE balance_day DROP COLUMN step_s")
        store.rows("UPDATE migration SET version = 3")
        store.migrate(MIDNIGHT_S + 2 * DAY_S, keep_days=5)
        store.check_version()
        told = store.apply([HALVES[4], QUARTERS[9], QUARTERS[10]])
        assert told.new == 1
        assert [item.topic for item in told.overlapping] == [HALVES[4].topic]
        assert days(store)[0][-1] == 900, "one length after all: from now on nothing needs to be looked up"
        sound(store, [*QUARTERS[:11], HALVES[4]])


class TestAnyOrder:
    @pytest.mark.parametrize("order", list(permutations(range(4))))
    def test_of_four(self, store: Store, order: tuple[int, ...]) -> None:
        few = [interval(1, 0, 900), interval(1, 900, 900), interval(1, 0, 1800), interval(1, 0, 3600)]
        for n in order:
            store.apply([few[n]])
            sound(store, [])
        first = store.apply(few)
        assert first.new == 0
        sound(store, few)

    @pytest.mark.parametrize("seed", range(3))
    def test_of_many_in_batches_with_repeats(self, store: Store, seed: int) -> None:
        rng = random.Random(seed)
        every = [
            interval(zone, start_s, seconds, None if rng.random() < 0.9 else 5)
            for zone in range(6)
            for seconds in (600, 900, 1200, 1800, 3600)
            for start_s in range(0, 2 * DAY_S, seconds)
            if rng.random() < 0.2
        ]
        rng.shuffle(every)
        new = 0
        for at in range(0, len(every), 40):
            batch = every[max(0, at - 10) : at + 40]
            told = store.apply(batch)
            again = store.apply(batch)
            assert again.new == 0
            assert set(told.overlapping) == set(again.overlapping)
            new += told.new
        assert new == store.rows("SELECT COUNT(*) FROM balance")[0][0]
        sound(store, every)

    def test_two_writers_at_the_same_time(self, store: Store, dsn: str) -> None:
        """One sends quarters, the other halves, in different orders: each moment counts once."""
        quarters = [interval(zone, 900 * n, 900) for zone in range(12) for n in range(24)]
        halves = [interval(zone, 1800 * n, 1800) for zone in range(12) for n in range(12)]
        new: list[int] = []
        failed: list[Exception] = []

        def write(whole: list[Letter], seed: int) -> None:
            order = whole.copy()
            random.Random(seed).shuffle(order)
            try:
                with open_store(dsn) as other:
                    for at in range(0, len(order), 24):
                        for _ in range(200):
                            try:
                                new.append(other.apply(order[at : at + 24]).new)
                                break
                            except StoreUnavailable:
                                continue  # a deadlock or a lock wait: the ingest tries again too
                        else:
                            raise AssertionError("never got through")
            except Exception as error:
                failed.append(error)

        writers = [threading.Thread(target=write, args=args) for args in ((quarters, 1), (halves, 2), (halves, 3))]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert failed == []
        assert sum(new) == store.rows("SELECT COUNT(*) FROM balance")[0][0]
        sound(store, quarters + halves)
