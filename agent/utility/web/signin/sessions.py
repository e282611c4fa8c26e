"""Sessions without a table: what a browser carries is sealed with this server's key, and says until when it holds.

Several servers with one key share the load; a new key ends all sessions. A sealed value is of one kind: what was made
for a sign-in under way is no session.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet, InvalidToken

from agent.utility.web.signin.people import NAME, Person, Role

MAX_COOKIE = 4096  # octets: what a browser keeps
MAX_WITH_TOKEN = 3500  # of a cookie with an ID token, so that others of this host find room in a request's headers


class Sealer:
    """Seals small values of one kind, and opens those that are ours and not too old."""

    def __init__(self, key: bytes, kind: str, lifetime_s: float, now: Callable[[], float] = time.time) -> None:
        digest = hashlib.sha256(kind.encode() + b"\x00" + key).digest()
        self._fernet, self._now, self.lifetime_s = Fernet(base64.urlsafe_b64encode(digest)), now, int(lifetime_s)

    def seal(self, value: dict[str, Any]) -> str:
        """The value as a cookie; nobody else can read or make one."""
        return self._fernet.encrypt_at_time(json.dumps(value).encode(), int(self._now())).decode()

    def open(self, sealed: str) -> dict[str, Any] | None:
        """What was sealed; None if it is not ours, of another kind, or too old."""
        if not sealed or len(sealed) > MAX_COOKIE:
            return None
        try:
            text = self._fernet.decrypt_at_time(sealed.encode(), self.lifetime_s, int(self._now()))
        except (InvalidToken, UnicodeEncodeError):
            return None
        value: dict[str, Any] = json.loads(text)
        return value


class Sessions:
    """Signed-in persons."""

    def __init__(self, key: bytes, lifetime_s: float, now: Callable[[], float] = time.time) -> None:
        self._sealer = Sealer(key, "session", lifetime_s, now)
        self.lifetime_s = int(lifetime_s)

    def begin(self, person: Person, id_token: str = "") -> str:
        """The cookie of a person who has just signed in; the provider's ID token goes along where it has room."""
        value = {"name": person.name, "role": int(person.role)}
        with_token = self._sealer.seal({**value, "token": id_token}) if id_token else ""
        return with_token if 0 < len(with_token) <= MAX_WITH_TOKEN else self._sealer.seal(value)

    def id_token(self, cookie: str) -> str:
        """The ID token that went along; empty if none did."""
        value = self._sealer.open(cookie)
        return "" if value is None else str(value.get("token", ""))

    def person(self, cookie: str) -> Person | None:
        """Whose session it is; None if it is none, or over."""
        value = self._sealer.open(cookie)
        if value is None or not NAME.fullmatch(value["name"]):
            return None
        return Person(value["name"], Role(value["role"]))
