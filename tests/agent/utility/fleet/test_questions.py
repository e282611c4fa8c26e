"""The fleet's questions as verbs, on SQLite and MariaDB: a small fleet of which every answer is known."""

from __future__ import annotations

import csv
import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.process.exit_codes import CONFIG
from agent.utility.fleet.outcomes import Found, record
from agent.utility.fleet.queries import wilson
from agent.utility.fleet.statement import EnergiesError, bounds, read_energies, shares_wh
from agent.utility.ingest.decode import Reader
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.store import Store, open_store
from agent.utility.verbs.options import Form, show
from core.scoring.features import FEATURES

DAY_S = 86_400
NOW_S = int(time.time())
YESTERDAY_S = (NOW_S // DAY_S - 1) * DAY_S


class FleetOfFour:
    """Four buildings; messages go in as gateways send them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reader = Reader(lambda: float(NOW_S))

    def say(self, number: int, suffix: str, message: Any) -> None:
        topic = self.address(number).topic(suffix).encode()
        letter = self.reader.read(Publish(topic, 1, wire.encode(message), False))
        assert letter.rows[0][0].name != "dead_letter", letter.rows
        self.store.apply([letter])

    @staticmethod
    def address(number: int) -> wire.Address:
        return wire.Address("acme", f"site-{number}", f"gw-{number}")

    def day(self, number: int, days_ago: int, residual_kwh: float) -> None:
        """Four intervals of a day, six hours each."""
        start_s = YESTERDAY_S - (days_ago - 1) * DAY_S
        for n in range(4):
            balance = wire.Balance(
                zone="building", start=wire.utc(start_s + n * 21_600), end=wire.utc(start_s + (n + 1) * 21_600),
                main_kwh=100.0, sum_kwh=98.0 - residual_kwh, technical_loss_kwh=2.0, residual_kwh=residual_kwh,
                uncertainty_kwh=0.1, coverage=1.0,
            )  # fmt: skip
            self.say(number, "balance/building", balance)

    def alert(
        self, number: int, *, revision: int = 1, state: Any = "raised", meter: str = "flat-1", probability: float = 0.9,
        score: float | None = 0.8, model: str = "aa", features: bool = True, kind: Any = "bypass",
    ) -> str:  # fmt: skip
        address = self.address(number)
        alert_id = wire.derived_uuid(*address)
        rows: dict[str, dict[str, float | None]] = {
            name: {feature: float(n) for n, feature in enumerate(FEATURES)} for name in ("flat-1", "flat-2")
        }
        event = wire.AlertEvent(
            id=wire.derived_uuid(alert_id, str(revision)), source=address.source, subject="zone/building",
            time=wire.utc(NOW_S - 3600 + revision),
            data=wire.AlertData(
                alert_id=alert_id, revision=revision, state=state, kind=kind, severity="warning",
                onset=wire.utc(NOW_S - 10 * DAY_S), zone="building", loss_w=100.0 * number, loss_kwh=24.0 * number,
                suspects=[wire.SuspectData(meter=meter, probability=probability)], upstream_probability=0.04,
                unexplained_probability=0.05,
                features=rows if features else None,
                model=wire.ModelData(sha256=model * 32, threshold=0.6, score=score),
            ),
        )  # fmt: skip
        self.say(number, "event/alert", event)
        return alert_id

    def tamper(self, number: int, meter: str, nth: int = 0) -> None:
        address = self.address(number)
        event = wire.TamperEvent(
            id=wire.derived_uuid(*address, meter, str(nth)), source=address.source, subject=f"meter/{meter}",
            time=wire.utc(NOW_S - 7200), data=wire.TamperData(meter=meter, kind="meter_cover", state="detected"),
        )  # fmt: skip
        self.say(number, "event/tamper", event)

    def status(self, number: int, state: Any) -> None:
        self.say(
            number, "status", wire.Status(state=state, reason="why", meters=["flat-9"], versions={"checkmeter": "1"})
        )


@pytest.fixture
def fleet(store: Store) -> FleetOfFour:
    return FleetOfFour(store)


@pytest.fixture
def ask(dsn: str) -> Any:
    def run(*arguments: str, code: int = 0, plain: bool = False) -> Any:
        words = ["utility", arguments[0], "--store", dsn, *([] if plain else ["--json"]), *arguments[1:]]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == code, result.output
        return result.output if plain else [json.loads(line) for line in result.output.splitlines()]

    return run


def test_losses_are_ranked_and_cost_money(fleet: FleetOfFour, ask: Any) -> None:
    for number, residual_kwh in ((1, 0.5), (2, 3.0), (3, -0.25)):
        for days_ago in (1, 2, 40):
            fleet.day(number, days_ago, residual_kwh)
    found = ask("losses", "--days", "30", "--price", "0.25")
    assert [(row["site"], row["unexplained_kwh"], row["money"]) for row in found] == [
        ("site-2", 24.0, 6.0), ("site-1", 4.0, 1.0), ("site-3", -2.0, -0.5),
    ]  # fmt: skip
    assert (found[0]["days"], found[0]["main_kwh"], found[0]["percent"]) == (2, 800.0, 3.0)
    assert [row["site"] for row in ask("losses", "--top", "1")] == ["site-2"]
    assert ask("losses", "--days", "60")[0]["days"] == 3
    assert "site-2" in ask("losses", plain=True)


def test_today_is_not_a_whole_day(fleet: FleetOfFour, ask: Any) -> None:
    fleet.day(1, 1, 1.0)
    fleet.day(1, 0, 100.0)
    assert ask("losses")[0]["unexplained_kwh"] == 4.0
    assert [row["unexplained_kwh"] for row in ask("trend")] == [4.0]


def test_trend(fleet: FleetOfFour, ask: Any) -> None:
    for number in (1, 2):
        for days_ago in (1, 2, 3):
            fleet.day(number, days_ago, float(days_ago))
    found = ask("trend", "--days", "2")
    assert [(row["day"], row["zones"], row["unexplained_kwh"], row["percent"]) for row in found] == [
        (time.strftime("%Y-%m-%d", time.gmtime(YESTERDAY_S - DAY_S)), 2, 16.0, 2.0),
        (time.strftime("%Y-%m-%d", time.gmtime(YESTERDAY_S)), 2, 8.0, 1.0),
    ]


def test_open_cases_with_age_and_confidence(fleet: FleetOfFour, ask: Any) -> None:
    fleet.alert(1)
    fleet.alert(2)
    fleet.alert(3)
    fleet.alert(3, revision=2, state="cleared")
    found = ask("cases")
    assert [(row["site"], row["loss_kwh"], row["suspect"], row["confidence"]) for row in found] == [
        ("site-2", 48.0, "flat-1", 0.9), ("site-1", 24.0, "flat-1", 0.9),
    ]  # fmt: skip
    assert found[0]["age_days"] == pytest.approx(10.0, abs=0.1)


def test_suspects_by_several_signs(fleet: FleetOfFour, ask: Any) -> None:
    fleet.alert(1)  # balance and model
    fleet.tamper(1, "flat-1")
    fleet.tamper(1, "flat-1", 2)  # the same sign again is no further sign
    fleet.alert(2, score=0.1)  # balance alone
    fleet.tamper(3, "flat-7")  # a tamper event alone
    fleet.alert(4, probability=0.3)  # the model alone
    found = ask("suspects")
    assert [(row["site"], row["meter"], row["signs"]) for row in found] == [
        ("site-1", "flat-1", "compact model, energy balance, meter_cover")
    ]
    assert len(ask("suspects", "--signs", "1")) == 4
    fleet.alert(1, revision=2, state="cleared")
    assert ask("suspects") == []


def test_a_suspect_of_an_older_revision_is_none(fleet: FleetOfFour, ask: Any) -> None:
    fleet.alert(1, meter="flat-1")
    fleet.alert(1, revision=2, state="updated", meter="flat-2")
    assert [row["meter"] for row in ask("suspects")] == ["flat-2"]


def test_gateways_silent_degraded_offline(fleet: FleetOfFour, ask: Any) -> None:
    for number in (1, 2, 3):
        fleet.day(number, 0 if number != 2 else 5, 0.0)
    fleet.status(1, "online")
    fleet.status(2, "online")  # and yet no balance for days
    fleet.status(3, "degraded")
    fleet.status(4, "offline")
    found = {row["site"]: row for row in ask("gateways")}
    assert {site: row["state"] for site, row in found.items()} == {
        "site-2": "silent", "site-3": "degraded", "site-4": "offline",
    }  # fmt: skip
    assert found["site-3"]["unread_meters"] == 1
    assert found["site-2"]["balance_days_ago"] > 3


class TestOutcomes:
    def test_precision_by_version_of_the_model(self, fleet: FleetOfFour, ask: Any) -> None:
        ids = [fleet.alert(n, model="aa" if n < 4 else "bb") for n in (1, 2, 3, 4)]
        ask("outcome", ids[0], "theft", "--meter", "flat-1", plain=True)
        ask("outcome", ids[1], "theft", "--meter", "flat-2", plain=True)
        ask("outcome", ids[2], "nothing", plain=True)
        ask("outcome", ids[3], "nothing", plain=True)
        ask("outcome", ids[3], "fault", "--note", "second visit", plain=True)  # a later one replaces it
        first, second = ask("precision")
        assert first["model"] == "aa" * 6
        assert (first["inspected"], first["theft"], first["nothing"], first["right_meter"]) == (3, 2, 1, 1)
        assert first["precision"] == pytest.approx(2 / 3)
        assert (second["inspected"], second["fault"], second["nothing"]) == (1, 1, 0)
        assert ask("cases")[0]["outcome"] == "fault"

    def test_an_alert_that_is_not_there(self, fleet: FleetOfFour, ask: Any) -> None:
        assert "no alert a-1" in ask("outcome", "a-1", "theft", plain=True, code=78)

    def test_the_thief_goes_with_theft_only(self, fleet: FleetOfFour, ask: Any) -> None:
        assert "with theft only" in ask("outcome", "a-1", "fault", "--meter", "m", plain=True, code=2)

    def test_wilson_against_published_figures(self) -> None:
        # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        table = ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718))
        for hits, n, low, high in table:
            assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)

    def test_the_training_table(self, fleet: FleetOfFour, ask: Any, tmp_path: Path) -> None:
        ids = [fleet.alert(n) for n in (1, 2, 3)]
        fleet.alert(3, revision=2, state="cleared", features=False)  # the features of the revision before it count
        ids.append(fleet.alert(4))
        ask("outcome", ids[0], "theft", "--meter", "flat-2", plain=True)
        ask("outcome", ids[1], "theft", plain=True)  # by whom is not known: no labels
        ask("outcome", ids[2], "nothing", plain=True)
        said = ask("export-features", "-o", str(tmp_path / "f.csv"), plain=True)
        assert "4 rows of 3 inspected cases; left out: 1 theft cases without --meter" in said
        with (tmp_path / "f.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["building"], row["meter"], row["is_theft"]) for row in rows] == [
            ("acme/site-1/gw-1/building", "flat-1", "0"), ("acme/site-1/gw-1/building", "flat-2", "1"),
            ("acme/site-3/gw-3/building", "flat-1", "0"), ("acme/site-3/gw-3/building", "flat-2", "0"),
        ]  # fmt: skip
        assert [float(rows[0][name]) for name in FEATURES] == list(range(len(FEATURES)))

    def test_an_empty_training_table_is_a_negative_answer(self, fleet: FleetOfFour, ask: Any, tmp_path: Path) -> None:
        ask("export-features", "-o", str(tmp_path / "f.csv"), plain=True, code=1)


def test_the_training_table_can_be_trained_on(tmp_path: Path) -> None:
    """A fleet with many inspected thefts: what is exported is what `checkmeter train` takes."""
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    rng = random.Random(2)
    runner = CliRunner()
    with open_store(dsn, make=True) as store:
        store.migrate(NOW_S)
        fleet = FleetOfFour(store)
        for number in range(1, 41):
            address = fleet.address(number)
            guilty = f"flat-{rng.randrange(1, 6)}"
            features: dict[str, dict[str, float | None]] = {
                f"flat-{n}": {name: round(rng.gauss(3.0 * (f"flat-{n}" == guilty), 1.0), 3) for name in FEATURES}
                for n in range(1, 6)
            }
            event = wire.AlertEvent(
                id=wire.derived_uuid(*address), source=address.source, subject="zone/building",
                time=wire.utc(NOW_S - 60), data=wire.AlertData(
                    alert_id=f"case-{number}", revision=1, state="raised", kind="bypass", severity="warning",
                    onset=wire.utc(NOW_S - 3600), zone="building", features=features,
                ),
            )  # fmt: skip
            fleet.say(number, "event/alert", event)
            record(store, f"case-{number}", None, Found("theft", guilty, NOW_S, None), NOW_S)
    table, model = tmp_path / "features.csv", tmp_path / "model.tflite"
    result = runner.invoke(cli, ["utility", "export-features", "--store", dsn, "-o", str(table)])
    assert (result.exit_code, "200 rows of 40" in result.output) == (0, True), result.output
    result = runner.invoke(cli, ["train", str(table), "-o", str(model)])
    assert result.exit_code == 0, result.output
    assert model.exists()


class TestStatement:
    def test_a_month_in_local_time(self, fleet: FleetOfFour, ask: Any) -> None:
        """The month begins 5:30 before UTC's: six-hour intervals of the days around it show which are taken."""
        month = time.strftime("%Y-%m", time.gmtime(YESTERDAY_S))
        for days_ago in range(1, 33):
            fleet.day(1, days_ago, 0.5)
        (row,) = ask("statement", "--month", month, "--timezone", "Asia/Kolkata", "--site", "site-1")
        start_s, end_s = bounds(month, "Asia/Kolkata")
        sent = [YESTERDAY_S - d * DAY_S + n * 21_600 for d in range(32) for n in range(4)]
        inside = [s for s in sent if start_s <= s < end_s]
        assert 0 < len(inside) < len(sent)
        assert row["main_kwh"] == 100.0 * len(inside)
        assert row["technical_loss_kwh"] == 2.0 * len(inside)
        assert row["unexplained_kwh"] == 0.5 * len(inside)
        assert row["coverage"] == pytest.approx(len(inside) * 21_600 / (end_s - start_s))

    def test_households_pay_for_the_wire_and_not_for_the_thief(
        self, fleet: FleetOfFour, ask: Any, tmp_path: Path
    ) -> None:
        fleet.day(1, 1, 10.0)  # main 400, technical 8, unexplained 40, sum 352
        energies = tmp_path / "energies.csv"
        energies.write_text("site,zone,meter,kwh\nsite-1,building,a,200\nsite-1,building,b,100\nsite-1,building,c,52\n")
        month = time.strftime("%Y-%m", time.gmtime(YESTERDAY_S))
        (row,) = ask("statement", "--month", month, "--energies", str(energies))
        shares = {line["meter"]: line for line in row["households"]}
        assert sum(line["share_by_energy_kwh"] for line in shares.values()) == pytest.approx(8.0, abs=1e-9)
        assert sum(line["share_by_square_kwh"] for line in shares.values()) == pytest.approx(8.0, abs=1e-9)
        assert shares["a"]["share_by_energy_kwh"] == pytest.approx(8 * 200 / 352, abs=1e-3)
        assert shares["a"]["share_by_square_kwh"] == pytest.approx(8 * 200**2 / (200**2 + 100**2 + 52**2), abs=1e-3)
        text = ask("statement", "--month", month, "--energies", str(energies), plain=True)
        assert "unexplained               40.000 kWh, shared out to nobody" in text
        assert "careful" not in text
        energies.write_text("site,zone,meter,kwh\nsite-1,building,a,300\n")
        assert "careful: 300.000 kWh were billed" in ask(
            "statement", "--month", month, "--energies", str(energies), plain=True
        )

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("meter,kwh\na,1\n", "line 1: the columns are"),
            ("site,zone,meter,kwh\ns,z,a,x\n", "line 2: kwh = 'x' is no number"),
            ("site,zone,meter,kwh\ns,z,a,-1\n", "line 2: kwh = -1"),
            ("site,zone,meter,kwh\ns,z,a,1\ns,z,a,2\n", "line 3: a of s/z stands here twice"),
        ],
    )
    def test_a_file_of_energies_that_cannot_be_used(self, tmp_path: Path, lines: str, message: str) -> None:
        path = tmp_path / "e.csv"
        path.write_text(lines)
        with pytest.raises(EnergiesError, match=message.replace("(", r"\(")):
            read_energies(path)

    def test_shares_add_up_to_the_watt_hour(self) -> None:
        for loss_wh in (0, 1, 2, 1000, 99_999, -7):
            for by in ("energy", "square"):
                energies = {f"m{n}": 1.0 + n / 7 for n in range(13)}
                assert sum(shares_wh(loss_wh, energies, by).values()) == loss_wh  # type: ignore[arg-type]


