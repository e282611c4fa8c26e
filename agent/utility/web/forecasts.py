"""The page of what comes: coincident peaks of the fleet, its feeders and districts, and how well it was foreseen."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from agent.utility.fleet import forecasts, realised
from agent.utility.fleet.groups import FLEET, KINDS, Kind
from agent.utility.fleet.queries import Answer
from agent.utility.sql.store import Store
from agent.utility.web import pictures
from agent.utility.web.app import Asked, Site

FRESH_S = 900.0  # gateways issue a forecast each hour; ten thousand are added up in half a minute of processor time
SKILL_DAYS = 28
MOST_GROUPS = 500  # on one page, those nearest to their capacity first
NAMES = {"fleet": "Fleet", "feeder": "Feeders", "district": "Districts"}


def _groups(site: Site, kind: Kind) -> list[forecasts.Sum]:
    """The groups, those nearest to their capacity first; none where nothing is known."""

    def ask(store: Store) -> list[forecasts.Sum]:
        try:
            found = forecasts.coincident(store, site.clock.now(), kind)
        except forecasts.NothingKnown:
            return []
        found.sort(key=lambda one: -(one.over_probability or 0.0))
        return found[:MOST_GROUPS]

    return site.kept.get(f"forecast by {kind}", ask, fresh_s=FRESH_S)


def forecast(asked: Asked) -> Response:
    """The next 24 h of a kind of groups, and one of them as a curve."""
    site, now_s = asked.site, asked.site.clock.now()
    kind: Kind = next((kind for kind in KINDS if kind == asked.query.get("by")), "fleet")
    groups = _groups(site, kind)
    name = asked.query.get("name", "")
    shown = next((one for one in groups if one.name == name), groups[0] if groups else None)
    skill: list[dict[str, Any]] = site.kept.get(
        "forecast skill", lambda store: _records(realised.skill(store, now_s, SKILL_DAYS)), fresh_s=FRESH_S
    )
    chosen = shown.name if shown else FLEET
    days = _records(realised.peak_days(site.stores.here(), now_s, kind, chosen, 90))
    return asked.page(
        "forecast.html",
        kind=kind,
        kinds=NAMES,
        groups=groups,
        shown=shown,
        median=forecasts.MEDIAN,
        slot_s=realised.SLOT_S,
        chart=pictures.group_forecast(asked.words, shown),
        skill=skill,
        skill_days=SKILL_DAYS,
        chart_days=pictures.peak_days(asked.words, days),
    )


def _records(answer: Answer) -> list[dict[str, Any]]:
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
