"""Every page, in both languages, from a store that simulated gateways have filled; and what hostile names do to it."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.lab.serve import evidence
from agent.cli.main import cli
from agent.utility.fleet import outcomes, queries, realised
from agent.utility.fleet.forecasts import coincident as forecasts_of
from agent.utility.ingest.decode import Reader
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.store import open_store
from agent.utility.web import asks, exports, forecasts, pages
from agent.utility.web.app import application
from agent.utility.web.guard import POLICY
from agent.utility.web.settings import Settings
from agent.utility.web.words import FOLDER, LANGUAGES, Words
from tests.agent.utility.web.conftest import fill

WEB = Path(pages.__file__).parent


def addresses(fleet: Any) -> list[str]:
    place = fleet.building
    return [
        "/", "/cases", "/cases?state=all&sort=age&page=1", f"/case/{fleet.cases[0]}", f"/building/{place}", "/gateways",
        f"/gateway/{place}", "/precision", "/forecast", "/forecast?by=feeder&name=Feeder+2", "/forecast?by=district",
        "/exports", "/search?q=site-0000", "/search?q=%25",
    ]  # fmt: skip


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_page_in_every_language(full: Any, ask: Any, language: str) -> None:
    app = application(Settings(full.dsn, price=0.3, currency="EUR", evidence=evidence))
    for address in addresses(full):
        answer = ask(app, "GET", address, headers={"accept-language": language})
        assert answer.status_code == 200, f"{address}: {answer.text[:500]}"
        assert f'<html lang="{language}">' in answer.text
        assert answer.headers["content-security-policy"] == POLICY
        assert "style=" not in answer.text, "an inline style would need a weaker policy"
        assert not re.search(r"<script(?! src=\"/static/)", answer.text)
    assert ask(app, "GET", "/nowhere").status_code == 404
    assert ask(app, "GET", "/building/a/b/c").status_code == 404
    assert ask(app, "GET", "/building/a/b/%3Cscript%3E").status_code == 404


@pytest.mark.mariadb
@pytest.mark.xdist_group("mariadb")
def test_every_page_and_export_from_a_server_of_the_mysql_family(mariadb: Any, ask: Any) -> None:
    fleet = fill(mariadb.database(), 20, 3, time.time())
    assert fleet.cases
    app = application(Settings(fleet.dsn, price=0.3, currency="EUR", evidence=evidence))
    for address in [*addresses(fleet), *(f"/export/{name}.csv" for name in exports.EXPORTS)]:
        answer = ask(app, "GET", address)
        assert answer.status_code == 200, f"{address}: {answer.text[:500]}"
    assert "kWh" in ask(app, "GET", f"/building/{fleet.building}").text


def test_the_figures_are_the_stores(full: Any, ask: Any) -> None:
    app = application(Settings(full.dsn))
    with open_store(full.dsn) as store:
        today = int(time.time() // 86_400)
        kwh = store.rows(
            "SELECT SUM(residual_j) / 3600000.0 FROM balance_day WHERE day >= ? AND day < ?", (today - 30, today)
        )[0][0]
        cases = store.rows("SELECT COUNT(*) FROM open_case")[0][0]
    text = ask(app, "GET", "/").text
    assert f"<strong>{Words('en', Settings('').zone).number(kwh, 0)} kWh</strong>" in text
    assert f"<strong>{cases}</strong>" in text
    lines = list(csv.DictReader(io.StringIO(ask(app, "GET", "/export/cases.csv").text.lstrip("\ufeff"))))
    assert len(lines) == cases


def test_the_coincident_peaks_are_those_of_the_verb_and_what_came_true_stands_beside(full: Any, ask: Any) -> None:
    app = application(Settings(full.dsn))
    with open_store(full.dsn) as store:
        now_s = time.time()
        first, *_ = forecasts_of(store, now_s, "district")
        skill = realised.skill(store, now_s, 28).rows
    number = Words("en", Settings("").zone).number
    text = ask(app, "GET", f"/forecast?by=district&name={first.name.replace(' ', '+')}").text
    assert f"<strong>{number(first.forecast.peak_w[9] / 1000)} kW</strong>" in text
    assert f"<h2>{first.name}</h2>" in text
    assert skill
    assert f'<td class="n">{number(100 * skill[0][2], 1)} %</td>' in text
    assert "which of these it belongs to" not in text


def test_parquet_holds_what_the_csv_holds(full: Any, ask: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    app = application(Settings(full.dsn))
    table = parquet.read_table(io.BytesIO(ask(app, "GET", "/export/losses.parquet").content))
    rows = list(csv.DictReader(io.StringIO(ask(app, "GET", "/export/losses.csv").text.lstrip("\ufeff"))))
    assert table.num_rows == len(rows) == 60
    assert table.column("unexplained_kwh").to_pylist() == [float(row["unexplained_kwh"]) for row in rows]


def test_an_empty_store_says_why_there_is_nothing(tmp_path: Path, ask: Any) -> None:
    dsn = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    with open_store(dsn, make=True) as store:
        store.migrate(time.time())
    app = application(Settings(dsn))
    assert "show here tomorrow" in ask(app, "GET", "/").text
    for address in ("/cases", "/gateways", "/precision", "/search?q=x"):
        assert ask(app, "GET", address).status_code == 200


def test_a_case_of_which_only_the_state_is_known_has_a_page_that_says_so(tmp_path: Path, ask: Any) -> None:
    now_s = time.time()
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    data = wire.AlertData(
        alert_id="case-1", revision=3, state="updated", kind="bypass", severity="critical",
        onset=wire.utc(now_s - 7200), zone="z", loss_w=512.0,
        suspects=[wire.SuspectData(meter="flat-7", probability=0.9)],
    )  # fmt: skip
    active = wire.ActiveSnapshot(time=wire.utc(now_s), alerts=[data])
    with open_store(dsn, make=True) as store:
        store.migrate(now_s)
        topic = wire.Address("t", "s", "g").topic("active").encode()
        store.apply([Reader(lambda: now_s).read(Publish(topic, 1, wire.encode(active), False))])
    app = application(Settings(dsn))
    (link,) = re.findall(r'href="(/case/[^"]+)"', ask(app, "GET", "/cases").text)
    answer = ask(app, "GET", link)
    assert answer.status_code == 200
    for text in ("Only the state of this case is known", "resend", "512", "flat-7"):
        assert text in answer.text
    assert ask(app, "GET", "/case/t/s/g/case-2").status_code == 404


def test_a_surplus_and_a_case_without_loss_are_told_as_they_are(tmp_path: Path, ask: Any) -> None:
    """Energy that was found is never negative, whatever an estimate ended at."""
    now_s = time.time()
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"

    def alert(alert_id: str, loss_w: float | None, loss_kwh: float | None, **more: Any) -> wire.AlertData:
        kind = more.pop("kind", "bypass")
        return wire.AlertData(
            alert_id=alert_id, revision=3, kind=kind, severity="warning", onset=wire.utc(now_s - 7200), zone="z",
            loss_w=loss_w, loss_kwh=loss_kwh, **{"state": "updated", **more},
        )  # fmt: skip

    said = [
        alert("surplus", -50.0, -3.0, kind="balance_surplus"),
        alert("withdrawn", 0.0, 0.0, state="cleared"),
        alert("over", -0.4, -0.3, state="cleared"),
        alert("thief", 500.0, 10.0, upstream_probability=0.0),
        alert("tap", 400.0, 8.0, upstream_probability=0.6, unexplained_probability=0.1,
              suspects=[wire.SuspectData(meter="flat-1", probability=0.3)]),
        alert("unknown", None, None),
    ]  # fmt: skip
    with open_store(dsn, make=True) as store:
        store.migrate(now_s)
        topic = wire.Address("t", "s", "g").topic("active").encode()
        active = wire.ActiveSnapshot(time=wire.utc(now_s), alerts=said)
        store.apply([Reader(lambda: now_s).read(Publish(topic, 1, wire.encode(active), False))])
        for alert_id in ("thief", "over", "surplus", "unknown"):
            outcomes.record(store, alert_id, None, outcomes.Found("theft", None, int(now_s), None, "ana"), now_s)
        told = queries.cases(store, now_s, 10)
        assert [row[0] for row in told.rows] == ["thief", "tap", "unknown", "surplus"], "those that lose most first"
        both = [(row[9], row[10]) for row in told.rows]
        pages_say = {one["alert_id"]: (one["suspect"], one["confidence"]) for one in asks.cases(store)}
        assert both == [pages_say[str(row[0])] for row in told.rows]
        assert pages_say["tap"] == (None, 0.6)
        assert asks.found_kwh(store) == 10.0
    app = application(Settings(dsn))
    page = ask(app, "GET", "/cases?state=all").text
    assert "Energy of the cases in which theft was found: 10 kWh" in page
    cell = '<td class="n">([^<]*)</td>'
    rows = re.findall(f'/case/t/s/g/([a-z]+)".*?{cell}{cell}{cell}', page, re.DOTALL)
    assert [(row[0], *row[2:]) for row in rows] == [
        ("thief", "500", "10.0"), ("tap", "400", "8.0"), ("withdrawn", "0", "0.0"), ("over", "0", "-0.3"),
        ("surplus", "-50", "-3.0"), ("unknown", "–", "–"),
    ]  # fmt: skip
    surplus = ask(app, "GET", "/case/t/s/g/surplus").text
    assert "Surplus power" in surplus
    assert "50 W" in surplus
    assert "-50" not in surplus


EVIL = "<script>alert(1)</script>\"'&\u202e"


def test_what_a_gateway_sends_is_text_and_nothing_else(tmp_path: Path, ask: Any) -> None:
    """Every free text of the contract: whatever is in it, no page has an element of it."""
    now_s = time.time()
    dsn = f"sqlite:///{tmp_path / 'evil.sqlite'}"
    address = wire.Address("t", "s", "g")
    data = wire.AlertData(
        alert_id="case-1", revision=1, state="raised", kind="tamper", severity="critical", onset=wire.utc(now_s - 7200),
        zone="z", meter="m", loss_w=5.0, loss_kwh=2.0, detail=EVIL,
        suspects=[wire.SuspectData(meter="m", probability=0.9, mechanism=EVIL)],
    )  # fmt: skip
    event = wire.AlertEvent(
        id=wire.derived_uuid("x"), source=address.source, subject=EVIL, time=wire.utc(now_s - 3600), data=data
    )
    info = wire.Info(
        time=wire.utc(now_s), versions={"checkmeter": EVIL}, schemas={},
        zones=[wire.ZoneInfo(id="z", main="m", subs=[])],
        name=EVIL, address=EVIL, contact=EVIL,
        meters=[wire.MeterInfo(id=EVIL, name=EVIL, bus=EVIL, serial=EVIL, firmware=EVIL)],
    )  # fmt: skip
    status = wire.Status(state="degraded", reason=EVIL, versions={"checkmeter": EVIL})
    reported = wire.Reported(state="rejected", time=wire.utc(now_s), reason=EVIL)
    result = wire.CommandResult(id=EVIL, name=EVIL, status="failed", time=wire.utc(now_s), reason=EVIL)
    said = [("event/alert", event), ("info", info), ("status", status), ("model/reported", reported),
            ("config/reported", reported), ("cmd/res", result)]  # fmt: skip
    with open_store(dsn, make=True) as store:
        store.migrate(now_s)
        reader = Reader(lambda: now_s)
        for suffix, message in said:
            letter = reader.read(Publish(address.topic(suffix).encode(), 1, wire.encode(message), False))
            store.apply([letter])
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]
        found = outcomes.Found("theft", "m", int(now_s), EVIL, EVIL[:60])
        outcomes.record(store, "case-1", None, found, now_s)
    app = application(Settings(dsn))
    for path in ("/", "/cases", "/case/t/s/g/case-1", "/building/t/s/g", "/gateways", "/gateway/t/s/g",
                 "/search?q=" + EVIL, "/cases?site=" + EVIL, "/cases?kind=" + EVIL + "&page=" + EVIL):  # fmt: skip
        text = ask(app, "GET", path).text
        assert "<script>alert" not in text, path
        assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)&lt;/script&gt;", "", text.replace("%3C", "<")) or (
            "%3Cscript" in text or "&lt;script" in text
        )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in ask(app, "GET", "/gateway/t/s/g").text, "it is shown, as text"
    for name in exports.EXPORTS:
        for form in ("csv", *(["parquet"] if exports.parquet_is_there() else [])):
            answer = ask(app, "GET", f"/export/{name}.{form}")
            assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff"), (name, form)
            if name != "inspected":  # that holds what a person said
                assert "\u202e".encode() not in answer.content, (name, form)


def test_no_cell_of_a_csv_is_a_formula() -> None:
    from agent.utility.fleet.queries import Answer
    from agent.utility.web.exports import as_csv

    rows: list[tuple[object, ...]] = [("=1+1", -2.5), ("@x", None), ("plain", "+7"), (" =1", "＝1"), ("a=1", "\n=1")]
    text = as_csv(Answer(("a", "b"), rows)).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == [
        ["'=1+1", "-2.5"], ["'@x", ""], ["plain", "'+7"], ["' =1", "'＝1"], ["a=1", "'\n=1"],
    ]  # fmt: skip


def test_every_text_of_the_pages_stands_in_every_catalogue() -> None:
    from babel.messages.extract import extract_from_dir
    from babel.messages.pofile import read_po

    found: set[str] = {*forecasts.NAMES.values(), *pages.KINDS.values(), *pages.STATES.values(), *pages.SIGNS.values()}
    found |= {"%(n)s minute", "%(n)s hour", "%(n)s day"}
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    for _, _, message, _, _ in extract_from_dir(
        str(WEB), methods, keywords={"_": None, "say": None, "some": (1, 2)}, comment_tags=()
    ):
        found.add(message[0] if isinstance(message, tuple) else message)
    assert len(found) > 150
    for language in set(LANGUAGES) - {"en"}:
        with (FOLDER / language / "LC_MESSAGES" / "web.po").open("rb") as file:
            known = {m.id[0] if isinstance(m.id, tuple) else m.id: m.string for m in read_po(file) if m.id}
        assert {text for text in found if not known.get(text)} == set()
        assert set(known) - found == set(), "texts that no page has any more"


def test_the_verb_refuses_what_would_be_open_to_all(tmp_path: Path) -> None:
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    with open_store(dsn, make=True) as store:
        store.migrate(time.time())
    for words, message in (
        (["--listen", "0.0.0.0"], "not this machine alone"),
        (["--inspectors", "g"], "who people are"),
        (["--timezone", "Mars/Olympus"], "Mars"),
        (["--trusted-proxy", "proxy.example"], "proxy.example"),
    ):
        result = CliRunner().invoke(cli, ["utility", "serve", "--store", dsn, *words])
        assert result.exit_code == 2, result.output
        assert message in result.output
