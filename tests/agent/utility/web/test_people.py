"""Who may do what: roles by the proxy's headers, tokens, the second pair of eyes, the audit log, hosts, rates."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from agent.utility.fleet import four_eyes
from agent.utility.sql.store import open_store
from agent.utility.web.app import application
from agent.utility.web.guard import CSRF_LIFETIME_S, MAX_CLIENTS, Csrf, Rate
from agent.utility.web.settings import Settings
from agent.utility.web.signin.people import NotSignedIn, Proxy, Role, who

PROXY = Proxy(addresses=("127.0.0.1",), roles={"inspectors": Role.INSPECTOR, "ops": Role.OPERATOR})


def signed(name: str, groups: str = "") -> dict[str, str]:
    return {"x-forwarded-user": name, "x-forwarded-groups": groups}


ANA, BEN, OPS, EVE = (
    signed("ana", "x, inspectors"),
    signed("ben", "inspectors"),
    signed("olga", "ops"),
    signed("eve", "x"),
)


@pytest.fixture
def app(fleet: Any) -> Any:
    with open_store(fleet.dsn) as store:
        four_eyes.decide(store, True, "chief", "shell", time.time())
        store.rows("DELETE FROM audit")
    return application(Settings(fleet.dsn, proxy=PROXY))


def token(ask: Any, app: Any, path: str, headers: dict[str, str]) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', ask(app, "GET", path, headers=headers).text)
    assert found
    return found.group(1)


def test_an_outcome_with_two_pairs_of_eyes_and_its_trace(fleet: Any, app: Any, ask: Any) -> None:
    case = f"/case/{fleet.cases[0]}"
    form = {"csrf": token(ask, app, case, ANA), "outcome": "theft", "meter": "flat-001", "note": "seal broken"}
    answer = ask(app, "POST", f"{case}/outcome", headers=ANA, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{case}?done=recorded")
    assert 'name="seen"' not in ask(app, "GET", case, headers=ANA).text, "no form for her own"
    page = ask(app, "GET", case, headers=BEN).text
    assert "another person has confirmed" in page
    seen = re.search(r'name="seen" value="(\d+)"', page).group(1)  # type: ignore[union-attr]
    for name in ("ana", "ANA", " a na"):
        own = signed(name, "inspectors")
        sent = {"csrf": token(ask, app, case, own), "seen": seen}
        answer = ask(app, "POST", f"{case}/confirm", headers=own, data=sent)
        assert (answer.status_code, "somebody else" in answer.text) == (409, True)
    csrf = token(ask, app, case, BEN)
    stale = ask(app, "POST", f"{case}/confirm", headers=BEN, data={"csrf": csrf, "seen": str(int(seen) - 1)})
    assert (stale.status_code, "changed in the meantime" in stale.text) == (409, True)
    assert ask(app, "POST", f"{case}/confirm", headers=BEN, data={"csrf": csrf}).status_code == 400
    done = ask(app, "POST", f"{case}/confirm", headers=BEN, data={"csrf": csrf, "seen": seen})
    assert done.status_code == 303
    with open_store(fleet.dsn) as store:
        assert store.rows("SELECT outcome, meter, note, inspector, confirmed_by FROM outcome") == [
            ("theft", "flat-001", "seal broken", "ana", "ben")
        ]
        assert store.rows("SELECT who, role, action FROM audit ORDER BY action DESC") == [
            ("ana", "inspector", "outcome"), ("ben", "inspector", "confirm"),
        ]  # fmt: skip
    assert "seal broken" in ask(app, "GET", case, headers=EVE).text
    assert "ana" in ask(app, "GET", "/audit", headers=OPS).text
    assert ask(app, "GET", "/audit", headers=ANA).status_code == 403
    # Said again without a meter, by somebody else: the meter stays, and it is to be confirmed anew.
    again = {"csrf": token(ask, app, case, BEN), "outcome": "theft", "meter": "", "note": ""}
    assert ask(app, "POST", f"{case}/outcome", headers=BEN, data=again).status_code == 303
    with open_store(fleet.dsn) as store:
        assert store.rows("SELECT meter, inspector, confirmed_by FROM outcome") == [("flat-001", "ben", None)]


@pytest.mark.parametrize(
    ("headers", "form", "status"),
    [
        (EVE, {"outcome": "theft"}, 403),
        (ANA, {"outcome": "theft", "csrf": "1.0"}, 403),
        (ANA, {"outcome": "theft", "csrf": ""}, 403),
        (ANA, {"outcome": "murder"}, 400),
        (ANA, {"outcome": "fault", "meter": "flat-001"}, 400),
        (ANA, {"outcome": "theft", "meter": "<b>"}, 400),
        (ANA, {"outcome": "theft", "note": "a\nb"}, 400),
        (ANA, {"outcome": "theft", "note": "x" * 256}, 400),
        (ANA, {"outcome": "theft", "day": "2999-01-01"}, 400),
        (ANA, {"outcome": "theft", "day": "yesterday"}, 400),
        ({}, {"outcome": "theft"}, 401),
    ],
)
def test_what_is_not_carried_out(
    fleet: Any, app: Any, ask: Any, headers: dict[str, str], form: dict[str, str], status: int
) -> None:
    case = f"/case/{fleet.cases[0]}"
    if "csrf" not in form:
        form = {**form, "csrf": token(ask, app, case, ANA)}
    assert ask(app, "POST", f"{case}/outcome", headers=headers, data=form).status_code == status
    with open_store(fleet.dsn) as store:
        assert store.rows("SELECT COUNT(*) FROM outcome") == [(0,)]
        assert store.rows("SELECT COUNT(*) FROM audit") == [(0,)]


def test_a_token_is_its_persons_and_has_its_time() -> None:
    now = [1000.0]
    csrf = Csrf(b"key", lambda: now[0])
    made = csrf.token("ana")
    assert csrf.holds("ana", made)
    assert not csrf.holds("ben", made)
    assert not Csrf(b"other", lambda: now[0]).holds("ana", made)
    assert not csrf.holds("ana", made[:-1] + ("0" if made[-1] != "0" else "1"))
    now[0] += CSRF_LIFETIME_S + 1
    assert not csrf.holds("ana", made)
    assert not csrf.holds("ana", "99999999999999999999.ff")


def test_headers_count_only_from_the_proxy() -> None:
    assert who(PROXY, "127.0.0.1", signed("ana", "inspectors")).role is Role.INSPECTOR
    assert who(PROXY, "127.0.0.1", signed("ana", "INSPECTORS,root")).role is Role.VIEWER
    for client, headers in (("10.0.0.9", signed("ana", "ops")), ("127.0.0.1", {}), ("127.0.0.1", signed("a\x07", ""))):
        with pytest.raises(NotSignedIn):
            who(PROXY, client, headers)
    nobody = who(None, "127.0.0.1", signed("ana", "ops"))
    assert (nobody.name, nobody.role) == ("", Role.VIEWER), "without a proxy a header is nothing"
    network = Proxy(addresses=("10.1.0.0/16",))
    assert who(network, "10.1.7.7", signed("ana")).name == "ana"


def test_somebody_who_came_past_the_proxy_sees_nothing(app: Any, ask: Any) -> None:
    answer = ask(app, "GET", "/cases", client="192.0.2.7", headers=OPS)
    assert answer.status_code == 401
    assert "site-" not in answer.text


def test_hosts_methods_and_sizes(full: Any, ask: Any) -> None:
    app = application(Settings(full.dsn))
    assert ask(app, "GET", "/", headers={"host": "evil.example"}).status_code == 421
    assert ask(app, "GET", "/", headers={"host": "localhost:8080"}).status_code == 200
    assert ask(app, "GET", "/", headers={"host": "[::1]:8080"}).status_code == 200
    assert ask(app, "DELETE", "/").status_code == 405
    assert ask(app, "POST", f"/case/{full.cases[0]}/outcome", content=b"x" * 20_000).status_code == 413
    assert ask(app, "GET", "/static/../app.py").status_code == 404
    assert ask(app, "GET", "/static/%2e%2e/app.py").status_code == 404


def test_behind_a_proxy_each_person_has_a_rate(full: Any, ask: Any) -> None:
    app = application(Settings(full.dsn, proxy=PROXY, requests_per_s=0.001, burst=2))
    assert [ask(app, "GET", "/health", headers=ANA).status_code for _ in range(3)] == [200, 200, 429]
    assert ask(app, "GET", "/health", headers=BEN).status_code == 200
    assert ask(app, "GET", "/gateways", client="192.0.2.1", headers=ANA).status_code == 401, "not ana's, and not let in"


def test_a_client_that_asks_too_often_waits() -> None:
    now = [0.0]
    rate = Rate(2.0, 4, lambda: now[0])
    assert [rate.allows("a") for _ in range(6)] == [True] * 4 + [False] * 2
    assert rate.allows("b")
    now[0] = 1.0
    assert [rate.allows("a") for _ in range(3)] == [True, True, False]
    for n in range(MAX_CLIENTS + 10):
        rate.allows(str(n))
    assert len(rate._buckets) <= MAX_CLIENTS
