"""The ingest's loop against a scripted broker on a socket pair and a store that fails on purpose; time is a fake."""

from __future__ import annotations

import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.utility.ingest.answers import MAX_WAITING, Answers
from agent.utility.ingest.decode import Reader
from agent.utility.ingest.ingest import BACKOFF_S, MAX_LETTERS, Ingest, Replica
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Connection
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.schema import BALANCE, DEAD_LETTER
from agent.utility.sql.server import Server, StoreMisfit, StoreRefused, StoreUnavailable
from agent.utility.sql.store import Store, open_store

CONNACK = bytes.fromhex("2003000000")
FILTERS = len(Replica().subscriptions())
REFUSED_LAST = f"90{3 + FILTERS:02x}000100" + "01" * (FILTERS - 1) + "87"  # a SUBACK: the last filter is not allowed


class FakeClock:
    """Goes on by what is waited for; `stop_after` waits it sets the event that is waited for."""

    def __init__(self, stop_after: int = 1000) -> None:
        self.time_s = 1000.0
        self.waits: list[float] = []
        self._stop_after = stop_after

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        self.time_s += 0.001
        return self.time_s

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        if timeout_s > 0.01:  # not the short rest between meagre reads
            self.waits.append(timeout_s)
        self.time_s += timeout_s
        if len(self.waits) >= self._stop_after:
            event.set()
        return event.is_set()


class ScriptedBroker:
    """A broker that has said all that it will say before anybody connects; then it closes."""

    timeout_s = 1.0
    url = "mqtt://script"

    def __init__(self, *scripts: bytes) -> None:
        self._scripts = list(scripts)
        self._peers: list[socket.socket] = []
        self.attempts = 0

    def open_socket(self) -> socket.socket:
        self.attempts += 1
        if not self._scripts:
            raise ConnectionRefusedError("no more of the script")
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.sendall(self._scripts.pop(0))
        theirs.shutdown(socket.SHUT_WR)
        self._peers.append(theirs)
        return ours

    def credentials(self) -> tuple[None, None]:
        return None, None

    def heard(self) -> bytes:
        """All that clients have sent."""
        octets = b""
        for peer in self._peers:
            while select.select([peer], [], [], 0)[0] and (chunk := peer.recv(1 << 16)):
                octets += chunk
        return octets

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


