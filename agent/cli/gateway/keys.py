"""`checkmeter keys`: the Ed25519 keys that may sign commands, configurations and models."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from agent.keys import signing
from agent.site.tables import NAME_PATTERN
from agent.wire.codec import encode
from agent.wire.downlink import Command

_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(name="keys")
def command() -> None:
    """Make and show the keys of those who may command a gateway, and sign with them."""


@command.command()
@click.argument("name", type=click.Path(path_type=Path))
def make(name: Path) -> None:
    """Make a pair: NAME.key (private: stays with the backend) and NAME.pub (for [mqtt] command_keys)."""
    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise click.ClickException(f"{path} exists; a key is never overwritten")
    content = signing.make()
    for path, octets, mode in ((private, content[0], 0o600), (public, content[1], 0o644)):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(octets)
    click.echo(f"{private}: keep it secret\n{public}: key id {_id_of(public)}")


@command.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_PEM)
def show(files: tuple[Path, ...]) -> None:
    """Show the key id of each FILE, public or private."""
    for path in files:
        click.echo(f"{_id_of(path)}  {path}")


@command.command()
@click.option("--key", "key_file", required=True, type=_PEM, help="Private key, PEM.")
@click.option("--target", required=True, metavar="TENANT/SITE/GATEWAY")
@click.option("--id", "command_id", help="By default, from the time: the same id is carried out once.")
@click.option("--arg", "args", multiple=True, metavar="NAME=VALUE", help="An argument of the command.")
@click.option("--minutes", default=60.0, show_default=True, help="How long it is good for.")
@click.option("--by", default="", help="Who commands, for the log.")
@click.argument("name", type=click.Choice(get_args(msgspec.structs.fields(Command)[2].type)))
def sign(
    key_file: Path, target: str, command_id: str | None, args: tuple[str, ...], minutes: float, by: str, name: str
) -> None:
    """Print the signed command NAME, to be published to cmd/req."""
    parts = target.split("/")
    if len(parts) != 3 or not all(re.fullmatch(NAME_PATTERN, part) for part in parts):
        raise click.BadParameter(
            f"{target!r} is no gateway's: expected TENANT/SITE/GATEWAY as in its [site] table, like acme/house-12/gw-1",
            param_hint="--target",
        )
    now = datetime.now(UTC)
    wish = Command(
        id=command_id or now.strftime("%Y%m%dT%H%M%S.%f"),
        target=target,
        name=name,  # type: ignore[arg-type]  # click has checked the choice
        issued=now,
        expires=now + timedelta(minutes=minutes),
        by=by,
        args=_typed(name, args),
    )
    try:
        key = signing.read_private(key_file)
    except ValueError as error:
        raise click.ClickException(f"{key_file}: {error}") from None
    click.echo(encode(signing.sign(key, "command", encode(wish))))


def _typed(name: str, args: tuple[str, ...]) -> dict[str, Any]:
    """Arguments as the command's own types have them, checked as the gateway will. Raises: BadParameter."""
    from agent.downlink.commands import ARGUMENTS

    given: dict[str, Any] = dict(arg.partition("=")[::2] for arg in args)
    try:
        given = {key: msgspec.json.decode(text) if text.startswith("[") else text for key, text in given.items()}
        order = msgspec.convert(given, ARGUMENTS[name], strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        known = ", ".join(ARGUMENTS[name].__struct_fields__) or "none"
        raise click.BadParameter(f"{name} takes {known}: {error}", param_hint="--arg") from None
    return {key: value for key, value in msgspec.to_builtins(order).items() if key in given}


@command.command("sign-file")
@click.option("--key", "key_file", required=True, type=_PEM, help="Private key, PEM.")
@click.argument("file", type=_PEM)
def sign_file(key_file: Path, file: Path) -> None:
    """Sign a release archive: writes FILE.sig."""
    try:
        signed = signing.sign_file(signing.read_private(key_file), file)
    except ValueError as error:
        raise click.ClickException(f"{key_file}: {error}") from None
    signature = file.with_name(file.name + ".sig")
    signature.write_bytes(encode(signed) + b"\n")
    click.echo(f"{signature}: by key {signed.key}")


@command.command("verify-file")
@click.option("--key", "key_file", required=True, type=_PEM, help="Public key of whoever releases, PEM.")
@click.argument("file", type=_PEM)
def verify_file(key_file: Path, file: Path) -> None:
    """Check a release archive against FILE.sig before it is installed."""
    try:
        ring = signing.KeyRing([signing.read_public(key_file)])
        signing.check_file(ring, file, file.with_name(file.name + ".sig").read_bytes())
    except (OSError, ValueError, signing.Unauthorised) as error:
        raise click.ClickException(f"{file}: {error}") from None
    click.echo(f"{file}: signed by {_id_of(key_file)}")


def _id_of(path: Path) -> str:
    try:
        return signing.key_id(signing.read_public(path))
    except ValueError as error:
        raise click.ClickException(f"{path}: {error}") from None
