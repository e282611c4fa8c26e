"""One page for the inspector and, later, a court: self-contained HTML that reads on a phone and prints on A4.

It puts words and charts around an `Analysis`; it computes nothing. It never says "thief": the figures show where
energy is missing and how probable the explanations are.
"""

from __future__ import annotations

import importlib.resources
from datetime import datetime, tzinfo
from html import escape

import numpy as np

from agent.charts.svg import Band, Line, Mark
from agent.offline.case.analysis import Analysis, Balance, Verdict, analyse
from agent.offline.case.case import Case
from agent.offline.case.files import read
from agent.offline.case.markup import CSS, figure, percent, section, table, time, watts
from agent.offline.case.seal import Sealed, as_html
from agent.wire.events import AlertData

RENDERER = 4  # one more with every change of what a page looks like: `verify` compares a page octet by octet
SHOWN_SUSPECTS = 8
LEAST_SPREAD_W = 1.0  # a narrower band would be a word in the legend and nothing in the picture
RED, BLUE, GREY = "#b03a2e", "#2f5d8a", "#6b7885"

# What the balance makes probable, as a participle: the headline puts its probability beside it, and never convicts.
KINDS = {
    "non_technical_loss": "Energy is missing; where it goes is not known",
    "under_registration": "registering too little",
    "bypass": "bypassed",
    "upstream_tap": "Unmetered load ahead of the meters (a tap, or common load)",
    "balance_surplus": "The sub-meters show more than the main meter",
    "tamper": "A meter reports tampering",
    "reverse_energy": "A meter runs backwards",
    "meter_fault": "A meter is faulty",
    "communication_loss": "A meter does not answer",
    "capacity": "The building nears its capacity",
}
# By which way energy passes a meter, where the word of core.attribution does not say it to everybody.
WAYS = {
    "under-registration": "shows only a part of what passes",
    "bypass": "shows next to nothing",
    "constant": "shows too little by the same power at all hours",
    "recording": "shows what was recorded before",
    "unrelated": "shows another load than its own",
    "ceiling": "shows no more than a ceiling",
    "zeroed hours": "shows nothing in some hours",
    "bypassed circuit": "one circuit bypasses it",
    "over-registration": "shows too much",
    "conservation": "what is missing follows what it lost",
}
LIKELY = 0.5  # below it "possibly", not "probably"


