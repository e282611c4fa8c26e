"""What we ship: the source distribution can be built from, and the wheel made from it holds what it should, no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("agent", "core", "firmware_io", "setup.py", "pyproject.toml", "README.md", "LICENSE")

pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel), the wheel built from the sdist as pip would; from a copy, so that no old build can help."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c"))
        else:
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def modules_of_the_tree() -> set[str]:
    files = (f for room in ("agent", "core", "firmware_io") for f in (ROOT / room).rglob("*.py"))
    return {str(f.relative_to(ROOT)) for f in files}


def test_a_run_by_groups_sees_the_groups(request: pytest.FixtureRequest) -> None:
    """Else every worker builds what one should build for all; pytest-xdist writes the group behind the test's name."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("this run does not go by groups")
    assert request.node.nodeid.endswith("@packaging")


def test_wheel_has_our_three_rooms_and_nothing_else_at_its_top(built: tuple[Path, Path]) -> None:
    tops = {name.split("/")[0] for name in names_in(built[1])}
    dist_info = {top for top in tops if top.startswith("checkmeter-") and top.endswith(".dist-info")}
    assert len(dist_info) == 1
    assert tops - dist_info == {"agent", "core", "firmware_io"}


def test_wheel_holds_every_module_and_no_source_of_a_kernel(built: tuple[Path, Path]) -> None:
    names = set(names_in(built[1]))
    assert modules_of_the_tree() <= names
    profiles = {n for n in names if n.startswith("firmware_io/modbus/profiles/")}
    shipped = [*ROOT.glob("firmware_io/modbus/profiles/*.toml"), ROOT / "firmware_io/modbus/profiles/schema.json"]
    assert {"/".join(p.relative_to(ROOT).parts) for p in shipped} == profiles
    assert not [n for n in names - profiles if n.endswith((".c", ".pyx", ".toml")) and "demo" not in n]
    assert {str(po.relative_to(ROOT)) for po in ROOT.glob("agent/**/*.po")} <= names
    assert {"agent/py.typed", "core/py.typed", "firmware_io/py.typed"} <= names


def test_wheel_holds_every_kernel_compiled(built: tuple[Path, Path]) -> None:
    kernels = {str(f.relative_to(ROOT).with_suffix("")) for f in ROOT.glob("*/**/*.pyx") if ".venv" not in f.parts}
    compiled = {n.split(".")[0] for n in names_in(built[1]) if n.endswith(".so")}
    assert kernels
    assert kernels == compiled


def test_sdist_keeps_the_sources_of_the_kernels(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {str(f.relative_to(ROOT)) for f in (ROOT / "core").glob("*.pyx")} <= names
    assert {"setup.py", "pyproject.toml", "LICENSE"} <= names


def test_the_wheel_runs_where_nothing_else_of_ours_is(built: tuple[Path, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import core.balance._balance, agent.site.tables; from agent.cli.main import main; main(['check', 'none.toml'])"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 78, done.stderr
    assert "none.toml: cannot be read" in done.stderr
