"""`checkmeter doctor`: everything a support call asks for, on one page: versions, ports, rights, service, devices."""

from __future__ import annotations

import grp
import importlib.metadata
import os
import platform
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from agent.keys.credentials import FOLDER
from agent.process.exit_codes import UNAVAILABLE
from agent.site.errors import ConfigError
from agent.site.load import load_and_doubt
from firmware_io.transport import serial_ports

PACKAGES = ("checkmeter", "numpy", "msgspec", "paho-mqtt", "pyserial", "cryptography")
ASK_S = 10.0
SITE_FILE = Path("/etc/checkmeter/site.toml")
JOURNAL_LINES = 15


@click.command()
@click.argument("site_file", metavar="[SITE.toml]", default=SITE_FILE, type=click.Path(path_type=Path))
@click.option("--online/--no-online", default=True, help="Ask disk, broker and meters too, unless the service runs.")
def command(site_file: Path, online: bool) -> None:
    """Look at versions, serial ports, rights, credentials, service, clock, disk, broker and meters.

    Nothing is changed and no secret is shown. Exit code 69 if something needs mending.
    """
    failed = 0
    for good, what, text in _lines(site_file, online):
        failed += good is False
        click.echo(f"{'ok  ' if good else 'FAIL' if good is False else '    '}  {what}: {text}")
    if failed:
        click.echo(f"{failed} to mend", err=True)
        raise SystemExit(UNAVAILABLE)


Line = tuple[bool | None, str, str]  # well, to be mended, or for information; what; text


def _lines(site_file: Path, online: bool) -> Iterator[Line]:
    yield None, "versions", ", ".join(_versions())
    yield None, "host", f"{platform.platform()}, {platform.machine()}, {_memory()}"
    yield None, "user", f"{_user(os.geteuid())}, groups {', '.join(sorted(_groups())) or '-'}"
    yield from _ports()
    yield from _service()
    yield _time_sync()
    yield _credentials()
    try:
        config, doubts = load_and_doubt(site_file, online=True)
    except ConfigError as error:
        for line in error.errors:
            yield False, "site file", line
        return
    yield True, "site file", f"{site_file}: {len(config.meter)} meters, {len(config.zone)} zone(s)"
    for doubt in doubts:
        yield False, "site file", doubt
    if online:
        from agent.cli.site.online_check import findings  # protocols and paho are worth importing only now
        from agent.process.clock import SystemClock

        for finding in findings(config, SystemClock()):
            yield finding.ok, finding.what, finding.text


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for name in PACKAGES:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} missing"


def _memory() -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return f"{pages * size / 1e6:.0f} MB of memory, {os.cpu_count()} cores"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups() -> set[str]:
    names = set()
    for gid in os.getgroups():
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.add(str(gid))
    return names


def _ports() -> Iterator[Line]:
    ports = serial_ports()
    if not ports:
        yield None, "serial ports", "none found; plug the adapter in, or use tcp://host:port"
    for port in ports:
        real = port.resolve()
        owner = grp.getgrgid(real.stat().st_gid).gr_name
        if os.access(port, os.R_OK | os.W_OK):
            yield True, "serial port", f"{port} -> {real}" if real != port else str(port)
        else:
            yield (
                False,
                "serial port",
                f"{port}: this user may not use it; sudo usermod -aG {owner} {_user(os.geteuid())}, log in again",
            )


def _ask(*words: str) -> str | None:
    """What a command of the system answers; None where it is not here or does not answer in time."""
    if shutil.which(words[0]) is None:
        return None
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=ASK_S, check=False).stdout.strip()
    except subprocess.TimeoutExpired:
        return None


def _service() -> Iterator[Line]:
    state = _ask("systemctl", "is-active", "checkmeter")
    if not state:
        yield None, "service", "no systemd here"
        return
    enabled = _ask("systemctl", "is-enabled", "checkmeter") or "unknown"
    yield None if state == "inactive" else state == "active", "service", f"{state}, {enabled}"
    if state not in ("active", "inactive"):
        log = _ask("journalctl", "-u", "checkmeter", "-n", str(JOURNAL_LINES), "--no-pager", "-o", "cat") or ""
        for line in log.splitlines():
            yield None, "journal", "".join(c if c.isprintable() else " " for c in line)


def _time_sync() -> Line:
    answer = _ask("timedatectl", "show", "-p", "NTPSynchronized", "--value")
    if answer is None or answer not in ("yes", "no"):
        return None, "time", "timedatectl does not answer here"
    return answer == "yes", "time", "synchronised" if answer == "yes" else "not synchronised: timedatectl set-ntp true"


def _credentials() -> Line:
    if not FOLDER.exists():
        return None, "credentials", f"no {FOLDER}: meters without passwords, or keys by path"
    try:
        files = sorted(FOLDER.iterdir())
    except PermissionError:
        return None, "credentials", f"{FOLDER} may be read by root only, as it should; run as root to look into it"
    loose = [f.name for f in files if f.stat().st_mode & 0o077]
    if loose:
        return False, "credentials", f"others may read {', '.join(loose)}: chmod 600 {FOLDER}/*"
    return True, "credentials", f"{len(files)} in {FOLDER}"
