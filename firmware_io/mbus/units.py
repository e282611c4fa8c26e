"""What a value information block says of a record: quantity, unit and power of ten (EN 13757-3, clause 6). Tables.

The units are those of `Reading` where there is one: energies of joules become watt hours, flows stay per hour.
"""

from __future__ import annotations

from typing import NamedTuple

ENERGY, VOLUME, POWER, VOLTAGE, CURRENT = "energy", "volume", "power", "voltage", "current"
FLOW, FLOW_TEMPERATURE, RETURN_TEMPERATURE, TEMPERATURE_DIFFERENCE = (
    "volume flow",
    "flow temperature",
    "return temperature",
    "temperature difference",
)
DATE, DATE_TIME = "date", "date and time"


class Meaning(NamedTuple):
    """Quantity and unit of a record; `factor` times its number is the value."""

    quantity: str
    unit: str = ""
    factor: float = 1.0


UNKNOWN = Meaning("unknown")
_J = 1 / 3600  # Wh

# Primary VIF without its extension bit: first, last, quantity, unit, factor of the first.
_PRIMARY: tuple[tuple[int, int, str, str, float], ...] = (
    (0x00, 0x07, ENERGY, "Wh", 1e-3),
    (0x08, 0x0F, ENERGY, "Wh", _J),
    (0x10, 0x17, VOLUME, "m³", 1e-6),
    (0x18, 0x1F, "mass", "kg", 1e-3),
    (0x28, 0x2F, POWER, "W", 1e-3),
    (0x30, 0x37, POWER, "W", _J),
    (0x38, 0x3F, FLOW, "m³/h", 1e-6),
    (0x40, 0x47, FLOW, "m³/h", 60e-7),
    (0x48, 0x4F, FLOW, "m³/h", 3600e-9),
    (0x50, 0x57, "mass flow", "kg/h", 1e-3),
    (0x58, 0x5B, FLOW_TEMPERATURE, "°C", 1e-3),
    (0x5C, 0x5F, RETURN_TEMPERATURE, "°C", 1e-3),
    (0x60, 0x63, TEMPERATURE_DIFFERENCE, "K", 1e-3),
    (0x64, 0x67, "external temperature", "°C", 1e-3),
    (0x68, 0x6B, "pressure", "bar", 1e-3),
)
_DURATIONS_S = (1.0, 60.0, 3600.0, 86_400.0)
_DURATIONS = {0x20: "on time", 0x24: "operating time", 0x70: "averaging duration", 0x74: "actuality duration"}
_SINGLE = {
    0x6C: Meaning(DATE),
    0x6D: Meaning(DATE_TIME),
    0x6E: Meaning("heat cost allocation"),
    0x78: Meaning("fabrication number"),
    0x79: Meaning("identification"),
    0x7A: Meaning("bus address"),
    0x7E: Meaning("any"),
    0x7F: Meaning("manufacturer specific"),
}
_FB: tuple[tuple[int, int, str, str, float], ...] = (
    (0x00, 0x01, ENERGY, "Wh", 1e5),
    (0x08, 0x09, ENERGY, "Wh", 1e8 * _J),
    (0x10, 0x11, VOLUME, "m³", 1e2),
    (0x18, 0x19, "mass", "kg", 1e5),
    (0x28, 0x29, POWER, "W", 1e5),
    (0x30, 0x31, POWER, "W", 1e8 * _J),
)
_FD: tuple[tuple[int, int, str, str, float], ...] = (
    (0x40, 0x4F, VOLTAGE, "V", 1e-9),
    (0x50, 0x5F, CURRENT, "A", 1e-12),
)
_FD_SINGLE = {
    0x08: "access number",
    0x09: "medium",
    0x0A: "manufacturer",
    0x0B: "parameter set",
    0x0C: "model or version",
    0x0D: "hardware version",
    0x0E: "firmware version",
    0x0F: "software version",
    0x10: "customer location",
    0x11: "customer",
    0x17: "error flags",
    0x18: "error mask",
    0x1A: "digital output",
    0x1B: "digital input",
    0x3A: "dimensionless",
    0x60: "reset counter",
    0x61: "cumulation counter",
    0x74: "battery days left",
}

# Combinable VIFEs that change a value, or what it is of.
ONLY_POSITIVE, ONLY_NEGATIVE, THOUSAND = 0x3B, 0x3C, 0x7D
MANUFACTURER_VIFE = 0x7F


def factor_of(vife: int) -> float:
    """By what a combinable VIFE multiplies: 10^(n-6) or 1000; 1 for the others."""
    vife &= 0x7F
    if 0x70 <= vife <= 0x77:
        return _power_of_ten(1e-6, vife - 0x70)
    return 1000.0 if vife == THOUSAND else 1.0


def primary(vif: int) -> Meaning:
    """The meaning of a primary VIF (table 10)."""
    vif &= 0x7F
    if vif in _SINGLE:
        return _SINGLE[vif]
    for first, quantity in _DURATIONS.items():
        if first <= vif <= first + 3:
            return Meaning(quantity, "s", _DURATIONS_S[vif - first])
    return _in(_PRIMARY, vif)


def extension_fb(vif: int) -> Meaning:
    """The meaning of a VIFE after FBh (table 14)."""
    return _in(_FB, vif & 0x7F)


def extension_fd(vif: int) -> Meaning:
    """The meaning of a VIFE after FDh (table 12)."""
    vif &= 0x7F
    return Meaning(_FD_SINGLE[vif]) if vif in _FD_SINGLE else _in(_FD, vif)


def _in(ranges: tuple[tuple[int, int, str, str, float], ...], vif: int) -> Meaning:
    for first, last, quantity, unit, factor in ranges:
        if first <= vif <= last:
            return Meaning(quantity, unit, _power_of_ten(factor, vif - first))
    return UNKNOWN


def _power_of_ten(factor: float, steps: int) -> float:
    """Exact where the result is: 1e-3 times 10 to the 6 is 1000, not 1000.0000000000001."""
    value = factor * 10.0**steps
    return round(value) if value >= 1 and abs(value - round(value)) < 1e-9 * value else value


MEDIA = {
    0x00: "other",
    0x01: "oil",
    0x02: "electricity",
    0x03: "gas",
    0x04: "heat (return)",
    0x05: "steam",
    0x06: "warm water",
    0x07: "water",
    0x08: "heat cost allocator",
    0x09: "compressed air",
    0x0A: "cooling (return)",
    0x0B: "cooling (flow)",
    0x0C: "heat (flow)",
    0x0D: "heat and cooling",
    0x0E: "bus or system",
    0x15: "hot water",
    0x16: "cold water",
    0x17: "hot and cold water",
    0x18: "pressure",
}
