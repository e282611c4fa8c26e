"""Whether a line can keep the cycle that a site file asks of it, and whether registers can tell intervals so short.

It owns the arithmetic and its words, for `checkmeter check`; what is really kept, `status` and `health` tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from agent.site.tables import Bus, Config
from firmware_io.bus import MAIN_EVERY
from firmware_io.poll_cost import poll_cost

TYPICAL_W = 450.0  # of a flat, in the mean over a day
STEP_SHARE = 0.2  # of an interval's energy: what the registers' steps may make doubtful, one standard deviation
LENGTHS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400)


def rate_doubts(config: Config) -> list[str]:
    """What the site file asks for and will not get; empty where all can be kept."""
    return [*_cycles(config), *_intervals(config)]


def least_cycle_s(config: Config, bus: Bus) -> float:
    """The shortest cycle over a bus's meters, seconds: main meters come again so that they bracket the others."""
    mains = {zone.main for zone in config.zone}
    meters = [meter for meter in config.meter if meter.bus == bus.id]
    subs = sum(meter.id not in mains for meter in meters)
    turns = 1 + math.ceil(subs / MAIN_EVERY) if subs else 1
    tcp = bus.port.startswith("tcp://")
    total_s = 0.0
    for meter in meters:
        cost = poll_cost(meter.protocol or bus.protocol, live=meter.live, with_list=meter.with_list)
        took_s = cost.least_s(bus.baud, bus.parity, tcp=tcp) + meter.min_gap_s
        total_s += took_s * (turns if meter.id in mains else 1)
    return total_s


def _cycles(config: Config) -> Iterator[str]:
    shortest_s = min(config.detection.interval_s, config.detection.row_s)
    for bus in config.bus:
        least_s = least_cycle_s(config, bus)
        count = sum(meter.bus == bus.id for meter in config.meter)
        line = "over TCP" if bus.port.startswith("tcp://") else f"at {bus.baud} Bd"
        if least_s > bus.poll_s:
            yield (
                f"bus {bus.id}: poll_s = {bus.poll_s:g} cannot be kept: {count} meters {line} take {least_s:.1f} s at "
                f"least; set poll_s = {_up(least_s):g}, raise the baud rate, set live = false, or share the meters out "
                "over more buses"
            )
        if max(bus.poll_s, least_s) > shortest_s:
            yield (
                f"bus {bus.id}: its meters are read every {max(bus.poll_s, least_s):.0f} s, less often than "
                f"interval_s = {shortest_s:g}: most intervals would have no reading; set interval_s = "
                f"{_up(max(bus.poll_s, least_s)):g} or more"
            )


def _intervals(config: Config) -> Iterator[str]:
    interval_s = config.detection.interval_s
    known = {meter.id: meter for meter in config.meter}
    for zone in config.zone:
        meters = [known[name] for name in (zone.main, *zone.subs) if name in known]
        steps_wh = math.sqrt(sum((meter.resolution_wh * meter.ct_ratio) ** 2 for meter in meters) / 12)
        load_w = TYPICAL_W * max(1, len(zone.subs))
        useful_s = 3600 * math.sqrt(2) * steps_wh / (STEP_SHARE * load_w)
        if useful_s > interval_s:
            share = 100 * STEP_SHARE * useful_s / interval_s
            yield (
                f"zone {zone.id}: interval_s = {interval_s:g} is too short for its registers: steps of "
                f"{max(m.resolution_wh * m.ct_ratio for m in meters):g} Wh are {share:.0f} % of what "
                f"{len(zone.subs)} flats draw in it; the shortest useful one is {_up(useful_s):g}; or set "
                "resolution_wh, where the registers are finer than the file says"
            )


def _up(seconds: float) -> float:
    """The next round length that divides a day; a day at most, as a site file has nothing longer."""
    return float(next((length for length in LENGTHS_S if length >= seconds), LENGTHS_S[-1]))
