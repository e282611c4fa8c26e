"""What meters push reaches the bus as readings: within an exchange, on the idle line, at a TCP or UDP listener.

And what is no push of theirs does not: another meter's, a repetition, a weaker one, a changed one.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.decode import DataNotification
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.meter.push import FrameCutter, UnitCutter, layout
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.wrapper import Unit
from firmware_io.dlms.sources import Sources
from firmware_io.errors import RemoteProtocolError, TransportError
from firmware_io.pushes import IdleLine, Pushed, PushListener
from firmware_io.simulator.building.scenario import Fault, Simulation
from firmware_io.simulator.line.pushing import plain_push, push_of, send_to

FLAT = "flat-1"
PUSH = {"push": True}
FORMS = ["general", "unicast", "broadcast", "wrapped", "agreed", "static", "signed", "ciphered-signed", "event"]
WAIT_S = 10.0


def counter(start: int = 1_000_000):
    numbers = iter(range(start, start + 1000))
    return lambda: next(numbers)


def energy_of(readings) -> float | None:
    return next((r.value for r in readings if r.obis == obis.ENERGY_IMPORT), None)


def shown(bench, meter: str = FLAT) -> float:
    return bench.site.meters[meter].energy_wh(bench.clock.now())[0]


def taken(bench, octets: bytes, meter: str = FLAT):
    """What the meter's driver makes of a unit that came now."""
    return bench.drivers[meter].take_push(Pushed(octets, bench.clock.now()))


@pytest.mark.parametrize(("kind", "framing"), [("none", "hdlc"), ("none", "wrapper"), ("hls-gmac", "hdlc")])
def test_a_push_within_an_exchange_is_a_reading(kind, framing, make_bench, secured):
    pushing = Simulation(seed=5, history_days=8, fault=[Fault(kind="push", meter=FLAT)])
    bench = make_bench(pushing, framing=framing, meter=secured(kind) | PUSH)
    polls = [poll for poll in (*bench.bus.poll_cycle(), *bench.bus.probe()) if poll.meter == FLAT]
    assert len(polls) > 1  # its own answer, and what came beside it
    assert [energy_of(poll.readings) for poll in polls] == pytest.approx([shown(bench)] * len(polls), abs=20)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["ecdsa-1", "ecdsa-2"])
def test_each_form_is_taken_once_and_only_by_its_meter(kind, form, make_bench, secured):
    bench = make_bench(meter=secured(kind) | PUSH)
    list(bench.bus.poll_cycle())
    bench.clock.move(30)  # the time of a signed push moves on
    octets = push_of(bench.site.meters[FLAT], counter(), form)
    assert energy_of(taken(bench, octets)) == shown(bench)
    assert taken(bench, octets) is None, "a replay"
    assert taken(bench, octets, "flat-2") is None
    for at in range(0, len(octets), 9):
        assert not taken(bench, octets[:at] + bytes((octets[at] ^ 1,)) + octets[at + 1 :])


def test_a_plain_push_is_believed_only_of_a_plain_meter_and_by_its_serial_number(make_bench, secured):
    plain, ciphered = make_bench(meter=PUSH), make_bench(meter=secured("hls-gmac") | PUSH)
    for bench in (plain, ciphered):
        list(bench.bus.poll_cycle())
    meter = plain.site.meters[FLAT]
    assert energy_of(taken(plain, plain_push(meter, "plain"))) == shown(plain)
    assert taken(plain, plain_push(plain.site.meters["flat-2"], "plain")) is None
    assert taken(plain, plain_push(meter, "event")) is None  # which does not say who it is
    assert taken(ciphered, plain_push(ciphered.site.meters[FLAT], "plain")) is None
    assert taken(plain, plain_push(meter, "plain"), "flat-2") is None  # which is not configured to push


def test_meters_with_the_same_keys_are_told_apart_by_their_titles(make_bench, secured):
    bench = make_bench(meter=secured("hls-gmac") | PUSH)
    other = replace(bench.meters[1], id="flat-2", address=18)  # the same keys, and it has never associated
    driver = DlmsDriver(other, bench.spec, bench.clock, MemoryCounters())
    list(bench.bus.poll_cycle())
    octets = push_of(bench.site.meters[FLAT], counter(), "general")
    assert driver.take_push(Pushed(octets, bench.clock.now())) is None
    assert energy_of(taken(bench, octets)) == shown(bench)


def test_an_old_push_and_an_odd_value_are_no_readings(make_bench):
    bench = make_bench(meter=PUSH)
    list(bench.bus.poll_cycle())
    old = plain_push(bench.site.meters[FLAT], "plain")
    bench.clock.move(4000)
    assert taken(bench, old) == []
    high = Simulation(seed=5, history_days=8, fault=[Fault(kind="decrease", meter=FLAT, onset="+10m")])
    bench = make_bench(high, meter=PUSH)
    list(bench.bus.poll_cycle())
    bench.clock.move(900)
    assert energy_of(taken(bench, plain_push(bench.site.meters[FLAT], "plain"))) is None


