"""Commissioning a building: its meters' energies gathered, judged by `core.commissioning`, and put into words.

It owns where the energies come from (the meters' own load profiles, or what the service has stored) and what is said
to the technician. It judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.charts.svg import Line, chart
from agent.polling.buses import open_buses
from agent.site.edit import Change
from agent.site.tables import Config, Zone
from agent.store.history import open_archive, read_history
from agent.wire.values import utc
from core.commissioning import MAIN, Finding, Mistake, Verdict, examine
from firmware_io.clock import Clock
from firmware_io.driver import HasProof, MeterDriver
from firmware_io.driver import Line as MeterLine
from firmware_io.errors import MeterError, ResponseTimeout
from firmware_io.obis import ENERGY_IMPORT
from firmware_io.reading import Unit

Floats = NDArray[np.float64]
DAY_S = 86_400.0
CLOCK_LIMIT_S = 60.0  # apart by more, and a load profile's rows no longer cover the same time


@dataclass(slots=True)
class Registers:
    """Registers of meters at common times: wh [T, M] in the order of `meters`, NaN where not known."""

    meters: list[str]
    times_s: Floats
    wh: Floats
    clock_offset_s: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    proofs: list[str] = field(default_factory=list)  # what is known of each meter's device profile


def from_meters(config: Config, clock: Clock, days: float, progress: Callable[[str], None]) -> Registers:
    """Read every meter's stored load profile of the last `days`; what cannot be read is a problem, not an error."""
    ratio = {meter.id: meter.ct_ratio for meter in config.meter}
    stored: dict[str, dict[float, float]] = {}
    offsets: dict[str, float] = {}
    problems: list[str] = []
    proofs: list[str] = []
    buses = open_buses(config, clock)
    silent: set[str] = set()
    try:
        # Who did not answer in time is asked once more at the end: a line has its moments.
        for meter in chain(config.meter, (m for m in config.meter if m.id in silent)):
            progress(meter.id)
            if meter.bus is None:
                problems.append(f"{meter.id}: it has no bus in the site file")
                continue
            bus = buses[meter.bus]
            try:
                identity = bus.identify(meter.id)
                now_s = clock.now()
                proofs += [f"{meter.id}: {text}" for text in bus.use(meter.id, _proof)]
                rows = bus.read_profile(meter.id, now_s - days * DAY_S, now_s)
            except MeterError as error:
                if isinstance(error, ResponseTimeout) and meter.id not in silent:
                    silent.add(meter.id)
                else:
                    problems.append(str(error))
                continue
            if identity.clock_offset_s is not None:
                offsets[meter.id] = identity.clock_offset_s
            if meter.serial is not None and identity.serial is not None and identity.serial != meter.serial:
                problems.append(f"{meter.id}: serial number {identity.serial}, the site file expects {meter.serial}")
            stored[meter.id] = {
                r.sampled_s: r.value * ratio[meter.id]
                for r in rows
                if r.obis == ENERGY_IMPORT and r.unit is Unit.WATT_HOUR
            }
            if not stored[meter.id] and meter.medium == "electricity":
                hint = "it stores no load profile with energies; let the service run, then --from-store"
                problems.append(f"{meter.id}: {hint}")
    finally:
        for bus in buses.values():
            bus.close()
    times_s = np.array(sorted({t for rows in stored.values() for t in rows}), dtype=np.float64)
    meters = [meter.id for meter in config.meter]
    wh = np.array([[stored.get(m, {}).get(t, np.nan) for m in meters] for t in times_s.tolist()])
    return Registers(
        meters, times_s, wh.reshape(len(times_s), len(meters)), offsets, problems, list(dict.fromkeys(proofs))
    )


def _proof(driver: MeterDriver, line: MeterLine) -> list[str]:
    """What the meter's own figures say of its device profile, where it has one."""
    if not isinstance(driver, HasProof):
        return []
    driver.poll(line)
    return [driver.proof]


def from_store(config: Config, days: float, now_s: float) -> Registers:
    """What the running service has stored of the last `days`.

    Raises:
        ArchiveError: there is no store, or it cannot be read.
    """
    meters = [meter.id for meter in config.meter]
    with open_archive(config.store.path) as db:
        rows = read_history(db, now_s - days * DAY_S, now_s, meters)
    return Registers(meters, rows.times_s, rows.wh)


@dataclass(frozen=True, slots=True)
class ZoneReport:
    """One zone's verdict and what to say of it; `verdict` is None where too little was read, `why` says so."""

    zone: str
    main: str
    subs: tuple[str, ...]
    times_s: Floats
    verdict: Verdict | None
    why: str = ""


def judge(config: Config, zone: Zone, registers: Registers) -> ZoneReport:
    """Judge one zone on the rows in which all its meters are known."""
    interval_s = _interval(registers.times_s, config.detection.interval_s)
    columns = [registers.meters.index(name) for name in (zone.main, *zone.subs)]
    kwh = np.diff(registers.wh[:, columns], axis=0) / 1000
    even = np.abs(np.diff(registers.times_s) - interval_s) < 0.01 * interval_s
    kwh[~even] = np.nan
    signs = np.array([-1.0 if name in zone.minus else 1.0 for name in zone.subs])
    subs = kwh[:, 1:] * signs
    silent = [name for name, column in zip(zone.subs, subs.T, strict=True) if np.isnan(column).all()]
    if silent:
        why = f"nothing is known of {', '.join(silent)}: without them the zone cannot add up"
        return ZoneReport(zone.id, zone.main, tuple(zone.subs), registers.times_s, None, why)
    try:
        verdict = examine(kwh[:, 0], subs, interval_s)
    except ValueError as error:
        return ZoneReport(zone.id, zone.main, tuple(zone.subs), registers.times_s, None, f"{error}; wait a day")
    return ZoneReport(zone.id, zone.main, tuple(zone.subs), registers.times_s[:-1], verdict)


