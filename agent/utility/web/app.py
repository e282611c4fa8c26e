"""The application: addresses, who may open them, and how an error looks. Pages are pages.py's and actions.py's.

Handlers are plain functions that run in a pool of threads, each with its own connection to the store. What a handler
gets is an `Asked`, what it gives back a Starlette response.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, quote

import anyio.to_thread
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from agent.process.clock import SystemClock
from agent.utility.sql.server import StoreError, StoreMisfit
from agent.utility.web.guard import MAX_FORM_OCTETS, Csrf, Guard, Rate
from agent.utility.web.reads import Kept, Stores
from agent.utility.web.settings import Settings
from agent.utility.web.signin.entrance import Entrance
from agent.utility.web.signin.people import NotSignedIn, Person, Role
from agent.utility.web.words import LANGUAGES, Words, chosen
from firmware_io.clock import Clock

log = logging.getLogger(__name__)
HERE = Path(__file__).parent
LANGUAGE_COOKIE = "checkmeter-language"


@dataclass(slots=True)
class Site:
    """What all requests share."""

    settings: Settings
    stores: Stores
    kept: Kept
    csrf: Csrf
    pages: Environment
    entrance: Entrance
    clock: Clock = field(default_factory=SystemClock)


@dataclass(slots=True)
class Asked:
    """One request, as a handler sees it."""

    site: Site
    person: Person
    words: Words
    path: str
    names: dict[str, str]
    query: dict[str, str]
    form: dict[str, str]
    cookies: dict[str, str]

    def page(self, template: str, status: int = 200, **values: object) -> HTMLResponse:
        """Fill a template."""
        settings = self.site.settings
        text = self.site.pages.get_template(template).render(
            w=self.words,
            _=self.words.say,
            some=self.words.some,
            person=self.person,
            Role=Role,
            settings=settings,
            languages=LANGUAGES,
            path=self.path,
            query=self.query,
            now_s=self.site.clock.now(),
            csrf=self.site.csrf.token(self.person.name),
            sessions=self.site.entrance.sessions is not None,
            **values,
        )
        return HTMLResponse(text, status)


class Refused(Exception):
    """A request that is not carried out: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


Handler = Callable[[Asked], Response]


def endpoint(site: Site, handler: Handler, role: Role | None, *, changes: bool) -> Callable[[Request], object]:
    """An address of the application: who asks, role and token, then the handler in a thread. No role: anybody."""

    async def serve(request: Request) -> Response:
        body = await request.body() if changes else b""
        if len(body) > MAX_FORM_OCTETS:
            return Response("too large", 413)
        form = {name: values[-1] for name, values in parse_qs(body.decode(errors="replace"), max_num_fields=50).items()}
        query = {name: value[:200] for name, value in request.query_params.items()}
        language = chosen(
            query.get("lang", ""), request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
        )
        client = request.client.host if request.client else ""
        asked = Asked(
            site, Person("", Role.VIEWER), Words(language, site.settings.zone), request.url.path,
            {name: str(value) for name, value in request.path_params.items()}, query, form, request.cookies,
        )  # fmt: skip

        def run() -> Response:
            try:
                if role is not None:
                    headers = {k.lower(): v for k, v in request.headers.items()}
                    asked.person = site.entrance.who(client, headers, request.cookies)
                if role is not None and asked.person.role < role:
                    raise Refused(403, asked.words.say("Your role does not allow this."))
                if changes and not site.csrf.holds(asked.person.name, form.get("csrf", "")):
                    raise Refused(403, asked.words.say("This form is too old, or is not ours: load the page again."))
                return handler(asked)
            except NotSignedIn as error:
                # To the provider goes a browser that opens a page; one that loads it again in place gets the 401.
                opens = request.headers.get("sec-fetch-mode", "navigate") == "navigate"
                if site.entrance.provider is not None and opens and not changes:
                    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                    return RedirectResponse(f"/login?then={quote(wanted)}", 303)
                return problem(asked, 401, str(error))
            except Refused as error:
                return problem(asked, error.status, str(error))
            except StoreMisfit as error:
                return problem(asked, 409 if changes else 500, str(error))
            except StoreError as error:
                log.warning("%s: %s", asked.path, error)
                return problem(asked, 503, asked.words.say("The store does not answer now; try again in a minute."))
            except Exception:
                log.exception("%s", asked.path)
                return problem(asked, 500, asked.words.say("This page has a fault; the log has the details."))

        response = await anyio.to_thread.run_sync(run)
        if "lang" in query and query["lang"] in LANGUAGES:
            response.set_cookie(
                LANGUAGE_COOKIE, query["lang"], max_age=31_536_000, samesite="strict", httponly=True,
                secure=site.settings.secure,
            )  # fmt: skip
        return response

    return serve


def problem(asked: Asked, status: int, reason: str) -> Response:
    """An error as a page."""
    return asked.page("problem.html", status, title=HTTPStatus(status).phrase, reason=reason)


def application(settings: Settings, *, warm: bool = False) -> Guard:
    """The whole thing, as an ASGI application; with `warm`, what reads the whole fleet is asked for beforehand."""
    from agent.utility.web import actions, pages

    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    key = os.environ.get("CHECKMETER_CSRF_KEY", "").encode() or secrets.token_bytes(32)
    entrance = Entrance(settings.proxy, settings.oidc, key, 3600 * settings.session_hours)
    stores = Stores(settings.dsn)
    site = Site(settings, stores, Kept(stores), Csrf(key), environment, entrance)
    if warm:
        pages.warm(site)
    routes: list[Route | Mount] = []
    if entrance.provider is not None:
        from agent.utility.web.login import ENTRANCES

        for path, handler, needed, changes in ENTRANCES:
            methods = ["POST" if changes else "GET"]
            routes.append(Route(path, endpoint(site, handler, needed, changes=changes), methods=methods))
    for path, handler, needed in pages.PAGES:
        routes.append(Route(path, endpoint(site, handler, needed, changes=False), methods=["GET"]))
    for path, handler, role in actions.ACTIONS:
        routes.append(Route(path, endpoint(site, handler, role, changes=True), methods=["POST"]))
    routes.append(Mount("/static", StaticFiles(directory=HERE / "static")))

    async def missing(request: Request, _: Exception) -> Response:
        language = chosen("", request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", ""))
        words = Words(language, settings.zone)
        asked = Asked(site, Person("", Role.VIEWER), words, request.url.path, {}, {}, {}, {})
        return problem(asked, 404, words.say("There is no such page."))

    inner = Starlette(routes=routes, exception_handlers={404: missing})

    def named(client: str, headers: dict[bytes, bytes]) -> str:
        plain = {k.decode("latin-1"): v.decode("latin-1") for k, v in headers.items()}
        try:
            return entrance.who(client, plain, cookie_parser(plain.get("cookie", ""))).name
        except NotSignedIn:
            return ""

    rate = Rate(settings.requests_per_s, settings.burst)
    return Guard(inner, settings.hosts, rate, lambda c, h: named(c, h) or c, secure=settings.secure)
