"""`checkmeter install`: puts the systemd unit and what goes with it onto this gateway."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from agent.deploy.layout import ACTIVATION, UNIT, SystemFile, system_files

ACTIVATION_TIMEOUT_S = 30
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"), Path("/tmp"), Path("/var/tmp"))


@click.command("install")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Root of the gateway's file system; anything but / only writes the files.",
)
@click.option("--remove", is_flag=True, help="Take the files away again; the site file and the data stay.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def command(root: Path, remove: bool, dry_run: bool) -> None:
    """Install the systemd unit, udev rules, user and folders of this checkmeter."""
    script = Path(sys.argv[0]).absolute()
    if not remove and root == Path("/") and (hidden := _hidden(script)) is not None:
        raise click.ClickException(
            f"{script} lies below {hidden}, which the service cannot see (ProtectHome, PrivateTmp). Build the Debian "
            "package (make deb) and install that, or put checkmeter into a virtual environment in /opt/checkmeter: "
            "python3 -m venv /opt/checkmeter, /opt/checkmeter/bin/pip install ., /opt/checkmeter/bin/checkmeter install"
        )
    try:
        wanted = system_files(str(script), packaged=False)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if not dry_run and root == Path("/") and os.geteuid() != 0:
        raise click.ClickException(f"this needs root: sudo {shlex.quote(str(script))} install")
    for file in wanted:
        _remove(root, file, dry_run) if remove else _write(root, file, dry_run)
    if root == Path("/"):
        for words in ACTIVATION:
            if not remove or "checkmeter.conf" not in words:  # users and folders stay, and their files are gone
                _run(words, dry_run)
    if not remove:
        click.echo("Put the site file into /etc/checkmeter/site.toml, try it with `checkmeter check`, then:")
        click.echo(f"    systemctl enable --now {UNIT.removesuffix('.service')}")


def _hidden(script: Path) -> Path | None:
    """The folder that keeps the service from its own command, as checkmeter.service is hardened."""
    resolved = script.resolve()
    return next((folder for folder in HIDDEN if folder in script.parents or folder in resolved.parents), None)


def _write(root: Path, file: SystemFile, dry_run: bool) -> None:
    target = root / file.path
    same = target.is_file() and target.read_text(encoding="utf-8") == file.text
    click.echo(f"{'keep ' if same else 'write'} {target}")
    if dry_run or same:
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside it first: a power cut leaves the old unit or the new one, never half of one.
        part = target.with_name(target.name + ".new")
        part.write_text(file.text, encoding="utf-8")
        part.chmod(0o644)
        part.replace(target)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}; nothing after it was written") from None


def _remove(root: Path, file: SystemFile, dry_run: bool) -> None:
    target = root / file.path
    if not target.exists():
        return
    click.echo(f"remove {target}")
    if not dry_run:
        target.unlink()


def _run(words: tuple[str, ...], dry_run: bool) -> None:
    click.echo(f"run   {shlex.join(words)}")
    if dry_run:
        return
    if shutil.which(words[0]) is None:
        click.echo(f"      {words[0]} is not here: skipped", err=True)
        return
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ACTIVATION_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        click.echo(f"      no answer within {ACTIVATION_TIMEOUT_S} s: run it by hand", err=True)
        return
    if done.returncode:
        click.echo(f"      exit {done.returncode}: {done.stderr.strip()}", err=True)
