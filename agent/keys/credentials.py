"""Secrets by reference: a path, or `credential:NAME` for what systemd's LoadCredential= gave to the service.

The only place that opens a secret. Messages name the file, never what is in it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from agent.site.errors import ConfigError
from agent.site.tables import Config

FOLDER = Path("/etc/checkmeter/credentials")
PREFIX = "key_"  # LoadCredential=key:FOLDER gives the service every FILE of it as key_FILE (systemd.exec(5))


def path_of(reference: str) -> Path:
    """The file behind a reference of the site file.

    systemd hands credentials to the service alone. In a shell the folder that the unit loads them from is read itself,
    where this user may.

    Raises:
        ConfigError: a credential that this process neither was given nor may read.
    """
    if not reference.startswith("credential:"):
        return Path(reference)
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    name = reference.removeprefix("credential:")
    if given is not None:
        return Path(given) / name
    if not name.startswith(PREFIX):
        raise ConfigError(
            [
                f"{reference}: the service is given every FILE of {FOLDER} as credential:{PREFIX}FILE; "
                f'write "credential:{PREFIX}{name}" for {FOLDER / name}'
            ]
        )
    path = FOLDER / name.removeprefix(PREFIX)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise ConfigError([f"{reference}: there is no {path}; write the secret into it, as root, mode 0600"]) from None
    except OSError:
        raise ConfigError([f"{reference}: {path} may be read by root only; run {_as_root()}"]) from None
    return path


def _as_root() -> str:
    """This very command with the service's credentials."""
    return shlex.join(
        [
            *("sudo", "systemd-run", "--pty", "--quiet", "--working-directory", os.getcwd()),
            *("-p", f"LoadCredential={PREFIX.rstrip('_')}:{FOLDER}", str(Path(sys.argv[0]).absolute()), *sys.argv[1:]),
        ]
    )


def read_secret(reference: str) -> bytes:
    """The octets of a secret, without a line end at its end.

    Raises:
        ConfigError: the file is missing, empty or not readable.
    """
    path = path_of(reference)
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as e:
        raise ConfigError(
            [f"{path}: the secret cannot be read: {e.strerror}; create it, readable for this user"]
        ) from e
    if not secret:
        raise ConfigError([f"{path}: the secret is empty; write it into this file"])
    return secret


def loosely_kept(config: Config) -> list[str]:
    """One line for each secret of a site file that others than its owner and group may read."""
    references = [
        *((m.password, m.authentication_key, m.encryption_key, m.signing_key) for m in config.meter),
        *((m.agreement_key, m.master_key, m.broadcast_key) for m in config.meter),
        () if config.mqtt is None else (config.mqtt.password, config.mqtt.key),
    ]
    found: dict[str, None] = {}
    for reference in (text for texts in references for text in texts if text is not None):
        if reference.startswith("credential:"):
            continue  # systemd's, and root's
        try:
            mode = Path(reference).stat().st_mode
        except OSError:
            continue
        if mode & 0o007:
            found[f"{reference}: mode {mode & 0o777:04o} lets everybody read a secret; chmod 0600, or 0640"] = None
    return list(found)


def read_key(reference: str) -> bytes:
    """A key of 16 or 32 octets, written as hexadecimal digits.

    Raises:
        ConfigError: as `read_secret`, or not such a key.
    """
    try:
        key = bytes.fromhex(read_secret(reference).decode("ascii"))
    except ValueError:
        key = b""
    if len(key) not in (16, 32):
        raise ConfigError([f"{path_of(reference)}: expected a key of 32 or 64 hexadecimal digits"])
    return key
