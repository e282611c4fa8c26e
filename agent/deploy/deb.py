"""Builds the Debian package: `python -m agent.deploy.deb OUTPUT_DIRECTORY`, on the architecture and release it is for.

The package holds a private Python environment in /usr/lib/checkmeter (PEP 405: a `pyvenv.cfg` and a link to Debian's
own python3) with checkmeter and what it needs at run time, the unit and its company, and a command in /usr/bin.
What comes from PyPI is what constraints.txt locks, digest by digest. Nothing is downloaded on the gateway. numpy and
cffi's backend are Debian's, on every architecture alike: PyPI has neither for armhf, and Debian's need no BLAS of 30 MB
and get its security updates. They are linked into the environment one by one, so that nothing else that is installed
on the gateway can get into it. The same sources and the same SOURCE_DATE_EPOCH give the same octets.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from datetime import datetime, timedelta
from email.message import Message
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.deploy import debian, man
from agent.deploy.copyright import copyright_file
from agent.deploy.layout import system_files
from agent.deploy.sbom import Package, locked, normal, sbom
from agent.wire.values import EPOCH

HOME = "usr/lib/checkmeter"
DOC = "usr/share/doc/checkmeter"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILD_TIMEOUT_S = 900
LOCK = "constraints.txt"

SOURCES = ("agent", "core", "firmware_io", "setup.py", "pyproject.toml", "README.md", "LICENSE")

# What Debian brings: the requirement's name, the package, and what of its dist-packages is linked in.
FROM_DEBIAN = {
    "numpy": ("python3-numpy", "numpy"),
    "cffi": ("python3-cffi-backend", f"_cffi_backend{sysconfig.get_config_var('EXT_SUFFIX')}"),
}
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
# `checkmeter watch` draws tables with rich; what rich would need for Markdown and coloured source code it does not.
SPARED = frozenset({"markdown-it-py", "mdurl", "pygments", "pycparser"})
# The accelerators, compilers and tools in LiteRT are of phones: a gateway's model runs on its processor.
OF_PHONES = ("ai_edge_litert/tools", "ai_edge_litert/vendors", "ai_edge_litert/libLiteRtWebGpuAccelerator.so")
# Of an installation by pip, what tells of the building machine or is of no use on a gateway.
NEEDLESS = (
    *OF_PHONES,
    "bin",
    "**/__pycache__",
    *(f"*.dist-info/{n}" for n in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")),
)

SCRIPT = f"""#!/bin/sh
# Isolated (-I): neither PYTHON* variables nor packages of the user get in.
exec /{HOME}/bin/python3 -I -m agent.cli.main "$@"
"""


def main(argv: list[str]) -> int:
    """Build the package from the source tree in the current folder; its path is printed."""
    if len(argv) != 2:
        print("usage: python -m agent.deploy.deb OUTPUT_DIRECTORY", file=sys.stderr)
        return 2
    for program, package in (("dpkg-deb", "dpkg"), ("strip", "binutils"), ("objdump", "binutils")):
        if shutil.which(program) is None:
            print(f"{program} is not on the PATH ({package}): a Debian package is built on Debian", file=sys.stderr)
            return 1
    with TemporaryDirectory(prefix="checkmeter-deb-") as scratch:
        print(build(Path.cwd(), Path(scratch), Path(argv[1])))
    return 0


def build(source: Path, scratch: Path, output: Path) -> Path:
    """Build into `output` and return the package's path.

    Raises:
        subprocess.CalledProcessError: pip or dpkg-deb failed; they have said why on stderr.
        RuntimeError: a dependency of a dependency is missing from the package, or its licence or library is not known.
    """
    epoch = _epoch(source)
    tree = scratch / "tree"
    site = tree / HOME / "lib" / f"python{PYTHON}" / "site-packages"
    site.mkdir(parents=True)
    wheels = _wheel(source, scratch, epoch)
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--target", site)
    _run(*install, "--no-index", "--find-links", wheels, "checkmeter")
    shutil.rmtree(site / "bin")  # pip's own script for it: the next call would warn of the folder
    pins = _pins((source / LOCK).read_text(encoding="utf-8"))
    (scratch / "pins.txt").write_text("".join(pins.values()), encoding="utf-8")
    # Without their own dependencies: pip would build what is Debian's part. `complete` sees that none is missing.
    _run(*install, "--require-hashes", "-r", scratch / "pins.txt")
    complete(site)
    below = f"{HOME}/lib/python{PYTHON}/site-packages"
    _put(tree / DOC / "copyright", copyright_file(site, below))
    about = _metadata(site)
    _tidy(site)
    objects = sorted(site.rglob("*.so*"))
    _run("strip", "--strip-unneeded", *objects)
    libraries = debian.needed(objects)
    _environment(tree, site)
    for file in system_files("/usr/bin/checkmeter", packaged=True):
        _put(tree / file.path, file.text)
    version = f"{about['Version']}{debian.release(Path('/etc/os-release').read_text(encoding='utf-8'))}"
    day = EPOCH + timedelta(seconds=epoch)
    _documents(source, tree, version, day, locked("".join(pins.values())))
    # Not the machine's: a kernel of 64 bits often carries a userland of 32 on an ARM board.
    architecture = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, timeout=30, capture_output=True, text=True
    ).stdout.strip()
    kb = sum(f.lstat().st_size for f in tree.rglob("*") if f.is_file() and not f.is_symlink()) // 1024
    packages = [package for package, _ in FROM_DEBIAN.values()]
    text = debian.control(
        version=version,
        architecture=architecture,
        python=PYTHON,
        debian=packages,
        libraries=libraries,
        kb=kb,
        maintainer=_maintainer(),
    )
    _put(tree / "DEBIAN/control", text)
    for name, script in debian.scripts(version, HOME, PYTHON).items():
        _put(tree / "DEBIAN" / name, script, mode=0o755)
    _settle(tree, epoch)
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"checkmeter_{version}_{architecture}.deb"
    _run("dpkg-deb", "--root-owner-group", "-Zxz", "--threads-max=1", "--build", tree, package, epoch=epoch)
    return package


def _epoch(source: Path) -> int:
    """Seconds since 1970 of all that the package dates: SOURCE_DATE_EPOCH, or the sources' last commit."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is None:
        words = ["git", "-C", str(source), "log", "-1", "--format=%ct"]
        try:
            said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            said = str(int((source / "CHANGELOG.md").stat().st_mtime))
    return int(said)


