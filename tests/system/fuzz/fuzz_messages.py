"""Arbitrary octets into what reads files and messages: site files, commands, desired files, tables, models, MQTT.

    python -m tests.system.fuzz.fuzz_messages [--seconds 600] [--seed 1] [--only site]

The same way as `fuzz.py` beside it, which does the meters' wire: only declared errors may come out, and quickly.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.keys.signing import KeyRing, Unauthorised, sign
from agent.models import shipped
from agent.offline.replay.readings import ReadingsError, read, read_events
from agent.site.errors import ConfigError
from agent.site.load import load
from agent.site.text_limits import broken_limit
from agent.store.outbox_row import outgoing
from agent.uplink.intake import Arrival, Intake
from agent.uplink.packet_gate import GatedSocket, PacketGate, UnacceptablePacket
from agent.utility.mqtt import packets
from agent.wire.codec import SCHEMAS, decode, encode
from agent.wire.downlink import Command, DesiredConfig, DesiredModel
from agent.wire.values import WireError, utc
from core.scoring.model_file import ModelRefused, parse
from tests.system.fuzz.runner import Fuzzer

FOLDER = Path(tempfile.mkdtemp(prefix="checkmeter-fuzz-"))
T0 = 1_767_225_600.0


def _file(octets: bytes) -> Path:
    path = FOLDER / "input"
    path.write_bytes(octets)
    return path


def site(octets: bytes) -> None:
    """A site file: an error with file and line, or a configuration."""
    load(_file(octets), online=True)


def limits(octets: bytes) -> None:
    """What passes the limits can be parsed without a tall stack."""
    import tomllib

    text = octets.decode("utf-8", "replace")
    if broken_limit(text) is None:
        try:
            tomllib.loads(text)
        except ValueError:  # not TOML, or a date or number out of range: source.read says so
            return


def commands(octets: bytes) -> None:
    """What comes on cmd/req and */desired, without a key and behind a valid signature."""
    for purpose, struct in (("command", Command), ("config", DesiredConfig), ("model", DesiredModel)):
        with contextlib.suppress(WireError, Unauthorised):
            RING.open(octets, purpose, 1 << 20)  # type: ignore[arg-type]
        try:
            signed = encode(sign(KEY, purpose, octets))  # type: ignore[arg-type]
        except UnicodeDecodeError:
            continue
        decode(struct, RING.open(signed, purpose, 1 << 20))  # type: ignore[arg-type]


def messages(octets: bytes) -> None:
    """Every message of the contract; what is understood is written back as one that means the same."""
    for struct in set(SCHEMAS.values()):
        try:
            message = decode(struct, octets)
        except WireError:
            continue
        assert decode(struct, encode(message)) == message


def readings(octets: bytes) -> None:
    """Recorded registers."""
    read(_file(octets), ["main", "flat-1"])


def tamper_events(octets: bytes) -> None:
    """Recorded tamper events."""
    read_events(_file(octets), ["main", "flat-1"])


def models(octets: bytes) -> None:
    """A model file, before any interpreter sees it."""
    parse(octets)


class _Socket:
    """A socket that gives what it has in pieces."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def recv(self, count: int) -> bytes:
        part, self.octets = self.octets[: min(count, 37)], self.octets[min(count, 37) :]
        return part

    def __getattr__(self, _name: str) -> None:
        return None


def gate(octets: bytes) -> None:
    """A broker's octets: what passes the gate is what came, whole packet by whole packet."""
    for version5 in (True, False):
        gated = GatedSocket(_Socket(octets), PacketGate(version5=version5))  # type: ignore[arg-type]
        passed = bytearray()
        while True:
            try:
                part = gated.recv(50)
            except BlockingIOError:
                continue
            except UnacceptablePacket:
                break
            if not part:
                break
            passed += part
        assert octets.startswith(bytes(passed))


def intake(octets: bytes) -> None:
    """Messages of any topics and sizes: bounded, and each is waiting, taken or counted."""
    queue = Intake()
    names = ("cmd/req", "config/desired", "model/desired", "ack", "x")
    for at in range(0, len(octets) - 1, 2):
        queue.offer(Arrival(names[octets[at] % 5], bytes(octets[at + 1] * 300), octets[at] >> 4))
        assert queue._bytes <= 6 * 1024 * 1024
    taken = 0
    while queue.first() is not None:
        queue.take()
        taken += 1
    assert taken + queue.lost == len(octets) // 2
    assert queue._bytes == 0


def ingest_packets(octets: bytes) -> None:
    """What the ingest reads of a broker."""
    for event in packets.Parser().feed(octets):
        if isinstance(event, packets.Publish):
            packets.user_property(event.properties, "schema")


def rows(octets: bytes) -> None:
    """A row of the outbox from a damaged file."""
    parts = [octets[n * len(octets) // 10 : (n + 1) * len(octets) // 10] for n in range(10)]
    kinds = [lambda b: int.from_bytes(b[:8], "big", signed=True), lambda b: b, lambda b: b.decode("utf-8", "replace")]
    row = tuple(kinds[sum(part) % 3](part) if part else None for part in parts)
    outgoing((1, *row[1:]))


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (site, limits, commands, messages, readings, tamper_events, models, gate, intake, ingest_packets, rows)
}


def _seeds() -> dict[str, list[bytes]]:
    root = Path(__file__).resolve().parents[3]
    sites = [path.read_bytes() for path in sorted((root / "examples").glob("*.toml"))]
    wish = Command(
        id="c-1", target="a/b/c", name="report", issued=utc(T0), expires=utc(T0 + 60), args={"alert_id": "x"}
    )
    config = DesiredConfig(target="a/b/c", version=1, issued=utc(T0), toml="[site]\n")
    publish = bytes.fromhex("32160003612f621234092600067363686d61000178") + b"{}"
    whole = (
        bytes.fromhex("20090100062100 0a13003c".replace(" ", "")) + publish + b"\xd0\0\x40\x02\x12\x34\x90\x04\0\1\0\1"
    )
    csv = b"time,main,flat-1\n" + b"".join(b"2026-01-01T0%d:00:00Z,%d.5,%d\n" % (n, 100 + n, n) for n in range(9))
    events = b"time,meter,kind,value\n2026-01-01T00:00:00Z,flat-1,terminal_opened,1\n"
    return {
        "site": sites,
        "limits": [*sites, b'a = """\\"""\nb = [[{x = 1}], "y"]\n', b"[" * 20, b"a." * 20 + b"b = 1\n"],
        "commands": [encode(wish), encode(config), encode(sign(KEY, "command", encode(wish)))],
        "messages": [encode(wish), encode(config), b'{"time":"2026-01-01T00:00:00Z","alerts":[]}'],
        "readings": [csv],
        "tamper_events": [events],
        "models": [shipped()],
        "gate": [whole, publish * 3],
        "intake": [bytes(range(100))],
        "ingest_packets": [whole, publish * 3],
        "rows": [bytes(range(120))],
    }


def _key() -> object:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes(32))


KEY = _key()
RING = KeyRing([KEY.public_key()])  # type: ignore[attr-defined]
SEEDS = _seeds()
FUZZER = Fuzzer(
    TARGETS,
    SEEDS,
    b"\x00\x7f\x80\xff\n\"'[]{}=.,:\\#-9",
    (ConfigError, WireError, Unauthorised, ReadingsError, UnacceptablePacket, packets.MqttError, ModelRefused),
    repeats=(1, 1, 1, 40, 3000),
    max_octets=40_000,
    memory_mb=300.0,
)

if __name__ == "__main__":
    raise SystemExit(FUZZER.main(__doc__.splitlines()[0]))
