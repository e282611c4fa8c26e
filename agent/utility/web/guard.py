"""What stands before every page: hosts, sizes, rates, and the headers that keep a browser from running anything else.

A pure ASGI layer: what it refuses never reaches a page. It knows requests and bytes, not fleets.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Named = Callable[[str, dict[bytes, bytes]], str]

MAX_FORM_OCTETS = 16 * 1024
MAX_CLIENTS = 10_000  # whose rates are remembered; bounds what made-up addresses can make us keep
CSRF_LIFETIME_S = 12 * 3600
# No inline script or style, nothing from elsewhere, in nobody's frame: names that gateways sent stand in our pages.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


def evidence_policy(script: str) -> str:
    """The evidence page brings its style along, because it is a file that must show itself anywhere; one script runs.

    `script` names it by its hash: 'sha256-...'.
    """
    return (
        f"default-src 'none'; script-src {script}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


class Rate:
    """A token bucket for each client."""

    def __init__(self, per_s: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now = per_s, burst, now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def allows(self, client: str) -> bool:
        """Take a token; False if there is none."""
        now_s = self._now()
        tokens, at_s = self._buckets.pop(client, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + (now_s - at_s) * self._per_s)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - allowed, now_s)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return allowed


class Csrf:
    """Tokens for forms: bound to a person, to this server's key, and to a time."""

    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._key, self._now = key, now

    def token(self, person: str) -> str:
        """For a form of this person's."""
        return self._made(person, int(self._now()))

    def holds(self, person: str, token: str) -> bool:
        """Whether `token` is ours, this person's and not too old."""
        at, _, _ = token.partition(".")
        if not at.isdecimal() or len(at) > 12 or not 0 <= self._now() - int(at) <= CSRF_LIFETIME_S:
            return False
        return hmac.compare_digest(self._made(person, int(at)).encode(), token.encode())

    def _made(self, person: str, at_s: int) -> str:
        digest = hmac.new(self._key, f"{at_s}\x1f{person}".encode(), hashlib.sha256).hexdigest()
        return f"{at_s}.{digest}"


class Guard:
    """The layer itself.

    `hosts`: names under which we may be asked, against DNS rebinding. `named` says whose rate a request counts for,
    from the address and the headers: behind a proxy all have one address.
    """

    def __init__(
        self,
        app: App,
        hosts: frozenset[str],
        rate: Rate,
        named: Named,
        *,
        secure: bool,
    ) -> None:
        self._app, self._hosts, self._rate, self._named, self._secure = app, hosts, rate, named, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on and put the headers on the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].strip("[]").lower()
        client = scope["client"][0] if scope.get("client") else ""
        length = headers.get(b"content-length", b"0")
        if host not in self._hosts:
            await _refuse(send, 421, "this server does not go by that name: start it with --host-name")
        elif not self._rate.allows(self._named(client, headers)):
            await _refuse(send, 429, "too many requests; wait a little")
        elif scope["method"] not in {"GET", "HEAD", "POST"}:
            await _refuse(send, 405, "only GET and POST")
        elif not length.isdigit() or int(length) > MAX_FORM_OCTETS or b"transfer-encoding" in headers:
            await _refuse(send, 413, "a form is smaller than that")
        else:
            await self._app(scope, receive, self._with_headers(send))

    def _with_headers(self, send: Send) -> Send:
        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                if b"content-security-policy" not in present:
                    headers.append((b"content-security-policy", POLICY.encode()))
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
                headers += HEADERS
                if self._secure:
                    headers.append((b"strict-transport-security", b"max-age=31536000"))
                message["headers"] = headers
            await send(message)

        return sent


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
