"""The DLMS driver: counters that were lost, and gateways whose meters share a connection."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.meter.driver import COUNTER_LIMIT, DlmsDriver
from firmware_io.dlms.protection.security import Sealed
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.wrapper import Unit, Unwrapper
from firmware_io.dlms.sources import Sources
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import AccessDenied, RemoteProtocolError, ResponseTimeout
from firmware_io.obis import ENERGY_IMPORT
from firmware_io.spec import BusSpec

KEY = bytes(range(16))
GMAC = {"security": "hls-gmac", "authentication_key": KEY, "encryption_key": KEY, "system_title": b"CHK\0\0\0\0\1"}


def refusing(meter, refusal: bytes) -> list[int]:
    """Let a meter answer every GMAC association so; the counters that come in."""
    tried: list[int] = []
    plain = meter.answer

    def answer(pdu: bytes, now_s: float) -> bytes:
        if pdu[0] == 0x60 and acse.AssociationRequest.decode(pdu).mechanism is acse.Mechanism.HLS_GMAC:
            tried.append(Sealed.parse(acse.AssociationRequest.decode(pdu).user_information).counter)
            return refusal
        return plain(pdu, now_s)

    meter.answer = answer
    return tried


def test_the_counter_that_the_meter_expects_is_used(make_site, make_meter) -> None:
    """A store that was lost: "it expects 5001" is the answer to how we go on, once."""
    site = make_site(make_meter(), **GMAC)
    tried = refusing(site.meters[0], decode.ExceptionResponse(1, 6, 5001).encode())
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="invocation counter error"):
            site.bus.poll("m0")
    assert tried == [1, 5001, 5002]


def test_a_counter_that_would_wear_the_key_out_is_not_believed(make_site, make_meter) -> None:
    site = make_site(make_meter(), **GMAC)
    tried = refusing(site.meters[0], decode.ExceptionResponse(1, 6, COUNTER_LIMIT + 1).encode())
    with pytest.raises(RemoteProtocolError):
        site.bus.poll("m0")
    assert tried == [1]


@pytest.mark.parametrize("name", [obis.INVOCATION_COUNTER, obis.ObisCode(0, 0, 43, 1, 3)])
def test_the_public_client_asks_for_the_clients_counter(name: obis.ObisCode, make_site, make_meter) -> None:
    site = make_site(make_meter(), sources=Sources(counter=name), **GMAC)
    site.meters[0].others[1, name, 2] = axdr.uint32(5000)
    tried = refusing(site.meters[0], decode.ExceptionResponse(1, 5).encode())
    with pytest.raises(AccessDenied, match="cannot decipher us"):
        site.bus.poll("m0")
    assert tried == [1, 5001 + 0]


class Gateway:
    """Meters behind one TCP connection with the wrapper; each answers after its own time."""

    def __init__(self, clock, meters: dict[int, object], late_s: dict[int, float]) -> None:
        self.clock, self.meters, self.late_s = clock, meters, late_s
        self.opened = 0
        self._unwrapper = Unwrapper()
        self._due: list[tuple[float, bytes]] = []

    def open(self, spec: BusSpec) -> Gateway:
        self.opened += 1
        self._due.clear()
        return self

    def monotonic(self) -> float:
        return self.clock.time_s

    def close(self) -> None: ...

    def write(self, octets: bytes) -> None:
        for unit in self._unwrapper.receive(octets):
            meter = self.meters[unit.destination]
            if not meter.silent:
                reply = Unit(unit.destination, unit.source, meter.answer(unit.pdu, self.clock.time_s)).encode()
                self._due.append((self.clock.time_s + 0.05 + self.late_s.get(unit.destination, 0.0), reply))
                self._due.sort()

    def read(self, max_octets: int, deadline: float) -> bytes:
        if self._due and self._due[0][0] <= deadline:
            at_s, octets = self._due.pop(0)
            self.clock.time_s = max(self.clock.time_s, at_s)
            return octets
        self.clock.time_s = max(self.clock.time_s, deadline)
        return b""


def behind(gateway: Gateway, clock) -> Bus:
    spec = BusSpec("line", "tcp://gateway:4059", timeout_s=1.0)
    counters = MemoryCounters()
    specs = [DlmsSpec(f"m{n}", n, framing="wrapper") for n in gateway.meters]
    return Bus(spec, [BusMeter(s.id, DlmsDriver(s, spec, clock, counters)) for s in specs], gateway.open, clock)


def test_a_dead_meter_behind_a_gateway_costs_the_others_no_association(make_meter, clock) -> None:
    gateway = Gateway(clock, {n: make_meter(serial=str(n), silent=n == 3) for n in range(1, 9)}, {})
    bus = behind(gateway, clock)
    for _ in range(20):
        for poll in bus.poll_cycle():
            assert (poll.error is None) == (poll.meter != "m3")
    assert gateway.opened == 1
    assert [m.associations for m in gateway.meters.values() if not m.silent] == [1] * 7


def test_a_late_reply_behind_a_gateway_answers_no_other_question(make_meter, clock) -> None:
    """One meter is always late, so that its replies come to later questions: none is taken for another's."""
    meters = {n: make_meter(serial=str(n), energy_wh=1e6 * n) for n in (1, 2, 3)}
    gateway = Gateway(clock, meters, {})
    bus = behind(gateway, clock)
    list(bus.poll_cycle())
    gateway.late_s[2] = 1.5
    for n in range(60):
        gateway.late_s[2] = (1.5, 0.0, 1.1)[n % 3]
        for meter in meters.values():
            meter.energy_wh += 10
        for poll in bus.poll_cycle():
            assert poll.error is None or isinstance(poll.error, ResponseTimeout)
            for reading in poll.readings:
                if reading.obis == ENERGY_IMPORT:
                    assert reading.value == meters[int(poll.meter[1:])].energy_wh
    assert gateway.opened == 1
