"""The files for a gateway: systemd itself judges them, and the Debian package holds them all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from agent.cli.main import main
from agent.deploy import deb
from agent.deploy.layout import UNIT, system_files
from agent.deploy.sbom import normal

LINKED_CFFI = deb.FROM_DEBIAN["cffi"][1]

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not on this machine")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that exists on this machine, so that `verify` has nothing to say of it."""
    path = tmp_path / UNIT
    path.write_text(next(f.text for f in system_files("/bin/true", packaged=True) if f.path.endswith(UNIT)))
    return path


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    about_ours = [line for line in (done.stdout + done.stderr).splitlines() if UNIT in line]
    assert done.returncode == 0
    assert about_ours == []


@needs_systemd
def test_exposure_is_at_most_one_and_a_half(unit: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", unit]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-600:]


@needs_systemd
def test_the_threshold_does_fail_a_soft_unit(tmp_path: Path) -> None:
    soft = tmp_path / "soft.service"
    soft.write_text("[Service]\nExecStart=/bin/true\n")
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", soft]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode != 0


def test_serial_ports_stay_open_and_the_watchdog_is_on(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    for driver in ("ttyUSB", "ttyS", "ttyAMA", "ttymxc", "ttyLP", "ttySTM", "ttySC", "ttyO"):
        assert f"DeviceAllow=char-{driver} rw" in lines
    assert "Type=notify" in lines
    assert "RestartPreventExitStatus=78" in lines
    assert not any(line.startswith(("PrivateDevices=yes", "ProcSubset")) for line in lines)


def test_a_script_in_a_path_with_blanks_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot stand in a systemd unit"):
        system_files("/opt/my meters/checkmeter", packaged=False)
    with pytest.raises(ValueError, match="absolute"):
        system_files("checkmeter", packaged=False)


def test_install_writes_every_file_below_the_root_and_remove_takes_them_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/checkmeter/venv/bin/checkmeter"])
    with pytest.raises(SystemExit) as first:
        main(["install", "--root", str(tmp_path)])
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    expected = system_files("/opt/checkmeter/venv/bin/checkmeter", packaged=False)
    assert first.value.code == 0
    assert written == {f.path for f in expected}
    unit_text = (tmp_path / "etc/systemd/system" / UNIT).read_text()
    assert "ExecStart=/opt/checkmeter/venv/bin/checkmeter run /etc/checkmeter/site.toml" in unit_text
    with pytest.raises(SystemExit):
        main(["install", "--root", str(tmp_path), "--remove"])
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    capsys.readouterr()


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/checkmeter"])
    with pytest.raises(SystemExit):
        main(["install", "--root", str(tmp_path), "--dry-run"])
    assert list(tmp_path.iterdir()) == []


@needs_dpkg
@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1000)
def test_the_debian_package_holds_service_environment_and_kernels(debian_package: Path) -> None:
    listing = subprocess.run(
        ["dpkg", "-c", debian_package], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    names = {line.split()[5].removeprefix("./") for line in listing.splitlines()}
    owners = {line.split()[1] for line in listing.splitlines()}
    assert owners == {"root/root"}
    assert {f.path for f in system_files("/usr/bin/checkmeter", packaged=True)} <= names
    assert {"usr/bin/checkmeter", f"{deb.HOME}/pyvenv.cfg", f"{deb.HOME}/bin/python3"} <= names
    for page in ("checkmeter", "checkmeter-read", "checkmeter-utility"):
        assert f"usr/share/man/man1/{page}.1.gz" in names
    assert {"usr/share/bash-completion/completions/checkmeter", "usr/share/zsh/vendor-completions/_checkmeter"} <= names
    for document in ("copyright", "changelog.gz", "sbom.cdx.json", "examples/recompute.py"):
        assert f"{deb.DOC}/{document}" in names
    site = f"{deb.HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/"
    held = {n.removeprefix(site) for n in names if n.startswith(site)}
    for kernel in ("core/balance/_balance.", "core/registers/_align.", "core/attribution/_attribution."):
        assert any(n.startswith(kernel) and n.endswith(".so") for n in held)
    assert not any("__pycache__" in n for n in held)  # Debian's py3compile makes them where it is installed
    assert any(n.startswith("rich/") for n in held)  # `checkmeter watch`
    assert {n.rstrip("/") for n in held if n.startswith(("numpy", "cffi", "_cffi"))} == {"numpy", LINKED_CFFI}
    assert not any(n.startswith(("tests/", "gurux_dlms/", "dlms_cosem/", "sklearn/")) for n in held)


@needs_dpkg
@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1000)
def test_the_package_names_its_architecture_and_what_it_takes_from_debian(debian_package: Path) -> None:
    words = ["dpkg-deb", "-f", debian_package, "Architecture", "Depends", "Installed-Size"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    fields = dict(line.split(": ", 1) for line in said.splitlines())
    own = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, timeout=60, check=True)
    assert fields["Architecture"] == own.stdout.strip()
    depends = set(fields["Depends"].split(", "))
    assert {"python3-numpy", "python3-cffi-backend", f"python3 (<< 3.{sys.version_info.minor + 1})"} <= depends
    assert any(re.fullmatch(r"libc6 \(>= 2\.\d+\)", one) for one in depends)
    assert int(fields["Installed-Size"]) <= 60_000


@needs_dpkg
@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1000)
@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not on this machine")
def test_debian_s_checker_finds_neither_error_nor_warning(debian_package: Path) -> None:
    words = ["lintian", "--allow-root", "--fail-on", "error,warning", debian_package]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout


