"""What people change: an outcome, and its confirmation by a second person. Each leaves an entry in the audit log.

The entry is written in the transaction of the change: there is no change without one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starlette.responses import RedirectResponse, Response

from agent.utility.fleet import audit, outcomes
from agent.utility.fleet.outcomes import Found
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table
from agent.utility.web.app import Asked, Handler, Refused
from agent.utility.web.pages import OF_OUTCOMES, place_of
from agent.utility.web.signin.people import Role

_METER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def record(asked: Asked) -> Response:
    """Record what was found."""
    place, alert_id = place_of(asked), asked.names["alert_id"]
    form, say = asked.form, asked.words.say
    outcome, meter, note = form.get("outcome", ""), form.get("meter", "").strip(), form.get("note", "").strip()
    if outcome not in {"theft", "fault", "nothing"}:
        raise Refused(400, say("Say what was found: theft, fault or nothing."))
    if meter and (outcome != "theft" or not _METER.fullmatch(meter)):
        raise Refused(400, say("The meter is that of a theft, by its id."))
    if len(note) > 255 or re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", note):
        raise Refused(400, say("A note is one line of at most 255 characters."))
    now_s = asked.site.clock.now()
    try:
        day = form.get("day", "")
        inspected_s = int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) if day else int(now_s)
    except ValueError:
        raise Refused(400, say("The day is written as 2026-11-24.")) from None
    if not now_s - 3660 * 86_400 < inspected_s <= now_s + 86_400:
        raise Refused(400, say("The day of an inspection lies in the past."))
    found = Found(outcome, meter or None, inspected_s, note or None, asked.person.name)
    entry = _entry(asked, "outcome", f"{place.path}/{alert_id}", f"{outcome} {meter}".strip())
    outcomes.record(asked.site.stores.here(), alert_id, place.path, found, now_s, [entry])
    asked.site.kept.forget(*OF_OUTCOMES)
    return _back(asked, "recorded")


def confirm(asked: Asked) -> Response:
    """Confirm what another has recorded."""
    place, alert_id = place_of(asked), asked.names["alert_id"]
    entry = _entry(asked, "confirm", f"{place.path}/{alert_id}", "")
    store, now_s = asked.site.stores.here(), asked.site.clock.now()
    seen = asked.form.get("seen", "")
    if not seen.isdecimal() or len(seen) > 15:
        raise Refused(400, asked.words.say("This form is too old, or is not ours: load the page again."))
    outcomes.confirm(store, alert_id, place.path, asked.person.name, now_s, [entry], seen_ms=int(seen))
    asked.site.kept.forget(*OF_OUTCOMES)
    return _back(asked, "confirmed")


def _entry(asked: Asked, action: str, subject: str, detail: str) -> tuple[Table, Row]:
    person = asked.person
    return audit.entry(person.name, person.role.name.lower(), action, subject, detail, asked.site.clock.now())


def _back(asked: Asked, done: str) -> Response:
    """To the page of the case: a form that was sent is not sent again by a reload."""
    return RedirectResponse(f"{asked.path.rpartition('/')[0]}?done={done}", 303)


_CASE = "/case/{tenant}/{site}/{gateway}/{alert_id}"
ACTIONS: tuple[tuple[str, Handler, Role], ...] = (
    (f"{_CASE}/outcome", record, Role.INSPECTOR),
    (f"{_CASE}/confirm", confirm, Role.INSPECTOR),
)
