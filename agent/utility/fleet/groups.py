"""The groups whose loads are added up: the fleet, what one feeder supplies, what lies in one district.

It owns which zones belong to a group and what a group can carry. A zone inside another one is in no group: its load is
counted already. Feeders and districts are what the sites say; a feeder may supply buildings of several tenants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from agent import wire
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import GROUP_CAPACITY
from agent.utility.sql.store import Store

Kind = Literal["fleet", "feeder", "district"]
KINDS: tuple[Kind, ...] = ("fleet", "feeder", "district")
FLEET = "fleet"  # the one group of its kind
AT_ONCE = 100  # rows with a body: bounds what one question holds


def group_key(kind: Kind, name: str) -> int:
    """The key of a group in the store."""
    return name_key("group", kind, name)


def paged(keys: list[int], size: int = AT_ONCE) -> Iterator[list[int]]:
    """A list of keys in pages."""
    return (keys[at : at + size] for at in range(0, len(keys), size))


def marks(keys: list[int]) -> str:
    """The question marks of a list of keys."""
    return ", ".join("?" * len(keys))


def outer(store: Store, zones: dict[int, tuple[int, str]]) -> dict[int, int]:
    """Zone -> gateway, of those `zones` (key -> gateway, name) whose load no other zone of their gateway contains."""
    of_gateway = Counter(gateway for gateway, _ in zones.values())
    inner: set[tuple[int, str]] = set()
    for page in paged(sorted(gateway for gateway, count in of_gateway.items() if count > 1)):
        infos = store.rows(f"SELECT gateway_key, body FROM gateway_info WHERE gateway_key IN ({marks(page)})", page)
        for gateway, body in infos:
            told = wire.decode(wire.Info, str(body).encode()).zones
            behind = {sub for zone in told for sub in zone.subs}
            inner |= {(int(str(gateway)), zone.id) for zone in told if zone.main in behind}
    return {key: zone[0] for key, zone in sorted(zones.items()) if zone not in inner}


def members(store: Store, kind: Kind, zones: dict[int, int]) -> dict[str, list[int]]:
    """Group -> the keys of those `zones` (key -> gateway) that belong to it."""
    if kind == "fleet":
        return {FLEET: list(zones)} if zones else {}
    column = {"feeder": "feeder", "district": "district"}[kind]
    found = store.rows(f"SELECT gateway_key, {column} FROM gateway_info WHERE {column} IS NOT NULL")
    names = {int(str(gateway)): str(name) for gateway, name in found}
    out: dict[str, list[int]] = {}
    for key, gateway in zones.items():
        if gateway in names:
            out.setdefault(names[gateway], []).append(key)
    return out


def set_capacity(store: Store, kind: Kind, name: str, capacity_w: float, now_s: float) -> None:
    """What a group can carry, from now on."""
    store.write(GROUP_CAPACITY, [(group_key(kind, name), kind, name, capacity_w, round(now_s * 1000))])


def capacities(store: Store, kind: Kind) -> dict[str, float]:
    """Group -> what it can carry, where somebody has said so."""
    rows = store.rows("SELECT name, capacity_w FROM group_capacity WHERE kind = ?", (kind,))
    return {str(name): float(str(capacity_w)) for name, capacity_w in rows}
