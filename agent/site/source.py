"""Parsed TOML with the line of every key."""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.site.errors import ConfigError, printable
from agent.site.text_limits import MAX_BYTES, broken_limit

ERRORS_MAX = 100  # told at once; a file with more has one mistake many times

Key = tuple[str | int, ...]  # ("meter", 3, "address"): where a value stands in the file's tree


@dataclass(slots=True)
class Source:
    """A parsed tree, where each of its values stands, and the errors found in it so far."""

    tree: dict[str, Any]
    places: dict[Key, tuple[str, int]] = field(default_factory=dict)
    errors: list[tuple[tuple[str, int], str]] = field(default_factory=list)
    doubts: list[tuple[tuple[str, int], str]] = field(default_factory=list)
    untold: int = 0  # errors beyond ERRORS_MAX

    def place(self, key: Key) -> tuple[str, int]:
        """File and line of `key`, or of the nearest table above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.places.get((), ("", 1))

    def error(self, key: Key, message: str) -> None:
        """Note that what stands at `key` is wrong; `message` says what was expected and what to do."""
        if self.full:
            self.untold += 1
        else:
            self.errors.append((self.place(key), f"{self.title(key)}: {message}"))

    @property
    def full(self) -> bool:
        """Whether no more errors are noted, so that nobody need find words for them."""
        return len(self.errors) >= ERRORS_MAX

    def doubt(self, key: Key, message: str) -> None:
        """Note that what stands at `key` is allowed and most likely not meant; `message` says why and what to do."""
        if len(self.doubts) < ERRORS_MAX:
            self.doubts.append((self.place(key), f"{self.title(key)}: {message}"))

    def warnings(self) -> list[str]:
        """The doubts, in the order of the lines."""
        return [printable(f"{file}:{line}: {message}") for (file, line), message in sorted(self.doubts)]

    def title(self, key: Key) -> str:
        """How a person names the table of `key`: `[[meter]] flat-302`, `[mqtt]`."""
        if not key:
            return "site file"
        if len(key) > 1 and isinstance(key[1], int):
            row = self.tree.get(str(key[0]), [])
            row = row[key[1]] if isinstance(row, list) and key[1] < len(row) else None
            name = row.get("id") if isinstance(row, dict) else None
            return f"[[{key[0]}]] {name if isinstance(name, str) else f'number {key[1] + 1}'}"
        return f"[{key[0]}]"

    def given(self, key: Key) -> bool:
        """Whether the file sets `key`, rightly or wrongly."""
        node: Any = self.tree
        for part in key:
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True

    def check(self) -> None:
        """Raise all errors noted so far, in the order of the lines.

        Raises:
            ConfigError: there is at least one.
        """
        if self.errors:
            lines = dict.fromkeys(f"{file}:{line}: {message}" for (file, line), message in sorted(self.errors))
            more = [f"and {self.untold} more errors"] if self.untold else []
            raise ConfigError([*lines, *more])


def read(files: Iterable[Path]) -> Source:
    """Parse and merge the files: arrays of tables are joined, a key may be set only once.

    Raises:
        ConfigError: a file cannot be read, is not TOML, or sets again what an earlier one has set.
    """
    source = Source({})
    broken: list[str] = []
    for path in files:
        try:
            text = octets_of(path).decode("utf-8")
            if text.startswith("\ufeff"):
                broken.append(f"{path}:1: begins with a byte order mark; save the file as UTF-8 without one (no BOM)")
                continue
            limit = broken_limit(text)
            if limit is not None:
                broken.append(f"{path}:{limit[0]}: {limit[1]}; write it in a simpler form")
                continue
            tree = tomllib.loads(text)
        except OSError as e:
            broken.append(f"{path}: cannot be read: {e.strerror}; give the path of a readable site file")
        except UnicodeDecodeError as e:
            broken.append(f"{path}: not UTF-8 text (octet {e.start}); save the file as UTF-8")
        except tomllib.TOMLDecodeError as e:
            reason, _, where = str(e).partition(" (at line ")
            line = where.split(",")[0] if where[:1].isdigit() else str(text.count("\n") + 1)
            broken.append(f"{path}:{line}: not valid TOML: {reason[:1].lower()}{reason[1:]}; mend the syntax here")
        except (ValueError, RecursionError, MemoryError) as e:  # whatever got through the limits: never a traceback
            broken.append(f"{path}: cannot be parsed: {type(e).__name__}; write it in a simpler form")
        else:
            _merge(source, str(path), tree, dict(_lines(text)))
    if broken:
        raise ConfigError(broken)
    return source


def octets_of(path: Path) -> bytes:
    """What a file holds; of one that is too long as much as shows it.

    Raises:
        OSError: it cannot be read, or is a device or a pipe, which may never end, or never begin.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        reason = "Is a directory" if stat.S_ISDIR(about.st_mode) else "Not a regular file"
        raise OSError(errno.EINVAL, reason, str(path))
    with open(handle, "rb") as file:
        return file.read(MAX_BYTES + 1) if about.st_size <= MAX_BYTES else b" " * (MAX_BYTES + 1)


