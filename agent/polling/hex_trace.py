"""Shows what passes on a line in hex, for protocols whose frames a technician reads by eye; a password is masked."""

from __future__ import annotations

from collections.abc import Callable

MASK = "**"
OFFSET = 0x33  # DL/T 645 adds it to each octet of data


class HexTrace:
    """A `driver.Trace`; `write` gets one line at a time. Octets of one direction are gathered into one line."""

    def __init__(self, write: Callable[[str], None], password: bytes | None = None) -> None:
        self._write = write
        self._password = password and bytes((octet + OFFSET) & 0xFF for octet in password).hex(" ")

    def __call__(self, sent: bool, octets: bytes) -> None:
        """Octets as they pass."""
        text = octets.hex(" ")
        if self._password:
            text = text.replace(self._password, " ".join([MASK] * ((len(self._password) + 1) // 3)))
        self._write(f"{'>' if sent else '<'} {text}")
