"""Hostile gateways: whatever they send, the ingest goes on, and no wrong row stands in the store.

A fuzzer of its own that starts from what real gateways send: other tenants, forged sources, 1970 and 2100, revisions
that go backwards, control characters, SQL, HTML, numbers without end. CHECKMETER_HOSTILE=1000000 is the long form.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from agent import wire
from agent.utility.ingest.decode import Reader
from agent.utility.load_test.building import Building
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.schema import DAY_S, TABLES
from agent.utility.sql.server import StoreRefused
from agent.utility.sql.store import Store, open_store

COUNT = int(os.environ.get("CHECKMETER_HOSTILE", "15000"))
TEXTS = (
    "", " ", "\x00", "\x1b[2J", "a\nb", "'; DROP TABLE balance; --", "\\'; DELETE FROM alert; --",
    "<script>alert(1)</script>", "{{7*7}}", "%s%n", "../../etc/passwd", "\u202eabc", "\ufeff", "x" * 65, "x" * 5000,
    "😀", "flat-1\n", "ＡＢＣ", "NaN", "=1+1",
)  # fmt: skip
TIMES = (
    "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "2026-02-30T00:00:00Z", "2026-11-24T00:00:00", "2026-11-24T00:00:00+23:59", "yesterday", "",
)  # fmt: skip
NUMBERS = (0, -1, 1, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 10**30, -(10**30), 0.5, 1e308, -1e308, 1e-320, True)
JUNK = ([], {}, None, [[[]]], {"a": {"b": []}})


def paths(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield way
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from paths(item, (*way, key))


def spoiled(rng: random.Random, body: Any) -> Any:
    """The same with one to three places made hostile."""
    for _ in range(rng.randrange(1, 4)):
        way = rng.choice(list(islice(paths(body), 400)))
        if not way:
            continue
        at = body
        for step in way[:-1]:
            at = at[step]
        old = at[way[-1]]
        kind = rng.random()
        if kind < 0.1 and isinstance(at, dict):
            del at[way[-1]]
        elif kind < 0.25:
            at[way[-1]] = copy.deepcopy(rng.choice(JUNK))  # a second place would spoil JUNK itself
        elif isinstance(old, str) and re.match(r"\d{4}-\d\d-\d\dT", old) and kind < 0.8:
            at[way[-1]] = rng.choice(TIMES)
        elif isinstance(old, str):
            at[way[-1]] = rng.choice(TEXTS)
        else:
            at[way[-1]] = rng.choice(NUMBERS)
    return body


def hostile(rng: random.Random, now_s: float) -> Iterator[tuple[bytes, bytes]]:
    """Topics and payloads: real messages, spoiled in body, topic or octets; some as they are."""
    first_s = int(now_s) // 900 * 900 - 3 * DAY_S
    real: dict[str, list[bytes]] = {}
    for number in range(1, 30):
        building = Building(2, number, first_s, int(now_s))
        said = [m for at in range(first_s, int(now_s) - 900, 900) for m in building.interval(at)] + building.hello(
            now_s
        )
        for suffix, message in said:
            real.setdefault(building.address.topic(suffix), []).append(wire.encode(message))
    by_kind: dict[str, list[str]] = {}
    for topic in real:
        by_kind.setdefault(topic.split("/")[5], []).append(topic)
    kinds = sorted(by_kind)
    while True:
        topic = rng.choice(by_kind[rng.choice(kinds)])
        payload = rng.choice(real[topic])
        octets = topic.encode()
        way = rng.random()
        if way < 0.55:
            text = json.dumps(spoiled(rng, json.loads(payload)), ensure_ascii=rng.random() < 0.5)
            payload = text.encode(errors="surrogatepass")
        elif way < 0.65:
            parts = topic.split("/")
            parts[rng.randrange(len(parts))] = rng.choice((*TEXTS, "other-tenant", "acme", "gw-00002"))
            octets = "/".join(parts).encode(errors="surrogatepass")
        elif way < 0.75:
            at = rng.randrange(len(payload) + 1)
            payload = payload[:at] + rng.randbytes(rng.randrange(5)) + payload[at + rng.randrange(3) :]
        elif way < 0.8:
            octets = rng.randbytes(rng.randrange(80))
        elif way < 0.82:
            payload = b"[" * rng.choice((10, 2000, 100_000))
        yield octets, payload


def apply(store: Store, reader: Reader, letters: list[Any]) -> None:
    """As the ingest does: halve what is refused, and put one refused message aside."""
    try:
        for letter in store.apply(letters).overlapping:
            store.apply([reader.dead(letter.packet_id, letter.topic, letter.payload, "overlap: as the ingest says")])
    except StoreRefused as error:
        if len(letters) > 1:
            half = len(letters) // 2
            apply(store, reader, letters[:half])
            apply(store, reader, letters[half:])
            return
        letter = letters[0]
        reader.forget_names()
        store.apply([reader.dead(letter.packet_id, letter.topic, letter.payload, f"store: {error}")])


def test_no_end_and_no_wrong_row(tmp_path: Path) -> None:
    now_s = time.time()
    rng = random.Random(16)
    with open_store(f"sqlite:///{tmp_path / 'fleet.sqlite'}", make=True) as store:
        store.migrate(now_s)
        reader = Reader(lambda: now_s, tenants=("fleet",))
        source = hostile(rng, now_s)
        revisions: dict[Any, int] = {}
        letters = []
        for n in range(COUNT):
            topic, payload = next(source)
            letters.append(reader.read(Publish(topic, n % 60_000 + 1, payload, False)))
            if len(letters) == 500 or n == COUNT - 1:
                apply(store, reader, letters)
                letters = []
                for key, revision in store.rows("SELECT alert_key, revision FROM alert"):
                    assert int(str(revision)) >= revisions.get(key, 0), "a revision went backwards"
                    revisions[key] = int(str(revision))
        assert not [reason for reason in reader.refused if reason == "bug"], reader.refused
        assert all(re.fullmatch(r"[a-z]{1,16}", reason) for reason in reader.refused), "a label of a metric is ours"
        assert len(reader.refused) < 20, reader.refused
        refused = sum(reader.refused.values())
        assert COUNT * 0.3 < refused < COUNT * 0.9, "the fuzzer makes both, or it proves nothing"
        name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
        for row in store.rows("SELECT tenant, site, gateway FROM gateway"):
            assert row[0] == "fleet"
            assert all(name.fullmatch(str(part)) for part in row), row
        for table, column in (("zone", "zone"), ("suspect", "meter"), ("tamper", "meter"), ("alert", "suspect")):
            for (text,) in store.rows(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL"):
                assert name.fullmatch(str(text)), (table, column, text)
        low, high = store.rows("SELECT MIN(start_s), MAX(start_s) FROM balance")[0]
        assert now_s - 91 * DAY_S < int(str(low)) <= int(str(high)) <= now_s + DAY_S
        sums = "SUM(main_j), SUM(sum_j), SUM(technical_j), SUM(residual_j)"
        known = "main_j IS NOT NULL AND sum_j IS NOT NULL AND technical_j IS NOT NULL AND residual_j IS NOT NULL"
        assert store.rows(f"SELECT {sums} FROM balance WHERE {known}") == store.rows(f"SELECT {sums} FROM balance_day")
        assert store.rows("SELECT COUNT(*) FROM balance") == store.rows("SELECT SUM(intervals) FROM balance_day")
        spans: list[Any] = store.rows("SELECT zone_key, start_s, seconds FROM balance ORDER BY zone_key, start_s")
        assert not [(one, two) for one, two in pairwise(spans) if one[0] == two[0] and one[1] + one[2] > two[1]], (
            "a moment counts twice"
        )
        steering = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e]")
        for table in TABLES:
            shown = [column for column, kind in table.columns if kind.startswith(("VARCHAR", "CHAR"))]
            for column in shown:
                for (text,) in store.rows(f"SELECT DISTINCT {column} FROM {table.name} WHERE {column} IS NOT NULL"):
                    assert not steering.search(str(text)), (table.name, column, text)
