"""The contract: topics, limits, ids, and the schemas in docs/ against what the structs really give."""

from __future__ import annotations

import json
import math
from pathlib import Path
from uuid import UUID

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.store.messages import CHUNK_BYTES, Priority, balance_message, evidence_messages
from agent.wire import contract
from agent.wire.codec import decode
from agent.wire.downlink import Command
from agent.wire.values import WireError, utc

ROOT = Path(__file__).resolve().parents[3]
T0 = 1_767_225_600.0


def test_the_committed_schemas_and_asyncapi_are_what_the_structs_say() -> None:
    made = contract.files()
    there = {str(p.relative_to(ROOT / "docs")): p.read_text() for p in (ROOT / "docs").rglob("*.json")}
    assert {name for name in there if name.startswith("schemas/")} == set(made) - {"asyncapi.json"}
    wrong = [name for name, content in made.items() if there[name] != content]
    assert not wrong, "run: python -m agent.wire.contract docs"


@pytest.mark.parametrize("name", wire.SCHEMAS)
def test_each_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(contract.schema(name))


def test_the_asyncapi_document_names_every_topic_once_and_every_reference_leads_somewhere() -> None:
    document = contract.asyncapi()
    assert document["asyncapi"] == "3.0.0"
    suffixes = {c["address"].split("{gateway}/")[1] for c in document["channels"].values()}
    assert len(suffixes) == len(contract.CHANNELS) == 18

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            return [r for k, v in node.items() for r in ([v] if k == "$ref" else references(v))]
        return [r for v in node for r in references(v)] if isinstance(node, list) else []

    for reference in references(document):
        if reference.startswith("#/"):
            place: object = document
            for step in reference[2:].split("/"):
                assert isinstance(place, dict)
                place = place[step]
        else:
            assert (ROOT / "docs" / reference).is_file()


def test_the_alert_of_the_contract_is_read_as_it_stands() -> None:
    text = """{"specversion": "1.0", "id": "7d8c1a52-0b55-4b0e-9d3e-0f3c8d1f2a77", "type": "checkmeter.alert.v1",
     "source": "/acme/riverside-12/gw-0012", "subject": "zone/building", "time": "2026-03-01T00:15:00Z",
     "datacontenttype": "application/json",
     "data": {"alert_id": "a1", "revision": 3, "state": "updated", "kind": "bypass", "severity": "critical",
       "zone": "building", "onset": "2026-02-20T18:00:00Z",
       "onset_window": ["2026-02-20T12:00:00Z", "2026-02-20T21:00:00Z"],
       "loss_w": 412.0, "loss_w_interval": [371.0, 455.0], "loss_kwh": 96.2,
       "suspects": [{"meter": "flat-302", "probability": 0.91}], "upstream_probability": 0.03,
       "residual": {"kwh": 4.1, "percent": 6.3, "uncertainty_kwh": 0.9, "technical_loss_kwh": 0.6},
       "features": {"flat-302": {"power_usage_decline_level": 0, "line_loss_rate": 0, "warning_num": 0}},
       "model": {"sha256": "00", "threshold": 0.6, "score": 0.91},
       "quality": {"coverage": 0.998}, "cim": "5.21.67.98"}}"""
    event = wire.decode(wire.AlertEvent, text.encode())
    assert json.loads(wire.encode(event)) == json.loads(text)
    jsonschema.validate(json.loads(text), contract.schema("checkmeter.alert.v1"))


@pytest.mark.parametrize("bad", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"ids":[1]}', b'{"ids":[],"more":1}'])
def test_what_is_not_the_message_is_an_error_with_words(bad: bytes) -> None:
    with pytest.raises(wire.WireError, match=r"checkmeter\.ack\.v1"):
        wire.decode(wire.Ack, bad)


def test_oversized_octets_are_not_parsed() -> None:
    with pytest.raises(wire.WireError, match="65 octets are over the limit of 64"):
        wire.decode(wire.Ack, b"x" * 65, 64)


def test_a_field_that_a_newer_gateway_adds_is_no_error_and_one_in_an_order_is() -> None:
    wire.decode(wire.Status, b'{"state":"online","versions":{},"mood":"good"}')
    with pytest.raises(wire.WireError):
        wire.decode(wire.Signed, b'{"payload":"","key":"' + b"0" * 16 + b'","signature":"' + b"0" * 128 + b'","x":1}')


