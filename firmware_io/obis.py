"""OBIS codes (IEC 62056-61) and the catalogue of the registers that checkmeter uses."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_TEXT = re.compile(r"(?:(\d{1,3})-(\d{1,3}):)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[.*](\d{1,3}))?")


class ObisCode(NamedTuple):
    """Six value groups A-F, each 0..255; `str()` gives the dotted form `A.B.C.D.E.F`."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int = 255

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1.0.1.8.0.255`, `1.0.1.8.0`, `1-0:1.8.0` or `1-0:1.8.0*255`.

        Raises:
            ValueError: the text is not an OBIS code, or a group is over 255.
        """
        parts = text.strip().split(".")
        if len(parts) in (5, 6) and all(p.isdigit() for p in parts):
            groups = [int(p) for p in parts] + [255] * (6 - len(parts))
        else:
            match = _TEXT.fullmatch(text.strip())
            if match is None:
                raise ValueError(f"{text!r} is not an OBIS code; expected the form 1-0:1.8.0 or 1.0.1.8.0.255")
            groups = [int(g) if g is not None else d for g, d in zip(match.groups(), (1, 0, 0, 0, 0, 255), strict=True)]
        if max(groups) > 255:
            raise ValueError(f"{text!r} is not an OBIS code: each group is 0..255")
        return cls(*groups)

    @classmethod
    def from_bytes(cls, logical_name: bytes) -> Self:
        """Read a six-octet logical name.

        Raises:
            ValueError: not six octets.
        """
        if len(logical_name) != 6:
            raise ValueError(f"a logical name has 6 octets, got {len(logical_name)}")
        return cls(*logical_name)

    def to_bytes(self) -> bytes:
        """The six-octet logical name."""
        return bytes(self)

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @property
    def label(self) -> str | None:
        """What it is in words; None for a code that we have no name for."""
        if self in _LABELS:
            return _LABELS[self]
        total = self._replace(e=0)
        return f"{_LABELS[total]}, rate {self.e}" if total in _LABELS and self.d == 8 and 0 < self.e < 64 else None


ENERGY_IMPORT = ObisCode(1, 0, 1, 8, 0)
ENERGY_EXPORT = ObisCode(1, 0, 2, 8, 0)
POWER_IMPORT = ObisCode(1, 0, 1, 7, 0)
POWER_EXPORT = ObisCode(1, 0, 2, 7, 0)
POWER_FACTOR = ObisCode(1, 0, 13, 7, 0)
VOLTAGE = (ObisCode(1, 0, 32, 7, 0), ObisCode(1, 0, 52, 7, 0), ObisCode(1, 0, 72, 7, 0))
CURRENT = (ObisCode(1, 0, 31, 7, 0), ObisCode(1, 0, 51, 7, 0), ObisCode(1, 0, 71, 7, 0))
MAXIMUM_CURRENT = ObisCode(1, 0, 0, 6, 3)  # that the meter is rated for
NEUTRAL_CURRENT = ObisCode(1, 0, 91, 7, 0)
CLOCK = ObisCode(0, 0, 1, 0, 0)
SERIAL_NUMBER = ObisCode(0, 0, 96, 1, 0)
FIRMWARE_VERSION = ObisCode(1, 0, 0, 2, 0)
LOGICAL_DEVICE_NAME = ObisCode(0, 0, 42, 0, 0)
ERROR_REGISTER = ObisCode(0, 0, 97, 97, 0)
LOAD_PROFILE = ObisCode(1, 0, 99, 1, 0)
EVENT_LOG_STANDARD = ObisCode(0, 0, 99, 98, 0)
EVENT_LOG_FRAUD = ObisCode(0, 0, 99, 98, 1)
CURRENT_ASSOCIATION = ObisCode(0, 0, 40, 0, 0)
PUSH_SETUP = ObisCode(0, 0, 25, 9, 0)
INVOCATION_COUNTER = ObisCode(0, 0, 43, 1, 0)
DISCONNECT_CONTROL = ObisCode(0, 0, 96, 3, 10)

_LABELS: dict[ObisCode, str] = {
    ENERGY_IMPORT: "energy imported",
    ENERGY_EXPORT: "energy exported",
    ObisCode(1, 0, 15, 8, 0): "energy imported and exported, sum of the absolute values",
    ObisCode(1, 0, 3, 8, 0): "reactive energy imported",
    ObisCode(1, 0, 4, 8, 0): "reactive energy exported",
    POWER_IMPORT: "power imported",
    POWER_EXPORT: "power exported",
    POWER_FACTOR: "power factor",
    **{code: f"voltage L{n}" for n, code in enumerate(VOLTAGE, 1)},
    **{code: f"current L{n}" for n, code in enumerate(CURRENT, 1)},
    NEUTRAL_CURRENT: "current in the neutral",
    MAXIMUM_CURRENT: "maximum current",
    CLOCK: "clock",
    SERIAL_NUMBER: "serial number",
    FIRMWARE_VERSION: "firmware",
    LOGICAL_DEVICE_NAME: "logical device name",
    ERROR_REGISTER: "error register",
    LOAD_PROFILE: "load profile",
    EVENT_LOG_STANDARD: "event log",
    EVENT_LOG_FRAUD: "fraud log",
    CURRENT_ASSOCIATION: "current association",
    INVOCATION_COUNTER: "invocation counter",
    DISCONNECT_CONTROL: "disconnector",
}