def test_tables_fit_a_terminal_and_say_ages_in_words(fleet: FleetOfFour, ask: Any) -> None:
    for number in (1, 2, 3):
        for days_ago in (1, 2):
            fleet.day(number, days_ago, 1.0)
        fleet.alert(number)
        fleet.tamper(number, "flat-1")
        fleet.status(number, "degraded")
    for words in (("losses", "--price", "0.3"), ("cases",), ("suspects",), ("gateways",), ("trend",), ("letters",)):
        lines = ask(*words, plain=True).splitlines()
        assert max(map(len, lines)) <= 100, lines
    assert "10 d" in ask("cases", plain=True)
    assert " h" in ask("suspects", plain=True)
    assert "\t" not in ask("cases", plain=True)


def test_csv_holds_what_json_holds(fleet: FleetOfFour, ask: Any, dsn: str) -> None:
    fleet.day(1, 1, 1.0)
    fleet.alert(1)
    for verb in ("losses", "cases"):
        (line,) = ask(verb)
        result = CliRunner().invoke(cli, ["utility", verb, "--store", dsn, "--csv"])
        (row,) = csv.DictReader(result.output.splitlines())
        assert row == {name: "" if value is None else str(value) for name, value in line.items()} or verb == "cases"
        assert set(row) == set(line)
    both = CliRunner().invoke(cli, ["utility", "losses", "--store", dsn, "--csv", "--json"])
    assert both.exit_code == 2


