"""The pages: each takes what was asked, reads the store and fills a template."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import HTMLResponse, Response

from agent.utility.fleet import four_eyes, promise, queries
from agent.utility.sql.schema import DAY_S
from agent.utility.web import asks, exports, forecasts, pictures
from agent.utility.web.app import Asked, Handler, Refused, Site
from agent.utility.web.asks import Place
from agent.utility.web.guard import evidence_policy
from agent.utility.web.signin.people import Role

ROWS = 50  # of a page
TOP_LOSSES = 20
SORTS = {"loss": "loss_kwh", "power": "loss_w", "confidence": "confidence", "age": "onset_s", "site": "site"}
# What a kind of alert means, in the words of the evidence page; a translator finds them here.
KINDS = {
    "non_technical_loss": "Energy is missing, not attributed",
    "under_registration": "A meter shows too little",
    "bypass": "A meter is probably bypassed",
    "upstream_tap": "Energy is taken ahead of the sub-meters",
    "tamper": "A meter reports tampering",
    "reverse_energy": "A meter runs backwards",
    "meter_fault": "A meter is faulty",
    "balance_surplus": "Sub-meters show more than the main meter",
    "communication_loss": "A meter does not answer",
    "capacity": "The capacity may be passed",
}
STATES = {"raised": "raised", "updated": "updated", "cleared": "cleared", "online": "online", "offline": "offline",
          "degraded": "degraded", "silent": "silent", "unknown": "unknown", "theft": "theft", "fault": "fault",
          "nothing": "nothing found"}  # fmt: skip
SIGNS = {
    "energy balance": "energy balance",
    "compact model": "compact model",
    "tamper": "tampering",
    "reverse_energy": "energy runs backwards",
    "terminal_cover": "terminal cover opened",
    "meter_cover": "meter cover opened",
    "magnetic_field": "magnetic field",
    "wrong_password": "wrong password",
    "reverse_run": "ran backwards",
    "other": "another entry of the meter's log",
}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def place_of(asked: Asked) -> Place:
    """The gateway in the address."""
    names = [asked.names[name] for name in Place._fields]
    if not all(_NAME.fullmatch(name) for name in names):
        raise Refused(404, asked.words.say("There is no such page."))
    return Place(*names)


# The kept answers that an outcome changes.
OF_OUTCOMES = ("cases", "all cases", "found", "alarms")


def _losses(site: Site) -> list[dict[str, Any]]:
    return site.kept.get("losses", lambda store: asks.losses(store, site.clock.now(), site.settings.days, TOP_LOSSES))


def _trend(site: Site) -> list[dict[str, Any]]:
    return site.kept.get("trend", lambda store: asks.trend(store, site.clock.now(), 90))


def _silent(site: Site) -> list[dict[str, Any]]:
    return site.kept.get("gateways", lambda store: asks.gateways(store, site.clock.now()))


def _cases(site: Site, *, everything: bool = False) -> list[dict[str, Any]]:
    name = "all cases" if everything else "cases"
    return site.kept.get(name, lambda store: asks.cases(store, everything=everything))


def warm(site: Site) -> None:
    """Ask what the first visitors would wait for."""
    _losses(site), _trend(site), _silent(site), _cases(site)


def fleet(asked: Asked) -> Response:
    """The fleet today: loss, money, who is silent, what is open."""
    site, days = asked.site, asked.site.settings.days
    now_s = site.clock.now()
    losses, trend, silent, cases = _losses(site), _trend(site), _silent(site), _cases(site)
    today = int(now_s // DAY_S)
    lately = [day for day in trend if today - days <= day["day"] < today]
    return asked.page(
        "fleet.html",
        losses=losses,
        zones=max((day["zones"] for day in lately), default=0),
        today=next((day for day in trend if day["day"] == today), None),
        sums={name: sum(day[name] for day in lately) for name in ("main_kwh", "technical_kwh", "unexplained_kwh")},
        days=len(lately),
        silent=len(silent),
        cases=len(cases),
        uninspected=sum(case["outcome"] is None for case in cases),
        chart=pictures.fleet_trend(asked.words, [day for day in trend if day["day"] < today]),
    )


def cases(asked: Asked) -> Response:
    """Cases, sorted and filtered."""
    everything = asked.query.get("state") == "all"
    found = _cases(asked.site, everything=everything)
    if kind := asked.query.get("kind", ""):
        found = [case for case in found if case["kind"] == kind]
    if site := asked.query.get("site", ""):
        found = [case for case in found if site.lower() in f"{case['tenant']}/{case['site']}/{case['gateway']}".lower()]
    if asked.query.get("inspected") in {"yes", "no"}:
        wanted = asked.query["inspected"] == "yes"
        found = [case for case in found if (case["outcome"] is not None) == wanted]
    sort = asked.query.get("sort", "loss") if asked.query.get("sort") in SORTS else "loss"
    column = SORTS[sort]
    ascending = sort in {"age", "site"}
    known = [case for case in found if case[column] is not None]
    known.sort(key=lambda case: (case[column], case["alert_id"]), reverse=not ascending)
    rows, page, pages = paged(asked, [*known, *(case for case in found if case[column] is None)])
    recovered = asked.site.kept.get("found", asks.found_kwh)
    return asked.page(
        "cases.html", rows=rows, page=page, pages=pages, count=len(found), sort=sort, sorts=SORTS, kinds=KINDS,
        states=STATES, recovered=recovered, four_eyes=_four_eyes(asked),
    )  # fmt: skip


def case(asked: Asked) -> Response:
    """One case: what is stated, its course, and what was found."""
    place, alert_id = place_of(asked), asked.names["alert_id"]
    found = asks.case(asked.site.stores.here(), place, alert_id) if _NAME.fullmatch(alert_id) else None
    if found is None:
        raise Refused(404, asked.words.say("There is no such case."))
    suspects = sorted(found.alert.suspects or [], key=lambda s: -s.probability)[:12]
    info = asks.told(asked.site.stores.here(), place)
    return asked.page(
        "case.html", place=place, case=found, alert=found.alert, suspects=suspects, kinds=KINDS, states=STATES,
        done=asked.query.get("done", ""), info=info, names=asks.names(info),
        four_eyes=four_eyes.needed(asked.site.stores.here()), same_person=four_eyes.same_person,
    )  # fmt: skip


def evidence(asked: Asked) -> Response:
    """The evidence page of a case: a sealed file with a style of its own."""
    place, alert_id = place_of(asked), asked.names["alert_id"]
    make = asked.site.settings.evidence
    if make is None or not _NAME.fullmatch(alert_id):
        raise Refused(404, asked.words.say("There is no such page."))
    try:
        text = make(asked.site.stores.here(), place.path, alert_id)
    except ValueError as error:
        raise Refused(409, str(error)) from None
    policy = evidence_policy(asked.site.settings.evidence_script)
    return HTMLResponse(text, headers={"content-security-policy": policy})


def building(asked: Asked) -> Response:
    """A building: its zones' balances, and the flats that signs speak against."""
    place, now_s = place_of(asked), asked.site.clock.now()
    store = asked.site.stores.here()
    found = asks.building(store, place, now_s, 90)
    if found is None:
        raise Refused(404, asked.words.say("There is no such building."))
    everything = _cases(asked.site)
    zones = [
        {
            **zone,
            "chart_days": pictures.zone_days(asked.words, zone["days"]),
            "chart_forecast": pictures.zone_forecast(asked.words, zone["forecast"]),
            "chart_intervals": pictures.zone_intervals(asked.words, zone["intervals"]),
            "sums": {
                name: sum(day[f"{name}_j"] for day in zone["days"]) / 3_600_000
                for name in ("main", "sum", "technical", "residual")
            },
        }
        for zone in found.zones
    ]
    info = asks.told(store, place)
    mine = [one for one in everything if (one["tenant"], one["site"], one["gateway"]) == tuple(place)]
    return asked.page(
        "building.html",
        place=place,
        zones=zones,
        suspects=found.suspects,
        cases=mine,
        kinds=KINDS,
        signs=SIGNS,
        states=STATES,
        info=info,
        names=asks.names(info),
        four_eyes=_four_eyes(asked),
    )


