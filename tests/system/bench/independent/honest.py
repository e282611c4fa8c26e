"""Houses of `world` in which nothing is missing that should be told, and nobody is to be named.

Owns honest life and honest faults of reading. Two of them are thefts that no balance can see: from a neighbour behind
his meter, and from stairs that are metered. Refuses to know how anything is detected.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from tests.system.bench.independent.homes import CAR, DAY, F64, HEAT, PLUG, Home
from tests.system.bench.independent.kinds import clock, kind, sessions, weekdays
from tests.system.bench.independent.world import Building, Reading, pick

STARTS = {  # kinds that need a season
    "change_of_time": datetime(2023, 2, 20, tzinfo=UTC),
    "end_of_summer_time": datetime(2023, 9, 18, tzinfo=UTC),
    "christmas": datetime(2023, 11, 13, tzinfo=UTC),
    "students_leave": datetime(2023, 5, 8, tzinfo=UTC),
    "heat_wave": datetime(2023, 5, 22, tzinfo=UTC),
}


def some(house: Building, count: int) -> list[int]:
    return [int(flat) for flat in house.rng.permutation(house.flats)[:count]]


def hold(house: Building, meters: list[int], first: int, last: int) -> None:
    """Registers (columns) stand still between two minutes and then show what was used meanwhile."""

    def change(registers: F64, minute: F64) -> None:
        rows = np.flatnonzero((minute >= first) & (minute < last))
        if len(rows):
            registers[np.ix_(rows, meters)] = registers[rows[0], meters]

    house.changes.append(change)


def unread(house: Building, meters: list[int], first: int, last: int) -> None:
    def change(registers: F64, minute: F64) -> None:
        registers[np.ix_(np.flatnonzero((minute >= first) & (minute < last)), meters)] = np.nan

    house.changes.append(change)


def change_of_time(house: Building, onset: int) -> None:
    """People's clocks go forward; the meters' stay on UTC."""


def end_of_summer_time(house: Building, onset: int) -> None:
    """And back."""


def plain(house: Building, onset: int) -> None:
    """Nothing happens."""


def moves(house: Building, onset: int) -> None:
    """Two families leave, flats stand empty for five to twenty days, others come."""
    for flat in some(house, 2):
        out = onset + int(house.rng.integers(-6, 6)) * DAY
        back = out + int(house.rng.integers(5, 20)) * DAY
        house.circuits[flat, 1:, out:back] = 0
        house.rewire(flat, Home(house.rng, house.homes[flat].warm, float(house.rng.uniform(0.6, 1.8))), since=back)


def vacancies(house: Building, onset: int) -> None:
    """Three flats fall empty for good, within two weeks, and are switched off."""
    for flat in some(house, 3):
        house.circuits[flat, :, onset + int(house.rng.integers(-7, 7)) * DAY :] = 0


def tenants_swap(house: Building, onset: int) -> None:
    """Two families change flats on a Saturday; the house's sum stays what it was."""
    a, b = some(house, 2)
    at = onset // DAY * DAY + 720
    house.circuits[[a, b], :, at:] = house.circuits[[b, a], :, at:]


def new_cars(house: Building, onset: int) -> None:
    """Two chargers, at the far end of the riser, on single phases."""
    top = sorted(range(house.flats), key=lambda flat: -house.floor[flat])[:4]
    for flat in top[:2]:
        house.phase[flat] = house.phase[flat] or 2
        house.rewire(flat, since=onset + int(house.rng.integers(0, 8)) * DAY, car_w=7200.0)


def roofs_read(house: Building, onset: int) -> None:
    """Three solar roofs, import and export both read; one is new."""
    for number, flat in enumerate(some(house, 3)):
        sun = house.sky.sun * np.float32(house.rng.uniform(1200, 4500))
        house.solar_w[flat] = np.where(np.arange(house.minutes) >= (onset if number == 0 else 0), sun, 0).astype(
            np.float32
        )


def exchanges(house: Building, onset: int) -> None:
    """Three meters are exchanged in a week, by day; the new ones start near zero."""
    for day, flat in enumerate(some(house, 3)):
        at = onset // DAY * DAY + day * 2 * DAY + int(house.rng.uniform(500, 960))

        def change(registers: F64, minute: F64, flat: int = flat, at: int = at) -> None:
            after = np.flatnonzero(minute >= at)
            registers[after, 1 + flat] += 0.2 - registers[after[0], 1 + flat]

        house.changes.append(change)


def main_exchanged(house: Building, onset: int) -> None:
    """A new main meter, whose error is another one within the class."""
    house.main_factor = np.ones(house.minutes, np.float32)
    house.main_factor[onset:] += np.float32(house.rng.normal(0, house.main_class / 300))

    def change(registers: F64, minute: F64) -> None:
        after = np.flatnonzero(minute >= onset)
        registers[after, 0] += 1.0 - registers[after[0], 0]

    house.changes.append(change)


