"""Meters that show a new value every 15 or 60 s only: found out, and dated right; all others are left alone."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from agent.polling.refresh import Refresh
from core.registers.samples import RegisterSample


def polled(load_w, every_s=None, step_wh=1.0, poll_s=1.0, span_s=3600, jitter_s=0.0, phase_s=3.3, seed=1):
    """Samples of a meter with a load of `load_w(t)`; with `every_s` it shows what it was at the last refresh."""
    shaken, wh, true, t, samples = random.Random(seed), 0.0, [0.0], 0.0, []
    for second in range(span_s + 1):
        wh += load_w(second) / 3600
        true.append(wh)
    while t < span_s:
        seen_s = t if every_s is None else max(0.0, math.floor((t - phase_s) / every_s) * every_s + phase_s)
        at = int(seen_s)
        register = true[at] + (true[at + 1] - true[at]) * (seen_s - at)
        samples.append(RegisterSample("m", 1e9 + t, 0.01, import_wh=math.floor(register / step_wh) * step_wh))
        t += poll_s + shaken.uniform(-jitter_s, jitter_s)
    return samples, true


@pytest.mark.parametrize("every_s", [15.0, 60.0])
@pytest.mark.parametrize("jitter_s", [0.0, 0.3])
def test_a_slow_register_is_found_out_and_what_it_shows_is_dated_when_it_was_so(every_s, jitter_s) -> None:
    samples, true = polled(lambda t: 900 + 600 * math.sin(t / 300), every_s, jitter_s=jitter_s)
    refresh, worst_wh, raw_wh = Refresh(), 0.0, 0.0
    for sample in samples:
        kept = refresh.take([sample])
        if sample.time_s < 1e9 + 1800:
            continue
        assert refresh.every_s == pytest.approx(every_s, rel=0.1)
        raw_wh = max(raw_wh, true[int(sample.time_s - 1e9)] - sample.import_wh)
        for one in kept:
            assert one.uncertainty_s <= 1.0
            worst_wh = max(worst_wh, abs(true[round(one.time_s - 1e9)] - one.import_wh))
    assert worst_wh <= 1.0 + 1500 / 3600 * 1.5  # the register's step and half a poll
    assert raw_wh > 1.4 * worst_wh


@pytest.mark.parametrize(
    ("load_w", "step_wh", "poll_s"),
    [
        (lambda t: 500.0, 1.0, 1.0),  # a step every 7 s, as regular as a clock
        (lambda t: 500.0, 10.0, 1.0),
        (lambda t: 5000.0, 1.0, 1.0),
        (lambda t: 50.0 + 3000.0 * (t % 900 < 120), 1.0, 1.0),  # a kettle
        (lambda t: 500.0, 10.0, 60.0),
        (lambda t: 2000.0, 0.01, 5.0),
    ],
)
def test_a_register_that_counts_on_is_left_alone(load_w, step_wh, poll_s) -> None:
    samples, _ = polled(load_w, None, step_wh, poll_s)
    refresh = Refresh()
    assert [kept for sample in samples for kept in refresh.take([sample])] == samples
    assert refresh.every_s is None


def test_where_nothing_flows_a_slow_register_is_still_a_sample_now_and_then() -> None:
    samples, _ = polled(lambda t: 1000.0 if t < 1800 else 0.0, 15.0)
    refresh = Refresh()
    kept = [one for sample in samples for one in refresh.take([sample])]
    gaps = [b.time_s - a.time_s for a, b in pairwise(kept)]
    assert refresh.every_s == pytest.approx(15.0, rel=0.1)
    assert max(gaps) <= 47.0


def test_a_meter_that_is_exchanged_for_a_quicker_one_is_believed_again() -> None:
    slow, _ = polled(lambda t: 1000.0, 15.0, span_s=600)
    quick, _ = polled(lambda t: 1000.0, None, span_s=600)
    refresh = Refresh()
    for sample in slow:
        refresh.take([sample])
    assert refresh.every_s is not None
    for sample in quick:
        refresh.take([RegisterSample("m", sample.time_s + 700.0, 0.01, import_wh=sample.import_wh)])
    assert refresh.every_s is None
