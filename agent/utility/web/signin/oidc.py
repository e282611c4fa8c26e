"""Signing in with an OpenID Connect provider: the authorization code flow with PKCE, roles from a claim.

The library (authlib) speaks OAuth 2.0 and checks claims; here is decided what is asked for and what is believed.
Sources: OpenID Connect Core 1.0 section 3.1, Discovery 1.0, RP-Initiated Logout 1.0; RFC 7636 (PKCE, S256), RFC 9207
(`iss` in the answer).
This module knows tokens and claims, not pages.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from agent.utility.web.signin.people import NAME, Person, Role
from agent.utility.web.signin.sessions import Sealer
from agent.utility.web.signin.talk import bound

CALLBACK, SIGNED_OUT = "/login/back", "/signed-out"
LOGIN_LIFETIME_S = 600.0  # from the way to the provider until the way back
KEEP_S = 3600.0  # what the provider says of itself, and its keys
KEYS_AGAIN_S = 60.0  # between two looks for a key that we do not know
AWAY_S = 5.0  # so long nobody else waits for a provider that has not answered
LEEWAY_S = 60  # between the provider's clock and ours
MAX_GROUPS = 1000
# Signatures with the provider's private key only: with a shared secret (HS256) whoever knows it could sign anybody in.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class SignInRefused(Exception):
    """This sign-in is not believed; the text says why."""


class ProviderAway(Exception):
    """The provider does not answer, or not as a provider does."""


@dataclass(frozen=True, slots=True)
class Oidc:
    """The provider and what we are to it. `roles` maps the values of `roles_claim` to ours; no value: a viewer.

    `name_claim` must be one that people cannot change themselves: a second pair of eyes is known by it.
    """

    issuer: str
    client_id: str
    public_url: str  # of the page, as browsers see it
    secret: str | None = None  # None: a public client, which PKCE alone protects
    name_claim: str = "preferred_username"
    roles_claim: str = "groups"
    roles: Mapping[str, Role] = field(default_factory=dict)
    scope: str = "openid profile email groups"
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for what, url in (("issuer", self.issuer), ("public URL", self.public_url)):
            _safe(what, url)

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends people back: it must be registered there."""
        return self.public_url.rstrip("/") + CALLBACK

    @property
    def signed_out_uri(self) -> str:
        """Where it sends them after a sign-out: to be registered there, too."""
        return self.public_url.rstrip("/") + SIGNED_OUT


class Begun(NamedTuple):
    """A sign-in under way: where the browser goes, and what it carries meanwhile."""

    url: str
    cookie: str


class SignedIn(NamedTuple):
    """Who has come back, the page that they wanted, and the ID token, by which the provider knows the session again."""

    person: Person
    then: str
    id_token: str


