"""The way in and out where an OpenID Connect provider signs people in: to it, back from it, and a session's end."""

from __future__ import annotations

import logging

from starlette.responses import RedirectResponse, Response

from agent.utility.web.app import Asked, Handler, Refused
from agent.utility.web.signin.oidc import CALLBACK, LOGIN_LIFETIME_S, SIGNED_OUT, Provider, ProviderAway, SignInRefused
from agent.utility.web.signin.people import Role
from agent.utility.web.signin.sessions import Sessions

log = logging.getLogger(__name__)
OUT = "out"  # the state of a way out; it says what the page says, and nothing else


def login(asked: Asked) -> Response:
    """To the provider."""
    provider, _ = _parts(asked)
    then = asked.query.get("then", "/")
    # A page of ours and nobody else's: "//host" and "/\host" lead elsewhere.
    if not then.startswith("/") or then[1:2] in {"/", "\\"} or not then.isprintable():
        then = "/"
    try:
        begun = provider.begin(then)
    except ProviderAway as error:
        raise _away(asked, error) from error
    return _with_cookie(asked, begun.url, asked.site.entrance.login_cookie, begun.cookie, int(LOGIN_LIFETIME_S))


def back(asked: Asked) -> Response:
    """From the provider, with its answer in the address."""
    provider, sessions = _parts(asked)
    entrance = asked.site.entrance
    try:
        person, then, id_token = provider.finish(asked.query, asked.cookies.get(entrance.login_cookie, ""))
    except SignInRefused as error:
        log.warning("sign-in refused: %s", error)
        what = asked.words.say("Signing in did not succeed. Begin again.")
        raise Refused(403, f"{what} ({error})") from error
    except ProviderAway as error:
        raise _away(asked, error) from error
    log.info("%s has signed in as %s", person.name, person.role.name.lower())
    response = _with_cookie(asked, then, entrance.session_cookie, sessions.begin(person, id_token), sessions.lifetime_s)
    _forget(asked, response, entrance.login_cookie)
    return response


def logout(asked: Asked) -> Response:
    """The end of the session here, and on to the provider's, if it says where that ends."""
    provider, sessions = _parts(asked)
    entrance = asked.site.entrance
    try:
        there = provider.sign_out(sessions.id_token(asked.cookies.get(entrance.session_cookie, "")), OUT)
    except ProviderAway as error:
        log.warning("%s", error)  # whoever wants out gets out
        there = None
    response: Response = RedirectResponse(SIGNED_OUT, 303)
    if there is not None:
        # A page and not a redirect: the policy lets a form lead to us alone, by whichever way round.
        response = asked.page("signed_out.html", there=there)
        response.headers["refresh"] = f"0; url={there}"
    _forget(asked, response, entrance.session_cookie)
    return response


def signed_out(asked: Asked) -> Response:
    """Where one is then; the provider sends people here with the state that it was given."""
    return asked.page("signed_out.html", there="", everywhere=asked.query.get("state") == OUT)


def _parts(asked: Asked) -> tuple[Provider, Sessions]:
    provider, sessions = asked.site.entrance.provider, asked.site.entrance.sessions
    assert provider is not None
    assert sessions is not None
    return provider, sessions


def _away(asked: Asked, error: ProviderAway) -> Refused:
    log.warning("%s", error)
    return Refused(502, asked.words.say("The service that signs people in does not answer now; try again in a minute."))


def _with_cookie(asked: Asked, to: str, name: str, value: str, lifetime_s: int) -> Response:
    response = RedirectResponse(to, 303)
    # Lax, not strict: the browser comes back from another site, and must bring it along.
    response.set_cookie(
        name, value, max_age=lifetime_s, path="/", samesite="lax", httponly=True, secure=asked.site.settings.secure
    )
    return response


def _forget(asked: Asked, response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", samesite="lax", httponly=True, secure=asked.site.settings.secure)


ENTRANCES: tuple[tuple[str, Handler, Role | None, bool], ...] = (  # the last: whether it changes something
    ("/login", login, None, False),
    (CALLBACK, back, None, False),
    ("/logout", logout, Role.VIEWER, True),
    (SIGNED_OUT, signed_out, None, False),
)
