"""The sections of an evidence page, below its headline: what was measured, compared, weighed, and how surely.

Each puts words and charts around a part of an `Analysis` or a `Case`, in the page's language; none computes.
"""

from __future__ import annotations

from html import escape

import numpy as np

from agent.charts.svg import Band, Line, Mark
from agent.offline.case.analysis import Alternative, Analysis, Balance, Verdict
from agent.offline.case.case import Case
from agent.offline.case.markup import figure, section, table
from agent.offline.case.words import Words
from agent.wire.events import AlertData

SHOWN_SUSPECTS = 8
LEAST_SPREAD_W = 1.0  # a narrower band would be a word in the legend and nothing in the picture
RED, BLUE, GREY = "#b03a2e", "#2f5d8a", "#6b7885"

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
# An alert's kind in a table's cell, and what a meter's own log tells.
KIND_NAMES = {
    "non_technical_loss": "missing energy",
    "under_registration": "registers too little",
    "bypass": "bypass",
    "upstream_tap": "unmetered load",
    "balance_surplus": "surplus",
    "tamper": "tampering",
    "reverse_energy": "runs backwards",
    "meter_fault": "meter fault",
    "communication_loss": "no answer",
    "capacity": "capacity",
}
SIGNS = {
    "terminal_cover": "terminal cover opened",
    "meter_cover": "meter cover opened",
    "magnetic_field": "magnetic field",
    "reverse_run": "ran backwards",
    "wrong_password": "wrong password",
    "other": "other event",
}
STYLE = {Verdict.AGAINST: "against", Verdict.UNLIKELY: "unlikely", Verdict.POSSIBLE: "open"}


def called(case: Case, meter: str) -> str:
    """A meter as people call it, with its id beside."""
    name = next((m.name for m in case.meters if m.id == meter), None)
    return f"{name} ({meter})" if name and name != meter else meter


def measured(case: Case, a: Analysis, words: Words) -> str:
    """The loads, and what the balance lacks each day."""
    e, say = case.energies, words.say
    day_rows = round(86_400 / e.interval_s)
    to_kw = 3600 / e.interval_s
    kernel = np.ones(day_rows) / day_rows
    main = np.convolve(e.main_kwh * to_kw, kernel, "same")
    total = np.convolve(e.subs_kwh.sum(axis=1) * to_kw, kernel, "same")
    half = day_rows // 2
    loads = figure(
        say("Main meter and sum of the sub-meters, moving day"),
        e.times_s[half : -half or None],
        [
            Line(say("main meter"), main[half : -half or None], BLUE),
            Line(say("sum of sub-meters"), total[half : -half or None], RED, "5 3"),
        ],
        marks=[Mark(a.onset_s, say("onset"))],
        y_label="kW",
        zone=words.zone,
        day=words.day,
    )
    residual_w = a.residual_day_kwh * 1000 / 24
    spread = a.before.residual_sd_w if a.before else float("nan")
    band = np.full(len(residual_w), 2 * spread)
    rest = figure(
        say("What the balance lacks, each day"),
        a.day_s,
        [Line(say("main - sum - technical loss"), residual_w, RED, "", 2.0)],
        bands=[Band(say("usual spread (95 %)"), -band, band, GREY)] if spread >= LEAST_SPREAD_W else [],
        marks=[Mark(a.onset_s, say("onset"))],
        y_label="W",
        zone=words.zone,
        day=words.day,
        caption=say("Whole days only, so that the order in which meters are read does not matter."),
    )
    return section(say("What was measured"), loads, rest)


def _disagreement(alert: AlertData, a: Analysis, words: Words) -> str:
    """A warning where the gateway's loss and the plain comparison cannot both be right."""
    if alert.loss_w_interval is None or not np.isfinite(a.missing_sd_w):
        return ""
    low, high = alert.loss_w_interval
    slack_w = 3 * a.missing_sd_w
    if low <= a.missing_w + slack_w and a.missing_w - slack_w <= high:
        return ""
    text = words.say(
        "The two do not agree: the gateway says {low:,.0f} to {high:,.0f} W, these figures {missing}. Find out why "
        "before anybody is accused: another loss, a load that changed, or figures that are not complete.",
        low=low,
        high=high,
        missing=words.watts(a.missing_w),
    )
    return f'<p class="note"><strong>{escape(text)}</strong></p>'


