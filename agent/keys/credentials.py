"""Secrets by reference: a path, or `credential:NAME` for what systemd's LoadCredential= gave to the service.

The only place that opens a secret. Messages name the file, never what is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.site.errors import ConfigError


def path_of(reference: str) -> Path:
    """The file behind a reference of the site file.

    Raises:
        ConfigError: a credential, but the process was given none.
    """
    if not reference.startswith("credential:"):
        return Path(reference)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    name = reference.removeprefix("credential:")
    if folder is None:
        raise ConfigError(
            [f"{reference}: no credentials were given; add LoadCredential={name}:/path to checkmeter.service"]
        )
    return Path(folder) / name


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
