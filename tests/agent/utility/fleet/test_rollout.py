"""A staged rollout through a real broker to gateways' own code: who gets it, who keeps it, when it goes no further."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from agent import wire
from agent.cli.main import cli
from agent.downlink.desired import Desired, DesiredRefused
from agent.keys import signing
from agent.keys.signing import KeyRing, read_public
from agent.offline.training.tflite_writer import write
from agent.process.clock import SystemClock
from agent.utility.fleet.rollout import place
from agent.utility.ingest.decode import Reader
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.keys import name_key
from agent.utility.sql.schema import GATEWAY
from agent.utility.sql.store import Store, open_store
from core.scoring.features import FEATURES
from core.scoring.model_file import FORMAT, Network

GATEWAYS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small valid model over features that gateways compute."""
    rng = np.random.default_rng(3)
    network = Network(np.zeros(3), ((rng.normal(size=(1, 3)), rng.normal(size=1)),))
    inputs = rng.normal(size=(16, 3)).astype(np.float32)
    metadata = {
        "format": FORMAT, "features": list(FEATURES[:3]), "threshold": 0.5, "scaling": {"mean": [0.0] * 3},
        "golden": {"inputs": inputs.tolist(), "outputs": network.predict(inputs.astype(float)).tolist()},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "new.tflite"
    path.write_bytes(write(network, metadata))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    private, public = signing.make()
    (tmp_path / "k.key").write_bytes(private)
    (tmp_path / "k.pub").write_bytes(public)
    return tmp_path / "k.key"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[str, Store]]:
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    with open_store(dsn, make=True) as store:
        store.migrate(time.time())
        names = [("acme", f"site-{n}", f"gw-{n}") for n in range(1, GATEWAYS + 1)]
        store.write(GATEWAY, [(name_key(*name), *name) for name in names])
        yield dsn, store


class GatewaySide:
    """What a gateway does with `model/desired`: its own code, without meters."""

    def __init__(self, number: int, folder: Path, public: Path, *, refuse: bool = False) -> None:
        self.address = wire.Address("acme", f"site-{number}", f"gw-{number}")
        self._keys = KeyRing([read_public(public)])
        self._monotonic_s = 0.0

        def check(content: bytes) -> None:
            if refuse:
                raise DesiredRefused("this gateway has too little memory")

        folder.mkdir()
        self.desired = Desired("model", folder, self.address, check, time.time, lambda: self._monotonic_s)

    def take(self, payload: bytes) -> None:
        """Offer, live through the trial, be well."""
        if self.desired.offer(payload, self._keys):
            self._monotonic_s += 1000.0
            self.desired.judge(connected=True, configured=[], readable=[])

    def report(self, store: Store) -> None:
        topic = self.address.topic("model/reported").encode()
        letter = Reader(time.time).read(Publish(topic, 1, wire.encode(self.desired.reported), False))
        assert letter.rows[-1][0].name == "model_reported", letter.rows
        store.apply([letter])


def retained(url: str) -> dict[str, bytes]:
    """What the broker keeps on all model/desired topics."""
    connection = Connection(Broker(url), SystemClock(), "look", clean_start=True)
    connection.subscribe([packets.Subscription("checkmeter/v1/+/+/+/model/desired")])
    found: dict[str, bytes] = {}
    while events := connection.receive(0.3):
        found |= {e.topic.decode(): e.payload for e in events if isinstance(e, Publish)}
    connection.close()
    return found


@pytest.mark.mosquitto
def test_from_a_tenth_to_all(mosquitto: Any, fleet: tuple[str, Store], model: Path, keys: Path, tmp_path: Path) -> None:
    dsn, store = fleet

    def call(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, ["utility", "rollout", *words])
        assert result.exit_code == code, result.output
        return result.output

    connect = ("--broker", mosquitto.url, "--store", dsn)
    said = call("start", *connect, "--signing-key", str(keys), "--share", "0.2", str(model))
    first = retained(mosquitto.url)
    assert f"sent to {len(first)} gateways" in said
    assert 4 <= len(first) <= 20  # a fifth of 60, give or take

    # Twice in a row is a mistake: this model is on its way, and another would bury it.
    again = ("start", *connect, "--signing-key", str(keys), "--share", "1", str(model))
    assert "is version 1 already" in call(*again, code=1)
    assert retained(mosquitto.url) == first
    # Nobody has reported: it goes no further.
    widen = ("widen", *connect, "--signing-key", str(keys), "--share", "0.5", str(model))
    assert "not widened: only 0 of" in call(*widen, code=1)

    sides = {}
    for topic, payload in first.items():
        number = int(topic.split("-")[1].split("/")[0])
        sides[topic] = GatewaySide(number, tmp_path / f"gw-{number}", keys.with_suffix(".pub"))
        sides[topic].take(payload)
        sides[topic].report(store)
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    assert {(s.desired.reported.state, s.desired.reported.sha256) for s in sides.values()} == {("kept", sha256)}

    # Whoever gets a message that is not his refuses it.
    stranger = GatewaySide(999, tmp_path / "stranger", keys.with_suffix(".pub"))
    stranger.take(next(iter(first.values())))
    assert stranger.desired.reported.state == "rejected"

    call(*widen)
    second = retained(mosquitto.url)
    assert first.items() <= second.items()
    assert len(second) > len(first)

    # Some of the new ones will not have it.
    for topic in list(second.keys() - first.keys())[:3]:
        number = int(topic.split("-")[1].split("/")[0])
        side = GatewaySide(number, tmp_path / f"gw-{number}", keys.with_suffix(".pub"), refuse=True)
        side.take(second[topic])
        side.report(store)
    assert "rejected it or rolled back" in call(
        "widen", *connect, "--signing-key", str(keys), "--share", "1", str(model), code=1
    )
    status = call("status", "--store", dsn, "--json").splitlines()
    counts = json.loads(status[0])
    assert (counts["sent"], counts["kept"], counts["failed"]) == (len(second), len(first), 3)
    assert "too little memory" in status[1]

    call("stop", *connect)
    assert retained(mosquitto.url) == {}
    assert "is not above 1" in call(
        "start", *connect, "--signing-key", str(keys), "--share", "1", "--version", "1", str(model), code=78
    )


@pytest.mark.mosquitto
def test_a_file_that_is_no_model_goes_nowhere(
    mosquitto: Any, fleet: tuple[str, Store], keys: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 100)
    words = [
        "start",
        "--broker",
        mosquitto.url,
        "--store",
        fleet[0],
        "--signing-key",
        str(keys),
        "--share",
        "1",
        str(broken),
    ]
    result = CliRunner().invoke(cli, ["utility", "rollout", *words])
    assert result.exit_code == 1
    assert retained(mosquitto.url) == {}


def test_shares_are_even_stable_and_different_for_each_version() -> None:
    keys = range(-5000, 5000)
    first = {key for key in keys if place(key, 1) < 0.1}
    assert 850 < len(first) < 1150
    assert first < {key for key in keys if place(key, 1) < 0.3}
    second = {key for key in keys if place(key, 2) < 0.1}
    assert len(first & second) < 200  # independent: 100 expected