def before_and_after(alert: AlertData, a: Analysis, words: Words) -> str:
    """The plain comparison."""
    say = words.say

    def column(b: Balance | None, read: str) -> str:
        return "-" if b is None else words.watts(getattr(b, read))

    rows = [
        (escape(say("Main meter")), "main_w"),
        (escape(say("Sum of the sub-meters")), "subs_w"),
        (escape(say("Technical loss (from the days before)")), "technical_w"),
        (f"<strong>{escape(say('Remainder'))}</strong>", "residual_w"),
        (escape(say("Day-to-day spread of the remainder")), "residual_sd_w"),
    ]
    before = say("before ({days:d} days)", days=a.before.days) if a.before else say("before (no days)")
    after = say("after ({days:d} days)", days=a.after.days)
    spread = "" if not np.isfinite(a.missing_sd_w) else f" ± {words.number(2 * a.missing_sd_w, '.0f')} W (95 %)"
    text = say(
        "Missing since the onset by this plain comparison: {missing}. The figures at the head of the page are the "
        "gateway's own: they weigh every interval by how surely it was read and count from the instant of the onset, "
        "while this table takes whole days only. The two need not be equal; their intervals should overlap.",
        missing=f"{words.watts(a.missing_w)}{spread}",
    )
    return section(
        say("The balance before and after"),
        table(
            [(say("mean power over whole days"), False), (before, True), (after, True)],
            [(name, column(a.before, key), column(a.after, key)) for name, key in rows],
        ),
        f"<p>{escape(text)}</p>",
        _disagreement(alert, a, words),
    )


def profile(a: Analysis, words: Words) -> str:
    """The suspect against its own past and its neighbours."""
    say = words.say
    if a.suspect is None or a.hours_after_kwh is None or a.suspect_day_kwh is None:
        text = say("No sub-meter is more probable than a load ahead of the meters, or than none of these.")
        return section(say("No single meter explains it"), f"<p>{escape(text)}</p>")
    lines = [Line(say("since the onset"), a.hours_after_kwh, RED)]
    if a.hours_before_kwh is not None:
        lines.insert(0, Line(say("before"), a.hours_before_kwh, BLUE))
    if a.neighbours_after_kwh is not None:
        lines.append(Line(say("median of the neighbours, since"), a.neighbours_after_kwh, GREY, "3 3"))
    title = say("{meter}: mean power by hour of the day", meter=a.suspect)
    hours = figure(title, np.arange(24) + 0.5, lines, y_label="W", hours=True)
    days = figure(
        say("{meter} each day, and what the balance lacks", meter=a.suspect),
        a.day_s,
        [
            Line(say("{meter} shows", meter=a.suspect), a.suspect_day_kwh, BLUE),
            Line(say("missing"), a.residual_day_kwh, RED, "5 3"),
        ],
        marks=[Mark(a.onset_s, say("onset"))],
        y_label="kWh",
        zone=words.zone,
        day=words.day,
    )
    text = say(
        "{meter} showed {before} on average before the onset and {after} since.",
        meter=a.suspect,
        before=words.watts(a.suspect_before_w),
        after=words.watts(a.suspect_after_w),
    )
    return section(say("The meter of {meter}", meter=a.suspect), f"<p>{escape(text)}</p>", days, hours)


def suspects(case: Case, words: Words) -> str:
    """How probable each explanation is."""
    data, say = case.alert.data, words.say
    rows = [(called(case, s.meter), s.probability, s.mechanism or "") for s in data.suspects or []]
    tap = say("an unmetered load ahead of the meters (a tap, or common load)")
    rows.append((tap, data.upstream_probability or 0.0, ""))
    if data.unexplained_probability is not None:
        none = say("none of these (a clock, solar, the main meter, or not known)")
        rows.append((none, data.unexplained_probability, ""))
    rows.sort(key=lambda r: -r[1])
    note = say("The probabilities of all meters, of an unmetered load and of “none of these” add up to 100 %.")
    return section(
        say("How probable is each explanation"),
        table(
            [(say("meter"), False), (say("probability"), False), (say("by which way"), False)],
            [
                (
                    escape(name),
                    f'<span class="bar" style="width:{6 * p:.2f}rem"></span>{words.percent(p)}',
                    escape(say(WAYS.get(way, way.replace("_", " ")))),
                )
                for name, p, way in rows[:SHOWN_SUSPECTS]
            ],
        ),
        f"<p>{escape(note)}</p>",
    )


