"""Fills a root's virtual environment from the host: `environment.py armhf|arm64|amd64 SITE_PACKAGES`.

Emulated, pip takes a quarter of an hour for what it does here in seconds: it unpacks wheels of the other architecture.
The versions are those of the environment that runs this script, so that both architectures are tested with the same.
What Debian has (numpy, cffi) is left to Debian, as in the package; a wheel that PyPI lacks is taken from WHEELS, where
`environment.sh` has compiled it once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Set
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
GLIBC = range(17, 37)  # up to that of Debian 12
FROM_DEBIAN = {"numpy", "cffi", "pycparser"}
TOOLS = ("setuptools", "Cython", "pip", "wheel", "rich")
EXTRAS = ("utility", "web")
# Of the tests' own peers, those with wheels for every architecture; pandas, scikit-learn, pyarrow and psutil are not.
PEERS = re.compile("dlms|gurux|dlt6|pymeterbus|pymbus|pymodbus|httpx|hypothesis|jsonschema|pytest", re.IGNORECASE)
NO_WHEEL = {"armhf": {"dlt698", "pymeterbus"}}  # the latter for what it needs itself
TIMEOUT_S = 600


def wanted(but: Set[str] = frozenset()) -> dict[str, str]:
    """Name and version of what the tests import, with all that it needs, without the peers of `but`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    peers = [text for text in extras["test"] if PEERS.match(text)]
    more = [text for name in EXTRAS for text in extras[name]]
    open_, found = [*project["dependencies"], *peers, *more, *TOOLS], dict[str, str]()
    while open_:
        text = open_.pop()
        name = re.split(r"[^A-Za-z0-9._-]", text)[0].lower().replace("_", "-")
        if name in found or name in FROM_DEBIAN or name in but or name == "checkmeter" or "extra ==" in text:
            continue
        try:
            held = distribution(name)
        except PackageNotFoundError:
            continue  # of another Python or system
        found[name] = held.version
        open_ += held.requires or []
    return found


def main(argv: list[str]) -> int:
    """Install and return pip's exit code."""
    arch, site, wheels = argv[1], argv[2], argv[3]
    platforms = [f"manylinux_2_{minor}_{MACHINE[arch]}" for minor in reversed(GLIBC)]
    platforms += [f"manylinux2014_{MACHINE[arch]}", f"linux_{MACHINE[arch]}"]
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
    words += ["--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    words += [word for platform in platforms for word in ("--platform", platform)]
    words += ["--find-links", wheels, "--target", site]
    words += [f"{name}=={version}" for name, version in sorted(wanted(NO_WHEEL.get(arch, set())).items())]
    shutil.rmtree(site, ignore_errors=True)  # pip leaves the description of an older version beside the new one
    return subprocess.run(words, check=False, timeout=TIMEOUT_S).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv))