def test_pushes_on_the_idle_line(make_bench):
    bench = make_bench(meter=PUSH)
    bus = Bus(
        bench.spec,
        [BusMeter(FLAT, bench.drivers[FLAT])],
        bench.plug,
        bench.clock,
        sources=[IdleLine(FrameCutter(), bench.clock.now)],
    )
    bus.poll(FLAT)
    station = bench.site.stations["line"][1]
    for _ in range(2):
        bench.rest(45)
        bench.site.lines["line"].utter(station.pushed("plain", wrapper=False), bench.modem.monotonic() - 20)
        pushed = list(bus.probe())
        assert [energy_of(poll.readings) for poll in pushed] == [shown(bench)]
    bus.poll(FLAT)  # the association has not suffered
    assert bench.drivers[FLAT].associations == 1


def test_a_push_of_nonsense_costs_no_poll(make_bench):
    """Also where all registers that there are stand in it."""
    bench = make_bench(meter=PUSH)
    everything = {r.obis for r in bench.bus.poll(FLAT)}
    objects = (obis.SERIAL_NUMBER, *sorted(everything))
    bench = make_bench(meter=PUSH | {"sources": Sources(push_objects=objects)})
    bench.bus.poll(FLAT)
    serial = axdr.octet_string(bench.site.meters[FLAT].serial_number().encode())
    nonsense = axdr.structure(serial, *[axdr.octet_string(b"\x01")] * len(everything))
    assert energy_of(taken(bench, DataNotification(1, b"", nonsense).encode())) is None
    assert {r.obis for r in bench.bus.poll(FLAT)} == everything


def test_a_push_that_one_meter_s_keys_cannot_even_try_costs_the_others_nothing(make_bench, caplog):
    bench = make_bench(meter=PUSH, client={"meter_signing_key": b"rubbish"})
    with listening(bench, "tcp://127.0.0.1:0") as (bus, listener):
        plain = bench.site.stations["line"][1].pushed("plain", wrapper=True)
        for _ in range(3):
            send_to(f"tcp://127.0.0.1:{listener.port}", plain)
        end = time.monotonic() + WAIT_S
        while "not a public key" not in caplog.text and time.monotonic() < end:
            assert list(bus.probe()) == []
            time.sleep(0.01)
        assert {p.meter for p in bus.poll_cycle() if p.error is None} >= {FLAT, "flat-2"}
    assert caplog.text.count("not a public key") == 1


@contextmanager
def listening(bench, address: str, cutter=UnitCutter):
    listener = PushListener(address, cutter, bench.clock.now)
    meters = [BusMeter(name, driver) for name, driver in bench.drivers.items()]
    bus = Bus(bench.spec, meters, bench.plug, bench.clock, sources=[listener])
    try:
        list(bus.poll_cycle())
        yield bus, listener
    finally:
        bus.close()


def pushed_to(bus) -> list:
    """What the bus yields, as soon as it does."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        polls = list(bus.probe())
        if polls:
            return polls
        time.sleep(0.01)
    raise AssertionError("nothing came")


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
@pytest.mark.parametrize(("kind", "form"), [("none", "plain"), ("hls-gmac", "general")])
def test_pushes_at_a_listener(scheme, kind, form, make_bench, secured):
    bench = make_bench(framing="wrapper", meter=secured(kind) | PUSH)
    with listening(bench, f"{scheme}://127.0.0.1:0") as (bus, listener):
        station = bench.site.stations["line"][1]
        where = f"{scheme}://127.0.0.1:{listener.port}"
        for _ in range(2):
            bench.clock.move(60)
            send_to(where, b"\x00\x01rubbish")
            send_to(where, station.pushed(form, wrapper=True))
            (poll,) = pushed_to(bus)
            assert (poll.meter, energy_of(poll.readings)) == (FLAT, shown(bench))


def test_a_listener_for_hdlc_frames(make_bench):
    bench = make_bench(meter=PUSH)
    with listening(bench, "tcp://127.0.0.1:0", FrameCutter) as (bus, listener):
        send_to(f"tcp://127.0.0.1:{listener.port}", bench.site.stations["line"][1].pushed("plain", wrapper=False))
        (poll,) = pushed_to(bus)
        assert energy_of(poll.readings) == shown(bench)


def test_a_flood_at_the_listener_is_bounded_and_told(make_bench):
    bench = make_bench(framing="wrapper", meter=PUSH)
    with listening(bench, "tcp://127.0.0.1:0") as (bus, listener):
        send_to(f"tcp://127.0.0.1:{listener.port}", Unit(1, 16, b"\x0f").encode() * 2000)
        end = time.monotonic() + WAIT_S
        while listener.dropped < 2000 - 256 and time.monotonic() < end:
            time.sleep(0.01)
        assert listener.dropped >= 2000 - 256
        assert len(listener.take(None)) <= 256
        assert list(bus.probe()) == []


def test_a_port_that_is_taken_is_said(make_bench):
    first = PushListener("tcp://127.0.0.1:0", UnitCutter, time.time)
    first.take(None)
    second = PushListener(f"tcp://127.0.0.1:{first.port}", UnitCutter, time.time)
    with pytest.raises(TransportError, match="cannot listen"):
        second.take(None)
    first.close()


@pytest.mark.parametrize("octets", ["0600000001", "0101ff", "0102020212000801", "010100"])
def test_a_push_setup_that_is_none_is_an_error(octets):
    with pytest.raises(RemoteProtocolError):
        layout(axdr.decode(bytes.fromhex(octets)))
