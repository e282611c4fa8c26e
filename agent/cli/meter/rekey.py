"""`checkmeter rekey`: give a meter another key, by transfer or by agreement, after asking."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from agent.cli.meter.one_meter import confirm, meter_of, over_session
from agent.keys.credentials import read_key
from agent.process.exit_codes import NEGATIVE
from agent.site.errors import ConfigError
from firmware_io.bus import Bus
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.meter.rekey import KeyName, agree, key_octets, transfer
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Line, MeterDriver
from firmware_io.errors import MeterError, RegisterUnavailable


@click.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.argument("meter")
@click.option("--key", "name", type=click.Choice(get_args(KeyName)), default="encryption", show_default=True)
@click.option("--new", "file", required=True, type=click.Path(path_type=Path), help="File of the new key, in hex.")
@click.option("--generate", is_flag=True, help="Make the new key and write it into that file first.")
@click.option("--agree", "agreed", is_flag=True, help="Agree on it (suites 1 and 2), and write it into that file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--trace", is_flag=True, help="Show all frames in hex and decoded, without secrets, on standard error.")
def command(
    site_file: Path, meter: str, name: KeyName, file: Path, generate: bool, agreed: bool, yes: bool, trace: bool
) -> None:
    """Change a key of a meter, wrapped under its master_key, or agreed by both sides with --agree.

    The file is written before the meter is asked, because a key that only the meter knows locks it for good. When the
    meter has answered under the new key, put it where the site file's key points.
    """
    if generate and agreed:
        raise click.UsageError("--generate makes a key here, --agree with the meter: take one of the two")
    with meter_of(site_file, meter, trace=trace) as bus:
        spec = bus.use(meter, _spec)
        _possible(spec, name, agreed=agreed)
        key = None if agreed else _new_key(file, spec, generate=generate)
        shut_out = "Everybody who reads it with the old key is shut out."
        confirm(meter, f"The {name} key of {meter} will be replaced. {shut_out}", yes=yes)
        if agreed:
            _write(file, b"")
        if key is None:
            key = _agreed(bus, meter, spec, name, file)
        else:
            sent = key
            over_session(bus, meter, lambda session: transfer(session, spec, {name: sent}))
        click.echo(f"{meter}: it has taken the new {name} key")
        _check(bus, meter, name, key, file)


def _spec(driver: MeterDriver, line: Line) -> DlmsSpec:
    if not isinstance(driver, DlmsDriver):
        raise RegisterUnavailable("only a DLMS meter has such keys")
    return driver.spec


def _possible(spec: DlmsSpec, name: KeyName, *, agreed: bool) -> None:
    """What the site file must have for it, before a file is made. Raises: ConfigError."""
    if not agreed and spec.master_key is None:
        raise ConfigError([f"meter {spec.id}: key transfer needs its master_key in the site file"])
    if agreed and name == "master":
        raise click.UsageError("the master key is transferred, not agreed: leave out --agree")
    if agreed and (spec.signing_key is None or spec.meter_signing_key is None):
        raise ConfigError(
            [f"meter {spec.id}: key agreement needs suite 1 or 2, signing_key and meter_signing_key in the site file"]
        )


def _agreed(bus: Bus, meter: str, spec: DlmsSpec, name: KeyName, file: Path) -> bytes:
    """Agree on a key and put it into the file, which is there and empty. Raises: MeterError."""
    try:
        key = over_session(bus, meter, lambda session: agree(session, spec, [name])[name])
    except MeterError:
        file.unlink()
        raise
    with file.open("wb") as stream:
        stream.write(key.hex().encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return key


def _new_key(file: Path, spec: DlmsSpec, *, generate: bool) -> bytes:
    """The key to send, from the file; made and written first where it is wanted. Raises: ConfigError."""
    if generate:
        _write(file, secrets.token_bytes(key_octets(spec)).hex().encode() + b"\n")
    key = read_key(str(file))
    if len(key) != key_octets(spec):
        raise ConfigError([f"{file}: a key of {len(key)} octets; meter {spec.id} has keys of {key_octets(spec)}"])
    return key


def _write(file: Path, octets: bytes) -> None:
    """Into a new file that only we may read, on disk before we go on. Raises: ConfigError: it is there already."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(octets)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ConfigError([f"{file}: cannot be made: {error.strerror}; give a file that is not there yet"]) from error


def _check(bus: Bus, meter: str, name: KeyName, key: bytes, file: Path) -> None:
    """Associate under the new key, and say what is left to do."""

    def again(driver: MeterDriver, line: Line) -> None:
        assert isinstance(driver, DlmsDriver)
        driver.session(line).release()
        spec = driver.spec
        of_data = name == "encryption"
        driver.take_spec(replace(spec, encryption_key=key) if of_data else replace(spec, authentication_key=key))
        driver.session(line)

    if name in ("encryption", "authentication"):
        try:
            bus.use(meter, again)
        except MeterError as error:
            click.echo(f"{error}\nit does not answer under the new key yet: keep both, and try again later", err=True)
            raise SystemExit(NEGATIVE) from error
        click.echo(f"{meter}: it answers under the new key")
    click.echo(f"now put {file} where {name}_key of {meter} in the site file points, and reload the agent")