class Faulty:
    """A real server whose transactions fail as they are told to."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dialect = server.dialect
        self.run, self.close = server.run, server.close
        self.away = 0  # so many transactions find the server gone
        self.poison: object = None  # rows that hold this are refused

    def insert(self, table: Any, rows: Any) -> int:
        if table is not DEAD_LETTER and any(self.poison in row for row in rows):
            raise StoreRefused("poison")
        return self.server.insert(table, rows)

    def transaction(self) -> Any:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("gone")
        return self.server.transaction()


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    with open_store(f"sqlite:///{tmp_path / 'fleet.sqlite'}", make=True) as store:
        store.migrate(time.time())
        yield Faulty(store.server)


@pytest.fixture
def play() -> Iterator[Callable[..., tuple[ScriptedBroker, Ingest]]]:
    """Run an ingest against a script until its `stop_after`-th wait."""
    brokers: list[ScriptedBroker] = []

    def run(faulty: Faulty, scripts: list[bytes], stop_after: int, **more: Any) -> tuple[ScriptedBroker, Ingest]:
        broker, clock = ScriptedBroker(*scripts), FakeClock(stop_after)
        brokers.append(broker)
        ingest = Ingest(broker, Store(faulty), Reader(time.time), clock, Replica(3, "g"), **more)  # type: ignore[arg-type]
        ingest.clock = clock  # type: ignore[attr-defined]
        ingest.run(threading.Event())
        return broker, ingest

    yield run
    for broker in brokers:
        broker.close()


def hello(subscriptions: int = FILTERS) -> bytes:
    return CONNACK + b"\x90" + packets.varint(3 + subscriptions) + b"\x00\x01\x00" + b"\x01" * subscriptions


def script(messages: list[tuple[str, bytes]], first_id: int = 1) -> bytes:
    return hello() + b"".join(packets.publish(t, p, packet_id=n) for n, (t, p) in enumerate(messages, first_id))


def acknowledged(broker: ScriptedBroker) -> list[int]:
    """Packet ids in the order of their PUBACKs. What else clients send is cut out by hand: they are no brokers."""
    octets, at, ids = broker.heard(), 0, []
    while at < len(octets):
        length, start = octets[at + 1], at + 2
        if length > 127:
            length, start = (length & 127) + octets[at + 2] * 128, at + 3
        if octets[at] == 0x40:
            ids.append(octets[start] << 8 | octets[start + 1])
        at = start + length
    return ids


def count(faulty: Faulty, table: str = "balance") -> object:
    return faulty.run(f"SELECT COUNT(*) FROM {table}")[0][0]


def test_a_full_batch_is_committed_and_acknowledged_in_order(faulty: Faulty, play: Any, balances: Any) -> None:
    broker, ingest = play(faulty, [script(balances(100, 10))], stop_after=1)
    assert count(faulty) == 1000
    assert acknowledged(broker) == list(range(1, 1001))
    assert (ingest.metrics.batches, ingest.metrics.balances, ingest.metrics.repeated) == (1000 // MAX_LETTERS, 1000, 0)


def test_what_is_not_committed_is_not_acknowledged(faulty: Faulty, play: Any, balances: Any) -> None:
    """The connection breaks with 100 messages in hand: they come again with the next one, and count once."""
    messages = balances(100, 6)
    broker, ingest = play(faulty, [script(messages), script(messages[400:], 401)], stop_after=2)
    assert acknowledged(broker)[:500] == list(range(1, 501))
    assert ingest.metrics.connections == 2
    assert ingest.metrics.messages in {500, 700}  # the second batch may end with the connection or in time


def test_a_balance_over_another_one_is_a_dead_letter_and_acknowledged(faulty: Faulty, play: Any, balances: Any) -> None:
    """A gateway's interval went from a quarter of an hour to half an hour, over a quarter that was sent already."""
    quarters = balances(1, 3)
    topic, octets = quarters[2]
    quarter = wire.decode(wire.Balance, octets)
    half = wire.encode(msgspec.structs.replace(quarter, end=quarter.end + (quarter.end - quarter.start)))
    over = wire.encode(msgspec.structs.replace(wire.decode(wire.Balance, quarters[0][1]), end=quarter.start))
    first = [*quarters[:1] * (MAX_LETTERS - 2), quarters[1], (topic, half)]
    broker, ingest = play(faulty, [script(first), script([*first[:-2], (topic, over), (topic, half)])], stop_after=2)
    assert acknowledged(broker) == [*range(1, MAX_LETTERS + 1)] * 2
    assert faulty.run("SELECT intervals, known_s FROM balance_day") == [(3, 3600)]
    [(reason,)] = faulty.run("SELECT reason FROM dead_letter")
    assert str(reason).startswith("overlap: 1800 s from ")
    assert (ingest.metrics.balances, ingest.metrics.repeated, ingest.metrics.letters_dead["overlap"]) == (3, 996, 1)


def test_names_that_a_broken_connection_took_along_come_again(faulty: Faulty, play: Any, balances: Any) -> None:
    messages = balances(100, 5)
    play(faulty, [script(messages[:50]), script(messages)], stop_after=2)
    assert (count(faulty), count(faulty, "zone"), count(faulty, "gateway")) == (500, 100, 100)


def test_a_store_that_is_away_delays_and_the_broker_is_kept(faulty: Faulty, play: Any, balances: Any) -> None:
    faulty.away = 12
    broker, ingest = play(faulty, [script(balances(100, 5))], stop_after=13)
    assert count(faulty) == 500
    assert ingest.metrics.store_waits == 12
    assert ingest.clock.waits[:12] == [*BACKOFF_S, *[BACKOFF_S[-1]] * 5]
    assert packets.PINGREQ in broker.heard()


def test_stopped_while_the_store_is_away(faulty: Faulty, play: Any, balances: Any) -> None:
    faulty.away = 100
    broker, _ = play(faulty, [script(balances(100, 5))], stop_after=5)
    assert count(faulty) == 0
    assert acknowledged(broker) == []


def test_a_row_that_the_store_refuses_is_found_and_put_aside(faulty: Faulty, play: Any, balances: Any) -> None:
    messages = balances(100, 10)
    topic, payload = messages[33]  # the first of its gateway: it takes the names along
    table, row = Reader(time.time).read(Publish(topic.encode(), 1, payload, False)).rows[-1]
    assert table is BALANCE
    faulty.poison = row[3]
    broker, ingest = play(faulty, [script(messages)], stop_after=1)
    assert (count(faulty), count(faulty, "dead_letter")) == (999, 1)
    assert faulty.run("SELECT SUM(intervals) FROM balance_day") == [(999,)]
    assert ingest.metrics.letters_dead == {"store": 1}
    assert acknowledged(broker) == list(range(1, 1001))
    assert count(faulty, "zone") == 100, "names that went to the dead letters come with the next batch"


