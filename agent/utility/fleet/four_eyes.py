"""The second pair of eyes: whether this store asks for one, and who may be it. Views leave out what has not had it."""

from __future__ import annotations

import unicodedata

from agent.utility.fleet import audit
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import SETTING
from agent.utility.sql.store import Store

_NAME = "four_eyes"


def needed(store: Store) -> bool:
    """Whether an outcome counts only after another person has confirmed it."""
    return store.rows("SELECT value FROM setting WHERE name = ?", (_NAME,)) == [("on",)]


def decide(store: Store, on: bool, who: str, role: str, now_s: float) -> None:
    """Turn it on or off for everybody who uses this store, with an entry in the audit log."""
    value = "on" if on else "off"
    with store.server.transaction():
        before = store.rows("SELECT changed_ms FROM setting WHERE name = ?", (_NAME,))
        changed_ms = max([int(now_s * 1000), *(int(str(row[0])) + 1 for row in before)])
        store.server.insert(SETTING, [(name_key("setting", _NAME), _NAME, value, changed_ms)])
        table, row = audit.entry(who, role, "four-eyes", "store", value, now_s)
        store.server.insert(table, [row])


def same_person(one: str | None, other: str | None) -> bool:
    """Whether two names are one person's: neither case, nor spaces, nor another way to write a letter makes it two."""
    return one is not None and other is not None and _plain(one) == _plain(other)


def _plain(name: str) -> str:
    seen = (c for c in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(c)[0] not in "CZ")
    return "".join(seen)  # what nobody sees (control, format, space) makes no other person
