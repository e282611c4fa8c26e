"""Changes of a site file keep what people wrote into it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from agent.site.edit import Change, edited, text_of

SITE = """\
# The cellar of riverside-12
[[meter]]
id = "main"          # behind the transformers
ct_ratio = 40

[[meter]]
id = "flat-1"
ct_ratio = 20  # left over from the old main meter

[[zone]]
id = "building"
main = "main"
subs = [
  "flat-1",  # first floor
  "flat-2",
]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


def test_a_change_touches_its_line_and_no_other(site: Path) -> None:
    ((path, (before, after)),) = edited(site, [Change("meter", "flat-1", "ct_ratio", 1.0)]).items()
    assert (path, before) == (site, SITE)
    differing = [(a, b) for a, b in zip(SITE.splitlines(), after.splitlines(), strict=True) if a != b]
    ((old, new),) = differing
    assert old == "ct_ratio = 20  # left over from the old main meter"
    assert new == "ct_ratio = 1.0  # left over from the old main meter"


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_lines_end_as_they_did(site: Path, end: str) -> None:
    site.write_text(SITE, newline=end)
    changes = [Change("meter", "flat-1", "phase", 1), Change("zone", "building", "minus", "flat-2", "add")]
    ((_, (before, after)),) = edited(site, changes).items()
    assert before == SITE.replace("\n", end)
    assert len(after.splitlines()) > len(before.splitlines())
    assert after.count(end) == after.count("\n") == len(after.splitlines())
    assert after.count("\r") == (after.count("\n") if end == "\r\n" else 0)
    assert edited(site, []) == {}


def test_lists_are_added_to_and_taken_from(site: Path) -> None:
    changes = [
        Change("zone", "building", "minus", "flat-2", "add"),
        Change("zone", "building", "subs", "flat-1", "remove"),
        Change("zone", "building", "export", "flat-1", "remove"),  # is not there: nothing to do
    ]
    ((_, (_, after)),) = edited(site, changes).items()
    (zone,) = tomllib.loads(after)["zone"]
    assert zone == {"id": "building", "main": "main", "subs": ["flat-2"], "minus": ["flat-2"]}


def test_the_file_in_conf_d_that_has_the_table_is_the_one_that_changes(site: Path) -> None:
    more = site.parent / "conf.d" / "attic.toml"
    more.parent.mkdir()
    more.write_text('[[meter]]\nid = "attic"\nct_ratio = 5\n')
    assert list(edited(site, [Change("meter", "attic", "ct_ratio", 1.0)])) == [more]
    assert edited(site, []) == {}
    with pytest.raises(KeyError, match="nobody"):
        edited(site, [Change("meter", "nobody", "ct_ratio", 1.0)])


def test_what_toml_finds_hard_is_written_as_toml() -> None:
    tree = {
        "a b": {"x": float("inf"), "text": 'del \x7f, quote " and 302室', "none": None},
        "row": [{"k": 1}, {"k": 2}],
    }
    read = tomllib.loads(text_of(tree))
    assert read["a b"] == {"x": float("inf"), "text": 'del \x7f, quote " and 302室'}
    assert read["row"] == [{"k": 1}, {"k": 2}]