def _wheel(source: Path, scratch: Path, epoch: int) -> Path:
    """Build from a copy of the sources: what an earlier build left behind must not get into the package."""
    copy = scratch / "source"
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
    for name in SOURCES:
        if (source / name).is_dir():
            shutil.copytree(source / name, copy / name, ignore=leave)
        else:
            shutil.copy2(source / name, copy / name)
    wheels = scratch / "wheels"
    words = ("-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", wheels, copy)
    # A Python of one's own may be linked with a path of its own; Debian's is not, and Debian's will load the kernels.
    linker = str(sysconfig.get_config_var("LDSHARED") or "gcc -shared").split()
    linker = [word for word in linker if not word.startswith(("-L", "-Wl,-rpath"))]
    flags = "-DNDEBUG -fwrapv -O2 -g0 -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wformat -Werror=format-security"
    build = {
        "LDSHARED": " ".join([*linker, "-Wl,-z,relro", "-Wl,-z,now"]),
        "CFLAGS": f"{flags} -ffile-prefix-map={copy}=. -ffile-prefix-map={sys.base_prefix}=/usr",
    }
    _run(sys.executable, *words, epoch=epoch, **build)
    return wheels


def _metadata(site: Path) -> Message:
    (metadata,) = site.glob("checkmeter-*.dist-info/METADATA")
    return Parser().parsestr(metadata.read_text(encoding="utf-8"), headersonly=True)


def _pins(lock: str) -> dict[str, str]:
    """What of the lock this Python installs and Debian does not bring: name -> its lines with the digests."""
    blocks = re.findall(r"^[A-Za-z0-9][^\n]*(?:\n[ \t]+[^\n]*)*\n?", lock, flags=re.MULTILINE)
    wanted = {}
    for block in blocks:
        requirement = block.splitlines()[0].rstrip(" \\")
        name = _name(requirement)
        if _applying([requirement]) and name not in FROM_DEBIAN and name not in SPARED:
            wanted[name] = block if block.endswith("\n") else f"{block}\n"
    return wanted


