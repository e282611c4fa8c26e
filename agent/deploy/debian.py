"""What Debian wants to know of the package: control file, maintainer scripts, changelog, needed libraries.

It makes texts and reads shared objects with objdump. It does not know how the tree was filled (deb.py).
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from agent.deploy.layout import ACTIVATION, UNIT

MAINTAINER = "checkmeter maintainers <checkmeter@example.org>"  # whoever distributes it sets DEBFULLNAME and DEBEMAIL
OBJDUMP_TIMEOUT_S = 60

LIVE = ("systemctl", "udevadm")  # speak to what runs: not in an image that is being made

# The library that a shared object names -> Debian's package of it.
_LIBRARIES = {
    "libc.so": "libc6",
    "libm.so": "libc6",
    "libdl.so": "libc6",
    "libpthread.so": "libc6",
    "librt.so": "libc6",
    "ld-linux": "libc6",
    "libstdc++.so": "libstdc++6",
    "libgcc_s.so": "libgcc-s1",
    "libz.so": "zlib1g",
}

# A store that a newer release has written must not be opened by an older one. Whoever wants the older one all the same
# puts the newer one's state away first.
PREINST = """#!/bin/sh
set -e
if [ -n "$2" ] && dpkg --compare-versions "$2" gt "{version}" && [ -n "$(ls -A /var/lib/checkmeter 2>/dev/null)" ]; then
    echo "checkmeter {version} is older than $2, whose readings and alerts are in /var/lib/checkmeter." >&2
    echo "It cannot be trusted with them. Keep $2, or move /var/lib/checkmeter away and install again." >&2
    exit 1
fi
"""

POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    # Compiled once: the service may not write there, and every start would do it anew.
    if command -v py3compile >/dev/null; then py3compile -p checkmeter -V {python} /{home}; fi
{activation}
    if [ -d /run/systemd/system ] && [ -n "$2" ]; then
        deb-systemd-invoke try-restart {unit} || true
    fi
fi
"""

PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    deb-systemd-invoke stop {unit} || true
fi
if command -v py3clean >/dev/null; then py3clean -p checkmeter; fi
"""

# What a gateway has learned and its credentials go with `apt purge` only, never with an upgrade or `apt remove`.
POSTRM = """#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf /etc/checkmeter /var/lib/checkmeter
    rm -f /etc/systemd/system/multi-user.target.wants/{unit}
    if getent passwd checkmeter >/dev/null; then userdel checkmeter || true; fi
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"""


def release(os_release: str) -> str:
    """The suffix of the version from /etc/os-release: +debian12 sorts before +debian13, so a dist-upgrade upgrades."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    number = fields.get("VERSION_ID", "").strip('"')
    return f"+{fields.get('ID', 'linux').strip(chr(34))}{number}" if number else ""


def control(
    *, version: str, architecture: str, python: str, debian: Iterable[str], libraries: str, kb: int, maintainer: str
) -> str:
    """The control file; `python` is the one minor version that the kernels were built for, as in 3.11."""
    minor = int(python.rpartition(".")[2])
    needs = [f"python3 (>= 3.{minor}~)", f"python3 (<< 3.{minor + 1})", f"python{python}", *debian, libraries]
    return f"""Package: checkmeter
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Section: net
Priority: optional
Depends: {", ".join([*needs, "systemd", "tzdata"])}
Recommends: udev, systemd-timesyncd | time-daemon
Suggests: mosquitto, fonts-noto-cjk, chromium
Installed-Size: {kb}
Description: find the missing energy of a building with many meters
 Reads the main meter and the sub-meters of a building over DLMS/COSEM,
 DL/T 645, DL/T 698.45, Modbus and M-Bus, keeps their balance on a small
 gateway, and sends an alert over MQTT when energy goes missing: how much,
 since when, and at which meter, with how sure that is.
 .
 It also forecasts the next two days of each zone.
"""


def scripts(version: str, home: str, python: str) -> dict[str, str]:
    """Maintainer script -> its text."""
    activation = "\n".join(
        f"    if command -v {words[0]} >/dev/null; then {' '.join(words)} || true; fi"
        if words[0] not in LIVE
        else f"    if [ -d /run/systemd/system ]; then {' '.join(words)} || true; fi"
        for words in ACTIVATION
    )
    return {
        "preinst": PREINST.format(version=version),
        "postinst": POSTINST.format(activation=activation, unit=UNIT, python=python, home=home),
        "prerm": PRERM.format(unit=UNIT),
        "postrm": POSTRM.format(unit=UNIT),
    }


def changelog(markdown: str, version: str, day: datetime, maintainer: str) -> str:
    """CHANGELOG.md as Debian's changelog: one entry, of what is not released yet or was last."""
    newest = re.split(r"^## .*$", markdown, flags=re.MULTILINE)[1]
    points = []
    for section in re.split(r"^### ", newest, flags=re.MULTILINE):
        title, _, body = section.partition("\n")
        items = [" ".join(item.split()) for item in re.split(r"^- ", body, flags=re.MULTILINE)[1:]]
        points += [_point(f"{title}: {item}" if title else item) for item in items]
    return (
        f"checkmeter ({version}) stable; urgency=medium\n\n"
        + "\n".join(points)
        + f"\n\n -- {maintainer}  {format_datetime(day.astimezone(UTC))}\n"
    )


def _point(text: str) -> str:
    return textwrap.fill(
        text, width=78, initial_indent="  * ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def needed(objects: Iterable[Path]) -> str:
    """The packages of the libraries that the shared objects are linked with, with the glibc that they need.

    Raises:
        RuntimeError: a library is needed whose package is not known here.
    """
    packages: set[str] = set()
    glibc = (0, 0)
    for path in objects:
        said = subprocess.run(
            ["objdump", "-p", path], check=True, capture_output=True, text=True, timeout=OBJDUMP_TIMEOUT_S
        ).stdout
        for library in re.findall(r"^\s+NEEDED\s+(\S+)", said, re.MULTILINE):
            packages.add(_package(library, path))
        versions = re.findall(r"\bGLIBC_(\d+)\.(\d+)", said)
        glibc = max([glibc, *((int(major), int(minor)) for major, minor in versions)])
    return ", ".join(_with_version(packages, glibc))


def _package(library: str, path: Path) -> str:
    for start, package in _LIBRARIES.items():
        if library.startswith(start):
            return package
    if (path.parent / library).exists() or any(library in str(p) for p in path.parent.parent.glob("*.libs/*")):
        return "libc6"  # carried in the wheel itself
    raise RuntimeError(f"{path.name} needs {library}: name its Debian package in debian.py")


def _with_version(packages: set[str], glibc: tuple[int, int]) -> Iterator[str]:
    for package in sorted(packages | {"libc6"}):
        yield f"libc6 (>= {glibc[0]}.{glibc[1]})" if package == "libc6" else package