def test_no_cell_of_a_verbs_csv_is_a_formula(fleet: FleetOfFour, ask: Any, dsn: str) -> None:
    evil = "=HYPERLINK(1)"
    fleet.say(1, "status", wire.Status(state="degraded", reason=evil, versions={}))
    fleet.store.apply([fleet.reader.read(Publish(evil.encode(), 1, b"{}", False))])
    for verb, column in (("gateways", "reason"), ("letters", "topic")):
        said = CliRunner().invoke(cli, ["utility", verb, "--store", dsn, "--csv"]).output
        assert {row[column] for row in csv.DictReader(said.splitlines()) if "HYPER" in row[column]} == {"'" + evil}
        (told,) = [row[column] for row in ask(verb) if "HYPER" in str(row[column])]
        assert told == evil, "JSON says it as it is"


def test_an_empty_answer_says_why(store: Store, ask: Any) -> None:
    assert "no whole day yet" in ask("losses", plain=True)
    assert "no whole day yet" in ask("trend", plain=True)
    assert "no open case" in ask("cases", plain=True)
    assert "no gateway has sent anything yet" in ask("gateways", plain=True)
    assert "could be read" in ask("letters", plain=True)
    assert "outcome" in ask("precision", plain=True)
    assert "no forecast has come yet" in ask("peaks", plain=True)
    assert "nothing was compared of the 14 days" in ask("forecast-skill", plain=True)