def long_gaps(house: Building, onset: int) -> None:
    """Four meters do not answer for one to five days, and then do."""
    for flat in some(house, 4):
        first = onset + int(house.rng.integers(0, 12 * DAY))
        unread(house, [1 + flat], first, first + int(house.rng.integers(1, 5) * DAY))


def bus_down(house: Building, onset: int) -> None:
    """One line of the bus, a half of the sub-meters, is cut for 30 hours, twice."""
    for first in (onset, onset + 9 * DAY):
        unread(house, [1 + flat for flat in some(house, house.flats // 2)], first, first + 1800)


def main_unread(house: Building, onset: int) -> None:
    """The main meter does not answer for three days."""
    unread(house, [0], onset, onset + 3 * DAY)


def late_reads(house: Building, onset: int) -> None:
    """A gateway that is overloaded: rows at odd times, meters up to minutes one after the other."""
    house.reading = Reading(house.reading.interval_s, "loose", 0.03, 6.0)
    lag = house.rng.uniform(0, 150, house.flats + 40) / 60

    def change(registers: F64, minute: F64) -> None:
        rate = np.gradient(registers, minute, axis=0)
        busy = house.rng.random(len(minute)) < 0.2
        registers += rate * lag[: registers.shape[1]] * busy[:, None]

    house.changes.append(change)


def stood_still_and_caught_up(house: Building, onset: int) -> None:
    """A sub-meter's communication module shows yesterday's register for a day, then today's."""
    for day in (0, 11):
        first = onset + day * DAY
        hold(house, [1 + pick(house)], first, first + int(house.rng.uniform(16, 34) * 60))


def ten_stale_hours(house: Building, onset: int) -> None:
    """A concentrator repeats every sub-meter's last register for ten hours while the main meter is read."""
    hold(house, list(range(1, 1 + house.flats)), onset, onset + 600)


def coarse_registers(house: Building, onset: int) -> None:
    """Whole kilowatt-hours, ten behind the main meter's transformers."""
    house.step_wh, house.main_step_wh = 1000.0, float(house.rng.choice([1000.0, 10_000.0]))


def christmas(house: Building, onset: int) -> None:
    """A third leaves for ten days, the others have guests and ovens."""
    day = (datetime(2023, 12, 23, tzinfo=UTC) - house.calendar.first).days
    for flat in range(house.flats):
        if house.rng.random() < 0.35:
            house.circuits[flat, 1:, day * DAY : (day + int(house.rng.integers(4, 11))) * DAY] = 0
        elif house.rng.random() < 0.5:
            house.rewire(flat, since=day * DAY, until=(day + 4) * DAY, use=2.0, life="home")


def students_leave(house: Building, onset: int) -> None:
    """A third of the flats falls empty within one week of June."""
    day = (datetime(2023, 6, 16, tzinfo=UTC) - house.calendar.first).days
    for flat in some(house, house.flats // 3):
        house.circuits[flat, 1:, (day + int(house.rng.integers(0, 7))) * DAY :] = 0


def new_shop(house: Building, onset: int) -> None:
    """A shop opens behind a meter that was idle: an oven in the morning, lamps and a fridge."""
    flat, rng = some(house, 1)[0], house.rng
    house.circuits[flat, :, :] = 0
    oven = clock(house, 4, 10, weekdays(house, {0, 1, 2, 3, 4, 5})) * rng.uniform(3000, 8000)
    lamps = clock(house, 6, 18, weekdays(house, {0, 1, 2, 3, 4, 5})) * 500 + 250
    house.circuits[flat, PLUG, onset:] = (oven + lamps)[onset:]


def cold_snap(house: Building, onset: int) -> None:
    """It turns cold by nine degrees in three days, in a house with many electric heaters."""
    for flat in some(house, house.flats // 3):
        house.rewire(flat, heating="panels")


def heat_wave(house: Building, onset: int) -> None:
    """Coolers are bought in a week."""
    house.sky.celsius[onset : onset + 14 * DAY] += 9.0
    for flat in some(house, house.flats // 2):
        house.rewire(flat, since=onset, cooling_w=float(house.rng.uniform(600, 1600)))


def lift_repaired(house: Building, onset: int) -> None:
    """The lift, which has no meter, stands for two weeks; it was declared with the stairs."""
    house.lift_w[onset : onset + 14 * DAY] = 0


def lamps_renewed(house: Building, onset: int) -> None:
    """Declared stairs' lamps are replaced by ones that take a third."""
    house.stairs_w[onset:] *= 0.35


def power_cut(house: Building, onset: int) -> None:
    """Three hours without supply: registers rightly stand still, and all comes back at once."""
    house.circuits[:, :, onset : onset + 180] = 0
    house.circuits[:, 0, onset + 180 : onset + 300] *= 1.8
    house.stairs_w[onset : onset + 180] = 0
    house.lift_w[onset : onset + 180] = 0


def phases_changed(house: Building, onset: int) -> None:
    """An electrician evens the phases out: four flats pass to others, with what the copper takes."""
    later = list(house.phase)
    for flat in some(house, 4):
        later[flat] = int(house.rng.integers(1, 4))
    house.rephased = (onset, later)


def renovation(house: Building, onset: int) -> None:
    """Saws, driers and heaters of builders behind one flat's meter for three weeks."""
    flat = some(house, 1)[0]
    work = clock(house, 7, 16, weekdays(house, {0, 1, 2, 3, 4})) * sessions(house, 12, 30, 7, 16) * 2200 + 700
    house.circuits[flat, HEAT, onset : onset + 21 * DAY] += work[onset : onset + 21 * DAY].astype(np.float32)


def clock_wanders(house: Building, onset: int) -> None:
    """One meter's clock runs two minutes ahead within the weeks and is then set right."""
    flat = pick(house)

    def change(registers: F64, minute: F64) -> None:
        ahead = np.clip((minute - onset) / (21 * DAY), 0, 1) * 2.0 * (minute < onset + 28 * DAY)
        registers[:, 1 + flat] += np.gradient(registers[:, 1 + flat], minute) * ahead

    house.changes.append(change)


def from_the_neighbour(house: Building, onset: int) -> None:
    """Theft behind the neighbour's meter: one register falls, the other rises, and nothing is missing."""
    thief, victim = some(house, 2)
    taken = 0.7 * house.circuits[thief, 1:, onset:].sum(0)
    house.circuits[thief, 1:, onset:] *= 0.3
    house.circuits[victim, PLUG, onset:] += taken


def from_metered_stairs(house: Building, onset: int) -> None:
    """Theft from the stairs' socket, which the house's meter counts."""
    flat = some(house, 1)[0]
    taken = 0.5 * house.circuits[flat, PLUG, onset:]
    house.circuits[flat, PLUG, onset:] -= taken
    house.stairs_w[onset:] += taken


def car_at_work_now(house: Building, onset: int) -> None:
    """A car is sold: 7 kW at night, gone from one day on; its flat falls."""
    flat = some(house, 1)[0]
    house.rewire(flat, car_w=7200.0)
    house.circuits[flat, CAR, onset:] = 0


def landlord_overcharges(house: Building, onset: int) -> None:
    """All sub-meters are made to run fast by some hundredths: the sum shows more than the main meter."""
    fast = np.where(np.arange(house.minutes) >= onset, np.float32(house.rng.uniform(1.03, 1.12)), np.float32(1))
    for flat in range(house.flats):
        house.show[flat] = lambda p, c: p * fast
        house.over.add(house.meter(flat))


def dimmer_runs_it_fast(house: Building, onset: int) -> None:
    """A dimmed lamp makes one static meter count half as much again in the evenings, to its owner's loss."""
    evenings = clock(house, 17, 23) & (np.arange(house.minutes) >= onset)
    factor = np.where(evenings, np.float32(house.rng.uniform(1.3, 2.0)), np.float32(1))
    flat = pick(house)
    house.show[flat] = lambda p, c: p * factor
    house.over.add(house.meter(flat))


def balcony_panels(house: Building, onset: int) -> None:
    """Panels of 600 W behind the sockets of three balconies. Sub-meters have a back-stop and nobody reads an export."""
    for flat in some(house, 3):
        sun = np.where(np.arange(house.minutes) >= onset, house.sky.sun * np.float32(600), 0)
        house.solar_w[flat] = sun.astype(np.float32)
    house.exports_read = False


HONEST = (plain, moves, vacancies, tenants_swap, new_cars, car_at_work_now, renovation, from_the_neighbour)
HONEST += (exchanges, main_exchanged, long_gaps, bus_down, main_unread, late_reads, stood_still_and_caught_up)
HONEST += (ten_stale_hours, coarse_registers, clock_wanders, power_cut, phases_changed)
HONEST += (change_of_time, end_of_summer_time, christmas, students_leave, new_shop, heat_wave)
HONEST += (roofs_read, balcony_panels, landlord_overcharges, dimmer_runs_it_fast)
for act in HONEST:
    kind("honest")(act)
kind("honest", cold=True)(cold_snap)
kind("honest", house="declared")(lift_repaired)
kind("honest", house="declared")(lamps_renewed)
kind("honest", house="metered")(from_metered_stairs)

# What may also happen in a house with a theft or a tap: the inspector never finds them alone.
LIFE = (moves, vacancies, tenants_swap, new_cars, car_at_work_now, exchanges, long_gaps, bus_down, renovation)
