"""The arrows of docs/architecture.md: agent -> core, agent -> firmware_io, and nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"agent", "core", "firmware_io"}
ALLOWED = {"core": {"core", "numpy"}, "firmware_io": {"firmware_io", "serial", "cryptography"}}
TFLITE = {"tflite_runtime", "ai_edge_litert"}


def imported(source: str) -> set[str]:
    """The top-level names that a module imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


def forbidden(room: str, file: str, names: set[str]) -> set[str]:
    """Those of `names` that `file` of `room` may not import."""
    allowed = ALLOWED[room] | sys.stdlib_module_names
    if room == "core" and file == "model.py":
        allowed = allowed | TFLITE | {"flatbuffers"}
    if file.startswith("simulator/"):  # a building's physics are arrays: minutes by meters
        allowed = allowed | {"numpy"}
    return names - allowed


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_room_imports_only_what_its_arrows_allow(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py")) + sorted((ROOT / room).rglob("*.pyi"))
    assert files
    wrong = {
        str(f.relative_to(ROOT)): bad
        for f in files
        if (bad := forbidden(room, str(f.relative_to(ROOT / room)), imported(f.read_text())))
    }
    assert not wrong


def test_core_has_no_clock_files_threads_or_network() -> None:
    outside = {"time", "threading", "socket", "sqlite3", "pathlib", "os", "subprocess", "datetime"}
    wrong = {f.name: bad for f in sorted((ROOT / "core").rglob("*.py")) if (bad := imported(f.read_text()) & outside)}
    assert not wrong


def test_the_check_itself_sees_a_forbidden_import() -> None:
    assert forbidden("core", "detect.py", imported("def f():\n    from agent import store\n")) == {"agent"}
    assert forbidden("firmware_io", "bus.py", imported("import core.detect, socket")) == {"core"}
    assert forbidden("core", "features.py", {"tflite_runtime"}) == {"tflite_runtime"}
