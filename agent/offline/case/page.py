"""One page for the inspector and, later, a court: self-contained HTML that reads on a phone and prints on A4.

It puts words and charts around an `Analysis`; it computes nothing. It never says "thief": the figures show where
energy is missing and how probable the explanations are.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from datetime import datetime, tzinfo
from html import escape

import numpy as np

from agent.charts.svg import Band, Line, Mark, chart
from agent.offline.case.analysis import Analysis, Balance, Verdict, analyse
from agent.offline.case.case import Case
from agent.offline.case.files import read
from agent.offline.case.seal import Sealed, as_html
from agent.wire.events import AlertData
from agent.wire.values import utc

RENDERER = 3  # one more with every change of what a page looks like: `verify` compares a page octet by octet
SHOWN_SUSPECTS = 8
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
LIKELY = 0.5  # below it "possibly", not "probably"

CSS = """
:root{color:#1d2733;font:16px/1.5 Georgia,'Times New Roman',serif}
body{max-width:56rem;margin:0 auto;padding:1rem 1.2rem 3rem;background:#fff}
h1,h2,th,.tile,figcaption,.meta{font-family:Helvetica,Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.25;margin:.6rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;
border-bottom:1px solid #c9d2da;padding-bottom:.2rem}
.meta{color:#51606f;font-size:.85rem}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));
gap:.7rem;margin:1rem 0}.tile{border:1px solid #c9d2da;border-radius:.4rem;padding:.6rem .8rem;font-size:.8rem;
color:#51606f}.tile b{display:block;font-size:1.3rem;color:#1d2733;line-height:1.3}
table{border-collapse:collapse;width:100%;font-size:.92rem}th,td{text-align:left;padding:.3rem .5rem;vertical-align:top;
border-bottom:1px solid #e3e8ed}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.scroll{overflow-x:auto}figure{margin:1rem 0}svg{width:100%;height:auto;display:block}
figcaption{font-size:.82rem;color:#51606f}code{overflow-wrap:anywhere}pre{font-size:.72rem;white-space:pre-wrap;overflow-wrap:anywhere;
background:#f6f8fa;padding:.6rem}.bar{display:inline-block;height:.7rem;background:#2f5d8a;vertical-align:middle;margin-right:.4rem}
.v{font-family:Helvetica,Arial,sans-serif;font-weight:bold;white-space:nowrap}.fails{color:#2e6b3a}.cannot{color:#b03a2e}
.note{background:#fbf6e6;border-left:.25rem solid #d6b656;padding:.6rem .9rem}
@media print{body{max-width:none;padding:0;font-size:10.5pt}h2{break-after:avoid}
figure,tr,.tile,.note{break-inside:avoid}
a{color:inherit;text-decoration:none}}
@page{size:A4;margin:16mm 15mm}
"""


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
            _section("Raw figures and seal", as_html(sealed), _how_to_verify()),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>{body}<script>{_recompute_script()}</script></body></html>\n"
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _time(value: datetime | float, zone: tzinfo) -> str:
    moment = (utc(value) if isinstance(value, float) else value).astimezone(zone)
    return moment.strftime("%d %b %Y %H:%M")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %" if 0.005 < share < 0.995 else f"{100 * share:.1f} %"


def _watts(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:,.0f} W"


def _table(head: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    cells = "".join(f"<th{' class=n' if number else ''}>{escape(text)}</th>" for text, number in head)
    lines = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if n else ''}>{c}</td>" for c, (_, n) in zip(row, head, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def headline(data: AlertData, called: str | None = None) -> str:
    """What the page says first: the explanation with its probability, and the meter; never more than is known."""
    words = KINDS.get(data.kind, data.kind.replace("_", " "))
    best = max(data.suspects or [], key=lambda s: s.probability, default=None)
    nobody = data.upstream_probability or 0.0
    if data.kind == "upstream_tap":
        return f"{'Probably' if nobody >= LIKELY else 'Possibly'} ({_percent(nobody)}): {words[0].lower()}{words[1:]}"
    if data.kind not in ("bypass", "under_registration") or best is None:
        return words
    sure = "Probably" if best.probability >= LIKELY else "Possibly"
    return f"{sure} {words} ({_percent(best.probability)}): {called or best.meter}"


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
            _watts(data.loss_w if data.loss_w is not None else a.missing_w),
            f"95 %: {low:,.0f} to {high:,.0f} W",
        ),
        (
            "Missing energy",
            f"{data.loss_kwh if data.loss_kwh is not None else a.missing_kwh:,.1f} kWh",
            "since the onset",
        ),
        (
            "Since",
            _time(data.onset, zone),
            ""
            if data.onset_window is None
            else f"between {_time(data.onset_window[0], zone)} and {_time(data.onset_window[1], zone)}",
        ),
        ("Most probable", escape(_called(case, where)), f"probability {_percent(sure)}"),
    ]
    boxes = "".join(
        f'<div class="tile">{escape(name)}<b>{value}</b>{escape(note)}</div>' for name, value, note in tiles
    )
    return (
        f'<p class="meta">checkmeter evidence, made {_time(made, zone)} ({escape(str(zone))})</p>'
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
    loads = chart(
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
    rest = chart(
        "What the balance lacks, each day",
        a.day_s,
        [Line("main - sum - technical loss", residual_w, RED, "", 2.0)],
        bands=[Band("usual spread (95 %)", -band, band, GREY)] if np.isfinite(spread) else [],
        marks=[Mark(a.onset_s, "onset")],
        y_label="W",
        zone=zone,
    )
    caption = "Whole days only, so that the order in which meters are read does not matter."
    return _section(
        "What was measured",
        f"<figure>{loads}</figure><figure>{rest}<figcaption>{caption}</figcaption></figure>",
    )


def _before_and_after(a: Analysis) -> str:
    def column(b: Balance | None, read: str) -> str:
        return "-" if b is None else _watts(getattr(b, read))

    rows = [
        ("Main meter", "main_w"),
        ("Sum of the sub-meters", "subs_w"),
        ("Technical loss (from the days before)", "technical_w"),
        ("<strong>Remainder</strong>", "residual_w"),
        ("Day-to-day spread of the remainder", "residual_sd_w"),
    ]
    days = [f"before ({a.before.days} days)" if a.before else "before (no days)", f"after ({a.after.days} days)"]
    spread = "" if not np.isfinite(a.missing_sd_w) else f" ± {2 * a.missing_sd_w:.0f} W (95 %)"
    return _section(
        "The balance before and after",
        _table(
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
        return _section(
            "No single meter explains it",
            "<p>What is missing follows the profile of no sub-meter, and no sub-meter fell by as much.</p>",
        )
    lines = [Line("since the onset", a.hours_after_kwh, RED)]
    if a.hours_before_kwh is not None:
        lines.insert(0, Line("before", a.hours_before_kwh, BLUE))
    if a.neighbours_after_kwh is not None:
        lines.append(Line("median of the neighbours, since", a.neighbours_after_kwh, GREY, "3 3"))
    hours = chart(f"{a.suspect}: mean power by hour of the day", np.arange(24) + 0.5, lines, y_label="W", hours=True)
    days = chart(
        f"{a.suspect} each day, and what the balance lacks",
        a.day_s,
        [Line(f"{a.suspect} shows", a.suspect_day_kwh, BLUE), Line("missing", a.residual_day_kwh, RED, "5 3")],
        marks=[Mark(a.onset_s, "onset")],
        y_label="kWh",
        zone=zone,
    )
    text = (
        f"<p>{escape(a.suspect)} showed {_watts(a.suspect_before_w)} on average before the onset and "
        f"{_watts(a.suspect_after_w)} since.</p>"
    )
    return _section(f"The meter of {a.suspect}", text, f"<figure>{days}</figure><figure>{hours}</figure>")


def _suspects(case: Case) -> str:
    data = case.alert.data
    rows = [(s.meter, s.probability, s.mechanism or "") for s in data.suspects or []]
    rows.append(("an unmetered load ahead of the meters (a tap, or common load)", data.upstream_probability or 0.0, ""))
    if data.unexplained_probability is not None:
        rows.append(("none of these (a clock, solar, the main meter, or not known)", data.unexplained_probability, ""))
    rows.sort(key=lambda r: -r[1])
    return _section(
        "How probable is each explanation",
        _table(
            [("meter", False), ("probability", False), ("by which way", False)],
            [
                (
                    escape(_called(case, m)),
                    f'<span class="bar" style="width:{6 * p:.2f}rem"></span>{_percent(p)}',
                    escape(w.replace("_", " ")),
                )
                for m, p, w in rows[:SHOWN_SUSPECTS]
            ],
        ),
        "<p>The probabilities of all meters, of an unmetered load and of “none of these” add up to 100 %.</p>",
    )


def _alternatives(a: Analysis) -> str:
    css = {Verdict.EXCLUDED: "fails", Verdict.UNLIKELY: "unlikely", Verdict.POSSIBLE: "cannot"}
    rows = [
        (
            f"<strong>{escape(x.name)}</strong>",
            escape(x.figures),
            f'<span class="v {css[x.verdict]}">{x.verdict.value}</span>',
        )
        for x in a.alternatives
    ]
    return _section(
        "Other explanations, and how they fare",
        _table([("explanation", False), ("what the figures say", False), ("verdict", False)], rows),
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
        items.append(f"<li>Share of intervals in which all meters were read: {_percent(data.quality.coverage)}.</li>")
    if data.model is not None:
        items.append(f"<li>Compact model {escape(data.model.sha256[:16])}…, threshold {data.model.threshold:g}.</li>")
    return _section("Uncertainty and method", f"<ul>{''.join(items)}</ul>")


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
    tamper = _table([("meter", False), ("its own log says", False), ("when", False)], signs) if signs else ""
    return _section(
        "Meters",
        _table([("meter", False), ("serial number", False), ("firmware", False), ("class", True)], rows),
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
                _time(event.time, zone),
                str(d.revision),
                escape(d.state),
                escape(d.kind.replace("_", " ")),
                "-" if d.loss_w is None else _watts(d.loss_w),
                "-" if best is None else f"{escape(best.meter)} {_percent(best.probability)}",
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
    return _section("Course of the alert", _table(head, rows))


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