def complete(site: Path) -> None:
    """See that whatever the packages in `site` ask for is there, or is Debian's.

    Raises:
        RuntimeError: something is not; who asks for it stands in the text.
    """
    held = {normal(str(found.metadata["Name"])) for found in distributions(path=[str(site)])}
    there = held | FROM_DEBIAN.keys() | SPARED
    missing = [
        f"{found.metadata['Name']} needs {text}"
        for found in distributions(path=[str(site)])
        for text in _applying(found.requires or ())
        if _name(text) not in there
    ]
    if missing:
        raise RuntimeError(f"not in the package: {'; '.join(missing)}. Name it in pyproject.toml, then make lock")


def _applying(requirements: Iterable[str]) -> list[str]:
    """Those whose marker holds here; no extras."""
    from pip._vendor.packaging.requirements import Requirement  # what pip itself reads them with

    parsed = {text: Requirement(text).marker for text in requirements}
    return [text for text, marker in parsed.items() if marker is None or marker.evaluate({"extra": ""})]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return "" if match is None else normal(match.group())


def _tidy(site: Path) -> None:
    for pattern in NEEDLESS:
        for path in sorted(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(site.rglob("*.py")):  # modules that were scripts once
        text = path.read_bytes()
        if text.startswith(b"#!"):
            path.write_bytes(b"# " + text)


def _environment(tree: Path, site: Path) -> None:
    for _, linked in FROM_DEBIAN.values():
        (site / linked).symlink_to(os.path.relpath(DIST_PACKAGES / linked, Path("/") / site.relative_to(tree)))
    home = tree / HOME
    _put(home / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(f"../../../bin/python{PYTHON}")
    _put(tree / "usr/bin/checkmeter", SCRIPT, mode=0o755)


def _documents(source: Path, tree: Path, version: str, day: datetime, packages: list[Package]) -> None:
    changes = debian.changelog((source / "CHANGELOG.md").read_text(encoding="utf-8"), version, day, _maintainer())
    _put_gz(tree / DOC / "changelog.gz", changes)
    _put(tree / DOC / "sbom.cdx.json", json.dumps(sbom(packages, version), indent=1) + "\n")
    _put(tree / DOC / "examples/recompute.py", (source / "docs/recompute.py").read_text(encoding="utf-8"))
    for example in sorted((source / "examples").glob("*")):
        if example.is_file():
            _put(tree / DOC / "examples" / example.name, example.read_text(encoding="utf-8"))
    for name, page in man.pages(day, version).items():
        _put_gz(tree / "usr/share/man/man1" / f"{name}.gz", page)
    scripts = man.completions()
    _put(tree / "usr/share/bash-completion/completions/checkmeter", scripts["bash"])
    _put(tree / "usr/share/zsh/vendor-completions/_checkmeter", scripts["zsh"])


def _maintainer() -> str:
    name, address = os.environ.get("DEBFULLNAME"), os.environ.get("DEBEMAIL")
    return f"{name} <{address}>" if name and address else debian.MAINTAINER


def _settle(tree: Path, epoch: int) -> None:
    """One mode for files, one for programs and folders, one time for all."""
    programs = {"preinst", "postinst", "prerm", "postrm"}
    for path in sorted(tree.rglob("*"), reverse=True):
        if not path.is_symlink():
            runs = path.is_dir() or path.parent == tree / "usr/bin" or path.name in programs
            path.chmod(0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    tree.chmod(0o755)
    os.utime(tree, (epoch, epoch))


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _put_gz(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))


def _run(*words: str | Path, epoch: int | None = None, **environment: str) -> None:
    more = {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    subprocess.run(
        [str(w) for w in words],
        check=True,
        timeout=BUILD_TIMEOUT_S,
        stdout=sys.stderr,
        env={**os.environ, **more, **environment},
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
