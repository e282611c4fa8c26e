"""Which file of this folder goes where on a gateway, and with what in it.

It knows the layout of a Debian system. It runs nothing and writes nothing: `checkmeter install` and the Debian
package both take their files from here, so that the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

UNIT = "checkmeter.service"
SITE_FILE = "/etc/checkmeter/site.toml"  # what the unit runs with

# After the files are in place, in this order; also the Debian package's postinst.
ACTIVATION: tuple[tuple[str, ...], ...] = (
    ("systemd-sysusers", "checkmeter.conf"),
    ("systemd-tmpfiles", "--create", "checkmeter.conf"),
    ("udevadm", "control", "--reload"),
    ("systemctl", "daemon-reload"),
)


class _Place(NamedTuple):
    source: str
    administrator: str  # what a person installs, who may remove it again
    package: str  # what the distribution's package owns


_PLACES = (
    _Place(UNIT, "etc/systemd/system/checkmeter.service", "usr/lib/systemd/system/checkmeter.service"),
    _Place("checkmeter.sysusers", "etc/sysusers.d/checkmeter.conf", "usr/lib/sysusers.d/checkmeter.conf"),
    _Place("checkmeter.tmpfiles", "etc/tmpfiles.d/checkmeter.conf", "usr/lib/tmpfiles.d/checkmeter.conf"),
    _Place("checkmeter.modules-load", "etc/modules-load.d/checkmeter.conf", "usr/lib/modules-load.d/checkmeter.conf"),
    _Place("70-checkmeter.rules", "etc/udev/rules.d/70-checkmeter.rules", "usr/lib/udev/rules.d/70-checkmeter.rules"),
)


@dataclass(frozen=True, slots=True)
class SystemFile:
    """A file to write: `path` below the root of the gateway's file system, without a leading slash."""

    path: str
    text: str


def system_files(checkmeter: str, *, packaged: bool) -> list[SystemFile]:
    """The files for a gateway whose console script is `checkmeter` (an absolute path).

    `packaged` puts them where a distribution's package does (/lib, /usr/lib) instead of where an administrator
    does (/etc).

    Raises:
        ValueError: `checkmeter` is not an absolute path, or holds a character that a unit file would read otherwise.
    """
    if not checkmeter.startswith("/") or any(c in checkmeter for c in " \"'%$\\\n"):
        raise ValueError(f"{checkmeter!r} cannot stand in a systemd unit: install into an absolute path without blanks")
    here = files("agent.deploy")
    return [
        SystemFile(
            place.package if packaged else place.administrator,
            (here / place.source).read_text(encoding="utf-8").replace("@CHECKMETER@", checkmeter),
        )
        for place in _PLACES
    ]
