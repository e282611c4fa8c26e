"""What a meter of water, heat or gas shows, as a row of the store. It checks what the form of the message does not."""

from __future__ import annotations

import math

from agent import wire
from agent.utility.ingest.checks import body_of
from agent.utility.sql.schema import REGISTER
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

UNITS = ("kWh", "m³")  # of what is counted; what else a meter shows has others
LARGEST = 1e9


def fault(register: wire.Register, meter: str) -> str | None:
    """Why this is no register of the topic's `meter`; None if it is one."""
    if register.meter != meter:
        return f"meter: the topic says {meter}, the body {register.meter[:64]!r}"
    first = register.amounts[0]
    if first.unit not in UNITS:
        return f"unit: {first.unit[:16]!r} of what is counted; expected one of {', '.join(UNITS)}"
    if not math.isfinite(first.value) or abs(first.value) > LARGEST:
        return f"range: {first.value:g} {first.unit}; at most {LARGEST:g}"
    return None


def row(meter_key: int, gateway_key: int, time_s: int, register: wire.Register) -> tuple[Table, Row]:
    """The row of a register without fault."""
    first, body = register.amounts[0], body_of(register)
    told: Row = (meter_key, gateway_key, register.meter, register.medium, first.value, first.unit, body, time_s)
    return REGISTER, told
