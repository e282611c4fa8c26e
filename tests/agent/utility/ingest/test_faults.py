"""Real broker, real stores, real kills: whatever dies, no balance is lost and none counts twice."""

from __future__ import annotations

import json
import os
import random
import uuid

import pytest

from agent import wire
from agent.utility.sql.store import open_store

pytestmark = pytest.mark.mosquitto


def count(dsn: str, table: str = "balance") -> int:
    with open_store(dsn) as store:
        return int(str(store.rows(f"SELECT COUNT(*) FROM {table}")[0][0]))


KILLS = int(os.environ.get("CHECKMETER_KILLS", "3"))  # more by `make proof-utility`


def test_kill_9_of_the_ingest_again_and_again(mosquitto, dsn, replica, sender, balances, tally, wait) -> None:
    part = 4000
    messages = balances(100 * KILLS, part // 100)
    ingest = replica(mosquitto.url, dsn)
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    for kill in range(KILLS):
        sender.send(messages[kill * part : (kill + 1) * part])
        reached = kill * part + random.Random(kill).randrange(200, part - 1000)
        wait(lambda reached=reached: count(dsn) >= reached, f"{reached} balances are stored")
        ingest.kill()
        connections = ingest.connected()
        ingest.start()
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    wait(lambda: ingest.connected() > connections, "the last one is up")
    assert ingest.stop() == 0
    with open_store(dsn) as store:
        tally(messages).check(store)
        assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]


@pytest.mark.mariadb
@pytest.mark.xdist_group("mariadb")
def test_kill_9_of_the_server_in_the_middle_of_batches(
    mosquitto, mariadb, replica, sender, balances, tally, wait
) -> None:
    dsn = mariadb.emptied()
    messages = balances(200, 100)
    ingest = replica(mosquitto.url, dsn)
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    for kill in range(2):
        sender.send(messages[kill * 10_000 : (kill + 1) * 10_000])
        wait(lambda kill=kill: count(dsn) >= kill * 10_000 + 2000, "a part is stored")
        mariadb.kill()
        mariadb.start()
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    assert ingest.connected() == 1, "a store that is away must not cost the broker's connection"
    assert ingest.stop() == 0
    with open_store(dsn) as store:
        tally(messages).check(store)


def test_two_replicas_share_and_one_dies(mosquitto, dsn, replica, sender, balances, tally, wait) -> None:
    messages = balances(200, 60)
    first, second = (replica(mosquitto.url, dsn, number) for number in (1, 2))
    wait(lambda: first.connected() == second.connected() == 1, "both are connected")
    sender.send(messages[:6000])
    wait(lambda: count(dsn) >= 2000, "a part is stored")
    first.kill()
    sender.send(messages[6000:])
    # What the broker keeps for the dead one waits for its id: the other gets none of it.
    first.start()
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    assert (first.stop(), second.stop()) == (0, 0)
    assert second.figure("messages_total") > 1000, "the second replica has done its share"
    with open_store(dsn) as store:
        tally(messages).check(store)


def test_a_replica_that_leaves_takes_what_waits_and_gets_no_more(
    mosquitto, dsn, replica, sender, balances, tally, wait
) -> None:
    messages = balances(100, 30)
    first, second = (replica(mosquitto.url, dsn, number) for number in (1, 2))
    wait(lambda: first.connected() == second.connected() == 1, "both are connected")
    first.kill()
    # The broker goes on to deal the dead one its share.
    sender.send(messages[:1500])
    wait(lambda: count(dsn) == 750, "the second has its half")
    leaving = replica(mosquitto.url, dsn, 1, "--leave")
    assert leaving.process.wait(60) == 0
    assert count(dsn) == 1500
    sender.send(messages[1500:])
    wait(lambda: count(dsn) == len(messages), "the second gets everything")
    with open_store(dsn) as store:
        tally(messages).check(store)


