"""Short rows change nothing of what the long ones say, and tell a large loss before a long one is over."""

from __future__ import annotations

import numpy as np
import pytest

from agent.pipeline.fast import short_rows_s
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config, Detection, Meter, Site, Zone
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.booked import StoredHistory
from core.registers.samples import RegisterSample

START_S, MINUTE_S, DAY = 1_767_225_600.0, 60.0, 1440
SUBS = [f"flat-{n}" for n in range(8)]


class Ledger:
    def apply(self, evidence):
        return []

    def observe(self, conditions):
        return []

    def take_accepted(self):
        return []


def config(interval_s):
    return Config(
        site=Site(site="s", gateway="g"),
        meter=[Meter(id="main", accuracy_class=0.5, resolution_wh=1.0)]
        + [Meter(id=name, resolution_wh=1.0) for name in SUBS],
        zone=[Zone(id="house", main="main", subs=SUBS)],
        detection=Detection(interval_s=interval_s),
    )


def registers(days, loss_w=0.0, onset=0, seed=3):
    """[minutes, meters] of a house that loses a little in its copper, and `loss_w` from minute `onset` on."""
    rng = np.random.default_rng(seed)
    rows = days * DAY
    hour = np.arange(rows) % DAY / 60
    flats = 150 + 250 * rng.gamma(0.5, 1.0, (rows, 8)) * (1 + np.exp(-((hour - 19) ** 2) / 8))[:, None]
    head = flats.sum(axis=1) * 1.01 + 6 + np.where(np.arange(rows) >= onset, loss_w, 0.0)
    wh = np.cumsum(np.column_stack([head, flats]) / 60, axis=0)
    return START_S + MINUTE_S * np.arange(1, rows + 1), np.floor(wh)


