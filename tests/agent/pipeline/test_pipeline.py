"""The pipeline on small made-up buildings: what is lost is found, what is honest is left in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config, Detection, Meter, Site, Zone
from core.evidence import LossKind
from core.registers.booked import HistoryRow, StoredHistory
from core.registers.samples import RegisterSample
from core.signs import MeterSign, SignKind

STEP_S = 1800
DAY = 86_400 // STEP_S
START_S = 1_700_006_400.0
FLATS = 12
MAIN = "main"
SUBS = tuple(f"flat-{k}" for k in range(FLATS))


class Ledger:
    """A book that writes down what it is told."""

    def __init__(self):
        self.evidence = []

    def apply(self, evidence):
        self.evidence += evidence
        return []

    def observe(self, conditions):
        self.observed = [*getattr(self, "observed", []), *conditions]
        return []

    def take_accepted(self):
        return []


def config(zones=None, **detection):
    zones = zones or [Zone(id="building", main=MAIN, subs=list(SUBS))]
    meters = dict.fromkeys(m for z in zones for m in (z.main, *z.subs))
    return Config(
        site=Site(site="s", gateway="g"),
        meter=[Meter(id=m, accuracy_class=0.5 if m.startswith("main") else 1.0) for m in meters],
        zone=zones,
        detection=Detection(interval_s=STEP_S, **detection),
    )


def loads(days, seed=1):
    """Power of each flat, W, [rows, flats]: a daily cycle, appliances, and a base load."""
    rng = np.random.default_rng(seed)
    rows = days * DAY
    hour = np.arange(rows) % DAY / DAY * 24
    shape = 0.5 + np.exp(-(((hour - 19) % 24 - 0) ** 2) / 12) + 0.6 * np.exp(-((hour - 8) ** 2) / 4)
    base = rng.uniform(30, 120, FLATS)
    return base + shape[:, None] * rng.gamma(0.7, rng.uniform(100, 500, FLATS), (rows, FLATS))


def registers(power, stolen_w=0.0, shown=None, seed=2):
    """Main and sub registers [rows + 1, 1 + flats] in Wh with loss, class errors, resolution; NaN at some reads."""
    rng = np.random.default_rng(seed)
    hours = STEP_S / 3600
    through = power.sum(axis=1) + stolen_w
    main = through + 0.7 * FLATS + 0.012 * through**2 / through.mean()
    seen = (power if shown is None else shown) * (1 + rng.normal(0, 0.003, FLATS))
    flow = np.column_stack([main, seen]) * hours
    wh = np.concatenate([np.zeros((1, FLATS + 1)), np.cumsum(flow, axis=0)]) + 5000.0
    late = np.abs(rng.normal(0, 3, wh.shape)) * np.concatenate([flow[:1], flow]) / STEP_S
    wh = np.floor((wh + late) / 10) * 10
    missed = rng.random(wh.shape) < 0.01
    missed[:, 0] = missed[0] = False
    return np.where(missed, np.nan, np.maximum.accumulate(wh, axis=0))


def times(wh):
    return START_S + STEP_S * np.arange(len(wh))


def run(wh, conf=None, block=DAY):
    ledger = Ledger()
    pipeline = Pipeline(conf or config(), ledger, keep=False)
    at = times(wh)
    for start in range(0, len(wh), block):
        part = slice(start, start + block)
        pipeline.feed_block(at[part], wh[part])
        pipeline.step(float(at[part][-1]))
    return ledger.evidence, pipeline


def after(days, value, rows):
    return np.where(np.arange(rows) >= days * DAY, value, 0.0)


def test_an_honest_building_is_left_in_peace():
    evidence, pipeline = run(registers(loads(45)))
    assert evidence == []
    assert set(pipeline.scores()) == set(SUBS)


def test_a_tap_ahead_of_the_meters_is_found_within_a_day_with_its_power():
    power = loads(40)
    evidence, _ = run(registers(power, after(30, 150.0, len(power))))
    first, last = evidence[0], evidence[-1]
    onset_s = START_S + 30 * 86_400
    assert onset_s < first.time_s <= onset_s + 86_400
    assert first.kind is not LossKind.BALANCE_SURPLUS
    assert first.onset_window_s[0] <= onset_s + 3 * 3600
    assert first.onset_window_s[1] >= onset_s - 3 * 3600
    assert last.loss_w == pytest.approx(150, abs=25)
    assert last.loss_w_interval[0] < 155
    assert last.loss_w_interval[1] > 145
    assert sum(s.probability for s in last.suspects) + last.upstream_probability == pytest.approx(1, abs=0.06)
    assert {e.episode for e in evidence} == {1}


def test_a_flat_that_shows_too_little_is_found_and_named():
    power = loads(40)
    shown = power.copy()
    shown[30 * DAY :, 4] *= 0.4
    evidence, pipeline = run(registers(power, shown=shown))
    last = evidence[-1]
    assert last.suspects[0].meter == SUBS[4]
    assert last.kind in (LossKind.UNDER_REGISTRATION, LossKind.BYPASS)
    stolen = (power - shown)[30 * DAY :].sum(axis=1).mean()
    assert last.loss_w == pytest.approx(stolen, rel=0.2)
    assert max(pipeline.scores().items(), key=lambda item: item[1]["theft_probability"])[0] == SUBS[4]


def test_a_loss_from_the_start_is_found_though_nothing_changes():
    power = loads(20)
    shown = power.copy()
    shown[:, 7] *= 0.5
    evidence, _ = run(registers(power, shown=shown))
    assert evidence
    assert evidence[0].time_s <= START_S + 15 * 86_400
    assert evidence[0].onset_s == START_S - STEP_S
    assert evidence[-1].suspects[0].meter == SUBS[7]


def test_more_than_the_main_meter_shows_is_a_surplus():
    power = loads(36)
    wh = registers(power, after(30, -150.0, len(power)))
    evidence, _ = run(wh)
    assert evidence
    assert {e.kind for e in evidence} == {LossKind.BALANCE_SURPLUS}
    assert evidence[-1].loss_w == pytest.approx(150, abs=40)


def test_when_the_loss_is_gone_the_alarm_is_cleared_and_its_return_is_the_same_loss_with_a_new_onset():
    power = loads(75)
    rows = len(power)
    tap = after(25, 200.0, rows) - after(32, 200.0, rows) + after(65, 200.0, rows)
    evidence, _ = run(registers(power, tap))
    ends = [e for e in evidence if not e.active]
    assert len(ends) == 1
    assert 32 + 5.6 <= (ends[0].time_s - START_S) / 86_400 <= 32 + 9
    assert {e.episode for e in evidence} == {1}
    assert evidence[-1].active
    assert evidence[-1].onset_s == pytest.approx(START_S + 65 * 86_400, abs=6 * 3600)
    assert evidence[-1].loss_w == pytest.approx(200, abs=30)


def test_a_second_tap_is_found_while_the_first_is_on_and_told_as_a_loss_of_its_own():
    power = loads(60)
    rows = len(power)
    evidence, _ = run(registers(power, after(25, 200.0, rows) + after(45, 300.0, rows)))
    second = [e for e in evidence if e.episode == 2]
    assert all(e.active and e.kind is not LossKind.BALANCE_SURPLUS for e in evidence)
    assert START_S + 45 * 86_400 < second[0].time_s <= START_S + 52 * 86_400
    assert second[0].onset_s == pytest.approx(START_S + 45 * 86_400, abs=12 * 3600)
    assert second[-1].loss_w == pytest.approx(300, abs=40)
    first = [e for e in evidence if e.episode == 1]
    assert first[-1].time_s > START_S + 48 * 86_400
    assert first[-1].loss_w == pytest.approx(200, abs=30), "the second is not counted with the first"


def test_a_loss_acknowledged_with_a_reason_is_normal_and_another_is_found_beside_it():
    power = loads(75)
    rows = len(power)
    wh = registers(power, after(25, 300.0, rows) + after(60, 400.0, rows))
    conf = config()
    book = AlertBook.from_config(conf)
    pipeline = Pipeline(conf, book)
    at, events, told = times(wh), [], 35 * DAY

    def feed(start, stop):
        pipeline.feed_block(at[start:stop], wh[start:stop])
        step = pipeline.step(float(at[stop - 1]))
        events.extend(step.alerts)
        return step

    for start in range(0, told, DAY):
        feed(start, start + DAY)
    (raised,) = [e for e in events if e.data.state == "raised"]
    events += book.acknowledge(raised.data.alert_id, "ops", float(at[told]), "pump")
    assert events[-1].data.acknowledged.reason == "pump"
    # A kill before the next step: the book's state was committed with the answer, and the step takes the load up.
    book_again = AlertBook.from_config(conf)
    book_again.restore(book.state())
    assert [loss.reason for loss in book_again.take_accepted()] == ["pump"]
    step = feed(told, told + DAY)
    assert step.checkpoint is not None
    assert book.take_accepted() == []
    for start in range(told + DAY, rows, DAY):
        feed(start, min(start + DAY, len(wh)))
    states = [(e.data.alert_id == raised.data.alert_id, e.data.state) for e in events]
    assert (True, "cleared") in states
    second = [e for e in events if e.data.alert_id != raised.data.alert_id and e.data.state == "raised"]
    assert len(second) == 1
    assert second[0].data.onset.timestamp() == pytest.approx(START_S + 60 * 86_400, abs=12 * 3600)


def test_a_reason_is_refused_for_what_is_no_loss():
    book = AlertBook.from_config(config())
    fault = Condition(
        kind="meter_fault", active=True, time_s=START_S, since_s=START_S, severity="warning", meter=SUBS[0], detail="x"
    )
    (raised,) = book.observe([fault])
    with pytest.raises(ValueError, match="no loss of energy"):
        book.acknowledge(raised.data.alert_id, "ops", START_S, "pump")
    assert book.acknowledge(raised.data.alert_id, "ops", START_S) != []


def test_a_meter_that_shows_one_value_is_one_alarm_whose_onset_stays_before_it():
    power = loads(60)
    shown = power.copy()
    shown[30 * DAY :, 4] = 0.7 * power[: 30 * DAY, 4].mean()
    weeks = np.arange(len(power)) // (7 * DAY)
    quiet = (np.arange(len(power)) >= 30 * DAY) & (weeks % 3 == 0)
    power[quiet, 4] *= 0.6  # in some weeks it shows more than was used
    evidence, _ = run(registers(power, shown=shown))
    assert {(e.kind is LossKind.BALANCE_SURPLUS, e.episode) for e in evidence} == {(False, 1)}
    assert all(e.active for e in evidence)
    assert all(e.onset_s < evidence[0].time_s for e in evidence)
    assert evidence[-1].suspects[0].meter == SUBS[4]


def test_a_large_loss_is_seen_between_the_marks():
    power = loads(33)
    onset = 30 * DAY + 2
    tap = np.where(np.arange(len(power)) >= onset, 6000.0, 0.0)
    evidence, _ = run(registers(power, tap))
    assert evidence[0].time_s <= START_S + onset * STEP_S + 3 * 3600


def test_a_register_that_stood_still_and_caught_up_is_nobodys_theft():
    """What was missing has come back: the alert is withdrawn, and names nobody any more."""
    power = loads(42)
    wh = registers(power)
    stop = 34 * DAY + 60
    wh[34 * DAY : stop, 5] = wh[34 * DAY, 5]
    evidence, _ = run(wh)
    assert evidence, "until then it looks like a theft"
    last = evidence[-1]
    assert not last.active
    assert START_S + stop * STEP_S <= last.time_s < START_S + stop * STEP_S + 86_400
    assert last.suspects == ()
    assert abs(last.loss_kwh) < 0.5
    assert {e.episode for e in evidence} == {1}


def test_a_replaced_meter_is_a_sign_and_no_loss():
    power = loads(40)
    wh = registers(power)
    wh[33 * DAY :, 5] -= np.nanmin(wh[33 * DAY : 33 * DAY + 3, 5])
    evidence, pipeline = run(wh)
    assert evidence == []
    assert pipeline.counted["REPLACED"] == 1
    assert pipeline.counted["MISSED"] == 0


def test_service_row_by_row_and_replay_by_the_week_say_the_same():
    power = loads(34)
    wh = registers(power, after(30, 150.0, len(power)))
    assert run(wh, block=1)[0] == run(wh, block=7 * DAY)[0]


def test_the_row_in_which_a_meter_answers_again_is_as_uncertain_as_the_gap_before_it():
    wh = registers(loads(12))
    wh[10 * DAY : 11 * DAY, 3] = np.nan
    at, told = times(wh), {}
    for block in (1, len(wh)):
        pipeline = Pipeline(config(), Ledger())
        told[block] = []
        for k in range(0, len(wh), block):
            pipeline.feed_block(at[k : k + block], wh[k : k + block])
            told[block] += [b.uncertainty_kwh for b in pipeline.step(float(at[min(k + block, len(wh)) - 1])).balances]
    assert told[1][1:] == pytest.approx(told[len(wh)][1:])
    last_missed, answers = told[1][11 * DAY - 1 : 11 * DAY + 1]
    assert answers > 0.6 * last_missed > 10 * told[1][9 * DAY]


def stored(rows: list[HistoryRow]) -> StoredHistory:
    """Rows as the store gives them back."""
    times_s, wh, sd_wh, flags = zip(*((row.time_s, row.wh, row.sd_wh, row.flags) for row in rows), strict=True)
    return StoredHistory(np.array(times_s), np.array(wh), np.array(sd_wh, np.float32), np.array(flags))


def test_a_restart_changes_nothing_bit_for_bit():
    power = loads(34)
    wh = registers(power, after(31, 150.0, len(power)))
    at = times(wh)

    def go(pipeline, part, history):
        checkpoint, evidence = None, []
        for k in part:
            pipeline.feed_block(at[k : k + 1], wh[k : k + 1])
            step = pipeline.step(float(at[k]))
            history += step.history
            checkpoint = step.checkpoint or checkpoint
            evidence += step.evidence
        return checkpoint, evidence

    history = []
    whole = Pipeline(config(), Ledger())
    stop = 31 * DAY + 30
    middle, early = go(whole, range(stop), history)
    kept = list(history)
    end, late = go(whole, range(stop, len(wh)), history)
    again = Pipeline(config(), Ledger())
    again.restore(middle, stored(kept))
    end_again, late_again = go(again, range(stop, len(wh)), kept)
    assert early, "the alarm is latched before the restart"
    assert late == late_again
    assert end == end_again


def test_a_checkpoint_of_another_site_or_a_torn_one_is_refused():
    wh = registers(loads(3))
    pipeline = Pipeline(config(), Ledger())
    pipeline.feed_block(times(wh), wh)
    step = pipeline.step(float(times(wh)[-1]))
    other = Pipeline(config([Zone(id="building", main=MAIN, subs=list(SUBS[:-1]))]), Ledger())
    with pytest.raises(ValueError, match="another site"):
        other.restore(step.checkpoint, stored(step.history))
    head = step.checkpoint["pipeline"]
    with pytest.raises(ValueError, match="torn"):
        Pipeline(config(), Ledger()).restore({**step.checkpoint, "pipeline": head[:-9]}, stored(step.history))
    for name in sorted(set(step.checkpoint) - {"pipeline"}):
        with pytest.raises(ValueError, match=f"part {name} is missing, or of another moment"):
            Pipeline(config(), Ledger()).restore({**step.checkpoint, name: head}, stored(step.history))
    with pytest.raises(ValueError, match="hole"):
        Pipeline(config(), Ledger()).restore(step.checkpoint, stored(step.history[:40] + step.history[41:]))


def test_samples_and_rows_of_the_same_registers_say_the_same_balance():
    wh = registers(loads(2))
    wh[np.isnan(wh)] = 5000.0 if np.isnan(wh[0]).any() else np.interp(0, [0], [0])
    wh = np.maximum.accumulate(wh, axis=0)
    by_rows, by_samples = Pipeline(config(), Ledger()), Pipeline(config(), Ledger())
    by_rows.feed_block(times(wh), wh)
    for t, row in zip(times(wh), wh, strict=True):
        by_samples.feed(
            RegisterSample(m, float(t), import_wh=float(v), from_profile=True)
            for m, v in zip(by_samples.meters, row, strict=True)
        )
    end = float(times(wh)[-1])
    rows, samples = by_rows.step(end).balances, by_samples.step(end).balances
    assert [b.main_kwh for b in rows] == pytest.approx([b.main_kwh for b in samples])
    assert [b.subs_kwh for b in rows] == pytest.approx([b.subs_kwh for b in samples])
    total = sum(b.main_kwh for b in rows)
    assert total == pytest.approx((wh[-1, 0] - wh[0, 0]) / 1000)
    for b in rows:
        assert b.residual_kwh == pytest.approx(b.main_kwh - b.subs_kwh - b.technical_loss_kwh, abs=1e-9)


def test_a_loss_behind_a_riser_is_placed_on_the_riser():
    """Building -> riser -> flats: the riser's main meter sees what is lost behind it, so only its zone is alarmed."""
    power = loads(40)
    rows = len(power)
    behind = registers(power[:, :6].repeat(2, axis=1), after(30, 150.0, rows))[:, :7]
    flat = registers(power)
    whole = np.column_stack([flat[:, 0] * 0, behind[:, 0], flat[:, 7:], behind[:, 1:7]])
    hours = STEP_S / 3600
    through = np.diff(behind[:, 0], prepend=behind[0, 0]) + np.concatenate([[0], power[:, 6:].sum(axis=1) * hours])
    whole[:, 0] = np.floor(np.cumsum(through * 1.01 + 6 * 0.7 * hours) / 10) * 10
    zones = [
        Zone(id="building", main="main", subs=["main-riser", *SUBS[6:]]),
        Zone(id="riser", main="main-riser", subs=list(SUBS[:6])),
    ]
    conf = config(zones)
    ledger = Ledger()
    pipeline = Pipeline(conf, ledger, keep=False)
    assert pipeline.meters == ("main", "main-riser", *SUBS[6:], *SUBS[:6])
    pipeline.feed_block(times(whole), whole)
    pipeline.step(float(times(whole)[-1]))
    losses = [e for e in ledger.evidence if e.time_s > START_S + 30 * 86_400]
    assert losses
    assert {e.zone for e in losses} == {"riser"}


