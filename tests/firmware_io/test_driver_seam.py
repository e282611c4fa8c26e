"""The bus with a driver that is no DLMS: a protocol of two octets, spoken over octets that tests put on the line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firmware_io.bus import Bus, BusMeter
from firmware_io.driver import Identity, Line, Traffic
from firmware_io.errors import (
    AccessDenied,
    MeterError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    TransportError,
)
from firmware_io.obis import ENERGY_IMPORT
from firmware_io.reading import MeterEvent, Reading, Unit
from firmware_io.spec import BusSpec

SPEC = BusSpec("line", "/dev/null")


class Knob:
    """A line of meters that answer the octet of their address with a count; one octet a second."""

    def __init__(self, clock) -> None:
        self.clock = clock
        self.counts: dict[int, int] = {}
        self.fails = False
        self.closed = 0
        self._reply = b""

    def open(self, spec: BusSpec) -> Knob:
        return self

    def monotonic(self) -> float:
        return self.clock.time_s

    def write(self, octets: bytes) -> None:
        if self.fails:
            raise TransportError("write failed")
        count = self.counts.get(octets[0])
        self._reply = b"" if count is None else bytes([count])

    def read(self, max_octets: int, deadline: float) -> bytes:
        self.clock.time_s = self.clock.time_s + 1.0 if self._reply else deadline
        reply, self._reply = self._reply, b""
        return reply

    def close(self) -> None:
        self.closed += 1


class OneOctet:
    """The whole driver of that protocol."""

    def __init__(self, name: str, address: int) -> None:
        self.name, self.address = name, address
        self.identity: Identity | None = None
        self.traffic = Traffic()
        self.calls: list[tuple[str, Line, bool]] = []
        self.raises: MeterError | None = None
        self.released = 0

    def _ask(self, verb: str, line: Line) -> int:
        if not self.calls or self.calls[-1][1] is not line:
            line.at_close(self._release)
        self.calls.append((verb, line, line.probing))
        if self.raises is not None:
            raise self.raises
        line.transport.write(bytes([self.address]))
        self.traffic.exchanges += 1
        octets = line.transport.read(1, line.transport.monotonic() + 2.0)
        if not octets:
            raise ResponseTimeout("no answer", meter=self.name)
        return octets[0]

    def _release(self) -> None:
        self.released += 1

    def poll(self, line: Line) -> list[Reading]:
        return [Reading(self.name, ENERGY_IMPORT, float(self._ask("poll", line)), Unit.WATT_HOUR, 0.0)]

    def read_profile(self, line: Line, first_s: float, last_s: float) -> list[Reading]:
        self._ask("read_profile", line)
        return []

    def read_events(self, line: Line, since_s: float) -> list[MeterEvent]:
        self._ask("read_events", line)
        return []

    def identify(self, line: Line) -> Identity:
        self._ask("identify", line)
        self.identity = Identity(self.name, None, (ENERGY_IMPORT,))
        return self.identity

    def keep_alive(self, line: Line) -> None:
        if self.calls and self.calls[-1][1] is line and self.raises is not None:
            raise self.raises


@pytest.fixture
def knob(clock) -> Knob:
    return Knob(clock)


@pytest.fixture
def drivers(knob) -> list[OneOctet]:
    knob.counts = {1: 10, 2: 20, 3: 30}
    return [OneOctet(name, n) for n, name in enumerate(("main", "a", "b"), 1)]


@pytest.fixture
def bus(knob, drivers, clock) -> Bus:
    return Bus(SPEC, [BusMeter(d.name, d, d.name == "main") for d in drivers], knob.open, clock)


def polled(bus: Bus) -> list[tuple[str, float | type[MeterError]]]:
    return [(p.meter, type(p.error) if p.error else p.readings[0].value) for p in bus.poll_cycle()]


def test_a_cycle_in_the_buss_order(bus, drivers):
    assert polled(bus) == [("main", 10.0), ("a", 20.0), ("b", 30.0), ("main", 10.0)]
    assert [bus.statistics()[d.name].answered for d in drivers] == [2, 1, 1]
    assert bus.statistics()["a"].traffic is drivers[1].traffic
    assert len({line for d in drivers for _, line, _ in d.calls}) == 1


def test_every_verb_comes_to_the_driver_and_its_identity_is_kept(bus, drivers):
    assert bus.identity("a") is None
    bus.identify("a")
    bus.read_profile("a", 0.0, 1.0)
    bus.read_events("a", 0.0)
    assert [verb for verb, _, _ in drivers[1].calls] == ["identify", "read_profile", "read_events"]
    assert bus.identity("a") == Identity("a", None, (ENERGY_IMPORT,))
    assert bus.use("a", lambda driver, line: driver.address) == 2


def test_a_silent_one_is_probed_without_repeats_and_seldom(bus, drivers, knob, clock):
    del knob.counts[2]
    for _ in range(2):
        assert ("a", ResponseTimeout) in polled(bus)
    assert bus.statistics()["a"].silent
    calls = len(drivers[1].calls)
    for _ in range(10):
        polled(bus)
        clock.time_s += 360
    assert [probing for _, _, probing in drivers[1].calls][:3] == [False, False, True]
    assert 0 < len(drivers[1].calls) - calls < 15
    knob.counts[2] = 25
    clock.time_s += 3600
    assert ("a", 25.0) in polled(bus)
    assert not bus.statistics()["a"].silent


def test_a_line_that_failed_is_another_line_after_it_was_opened_again(bus, drivers, knob, clock):
    polled(bus)
    knob.fails = True
    assert dict(polled(bus))["a"] is TransportError
    assert knob.closed == 1
    assert drivers[0].released == 0  # a port that is gone takes nothing more
    knob.fails = False
    clock.time_s += 60
    assert dict(polled(bus)) == {"main": 10.0, "a": 20.0, "b": 30.0}
    assert drivers[0].calls[0][1] is not drivers[0].calls[-1][1]


def test_what_is_open_over_the_line_is_released_before_it_goes(bus, drivers, knob):
    polled(bus)
    bus.close()
    assert [d.released for d in drivers] == [1, 1, 1]
    assert knob.closed == 1


def test_a_line_that_a_driver_gives_up_is_opened_anew_for_the_next(bus, drivers, knob):
    def late(driver, line: Line) -> None:
        line.abandon()
        raise ResponseTimeout("no answer")

    bus.poll("b")
    with pytest.raises(ResponseTimeout):
        bus.use("a", late)
    bus.poll("b")
    assert knob.closed == 1
    assert drivers[2].calls[0][1] is not drivers[2].calls[1][1]


def test_one_that_refuses_our_credentials_is_called_no_more(bus, drivers):
    drivers[1].raises = AccessDenied("wrong password")
    assert dict(polled(bus))["a"] is AccessDenied
    calls = len(drivers[1].calls)
    bus.keep_alive()
    assert "a" not in dict(polled(bus))
    assert len(drivers[1].calls) == calls
    drivers[1].raises = None
    bus.retry_denied("a")
    assert dict(polled(bus))["a"] == 20.0


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (ResponseTimeout("no answer"), lambda s: s.timeouts),
        (RemoteProtocolError("rubbish"), lambda s: s.protocol_errors),
        (RegisterUnavailable("no such register"), lambda s: s.answered),
    ],
)
def test_failures_are_counted_by_kind(error: MeterError, count: Callable, bus, drivers):
    drivers[1].raises = error
    with pytest.raises(type(error)):
        bus.poll("a")
    assert count(bus.statistics()["a"]) == 1


def test_a_failed_keep_alive_is_counted_and_raised_to_nobody(bus, drivers):
    polled(bus)
    drivers[2].raises = ResponseTimeout("no answer")
    bus.keep_alive()
    assert bus.statistics()["b"].timeouts == 1
    assert bus.statistics()["b"].answered == 1
