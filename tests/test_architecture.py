"""The arrows of docs/architecture.md: between the three roots, and between the folders within them."""

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
    if room == "core" and file == "scoring/model.py":
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
    assert forbidden("core", "detection/glr.py", imported("def f():\n    from agent import store\n")) == {"agent"}
    assert forbidden("firmware_io", "bus.py", imported("import core.detection.glr, socket")) == {"core"}
    assert forbidden("core", "scoring/features.py", {"tflite_runtime"}) == {"tflite_runtime"}


# Folder -> folders that its modules may import. A new arrow is a decision: look whether the piece stands in the right
# room before you add it here. Two folders never import each other, directly or around a corner.
ARROWS: dict[str, set[str]] = {
    "firmware_io.simulator.building": {"firmware_io"},
    "agent.alerts": {"agent.site", "agent.wire", "core", "firmware_io"},
    "agent.cli": {
        "agent.process",
        "agent.site",
        "agent.store",
        "agent.utility.mqtt",
        "agent.utility.sql",
        "firmware_io",
    },
    "agent.cli.gateway": {
        "agent.downlink",
        "agent.cli",
        "agent.charts",
        "agent.cli.site",
        "agent.deploy",
        "agent.forecast",
        "agent.keys",
        "agent.offline",
        "agent.process",
        "agent.service",
        "agent.site",
        "agent.status",
        "agent.store",
        "agent.wire",
        "firmware_io",
    },
    "agent.cli.lab": {
        "agent.cli",
        "agent.keys",
        "agent.models",
        "agent.offline.case",
        "agent.offline.demo",
        "agent.offline.replay",
        "agent.offline.training",
        "agent.polling",
        "agent.process",
        "agent.site",
        "agent.utility.fleet",
        "agent.utility.load_test",
        "agent.utility.sql",
        "agent.utility.web",
        "agent.utility.web.signin",
        "agent.wire",
        "core.scoring",
        "firmware_io.simulator",
        "firmware_io.simulator.building",
        "firmware_io.simulator.meter",
    },
    "agent.cli.meter": {
        "agent.cli",
        "agent.keys",
        "agent.offline",
        "agent.polling",
        "agent.process",
        "agent.site",
        "agent.store",
        "agent.wire",
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.dlms",
        "firmware_io.dlms.apdu",
        "firmware_io.dlms.cosem",
        "firmware_io.dlms.meter",
        "firmware_io.dlms.session",
        "firmware_io.dlt645",
        "firmware_io.dlt698",
        "firmware_io.mbus",
        "firmware_io.modbus",
    },
    "agent.cli.site": {
        "agent.cli",
        "agent.keys",
        "agent.cli.lab",
        "agent.polling",
        "agent.process",
        "agent.site",
        "agent.status",
        "agent.uplink",
        "agent.wire",
        "core.scoring",
        "firmware_io",
        "firmware_io.dlms.meter",
        "agent.cli.meter",
    },
    "agent.deploy": {"agent.cli", "agent.wire"},
    "agent.downlink": {
        "agent.alerts",
        "agent.keys",
        "agent.models",
        "agent.pipeline",
        "agent.site",
        "agent.store",
        "agent.uplink",
        "agent.wire",
        "core",
        "core.scoring",
        "firmware_io",
    },
    "agent.forecast": {"agent.alerts", "agent.site", "agent.wire", "core", "core.forecast", "core.registers"},
    "agent.keys": {"agent.site", "agent.wire"},
    "agent.models": {"core.scoring"},
    "agent.charts": {"agent.wire"},
    "agent.offline": {
        "agent.charts",
        "agent.polling",
        "agent.site",
        "agent.store",
        "agent.wire",
        "core",
        "firmware_io",
    },
    "agent.offline.case": {"agent.charts", "agent.keys", "agent.offline", "agent.site", "agent.store", "agent.wire"},
    "agent.offline.demo": {"agent.process", "agent.site", "agent.status", "agent.wire"},
    "agent.offline.evaluation": {
        "agent.models",
        "agent.offline",
        "agent.offline.replay",
        "agent.pipeline",
        "agent.site",
        "core",
        "core.forecast",
        "core.monitor",
        "core.registers",
        "core.scoring",
        "firmware_io.simulator.building",
    },
    "agent.offline.replay": {
        "agent.alerts",
        "agent.charts",
        "agent.forecast",
        "agent.models",
        "agent.offline",
        "agent.pipeline",
        "agent.site",
        "agent.store",
        "agent.wire",
        "core",
        "core.forecast",
        "core.registers",
        "core.scoring",
    },
    "agent.offline.training": {
        "agent.alerts",
        "agent.offline",
        "agent.offline.evaluation",
        "agent.offline.replay",
        "agent.offline.world",
        "agent.pipeline",
        "agent.site",
        "agent.wire",
        "core",
        "core.registers",
        "core.scoring",
    },
    "agent.offline.world": {"core"},
    "agent.pipeline": {
        "agent.forecast",
        "agent.alerts",
        "agent.process",
        "agent.site",
        "agent.store",
        "agent.wire",
        "core",
        "core.balance",
        "core.fast",
        "core.monitor",
        "core.registers",
        "core.scoring",
        "firmware_io",
    },
    "agent.polling": {
        "agent.alerts",
        "agent.keys",
        "agent.pipeline",
        "agent.process",
        "agent.site",
        "agent.status",
        "agent.wire",
        "core",
        "core.registers",
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.dlms",
        "firmware_io.dlms.meter",
        "firmware_io.dlms.session",
        "firmware_io.dlt645",
        "firmware_io.dlt698",
        "firmware_io.mbus",
        "firmware_io.modbus",
    },
    "agent.process": {"firmware_io"},
    "agent.service": {
        "agent.forecast",
        "agent.alerts",
        "agent.downlink",
        "agent.models",
        "agent.pipeline",
        "agent.polling",
        "agent.process",
        "agent.site",
        "agent.status",
        "agent.store",
        "agent.uplink",
        "agent.wire",
        "core.scoring",
        "firmware_io",
    },
    "agent.status": {"agent.site", "agent.wire"},
    "agent.store": {"agent.wire", "core.registers"},
    "agent.uplink": {"agent.keys", "agent.process", "agent.site", "agent.store", "agent.wire", "firmware_io"},
    "agent.utility.fleet": {"agent.keys", "agent.utility.mqtt", "agent.utility.sql", "agent.wire", "core.scoring"},
    "agent.utility.ingest": {"agent.utility.mqtt", "agent.utility.sql", "agent.wire", "firmware_io"},
    "agent.utility.load_test": {"agent.process", "agent.utility.mqtt", "agent.wire", "core.scoring", "firmware_io"},
    "agent.utility.mqtt": {"firmware_io"},
    "agent.utility.sql": {"agent.wire"},
    "agent.utility.dashboards": set(),
    "agent.utility.verbs": {
        "agent.keys",
        "agent.process",
        "agent.utility.dashboards",
        "agent.utility.fleet",
        "agent.utility.ingest",
        "agent.utility.mqtt",
        "agent.utility.sql",
        "agent.wire",
        "core.scoring",
    },
    "agent.utility.web.signin": set(),
    "agent.utility.web": {
        "agent.utility.web.signin",
        "agent.charts",
        "agent.process",
        "agent.utility.fleet",
        "agent.utility.sql",
        "agent.wire",
        "firmware_io",
    },
    "core.attribution": {"core"},
    "core.balance": {"core"},
    "core.forecast": set(),
    "core.detection": {"core", "core.balance"},
    "core.fast": {"core", "core.balance"},
    "core.monitor": {
        "core",
        "core.attribution",
        "core.balance",
        "core.detection",
        "core.fast",
        "core.registers",
        "core.scoring",
    },
    "core.registers": {"core"},
    "core.scoring": {"core", "core.attribution", "core.balance"},
    "firmware_io": set(),
    "firmware_io.asking": {"firmware_io"},
    "firmware_io.dlms": {"firmware_io"},
    "firmware_io.dlms.apdu": {"firmware_io", "firmware_io.dlms"},
    "firmware_io.dlms.cosem": {"firmware_io", "firmware_io.dlms.apdu"},
    "firmware_io.dlms.hdlc": {"firmware_io", "firmware_io.dlms"},
    "firmware_io.dlms.meter": {
        "firmware_io",
        "firmware_io.dlms",
        "firmware_io.dlms.apdu",
        "firmware_io.dlms.cosem",
        "firmware_io.dlms.hdlc",
        "firmware_io.dlms.protection",
        "firmware_io.dlms.session",
    },
    "firmware_io.dlms.protection": {"firmware_io", "firmware_io.dlms", "firmware_io.dlms.apdu"},
    "firmware_io.dlt645": {"firmware_io", "firmware_io.asking"},
    "firmware_io.dlt698": {"firmware_io", "firmware_io.asking"},
    "firmware_io.mbus": {"firmware_io", "firmware_io.asking"},
    "firmware_io.modbus": {"firmware_io", "firmware_io.asking"},
    "firmware_io.dlms.session": {
        "firmware_io",
        "firmware_io.dlms",
        "firmware_io.dlms.apdu",
        "firmware_io.dlms.cosem",
        "firmware_io.dlms.hdlc",
        "firmware_io.dlms.protection",
    },
    "firmware_io.simulator": {
        "firmware_io",
        "firmware_io.dlms",
        "firmware_io.dlms.protection",
        "firmware_io.dlt645",
        "firmware_io.dlt698",
        "firmware_io.mbus",
        "firmware_io.modbus",
        "firmware_io.simulator.building",
        "firmware_io.simulator.dlt645",
        "firmware_io.simulator.dlt698",
        "firmware_io.simulator.line",
        "firmware_io.simulator.mbus",
        "firmware_io.simulator.meter",
        "firmware_io.simulator.modbus",
    },
    "firmware_io.simulator.dlt645": {
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.dlt645",
        "firmware_io.simulator.line",
        "firmware_io.simulator.meter",
    },
    "firmware_io.simulator.dlt698": {
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.dlt698",
        "firmware_io.simulator.line",
        "firmware_io.simulator.meter",
    },
    "firmware_io.simulator.mbus": {
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.mbus",
        "firmware_io.simulator.line",
        "firmware_io.simulator.meter",
    },
    "firmware_io.simulator.modbus": {
        "firmware_io.asking",
        "firmware_io",
        "firmware_io.modbus",
        "firmware_io.simulator.line",
        "firmware_io.simulator.meter",
    },
    "firmware_io.simulator.line": {
        "firmware_io",
        "firmware_io.dlms.apdu",
        "firmware_io.dlms.hdlc",
        "firmware_io.dlms.protection",
        "firmware_io.dlms.session",
        "firmware_io.simulator.building",
        "firmware_io.simulator.meter",
    },
    "firmware_io.simulator.meter": {
        "firmware_io",
        "firmware_io.dlms.apdu",
        "firmware_io.dlms.cosem",
        "firmware_io.dlms.protection",
        "firmware_io.simulator.building",
    },
}