def test_minus_meters_and_export_are_signed():
    zone = Zone(id="building", main=MAIN, subs=[*SUBS[:2], "shared"], minus=["shared"], export=[SUBS[0]])
    pipeline = Pipeline(config([zone]), Ledger())
    for k in range(5):
        t = START_S + STEP_S * k
        pipeline.feed(
            [
                RegisterSample(MAIN, t, import_wh=1000.0 * k),
                RegisterSample(SUBS[0], t, import_wh=700.0 * k, export_wh=100.0 * k),
                RegisterSample(SUBS[1], t, import_wh=600.0 * k),
                RegisterSample("shared", t, import_wh=200.0 * k),
            ]
        )
    balances = pipeline.step(START_S + STEP_S * 4).balances
    assert [b.subs_kwh for b in balances[1:]] == pytest.approx([1.0] * 4)


def test_tamper_signs_of_a_flat_raise_its_probability():
    power = loads(40)
    shown = power.copy()
    shown[30 * DAY :, 4] *= 0.8
    wh = registers(power, shown=shown)

    def probability(signs):
        pipeline = Pipeline(config(), Ledger(), keep=False)
        for sign in signs:
            pipeline.sign(sign)
        pipeline.feed_block(times(wh), wh)
        evidence = pipeline.step(float(times(wh)[-1])).evidence
        return {s.meter: s.probability for s in evidence[0].suspects}.get(SUBS[9], 0.0)

    sign = MeterSign(SUBS[9], START_S + 30 * 86_400, SignKind.MAGNETIC_FIELD)
    assert probability([sign]) >= probability([])
    assert replace(sign, meter="elsewhere").meter not in SUBS


