"""A first site file, as a tree of tables, from the meters that answered on one or more ports.

It knows what a person has to look through: names, classes, and which one is the main meter. It looks at no line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.site.edit import remarked

ACCURACY_CLASS, RESOLUTION_WH = 1.0, 10.0  # of most meters of flats; the face plate says
UNKNOWN_PROFILE = "NAME-OF-PROFILE"  # more than one device profile fits, or none: a comment beside it says which


@dataclass(frozen=True, slots=True)
class Answer:
    """A meter that answered, and where. `keys` is what else stands in its table of the site file."""

    port: str
    baud: int
    address: int | str
    parity: str = "N"
    framing: str = "hdlc"
    octets: int = 2
    serial: str | None = None
    protocol: str = "dlms"
    keys: tuple[tuple[str, object], ...] = ()
    fitting: tuple[str, ...] = ()  # device profiles of Modbus of which a person has to choose one

    @property
    def electric(self) -> bool:
        """Whether it may be part of the balance: meters of water and heat say their medium."""
        return "medium" not in dict(self.keys)


def main_of(found: Sequence[Answer], address: str | None = None) -> Answer:
    """The main meter: the one at this address, or the first electricity meter that was found.

    Raises:
        LookupError: nobody answered at that address.
    """
    chosen = next((m for m in found if (m.electric if address is None else str(m.address) == address)), None)
    if chosen is None:
        raise LookupError(f"no meter answered at address {address}; answered: {addresses(found)}")
    return chosen


def addresses(found: Sequence[Answer]) -> str:
    """Who answered, in words."""
    return ", ".join(str(meter.address) for meter in found)


def first_site(
    found: Sequence[Answer],
    *,
    main: Answer | None = None,
    site: str = "building",
    gateway: str = "gw-0001",
    broker: str | None = None,
) -> dict[str, Any]:
    """The tree of the site file; ids by address, because that is all we know of the meters."""
    main = found[0] if main is None else main
    lines: dict[tuple[str, str, int, str, str], str] = {}
    buses: list[dict[str, Any]] = []
    meters: list[dict[str, Any]] = []
    subs: list[str] = []
    names: set[str] = set()
    for meter in found:
        key = (meter.port, meter.protocol, meter.baud, meter.parity, meter.framing)
        if key not in lines:
            lines[key] = f"line-{len(lines) + 1}" if lines else "line"
            buses.append(_bus(lines[key], meter))
        name = "main" if meter is main else _name(meter, names)
        names.add(name)
        if meter is not main and meter.electric:
            subs.append(name)
        meters.append(_meter(name, lines[key], meter))
    tree: dict[str, Any] = {
        "site": {"site": site, "gateway": gateway},
        "bus": buses,
        "meter": meters,
        "zone": [{"id": "building", "main": "main", "subs": subs}],
    }
    return tree | ({"mqtt": {"url": broker}} if broker else {})


def _meter(name: str, line: str, meter: Answer) -> dict[str, Any]:
    table: dict[str, Any] = {"id": name, "bus": line, "address": meter.address}
    hdlc = meter.protocol == "dlms" and meter.framing == "hdlc"
    if hdlc and isinstance(meter.address, int) and meter.octets != (2 if meter.address < 0x80 else 4):
        table["address_octets"] = meter.octets
    table |= {"accuracy_class": ACCURACY_CLASS, "resolution_wh": RESOLUTION_WH}
    if meter.serial is not None:
        table["serial"] = meter.serial
    table |= dict(meter.keys)
    if meter.protocol == "modbus":
        known = f"one of these fits: {', '.join(meter.fitting)}" if meter.fitting else "no shipped profile fits"
        table.setdefault("profile", remarked(UNKNOWN_PROFILE, known))
    return table


def _bus(name: str, meter: Answer) -> dict[str, Any]:
    bus: dict[str, Any] = {"id": name, "port": meter.port}
    if meter.protocol != "dlms":
        bus["protocol"] = meter.protocol
    elif meter.framing != "hdlc":
        bus["framing"] = meter.framing
    if not meter.port.startswith("tcp://"):
        bus["baud"] = meter.baud
        if meter.parity != "N":
            bus["parity"] = meter.parity
    return bus


def _name(meter: Answer, taken: set[str]) -> str:
    name, n = f"meter-{meter.address}", 2
    while name in taken:
        name, n = f"meter-{meter.address}-{n}", n + 1
    return name