def test_a_store_that_refuses_even_dead_letters_is_a_misfit(faulty: Faulty, play: Any, balances: Any) -> None:
    faulty.poison = None

    def insert(table: Any, rows: Any) -> int:
        raise StoreRefused("everything")

    faulty.insert = insert  # type: ignore[method-assign]
    with pytest.raises(StoreMisfit, match="even a dead letter"):
        play(faulty, [script(balances(100, 5))], stop_after=1)


def test_events_are_confirmed_to_their_gateways_after_the_commit(faulty: Faulty, play: Any, balances: Any) -> None:
    address = wire.Address("acme", "site-1", "gw-1")
    event_id = str(uuid.uuid4())
    tamper = wire.TamperEvent(
        id=event_id, source=address.source, subject="meter/m", time=wire.utc(time.time() - 60),
        data=wire.TamperData(meter="m", kind="other", state="detected"),
    )  # fmt: skip
    messages = [*balances(100, 4), *balances(100, 1)[:99], (address.topic("event/tamper"), wire.encode(tamper))]
    broker, _ = play(faulty, [script(messages)], stop_after=1)
    topic, body = address.topic("ack").encode(), wire.encode(wire.Ack(ids=[event_id]))
    octets = broker.heard()
    assert octets.index(packets.pubacks([500])) < octets.index(body)
    head = octets[octets.index(topic) - 4]  # type and flags, two octets of remaining length, the topic's length
    assert octets[octets.index(topic) - 5] == 0x32 or head == 0x32, "at QoS 1, as the contract says"


def test_a_message_that_makes_no_row_is_acknowledged(faulty: Faulty, play: Any, balances: Any) -> None:
    """`active` of a healthy gateway: in order, retained, and nothing to be written."""
    body = wire.encode(wire.ActiveSnapshot(time=wire.utc(time.time()), alerts=[]))
    nothing = (wire.Address("a", "s", "g").topic("active"), body)
    for messages in ([nothing] * 500, [nothing, *balances(2, 249), nothing]):
        broker, ingest = play(faulty, [script(messages)], stop_after=1)
        assert acknowledged(broker) == list(range(1, 501))
        assert sum(ingest.metrics.letters_dead.values()) == 0
    assert ingest.metrics.balances == 498


class Buggy:
    """A server in front of which our own code breaks on one row."""

    def __init__(self, server: Any) -> None:
        self.server, self.dialect = server, server.dialect
        self.run, self.close, self.transaction = server.run, server.close, server.transaction

    def insert(self, table: Any, rows: Any) -> int:
        if table is BALANCE and any(row[3] == 3_600_000 for row in rows):
            raise IndexError("tuple index out of range")
        return int(self.server.insert(table, rows))


def test_a_bug_that_one_message_finds_makes_a_dead_letter_of_it_and_no_end(
    faulty: Faulty, play: Any, balances: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = balances(100, 5)
    topic, body = good[7]
    bad = (topic, wire.encode(msgspec.structs.replace(wire.decode(wire.Balance, body), main_kwh=1.0)))
    _, ingest = play(Buggy(faulty.server), [script([*good[:7], bad, *good[8:]])], stop_after=1)
    rows = faulty.server.run("SELECT reason FROM dead_letter")
    assert rows == [("bug: IndexError: tuple index out of range",)]
    assert ingest.metrics.balances == 499

    def broken(self: Any, route: Any, status: Any) -> Any:
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(Reader, "_status", broken)
    address = wire.Address("a", "s", "g")
    status = (address.topic("status"), wire.encode(wire.Status(state="online", versions={})))
    play(faulty, [script([status, *balances(100, 5)[:499]])], stop_after=1)
    assert faulty.server.run("SELECT COUNT(*) FROM dead_letter WHERE reason LIKE 'bug: KeyError%'") == [(1,)]


def test_the_window_of_what_we_publish_is_the_brokers() -> None:
    sent: list[bytes] = []
    link: Any = type("Link", (), {"send": staticmethod(sent.append)})
    answers = Answers()
    answers.reconnected(receive_maximum=2)
    for n in range(5):
        answers.queue(b"t/ack", str(n).encode())
    answers.send(link)
    answers.send(link)
    assert len(sent) == 1
    assert sent[0].endswith(b"1")
    assert b"2" not in sent[0][-3:]
    answers.acknowledged(1)
    answers.send(link)
    assert sent[1].endswith(b"2")
    answers.reconnected(receive_maximum=65535)
    answers.send(link)
    assert sent[2].endswith(b"4")
    for n in range(2 * MAX_WAITING):
        answers.queue(b"t/ack", str(n).encode())
    answers.reconnected(1)
    answers.send(link)
    assert sent[-1].endswith(str(MAX_WAITING).encode()), "the oldest are given up"


def test_a_broker_that_is_away_is_asked_ever_more_seldom(faulty: Faulty, play: Any) -> None:
    broker, ingest = play(faulty, [], stop_after=9)
    assert ingest.clock.waits == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]
    assert broker.attempts == 9


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("2003008700", "not authorised"), (CONNACK.hex() + REFUSED_LAST, "refused to subscribe")],
)
def test_a_refusal_is_the_operators(faulty: Faulty, play: Any, answer: str, reason: str) -> None:
    with pytest.raises(packets.Refused, match=reason):
        play(faulty, [bytes.fromhex(answer)], stop_after=1)