def test_a_later_outcome_keeps_the_meter_and_says_who(fleet: FleetOfFour, ask: Any) -> None:
    alert_id = fleet.alert(1)
    ask("outcome", alert_id, "theft", "--meter", "flat-1", "--by", "ana", plain=True)
    said = ask("outcome", alert_id, "theft", "--note", "report filed", "--by", "ben", plain=True)
    assert "theft at flat-1, recorded by ben" in said
    assert fleet.store.rows("SELECT meter, inspector, note FROM outcome") == [("flat-1", "ben", "report filed")]
    short = ask("cases", plain=True).splitlines()[1].split()[0]
    assert alert_id.startswith(short)
    ask("outcome", short, "nothing", "--by", "ben", plain=True)
    assert fleet.store.rows("SELECT outcome, meter FROM outcome") == [("nothing", None)]


def test_what_came_over_the_wire_does_not_steer_the_terminal(fleet: FleetOfFour, ask: Any) -> None:
    fleet.say(1, "status", wire.Status(state="degraded", reason="\x1b[2J\u202eevil\n", versions={}))
    said = ask("gateways", plain=True)
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "evil" in said


def test_a_table_cuts_no_number_and_keeps_who_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (
        "tenant", "site", "gateway", "zone", "peak_kw", "at_least_kw", "at_most_kw", "peak_about", "trough_kw",
        "trough_about", "capacity_kw", "over_probability",
    )  # fmt: skip
    row = ("a-long-tenant", "riverside-12-north", "gw-0012", "staircase-1", 123456.7, 98765.4, 234567.8,
           "2026-03-20 14:00:00", 54321.0, "2026-03-21 03:30:00", 345678.9, 0.25)  # fmt: skip
    show(columns, [row], Form.TABLE)
    said = capsys.readouterr()
    head, line = said.out.splitlines()
    assert len(line) <= 100
    assert "~" not in said.out
    for text in (
        "riverside-12-north",
        "staircase-1",
        "123,456.7",
        "98,765.4",
        "234,567.8",
        "345,678.9",
        "20 Mar 14:00",
    ):
        assert text in line
    assert "25 %" in line
    assert "tenant" not in head
    assert "no room for tenant" in said.err