def _four_eyes(asked: Asked) -> bool:
    """Whether outcomes wait for a second pair of eyes."""
    return asked.site.kept.get("four-eyes", four_eyes.needed)


def gateways(asked: Asked) -> Response:
    """Gateways that need somebody, and the rollout of the model."""
    found = _silent(asked.site)
    rows, page, pages = paged(asked, found)
    rollout = asked.site.kept.get("rollout", asks.rollout)
    return asked.page(
        "gateways.html", rows=rows, page=page, pages=pages, count=len(found), rollout=rollout, states=STATES
    )


def gateway(asked: Asked) -> Response:
    """One gateway: health, versions, meters."""
    place = place_of(asked)
    found = asks.gateway(asked.site.stores.here(), place)
    if found is None:
        raise Refused(404, asked.words.say("There is no such gateway."))
    return asked.page("gateway.html", place=place, gateway=found, states=STATES)


def precision(asked: Asked) -> Response:
    """What was promised and what was found."""
    store = asked.site.stores.here()
    models = queries.precision(store)
    stated = promise.stated(store)
    alarms = asked.site.kept.get("alarms", promise.false_alarms)
    return asked.page(
        "precision.html",
        models=[dict(zip(models.columns, row, strict=True)) for row in models.rows],
        stated=stated,
        alarms=alarms,
        chart=pictures.calibration(asked.words, stated),
    )


