"""Registers of water, heat and gas in the utility's store: the newest of each meter, with its unit."""

from __future__ import annotations

import time

import pytest

from agent import wire
from agent.utility.ingest.decode import Reader
from agent.utility.mqtt.packets import Publish

NOW_S = int(time.time())


def register(value: float, time_s: float = NOW_S, unit: str = "m³", meter: str = "water") -> wire.Register:
    amounts = [wire.Amount(obis="8.0.1.0.0.255", value=value, unit=unit)]
    return wire.Register(meter=meter, medium="cold-water", time=wire.utc(time_s), amounts=amounts)


@pytest.fixture
def say(store):
    reader = Reader(lambda: float(NOW_S))

    def give(message: wire.Register, meter: str = "water") -> list[str]:
        topic = wire.Address("acme", "s", "g").topic(wire.register_suffix(meter)).encode()
        letter = reader.read(Publish(topic, 1, wire.encode(message), False))
        store.apply([letter])
        return [table.name for table, _ in letter.rows]

    return give


def test_the_newest_register_of_a_meter_is_kept(say, store) -> None:
    assert say(register(12.5, NOW_S - 100)) == ["gateway", "register"]
    assert say(register(12.75)) == ["register"]
    say(register(12.0, NOW_S - 1000))  # it was under way for long
    say(register(3.0, meter="garden"), "garden")
    rows = store.rows("SELECT meter, medium, amount, unit, time_s FROM register ORDER BY meter")
    assert [tuple(row) for row in rows] == [
        ("garden", "cold-water", 3.0, "m³", NOW_S),
        ("water", "cold-water", 12.75, "m³", NOW_S),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        register(1.0, meter="another"),
        register(1.0, unit="bushels"),
        register(1e12),
        register(1.0, NOW_S + 40 * 86_400),
    ],
)
def test_what_is_no_register_is_a_dead_letter(say, store, wrong: wire.Register) -> None:
    assert say(wrong) == ["dead_letter"]
    assert store.rows("SELECT COUNT(*) FROM register")[0][0] == 0
