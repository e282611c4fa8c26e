"""Changes of a site file that keep its comments and its order: what commissioning has found, as an edit.

It owns how an edit looks; whether the edited file is right is `load`'s business, whether it is written the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit
from tomlkit.items import Array, Table

from agent.site.load import files_of


@dataclass(frozen=True, slots=True)
class Change:
    """One key of a [[meter]] or [[zone]]: set to `value`, or `value` added to or taken out of its list."""

    table: Literal["meter", "zone"]
    id: str
    key: str
    value: Any
    how: Literal["set", "add", "remove"] = "set"


def edited(site_file: Path, changes: Sequence[Change]) -> dict[Path, tuple[str, str]]:
    """File -> its text before and after, for each file of the site that a change touches, with the file's line ends.

    The texts are to be written with `newline=""`.

    Raises:
        KeyError: no file has the table of a change.
        OSError: a file cannot be read.
    """
    files = files_of(site_file)
    texts = {path: _text(path) for path in files}
    trees = {path: tomlkit.parse(text) for path, text in texts.items()}
    for change in changes:
        _apply(_table(trees.values(), change), change)
    after = {path: _with_ends_of(texts[path], tomlkit.dumps(tree)) for path, tree in trees.items()}
    return {path: (texts[path], after[path]) for path in files if after[path] != texts[path]}


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _with_ends_of(before: str, after: str) -> str:
    """Lines that are new end as the others do."""
    if before.count("\r\n") < before.count("\n") or "\n" not in before:
        return after
    return after.replace("\r\n", "\n").replace("\n", "\r\n")


def remarked(value: str, remark: str) -> object:
    """A value that `text_of` writes with a comment behind it."""
    return tomlkit.string(value).comment(remark)


def text_of(tree: dict[str, Any]) -> str:
    """A tree of tables as TOML; keys without a value are left out."""
    return tomlkit.dumps(_without_none(tree))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value


def _table(trees: Any, change: Change) -> Table:
    for tree in trees:
        for table in tree.get(change.table, []):
            if table.get("id") == change.id:
                found: Table = table
                return found
    raise KeyError(f"[[{change.table}]] {change.id}")


def _apply(table: Table, change: Change) -> None:
    if change.how == "set":
        table[change.key] = change.value
        return
    held = table.get(change.key)
    if held is None and change.how == "remove":
        return
    if not isinstance(held, Array):
        table[change.key] = tomlkit.array()
        held = table[change.key]
    assert isinstance(held, Array)
    if change.how == "add" and change.value not in held:
        held.append(change.value)
    elif change.how == "remove" and change.value in held:
        held.remove(change.value)
