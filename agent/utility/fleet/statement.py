"""A zone's month: main, sum, technical loss, the unexplained remainder, and each household's fair share of the loss.

Households' energies come from the utility's own billing (a CSV file): gateways do not send them, because a household's
load curve is nobody's business outside the building. What is unexplained is shared out to no one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from agent.utility.sql.schema import DAY_S, JOULES_PER_KWH
from agent.utility.sql.store import Store

ZoneName = tuple[str, str, str, str]  # tenant, site, gateway, zone
By = Literal["energy", "square"]
_SUMS = "SUM(main_j), SUM(sum_j), SUM(technical_j), SUM(residual_j)"


class EnergiesError(Exception):
    """The file of households' energies cannot be used; the text names the line."""


class Month(NamedTuple):
    """One zone's month; `coverage` is the share of its time with a complete balance."""

    name: ZoneName
    main_kwh: float
    sum_kwh: float
    technical_loss_kwh: float
    unexplained_kwh: float
    coverage: float


class Household(NamedTuple):
    """What a household used, and its share of the technical loss: two ways, each adding up to the loss exactly."""

    meter: str
    used_kwh: float
    share_by_energy_kwh: float
    share_by_square_kwh: float


def bounds(month: str, timezone: str) -> tuple[int, int]:
    """UTC seconds of a local month's beginning and end; `month` is YYYY-MM."""
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=ZoneInfo(timezone))
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()), int(following.timestamp())


def months(store: Store, start_s: int, end_s: int, site: str | None = None, zone: str | None = None) -> list[Month]:
    """The zones' sums over [start_s, end_s): whole UTC days from the rollup, what is left at both ends by interval."""
    first_day, last_day = -(-start_s // DAY_S), end_s // DAY_S
    zones = {
        row[0]: tuple(map(str, row[1:]))
        for row in store.rows(
            "SELECT z.zone_key, g.tenant, g.site, g.gateway, z.zone FROM zone z "
            "JOIN gateway g ON g.gateway_key = z.gateway_key ORDER BY g.tenant, g.site, g.gateway, z.zone"
        )
        if site in {None, row[2]} and zone in {None, row[4]}
    }
    only, keys = "", []
    if 0 < len(zones) <= 100:
        only, keys = f" AND zone_key IN ({', '.join('?' * len(zones))})", list(zones)
    parts = [
        (f"SELECT zone_key, SUM(known_s), {_SUMS} FROM balance_day WHERE day >= ? AND day < ?", first_day, last_day)
    ]
    known = "main_j IS NOT NULL AND sum_j IS NOT NULL AND technical_j IS NOT NULL AND residual_j IS NOT NULL"
    for since_s, until_s in ((start_s, first_day * DAY_S), (last_day * DAY_S, end_s)):
        if since_s < until_s:
            query = (
                f"SELECT zone_key, SUM(seconds), {_SUMS} FROM balance WHERE {known} AND start_s >= ? AND start_s < ?"
            )
            parts.append((query, since_s, until_s))
    totals: dict[object, list[int]] = {}
    for query, since, until in parts:
        for key, *sums in store.rows(f"{query}{only} GROUP BY zone_key", (since, until, *keys)):
            total = totals.setdefault(key, [0] * 5)
            for n, value in enumerate(sums):
                total[n] += int(float(str(value))) if isinstance(value, float) else int(str(value))
    found = []
    for key, name in zones.items():
        if key in totals:
            known_s, *joules = totals[key]
            main, registered, technical, unexplained = (value / JOULES_PER_KWH for value in joules)
            coverage = known_s / (end_s - start_s)
            found.append(
                Month((name[0], name[1], name[2], name[3]), main, registered, technical, unexplained, coverage)
            )
    return found


def shares_wh(loss_wh: int, energies_kwh: Mapping[str, float], by: By) -> dict[str, int]:
    """Share out a loss, in whole Wh that add up to it exactly (largest remainders).

    `energy`: in proportion to what was used. `square`: in proportion to its square, as copper loss goes with the
    square of the current: who draws twice as much at the same hours causes four times the loss of his own line.
    """
    weights = {meter: kwh * kwh if by == "square" else kwh for meter, kwh in energies_kwh.items()}
    whole = sum(weights.values())
    if whole <= 0:
        raise EnergiesError("nobody used anything: there is nothing to share the loss by")
    exact = {meter: loss_wh * weight / whole for meter, weight in weights.items()}
    shares = {meter: int(value // 1) for meter, value in exact.items()}
    left = loss_wh - sum(shares.values())
    for meter in sorted(exact, key=lambda name: (shares[name] - exact[name], name))[:left]:
        shares[meter] += 1
    return shares


def households(month: Month, energies_kwh: Mapping[str, float]) -> list[Household]:
    """Each household's line of the statement."""
    loss_wh = round(month.technical_loss_kwh * 1000)
    energy, square = (shares_wh(loss_wh, energies_kwh, by) for by in ("energy", "square"))
    return [Household(m, kwh, energy[m] / 1000, square[m] / 1000) for m, kwh in sorted(energies_kwh.items())]


def read_energies(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Households' energies by (site, zone): CSV with the columns site, zone, meter, kwh."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames is None or not {"site", "zone", "meter", "kwh"} <= set(reader.fieldnames):
            raise EnergiesError(f"{path}: line 1: the columns are site, zone, meter, kwh")
        for row in reader:
            where = f"{path}: line {reader.line_num}"
            try:
                kwh = float(row["kwh"])
            except (TypeError, ValueError):
                raise EnergiesError(f"{where}: kwh = {row['kwh']!r} is no number") from None
            if not 0 <= kwh < 1e9:
                raise EnergiesError(f"{where}: kwh = {kwh:g} is not an energy that a household uses in a month")
            meters = found.setdefault((row["site"], row["zone"]), {})
            if row["meter"] in meters:
                raise EnergiesError(f"{where}: {row['meter']} of {row['site']}/{row['zone']} stands here twice")
            meters[row["meter"]] = kwh
    return found
