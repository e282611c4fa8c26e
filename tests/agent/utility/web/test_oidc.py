"""Signing in with an OpenID Connect provider: a real one in a process of its own, and every way in which it may lie."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.utility.fleet import four_eyes
from agent.utility.sql.store import open_store
from agent.utility.web.app import application
from agent.utility.web.settings import Settings
from agent.utility.web.signin.entrance import SESSION_COOKIE
from agent.utility.web.signin.people import Person, Role
from agent.utility.web.signin.sessions import Sealer, Sessions

oidc = pytest.importorskip("agent.utility.web.signin.oidc", reason="authlib is not installed")
httpx = pytest.importorskip("httpx")
SECRET = "a-secret-of-the-client-that-is-long"
ROLES = {"field-service": Role.INSPECTOR, "it": Role.OPERATOR}


class Running(NamedTuple):
    """The provider's process, its address, and the page's public one."""

    issuer: str
    public_url: str

    def next(self, **what: Any) -> int:
        """Who signs in next, and the fault to make; returns how many it has signed out."""
        return int(httpx.post(self.issuer + "/next", json=what).raise_for_status().json()["signed_out"])

    def settings(self, **more: Any) -> Any:
        return oidc.Oidc(self.issuer, "fleet", self.public_url, SECRET, roles=ROLES, **more)


@pytest.fixture(scope="module")
def provider() -> Iterator[Running]:
    public_url = "http://localhost"
    command = [sys.executable, str(Path(__file__).parent / "provider.py"), "fleet", SECRET, public_url + oidc.CALLBACK]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    issuer = process.stdout.readline().strip()
    assert issuer.startswith("http://127.0.0.1:")
    yield Running(issuer, public_url)
    process.kill()
    process.wait(10)
    process.stdout.close()


def app(fleet: Any, provider: Running, **more: Any) -> Any:
    return application(Settings(fleet.dsn, oidc=provider.settings(**more)))


class Browser:
    """Goes to the page in this process and to the provider over the network, and keeps its cookies."""

    def __init__(self, app: Any, ask: Any) -> None:
        self.app, self.ask, self.cookies = app, ask, {}

    def get(self, path: str, method: str = "GET", **more: Any) -> Any:
        headers = {"cookie": "; ".join(f"{n}={v}" for n, v in self.cookies.items()), **more.pop("headers", {})}
        answer = self.ask(self.app, method, path, headers=headers, **more)
        for name, value in answer.cookies.items():
            self.cookies[name] = value
        for gone in re.findall(r'([\w-]+)=""; ', " ".join(answer.headers.get_list("set-cookie"))):
            self.cookies.pop(gone, None)
        return answer

    def to_provider(self, path: str = "/") -> str:
        """Opens a page, is sent to the provider, and comes back with this path and query."""
        away = self.get(path)
        assert away.status_code == 303, away.text
        there = self.get(away.headers["location"])
        assert there.status_code == 303, there.text
        answer = httpx.get(there.headers["location"])
        assert answer.status_code == 302, answer.text
        back = urlsplit(answer.headers["location"])
        return f"{back.path}?{back.query}"

    def sign_in(self, path: str = "/") -> Any:
        return self.get(self.to_provider(path))


def test_the_whole_way_in_with_a_role_from_a_claim_and_out_again(fleet: Any, provider: Running, ask: Any) -> None:
    browser = Browser(app(fleet, provider), ask)
    provider.next(claims={"preferred_username": "ana", "groups": ["x", "field-service"]})
    wanted = "/cases?state=all&sort=age"
    done = browser.sign_in(wanted)
    assert (done.status_code, done.headers["location"]) == (303, wanted)
    assert list(browser.cookies) == [SESSION_COOKIE], "what was carried to the provider is forgotten"
    cookie = next(c for c in done.headers.get_list("set-cookie") if c.startswith(SESSION_COOKIE))
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    case = f"/case/{fleet.cases[0]}"
    page = browser.get(case).text
    assert "ana" in page
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    form = {"csrf": csrf.group(1), "outcome": "theft", "note": "seal broken"}
    assert browser.get(f"{case}/outcome", "POST", data=form).status_code == 303
    with open_store(fleet.dsn) as store:
        assert store.rows("SELECT inspector, note FROM outcome") == [("ana", "seal broken")]
        assert store.rows("SELECT who, role, action FROM audit") == [("ana", "inspector", "outcome")]
    assert browser.get("/audit").status_code == 403
    assert browser.get("/logout", "POST").status_code == 403, "without a token nobody is signed out by another site"
    assert browser.get("/logout", "POST", data={"csrf": csrf.group(1)}).headers["location"] == "/signed-out"
    assert browser.cookies == {}
    assert "Signed out" in browser.get("/signed-out").text
    assert browser.get("/cases").status_code == 303


@pytest.mark.parametrize(
    ("said", "options", "role"),
    [
        ({"claims": {"groups": ["it"]}}, {}, Role.OPERATOR),
        ({"claims": {"groups": "it"}}, {}, Role.OPERATOR),
        ({"claims": {"groups": ["IT", "Field-Service", 7, None]}}, {}, Role.VIEWER),
        ({"claims": {"groups": {"it": True}}}, {}, Role.VIEWER),
        ({"claims": {"realm_access": {"roles": ["it"]}}}, {"roles_claim": "realm_access.roles"}, Role.OPERATOR),
        ({"claims": {"https://x.example/r": ["it"]}}, {"roles_claim": "https://x.example/r"}, Role.OPERATOR),
        ({"userinfo": {"groups": ["field-service"]}}, {}, Role.INSPECTOR),
        ({}, {}, Role.VIEWER),
    ],
)
def test_roles(fleet: Any, provider: Running, ask: Any, said: Any, options: Any, role: Role) -> None:
    provider.next(**{**said, "claims": {"preferred_username": "ben", **said.get("claims", {})}})
    browser = Browser(app(fleet, provider, **options), ask)
    assert browser.sign_in().status_code == 303
    assert browser.get("/audit").status_code == (200 if role is Role.OPERATOR else 403)
    assert ("Record an outcome" in browser.get(f"/case/{fleet.cases[0]}").text) is (role >= Role.INSPECTOR)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nonce", "not valid"), ("no nonce", "not valid"), ("audience", "not valid"), ("issuer", "not valid"),
        ("expired", "not valid"), ("at_hash", "not valid"), ("party", "not valid"), ("unsigned", "not valid"),
        ("secret", "not valid"), ("stranger", "not valid"), ("no token", "no ID token"), ("denied", "access_denied"),
        ("mixed up", "another provider"),
    ],
)  # fmt: skip
def test_what_is_not_believed(fleet: Any, provider: Running, ask: Any, fault: str, reason: str) -> None:
    provider.next(fault=fault, claims={"preferred_username": "eve", "groups": ["it"]})
    browser = Browser(app(fleet, provider), ask)
    answer = browser.sign_in()
    assert answer.status_code == 403
    assert reason in answer.text
    assert SESSION_COOKIE not in browser.cookies
    assert "site-" not in answer.text


@pytest.mark.parametrize(
    "claims",
    [{}, *({"preferred_username": name} for name in ("  ", 7, "a\nb", "a\u202eb", "x" * 65))],
)
def test_somebody_without_a_name_does_not_come_in(fleet: Any, provider: Running, ask: Any, claims: Any) -> None:
    provider.next(claims=claims)
    assert "gives no name" in Browser(app(fleet, provider), ask).sign_in().text


def test_user_info_of_somebody_else(fleet: Any, provider: Running, ask: Any) -> None:
    provider.next(claims={"preferred_username": "ana"}, userinfo={"sub": "subject-2", "groups": ["it"]})
    assert "somebody else" in Browser(app(fleet, provider), ask).sign_in().text


def test_an_answer_counts_in_the_browser_that_asked_and_once(fleet: Any, provider: Running, ask: Any) -> None:
    provider.next(claims={"preferred_username": "ana"})
    page = app(fleet, provider)
    mine, other = Browser(page, ask), Browser(page, ask)
    path = mine.to_provider()
    assert "not begun here" in other.get(path).text, "another browser has no part in it"
    other.to_provider()
    assert "not begun here" in other.get(path).text, "nor one with a sign-in of its own"
    carried = dict(mine.cookies)
    assert mine.get(path).status_code == 303
    assert "not begun here" in mine.get(path).text
    mine.cookies = carried
    assert "invalid_grant" in mine.get(path).text, "the code itself counts once, too"


def test_who_signs_out_is_signed_out_at_the_provider_too(fleet: Any, provider: Running, ask: Any) -> None:
    before = provider.next(claims={"preferred_username": "ana"}, ends=True)
    browser = Browser(app(fleet, provider), ask)
    browser.sign_in()
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/").text)
    assert csrf is not None
    out = browser.get("/logout", "POST", data={"csrf": csrf.group(1)})
    assert (out.status_code, browser.cookies) == (200, {})
    assert "form-action 'self'" in out.headers["content-security-policy"], "no redirect of a form leads elsewhere"
    there = out.headers["refresh"].removeprefix("0; url=")
    assert there.replace("&", "&amp;") in out.text, "also where a browser does not follow by itself"
    back = httpx.get(there)
    assert back.status_code == 302, back.text
    assert back.headers["location"] == "http://localhost/signed-out?state=out"
    assert "and the one at the service" in browser.get("/signed-out?state=out").text
    assert "may still be signed in" in browser.get("/signed-out").text
    assert provider.next() == before + 1
    assert browser.get("/cases").status_code == 303


def test_an_id_token_that_is_too_large_for_a_cookie_stays_behind() -> None:
    sessions = Sessions(b"k" * 32, 3600)
    for token, kept in (("a" * 900, "a" * 900), ("a" * 9000, ""), ("", "")):
        cookie = sessions.begin(Person("ana", Role.VIEWER), token)
        assert len(cookie) < 3600
        assert sessions.person(cookie) == Person("ana", Role.VIEWER)
        assert sessions.id_token(cookie) == kept
    assert sessions.id_token("x") == ""


def test_a_role_that_was_taken_away_is_gone_with_the_session(
    fleet: Any, provider: Running, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's own session goes on: it sends the browser back at once, with what the person may now."""
    key = "k" * 32
    monkeypatch.setenv("CHECKMETER_CSRF_KEY", key)
    page = application(Settings(fleet.dsn, oidc=provider.settings(), session_hours=0.1))
    provider.next(claims={"preferred_username": "ana", "groups": []})  # since a moment ago
    browser = Browser(page, ask)
    for age_s, status in ((350, 200), (370, 303)):
        began = Sessions(key.encode(), 1.0, lambda age_s=age_s: time.time() - age_s)
        browser.cookies[SESSION_COOKIE] = began.begin(Person("ana", Role.OPERATOR))
        assert browser.get("/audit").status_code == status
    assert browser.sign_in("/audit").headers["location"] == "/audit"
    assert browser.get("/audit").status_code == 403


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_provider_that_drips_is_given_up(provider: Running, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Each octet comes in time, the whole never does."""
    monkeypatch.setattr(oidc.bound, "__defaults__", (0.5,))
    provider.next(**{part: True})
    one = oidc.Provider(oidc.Oidc(provider.issuer + "/drip", "fleet", "http://localhost", SECRET), b"k" * 32)
    with pytest.raises(oidc.ProviderAway, match=r"no whole answer within 0\.5 s"):
        one.about()


def test_an_answer_without_end_is_not_kept(provider: Running) -> None:
    one = oidc.Provider(oidc.Oidc(provider.issuer + "/huge", "fleet", "http://localhost", SECRET), b"k" * 32)
    with pytest.raises(oidc.ProviderAway, match="more than 1048576 octets"):
        one.about()


def test_it_leads_to_pages_of_ours_only(fleet: Any, provider: Running, ask: Any) -> None:
    provider.next(claims={"preferred_username": "ana"})
    page = app(fleet, provider)
    for evil in ("//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a%0d%0ab"):
        browser = Browser(page, ask)
        there = browser.get(f"/login?then={evil}")
        back = urlsplit(httpx.get(there.headers["location"]).headers["location"])
        assert browser.get(f"{back.path}?{back.query}").headers["location"] == "/", evil


def test_new_keys_of_the_provider_are_found(provider: Running) -> None:
    now = [time.time()]
    one = oidc.Provider(provider.settings(), b"k" * 32, lambda: now[0])
    for fault in ("", "new keys"):
        provider.next(fault=fault, claims={"preferred_username": "ana", "groups": ["it"]})
        now[0] += 2 * oidc.KEYS_AGAIN_S
        begun = one.begin("/")
        back = urlsplit(httpx.get(begun.url).headers["location"])
        answer = {name: values[0] for name, values in parse_qs(back.query).items()}
        assert one.finish(answer, begun.cookie).person == Person("ana", Role.OPERATOR)


def test_a_provider_that_is_away(fleet: Any, ask: Any) -> None:
    settings = Settings(fleet.dsn, oidc=oidc.Oidc("http://127.0.0.1:9", "fleet", "http://localhost", SECRET))
    browser = Browser(application(settings), ask)
    away = browser.get("/")
    answer = browser.get(away.headers["location"])
    assert answer.status_code == 502
    assert "does not answer" in answer.text
    assert browser.get("/health").status_code == 200, "a load balancer asks without signing in"


def test_not_everybody_waits_for_a_provider_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [1_000_000.0], []

    def hang(_: object, url: str, **__: object) -> None:
        asked.append(url)
        raise oidc.requests.Timeout("nothing came")

    monkeypatch.setattr(oidc.requests.Session, "get", hang)
    one = oidc.Provider(oidc.Oidc("http://127.0.0.1:9", "fleet", "http://localhost", SECRET), b"k" * 32, lambda: now[0])
    for _ in range(5):
        with pytest.raises(oidc.ProviderAway, match="nothing came"):
            one.begin("/")
    assert len(asked) == 1
    now[0] += oidc.AWAY_S
    with pytest.raises(oidc.ProviderAway):
        one.begin("/")
    assert len(asked) == 2


def test_a_page_that_loads_itself_again_stays_where_it_is(fleet: Any, provider: Running, ask: Any) -> None:
    browser = Browser(app(fleet, provider), ask)
    assert browser.get("/cases", headers={"sec-fetch-mode": "cors"}).status_code == 401
    assert browser.get(f"/case/{fleet.cases[0]}/outcome", "POST", data={"outcome": "theft"}).status_code == 401
    assert browser.get("/cases", headers={"x-forwarded-user": "olga", "x-forwarded-groups": "it"}).status_code == 303


def test_two_pairs_of_eyes_by_two_sign_ins(fleet: Any, provider: Running, ask: Any) -> None:
    with open_store(fleet.dsn) as store:
        four_eyes.decide(store, True, "chief", "shell", time.time())
    case, page = f"/case/{fleet.cases[0]}", app(fleet, provider)
    people = []
    for name in ("ana", "ben"):
        provider.next(claims={"preferred_username": name, "groups": ["field-service"]})
        people.append(Browser(page, ask))
        people[-1].sign_in()

    def values(browser: Browser) -> dict[str, str]:
        return dict(re.findall(r'name="(csrf|seen)" value="([^"]+)"', browser.get(case).text))

    ana, ben = people
    assert ana.get(f"{case}/outcome", "POST", data={**values(ana), "outcome": "theft"}).status_code == 303
    assert ana.get(f"{case}/confirm", "POST", data={**values(ana), "seen": values(ben)["seen"]}).status_code == 409
    assert ben.get(f"{case}/confirm", "POST", data=values(ben)).status_code == 303
    with open_store(fleet.dsn) as store:
        assert store.rows("SELECT inspector, confirmed_by FROM valid_outcome") == [("ana", "ben")]


class TestSessions:
    def test_end_with_their_time(self) -> None:
        now = [1_000_000.0]
        sessions = Sessions(b"k" * 32, 3600, lambda: now[0])
        cookie = sessions.begin(Person("ana", Role.OPERATOR))
        assert sessions.person(cookie) == Person("ana", Role.OPERATOR)
        now[0] += 3601
        assert sessions.person(cookie) is None

    def test_are_ours_alone(self) -> None:
        sessions = Sessions(b"k" * 32, 3600)
        cookie = sessions.begin(Person("ana", Role.VIEWER))
        assert Sessions(b"l" * 32, 3600).person(cookie) is None
        carried = Sealer(b"k" * 32, "login", 3600).seal({"name": "ana", "role": 2})
        for made in (carried, "", "x", "ü", "a" * 5000, cookie[:-2], cookie[:40] + "AAAA" + cookie[44:]):
            assert sessions.person(made) is None

    def test_over_https_the_cookies_are_bound_to_the_host(self, fleet: Any, provider: Running, ask: Any) -> None:
        settings = oidc.Oidc(provider.issuer, "fleet", "https://fleet.example", SECRET)
        page = application(Settings(fleet.dsn, oidc=settings, secure=True))
        (cookie,) = ask(page, "GET", "/login").headers.get_list("set-cookie")
        assert cookie.startswith("__Host-checkmeter-login=")
        assert "Secure" in cookie


def test_the_verb_says_at_once_that_the_provider_is_called_otherwise(
    fleet: Any, provider: Running, serve: Any, tmp_path: Path
) -> None:
    options = ["--oidc-issuer", provider.issuer + "/", "--oidc-client", "fleet", "--public-url", "http://localhost"]
    serve(fleet.dsn, *options)
    log = (tmp_path / "serve.log").read_text()
    assert f"it calls itself {provider.issuer}" in log
    assert "nobody can sign in now" in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--oidc-issuer", "https://id.example"], "--oidc-client"),
        (["--oidc-issuer", "http://id.example", "--oidc-client", "a", "--public-url", "https://x.example"], "https://"),
        (["--oidc-issuer", "https://id.example", "--oidc-client", "a", "--public-url", "http://x.example"], "https://"),
        (["--oidc-issuer", "https://id.example", "--trusted-proxy", "127.0.0.1"], "one of them"),
    ],
)
def test_what_the_verb_refuses(fleet: Any, options: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["utility", "serve", "--store", fleet.dsn, *options])
    assert result.exit_code in {1, 2}
    assert message in result.output


def test_a_key_that_is_too_short(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKMETER_CSRF_KEY", "short")
    options = ["--oidc-issuer", "https://id.example", "--oidc-client", "a", "--public-url", "https://x.example"]
    result = CliRunner().invoke(cli, ["utility", "serve", "--store", fleet.dsn, *options])
    assert (result.exit_code, "32 characters" in result.output) == (1, True), result.output