def run(interval_s, times_s, wh, part=DAY):
    pipeline, steps = Pipeline(config(interval_s), Ledger(), interval_s=interval_s), []
    every = round(interval_s / MINUTE_S)
    rows = slice(every - 1, None, every)
    times_s, wh = times_s[rows], wh[rows]
    for at in range(0, len(times_s), part // every):
        stop = at + part // every
        pipeline.feed_block(times_s[at:stop], np.ascontiguousarray(wh[at:stop]))
        steps.append(pipeline.step(float(times_s[at:stop][-1]) + 1e4))
    return pipeline, steps


def test_without_a_large_loss_all_that_is_judged_kept_and_sent_is_the_same_bit_for_bit():
    times_s, wh = registers(13)
    (short, of_short), (long, of_long) = run(60.0, times_s, wh, 180), run(900.0, times_s, wh, 180)
    assert short._fast is not None
    assert long._fast is None
    for one, other in zip(of_short, of_long, strict=True):
        assert one.balances == other.balances
        assert one.evidence == other.evidence
        assert [row.wh.tobytes() for row in one.history] == [row.wh.tobytes() for row in other.history]
    heads = [{k: v for k, v in steps[-1].checkpoint.items() if k != "pipeline"} for steps in (of_short, of_long)]
    assert heads[0] == heads[1]


@pytest.mark.parametrize("part", [DAY, 180])
def test_a_large_loss_is_told_within_minutes_and_committed_with_a_checkpoint_that_goes_on(part):
    onset = 12 * DAY + 613
    times_s, wh = registers(14, 900.0, onset)
    _, steps = run(60.0, times_s, wh, part)
    told = [(step, e) for step in steps for e in step.evidence]
    first, evidence = told[0]
    assert 0 < evidence.time_s - times_s[onset] < 12 * 60
    assert (evidence.active, evidence.suspects, evidence.unexplained_probability) == (True, (), 1.0)
    assert evidence.loss_w == pytest.approx(900.0, rel=0.5)
    assert abs(evidence.onset_s - times_s[onset]) < 600
    assert first.checkpoint is not None
    assert len({e.episode for _, e in told if e.kind != "balance_surplus"}) == 1  # the long rows find it no second time
    history = [row for step in steps[: steps.index(first) + 1] for row in step.history]
    stored = StoredHistory(
        np.array([r.time_s for r in history]), np.array([r.wh for r in history]),
        np.array([r.sd_wh for r in history], np.float32), np.array([r.flags for r in history]),
    )  # fmt: skip
    again = Pipeline(config(60.0), Ledger(), interval_s=60.0)
    again.restore(first.checkpoint, stored)
    (loss,) = again._zones[0].monitor.life.told
    assert loss.active
    late = times_s > first.history[-1].time_s
    again.feed_block(times_s[late], np.ascontiguousarray(wh[late]))
    rest = again.step(float(times_s[-1]) + 1e4)
    assert {e.episode for e in rest.evidence} <= {evidence.episode}


def test_live_samples_make_short_rows_before_a_long_one_is_over():
    times_s, wh = registers(14, 900.0, 12 * DAY + 613)
    split = 12 * DAY + 540
    pipeline, _ = run(60.0, times_s[:split], wh[:split])
    names, told = ("main", *SUBS), []
    for t, row in zip(times_s[split : split + 120], wh[split : split + 120], strict=True):
        pipeline.feed(
            RegisterSample(name, float(t) + 1.0, 0.1, import_wh=float(value))
            for name, value in zip(names, row, strict=True)
        )
        step = pipeline.step(float(t) + 2.0)
        told += [(e.time_s, bool(step.history), step.checkpoint) for e in step.evidence]
    at_s, closed, checkpoint = told[0]
    assert at_s - times_s[12 * DAY + 613] < 15 * 60
    assert not closed
    assert checkpoint is not None


@pytest.mark.parametrize(
    ("interval_s", "row_s", "poll_s", "short_s"),
    [
        (900.0, 900.0, 60.0, None),
        (1800.0, 1800.0, 60.0, None),
        (60.0, 900.0, 0.0, 60.0),
        (1.0, 900.0, 1.0, 60.0),  # under a minute a coarse main register stands still for rows
        (60.0, 900.0, 60.0, 180.0),  # a boundary needs a reading on either side
        (60.0, 900.0, 600.0, None),
        (7.5, 900.0, 1.0, 60.0),
    ],
)
def test_short_rows_are_as_long_as_readings_bear(interval_s, row_s, poll_s, short_s):
    assert short_rows_s(interval_s, row_s, poll_s) == short_s


@pytest.mark.parametrize(
    ("interval_s", "row_s"),
    [(1, 900), (10, 900), (60, 900), (600, 1200), (900, 900), (1800, 1800), (3600, 3600), (7200, 7200), (1080, 1080)],
)
def test_rows_that_are_judged_are_a_quarter_of_an_hour_at_least(interval_s, row_s):
    assert Detection(interval_s=float(interval_s)).row_s == row_s


@pytest.mark.parametrize("interval_s", [900.0, 1800.0])
def test_at_a_quarter_and_half_an_hour_nothing_of_the_short_rows_takes_part(interval_s, monkeypatch):
    """What a loss is told as is the same octet for octet with the whole room gone."""
    times_s, wh = registers(15, 900.0, 12 * DAY + 613)

    def told():
        _, steps = run(interval_s, times_s, wh)
        return [repr(e).encode() for step in steps for e in step.evidence]

    before = told()

    def absent(*_args, **_kwargs):
        raise AssertionError("short rows")

    monkeypatch.setattr("agent.pipeline.pipeline.FastRows", absent)
    for name in ("scene", "large"):
        monkeypatch.setattr(ZoneMonitor, name, absent)
    assert before
    assert told() == before


def restarted(times_s, wh, split):
    """A pipeline that goes on behind row `split` from the checkpoint and the stored rows of one before it."""
    _, steps = run(60.0, times_s[:split], wh[:split])
    history = [row for step in steps for row in step.history]
    stored = StoredHistory(
        np.array([r.time_s for r in history]), np.array([r.wh for r in history]),
        np.array([r.sd_wh for r in history], np.float32), np.array([r.flags for r in history]),
    )  # fmt: skip
    again = Pipeline(config(60.0), Ledger(), interval_s=60.0)
    again.restore(next(s.checkpoint for s in reversed(steps) if s.checkpoint is not None), stored)
    return again


def live(pipeline, times_s, wh, sampled):
    """What is told of rows that come as samples `sampled(t, row)`, one minute after the other: when, W."""
    told = []
    for t, row in zip(times_s, wh, strict=True):
        pipeline.feed(sampled(float(t), row))
        told += [(e.time_s, e.loss_w) for e in pipeline.step(float(t) + 2.5).evidence if e.active]
    return told


NAMES = ("main", *SUBS)


def test_an_hour_after_a_restart_a_large_loss_is_found_within_minutes():
    onset, split = 12 * DAY + 613, 12 * DAY + 540
    times_s, wh = registers(14, 900.0, onset)
    told = live(
        restarted(times_s, wh, split), times_s[split : split + 120], wh[split : split + 120],
        lambda t, row: [RegisterSample(n, t + 1.0, 0.1, import_wh=float(v)) for n, v in zip(NAMES, row, strict=True)],
    )  # fmt: skip
    assert 0 < told[0][0] - times_s[onset] < 15 * 60


@pytest.mark.parametrize("loss_w", [0.0, 900.0])
def test_a_clock_that_trembles_by_a_second_makes_no_loss_and_hides_none(loss_w):
    onset, split = 12 * DAY + 613, 12 * DAY + 540
    times_s, wh = registers(14, loss_w, onset)
    rng = np.random.default_rng(8)

    def sampled(t, row):
        early_s, late_s = rng.uniform(0.0, 2.0, (2, len(NAMES)))  # two reads around the boundary, stamped a second off
        before = [
            RegisterSample(n, t - e, 0.1, import_wh=float(v)) for n, e, v in zip(NAMES, early_s, row, strict=True)
        ]
        after = [RegisterSample(n, t + e, 0.1, import_wh=float(v)) for n, e, v in zip(NAMES, late_s, row, strict=True)]
        return before + after

    told = live(restarted(times_s, wh, split), times_s[split : split + 360], wh[split : split + 360], sampled)
    if loss_w:
        assert 0 < told[0][0] - times_s[onset] < 15 * 60
    else:
        assert told == []
