"""What a value in a message may be: names, ranges, sizes, texts that a person will read.

Each check gives the value as a column takes it, or raises Unreadable: its text stands beside the dead letter.
"""

from __future__ import annotations

import re

import msgspec

from agent import wire
from agent.utility.sql.schema import DAY_S, JOULES_PER_KWH

LARGEST_KWH = 1_000_000.0  # in one interval: a thousand times the largest building
LARGEST_W = 1e8  # a hundred times what a building's transformer gives
DAY_MS = 1000 * DAY_S
MAX_BODY_OCTETS = 5 << 20  # of a row: TiDB takes 6 MiB; a packet has 1 MiB, so only a change of ours can meet it

MAX_GROUP_NAME = 64  # characters of a feeder's or a district's name, as the site file has it

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ALERT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class Unreadable(Exception):
    """The message goes to the dead letters; the text is the reason that stands beside it."""


def joules(kwh: float | None, field: str) -> int | None:
    if kwh is None:
        return None
    if not -LARGEST_KWH <= kwh <= LARGEST_KWH:
        raise Unreadable(f"range: {field} = {kwh:g} kWh in one interval; at most {LARGEST_KWH:g}")
    return round(kwh * JOULES_PER_KWH)


def within(value: float | None, limit: float, field: str, least: float | None = None) -> float | None:
    """From `least` to `limit`; without `least`, as far below 0 as above."""
    least = -limit if least is None else least
    if value is not None and not least <= value <= limit:
        raise Unreadable(f"range: {field} = {value:g}; from {least:g} to {limit:g}")
    return value


def on_grid(start_s: float, length_s: float) -> None:
    """An interval begins a whole number of its lengths after midnight UTC, and ends on the same day.

    One that does not overlaps those that do. Whether two lengths overlap is the store's matter.
    """
    start_ms, length_ms = round(start_s * 1000) % DAY_MS, max(1, round(length_s * 1000))
    if start_ms + length_ms > DAY_MS + DAY_MS // length_ms:
        raise Unreadable(
            f"time: an interval of {length_s:g} s that runs past midnight UTC: it would overlap the next one"
        )
    past_ms = (start_ms + length_ms // 2) % length_ms - length_ms // 2
    # What is no whole number of ms (a seventh of a day) is rounded: each length before this one may be one ms off.
    if abs(past_ms) > (0 if DAY_MS % length_ms == 0 else start_ms // length_ms + 1):
        raise Unreadable(f"time: an interval of {length_s:g} s that begins {past_ms / 1000:g} s off its grid")


def revision(value: int) -> int:
    if value >= 1 << 31:
        raise Unreadable(f"range: {value} is not a number that counts anything")
    return value


def name_of(what: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise Unreadable(f"name: the {what} {name[:80]!r} is no name of 1 to 64 letters, digits, dot, dash, underscore")
    return name


def alert_id_of(text: str) -> str:
    if not _ALERT_ID.fullmatch(text):
        raise Unreadable(f"name: {text[:80]!r} is no alert id of 1 to 64 letters, digits, dot, dash, underscore")
    return text


def count(value: int) -> int:
    if not 0 <= value < 1 << 53:  # what JSON numbers carry exactly everywhere (RFC 8259, section 6)
        raise Unreadable(f"range: {str(value)[:40]} is not a number that counts anything")
    return value


def clean(text: str) -> str:
    """Without what steers a terminal or turns the direction of writing: it stands in tables that people read."""
    return _UNPRINTABLE.sub("?", text)


def text_of(text: str | None) -> str | None:
    return None if text is None else clean(text[:255])


def group_of(name: str | None) -> str | None:
    """A feeder's or a district's name; one that is only spaces is none."""
    if name is not None and len(name) > MAX_GROUP_NAME:
        raise Unreadable(f"name: {name[:MAX_GROUP_NAME]!r}... is longer than {MAX_GROUP_NAME} characters")
    return None if name is None else clean(name).strip() or None


def body_of(message: msgspec.Struct) -> str:
    octets = wire.encode(message)
    if len(octets) > MAX_BODY_OCTETS:
        raise Unreadable(f"range: a body of {len(octets)} octets; at most {MAX_BODY_OCTETS}")
    return octets.decode()


def sha256_of(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise Unreadable(f"form: {text[:80]!r} is no SHA-256")
    return text