class Provider:
    """One provider; used by several threads at a time."""

    def __init__(self, oidc: Oidc, key: bytes, now: Callable[[], float] = time.time) -> None:
        self._oidc, self._now = oidc, now
        self._sealer = Sealer(key, "login", LOGIN_LIFETIME_S, now)
        self._lock = threading.Lock()
        self._about: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._away: tuple[float, str] | None = None

    def begin(self, then: str) -> Begun:
        """Send somebody to the provider; `then` is the page that they wanted.

        Raises:
            ProviderAway: it does not say where to.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        with self._session() as session:
            url, _ = session.create_authorization_url(
                self._endpoint("authorization_endpoint"), state=state, nonce=nonce, code_verifier=verifier
            )
        carried = {"state": state, "nonce": nonce, "verifier": verifier, "then": then}
        return Begun(url, self._sealer.seal(carried))

    def finish(self, answer: Mapping[str, str], cookie: str) -> SignedIn:
        """Who has come back. `answer` is the address's query.

        Raises:
            SignInRefused: it is not an answer to what this browser began, or its token is not believed.
            ProviderAway: the provider does not answer.
        """
        carried = self._sealer.open(cookie)
        if carried is None or not hmac.compare_digest(carried["state"].encode(), answer.get("state", "").encode()):
            raise SignInRefused("this sign-in was not begun here, or too long ago")
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:
            raise SignInRefused("another provider has answered")
        if "code" not in answer:
            raise SignInRefused(f"the provider says: {answer.get('error', 'nothing')[:100]}")
        with self._session() as session:
            try:
                token = session.fetch_token(
                    self._endpoint("token_endpoint"), grant_type="authorization_code", code=answer["code"],
                    code_verifier=carried["verifier"], allow_redirects=False,
                )  # fmt: skip
            except OAuthError as error:
                raise SignInRefused(f"the provider says: {str(error.error)[:100]}") from None
            except (requests.RequestException, ValueError) as error:
                raise ProviderAway(f"{self._oidc.issuer}: {error}") from error
            claims = self._claims(token, carried["nonce"])
            if _claim(claims, self._oidc.roles_claim) is None or _claim(claims, self._oidc.name_claim) is None:
                claims = self._more(session, claims)
        return SignedIn(self._person(claims), carried["then"], str(token["id_token"]))

    def sign_out(self, id_token: str, state: str) -> str | None:
        """Where a browser goes to end the provider's own session, too; None if it advertises no such place.

        `state` comes back in the address (RP-Initiated Logout 1.0, sections 2 and 3). Without an ID token the provider
        asks first.

        Raises:
            ProviderAway: it does not say what it has.
        """
        if not self.about().get("end_session_endpoint"):
            return None
        url = self._endpoint("end_session_endpoint")
        told = {
            "client_id": self._oidc.client_id,
            "post_logout_redirect_uri": self._oidc.signed_out_uri,
            "state": state,
        }
        if id_token:
            told["id_token_hint"] = id_token
        return url + ("&" if urlsplit(url).query else "?") + urlencode(told)

    def _person(self, claims: Mapping[str, Any]) -> Person:
        name = _claim(claims, self._oidc.name_claim)
        if not isinstance(name, str) or not NAME.fullmatch(name := name.strip()):
            raise SignInRefused(f"the provider gives no name in the claim {self._oidc.name_claim}")
        held = _claim(claims, self._oidc.roles_claim)
        values = held if isinstance(held, list) else [held]
        roles = self._oidc.roles
        found = [roles[v] for v in values[:MAX_GROUPS] if isinstance(v, str) and v in roles]
        return Person(name, max(found, default=Role.VIEWER))

    def _claims(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The ID token's claims, all of Core section 3.1.3.7 checked."""
        value = token.get("id_token")
        if not isinstance(value, str):
            raise SignInRefused("the provider sent no ID token; is the scope openid allowed?")
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        try:
            try:
                decoded = jwt.decode(value, self._key_set(), registry=registry)
            except (JoseError, ValueError):
                decoded = jwt.decode(value, self._key_set(again=True), registry=registry)  # its keys may have changed
            about = {
                "iss": {"essential": True, "value": self._oidc.issuer},
                "aud": {"essential": True, "value": self._oidc.client_id},
                "nonce": {"essential": True, "value": nonce},
            }
            parameters = {
                "nonce": nonce, "client_id": self._oidc.client_id, "access_token": token.get("access_token"),
            }  # fmt: skip
            claims = CodeIDToken(decoded.claims, decoded.header, about, parameters)
            claims.validate(now=int(self._now()), leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            raise SignInRefused(f"the provider's ID token is not valid ({error})") from error
        return dict(claims)

    def _more(self, session: OAuth2Session, claims: dict[str, Any]) -> dict[str, Any]:
        """What the ID token leaves out, some providers say at their user-info endpoint (Core section 5.3)."""
        if not (url := self.about().get("userinfo_endpoint")):
            return claims
        try:
            said = session.get(_safe("userinfo_endpoint", url), allow_redirects=False)
            said.raise_for_status()
            more = said.json()
        except (requests.RequestException, OAuthError, ValueError) as error:
            raise ProviderAway(f"{self._oidc.issuer}: {error}") from error
        if not isinstance(more, dict) or more.get("sub") != claims["sub"]:
            raise SignInRefused("the provider speaks of somebody else")
        return more | claims

    # -- what the provider says of itself ----------------------------------------------------------------------

    def _session(self) -> OAuth2Session:
        oidc = self._oidc
        session = OAuth2Session(
            oidc.client_id, oidc.secret, scope=oidc.scope, redirect_uri=oidc.redirect_uri, code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if oidc.secret else "none",
        )  # fmt: skip
        bound(session, oidc.ca_file)
        return session

    def _get(self, url: str) -> dict[str, Any]:
        """Under the lock: who waits for it is told what the one before has learned, not made to wait as long again."""
        if self._away is not None and 0.0 <= self._now() - self._away[0] < AWAY_S:
            raise ProviderAway(self._away[1])
        try:
            with bound(requests.Session(), self._oidc.ca_file) as session:
                answer = session.get(url, allow_redirects=False)
                answer.raise_for_status()
                value = answer.json()
        except (requests.RequestException, ValueError) as error:
            self._away = self._now(), f"{url}: {error}"
            raise ProviderAway(self._away[1]) from error
        if not isinstance(value, dict):
            raise ProviderAway(f"{url}: that is no JSON object")
        return value

    def about(self) -> dict[str, Any]:
        """Its configuration (Discovery 1.0, section 4).

        Raises:
            ProviderAway: it does not answer, or goes by another name than we call it.
        """
        with self._lock:
            if self._about is None or self._now() - self._about[0] > KEEP_S:
                about = self._get(self._oidc.issuer.rstrip("/") + "/.well-known/openid-configuration")
                if about.get("issuer") != self._oidc.issuer:
                    raise ProviderAway(f"{self._oidc.issuer}: it calls itself {str(about.get('issuer'))[:200]}")
                self._about = self._now(), about
            return self._about[1]

    def _endpoint(self, name: str) -> str:
        url = self.about().get(name)
        if not isinstance(url, str):
            raise ProviderAway(f"{self._oidc.issuer}: it names no {name}")
        try:
            return _safe(name, url)
        except ValueError as error:
            raise ProviderAway(str(error)) from None

    def _key_set(self, *, again: bool = False) -> KeySet:
        url = self._endpoint("jwks_uri")
        with self._lock:
            age_s = self._now() - self._keys[0] if self._keys else KEEP_S + 1
            if self._keys is None or age_s > (KEYS_AGAIN_S if again else KEEP_S):
                try:
                    keys = [key for key in self._get(url)["keys"] if key.get("kty") != "oct"]
                    self._keys = self._now(), KeySet.import_key_set({"keys": keys})
                except (JoseError, KeyError, TypeError, ValueError, AttributeError) as error:
                    raise ProviderAway(f"{url}: these are no keys ({error})") from error
            return self._keys[1]


def _safe(what: str, url: str) -> str:
    """An address to which secrets may go.

    Raises:
        ValueError: it is not HTTPS, nor this machine.
    """
    parts = urlsplit(url)
    loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and loopback)):
        raise ValueError(f"{what}: {url[:200]} is no https:// address")
    return url


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path as Keycloak's realm_access.roles."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