MODULES_MAX = 13  # of one folder; more is no room where a newcomer finds anything
LINES_MAX = 420
UTILITY_MAY = {"agent.wire", "agent.process", "agent.keys", "agent.charts"}  # a backend is another program


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or any(path.with_suffix(suffix).exists() for suffix in (".py", ".pyx"))


def folder_of(module: str) -> str:
    return module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]


def arrows_of(here: str, source: str) -> set[str]:
    """The folders that a module in folder `here` imports, wherever in it the import stands."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if is_module(name) else node.module for name in names}
    return {folder_of(m) for m in modules if m.split(".")[0] in ROOMS} - {here}


def drawn() -> dict[str, set[str]]:
    """The arrows as the code has them. Stubs are left out: they import types that nobody loads."""
    arrows: dict[str, set[str]] = {}
    for root in sorted(ROOMS):
        for file in sorted((ROOT / root).rglob("*.py")):
            here = ".".join(file.parent.relative_to(ROOT).parts)
            arrows.setdefault(here, set()).update(arrows_of(here, file.read_text()))
    return arrows


def test_no_folder_has_an_arrow_that_is_not_in_the_table() -> None:
    new = {here: more for here, there in drawn().items() if (more := there - ARROWS.get(here, set()))}
    assert not new


def test_folders_import_each_other_in_one_direction_only() -> None:
    behind: dict[str, set[str]] = {}

    def reached(folder: str, way: tuple[str, ...]) -> set[str]:
        assert folder not in way, f"a circle of imports: {' -> '.join((*way, folder))}"
        if folder not in behind:
            there = ARROWS.get(folder, set())
            behind[folder] = there.union(*(reached(f, (*way, folder)) for f in there))
        return behind[folder]

    for folder in ARROWS:
        reached(folder, ())


def test_the_utility_side_takes_of_the_agent_what_a_backend_needs() -> None:
    utility = {here: there for here, there in drawn().items() if here.startswith("agent.utility")}
    wrong = {
        here: bad
        for here, there in utility.items()
        if (bad := {f for f in there if f.startswith("agent") and not f.startswith("agent.utility")} - UTILITY_MAY)
    }
    assert utility
    assert not wrong


def test_only_the_command_line_opens_the_utility_side() -> None:
    inside = {
        here
        for here, there in drawn().items()
        if not here.startswith("agent.utility") and any(f.startswith("agent.utility") for f in there)
    }
    assert inside <= {"agent.cli", "agent.cli.lab"}


def test_no_folder_and_no_module_outgrows_its_room() -> None:
    folders: dict[str, int] = {}
    for root in sorted(ROOMS):
        for file in [*(ROOT / root).rglob("*.py"), *(ROOT / root).rglob("*.pyx")]:
            if file.name != "__init__.py":
                folders[str(file.parent.relative_to(ROOT))] = folders.get(str(file.parent.relative_to(ROOT)), 0) + 1
            assert len(file.read_text().splitlines()) <= LINES_MAX or file.suffix == ".pyx", file
    assert {folder: count for folder, count in folders.items() if count > MODULES_MAX} == {}


def test_the_table_itself_sees_an_import_inside_a_function() -> None:
    assert arrows_of("core.balance", "def f():\n    from core.detection.glr import search\n") == {"core.detection"}
    assert arrows_of("agent.site", "from agent import wire\n") == {"agent.wire"}