def alternatives(a: Analysis, words: Words) -> str:
    """Other explanations, and how they fare."""
    say = words.say
    rows = [
        (
            f"<strong>{escape(say(x.name_form, **x.values))}</strong>",
            escape(say(x.figures_form, **x.values)),
            f'<span class="v {STYLE[x.verdict]}">{escape(say(x.verdict.value))}</span>{_stated(x, words)}',
        )
        for x in a.alternatives
    ]
    head = [(say("explanation"), False), (say("what the figures say"), False), (say("verdict"), False)]
    note = say(
        "None of them is excluded: sums can only speak for an explanation or against it, and causes that nobody has "
        "thought of are in no list. Percentages are the gateway's, of the table above."
    )
    return section(say("Other explanations, and how they fare"), table(head, rows), f"<p>{escape(note)}</p>")


def _stated(x: Alternative, words: Words) -> str:
    """The probability beside a verdict; of some only that of the group is known, and theirs is no more."""
    if x.share is None:
        return ""
    share = words.percent(x.share)
    text = words.say("at most {share}", share=share) if x.part else words.say("probability {sure}", sure=share)
    return f"<br>{escape(text)}"


def uncertainty(case: Case, a: Analysis, words: Words) -> str:
    """By which formula, and how good the readings are."""
    data, say = case.alert.data, words.say
    items = [
        say(
            "Remainder = main - sum of sub-meters - (a + c · sum²), with a and c fitted on the days before the onset."
            if a.fitted
            else "Remainder = main - sum of sub-meters; there are too few days before the onset to learn the technical "
            "loss."
        )
    ]
    if data.residual is not None and data.residual.uncertainty_kwh is not None:
        kwh = data.residual.uncertainty_kwh
        items.append(say("Standard uncertainty of the gateway's balance: {kwh:.2f} kWh.", kwh=kwh))
    if data.quality is not None:
        share = words.percent(data.quality.coverage)
        items.append(say("Share of intervals in which all meters were read: {share}.", share=share))
    if case.detectable_w is not None:
        found = words.watts(case.detectable_w)
        items.append(
            say(
                "In this building a steady loss of {found} or more is found within a week; a smaller one may not be.",
                found=found,
            )
        )
    if data.model is not None:
        model, threshold = data.model.sha256[:16], data.model.threshold
        items.append(say("Compact model {model}…, threshold {threshold:g}.", model=model, threshold=threshold))
    points = "".join(f"<li>{escape(item)}</li>" for item in items)
    return section(say("Uncertainty and method"), f"<ul>{points}</ul>")


def meters(case: Case, words: Words) -> str:
    """Who measured, and what the meters' own logs say."""
    say, known = words.say, {m.id: m for m in case.meters}
    versions = "" if case.info is None else ", ".join(f"{k} {v}" for k, v in sorted(case.info.versions.items()))
    rows = []
    for name in (case.energies.main, *case.energies.subs):
        m = known.get(name)
        role = f" ({say('main')})" if name == case.energies.main else ""
        rows.append(
            (
                escape(called(case, name) + role),
                escape((m.serial if m else None) or "-"),
                escape((m.firmware if m else None) or "-"),
                words.number(m.accuracy_class, "g") if m and m.accuracy_class else "-",
            )
        )
    signs = [
        (
            escape(called(case, t.data.meter)),
            escape(say(SIGNS.get(t.data.kind, t.data.kind.replace("_", " ")))),
            escape(words.time(t.time)),
        )
        for t in case.tampers
    ]
    logged = [(say("meter"), False), (say("its own log says"), False), (say("when"), False)]
    head = [(say("meter"), False), (say("serial number"), False), (say("firmware"), False), (say("class"), True)]
    return section(
        say("Meters"),
        table(head, rows),
        table(logged, signs) if signs else "",
        f"<p class=meta>{escape(versions)}</p>" if versions else "",
    )


def course(case: Case, words: Words) -> str:
    """The alert's revisions."""
    say, rows = words.say, []
    for event in case.revisions:
        d = event.data
        best = max(d.suspects or [], key=lambda s: s.probability, default=None)
        rows.append(
            (
                escape(words.time(event.time)),
                str(d.revision),
                escape(say(d.state)),
                escape(say(KIND_NAMES.get(d.kind, d.kind.replace("_", " ")))),
                "-" if d.loss_w is None else words.watts(d.loss_w),
                "-" if best is None else f"{escape(best.meter)} {words.percent(best.probability)}",
            )
        )
    head = [
        (say("measured until"), False),
        (say("rev."), True),
        (say("state"), False),
        (say("kind"), False),
        (say("loss"), True),
        (say("first suspect"), False),
    ]
    return section(say("Course of the alert"), table(head, rows))
