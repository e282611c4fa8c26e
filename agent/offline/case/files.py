"""A case as files, and back: all that the evidence page shows follows from them and from nothing else.

    readings.csv  `time,<main>,<sub>,...`: start of each interval in UTC, kWh in it, empty where a meter was not read
    alert.json    every revision of the alert, one a line, as it went over the wire
    info.json     what the gateway says of itself and of its meters
    tamper.json   what meters logged about tampering, one a line
    page.json     which page this is: renderer, language, time zone, when it was made, the least loss that is found
    result.json   the arithmetic's results, unrounded, for whoever does it again

It knows nothing of hashes and of signatures (agent.offline.case.seal), nor of how a page looks.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from agent.offline.case.analysis import Analysis
from agent.offline.case.case import MAX_ROWS, Case, CaseError, Energies, check_complete
from agent.site.tables import NAME_PATTERN
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.state import Info
from agent.wire.values import utc

FIRST_YEAR, LAST_YEAR = 2000, 2100
LARGEST_KWH = 1e9  # of one interval; more is no building
DIGITS = 6  # of a kWh: a milliwatt-hour, finer than any register


class PageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a page besides the case. `renderer` grows with every change of what a page looks like."""

    renderer: int
    made: datetime
    timezone: str
    language: str = "en"
    detectable_w: float | None = None  # of the case's zone, see `Case`

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that times are shown in."""
        return ZoneInfo(self.timezone)


def write(case: Case, facts: PageFacts) -> dict[str, bytes]:
    """The files of a case, without its results. Energies are rounded to `DIGITS`: what is written is what is shown."""
    files = {
        "readings.csv": _readings(case.energies),
        "alert.json": b"".join(msgspec.json.encode(r) + b"\n" for r in case.revisions),
        "page.json": msgspec.json.encode(msgspec.structs.replace(facts, detectable_w=case.detectable_w)) + b"\n",
    }
    if case.info is not None:
        files["info.json"] = msgspec.json.encode(case.info) + b"\n"
    if case.tampers:
        files["tamper.json"] = b"".join(msgspec.json.encode(t) + b"\n" for t in case.tampers)
    return files


def read(files: dict[str, bytes]) -> tuple[Case, PageFacts]:
    """The case and the page's facts out of its files.

    Raises:
        CaseError: a file is missing, or is not what `write` makes.
    """
    try:
        revisions = tuple(msgspec.json.decode(line, type=AlertEvent) for line in files["alert.json"].splitlines())
        facts = msgspec.json.decode(files["page.json"], type=PageFacts)
        info = msgspec.json.decode(files["info.json"], type=Info) if "info.json" in files else None
        tampers = tuple(
            msgspec.json.decode(line, type=TamperEvent) for line in files.get("tamper.json", b"").splitlines()
        )
        energies = _energies(files["readings.csv"])
        _ = facts.zone
    except KeyError as error:
        raise CaseError(f"the page holds no {error.args[0]}, or names a time zone that is not known here") from None
    except (ValueError, OverflowError, OSError, csv.Error, msgspec.MsgspecError) as error:
        raise CaseError(f"a file inside the page cannot be read: {error}") from None
    if not revisions:
        raise CaseError("alert.json holds no revision")
    data = revisions[-1].data
    moments = [facts.made, *(t.time for t in tampers)]
    moments += [m for r in revisions for m in (r.time, r.data.onset, *(r.data.onset_window or ()))]
    if not all(FIRST_YEAR <= moment.year <= LAST_YEAR for moment in moments):
        raise CaseError(f"a file inside the page has a time before {FIRST_YEAR} or after {LAST_YEAR}")
    check_complete(energies, info, data.zone)
    meters = tuple(info.meters) if info is not None else ()
    return Case(revisions, energies, meters, info, tampers, facts.detectable_w), facts


def result(case: Case, a: Analysis) -> bytes:
    """The arithmetic's results, unrounded; docs/recompute.py reproduces each from readings.csv and alert.json."""
    fall_w = a.suspect_before_w - a.suspect_after_w
    data = case.alert.data
    suspects = {s.meter: s.probability for s in data.suspects or []}
    content: dict[str, Any] = {
        "technical_loss": {"fitted": a.fitted, "offset_kwh": a.offset_kwh, "copper_per_kwh": a.copper_per_kwh},
        "before": None if a.before is None else asdict(a.before),
        "after": asdict(a.after),
        "missing_w": a.missing_w,
        "missing_interval_w": [a.missing_w - 2 * a.missing_sd_w, a.missing_w + 2 * a.missing_sd_w],
        "missing_kwh": a.missing_kwh,
        "remainder_by_day_kwh": a.residual_day_kwh.tolist(),
        "sums_kwh": {
            name: math.fsum(column[np.isfinite(column)].tolist())
            for name, column in zip(
                (case.energies.main, *case.energies.subs),
                (case.energies.main_kwh, *case.energies.subs_kwh.T),
                strict=True,
            )
        },
        "suspect": None
        if a.suspect is None
        else {
            "meter": a.suspect,
            "before_w": a.suspect_before_w,
            "after_w": a.suspect_after_w,
            "share_of_fall": a.missing_w / fall_w if math.isfinite(fall_w) and fall_w > 1 else None,
            "by_day_kwh": None if a.suspect_day_kwh is None else a.suspect_day_kwh.tolist(),
        },
        "probability_sum": math.fsum([*suspects.values(), data.upstream_probability or 0.0]),
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _readings(e: Energies) -> bytes:
    lines = [",".join(["time", *_columns((e.main, *e.subs))])]
    for time_s, main, row in zip(e.times_s.tolist(), e.main_kwh.tolist(), e.subs_kwh.tolist(), strict=True):
        stamp = utc(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(",".join([stamp, *("" if math.isnan(v) else repr(round(v, DIGITS)) for v in (main, *row))]))
    return ("\n".join(lines) + "\n").encode()


def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """The meters' ids as a header: none that a spreadsheet would take for a formula, or that ends a cell."""
    for name in names:
        if re.match(NAME_PATTERN, name) is None:
            raise CaseError(f"{name!r} is no id of a meter: expected letters, digits, dots, hyphens and underscores")
    return names


def _energies(octets: bytes) -> Energies:
    rows = list(csv.reader(octets.decode("utf-8").splitlines()))
    header, body = rows[0] if rows else [], rows[1:]
    if len(header) < 2 or not 1 < len(body) <= MAX_ROWS or any(len(row) != len(header) for row in body):
        raise ValueError("readings.csv: expected a header and rows of as many columns")
    _columns(tuple(header[1:]))
    times_s = [datetime.fromisoformat(row[0]).timestamp() for row in body]
    table = np.array([[float(v) if v else math.nan for v in row[1:]] for row in body], dtype=np.float64)
    if not (np.isnan(table) | (np.abs(table) < LARGEST_KWH)).all():
        raise ValueError(f"readings.csv: an energy of {LARGEST_KWH:g} kWh or more in one interval")
    interval_s = times_s[1] - times_s[0]
    if interval_s <= 0 or any(abs(b - a - interval_s) > 1e-3 for a, b in pairwise(times_s)):
        raise ValueError("readings.csv: its intervals are not of one length")
    return Energies(times_s[0], interval_s, header[1], tuple(header[2:]), table[:, 0].copy(), table[:, 1:].copy())