def test_letters_show_their_reason_whole(fleet: FleetOfFour, ask: Any) -> None:
    topic = fleet.address(1).topic("balance/building").encode()
    letter = fleet.reader.read(Publish(topic, 1, b'{"zone": "building"}', False))
    fleet.store.apply([letter])
    reason = str(letter.rows[0][1][2])
    said = ask("letters", plain=True)
    assert " ".join(reason.split()) in " ".join(said.split())
    assert topic.decode() in said


def test_the_thiefs_meter_is_one_of_the_alerts_zone(fleet: FleetOfFour, ask: Any) -> None:
    unsaid = fleet.alert(2, features=False)
    ask("outcome", unsaid, "theft", "--meter", "whatever", plain=True)  # nobody has said what there is
    fleet.store.rows("DELETE FROM outcome")
    alert_id = fleet.alert(1)
    said = ask("outcome", alert_id, "theft", "--meter", "whatever", plain=True, code=CONFIG)
    assert "no meter 'whatever'; it has flat-1, flat-2" in said  # as the features of the alert name them
    info = wire.Info(
        time=wire.utc(NOW_S), versions={}, schemas={},
        meters=[wire.MeterInfo(id=name) for name in ("main", "flat-1", "flat-2", "riser", "flat-3", "shop")],
        zones=[wire.ZoneInfo(id="building", main="main", subs=["flat-1", "flat-2", "riser"]),
               wire.ZoneInfo(id="top", main="riser", subs=["flat-3"]),
               wire.ZoneInfo(id="yard", main="shop-main", subs=["shop"])],
    )  # fmt: skip
    fleet.say(1, "info", info)
    said = " ".join(ask("outcome", alert_id, "theft", "--meter", "flat1", plain=True, code=CONFIG).split())
    assert "did you mean flat-1, flat-3, flat-2? it has flat-1, flat-2, flat-3, main, riser" in said
    said = ask("outcome", alert_id, "theft", "--meter", "8'\n--", plain=True, code=CONFIG)
    assert "it has flat-1" in said
    # An alert of a zone that is no longer there: the gateway's meters.
    gone = msgspec.structs.replace(info, time=wire.utc(NOW_S + 1), zones=info.zones[1:])
    fleet.say(1, "info", gone)
    assert "this gateway has no meter 'x'" in ask("outcome", alert_id, "theft", "--meter", "x", plain=True, code=CONFIG)
    fleet.say(1, "info", msgspec.structs.replace(info, time=wire.utc(NOW_S + 2)))
    ask("outcome", alert_id, "theft", "--meter", "shop", plain=True, code=CONFIG)
    for meter in ("flat-2", "flat-3", "main"):
        ask("outcome", alert_id, "theft", "--meter", meter, plain=True)
    assert fleet.store.rows("SELECT meter FROM outcome") == [("main",)]