def test_a_heavy_load_far_up_the_riser_is_no_theft():
    """A car on one phase loses copper by the square of its own current, hundreds of watts while it is charged."""
    days = 40
    power = loads(days)
    hour = np.arange(days * DAY) % DAY * 24 // DAY
    rng = np.random.default_rng(8)
    trips = np.repeat(rng.random(days) < 0.5, DAY) & (np.arange(days * DAY) >= 20 * DAY)
    power[:, 7] += np.where(trips & (hour >= 1) & (hour < 4), 7000.0, 0.0)
    # It lives at the end of a riser along which the others are spread.
    place = np.concatenate([rng.permutation(np.linspace(0, 2, FLATS - 1)), [2.0]])
    place[[7, -1]] = place[[-1, 7]]
    copper_w = (0.0135 * 4.5 * place * power**2).sum(axis=1) / power.sum(axis=1).mean()
    assert 0.027 * 4.5 * 7000.0**2 / power.sum(axis=1).mean() > 500.0
    assert run(registers(power, copper_w))[0] == []
    assert run(registers(power, copper_w + after(34, 150.0, len(power))))[0]


def test_meters_an_hour_off_are_a_fault_of_the_meters_that_is_told_once():
    wh, hour = registers(loads(38)), 3600 // STEP_S
    for column in (2, 5, 8):
        wh[30 * DAY :, column] = wh[30 * DAY - hour : -hour, column]
    _, pipeline = run(wh)
    told = [c for c in pipeline._book.observed if c.active]
    assert {c.kind for c in told} == {"meter_fault"}
    assert {SUBS[1], SUBS[4], SUBS[7]} <= {c.meter for c in told}
    assert all("minutes too early" in c.detail for c in told if c.meter in (SUBS[1], SUBS[4], SUBS[7]))
