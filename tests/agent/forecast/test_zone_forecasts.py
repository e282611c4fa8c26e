"""The forecasters of a site: issued at full hours, on the wire in finite figures, an alert before the fuse."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from agent import wire
from agent.alerts.book import AlertBook
from agent.forecast.words import conditions, on_wire
from agent.forecast.zone_forecasts import Issued, ZoneForecasts
from agent.site.tables import Config, Forecast, Meter, Site, Zone
from agent.wire.contract import schema
from core.forecast.values import OverCapacity
from core.registers.align import Flag
from core.registers.booked import StoredHistory

START_S = 1_704_067_200.0
STEP_S = 1800.0


def site(capacity_w=None, **forecast):
    return Config(
        site=Site(site="s", gateway="g"),
        meter=[Meter(id=m) for m in ("main", "a", "b")],
        zone=[
            Zone(id="building", main="main", subs=["a", "b"], capacity_w=capacity_w),
            Zone(id="floor", main="a", subs=["b"]),
        ],
        forecast=Forecast(**forecast),
    )


def load_wh(days, seed=1):
    hour = (np.arange(days * 48) % 48 + 0.5) / 2
    rng = np.random.default_rng(seed)
    return 0.5 * 8_000 * (0.5 + np.exp(-((hour - 19) ** 2) / 8)) * np.exp(rng.normal(0, 0.1, days * 48))


def ends_s(count):
    return START_S + STEP_S * np.arange(1.0, count + 1)


def test_a_forecast_is_issued_at_every_full_hour_of_what_was_known_then():
    wh = load_wh(10)
    together, apart = ZoneForecasts(site(), STEP_S), ZoneForecasts(site(), STEP_S)
    together.take("building", ends_s(480), wh)
    for k in range(480):
        apart.take("building", ends_s(480)[k : k + 1], wh[k : k + 1])
    one, other = together.drain().forecasts, apart.drain().forecasts
    assert [f.issued_s for f in one] == [START_S + 7 * 86_400 + 3600.0 * k for k in range(73)]
    assert [on_wire(f) for f in one] == [on_wire(f) for f in other]
    assert together.drain() == Issued()


def test_muted_it_learns_and_says_nothing():
    forecasts = ZoneForecasts(site(capacity_w=100.0), STEP_S)
    forecasts.muted = True
    forecasts.take("building", ends_s(480), load_wh(10))
    assert forecasts.drain() == Issued()
    forecasts.muted = False
    forecasts.take("building", ends_s(482)[480:], load_wh(11)[480:482])
    assert len(forecasts.drain().forecasts) == 1


def test_stored_rows_bring_the_same_forecast_as_live_ones_and_unread_ones_are_left_out():
    wh = load_wh(12)
    live, recalled = ZoneForecasts(site(), STEP_S), ZoneForecasts(site(), STEP_S)
    gap = wh.copy()
    gap[100:102] = np.nan
    live.take("building", ends_s(len(wh)), gap)
    times_s = np.concatenate([[START_S], ends_s(len(wh))])
    booked = np.concatenate([[0.0], np.cumsum(wh)])
    sd = np.full(len(times_s), 1.0, np.float32)
    flags = np.zeros((len(times_s), 2), np.uint8)
    flags[101] = Flag.MISSED  # at this boundary: neither interval beside it is known
    recalled.recall(StoredHistory(times_s, np.column_stack([booked, booked]), np.column_stack([sd, sd]), flags))
    at_s = float(times_s[-1])
    want = live.zones["building"].forecast(at_s)
    assert want is not None
    np.testing.assert_allclose(recalled.zones["building"].forecast(at_s).quantiles_w, want.quantiles_w, rtol=1e-9)


def test_a_main_meter_found_to_show_too_little_is_forecast_by_what_is_drawn():
    wh = load_wh(30)
    shown = wh.copy()
    shown[20 * 48 :] -= 750.0
    truth, told = ZoneForecasts(site(), STEP_S), ZoneForecasts(site(), STEP_S)
    truth.take("floor", ends_s(len(wh)), wh)
    told.take("floor", ends_s(25 * 48), shown[: 25 * 48])
    told.missing("a", START_S + 20 * 86_400, START_S + 25 * 86_400, 1500.0)
    told.take("floor", ends_s(len(wh))[25 * 48 :], shown[25 * 48 :])
    at_s = START_S + 30 * 86_400
    got, want = (f.zones["floor"].forecast(at_s).mean_w for f in (told, truth))
    np.testing.assert_allclose(got, want, rtol=0.03)
    told.missing("b", START_S, at_s, 1500.0)  # no zone's main meter: nothing to state again
    np.testing.assert_array_equal(told.zones["floor"].forecast(at_s).mean_w, got)


def test_switched_off_or_with_intervals_of_two_hours_there_is_none():
    assert ZoneForecasts(site(enabled=False), STEP_S).zones == {}
    assert ZoneForecasts(site(), 7200.0).zones == {}


def test_on_the_wire_it_is_what_its_schema_says_and_has_no_nan():
    jsonschema = pytest.importorskip("jsonschema")
    forecasts = ZoneForecasts(site(capacity_w=9_000.0), STEP_S)
    wh = load_wh(40)
    wh[20 * 48 : 35 * 48] = np.nan
    forecasts.take("building", ends_s(len(wh)), wh)
    for forecast in forecasts.drain().forecasts[::100]:
        body = wire.encode(on_wire(forecast))
        assert b"null" not in body
        assert b"NaN" not in body
        jsonschema.validate(json.loads(body), schema("checkmeter.forecast.v1"))
        assert wire.decode(wire.Forecast, body) == on_wire(forecast)


def test_what_lies_above_the_capacity_is_critical_at_once():
    forecasts = ZoneForecasts(site(capacity_w=9_000.0), STEP_S)
    forecasts.take("building", ends_s(3), np.array([1000.0, 5000.0, 1000.0]))
    told = list(conditions(forecasts.drain()))
    assert [(c.kind, c.active, c.severity, c.zone, c.time_s) for c in told] == [
        ("capacity", True, "critical", "building", START_S + 3600.0)
    ]


def test_an_alert_is_raised_before_the_capacity_is_passed_and_cleared_when_it_is_far():
    forecasts = ZoneForecasts(site(capacity_w=9_000.0), STEP_S)
    forecasts.take("building", ends_s(480), load_wh(10))
    forecast = forecasts.drain().forecasts[-1]
    book = AlertBook.from_config(site())

    def judge(hours, probability):
        over = OverCapacity(9_000.0, probability, 1800.0)
        said = dataclasses.replace(forecast, issued_s=START_S + 3600.0 * hours, over_capacity=over)
        return [(e.data.state, e.data.kind, e.subject) for e in book.observe(conditions(Issued([said], [])))]

    assert judge(0, 0.3) == []
    assert judge(1, 0.6) == [("raised", "capacity", "zone/building")]
    assert judge(2, 0.3) == []  # neither sure nor safe: it stays
    assert judge(3, 0.1) == []  # quiet for its hold time first
    assert judge(5, 0.1) == [("cleared", "capacity", "zone/building")]


def test_a_capacity_alert_ends_with_the_readings_that_it_rested_on():
    forecasts, book = ZoneForecasts(site(capacity_w=10_000.0), STEP_S), AlertBook.from_config(site())
    forecasts.take("building", ends_s(480), load_wh(10))
    events = book.observe(conditions(forecasts.drain()))
    assert [e.data.state for e in events][:1] == ["raised"]
    times = ends_s(600 * 48)[480:]
    for start in range(0, len(times), 480):
        part = times[start : start + 480]
        forecasts.take("building", part, np.full(len(part), np.nan))
        issued = forecasts.drain()
        assert all(f.issued_s < START_S + 14 * 86_400 for f in issued.forecasts)
        events += book.observe(conditions(issued))
    assert [e.data.state for e in events if e.data.state in ("raised", "cleared")][-1] == "cleared"
    last_raised = max(e.time.timestamp() for e in events if e.data.state == "raised")
    assert last_raised <= START_S + 11 * 86_400, "not from a forecast without a day of readings"


def test_a_zone_whose_forecast_is_gone_says_so_once_and_again_after_the_next_gap():
    forecasts = ZoneForecasts(site(capacity_w=10_000.0), STEP_S)
    forecasts.take("building", ends_s(480), load_wh(10))
    assert [zone for _, zone in forecasts.drain().withdrawn] == ["building"], "at the start: what was open is old"
    for days in (20, 40):
        forecasts.take("building", ends_s(days * 48)[-480:], np.full(480, np.nan))
        ((at_s, _),) = forecasts.drain().withdrawn
        assert at_s == START_S + (days - 10 + 3) * 86_400
        forecasts.take("building", ends_s((days + 10) * 48)[-480:], load_wh(10))
        assert forecasts.drain().withdrawn == []


def test_temperatures_go_into_the_store_once_and_come_back_and_a_torn_state_costs_no_forecast(caplog):
    forecasts, again = ZoneForecasts(site(), STEP_S), ZoneForecasts(site(), STEP_S)
    assert forecasts.outdoor_state() is None
    times_s = START_S + 3600.0 * np.arange(48)
    forecasts.take_outdoor(times_s, np.linspace(-5, 5, 48), START_S + 86_400)
    state = forecasts.outdoor_state()
    assert forecasts.outdoor_state() is None
    again.restore_outdoor(state)
    again.take_outdoor(times_s[:1], np.array([-5.0]))
    assert again.outdoor_state() == state
    torn = ZoneForecasts(site(), STEP_S)
    torn.restore_outdoor(state[:-4])
    assert "could not be taken over" in caplog.text
    torn.take("building", ends_s(480), load_wh(10))
    assert torn.drain().forecasts


def test_a_site_without_forecasts_takes_no_temperatures():
    off = ZoneForecasts(site(enabled=False), STEP_S)
    off.take_outdoor(np.array([START_S]), np.array([1.0]))
    assert off.outdoor_state() is None
