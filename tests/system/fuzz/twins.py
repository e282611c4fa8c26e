"""Two meters at one address, poll after poll: no value of the other one may ever come out.

    python -m tests.system.fuzz.twins [--polls 100000] [--seed 1]

The simulated twin answers each unit with a chance that changes from round to round, in each form of reading: lists,
ACCESS, compact data, general blocks, short names, over HDLC and the wrapper, with a serial number in the site file and
without. Its register stands 500 Wh off, and it has another name. The line's time is virtual. Where the site file has no
serial number, 20 of its answers in a row are an exchange by definition: the chance stays below one half there.
"""

from __future__ import annotations

import argparse
import random
import time

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.sources import Sources
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import MeterError
from firmware_io.obis import ObisCode
from firmware_io.simulator.building.building import ZonePlan
from firmware_io.simulator.building.scenario import Fault, Simulation
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.site import SimulatedMeterPlan, SimulatedSite
from firmware_io.spec import BusSpec

START_S = 1_772_409_600.0
ROUND = 250  # polls with one chance and one form
HONEST = 3  # of the polls of a round, before the twin comes
TWIN_WH = 500.0
SERIAL = "CHM00000002"
FORMS: dict[str, dict[str, object]] = {
    "lists": {},
    "serial": {"serial": SERIAL},
    "lls": {"security": "lls", "password": b"secret"},
    "lls serial": {"security": "lls", "password": b"secret", "serial": SERIAL},
    "access": {"access": True},
    "compact": {"sources": Sources(compact=ObisCode(0, 0, 66, 0, 1))},
    "blocks": {"gbt_window": 3, "max_pdu": 64},
    "short": {"naming": "sn"},
    "single": {"with_list": False, "serial": SERIAL},
}
KNOWN_WEAKNESS = ("single",)  # values and name in different replies: docs/dlms.md


def played(form: str, framing: str, chance: float, seed: int, polls: int) -> tuple[int, int, int]:
    """How many polls gave the energy, how many of these were the twin's, how many were refused."""
    clock = LineClock(START_S)
    port = "tcp://null:1" if framing == "wrapper" else "/dev/null-modem"
    line = BusSpec("line", port)
    spec = DlmsSpec("m", 17, framing=framing, **FORMS[form])  # type: ignore[arg-type]
    main = DlmsSpec("main", 16, framing=framing)  # type: ignore[arg-type]
    twin = Fault(kind="twin", meter="m", onset="+1h", probability=chance, amount=TWIN_WH)
    site = SimulatedSite(
        Simulation(seed=seed, history_days=1, installed="-2d", fault=[twin]),
        [line],
        [SimulatedMeterPlan(main, "line"), SimulatedMeterPlan(spec, "line")],
        [ZonePlan("main", ("m",))],
        clock,
        start_s=START_S,
    )
    modem = NullModem(site.lines["line"], clock.move)
    driver = DlmsDriver(spec, line, clock, MemoryCounters())
    bus = Bus(line, [BusMeter("m", driver)], lambda _: modem, clock)
    meter, read, wrong, refused = site.meters["m"], 0, 0, 0
    for n in range(polls):
        if n == HONEST:
            clock.move(3600.0)
        begin_s = clock.now()
        try:
            readings = bus.poll("m")
        except MeterError:
            refused += 1
            clock.move(1.0)
            continue
        energy = next((r.value for r in readings if r.obis == obis.ENERGY_IMPORT), None)
        if energy is None:
            continue
        read += 1
        low, high = meter.energy_wh(begin_s - 5.0)[0], meter.energy_wh(clock.now())[0]
        wrong += not low - 20 <= energy <= high + 20
        clock.move(1.0)
    return read, wrong, refused


def main() -> int:
    """Play until the polls are used up; the exit code says whether a value of the twin came out."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--polls", type=int, default=100_000)
    arguments.add_argument("--seconds", type=float, default=3600.0, help="at most so long")
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    chance, began = random.Random(options.seed), time.monotonic()
    table: dict[str, list[int]] = {}
    done = 0
    while done < options.polls and time.monotonic() - began < options.seconds:
        form, framing = chance.choice([f for f in FORMS if f not in KNOWN_WEAKNESS]), chance.choice(["hdlc", "wrapper"])
        often = chance.choice([0.05, 0.2, 0.3, 0.4] + [0.6, 0.8, 0.95] * ("serial" in FORMS[form]))
        counts = played(form, framing, often, chance.randrange(1 << 30), ROUND)
        row = table.setdefault(f"{form} {framing}", [0, 0, 0, 0])
        for n, count in enumerate((ROUND, *counts)):
            row[n] += count
        done += ROUND
    for name, (polls, read, wrong, refused) in sorted(table.items()):
        print(f"{name:18}{polls:9,} polls{read:9,} read{refused:9,} refused{wrong:5} of the twin")
    total = [sum(row[n] for row in table.values()) for n in range(4)]
    print(f"{'all':18}{total[0]:9,} polls{total[1]:9,} read{total[3]:9,} refused{total[2]:5} of the twin")
    return int(total[2] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