def clocks_apart(registers: Registers) -> list[str]:
    """A line for each meter whose clock is off by more than CLOCK_LIMIT_S."""
    return [
        f"{meter}: its clock is {abs(offset):.0f} s {'fast' if offset > 0 else 'slow'}; "
        f"set it with `checkmeter clock SITE.toml {meter} --set`"
        for meter, offset in sorted(registers.clock_offset_s.items())
        if abs(offset) > CLOCK_LIMIT_S
    ]


def words(report: ZoneReport) -> list[str]:
    """What to tell the technician, line by line."""
    v = report.verdict
    if v is None:
        return [f"zone {report.zone}: no verdict. {report.why}"]
    share = v.mean_w / v.load_w if v.load_w > 0 else float("nan")
    head = (
        f"zone {report.zone}: {'adds up' if v.adds_up else 'does not add up'}. Main meter {v.load_w:,.0f} W, "
        f"main minus sub-meters {v.mean_w:+,.0f} W ({share:+.1%})"
    )
    lines = [head, *(f"  {k}. {_explain(report, f)}" for k, f in enumerate(v.findings, start=1))]
    if v.findings:
        lines.append(f"  With that mended, what is left scatters by {v.remainder_w:,.0f} W an interval.")
    elif v.adds_up:
        lines.append(
            f"  Technical loss: {v.constant_w:,.0f} W constant, {v.copper:.1%} of the load in copper; "
            f"scatter {v.remainder_w:,.0f} W an interval."
        )
    else:
        lines.append("  The sub-meters show more than the main meter, and no single mistake explains it.")
    return lines


def mending(config: Config, reports: Sequence[ZoneReport]) -> list[Change]:
    """The findings as changes of the site file, as far as they follow: what must be moved by hand does not."""
    ratios = {meter.id: meter.ct_ratio for meter in config.meter}
    minus = {zone.id: zone.minus for zone in config.zone}
    changes: list[Change] = []
    for report in reports:
        for f in report.verdict.findings if report.verdict is not None else ():
            if f.column is None:
                continue
            name = report.main if f.column == MAIN else report.subs[f.column]
            if f.mistake in (Mistake.CT_RATIO, Mistake.UNIT):
                ratios[name] = round(ratios[name] * f.amount, 9)
                changes.append(Change("meter", name, "ct_ratio", ratios[name]))
            elif f.mistake is Mistake.WRONG_SIGN and f.column != MAIN:
                how: Literal["add", "remove"] = "remove" if name in minus[report.zone] else "add"
                changes.append(Change("zone", report.zone, "minus", name, how))
            elif f.mistake is Mistake.NOT_IN_ZONE:
                lists = ("subs", "export", "minus")
                changes += [Change("zone", report.zone, key, name, "remove") for key in lists]
    return changes


def plot(report: ZoneReport) -> str:
    """The remainder before and after mending, as SVG."""
    v = report.verdict
    assert v is not None
    to_w = 1000 * 3600 / float(np.median(np.diff(report.times_s)))
    lines = [Line("main - sub-meters, as read", v.residual_kwh * to_w, "#b03a2e")]
    if len(v.mended_kwh) == len(v.residual_kwh):
        lines.append(Line("with the findings mended", v.mended_kwh * to_w, "#2f5d8a", "5 3"))
    return chart(f"Zone {report.zone}", report.times_s, lines, y_label="W")


def _interval(times_s: Floats, usual_s: float) -> float:
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else usual_s


def _explain(report: ZoneReport, f: Finding) -> str:
    name = "" if f.column is None else report.main if f.column == MAIN else report.subs[f.column]
    explained = f" (explains {f.gain:.0%} of the scatter)" if f.gain else ""
    match f.mistake:
        case Mistake.NOT_IN_ZONE:
            text = f"{name} is counted here, but what it shows does not flow through {report.main}: wrong zone?"
        case Mistake.DOUBLED:
            text = (
                f"{name} shows what {report.subs[int(f.amount)]} shows: one meter under two names; check the addresses"
            )
        case Mistake.WRONG_SIGN:
            text = f"{name} counts with the wrong sign: swapped terminals, or export taken for import"
        case Mistake.UNIT:
            text = f"{name} is off by a factor of 1000: Wh taken for kWh; multiply by {f.amount:g}"
        case Mistake.CT_RATIO:
            times = f"{f.amount:g} times what it does" if f.amount > 1 else f"1/{1 / f.amount:g} of what it does"
            text = f"{name} should count {times}: check ct_ratio against the transformer"
        case Mistake.CLOCK:
            text = f"the clock of {name} is {abs(f.amount) / 60:.0f} min {'fast' if f.amount < 0 else 'slow'}"
        case Mistake.COMMON_LOAD:
            text = f"about {f.amount:,.0f} W flow steadily without a meter: stair lighting, lift, pumps, a router?"
        case Mistake.UNREAD_METER:
            text = f"about {f.amount:,.0f} W come and go without a meter: a flat that is not read, or a tap"
    return text + explained


def stamp(seconds: float) -> str:
    """A time for people, UTC."""
    return utc(seconds).strftime("%Y-%m-%d %H:%M")
