"""A first site file, as a tree of tables, from the meters that answered on one or more ports.

It knows what a person has to look through: names, classes, and which one is the main meter. It looks at no line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

ACCURACY_CLASS, RESOLUTION_WH = 1.0, 10.0  # of most meters of flats; the face plate says


class Answered(Protocol):
    """A meter that answered."""

    @property
    def port(self) -> str: ...
    @property
    def baud(self) -> int: ...
    @property
    def parity(self) -> str: ...
    @property
    def framing(self) -> str: ...
    @property
    def address(self) -> int: ...
    @property
    def octets(self) -> int: ...
    @property
    def serial(self) -> str | None: ...


def main_of(found: Sequence[Answered], address: int | None = None) -> Answered:
    """The main meter: the one at this address, or the first that was found.

    Raises:
        LookupError: nobody answered at that address.
    """
    if address is None:
        return found[0]
    chosen = next((meter for meter in found if meter.address == address), None)
    if chosen is None:
        raise LookupError(f"no meter answered at address {address}; answered: {addresses(found)}")
    return chosen


def addresses(found: Sequence[Answered]) -> str:
    """Who answered, in words."""
    return ", ".join(str(meter.address) for meter in found)


def first_site(
    found: Sequence[Answered],
    *,
    main: Answered | None = None,
    site: str = "building",
    gateway: str = "gw-0001",
    broker: str | None = None,
) -> dict[str, Any]:
    """The tree of the site file; ids by address, because that is all we know of the meters."""
    main = found[0] if main is None else main
    lines: dict[tuple[str, int, str, str], str] = {}
    buses: list[dict[str, Any]] = []
    meters: list[dict[str, Any]] = []
    names: set[str] = set()
    for meter in found:
        key = (meter.port, meter.baud, meter.parity, meter.framing)
        if key not in lines:
            lines[key] = f"line-{len(lines) + 1}" if lines else "line"
            buses.append(_bus(lines[key], meter))
        name = "main" if meter is main else _name(meter, names)
        names.add(name)
        table: dict[str, Any] = {"id": name, "bus": lines[key], "address": meter.address}
        if meter.framing == "hdlc" and meter.octets != (2 if meter.address < 0x80 else 4):
            table["address_octets"] = meter.octets
        table |= {"accuracy_class": ACCURACY_CLASS, "resolution_wh": RESOLUTION_WH}
        if meter.serial is not None:
            table["serial"] = meter.serial
        meters.append(table)
    subs = [table["id"] for table in meters if table["id"] != "main"]
    tree: dict[str, Any] = {
        "site": {"site": site, "gateway": gateway},
        "bus": buses,
        "meter": meters,
        "zone": [{"id": "building", "main": "main", "subs": subs}],
    }
    return tree | ({"mqtt": {"url": broker}} if broker else {})


def _bus(name: str, meter: Answered) -> dict[str, Any]:
    bus: dict[str, Any] = {"id": name, "port": meter.port}
    if meter.framing != "hdlc":
        bus["framing"] = meter.framing
    if not meter.port.startswith("tcp://"):
        bus["baud"] = meter.baud
        if meter.parity != "N":
            bus["parity"] = meter.parity
    return bus


def _name(meter: Answered, taken: set[str]) -> str:
    name, n = f"meter-{meter.address}", 2
    while name in taken:
        name, n = f"meter-{meter.address}-{n}", n + 1
    return name
