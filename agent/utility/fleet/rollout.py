"""A new model to a share of the gateways first: who gets it, what they report, and whether it may go further.

It owns the choice and the judgement; the signature is agent.keys.signing's, what a gateway does with a model (check,
trial, roll back) the gateway's own. A version is a number that only grows; the gateways that have it stay in it when
the share is widened, because each stands at a fixed place between 0 and 1 that its key and the version give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import wire
from agent.keys.signing import sign
from agent.utility.mqtt.sender import Outgoing
from agent.utility.sql.schema import ROLLOUT, ROLLOUT_SENT
from agent.utility.sql.server import StoreMisfit
from agent.utility.sql.statements import Row
from agent.utility.sql.store import Store

SCHEMA = wire.SCHEMA_OF[wire.Signed]
MOST_FAILED = 0.02  # of those that reported: above it a rollout goes no further
LEAST_KEPT = 0.8  # of those that it was sent to: below it a rollout waits


class Rollout(NamedTuple):
    """One version of the model on its way."""

    version: int
    model_sha256: str
    share: float
    started_s: int


class Progress(NamedTuple):
    """What the gateways of a rollout have reported of this version. `failed` are rejected or rolled back."""

    sent: int
    kept: int
    on_trial: int
    failed: int
    silent: int

    def obstacle(self) -> str | None:
        """Why the rollout should not go further; None if it may."""
        reported = self.kept + self.failed
        if self.failed > MOST_FAILED * max(1, reported):
            return f"{self.failed} of {reported} gateways rejected it or rolled back: read their reasons in `status`"
        if self.kept < LEAST_KEPT * self.sent:
            return (
                f"only {self.kept} of {self.sent} gateways keep it yet ({self.on_trial} on trial, {self.silent} silent)"
            )
        return None


def place(gateway_key: int, version: int) -> float:
    """Where a gateway stands in a version's order, from 0 to 1: evenly spread, and anew for each version."""
    digest = hashlib.blake2b(f"{version}/{gateway_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)


def latest(store: Store) -> Rollout | None:
    """The newest rollout."""
    rows = store.rows("SELECT version, model_sha256, share_ppm, started_s FROM rollout ORDER BY version DESC LIMIT 1")
    if not rows:
        return None
    version, sha256, share_ppm, started_s = rows[0]
    return Rollout(int(str(version)), str(sha256), int(str(share_ppm)) / 1e6, int(str(started_s)))


def targets(store: Store, version: int, share: float) -> list[tuple[int, wire.Address]]:
    """The gateways of a share that have not been sent this version yet."""
    rows = store.rows(
        "SELECT g.gateway_key, g.tenant, g.site, g.gateway FROM gateway g "
        "LEFT JOIN rollout_sent s ON s.gateway_key = g.gateway_key AND s.version = ? "
        "WHERE s.gateway_key IS NULL ORDER BY g.gateway_key",
        (version,),
    )
    keyed = [(int(str(key)), wire.Address(*map(str, names))) for key, *names in rows]
    return [(key, address) for key, address in keyed if place(key, version) < share]


def messages(
    chosen: list[tuple[int, wire.Address]], version: int, model: bytes, key: Ed25519PrivateKey, now_s: float
) -> Iterator[Outgoing]:
    """The signed, retained message for each gateway: it names its target, so that no other can use it."""
    sha256 = hashlib.sha256(model).hexdigest()
    for _, address in chosen:
        desired = wire.DesiredModel(
            target=address.target, version=version, issued=wire.utc(now_s), sha256=sha256, tflite=model
        )
        signed = sign(key, "model", wire.encode(desired))
        yield Outgoing(address.topic("model/desired"), wire.encode(signed), SCHEMA)


def write_down(store: Store, rollout: Rollout, chosen: list[tuple[int, wire.Address]], now_s: float) -> None:
    """Remember who was sent what, after the broker has it: what is not written down is sent again, to the same ones."""
    row = (rollout.version, rollout.model_sha256, round(rollout.share * 1e6), rollout.started_s, int(now_s * 1000))
    store.write(ROLLOUT, [row])
    sent: list[Row] = [(key, rollout.version, int(now_s)) for key, _ in chosen]
    for at in range(0, len(sent), 500):
        store.write(ROLLOUT_SENT, sent[at : at + 500])


def progress(store: Store, version: int) -> Progress:
    """What has become of a version."""
    counts = {"kept": 0, "on_trial": 0, "rejected": 0, "rolled_back": 0}
    sent = 0
    for state, count in store.rows(
        "SELECT m.state, COUNT(*) FROM rollout_sent s LEFT JOIN model_reported m ON m.gateway_key = s.gateway_key "
        "AND m.desired = s.version WHERE s.version = ? GROUP BY m.state",
        (version,),
    ):
        sent += int(str(count))
        if state in counts:
            counts[str(state)] += int(str(count))
    failed = counts["rejected"] + counts["rolled_back"]
    silent = sent - counts["kept"] - counts["on_trial"] - failed
    return Progress(sent, counts["kept"], counts["on_trial"], failed, silent)


def failures(store: Store, version: int, top: int) -> list[Row]:
    """The gateways that would not have it, with their reasons."""
    return store.rows(
        "SELECT g.tenant, g.site, g.gateway, m.state, m.reason FROM rollout_sent s "
        "JOIN model_reported m ON m.gateway_key = s.gateway_key AND m.desired = s.version "
        "JOIN gateway g ON g.gateway_key = s.gateway_key WHERE s.version = ? "
        "AND m.state IN ('rejected', 'rolled_back') "
        "ORDER BY g.tenant, g.site, g.gateway LIMIT ?",
        (version, top),
    )


def forget_silent(store: Store, version: int) -> None:
    """After a version was taken back from the broker: who has not reported it will not get it."""
    store.rows(
        "DELETE FROM rollout_sent WHERE version = ? AND gateway_key NOT IN "
        "(SELECT gateway_key FROM model_reported WHERE desired = ?)",
        (version, version),
    )


def check_new(store: Store, version: int) -> None:
    """Refuse a version that is not above all before it: gateways would."""
    last = latest(store)
    if last is not None and version <= last.version:
        raise StoreMisfit(f"version {version} is not above {last.version}, the newest that was sent out")
