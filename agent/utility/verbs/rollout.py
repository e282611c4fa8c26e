"""`checkmeter utility rollout`: start, widen, status, stop."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import shorten

import click

from agent import wire
from agent.keys.signing import read_private
from agent.process.clock import SystemClock
from agent.process.exit_codes import NEGATIVE
from agent.utility.fleet import rollout as rollouts
from agent.utility.fleet.rollout import Rollout
from agent.utility.mqtt.connection import Broker, Connection
from agent.utility.mqtt.sender import Outgoing, publish_all
from agent.utility.sql.store import Store, open_store
from agent.utility.verbs.options import Form, broker_options, form_options, show, store_option

CLIENT_ID = "checkmeter-rollout"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_option = click.option(
    "--signing-key", "key_file", required=True, type=_FILE, help="Ed25519 private key that signs (PEM)."
)
_share_option = click.option(
    "--share", required=True, type=click.FloatRange(0.0, 1.0, min_open=True), help="Of the gateways, from 0 to 1."
)
_force_option = click.option("--force", is_flag=True, help="Whatever the gateways have reported.")


@click.group("rollout")
def rollout() -> None:
    """Bring a signed model to a share of the gateways first."""


@rollout.command()
@broker_options
@store_option
@_key_option
@_share_option
@_force_option
@click.option("--version", type=click.IntRange(1), help="Above all before it [default: the next].")
@click.argument("model_file", metavar="MODEL.tflite", type=_FILE)
def start(
    broker: Broker, dsn: str, key_file: Path, share: float, force: bool, version: int | None, model_file: Path
) -> None:
    """Send MODEL.tflite, signed and retained, to a share of the gateways. Each keeps it only if it stays well."""
    model = _checked(model_file)
    now_s = SystemClock().now()
    with open_store(dsn) as store:
        store.check_version()
        last = rollouts.latest(store)
        number = version if version is not None else 1 if last is None else last.version + 1
        rollouts.check_new(store, number)
        if last is not None and not force:
            _refuse_a_second(store, last, hashlib.sha256(model).hexdigest())
        _send(
            store, broker, Rollout(number, hashlib.sha256(model).hexdigest(), share, int(now_s)), model, key_file, now_s
        )


@rollout.command()
@broker_options
@store_option
@_key_option
@_share_option
@_force_option
@click.argument("model_file", metavar="MODEL.tflite", type=_FILE)
def widen(broker: Broker, dsn: str, key_file: Path, share: float, force: bool, model_file: Path) -> None:
    """Send the newest version's model to a larger share, if those that have it are well."""
    model = _checked(model_file)
    with open_store(dsn) as store:
        store.check_version()
        last = rollouts.latest(store)
        if last is None or last.model_sha256 != hashlib.sha256(model).hexdigest():
            raise click.ClickException(f"{model_file} is not the newest rollout's model: that is {last}")
        obstacle = rollouts.progress(store, last.version).obstacle()
        if obstacle and not force:
            click.echo(f"not widened: {obstacle}")
            raise click.exceptions.Exit(NEGATIVE)
        now_s = SystemClock().now()
        _send(store, broker, last._replace(share=max(share, last.share)), model, key_file, now_s)


@rollout.command()
@store_option
@form_options
def status(dsn: str, form: Form) -> None:
    """What has become of the newest version, and which gateways would not have it."""
    with open_store(dsn) as store:
        store.check_version()
        last = rollouts.latest(store)
        if last is None:
            click.echo("no rollout yet")
            raise click.exceptions.Exit(NEGATIVE)
        progress = rollouts.progress(store, last.version)
        failures = rollouts.failures(store, last.version, 20)
    columns = ("version", "model", "share", *progress._fields, "obstacle")
    row = (last.version, last.model_sha256[:12], last.share, *progress, progress.obstacle())
    show(columns, [row], form)
    if failures:
        show(("tenant", "site", "gateway", "state", "reason"), failures, form)


@rollout.command()
@broker_options
@store_option
def stop(broker: Broker, dsn: str) -> None:
    """Take the newest version back from the broker: gateways that have not seen it will not.

    Those that run it keep it; to bring them back, start a rollout of the older model with a new version.
    """
    with open_store(dsn) as store:
        store.check_version()
        last = rollouts.latest(store)
        if last is None:
            raise click.ClickException("no rollout yet")
        rows = store.rows(
            "SELECT g.tenant, g.site, g.gateway FROM rollout_sent s JOIN gateway g ON g.gateway_key = s.gateway_key "
            "WHERE s.version = ? ORDER BY g.tenant, g.site, g.gateway",
            (last.version,),
        )
    addresses = [wire.Address(*map(str, row)) for row in rows]
    # An empty retained message deletes the one before it (MQTT 5, section 3.3.1.3).
    sent = _publish(broker, [Outgoing(a.topic("model/desired"), b"", rollouts.SCHEMA) for a in addresses])
    with open_store(dsn) as store:
        rollouts.forget_silent(store, last.version)
    click.echo(f"version {last.version} taken back from the topics of {sent} gateways")


def _refuse_a_second(store: Store, last: Rollout, model_sha256: str) -> None:
    """A rollout that is still under way is widened or stopped, not buried under the next one."""
    if last.model_sha256 == model_sha256:
        raise click.ClickException(
            f"this model is version {last.version} already: `rollout widen` sends it to more gateways (--force: anew)"
        )
    progress = rollouts.progress(store, last.version)
    if progress.on_trial or progress.silent:
        raise click.ClickException(
            f"version {last.version} is still under way ({progress.on_trial} on trial, {progress.silent} silent): "
            "wait, `rollout stop` it, or --force"
        )


def _checked(path: Path) -> bytes:
    """A model that loads, repeats its golden vectors, and fits into a message."""
    from core.scoring.features import FEATURES
    from core.scoring.model import ModelRefused, load

    model = path.read_bytes()
    try:
        load(model, FEATURES)
    except ModelRefused as error:
        raise click.ClickException(f"{path}: {shorten(str(error), 300)}") from None
    if len(model) > wire.MAX_MODEL_BYTES // 2:  # it travels in base64, inside a signed text
        raise click.ClickException(f"{path}: {len(model)} octets; gateways take {wire.MAX_MODEL_BYTES // 2} at most")
    return model


def _send(store: Store, broker: Broker, wanted: Rollout, model: bytes, key_file: Path, now_s: float) -> None:
    try:
        key = read_private(key_file)
    except ValueError as error:
        raise click.ClickException(f"{key_file}: {error}; make one with checkmeter keys make") from None
    chosen = rollouts.targets(store, wanted.version, wanted.share)
    if not chosen:
        click.echo(f"no further gateway in a share of {wanted.share:g}")
        raise click.exceptions.Exit(NEGATIVE)
    # Sent first, written down after: what was not written down is sent once more, which gateways take for the same.
    sent = _publish(broker, list(rollouts.messages(chosen, wanted.version, model, key, now_s)))
    rollouts.write_down(store, wanted, chosen, now_s)
    click.echo(f"version {wanted.version} ({wanted.model_sha256[:12]}) sent to {sent} gateways, share {wanted.share:g}")


def _publish(broker: Broker, messages: list[Outgoing]) -> int:
    connection = Connection(broker, SystemClock(), CLIENT_ID, clean_start=True)
    try:
        return publish_all(connection, messages)
    finally:
        connection.close()