def test_every_message_sent_twice_by_two_senders(mosquitto, dsn, replica, sender, balances, tally, wait) -> None:
    messages = balances(100, 40)
    doubled = messages + messages
    random.Random(5).shuffle(doubled)
    first, second = (replica(mosquitto.url, dsn, number) for number in (1, 2))
    wait(lambda: first.connected() == second.connected() == 1, "both are connected")
    sender.send(doubled)
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    assert (first.stop(), second.stop()) == (0, 0)
    assert first.figure("repeated_total") + second.figure("repeated_total") > 1000
    with open_store(dsn) as store:
        tally(messages).check(store)


def test_poison_messages_stop_nothing(mosquitto, dsn, replica, sender, balances, tally, wait) -> None:
    messages = balances(100, 20)
    good = json.loads(messages[0][1])
    base = "checkmeter/v1/acme/site-1/gw-1"
    tamper = wire.TamperEvent(
        id=str(uuid.uuid4()), source="/acme/site-1/gw-1", subject="meter/m", time=wire.utc(1_790_000_000.0),
        data=wire.TamperData(meter="m", kind="other", state="detected", code=(1 << 40)),
    )  # fmt: skip
    poison = [
        (f"{base}/balance/building", b"\xff\xfe no json"),
        (f"{base}/balance/building", b"{}"),
        (f"{base}/balance/building", json.dumps({**good, "main_kwh": 1e300}).encode()),
        (f"{base}/balance/building", json.dumps({**good, "start": "1970-01-01T00:00:00Z"}).encode()),
        (f"{base}/balance/building", json.dumps({**good, "start": "2099-01-01T00:00:00Z"}).encode()),
        (f"{base}/balance/building", json.dumps({**good, "end": good["start"]}).encode()),
        (f"{base}/balance/building", json.dumps({**good, "coverage": 1.5}).encode()),
        (f"{base}/balance/building", json.dumps({**good, "zone": "other"}).encode()),
        (f"{base}/balance/{'z' * 80}", messages[0][1]),
        ("checkmeter/v1/mallory/site-1/gw-1/balance/building", messages[0][1]),
        (f"{base}/event/alert", b'{"specversion": "1.0", "type": "checkmeter.alert.v9"}'),
        (f"{base}/event/tamper", wire.encode(tamper)),
        (f"{base}/event/unheard-of", b"{}"),
        (f"{base}/status", b"x" * 300_000),
    ]
    mixed = messages + poison + poison
    random.Random(4).shuffle(mixed)
    ingest = replica(mosquitto.url, dsn, 1, "--tenant", "acme")
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    sender.send(mixed)
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    wait(lambda: count(dsn, "dead_letter") == len(poison), "each poison message is one dead letter")
    assert ingest.stop() == 0
    with open_store(dsn) as store:
        tally(messages).check(store)
        reasons = [str(reason) for (reason,) in store.rows("SELECT reason FROM dead_letter")]
    for sign in ("tenant: mallory", "time: start = 1970", "time: start = 2099", "range: main_kwh", "zone: the topic"):
        assert any(sign in reason for reason in reasons), (sign, reasons)


def test_a_broker_that_restarts_costs_no_more_than_a_reconnect(
    mosquitto, dsn, replica, sender, balances, tally, wait
) -> None:
    messages = balances(50, 20)
    ingest = replica(mosquitto.url, dsn)
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    sender.send(messages[:500])
    wait(lambda: count(dsn) == 500, "the first half is stored")
    mosquitto.stop()
    mosquitto.start()
    wait(lambda: ingest.connected() == 2, "the ingest has come back")
    sender.connect()
    sender.send(messages[500:])
    wait(lambda: count(dsn) == len(messages), "all balances are stored")
    with open_store(dsn) as store:
        tally(messages).check(store)


def test_a_wrong_schema_version_in_the_properties_is_a_dead_letter(
    mosquitto, dsn, replica, sender, balances, wait
) -> None:
    ingest = replica(mosquitto.url, dsn)
    wait(lambda: ingest.connected() == 1, "the ingest is connected")
    topic, payload = balances(1, 1)[0]
    sender.send([(topic, payload)], schema="checkmeter.balance.v2")
    wait(lambda: count(dsn, "dead_letter") == 1, "the message is a dead letter")
    assert count(dsn) == 0
