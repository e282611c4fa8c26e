"""One message in, its rows or a dead letter with the reason out; held against the published schemas."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from agent.utility.ingest.checks import on_grid
from agent.utility.ingest.decode import MAX_LETTER_OCTETS, Reader
from agent.utility.load_test.building import INTERVAL_S, Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.cases import ALERT, ALERT_EVENT, EVIDENCE, SUSPECT, TAMPER
from agent.utility.sql.keys import event_key, name_key
from agent.utility.sql.schema import (
    BALANCE,
    DAY_S,
    DEAD_LETTER,
    GATEWAY,
    GATEWAY_INFO,
    GATEWAY_STATUS,
    MODEL_REPORTED,
    ZONE,
)

NOW_S = 1_795_000_000.0
START_S = 1_794_960_000
SCHEMAS = Path(__file__).parents[4] / "docs" / "schemas"
ADDRESS = wire.Address("acme", "site-1", "gw-1")

BALANCE_BODY: dict[str, Any] = {
    "zone": "building",
    "start": "2026-11-18T00:00:00Z",
    "end": "2026-11-18T00:15:00Z",
    "main_kwh": 6.123,
    "sum_kwh": 5.9,
    "technical_loss_kwh": 0.1,
    "residual_kwh": 0.123,
    "uncertainty_kwh": 0.02,
    "coverage": 0.99,
}
ALERT_BODY: dict[str, Any] = {
    "specversion": "1.0",
    "id": "7d9f2c1e-3f4a-4b5c-8d6e-9f0a1b2c3d4e",
    "type": "checkmeter.alert.v1",
    "source": "/acme/site-1/gw-1",
    "subject": "zone/building",
    "time": "2026-11-18T06:00:00Z",
    "datacontenttype": "application/json",
    "data": {
        "alert_id": "a-1",
        "revision": 3,
        "state": "updated",
        "kind": "under_registration",
        "severity": "warning",
        "onset": "2026-11-15T00:00:00Z",
        "zone": "building",
        "loss_w": 412.0,
        "loss_kwh": 96.2,
        "suspects": [{"meter": "flat-301", "probability": 0.04}, {"meter": "flat-302", "probability": 0.91}],
        "upstream_probability": 0.03,
        "unexplained_probability": 0.02,
        "features": {"flat-302": {"line_loss_rate": 0.0}},
        "model": {"sha256": "ab" * 32, "threshold": 0.6, "score": 0.91},
    },
}
TAMPER_BODY: dict[str, Any] = {
    **{key: value for key, value in ALERT_BODY.items() if key != "data"},
    "type": "checkmeter.tamper.v1",
    "data": {"meter": "flat-302", "kind": "magnetic_field", "state": "detected", "code": 42},
}


def read(reader: Reader, suffix: str, body: object, address: wire.Address = ADDRESS) -> dict[str, tuple[Any, ...]]:
    """The rows by table; of several of one table the last."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    letter = reader.read(Publish(address.topic(suffix).encode(), 7, payload, False))
    assert (letter.packet_id, letter.payload) == (7, payload)
    return {table.name: row for table, row in letter.rows}


