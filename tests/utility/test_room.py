"""The utility's side shares the wire with the gateways, and nothing else of the agent."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "agent" / "utility"

# The verbs are the agent's command line; a signature must be made as gateways check it.
ALLOWED = {
    "verb_*.py": {"agent.wire", "agent.clock", "agent.exits", "agent.logging_setup", "agent.signing"},
    "fleet.py": {"agent.wire", "agent.clock"},
    "rollout.py": {"agent.wire", "agent.signing"},
    "*.py": {"agent.wire"},
}


def imported(path: Path) -> set[str]:
    """The modules of `agent` outside the room that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names |= {f"agent.{alias.name}" for alias in node.names} if base == "agent" else {base}
    return {name for name in names if name.startswith("agent") and not name.startswith("agent.utility")}


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_what_it_shares_with_the_agent(path: Path) -> None:
    allowed = next(names for pattern, names in ALLOWED.items() if path.match(pattern))
    assert imported(path) <= allowed


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_nothing_of_the_agent_but_its_verbs_imports_it(path: Path) -> None:
    module = f"agent.utility.{path.stem}"
    outside = [f for f in ROOM.parent.rglob("*.py") if ROOM not in f.parents and module in f.read_text()]
    assert {f.parent.name for f in outside} <= {"verbs"}
