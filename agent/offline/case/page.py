"""One page for the inspector and, later, a court: self-contained HTML that reads on a phone and prints on A4.

It owns the page as a whole, its headline and what it says first; the sections that follow are in `sections`. It
computes nothing. It never says "thief": the figures show where energy is missing and how probable the explanations are.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from html import escape

from agent.offline.case.analysis import Analysis, analyse
from agent.offline.case.case import Case
from agent.offline.case.files import read
from agent.offline.case.markup import CSS, section
from agent.offline.case.seal import Sealed, as_html
from agent.offline.case.sections import (
    alternatives,
    before_and_after,
    called,
    course,
    measured,
    meters,
    profile,
    suspects,
    uncertainty,
)
from agent.offline.case.words import Words
from agent.wire.events import AlertData

RENDERER = 7  # one more with every change of what a page looks like: `verify` compares a page octet by octet
LIKELY = 0.5  # below it "possibly", not "probably"

# What the balance makes probable: the headline puts its probability beside it, and never convicts.
KINDS = {
    "non_technical_loss": "Energy is missing; where it goes is not known",
    "balance_surplus": "The sub-meters show more than the main meter",
    "tamper": "A meter reports tampering",
    "reverse_energy": "A meter runs backwards",
    "meter_fault": "A meter is faulty",
    "communication_loss": "A meter does not answer",
    "capacity": "The building nears its capacity",
}
# With its probability and the meter: at LIKELY and above, and below it.
SUSPICIONS = {
    "under_registration": (
        "Probably registering too little ({sure}): {meter}",
        "Possibly registering too little ({sure}): {meter}",
    ),
    "bypass": ("Probably bypassed ({sure}): {meter}", "Possibly bypassed ({sure}): {meter}"),
    "upstream_tap": (
        "Probably ({sure}): unmetered load ahead of the meters (a tap, or common load)",
        "Possibly ({sure}): unmetered load ahead of the meters (a tap, or common load)",
    ),
}


def page(sealed: Sealed) -> str:
    """The whole page. It follows from what is sealed and from nothing else, so that anybody can render it again.

    Raises:
        CaseError: the files are not those of a case, or no whole day lies after the onset.
    """
    case, facts = read(sealed.files)
    words = Words(facts.language, facts.zone)
    analysis = analyse(case, facts.zone)
    made = words.say("checkmeter evidence, made {time} ({zone})", time=words.time(facts.made), zone=str(facts.zone))
    body = "".join(
        [
            f'<p class="meta">{escape(made)}</p>',
            _head(case, analysis, words),
            measured(case, analysis, words),
            before_and_after(case.alert.data, analysis, words),
            profile(analysis, words),
            suspects(case, words),
            alternatives(analysis, words),
            uncertainty(case, analysis, words),
            meters(case, words),
            course(case, words),
            section(words.say("Raw figures and seal"), as_html(sealed, words.say), _how_to_verify(words)),
        ]
    )
    title = words.say("Case {case}", case=case.alert.data.alert_id)
    return (
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>{body}</main><script>{_recompute_script()}</script>"
        "</body></html>\n"
    )


def headline(data: AlertData, words: Words, meter: str | None = None) -> str:
    """What the page says first: the explanation with its probability, and the meter; never more than is known."""
    best = max(data.suspects or [], key=lambda s: s.probability, default=None)
    if data.kind not in SUSPICIONS or (best is None and data.kind != "upstream_tap"):
        return words.say(KINDS.get(data.kind, data.kind.replace("_", " ")))
    sure = data.upstream_probability or 0.0
    if best is not None and data.kind != "upstream_tap":
        sure, meter = best.probability, meter or best.meter
    return words.say(SUSPICIONS[data.kind][sure < LIKELY], sure=words.percent(sure), meter=meter)


def _place(case: Case, meter: str | None, words: Words) -> str:
    """Where an inspector has to go, and whom to ask."""
    info = case.info
    if info is None:
        return ""
    point = next((m.service_point for m in case.meters if m.id == meter), None)
    said = [
        info.name,
        info.address,
        point and words.say("service point {point}", point=point),
        info.contact and words.say("contact {contact}", contact=info.contact),
    ]
    shown = " · ".join(escape(text) for text in said if text)
    return f'<p class="place">{shown}</p>' if shown else ""


def _head(case: Case, a: Analysis, words: Words) -> str:
    alert, data, say = case.alert, case.alert.data, words.say
    best = max(data.suspects or [], key=lambda s: s.probability, default=None)
    ahead, unexplained = data.upstream_probability or 0.0, data.unexplained_probability or 0.0
    named = best is not None and best.probability > max(ahead, unexplained)
    where = say("not explained") if unexplained > ahead else say("none of the sub-meters")
    sure = data.unexplained_probability if unexplained > ahead else data.upstream_probability
    if named and best:
        where, sure = called(case, best.meter), best.probability
    low, high = data.loss_w_interval or (float("nan"), float("nan"))
    window = data.onset_window
    tiles = [
        (
            say("Missing power"),
            words.watts(data.loss_w if data.loss_w is not None else a.missing_w),
            say("95 %: {low:,.0f} to {high:,.0f} W", low=low, high=high),
        ),
        (
            say("Missing energy"),
            f"{words.number(data.loss_kwh if data.loss_kwh is not None else a.missing_kwh, ',.1f')} kWh",
            say("from the onset to {time}", time=words.time(alert.time)),
        ),
        (
            say("Since"),
            words.time(data.onset),
            "" if window is None else say("between {a} and {b}", a=words.time(window[0]), b=words.time(window[1])),
        ),
        (say("Most probable"), where, say("probability {sure}", sure=words.percent(sure))),
    ]
    boxes = "".join(
        f'<div class="tile">{escape(name)}<b>{escape(value)}</b>{escape(note)}</div>' for name, value, note in tiles
    )
    about = say(
        "zone {zone} · case {case} · revision {revision}, {state}",
        zone=data.zone or "-",
        case=data.alert_id,
        revision=data.revision,
        state=say(str(data.state)),
    )
    note = say(
        "This page shows where the arithmetic points, and how surely. It is a ground to inspect an installation, not a "
        "proof of who did what. A probability of 90 % is wrong in one case of ten."
    )
    return (
        f"<h1>{escape(headline(data, words, where if named else None))}</h1>"
        f"{_place(case, best.meter if named and best else None, words)}"
        f'<p class="meta">{escape(alert.source)} · {escape(about)}</p>'
        f'<div class="tiles">{boxes}</div><p class="note">{escape(note)}</p>'
    )


def _how_to_verify(words: Words) -> str:
    say = words.say
    whole = say(
        "It checks the signature and renders this whole page again from the sealed figures: a page that shows anything "
        "else is refused."
    )
    alone = say(
        "Without checkmeter, save the files, compare them with sha256sum -c, and do the arithmetic again with one file "
        "that needs nothing but Python:"
    )
    here = say("This page does the same in your browser:")
    off = say("needs JavaScript, which is off")
    return (
        f"<p><code>checkmeter report --verify PAGE.html --public-key KEY.pub</code> {escape(whole)}</p>"
        f"<p>{escape(alone)} <code>python3 recompute.py PAGE.html</code></p>"
        f'<p>{escape(here)} <strong id="recomputed"{_script_words(words)}>{escape(off)}</strong></p>'
    )


def script_source() -> str:
    """The page's one script as a Content-Security-Policy names it, for a server that lets this one run and no other."""
    digest = hashlib.sha256(_recompute_script().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _script_words(words: Words) -> str:
    """What the page's script says, in the page's language; it puts the figures in."""
    say = words.say
    said = {
        "agree": say("all {count} figures agree (largest difference {largest})"),
        "differ": say("{wrong} of {count} figures differ"),
        "failed": say("could not be done here: {reason}"),
    }
    return "".join(f' data-{name}="{escape(text, quote=True)}"' for name, text in said.items())


def _recompute_script() -> str:
    return importlib.resources.files(__package__).joinpath("recompute.js").read_text(encoding="utf-8")
