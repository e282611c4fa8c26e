"""Builds the Debian package: `python -m agent.deploy.deb OUTPUT_DIRECTORY`, on the architecture it is for.

The package holds a private Python environment in /opt/checkmeter (PEP 405: a `pyvenv.cfg` and a link to Debian's
own python3) with checkmeter and what it needs at run time, the unit and its company, and a link in /usr/bin.
Nothing is downloaded or compiled on the gateway.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.deploy.layout import ACTIVATION, UNIT, system_files

HOME = "opt/checkmeter"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf"}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD_TIMEOUT_S = 900

SOURCES = ("agent", "core", "firmware_io", "setup.py", "pyproject.toml", "README.md", "LICENSE")

# Tests, headers and static libraries of the dependencies: a gateway has no use for them.
NEEDLESS = ("numpy/**/tests", "numpy/core/include", "numpy/core/lib", "numpy/f2py", "numpy/distutils", "bin")

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


def main(argv: list[str]) -> int:
    """Build the package from the source tree in the current folder; its path is printed."""
    if len(argv) != 2:
        print("usage: python -m agent.deploy.deb OUTPUT_DIRECTORY", file=sys.stderr)
        return 2
    if platform.machine() not in ARCHITECTURE:
        print(f"no Debian architecture is known for {platform.machine()}", file=sys.stderr)
        return 1
    with TemporaryDirectory(prefix="checkmeter-deb-") as scratch:
        print(build(Path.cwd(), Path(scratch), Path(argv[1])))
    return 0


def build(source: Path, scratch: Path, output: Path) -> Path:
    """Build into `output` and return the package's path.

    Raises:
        subprocess.CalledProcessError: pip or dpkg-deb failed; they have said why on stderr.
    """
    tree = scratch / "tree"
    site = tree / HOME / "lib" / f"python{PYTHON}" / "site-packages"
    site.mkdir(parents=True)
    wheel = _wheel(source, scratch)
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", site, wheel)
    for pattern in NEEDLESS:
        for path in sorted(site.glob(pattern)):
            shutil.rmtree(path, ignore_errors=True)
    # The service may not write there, so without these every start would compile every module anew.
    compiled = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/", site)
    _run(sys.executable, *compiled)
    _environment(tree)
    for file in system_files("/usr/bin/checkmeter", packaged=True):
        _put(tree / file.path, file.text)
    version = _control(tree, site)
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"checkmeter_{version}_{ARCHITECTURE[platform.machine()]}.deb"
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


def _environment(tree: Path) -> None:
    home = tree / HOME
    _put(home / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    _put(home / "bin" / "checkmeter", SCRIPT, mode=0o755)
    (home / "bin" / "python3").symlink_to(f"/usr/bin/python{PYTHON}")
    link = tree / "usr/bin/checkmeter"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"/{HOME}/bin/checkmeter")


def _control(tree: Path, site: Path) -> str:
    (metadata,) = site.glob("checkmeter-*.dist-info/METADATA")
    about = Parser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)
    installed_kb = sum(f.lstat().st_size for f in tree.rglob("*") if f.is_file()) // 1024
    control = f"""Package: checkmeter
Version: {about["Version"]}
Architecture: {ARCHITECTURE[platform.machine()]}
Maintainer: checkmeter <checkmeter@localhost>
Section: net
Priority: optional
Depends: python{PYTHON}, systemd
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
    return str(about["Version"])


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _run(*words: str | Path) -> None:
    subprocess.run([str(w) for w in words], check=True, timeout=BUILD_TIMEOUT_S, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
