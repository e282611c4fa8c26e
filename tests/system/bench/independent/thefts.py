"""Thefts, as a revenue-protection inspector would list them, each with the physics that makes it.

Refuses to know how anything is detected.

Where they are from: Depuru, Wang, Devabhaktuni, "Electricity theft: overview, issues, prevention", Energy Policy 39
(2011) (bypass, tampered terminals, relays by remote control); Smith, "Electricity theft: a comparative analysis",
Energy Policy 32 (2004) (arrangements with staff, landlords); Leferink, Keyer, Melentjev, "Static energy meter errors
caused by conducted EMI", IEEE EMC Magazine 5 (2016) (-46 to +582 %) and "Static energy meters running backwards", EMC
Europe 2021 (-430 W while 21 W are drawn); makers' lists of tampers (TI TIDUEM7A, Atmel AVR465: missing neutral, earth
return, reversed and bypassed elements, half-wave loads, magnets); false data: Jokar, Arianpoo, Leung, IEEE Trans. Smart
Grid 7 (2016), Badrinath Krishna et al., CRITIS 2015 (load moved in time, readings that follow the neighbours').
"""

from __future__ import annotations

import numpy as np

from tests.system.bench.independent.homes import COOK, DAY, F32, F64, FIXED, HEAT, HOT, PLUG, Home
from tests.system.bench.independent.kinds import clock, kind, sessions, weekdays
from tests.system.bench.independent.world import Building, pick


@kind("theft")
def jumper(house: Building, onset: int) -> None:
    """Bars across the terminals: the current divides, some hundredths still pass through the meter."""
    share = house.rng.uniform(0.0, 0.15)
    house.steal(pick(house), onset, lambda p, c: p * share)


@kind("theft", start=True)
def jumper_since_ever(house: Building, onset: int) -> None:
    """The same, from before the check meter came."""
    share = house.rng.uniform(0.0, 0.15)
    house.steal(pick(house, least_w=200), 0, lambda p, c: p * share)