def page(sealed: Sealed) -> str:
    """The whole page. It follows from what is sealed and from nothing else, so that anybody can render it again.

    Raises:
        CaseError: the files are not those of a case, or no whole day lies after the onset.
    """
    case, facts = read(sealed.files)
    zone, made = facts.zone, facts.made
    analysis = analyse(case, zone)
    alert = case.alert
    title = f"Case {alert.data.alert_id}"
    body = "".join(
        [
            _head(case, analysis, zone, made),
            _measured(case, analysis, zone),
            _before_and_after(analysis),
            _profile(case, analysis, zone),
            _suspects(case),
            _alternatives(analysis),
            _uncertainty(case, analysis),
            _meters(case),
            _course(case, zone),
            section("Raw figures and seal", as_html(sealed), _how_to_verify()),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>{body}<script>{_recompute_script()}</script></body></html>\n"
    )


def headline(data: AlertData, called: str | None = None) -> str:
    """What the page says first: the explanation with its probability, and the meter; never more than is known."""
    words = KINDS.get(data.kind, data.kind.replace("_", " "))
    best = max(data.suspects or [], key=lambda s: s.probability, default=None)
    nobody = data.upstream_probability or 0.0
    if data.kind == "upstream_tap":
        return f"{'Probably' if nobody >= LIKELY else 'Possibly'} ({percent(nobody)}): {words[0].lower()}{words[1:]}"
    if data.kind not in ("bypass", "under_registration") or best is None:
        return words
    sure = "Probably" if best.probability >= LIKELY else "Possibly"
    return f"{sure} {words} ({percent(best.probability)}): {called or best.meter}"


def _called(case: Case, meter: str) -> str:
    """A meter as people call it, with its id beside."""
    name = next((m.name for m in case.meters if m.id == meter), None)
    return f"{name} ({meter})" if name and name != meter else meter


def _place(case: Case, meter: str | None) -> str:
    """Where an inspector has to go, and whom to ask."""
    info = case.info
    if info is None:
        return ""
    point = next((m.service_point for m in case.meters if m.id == meter), None)
    said = [info.name, info.address, point and f"service point {point}", info.contact and f"contact {info.contact}"]
    words = " · ".join(escape(text) for text in said if text)
    return f'<p class="place">{words}</p>' if words else ""


def _head(case: Case, a: Analysis, zone: tzinfo, made: datetime) -> str:
    alert, data = case.alert, case.alert.data
    best = max(data.suspects or [], key=lambda s: s.probability, default=None)
    ahead, unexplained = data.upstream_probability or 0.0, data.unexplained_probability or 0.0
    named = best is not None and best.probability > max(ahead, unexplained)
    where = "not explained" if unexplained > ahead else "none of the sub-meters"
    sure = data.unexplained_probability if unexplained > ahead else data.upstream_probability
    if named and best:
        where, sure = best.meter, best.probability
    low, high = data.loss_w_interval or (float("nan"), float("nan"))
    tiles = [
        (
            "Missing power",
            watts(data.loss_w if data.loss_w is not None else a.missing_w),
            f"95 %: {low:,.0f} to {high:,.0f} W",
        ),
        (
            "Missing energy",
            f"{data.loss_kwh if data.loss_kwh is not None else a.missing_kwh:,.1f} kWh",
            "since the onset",
        ),
        (
            "Since",
            time(data.onset, zone),
            ""
            if data.onset_window is None
            else f"between {time(data.onset_window[0], zone)} and {time(data.onset_window[1], zone)}",
        ),
        ("Most probable", escape(_called(case, where)), f"probability {percent(sure)}"),
    ]
    boxes = "".join(
        f'<div class="tile">{escape(name)}<b>{value}</b>{escape(note)}</div>' for name, value, note in tiles
    )
    return (
        f'<p class="meta">checkmeter evidence, made {time(made, zone)} ({escape(str(zone))})</p>'
        f"<h1>{escape(headline(data, _called(case, where) if named else None))}</h1>"
        f"{_place(case, best.meter if named and best else None)}"
        f'<p class="meta">{escape(alert.source)} · zone {escape(data.zone or "-")} · case {escape(data.alert_id)} · '
        f"revision {data.revision}, {escape(data.state)}</p>"
        f'<div class="tiles">{boxes}</div>'
        '<p class="note">This page shows where the arithmetic points, and how surely. It is a ground to inspect an '
        "installation, not a proof of who did what. A probability of 90 % is wrong in one case of ten.</p>"
    )


def _measured(case: Case, a: Analysis, zone: tzinfo) -> str:
    e = case.energies
    day_rows = round(86_400 / e.interval_s)
    to_kw = 3600 / e.interval_s
    kernel = np.ones(day_rows) / day_rows
    main = np.convolve(e.main_kwh * to_kw, kernel, "same")
    total = np.convolve(e.subs_kwh.sum(axis=1) * to_kw, kernel, "same")
    half = day_rows // 2
    loads = figure(
        "Main meter and sum of the sub-meters, moving day",
        e.times_s[half : -half or None],
        [
            Line("main meter", main[half : -half or None], BLUE),
            Line("sum of sub-meters", total[half : -half or None], RED, "5 3"),
        ],
        marks=[Mark(a.onset_s, "onset")],
        y_label="kW",
        zone=zone,
    )
    residual_w = a.residual_day_kwh * 1000 / 24
    spread = a.before.residual_sd_w if a.before else float("nan")
    band = np.full(len(residual_w), 2 * spread)
    rest = figure(
        "What the balance lacks, each day",
        a.day_s,
        [Line("main - sum - technical loss", residual_w, RED, "", 2.0)],
        bands=[Band("usual spread (95 %)", -band, band, GREY)] if spread >= LEAST_SPREAD_W else [],
        marks=[Mark(a.onset_s, "onset")],
        y_label="W",
        zone=zone,
        caption="Whole days only, so that the order in which meters are read does not matter.",
    )
    return section("What was measured", loads, rest)


def _before_and_after(a: Analysis) -> str:
    def column(b: Balance | None, read: str) -> str:
        return "-" if b is None else watts(getattr(b, read))

    rows = [
        ("Main meter", "main_w"),
        ("Sum of the sub-meters", "subs_w"),
        ("Technical loss (from the days before)", "technical_w"),
        ("<strong>Remainder</strong>", "residual_w"),
        ("Day-to-day spread of the remainder", "residual_sd_w"),
    ]
    days = [f"before ({a.before.days} days)" if a.before else "before (no days)", f"after ({a.after.days} days)"]
    spread = "" if not np.isfinite(a.missing_sd_w) else f" ± {2 * a.missing_sd_w:.0f} W (95 %)"
    return section(
        "The balance before and after",
        table(
            [("mean power over whole days", False), (days[0], True), (days[1], True)],
            [(name, column(a.before, key), column(a.after, key)) for name, key in rows],
        ),
        f"<p>By this plain comparison <strong>{a.missing_w:,.0f} W{spread}</strong> are missing since the onset. The "
        "figures at the head of the page are the gateway's own: they weigh every interval by how surely it was read "
        "and count from the instant of the onset, while this table takes whole days only. The two need not be equal; "
        "their intervals should overlap.</p>",
    )


def _profile(case: Case, a: Analysis, zone: tzinfo) -> str:
    if a.suspect is None or a.hours_after_kwh is None or a.suspect_day_kwh is None:
        return section(
            "No single meter explains it",
            "<p>What is missing follows the profile of no sub-meter, and no sub-meter fell by as much.</p>",
        )
    lines = [Line("since the onset", a.hours_after_kwh, RED)]
    if a.hours_before_kwh is not None:
        lines.insert(0, Line("before", a.hours_before_kwh, BLUE))
    if a.neighbours_after_kwh is not None:
        lines.append(Line("median of the neighbours, since", a.neighbours_after_kwh, GREY, "3 3"))
    hours = figure(f"{a.suspect}: mean power by hour of the day", np.arange(24) + 0.5, lines, y_label="W", hours=True)
    days = figure(
        f"{a.suspect} each day, and what the balance lacks",
        a.day_s,
        [Line(f"{a.suspect} shows", a.suspect_day_kwh, BLUE), Line("missing", a.residual_day_kwh, RED, "5 3")],
        marks=[Mark(a.onset_s, "onset")],
        y_label="kWh",
        zone=zone,
    )
    text = (
        f"<p>{escape(a.suspect)} showed {watts(a.suspect_before_w)} on average before the onset and "
        f"{watts(a.suspect_after_w)} since.</p>"
    )
    return section(f"The meter of {a.suspect}", text, days, hours)


def _suspects(case: Case) -> str:
    data = case.alert.data
    rows = [(s.meter, s.probability, s.mechanism or "") for s in data.suspects or []]
    rows.append(("an unmetered load ahead of the meters (a tap, or common load)", data.upstream_probability or 0.0, ""))
    if data.unexplained_probability is not None:
        rows.append(("none of these (a clock, solar, the main meter, or not known)", data.unexplained_probability, ""))
    rows.sort(key=lambda r: -r[1])
    return section(
        "How probable is each explanation",
        table(
            [("meter", False), ("probability", False), ("by which way", False)],
            [
                (
                    escape(_called(case, m)),
                    f'<span class="bar" style="width:{6 * p:.2f}rem"></span>{percent(p)}',
                    escape(WAYS.get(w, w.replace("_", " "))),
                )
                for m, p, w in rows[:SHOWN_SUSPECTS]
            ],
        ),
        "<p>The probabilities of all meters, of an unmetered load and of “none of these” add up to 100 %.</p>",
    )


def _alternatives(a: Analysis) -> str:
    css = {Verdict.EXCLUDED: "excluded", Verdict.UNLIKELY: "unlikely", Verdict.POSSIBLE: "cannot"}
    rows = [
        (
            f"<strong>{escape(x.name)}</strong>",
            escape(x.figures),
            f'<span class="v {css[x.verdict]}">{x.verdict.value}</span>',
        )
        for x in a.alternatives
    ]
    return section(
        "Other explanations, and how they fare",
        table([("explanation", False), ("what the figures say", False), ("verdict", False)], rows),
    )


def _uncertainty(case: Case, a: Analysis) -> str:
    data = case.alert.data
    formula = (
        "main - sum of sub-meters - (a + c · sum²), with a and c fitted on the days before the onset"
        if a.fitted
        else "main - sum of sub-meters; there are too few days before the onset to learn the technical loss"
    )
    items = [f"<li>Remainder = {formula}.</li>"]
    if data.residual is not None and data.residual.uncertainty_kwh is not None:
        items.append(
            f"<li>Standard uncertainty of the gateway's balance: {data.residual.uncertainty_kwh:.2f} kWh.</li>"
        )
    if data.quality is not None:
        items.append(f"<li>Share of intervals in which all meters were read: {percent(data.quality.coverage)}.</li>")
    if data.model is not None:
        items.append(f"<li>Compact model {escape(data.model.sha256[:16])}…, threshold {data.model.threshold:g}.</li>")
    return section("Uncertainty and method", f"<ul>{''.join(items)}</ul>")


def _meters(case: Case) -> str:
    meters = {m.id: m for m in case.meters}
    versions = "" if case.info is None else ", ".join(f"{k} {v}" for k, v in sorted(case.info.versions.items()))
    rows = []
    for name in (case.energies.main, *case.energies.subs):
        m = meters.get(name)
        rows.append(
            (
                escape(_called(case, name) + (" (main)" if name == case.energies.main else "")),
                escape((m.serial if m else None) or "-"),
                escape((m.firmware if m else None) or "-"),
                f"{m.accuracy_class:g}" if m and m.accuracy_class else "-",
            )
        )
    signs = [
        (escape(t.data.meter), escape(t.data.kind.replace("_", " ")), t.time.strftime("%Y-%m-%d %H:%M UTC"))
        for t in case.tampers
    ]
    tamper = table([("meter", False), ("its own log says", False), ("when", False)], signs) if signs else ""
    return section(
        "Meters",
        table([("meter", False), ("serial number", False), ("firmware", False), ("class", True)], rows),
        tamper,
        f"<p class=meta>{escape(versions)}</p>" if versions else "",
    )


def _course(case: Case, zone: tzinfo) -> str:
    rows = []
    for event in case.revisions:
        d = event.data
        best = max(d.suspects or [], key=lambda s: s.probability, default=None)
        rows.append(
            (
                time(event.time, zone),
                str(d.revision),
                escape(d.state),
                escape(d.kind.replace("_", " ")),
                "-" if d.loss_w is None else watts(d.loss_w),
                "-" if best is None else f"{escape(best.meter)} {percent(best.probability)}",
            )
        )
    head = [
        ("measured until", False),
        ("rev.", True),
        ("state", False),
        ("kind", False),
        ("loss", True),
        ("first suspect", False),
    ]
    return section("Course of the alert", table(head, rows))


def _how_to_verify() -> str:
    return (
        "<p><code>checkmeter report --verify PAGE.html --public-key KEY.pub</code> checks the signature and renders "
        "this whole page again from the sealed figures: a page that shows anything else is refused. Without "
        "checkmeter, save the files, compare them with <code>sha256sum -c</code>, and do the arithmetic again with "
        "<code>python3 recompute.py PAGE.html</code>, one file that needs nothing but Python; this page does the same "
        'in your browser: <strong id="recomputed">needs JavaScript, which is off</strong>.</p>'
    )


def _recompute_script() -> str:
    return importlib.resources.files(__package__).joinpath("recompute.js").read_text(encoding="utf-8")
