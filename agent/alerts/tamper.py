"""Entries of a meter's event log -> tamper events for the utility, and signs for the detector.

It owns the meaning of event codes. Codes 40-46 are those of the fraud detection log (0.0.99.98.1.255) of the DSMR and
IDIS companion profiles; the standard log (0.0.99.98.0.255) has power and clock events.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from agent.alerts.cim import CimCodes
from agent.wire.events import TamperData, TamperEvent, TamperKind
from agent.wire.topics import Address
from agent.wire.values import derived_uuid, utc
from core.signs import MeterSign, SignKind
from firmware_io.obis import EVENT_LOG_FRAUD, EVENT_LOG_STANDARD, ObisCode
from firmware_io.reading import MeterEvent

State = Literal["detected", "ended"]


class Meaning(NamedTuple):
    """What a code says to the utility (None: nothing) and to the detector (None: nothing)."""

    tamper: tuple[TamperKind, State] | None = None
    sign: SignKind | None = None


MEANINGS: dict[tuple[ObisCode, int], Meaning] = {
    (EVENT_LOG_FRAUD, 40): Meaning(("terminal_cover", "detected"), SignKind.TERMINAL_OPENED),
    (EVENT_LOG_FRAUD, 41): Meaning(("terminal_cover", "ended")),
    (EVENT_LOG_FRAUD, 42): Meaning(("magnetic_field", "detected"), SignKind.MAGNETIC_FIELD),
    (EVENT_LOG_FRAUD, 43): Meaning(("magnetic_field", "ended")),
    (EVENT_LOG_FRAUD, 44): Meaning(("meter_cover", "detected"), SignKind.COVER_OPENED),
    (EVENT_LOG_FRAUD, 45): Meaning(("meter_cover", "ended")),
    (EVENT_LOG_FRAUD, 46): Meaning(("wrong_password", "detected")),
    (EVENT_LOG_FRAUD, 49): Meaning(("wrong_password", "detected")),
    (EVENT_LOG_FRAUD, 50): Meaning(("wrong_password", "detected")),
    (EVENT_LOG_STANDARD, 1): Meaning(sign=SignKind.POWER_FAILURE),
    (EVENT_LOG_STANDARD, 4): Meaning(sign=SignKind.CLOCK_CHANGED),
    (EVENT_LOG_STANDARD, 5): Meaning(sign=SignKind.CLOCK_CHANGED),
}


def sign_of(event: MeterEvent) -> MeterSign | None:
    """What the detector is to know of an event, if anything."""
    kind = MEANINGS.get((event.log, event.code), Meaning()).sign
    return None if kind is None else MeterSign(event.meter, event.meter_time_s, kind)


def tamper_event(event: MeterEvent, address: Address, zone: str | None, cim: CimCodes) -> TamperEvent | None:
    """What the utility is to know of an event; the same entry read twice gives the same id.

    An unknown code of the fraud log is passed on as "other": the utility may know it.
    """
    meaning = MEANINGS.get((event.log, event.code))
    if meaning is None and event.log == EVENT_LOG_FRAUD:
        meaning = Meaning(("other", "detected"))
    if meaning is None or meaning.tamper is None:
        return None
    kind, state = meaning.tamper
    return TamperEvent(
        id=derived_uuid(
            "tamper", address.source, event.meter, str(event.log), str(event.code), f"{event.meter_time_s:.0f}"
        ),
        source=address.source,
        subject=f"meter/{event.meter}",
        time=utc(event.meter_time_s),
        data=TamperData(
            meter=event.meter,
            kind=kind,
            state=state,
            zone=zone,
            log=str(event.log),
            code=event.code,
            received=utc(event.received_s),
            cim=cim.code(kind, cleared=state == "ended"),
        ),
    )
