"""The door: who is behind a request, whichever way people sign in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.utility.web.signin.people import NotSignedIn, Person, Proxy, who
from agent.utility.web.signin.sessions import Sessions

if TYPE_CHECKING:
    from agent.utility.web.signin.oidc import Oidc, Provider

SESSION_COOKIE, LOGIN_COOKIE = "checkmeter-session", "checkmeter-login"


class Entrance:
    """With `oidc` sessions of our own; with `proxy` its headers; with neither everybody is a viewer."""

    def __init__(self, proxy: Proxy | None, oidc: Oidc | None, key: bytes, session_s: float) -> None:
        self._proxy = proxy
        self.provider: Provider | None = None
        self.sessions: Sessions | None = None
        # The prefix binds a cookie to this very host (RFC 6265bis): none beside us can plant one.
        prefix = "__Host-" if oidc is not None and oidc.public_url.startswith("https:") else ""
        self.session_cookie, self.login_cookie = prefix + SESSION_COOKIE, prefix + LOGIN_COOKIE
        if oidc is not None:
            from agent.utility.web.signin.oidc import Provider

            self.provider, self.sessions = Provider(oidc, key), Sessions(key, session_s)

    def who(self, client: str, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Person:
        """The person behind a request from address `client`; header names in lower case.

        Raises:
            NotSignedIn: nobody has signed in, or past the proxy.
        """
        if self.sessions is None:
            return who(self._proxy, client, headers)
        person = self.sessions.person(cookies.get(self.session_cookie, ""))
        if person is None:
            raise NotSignedIn("nobody has signed in here, or the session is over")
        return person