@pytest.mark.parametrize(
    "change", [{"loss_w": -1e9}, {"loss_w": 1e9}, {"loss_w": 5.0, "loss_w_interval": (0.0, 1e300)}]
)
def test_an_impossible_loss_is_a_dead_letter(fleet: FleetOfFour, change: dict[str, Any]) -> None:
    data = wire.AlertData(
        alert_id="a", revision=1, state="raised", kind="bypass", severity="warning", onset=wire.utc(NOW_S - 3600),
        zone="building", **change,
    )  # fmt: skip
    active = wire.ActiveSnapshot(time=wire.utc(NOW_S), alerts=[data])
    topic = fleet.address(1).topic("active").encode()
    letter = fleet.reader.read(Publish(topic, 1, wire.encode(active), False))
    assert letter.rows[0][0].name == "dead_letter"
    assert str(letter.rows[0][1][2]).startswith("range: loss_w")


def test_a_case_of_which_only_the_state_has_come_says_so(fleet: FleetOfFour, dsn: str, tmp_path: Path) -> None:
    data = wire.AlertData(
        alert_id="only-a-state", revision=3, state="updated", kind="bypass", severity="warning",
        onset=wire.utc(NOW_S - 3600), zone="building", loss_w=500.0,
    )  # fmt: skip
    fleet.say(1, "active", wire.ActiveSnapshot(time=wire.utc(NOW_S), alerts=[data]))
    done = CliRunner().invoke(cli, ["report", "only-a-state", "--store", dsn, "-o", str(tmp_path / "page.html")])
    assert done.exit_code == 1
    assert "resend" in done.output
