"""The balance of the moment, and which meter a breaker hangs on."""

from __future__ import annotations

import math
import random
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.gateway import pulse
from agent.cli.main import cli
from agent.downlink.live_view import VIEW_MAX_S, LiveView
from agent.process.exit_codes import UNAVAILABLE
from agent.site.tables import Zone
from agent.status.live import Moment, Trail, live_balance
from agent.status.local_socket import LocalEndpoints
from agent.status.pulse import Rhythm, judge, seen_enough
from agent.status.snapshot import MeterView, Snapshot
from agent.status.text import cycle

ZONE = Zone(id="house", main="main", subs=["a", "b", "solar"], minus=["solar"])


def trail(power_w, *, tells=True, every_s=1.0, count=64, phase_s=0.0, step_wh=1.0):
    times_s = [phase_s + every_s * n for n in range(count)]
    shown = [math.floor(power_w * t / 3600 / step_wh) * step_wh for t in times_s]
    moments = (Moment(t, wh, power_w if tells else math.nan) for t, wh in zip(times_s, shown, strict=True))
    return Trail(tuple(moments), step_wh)


def test_by_power_registers_where_all_meters_tell_them() -> None:
    trails = {"main": trail(1000), "a": trail(600), "b": trail(500), "solar": trail(150)}
    seen = live_balance(ZONE, trails, 63.5, meters=True)
    assert (seen.by, seen.main_w, seen.sum_w, seen.difference_w) == ("power", 1000.0, 950.0, 50.0)
    assert seen.meters == {"main": 1000.0, "a": 600.0, "b": 500.0, "solar": 150.0}
    assert live_balance(ZONE, trails, 63.5).meters == {}


def test_by_energy_between_two_common_instants_else_and_known_as_well_as_registers_tell() -> None:
    trails = {"main": trail(3000), "a": trail(2000, tells=False), "b": trail(700, phase_s=0.4), "solar": trail(0)}
    seen = live_balance(ZONE, trails, 63.5)
    assert (seen.by, seen.span_s) == ("energy", 60.0)
    assert seen.uncertainty_w == pytest.approx(60 * math.sqrt(4 / 6), abs=0.1)
    assert seen.difference_w == pytest.approx(300, abs=3 * seen.uncertainty_w)
    assert seen.skew_s == pytest.approx(0.4)


def test_what_was_not_read_is_missing_and_not_nothing() -> None:
    trails = {"main": trail(1000), "a": trail(600, count=30), "b": trail(500)}
    old = live_balance(ZONE, trails | {"solar": trail(0)}, 63.5, meters=True)
    assert (old.main_w, old.sum_w, old.difference_w, old.meters["a"]) == (1000.0, None, None, None)
    never = live_balance(ZONE, trails, 63.5, meters=True)
    assert (never.by, never.sum_w, never.meters["solar"]) == ("energy", None, None)
    assert live_balance(ZONE, {}, 63.5).main_w is None


def test_meters_that_are_read_once_a_minute_have_a_longer_span() -> None:
    loads = {"main": 3000, "a": 1500, "b": 1500, "solar": 0}
    trails = {name: trail(w, tells=False, every_s=60, step_wh=10) for name, w in loads.items()}
    seen = live_balance(ZONE, trails, 63 * 60)
    assert seen.span_s == 120.0
    assert abs(seen.difference_w) <= 3 * seen.uncertainty_w


def test_a_view_ends_by_itself_and_is_each_zones_own() -> None:
    view = LiveView(["house", "shed"])
    assert view.asked(1000.0) == []
    assert view.ask("house", 1000.0, 60.0, meters=True) == 1060.0
    assert view.asked(1059.0) == [("house", True)]
    assert view.asked(1061.0) == []
    view.ask("house", 2000.0, 1e9, meters=False)
    assert view.asked(2000.0 + VIEW_MAX_S + 1) == []
    assert view.asked(1000.0) == []  # the clock was set back by an hour: nobody looks for so long
    view.ask("house", 2000.0, 0.0, meters=False)
    assert view.asked(2000.0) == []


# -- pulse ------------------------------------------------------------------------------------------------------------


def traces(rhythm: Rhythm, load_w=400.0, seen_w=400.0, on="a", late_s=1.5, noise_w=15.0, seed=1, spike=False):
    """What a building's meters tell while a breaker is switched `late_s` behind each word."""
    shaken = random.Random(seed)
    main, subs = [], {"a": [], "b": [], "c": []}
    at_s = 0.0
    while at_s < rhythm.length_s:
        off = rhythm.phase(max(0.0, at_s - late_s)) % 2
        others = {name: 300 + shaken.gauss(0, noise_w) for name in subs}
        fridge = 120.0 if spike and at_s > 0.4 * rhythm.length_s else 0.0
        others["c"] += fridge
        flows = dict(others)
        if on is not None:
            flows[on] += seen_w * (1 - off)
        main.append((at_s, math.fsum(others.values()) + load_w * (1 - off) + shaken.gauss(0, noise_w)))
        for name in subs:
            subs[name].append((at_s + 0.2, flows[name]))
        at_s += 1.0
    return main, subs


RHYTHM = Rhythm(8.0, 3)