def test_maintenance_that_fails_stops_nothing(faulty: Faulty, play: Any, balances: Any) -> None:
    def fail(now_s: float) -> None:
        raise StoreMisfit("no right to ALTER")

    play(faulty, [script(balances(100, 5))], stop_after=1, maintain=fail)
    assert count(faulty) == 500


def test_maintenance_once_a_day(faulty: Faulty, play: Any, balances: Any) -> None:
    days: list[float] = []
    play(faulty, [script(balances(100, 10))], stop_after=1, maintain=days.append)
    assert len(days) == 1


class TestConnection:
    def test_pings_at_half_the_keep_alive_and_gives_up_at_one_and_a_half(self) -> None:
        broker, clock = ScriptedBroker(CONNACK), FakeClock()
        connection = Connection(broker, clock, "c", keepalive_s=30)  # type: ignore[arg-type]
        broker.heard()
        clock.time_s += 10
        connection.keep_alive()
        assert broker.heard() == b""
        clock.time_s += 10
        connection.keep_alive()
        assert broker.heard() == packets.PINGREQ
        with pytest.raises(packets.MqttError, match="closed"):
            connection.receive(0.0)
        connection.close()
        broker.close()

    def test_silence_of_the_broker(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.sendall(CONNACK)

        class Silent(ScriptedBroker):
            def open_socket(self) -> socket.socket:
                return ours

        clock = FakeClock()
        connection = Connection(Silent(), clock, "c", keepalive_s=30)  # type: ignore[arg-type]
        clock.time_s += 46
        with pytest.raises(packets.MqttError, match="said nothing for 46 s"):
            connection.keep_alive()
        theirs.sendall(b"\xd0\x00")
        assert connection.receive(1.0) == [packets.Pingresp()]
        connection.keep_alive()
        connection.close()
        theirs.close()

    def test_messages_that_come_before_the_suback_are_not_lost(self) -> None:
        early = packets.publish("t", b"x", packet_id=9)
        broker = ScriptedBroker(CONNACK + early + bytes.fromhex("900400010001") + b"\xd0\x00")
        connection = Connection(broker, FakeClock(), "c")  # type: ignore[arg-type]
        connection.subscribe([packets.Subscription("t")])
        assert [type(event) for event in connection.receive(0.0)] == [Publish, packets.Pingresp]
        connection.close()
        broker.close()


class TestMetrics:
    def test_the_file_and_what_health_says_of_it(
        self, faulty: Faulty, play: Any, balances: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "ingest.prom"
        play(faulty, [script(balances(100, 5))], stop_after=1, metrics_path=path)
        text = path.read_text()
        assert 'checkmeter_ingest_balances_total{replica="3"} 500\n' in text
        assert "# TYPE checkmeter_ingest_unacknowledged gauge\n" in text
        health = ["utility", "health", "--metrics", str(path)]
        assert CliRunner().invoke(cli, health).exit_code == 0
        seen_s = float(text.split("progress_seconds{")[1].split(" ")[1].split("\n")[0])
        path.write_text(text.replace(f"{seen_s:.15g}", f"{seen_s - 61:.15g}"))
        assert CliRunner().invoke(cli, health).exit_code == 1
        assert CliRunner().invoke(cli, [*health[:-1], str(tmp_path / "none")]).exit_code == 1
