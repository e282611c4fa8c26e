"""Builds the Debian package: `python -m agent.deploy.deb OUTPUT_DIRECTORY`, on the architecture it is for.

The package holds a private Python environment in /opt/checkmeter (PEP 405: a `pyvenv.cfg` and a link to Debian's
own python3) with checkmeter and what it needs at run time, the unit and its company, and a link in /usr/bin.
Nothing is downloaded or compiled on the gateway. numpy and cffi's backend are Debian's, on every architecture alike:
PyPI has neither for armhf, and Debian's need no BLAS of 30 MB and get its security updates. They are linked into the
environment one by one, so that nothing else that is installed on the gateway can get into it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.deploy.layout import ACTIVATION, UNIT, system_files

HOME = "opt/checkmeter"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD_TIMEOUT_S = 900

SOURCES = ("agent", "core", "firmware_io", "setup.py", "pyproject.toml", "README.md", "LICENSE")

# What Debian brings: the requirement's name, the package, and what of its dist-packages is linked in.
FROM_DEBIAN = {
    "numpy": ("python3-numpy", "numpy"),
    "cffi": ("python3-cffi-backend", f"_cffi_backend{sysconfig.get_config_var('EXT_SUFFIX')}"),
}
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
# `checkmeter watch` draws tables with rich; what rich would need for Markdown and coloured source code it does not.
ALSO = ("rich>=13",)
SPARED = frozenset({"markdown-it-py", "pygments", "pycparser"})
BUILT_HERE = ("core/**/*.so", "firmware_io/**/*.so", "msgspec/*.so")  # with their debug sections: 4 MB
NEEDLESS = ("bin", "rich/__pycache__")

SCRIPT = f"""#!/{HOME}/bin/python3 -I
import sys

from agent.cli.main import main

sys.exit(main())
"""

POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
{activation}
    if [ -d /run/systemd/system ]; then
        systemctl try-restart {unit} || true
    fi
fi
"""

PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now {unit} || true
fi
"""


# What a gateway has learned and its credentials go with `apt purge` only, never with an upgrade or `apt remove`.
POSTRM = """#!/bin/sh
set -e
if [ "$1" = purge ]; then
    rm -rf /etc/checkmeter /var/lib/checkmeter
    if getent passwd checkmeter >/dev/null; then userdel checkmeter || true; fi
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
"""


def main(argv: list[str]) -> int:
    """Build the package from the source tree in the current folder; its path is printed."""
    if len(argv) != 2:
        print("usage: python -m agent.deploy.deb OUTPUT_DIRECTORY", file=sys.stderr)
        return 2
    if shutil.which("dpkg-deb") is None:
        print("dpkg-deb is not on the PATH: a Debian package is built on Debian", file=sys.stderr)
        return 1
    with TemporaryDirectory(prefix="checkmeter-deb-") as scratch:
        print(build(Path.cwd(), Path(scratch), Path(argv[1])))
    return 0


def build(source: Path, scratch: Path, output: Path) -> Path:
    """Build into `output` and return the package's path.

    Raises:
        subprocess.CalledProcessError: pip or dpkg-deb failed; they have said why on stderr.
        RuntimeError: a dependency of a dependency is missing from the package.
    """
    tree = scratch / "tree"
    site = tree / HOME / "lib" / f"python{PYTHON}" / "site-packages"
    site.mkdir(parents=True)
    wheel = _wheel(source, scratch)
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--target", site)
    _run(*install, wheel)
    # Without their own dependencies: pip would build what is Debian's part. `complete` sees that none is missing.
    _run(*install, *_wanted(_metadata(site)), *ALSO)
    complete(site)
    for pattern in NEEDLESS:
        for path in sorted(site.glob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
    _run("strip", "--strip-unneeded", *(so for pattern in BUILT_HERE for so in sorted(site.glob(pattern))))
    # The service may not write there, so without these every start would compile every module anew.
    compiled = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/", site)
    _run(sys.executable, *compiled)
    _environment(tree, site)
    for file in system_files("/usr/bin/checkmeter", packaged=True):
        _put(tree / file.path, file.text)
    # Not the machine's: a kernel of 64 bits often carries a userland of 32 on an ARM board.
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, timeout=30, capture_output=True, text=True
    ).stdout.strip()
    version = _control(tree, _metadata(site), architecture)
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"checkmeter_{version}_{architecture}.deb"
    _run("dpkg-deb", "--root-owner-group", "-Zzstd", "--build", tree, package)
    return package


def _wheel(source: Path, scratch: Path) -> Path:
    """Build from a copy of the sources: what an earlier build left behind must not get into the package."""
    copy = scratch / "source"
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    for name in SOURCES:
        if (source / name).is_dir():
            shutil.copytree(source / name, copy / name, ignore=leave)
        else:
            shutil.copy2(source / name, copy / name)
    wheels = scratch / "wheels"
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", wheels, copy)
    (wheel,) = wheels.glob("checkmeter-*.whl")
    return wheel


def _metadata(site: Path) -> Message:
    (metadata,) = site.glob("checkmeter-*.dist-info/METADATA")
    return Parser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)


def _wanted(about: Message) -> list[str]:
    """The run-time requirements that do not come from Debian, each with its version and marker as pip reads them."""
    requirements = about.get_all("Requires-Dist") or []
    return [text for text in requirements if "extra ==" not in text and _name(text) not in FROM_DEBIAN]


def complete(site: Path) -> None:
    """See that whatever the packages in `site` ask for is there, or is Debian's.

    Raises:
        RuntimeError: something is not; who asks for it stands in the text.
    """
    held = {str(found.metadata["Name"]).lower().replace("_", "-") for found in distributions(path=[str(site)])}
    there = held | FROM_DEBIAN.keys() | SPARED
    missing = [
        f"{found.metadata['Name']} needs {text}"
        for found in distributions(path=[str(site)])
        for text in _applying(found.requires or ())
        if _name(text) not in there
    ]
    if missing:
        raise RuntimeError(f"not in the package: {'; '.join(missing)}. Name it in pyproject.toml or in ALSO")


def _applying(requirements: Iterable[str]) -> list[str]:
    """Those whose marker holds here; no extras."""
    from pip._vendor.packaging.requirements import Requirement  # what pip itself reads them with

    parsed = {text: Requirement(text).marker for text in requirements}
    return [text for text, marker in parsed.items() if marker is None or marker.evaluate({"extra": ""})]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return "" if match is None else match.group().lower().replace("_", "-")


def _environment(tree: Path, site: Path) -> None:
    for _, linked in FROM_DEBIAN.values():
        (site / linked).symlink_to(DIST_PACKAGES / linked)
    home = tree / HOME
    _put(home / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    _put(home / "bin" / "checkmeter", SCRIPT, mode=0o755)
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    link = tree / "usr/bin/checkmeter"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/{HOME}/bin/checkmeter")


def _control(tree: Path, about: Message, architecture: str) -> str:
    installed_kb = sum(f.lstat().st_size for f in tree.rglob("*") if f.is_file() and not f.is_symlink()) // 1024
    debian = ", ".join(package for package, _ in FROM_DEBIAN.values())
    control = f"""Package: checkmeter
Version: {about["Version"]}
Architecture: {architecture}
Maintainer: checkmeter <checkmeter@localhost>
Section: net
Priority: optional
Depends: python{PYTHON}, {debian}, libc6, libstdc++6, libgcc-s1, tzdata, systemd
Recommends: udev, systemd-timesyncd | time-daemon
Installed-Size: {installed_kb}
Description: {about["Summary"]}
 Reads the main meter and the sub-meters of a building over DLMS/COSEM, keeps
 their balance, and sends an alert over MQTT when energy goes missing.
"""
    activation = "\n".join(f"    {' '.join(words)} || true" for words in ACTIVATION)
    _put(tree / "DEBIAN/control", control)
    _put(tree / "DEBIAN/postinst", POSTINST.format(activation=activation, unit=UNIT), mode=0o755)
    _put(tree / "DEBIAN/prerm", PRERM.format(unit=UNIT), mode=0o755)
    _put(tree / "DEBIAN/postrm", POSTRM, mode=0o755)
    return str(about["Version"])


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _run(*words: str | Path) -> None:
    subprocess.run([str(w) for w in words], check=True, timeout=BUILD_TIMEOUT_S, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