@needs_dpkg
@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1000)
def test_nothing_in_the_package_tells_where_it_was_built(debian_package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", debian_package, tmp_path], check=True, timeout=60)
    told = [text for text in (str(Path.cwd()), sys.prefix, sys.base_prefix) if text != "/usr"]  # Debian's is no secret
    places = re.compile("|".join([r"checkmeter-deb-\w{8}/", *map(re.escape, told)]).encode())
    assert [
        str(path)
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink() and places.search(path.read_bytes())
    ] == []


@needs_dpkg
@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1000)
def test_whatever_is_shipped_has_its_terms_and_its_place_in_the_bill_of_materials(
    debian_package: Path, tmp_path: Path
) -> None:
    subprocess.run(["dpkg-deb", "-x", debian_package, tmp_path], check=True, timeout=60)
    (site,) = tmp_path.glob(f"{deb.HOME}/lib/python3.*/site-packages")
    terms = (tmp_path / deb.DOC / "copyright").read_text()
    listed = {
        c["name"]: c["version"] for c in json.loads((tmp_path / deb.DOC / "sbom.cdx.json").read_text())["components"]
    }
    packed = {normal(d.metadata["Name"]): d.version for d in distributions(path=[str(site)])}
    del packed["checkmeter"]
    assert packed == {normal(name): version for name, version in listed.items()}
    tops = {path.name for path in site.iterdir() if not path.is_symlink() and not path.name.startswith("checkmeter-")}
    assert {top for top in tops if f"/{top}" not in terms} == {"agent", "core", "firmware_io"}  # under Files: *


def test_a_dependency_that_nobody_brings_stops_the_package(tmp_path: Path) -> None:
    about = tmp_path / "thing-1.dist-info"
    about.mkdir()
    text = "Metadata-Version: 2.1\nName: thing\nVersion: 1\nRequires-Dist: numpy\nRequires-Dist: {}\n"
    (about / "METADATA").write_text(text.format("absent>=2; extra == 'never'"))
    deb.complete(tmp_path)
    (about / "METADATA").write_text(text.format("absent>=2"))
    with pytest.raises(RuntimeError, match="thing needs absent>=2"):
        deb.complete(tmp_path)
