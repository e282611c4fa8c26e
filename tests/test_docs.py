"""What the README and the pages under docs/ show can be used as it stands."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

import pytest

from agent.site.load import load_and_doubt
from agent.site.tables import Config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"^\[{1,2}[a-z_.]+\]{1,2}(\s*#.*)?$")


def blocks(page: Path) -> list[str]:
    """The fenced and the indented blocks of a page."""
    text = page.read_text()
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```[a-z]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^(?: {4}.*)?\n)+", rest, re.MULTILINE)
    return [textwrap.dedent(b).strip("\n") for b in [*fenced, *indented] if b.strip()]


def site_tables(page: Path) -> list[str]:
    """Those blocks that are TOML of a site file, by their first line."""
    tables = [b for b in blocks(page) if TABLE.match(b.splitlines()[0])]
    return [b for b in tables if not b.startswith("[device]")]  # that begins a Modbus device's own file


FRAGMENTS = [pytest.param(b, id=f"{p.stem}-{n}") for p in PAGES for n, b in enumerate(site_tables(p))]


def test_there_are_blocks_to_look_at() -> None:
    assert len(FRAGMENTS) >= 3
    assert any("[site]" in p.values[0] for p in FRAGMENTS)


@pytest.mark.parametrize("text", FRAGMENTS)
def test_every_block_of_a_site_file_is_one(text: str, tmp_path: Path) -> None:
    tree = tomllib.loads(text)
    assert tree.keys() <= set(Config.__struct_fields__)
    if "site" in tree and "meter" in tree:
        site = tmp_path / "site.toml"
        site.write_text(text)
        _, doubts = load_and_doubt(site)
        assert doubts == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_prose_is_wrapped(page: Path) -> None:
    """A line of a table cannot be broken; every other line can be read beside its change."""
    lines = page.read_text().splitlines()
    assert [n for n, line in enumerate(lines, 1) if len(line) > 145 and not line.lstrip().startswith("|")] == []