@pytest.mark.parametrize("seed", range(20))
def test_the_meter_that_falls_with_the_building_is_named_within_a_minute(seed: int) -> None:
    assert RHYTHM.length_s <= 60
    verdict = judge(RHYTHM, *traces(RHYTHM, seed=seed, spike=True))
    assert verdict.meter == "a"
    assert verdict.beside_w == 0.0
    assert verdict.main.power_w == pytest.approx(400, abs=60)
    assert "hangs on a" in verdict.words


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_of_which_a_part_passes_its_meter_by_is_told_apart_from_one_without_a_meter(seed: int) -> None:
    partly = judge(RHYTHM, *traces(RHYTHM, load_w=600, seen_w=250, seed=seed))
    assert partly.meter == "a"
    assert partly.beside_w == pytest.approx(350, abs=60)
    assert "pass it by" in partly.words
    past = judge(RHYTHM, *traces(RHYTHM, on=None, seed=seed))
    assert past.meter is None
    assert "passes all meters by" in past.words


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_named_where_nothing_was_on(seed: int) -> None:
    verdict = judge(RHYTHM, *traces(RHYTHM, load_w=5, seen_w=5, seed=seed))
    assert verdict.meter is None
    assert "did not move" in verdict.words
    assert "did not move" in judge(RHYTHM, [], {"a": []}).words


class PassedTime:
    """Time that passes only while the verb waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, span_s: float) -> None:
        self.now_s += span_s


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> PassedTime:
    clock = PassedTime()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


def test_the_verb_says_when_to_switch_and_who_moved(tmp_path: Path, passed: PassedTime) -> None:
    path, rhythm = str(tmp_path / "control.sock"), Rhythm(8.0, 2)

    def snapshot() -> Snapshot:
        now_s = passed.now_s
        off = rhythm.phase(now_s) % 2
        powers = {"main": 1000.0 - 500 * off, "a": 600.0 - 500 * off, "b": 400.0}
        trails = {name: Trail((Moment(1e9 + now_s, 0.0, w),), 1.0) for name, w in powers.items()}
        zone = Zone(id="house", main="main", subs=["a", "b"])
        return Snapshot(
            now_s=1e9 + now_s,
            status=wire.Status(state="online", versions={}),
            health=wire.Health(time=wire.utc(1e9), uptime_s=now_s),
            meters=[MeterView(id=name, bus="x", time_s=1e9 + now_s, power_w=w) for name, w in powers.items()],
            live=[live_balance(zone, trails, 1e9 + now_s, meters=True)],
        )

    doors, stop = LocalEndpoints(path, None, None), threading.Event()
    doors.listeners[0].setblocking(True)
    doors.listeners[0].settimeout(0.1)

    def serve() -> None:
        while not stop.is_set():
            doors.serve(doors.listeners[0], snapshot)

    server = threading.Thread(target=serve)
    server.start()
    try:
        shown = CliRunner().invoke(cli, ["pulse", "--socket", path, "--rounds", "2"])
        wrong = CliRunner().invoke(cli, ["pulse", "--socket", path, "--zone", "shed"])
    finally:
        stop.set()
        server.join()
        doors.close()
    assert shown.exit_code == 0, shown.output
    assert [line for line in shown.output.splitlines() if line.strip() in ("ON", "OFF")] == ["  OFF", "  ON"] * 2
    assert "hangs on a" in shown.output
    assert wrong.exit_code == 2
    assert "expected one of house" in wrong.output


@pytest.mark.parametrize("verb", ["status", "pulse"])
def test_where_no_agent_listens_the_end_is_that_of_a_missing_device(verb: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [verb, "--socket", str(tmp_path / "none.sock")])
    assert (done.exit_code, "no agent listens here" in done.output) == (UNAVAILABLE, True), done.output


def test_the_wire_form_is_json_that_decodes_to_itself() -> None:
    seen = live_balance(ZONE, {"main": trail(1000)}, 63.5, meters=True)
    assert msgspec.json.decode(wire.encode(seen), type=wire.Live) == seen


def test_powers_that_came_too_seldom_for_a_step_are_no_measure() -> None:
    rhythm = Rhythm(2.0, 2)
    often = [(t * 0.1, 1000.0) for t in range(100)]
    assert seen_enough(rhythm, often)
    assert not seen_enough(rhythm, [(at, w) for at, w in often if not 4 <= at < 6])  # one step without any
    assert not seen_enough(rhythm, [])


def test_the_verb_blames_no_load_where_powers_came_too_seldom(
    tmp_path: Path, passed: PassedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = Zone(id="house", main="main", subs=["a"])
    snapshot = Snapshot(
        now_s=1e9,
        status=wire.Status(state="online", versions={}),
        health=wire.Health(time=wire.utc(1e9), uptime_s=1.0),
        meters=[],
        live=[live_balance(zone, {}, 1e9, meters=True)],
    )

    def take(seen: Snapshot, zone: str, ahead_s: float, traces: dict[str, dict[float, float]]) -> str:
        for name in ("main", "a"):  # many readings, all of the first step
            traces.setdefault(name, {}).update({0.3 + k / 1000: 500.0 for k in range(20)})
        return "main"

    monkeypatch.setattr(pulse, "snapshot_of", lambda path: snapshot)
    monkeypatch.setattr(pulse, "_take", take)
    shown = CliRunner().invoke(cli, ["pulse", "--socket", "x", "--step", "0.2", "--rounds", "1"])
    assert (shown.exit_code, "take a longer --step" in shown.output) == (69, True), shown.output
    assert "nan" not in shown.output


@pytest.mark.parametrize(("cycle_s", "kept_s", "full"), [(0.1, 1.1, False), (9.8, 9.9, True)])
def test_the_line_is_blamed_only_where_its_cycles_fill_the_time(cycle_s: float, kept_s: float, full: bool) -> None:
    told = cycle(wire.BusHealth(id="line", state="up", cycle_s=cycle_s, poll_s=1.0, kept_s=kept_s))
    assert f"one every {kept_s:.1f} s instead of 1 s" in told
    assert ("bears no more" in told) is full