def changed(body: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The body with one field, as "data.loss_w", set to another value."""
    new = copy.deepcopy(body)
    *parents, last = path.split(".")
    inner = new
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return new


def between(start: str, end: str) -> dict[str, Any]:
    """A balance from and to these times of its day."""
    return {**BALANCE_BODY, "start": f"2026-11-18T{start}Z", "end": f"2026-11-18T{end}Z"}


@pytest.fixture
def reader() -> Reader:
    return Reader(lambda: NOW_S, ["acme"])


class TestRows:
    def test_a_balance_in_joules_with_its_names_the_first_time(self, reader: Reader) -> None:
        gateway_key, zone_key = name_key(*ADDRESS), name_key(*ADDRESS, "building")
        rows = read(reader, "balance/building", BALANCE_BODY)
        row = (zone_key, START_S, 900, 22_042_800, 21_240_000, 360_000, 442_800, 72_000, 990_000)
        assert rows == {
            GATEWAY.name: (gateway_key, *ADDRESS),
            ZONE.name: (zone_key, gateway_key, "building"),
            BALANCE.name: row,
        }
        assert read(reader, "balance/building", BALANCE_BODY) == {BALANCE.name: row}
        reader.forget_names()
        assert set(read(reader, "balance/building", BALANCE_BODY)) == {GATEWAY.name, ZONE.name, BALANCE.name}

    def test_missing_is_null_and_zero_is_a_measurement(self, reader: Reader) -> None:
        body = {**BALANCE_BODY, "main_kwh": None, "residual_kwh": None, "sum_kwh": 0}
        assert read(reader, "balance/building", body)[BALANCE.name][3:7] == (None, 0, 360_000, None)

    def test_an_event_of_another_gateway_with_the_same_id_is_another_event(self, reader: Reader) -> None:
        other = wire.Address(ADDRESS.tenant, ADDRESS.site, "gw-2")
        mine, theirs = (
            read(reader, "event/tamper", {**TAMPER_BODY, "source": address.source}, address)[TAMPER.name]
            for address in (ADDRESS, other)
        )
        assert mine[0] != theirs[0]

    def test_a_forecast_that_is_withdrawn_is_no_row_and_no_dead_letter(self, reader: Reader) -> None:
        assert read(reader, "forecast/building", b"") == {}
        assert set(read(reader, "balance/building", b"")) == {DEAD_LETTER.name}

    def test_an_alert_with_its_best_suspect_first(self, reader: Reader) -> None:
        rows = read(reader, "event/alert", ALERT_BODY)
        alert = dict(zip(ALERT.names, rows[ALERT.name], strict=True))
        assert (alert["suspect"], alert["probability"], alert["revision"]) == ("flat-302", 0.91, 3)
        assert (alert["upstream_probability"], alert["unexplained_probability"]) == (0.03, 0.02)
        assert (alert["model_sha256"], alert["model_score"], alert["zone_key"]) == (
            "ab" * 32, 0.91, name_key(*ADDRESS, "building"),
        )  # fmt: skip
        assert rows[SUSPECT.name][1:] == ("flat-301", 0.04, None, 3)
        assert rows[ALERT_EVENT.name][0] == event_key(name_key(*ADDRESS), uuid.UUID(ALERT_BODY["id"]).bytes)
        assert wire.decode(wire.AlertEvent, rows[ALERT_EVENT.name][-1].encode()).data.features

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "balance_surplus", "loss_w": -412.0, "loss_w_interval": [-500.0, -300.0], "loss_kwh": -96.2},
            {"loss_w": 0.1, "loss_w_interval": [0.1, 0.1]},
            {"loss_w": None, "loss_w_interval": [-5.0, 5.0]},
            {"suspects": [{"meter": f"flat-{n}", "probability": 0.0051} for n in range(186)]},  # rounded up
            {"suspects": None, "upstream_probability": None, "unexplained_probability": 1.0},
        ],
    )
    def test_an_alert_that_a_gateway_may_send(self, reader: Reader, change: dict[str, Any]) -> None:
        rows = read(reader, "event/alert", {**ALERT_BODY, "data": {**ALERT_BODY["data"], **change}})
        assert ALERT_EVENT.name in rows

    def test_names_in_a_letter_that_is_dead_come_again(self, reader: Reader) -> None:
        good = ALERT_BODY["data"]
        active = {"time": "2026-11-18T06:00:00Z", "alerts": [good, {**good, "alert_id": "a-2", "loss_w": 1e12}]}
        assert set(read(reader, "active", active)) == {DEAD_LETTER.name}
        assert {GATEWAY.name, ZONE.name} < set(read(reader, "balance/building", BALANCE_BODY))

    def test_an_active_snapshot_heals_alerts_but_makes_no_events(self, reader: Reader) -> None:
        rows = read(reader, "active", {"time": "2026-11-18T06:00:00Z", "alerts": [ALERT_BODY["data"]]})
        assert {ALERT.name, SUSPECT.name} <= set(rows)
        assert ALERT_EVENT.name not in rows

    def test_statuses_are_ordered_by_arrival(self, reader: Reader) -> None:
        """A gateway that comes back is online since before its will said offline."""
        will = read(reader, "status", {"state": "offline", "versions": {}})[GATEWAY_STATUS.name]
        back = {"state": "online", "since": "2026-11-10T00:00:00Z", "versions": {"checkmeter": "0.1"}}
        assert read(reader, "status", back)[GATEWAY_STATUS.name][-1] > will[-1]

    @pytest.mark.parametrize(
        ("suffix", "body", "table"),
        [
            ("event/tamper", TAMPER_BODY, TAMPER),
            ("evidence/a-1/1-2", {"alert_id": "a-1", "n": 1, "of": 2, "zone": "z", "start": "2026-11-18T06:00:00Z",
                                  "interval_s": 900.0, "series": []}, EVIDENCE),
            ("info", {"time": "2026-11-18T06:00:00Z", "versions": {}, "meters": [], "schemas": {},
                      "zones": [{"id": "z", "main": "m", "subs": []}]}, GATEWAY_INFO),
            ("model/reported", {"state": "kept", "time": "2026-11-18T06:00:00Z", "version": 2}, MODEL_REPORTED),
        ],
    )  # fmt: skip
    def test_the_other_kinds(self, reader: Reader, suffix: str, body: object, table: Any) -> None:
        assert table.name in read(reader, suffix, body)

    def test_unknown_fields_of_a_later_version_are_no_fault(self, reader: Reader) -> None:
        assert BALANCE.name in read(reader, "balance/building", {**BALANCE_BODY, "new": 1})


class TestDeadLetters:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"\xff\xfe", "not a checkmeter.balance.v1"),
            (b"", "not a checkmeter.balance.v1"),
            (b"[" * 100_000, "not a checkmeter.balance.v1"),
            ({**BALANCE_BODY, "coverage": 1.01}, "coverage"),
            ({**BALANCE_BODY, "main_kwh": 1_000_001}, "range: main_kwh"),
            ({**BALANCE_BODY, "residual_kwh": -1e300}, "range: residual_kwh"),
            ({**BALANCE_BODY, "main_kwh": "6"}, "float"),
            ({**BALANCE_BODY, "zone": "other"}, "zone: the topic says building"),
            ({**BALANCE_BODY, "start": "1970-01-01T00:00:00Z"}, "time: start"),
            ({**BALANCE_BODY, "start": "2026-08-01T00:00:00Z"}, "time: start"),
            ({**BALANCE_BODY, "start": "2026-11-20T00:00:00Z", "end": "2026-11-20T00:15:00Z"}, "time: start"),
            ({**BALANCE_BODY, "end": "2026-11-18T00:00:00Z"}, "time: an interval of 0 s"),
            ({**BALANCE_BODY, "end": "2026-11-19T00:15:00Z"}, "time: an interval of 87300 s"),
            ({**BALANCE_BODY, "start": "2026-11-18T00:00:00"}, "timezone"),
            (between("00:07:00", "00:22:00"), "time: an interval of 900 s that begins 420 s off its grid"),
            (between("00:00:01", "00:15:01"), "time: an interval of 900 s that begins 1 s off its grid"),
            (between("00:07:00", "00:22:00.001"), "off its grid"),
            (
                {**BALANCE_BODY, "start": "2026-11-17T21:00:00Z", "end": "2026-11-18T04:00:00Z"},
                "runs past midnight UTC",
            ),
            (between("23:15:00", "23:45:00"), "time: an interval of 1800 s that begins -900 s off its grid"),
        ],
    )
    def test_balances(self, reader: Reader, body: object, reason: str) -> None:
        rows = read(reader, "balance/building", body)
        assert set(rows) == {DEAD_LETTER.name}
        assert reason in rows[DEAD_LETTER.name][2]

    @pytest.mark.parametrize("rows_a_day", [24, 48, 96, 7, 96 * 15, 86_400, 7680, 8192])
    def test_no_balance_of_a_gateways_grid_is_off_it(self, rows_a_day: int) -> None:
        """Each length that divides a day is one that a site file may ask for, whole milliseconds or not."""
        length_s, midnight_s = DAY_S / rows_a_day, NOW_S // DAY_S * DAY_S
        for n in {*range(0, rows_a_day, max(1, rows_a_day // 500)), rows_a_day - 1}:
            start, end = (wire.utc(midnight_s + k * length_s) for k in (n, n + 1))
            on_grid(start.timestamp(), (end - start).total_seconds())

    @pytest.mark.parametrize(
        ("path", "value", "reason"),
        [
            ("source", "/acme/site-2/gw-1", "source: the topic says /acme/site-1/gw-1"),
            ("id", "not-a-uuid", "id: 'not-a-uuid'"),
            ("id", "7d8c1a5200004000800000000000000a", "is no UUID of 36 characters"),
            ("id", "{7d8c1a52-0000-4000-8000-00000000000a}", "is no UUID of 36 characters"),
            ("type", "checkmeter.alert.v2", "checkmeter.alert.v2"),
            ("time", "2099-01-01T00:00:00Z", "time: time"),
            ("data.onset", "1990-01-01T00:00:00Z", "time: onset"),
            ("data.kind", "theft", "theft"),
            ("data.revision", 0, "revision"),
            ("data.revision", 1 << 40, "range"),
            ("data.loss_w", 1e12, "range: loss_w"),
            ("data.model.sha256", "AB" * 32, "SHA-256"),
            ("data.suspects", [{"meter": "x" * 65, "probability": 0.5}], "name: the suspect"),
            ("data.zone", "no such / zone", "name: the zone"),
            ("data.loss_kwh", -1e9, "range: loss_kwh"),
            ("data.loss_w_interval", [5, 1], "range: loss_w_interval"),
            ("data.loss_w_interval", [413, 420], "range: loss_w = 412 is not within"),
            ("data.loss_w_interval", [1, 411.9], "range: loss_w = 412 is not within"),
            ("data.unexplained_probability", 0.04, "sum to 1.02; at most 1"),
            ("data.suspects", [{"meter": "flat-301", "probability": 0.1}] * 2, "flat-301 stands there twice"),
        ],
    )
    def test_alerts(self, reader: Reader, path: str, value: object, reason: str) -> None:
        rows = read(reader, "event/alert", changed(ALERT_BODY, path, value))
        assert set(rows) == {DEAD_LETTER.name}
        assert reason in rows[DEAD_LETTER.name][2]

    @pytest.mark.parametrize(
        ("topic", "reason"),
        [
            ("checkmeter/v1/acme/site-1/gw-1/nonsense", "topic: nothing is known"),
            ("checkmeter/v1/acme/site-1/gw-1/status/x", "topic: nothing is known"),
            ("checkmeter/v1/acme/site-1/gw-1/event/other", "topic: nothing is known"),
            ("checkmeter/v1/acme/site-1/gw-1/balance/a b", "topic: nothing is known"),
            ("checkmeter/v2/acme/site-1/gw-1/status", "is not checkmeter/v1"),
            ("checkmeter/v1/acme/site-1/\u0007/status", "topic: "),
            ("checkmeter/v1/mallory/site-1/gw-1/status", "tenant: mallory is none of ours (acme)"),
        ],
    )
    def test_topics(self, reader: Reader, topic: str, reason: str) -> None:
        letter = reader.read(Publish(topic.encode(), 1, b"{}", False))
        assert reason in str(letter.rows[0][1][2])

    def test_a_topic_that_is_not_utf_8(self, reader: Reader) -> None:
        assert "not UTF-8" in str(reader.read(Publish(b"\xff", 1, b"", False)).rows[0][1][2])

    def test_another_schema_in_the_properties(self, reader: Reader) -> None:
        properties = b"\x26\x00\x06schema\x00\x15checkmeter.balance.v2"
        topic, payload = ADDRESS.topic("balance/building").encode(), json.dumps(BALANCE_BODY).encode()
        letter = reader.read(Publish(topic, 1, payload, False, properties))
        assert "schema: checkmeter.balance.v2 is not checkmeter.balance.v1" in str(letter.rows[0][1][2])
        letter = reader.read(Publish(topic, 1, payload, False, properties.replace(b"v2", b"v1")))
        assert letter.rows[-1][0] is BALANCE

    def test_what_is_kept_is_bounded_and_the_same_message_is_the_same_letter(self, reader: Reader) -> None:
        body = b"x" * (MAX_LETTER_OCTETS + 1)
        row = read(reader, "status", body)[DEAD_LETTER.name]
        assert (row[3], len(row[4])) == (MAX_LETTER_OCTETS + 1, MAX_LETTER_OCTETS)
        assert read(reader, "status", body)[DEAD_LETTER.name][0] == row[0]
        assert read(reader, "status", body + b"y")[DEAD_LETTER.name][0] != row[0]

    def test_a_flood_is_kept_without_its_payloads_until_the_next_hour(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("agent.utility.ingest.decode.MAX_HOURLY_OCTETS", 250)
        now_s = [NOW_S]
        reader = Reader(lambda: now_s[0])
        kept = [len(read(reader, "status", bytes([n]) * 100)[DEAD_LETTER.name][4]) for n in range(4)]
        assert kept == [100, 100, 0, 0]
        now_s[0] += 3600
        assert len(read(reader, "status", b"x" * 100)[DEAD_LETTER.name][4]) == 100

    def test_what_a_sender_writes_is_no_label_of_a_metric(self, reader: Reader) -> None:
        for topic in ('":x', 'a"} 1\n:', "a:", "x: y", "checkmeter: v1/a/b/c/status"):
            reader.read(Publish(topic.encode(), 1, b"{}", False))
        assert reader.refused == {"topic": 5}

    def test_they_are_counted_by_kind(self, reader: Reader) -> None:
        read(reader, "balance/building", {**BALANCE_BODY, "main_kwh": 1e9})
        read(reader, "balance/building", b"")
        assert reader.refused == {"range": 1, "form": 1}


class TestPublishedSchemas:
    """The files under docs/schemas are what a sender is promised: what they allow is read, what they forbid is not."""

    @staticmethod
    def validator(name: str) -> jsonschema.Draft202012Validator:
        schema = json.loads((SCHEMAS / f"{name}.json").read_text())
        return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    @pytest.mark.parametrize("name", ["checkmeter.alert.v1", "checkmeter.tamper.v1"])
    def test_an_events_id_is_a_uuid(self, name: str) -> None:
        validator = self.validator(name)
        said = validator.schema["$defs"][validator.schema["$ref"].rpartition("/")[2]]["properties"]["id"]  # type: ignore[index, call-overload]
        assert said["format"] == "uuid"
        for text in ("1", "", "7d8c1a5200004000800000000000000a", "{7d8c1a52-0000-4000-8000-00000000000a}"):
            assert not validator.evolve(schema=said).is_valid(text), text
        assert validator.evolve(schema=said).is_valid("7d8c1a52-0000-4000-8000-00000000000A")

    def test_what_the_simulated_fleet_says_is_valid_and_readable(self) -> None:
        reader = Reader(lambda: NOW_S)
        first_s = START_S - 20 * INTERVAL_S
        seen = set()
        for number in range(1, 80):
            building = Building(1, number, first_s, first_s + 40 * INTERVAL_S)
            messages: list[tuple[str, Any]] = [
                ("status", building.status("online", first_s)), ("status", building.status("offline", None)),
                ("info", building.info(first_s)),
            ]  # fmt: skip
            for n in range(40):
                start_s = first_s + n * INTERVAL_S
                messages.append(("balance/building", building.balance(start_s)))
                messages += [
                    ("event/alert" if isinstance(event, wire.AlertEvent) else "event/tamper", event)
                    for event in building.events(start_s)
                ]
            for suffix, message in messages:
                name = wire.SCHEMA_OF[type(message)]
                if name not in seen or not suffix.startswith("balance"):  # one balance is like another
                    self.validator(name).validate(json.loads(wire.encode(message)))
                seen.add(name)
                assert DEAD_LETTER.name not in read(reader, suffix, wire.encode(message), building.address)
        assert {"checkmeter.alert.v1", "checkmeter.tamper.v1", "checkmeter.balance.v1"} <= seen

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from([*ALERT_BODY, *(f"data.{name}" for name in ALERT_BODY["data"])]),
        st.one_of(
            st.none(), st.booleans(), st.integers(-10, 10), st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=5), st.lists(st.integers(), max_size=2), st.just({}),
        ),
    )  # fmt: skip
    def test_what_the_alert_schema_forbids_is_a_dead_letter(self, path: str, value: object) -> None:
        body = changed(ALERT_BODY, path, value)
        valid = self.validator("checkmeter.alert.v1").is_valid(body)
        rows = read(Reader(lambda: NOW_S, ["acme"]), "event/alert", body)
        assert valid or DEAD_LETTER.name in rows