def exports_page(asked: Asked) -> Response:
    """What can be taken away."""
    return asked.page("exports.html", names=list(exports.EXPORTS), parquet=exports.parquet_is_there())


def export(asked: Asked) -> Response:
    """One table as a file."""
    name, _, form = asked.names["file"].rpartition(".")
    if name not in exports.EXPORTS or form not in {"csv", "parquet"}:
        raise Refused(404, asked.words.say("There is no such page."))
    if form == "parquet" and not exports.parquet_is_there():
        raise Refused(404, "Parquet needs pyarrow: pip install 'checkmeter[parquet]'")
    store, now_s = asked.site.stores.here(), asked.site.clock.now()
    answer = exports.EXPORTS[name](store, now_s)
    octets = exports.as_csv(answer) if form == "csv" else exports.as_parquet(answer)
    kind = "text/csv; charset=utf-8" if form == "csv" else "application/vnd.apache.parquet"
    return Response(octets, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}.{form}"'})


def search(asked: Asked) -> Response:
    """Gateways, cases and meters by name."""
    words = asked.query.get("q", "").strip()[:64]
    found = asks.search(asked.site.stores.here(), words, ROWS) if words else {"gateways": [], "cases": []}
    return asked.page("search.html", words=words, found=found, kinds=KINDS)


def audit(asked: Asked) -> Response:
    """What people did here."""
    return asked.page("audit.html", rows=asks.audit(asked.site.stores.here(), 500))


def health(_: Asked) -> Response:
    """For a load balancer, which signs in nowhere."""
    return Response("ok\n", media_type="text/plain")


def paged(asked: Asked, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    """The rows of the page that was asked for, its number and how many there are."""
    pages = max(1, -(-len(rows) // ROWS))
    wish = asked.query.get("page", "1")
    page = min(pages, max(1, int(wish))) if wish.isdecimal() and len(wish) < 8 else 1
    return rows[(page - 1) * ROWS : page * ROWS], page, pages


_PLACE = "{tenant}/{site}/{gateway}"
PAGES: tuple[tuple[str, Handler, Role | None], ...] = (  # None: anybody
    ("/", fleet, Role.VIEWER),
    ("/cases", cases, Role.VIEWER),
    (f"/case/{_PLACE}/{{alert_id}}", case, Role.VIEWER),
    (f"/case/{_PLACE}/{{alert_id}}/evidence", evidence, Role.VIEWER),
    (f"/building/{_PLACE}", building, Role.VIEWER),
    ("/gateways", gateways, Role.VIEWER),
    (f"/gateway/{_PLACE}", gateway, Role.VIEWER),
    ("/forecast", forecasts.forecast, Role.VIEWER),
    ("/precision", precision, Role.VIEWER),
    ("/exports", exports_page, Role.VIEWER),
    ("/export/{file}", export, Role.VIEWER),
    ("/search", search, Role.VIEWER),
    ("/audit", audit, Role.OPERATOR),
    ("/health", health, None),
)