def _merge(source: Source, file: str, tree: dict[str, Any], lines: dict[Key, int]) -> None:
    """Put one file's tree into the source's."""
    source.places.setdefault((), (file, 1))
    shift = {name: len(rows) for name, rows in source.tree.items() if isinstance(rows, list)}
    for key, line in lines.items():
        if len(key) > 1 and isinstance(key[1], int):
            key = (key[0], key[1] + shift.get(str(key[0]), 0), *key[2:])
        if key in source.places and len(key) > 1:
            earlier, at = source.places[key]
            source.errors.append(((file, line), f"{key[-1]} is already set at {earlier}:{at}; keep one of the two"))
        source.places.setdefault(key, (file, line))
    for name, value in tree.items():
        present = source.tree.setdefault(name, type(value)())
        if isinstance(present, dict) and isinstance(value, dict):
            present.update({k: v for k, v in value.items() if k not in present})
        elif isinstance(present, list) and isinstance(value, list):
            present.extend(value)
        else:
            source.tree[name] = value


def _lines(text: str) -> Iterator[tuple[Key, int]]:
    """Where each table and key of a *valid* TOML text begins. Keys of inline tables count as their table's line."""
    table: Key = ()
    rows: dict[Key, int] = {}
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not depth and not quote:
            stripped = line.strip()
            if stripped.startswith("[["):
                name = tuple(_key_parts(stripped[2:]))
                table = (*_within(name[:-1], rows), name[-1])
                rows[table] = rows.get(table, -1) + 1
                table = (*table, rows[table])
                yield table, number
            elif stripped.startswith("["):
                table = _within(tuple(_key_parts(stripped[1:])), rows)
                yield table, number
            elif stripped and stripped[0] != "#":
                yield (*table, *_key_parts(stripped)), number
        depth, quote = _open_ends(line, depth, quote)


def _within(name: tuple[str, ...], rows: Mapping[Key, int]) -> Key:
    """The key of a table by name, with the current row of each array of tables it lies in."""
    key: Key = ()
    for part in name:
        key = (*key, part)
        if key in rows:
            key = (*key, rows[key])
    return key


def _key_parts(text: str) -> list[str]:
    """Read a dotted, possibly quoted key up to `=` or `]`."""
    parts, part, quote = [], "", ""
    for char in text:
        if quote:
            if char == quote:
                quote = ""
            else:
                part += char
        elif char in "\"'":
            quote = char
        elif char in "=]":
            break
        elif char == ".":
            parts.append(part)
            part = ""
        elif not char.isspace():
            part += char
    return [*parts, part]


def _open_ends(line: str, depth: int, quote: str) -> tuple[int, str]:
    """Bracket depth and open multi-line quote after `line`, given those before it."""
    if not depth and not quote and line.lstrip().startswith("["):
        return 0, ""  # a table header
    at = 0
    while at < len(line):
        if quote:
            if quote[0] == '"' and line[at] == "\\":
                at += 2
            elif line.startswith(quote, at):
                at += len(quote)
                quote = ""
            else:
                at += 1
            continue
        char = line[at]
        if char == "#":
            break
        if char in "\"'":
            quote = char * 3 if line.startswith(char * 3, at) else char
            at += len(quote)
            continue
        depth += (char in "[{") - (char in "]}")
        at += 1
    return depth, quote if len(quote) == 3 else ""