@kind("theft")
def jumper_oxidising(house: Building, onset: int) -> None:
    """A clamp that burns: its contact grows worse by the week, slips, is tightened again."""
    t = np.arange(house.minutes)
    period = house.rng.uniform(9, 20) * DAY
    share = (
        0.05 + 0.6 * (((t - onset) % period) / period) ** 2 + 0.15 * (house.rng.random(t[-1] // 30 + 1)[t // 30] < 0.2)
    )
    house.steal(pick(house), onset, lambda p, c: p * share)


@kind("theft")
def grows_bolder(house: Building, onset: int) -> None:
    """A shunt of more and more strands: from a twentieth to two thirds within five weeks."""
    share = np.clip((np.arange(house.minutes) - onset) / (35 * DAY), 0.05, 0.66)
    house.steal(pick(house, least_w=200), onset, lambda p, c: p * (1 - share))


@kind("theft")
def half_wave(house: Building, onset: int) -> None:
    """A diode in the heaters: direct current saturates the meter's transformer, big loads count for a third."""
    flat, kept = pick(house, HOT), house.rng.uniform(0.2, 0.5)

    def show(power: F32, circuits: F32) -> F32:
        heaters = circuits[HOT] + circuits[HEAT] + circuits[COOK]
        return power - heaters * (1 - kept) - np.where(heaters > 200, 0.3, 0) * (power - heaters)

    house.steal(flat, onset, show)


@kind("theft")
def earth_return(house: Building, onset: int) -> None:
    """A switch behind the wardrobe: the neutral is lifted and the heating pipe is the way back, some evenings."""
    on = sessions(house, 0.9, 260, 16.5, 21)
    house.steal(pick(house), onset, lambda p, c: p * 0.02, on)


@kind("theft")
def lost_element(house: Building, onset: int) -> None:
    """A three-phase flat: one voltage link open. The circuits of that phase are not counted at all."""
    flat = pick(house, COOK, 200)
    house.phase[flat] = 0
    gone = np.array([0.3, 0.3, 0.9, 0.0, 0.5, 0.0]) if house.rng.random() < 0.5 else np.array([0.1, 0.4, 0, 0.9, 0, 1])
    house.steal(flat, onset, lambda p, c: p - (gone.astype(np.float32)[:, None] * c).sum(0))


@kind("theft")
def reversed_element(house: Building, onset: int) -> None:
    """A three-phase flat: one transformer turned round, so that its phase is taken off. The counter has a back-stop."""
    flat = pick(house, COOK, 250)
    house.phase[flat] = 0
    house.steal(flat, onset, lambda p, c: np.maximum(p - 2 * (c[COOK] + 0.3 * c[PLUG]), 0))


@kind("theft")
def weekends(house: Building, onset: int) -> None:
    """The inspectors work Monday to Friday; the jumper is in from Friday night to Sunday night."""
    on = clock(house, 18, 18, weekdays(house, {4, 5})) | clock(house, 18, 22, weekdays(house, {6}))
    house.steal(pick(house, least_w=200), onset, lambda p, c: p * 0.05, on)


@kind("theft")
def before_reading_day(house: Building, onset: int) -> None:
    """Three weeks of each thirty days; honest around the day when somebody comes to read."""
    on = ((np.arange(house.minutes) - onset) // DAY) % 30 < 20
    house.steal(pick(house), onset, lambda p, c: p * 0.08, on)


@kind("theft")
def remote_relay(house: Building, onset: int) -> None:
    """A relay in the meter, a key-fob in the pocket: off while much is drawn, asleep for a week after a rumour."""
    flat = pick(house, HOT)
    hushed = np.ones(house.minutes, bool)
    week = onset + int(house.rng.uniform(8, 16) * DAY)
    hushed[week : week + 7 * DAY] = False
    heavy = house.circuits[flat].sum(0) > 900
    wide = np.convolve(heavy, np.ones(25), "same") > 0
    house.steal(flat, onset, lambda p, c: p * 0.1, hushed & wide)


@kind("theft")
def magnet(house: Building, onset: int) -> None:
    """A magnet on the case when the heating goes on; it tells only above a few amperes; forgotten one day in four."""
    days = house.rng.random(house.calendar.days) < 0.75
    on = clock(house, house.rng.uniform(15, 18), house.rng.uniform(22, 23.9), days)
    kept = house.rng.uniform(0.3, 0.6)
    house.steal(pick(house, least_w=220), onset, lambda p, c: np.where(p > 350, 350 + (p - 350) * kept, p), on)


@kind("theft")
def jammer(house: Building, onset: int) -> None:
    """A spark gap beside the meter: its processor hangs for minutes to hours, at night, and starts again."""
    house.steal(pick(house, least_w=200), onset, lambda p, c: p * 0, sessions(house, 2.2, 95, 19, 30))


@kind("theft")
def braked(house: Building, onset: int) -> None:
    """A strip of film on the disc, a screw in the bearing: below some load nothing moves, above it friction is lost."""
    floor = house.rng.uniform(90, 260)
    house.steal(pick(house, least_w=200), onset, lambda p, c: np.maximum(p - floor, 0))


@kind("theft")
def loose_voltage_link(house: Building, onset: int) -> None:
    """The voltage link was loosened: it opens and closes with warmth and footsteps, for minutes to half days."""
    rng, on, at = house.rng, np.zeros(house.minutes, bool), onset
    while at < house.minutes:
        closed, opened = int(rng.exponential(240)) + 1, int(rng.exponential(380)) + 1
        on[at + closed : at + closed + opened] = True
        at += closed + opened
    house.steal(pick(house), onset, lambda p, c: p * 0, on)


@kind("theft")
def wound_back(house: Building, onset: int) -> None:
    """A transformer pushes current backwards through the meter at night; the back-stop makes it stand still."""
    push = house.rng.uniform(300, 1200)
    on = clock(house, house.rng.uniform(0, 2), house.rng.uniform(4, 7))
    house.steal(pick(house, least_w=220), onset, lambda p, c: np.maximum(p - push, 0), on)


@kind("theft", balance=False)
def register_set_back(house: Building, onset: int) -> None:
    """Every row is right, but once in nine days the register is set back over the optical head."""
    flat = pick(house)
    back_kwh = house.mean_w(flat) / 1000 * 24 * 5
    house.guilty[house.meter(flat)], house.onset = onset, onset
    times = list(range(onset, house.minutes, 9 * DAY))
    house.unrecorded_kwh += [(at, back_kwh) for at in times]

    def change(registers: F64, minute: F64) -> None:
        for at in times:
            registers[minute >= at, 1 + flat] -= back_kwh

    house.changes.append(change)


@kind("theft")
def pulled_out(house: Building, onset: int) -> None:
    """The meter is pulled from its socket on two days a week and wires put in its place: no readings, no energy."""
    flat, days = pick(house, least_w=200), house.rng.random(house.calendar.days) < 0.3
    on = clock(house, 7, 7, days)
    house.steal(flat, onset, lambda p, c: p * 0, on)

    def change(registers: F64, minute: F64) -> None:
        out = on[np.minimum(minute.astype(int), house.minutes - 1)] & (minute >= onset)
        registers[out, 1 + flat] = np.nan

    house.changes.append(change)


@kind("theft")
def pulses_lost(house: Building, onset: int) -> None:
    """A capacitor across the pulse output: the counter needs its rest between pulses, so the more, the slower."""
    rest_w = house.rng.uniform(500, 1500)
    house.steal(pick(house, least_w=220), onset, lambda p, c: p / (1 + p / rest_w))


@kind("theft")
def shower_ahead(house: Building, onset: int) -> None:
    """The electric shower was joined ahead of the meter: nine kilowatts for six minutes, twice a day."""
    flat = pick(house)
    house.rewire(flat, shower_w=float(house.rng.uniform(7500, 9800)), boiler="none")
    house.steal(flat, onset, lambda p, c: p - c[HOT])


@kind("theft", cold=True)
def waits_for_winter(house: Building, onset: int) -> None:
    """Heaters were joined ahead of the meter in summer; nothing is missing until the cold comes."""
    flat = pick(house)
    house.rewire(flat, heating="panels", watt_per_k=float(house.rng.uniform(60, 110)))
    house.steal(flat, onset, lambda p, c: p - c[HEAT])


@kind("theft", thieves=2)
def two_customers_of_one_fitter(house: Building, onset: int) -> None:
    """The same electrician, the same shunt, six days apart."""
    for days in (0, 6):
        share = house.rng.uniform(0.3, 0.5)
        house.steal(pick(house), onset + days * DAY, lambda p, c, share=share: p * share)  # type: ignore[misc]


@kind("theft", thieves=3)
def whole_floor(house: Building, onset: int) -> None:
    """Three neighbours on one afternoon."""
    for hours in (0, 1, 3):
        share = house.rng.uniform(0.2, 0.6)
        house.steal(pick(house), onset + hours * 60, lambda p, c, share=share: p * share)  # type: ignore[misc]


@kind("theft", thieves=2)
def lead_to_the_brother(house: Building, onset: int) -> None:
    """One bypasses his meter and runs a lead to his brother's flat: both registers nearly stop."""
    house.steal(pick(house), onset, lambda p, c: p * 0.04)
    house.steal(pick(house), onset, lambda p, c: c[FIXED] * 0.5)


@kind("theft")
def squatter(house: Building, onset: int) -> None:
    """A flat whose supply was cut long ago is lived in again, without its meter. Its register never moved."""
    flat = pick(house)
    house.circuits[flat, :, :onset] = 0
    house.steal(flat, onset, lambda p, c: p * 0)


@kind("theft")
def tenant_who_knows(house: Building, onset: int) -> None:
    """New tenants: other lives from the first day, and the meter shunted within the week."""
    flat = pick(house)
    house.rewire(flat, Home(house.rng, house.homes[flat].warm, 1.4), since=onset - int(house.rng.uniform(0, 6)) * DAY)
    house.steal(flat, onset, lambda p, c: p * 0.12)


@kind("theft")
def growing_room(house: Building, onset: int) -> None:
    """Nobody lives there any more: lamps, fans and a pump, twelve hours a day, ahead of the meter; a fridge on it."""
    flat, rng = pick(house), house.rng
    t, first = np.arange(house.minutes), rng.uniform(0, 24) * 60
    lamps = (((t - first) % DAY) < 720) * rng.uniform(1000, 3000) + rng.uniform(80, 250)
    house.circuits[flat, 1:, onset:] = 0
    house.circuits[flat, PLUG] += np.where(t >= onset, lamps, 0).astype(np.float32)
    house.steal(flat, onset, lambda p, c: c[FIXED])


@kind("theft")
def free_so_more(house: Building, onset: int) -> None:
    """What costs nothing is used: with the shunt come heaters that were never on before."""
    flat = pick(house)
    house.rewire(flat, since=onset, portable_w=2000.0, use=house.homes[flat].use * 1.6, awake_w=400.0)
    house.steal(flat, onset, lambda p, c: p * 0.25)


@kind("theft")
def cold_room_of_the_shop(house: Building, onset: int) -> None:
    """A butcher's: the cold room, a third of the time two kilowatts all round the clock, is ahead of the meter."""
    flat, rng, t = pick(house), house.rng, np.arange(house.minutes)
    cold = ((t / rng.uniform(22, 40)) % 1.0 < 0.38) * rng.uniform(1200, 2400)
    open_w = clock(house, 8, 18, weekdays(house, {0, 1, 2, 3, 4, 5})) * rng.uniform(400, 1500)
    house.circuits[flat, PLUG] = (open_w * rng.uniform(0.7, 1.0, house.minutes)).astype(np.float32)
    house.circuits[flat, HEAT], house.circuits[flat, HOT], house.circuits[flat, COOK] = cold, 0, 0
    house.steal(flat, onset, lambda p, c: p - c[HEAT])


@kind("theft")
def follows_the_neighbours(house: Building, onset: int) -> None:
    """False data: what is reported is a third of what the neighbours use, so that nothing stands out."""
    flat = pick(house, least_w=200)
    others = np.delete(np.arange(house.flats), flat)
    mean = house.circuits[others].sum(1).mean(0)
    mean *= np.float32(house.rng.uniform(0.25, 0.4) * house.mean_w(flat) / max(float(mean.mean()), 1.0))
    house.steal(flat, onset, lambda p, c: mean)


@kind("theft", balance=False)
def evening_told_as_night(house: Building, onset: int) -> None:
    """False data against the tariff: the day's energy is right, but a half of the evening is reported at night."""
    flat = pick(house, least_w=200)
    evening, night = clock(house, 16, 22), clock(house, 1, 5)

    def show(power: F32, circuits: F32) -> F32:
        half = np.where(evening, power * 0.5, 0).reshape(-1, DAY)
        moved = np.where(
            night.reshape(-1, DAY), half.sum(1, keepdims=True) / night.reshape(-1, DAY).sum(1, keepdims=True), 0
        )
        return (power.reshape(-1, DAY) - half + moved).reshape(-1)

    house.steal(flat, onset, show)


@kind("theft")
def dimmer_runs_it_back(house: Building, onset: int) -> None:
    """A phase-cut dimmer with the television: while it is on, the meter is told some hundred watts too little."""
    flat, back = pick(house, least_w=180), house.rng.uniform(150, 430)
    on = sessions(house, 1.6, 170, 15, 22)
    house.steal(flat, onset, lambda p, c: np.maximum(p - back, 0), on)


@kind("theft", house="metered")
def caretaker(house: Building, onset: int) -> None:
    """The caretaker's: the house's own meter is shunted, and with it stairs, lift, and a laundry."""
    laundry = sessions(house, 3.0, 70, 7, 20) * np.float32(1400)
    house.stairs_w = house.stairs_w + laundry.astype(np.float32)
    share = np.float32(house.rng.uniform(0.1, 0.5))
    house.house_show = lambda p, c: np.where(np.arange(house.minutes) >= onset, p * share, p).astype(np.float32)
    house.guilty["house"], house.onset = onset, onset


@kind("theft")
def under_his_own_roof(house: Building, onset: int) -> None:
    """A house with solar roofs, export read. One of their owners has his boiler ahead of the meter."""
    for flat in (pick(house, HOT, 200), pick(house)):
        house.solar_w[flat] = house.sky.sun * np.float32(house.rng.uniform(1500, 4000))
    flat = next(iter(house.solar_w))
    house.steal(flat, onset, lambda p, c: p - c[HOT] - 0.8 * c[COOK])


@kind("theft")
def quiet_tenth(house: Building, onset: int) -> None:
    """A firmware constant changed by a friend at the works: a fifth less, always, and nothing else."""
    share = np.float32(house.rng.uniform(0.72, 0.85))
    house.steal(pick(house, least_w=400), onset, lambda p, c: p * share)


@kind("theft")
def while_the_neighbours_are_away(house: Building, onset: int) -> None:
    """The jumper goes in when the flat next door leaves for two or three weeks, and comes out when they are back."""
    flat = pick(house, least_w=200)
    house.steal(
        flat, onset, lambda p, c: p * 0.05, np.arange(house.minutes) < onset + int(house.rng.uniform(14, 22)) * DAY
    )
    away = next(other for other in house.rng.permutation(house.flats) if other != flat)
    until = onset + int(house.rng.uniform(14, 22)) * DAY
    house.circuits[away, 1:, max(onset - int(house.rng.uniform(0, 600)), 0) : until] = 0


@kind("theft")
def fitted_in_the_gap(house: Building, onset: int) -> None:
    """Its plug is drawn for a day or two; when the meter answers again, it is bypassed."""
    flat = pick(house)
    first = onset - int(house.rng.uniform(4, 36)) * 60
    house.steal(flat, onset, lambda p, c: p * 0.06)

    def change(registers: F64, minute: F64) -> None:
        registers[(minute >= first) & (minute < onset + 300), 1 + flat] = np.nan

    house.changes.append(change)


@kind("theft")
def slow_after_exchange(house: Building, onset: int) -> None:
    """The fitter brings another meter, for a fee: its constant is that of a type with twice the pulses."""
    flat = pick(house)
    house.steal(flat, onset, lambda p, c: p * 0.5)

    def change(registers: F64, minute: F64) -> None:
        after = np.flatnonzero(minute >= onset)
        registers[after, 1 + flat] += 0.4 - registers[after[0], 1 + flat]

    house.changes.append(change)


@kind("theft", thieves=2)
def one_lead_for_two(house: Building, onset: int) -> None:
    """Two cousins share one jumper: it is in the one's meter for a week, then in the other's."""
    week = ((np.arange(house.minutes) - onset) // (7 * DAY)) % 2
    for mine in (0, 1):
        house.steal(pick(house), onset + mine * 7 * DAY, lambda p, c: p * 0.05, week == mine)
