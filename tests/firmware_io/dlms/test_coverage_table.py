"""The coverage table of docs/dlms.md: each row that says yes or partly names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]


def rows() -> list[list[str]]:
    text = (TESTS.parent / "docs/dlms.md").read_text().partition("## Coverage")[2]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "`" in line]


def test_each_row_names_tests_that_there_are() -> None:
    assert len(rows()) >= 28
    for name, ours, *_, named in rows():
        assert ours != "-", name
        files = re.findall(r"`([^`]+)`", named)
        assert files, name
        folder = Path()
        for file in files:
            path = Path(file)
            if path.parent != Path():  # a name alone stands in the folder of the one before it
                folder = path.parent
            root = TESTS if folder.parts[0] == "agent" else TESTS / "firmware_io"
            assert (root / folder / path.name).is_file(), (name, file)