@given(st.lists(st.text(), max_size=4))
def test_a_derived_uuid_has_the_shape_of_version_4_and_is_the_same_again(parts: list[str]) -> None:
    made = UUID(wire.derived_uuid(*parts))
    assert (made.version, made.variant) == (4, UUID(int=0, version=4).variant)
    assert str(made) == wire.derived_uuid(*parts)


@given(st.floats())
def test_a_number_is_finite_or_null(value: float) -> None:
    shown = wire.number(value)
    assert shown is None if not math.isfinite(value) else abs(shown - value) <= 5.1e-4 + 1e-12 * abs(value)


def test_topics_there_and_back() -> None:
    address = wire.Address("acme", "riverside-12", "gw-0012")
    topic = address.topic(wire.evidence_suffix("a1", 2, 3))
    assert topic == "checkmeter/v1/acme/riverside-12/gw-0012/evidence/a1/2-3"
    assert wire.split_topic(topic) == (address, "evidence/a1/2-3")
    for bad in ("checkmeter/v2/a/b/c/status", "checkmeter/v1/a/b/c", ""):
        with pytest.raises(wire.WireError):
            wire.split_topic(bad)


def test_a_balance_is_worth_sending_for_seven_days_after_its_interval() -> None:
    balance = wire.Balance(
        zone="b", start=wire.utc(T0), end=wire.utc(T0 + 900), main_kwh=1.0, sum_kwh=None, technical_loss_kwh=None,
        residual_kwh=None, uncertainty_kwh=None, coverage=0.5,
    )  # fmt: skip
    message = balance_message(balance)
    assert (message.suffix, message.priority, message.expires_s) == ("balance/b", Priority.BALANCE, T0 + 900 + 604800)
    assert b'"sum_kwh":null' in message.body


def test_evidence_is_cut_into_chunks_that_put_together_give_the_intervals_with_gaps_as_null() -> None:
    rng = np.random.default_rng(1)
    meters = [f"flat-{i}" for i in range(40)]
    wh = np.cumsum(rng.integers(0, 400, (2000, 40)), axis=0).astype(float)
    times = T0 + 900.0 * np.arange(2000)
    kept = np.delete(np.arange(2000), [500, 501])
    messages = list(evidence_messages("a1", "b", 900.0, meters, times[kept], wh[kept]))
    chunks = [wire.decode(wire.EvidenceChunk, m.body) for m in messages]
    assert [(c.n, c.of) for c in chunks] == [(n, len(chunks)) for n in range(1, len(chunks) + 1)]
    assert len(chunks) > 1
    assert max(len(m.body) for m in messages) <= CHUNK_BYTES
    assert [m.suffix for m in messages][:1] == [f"evidence/a1/1-{len(chunks)}"]
    together = np.array([[v for c in chunks for v in c.series[i].kwh] for i in range(40)], dtype=float).T
    assert together.shape == (1999, 40)
    assert np.isnan(together[499:502]).all()
    good = np.delete(np.arange(1999), [499, 500, 501])
    np.testing.assert_allclose(together[good], np.diff(wh, axis=0)[good] / 1000, atol=5e-4)
    rows = len(chunks[0].series[0].kwh)
    assert chunks[1].start == wire.utc(T0 + 900 * rows)


def test_every_struct_has_an_id_and_no_struct_two() -> None:
    assert len(set(wire.SCHEMAS.values())) == len(wire.SCHEMAS)
    assert {c.schema for c in contract.CHANNELS} <= set(wire.SCHEMAS)
    assert all(issubclass(s, msgspec.Struct) for s in wire.SCHEMAS.values())


def test_times_beyond_2038_are_written_where_a_time_t_has_32_bits_too() -> None:
    assert utc(2**31 + 0.5).isoformat() == "2038-01-19T03:14:08.500000+00:00"
    assert utc(4_102_444_800.0).isoformat() == "2100-01-01T00:00:00+00:00"
    assert utc(-1.0).isoformat() == "1969-12-31T23:59:59+00:00"


@pytest.mark.parametrize("ending", ["\n", "\r", " ", "\u2028"])
def test_an_id_ends_where_it_ends(ending: str) -> None:
    body = {"id": "c-1", "target": "a/b/c", "name": "ping", "issued": "2026-01-01T00:00:00Z"}
    body["expires"] = "2026-01-01T01:00:00Z"
    assert decode(Command, json.dumps(body).encode()).id == "c-1"
    with pytest.raises(WireError):
        decode(Command, json.dumps(body | {"id": "c-1" + ending}).encode())
