"""TOML tables to frozen structs: every error at once, each with file, line, table and what was expected.

It owns the finding of lines (tomllib tells none) and the turning of one table into one struct or dataclass. It
knows no table by name: `agent.config` says what a site file may hold.
"""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import msgspec.inspect as mi

T = TypeVar("T")
Key = tuple[str | int, ...]  # ("meter", 3, "address"): where a value stands in the file's tree


class ConfigError(Exception):
    """The site file cannot be used; `errors` holds one line for each thing to mend. Exit code 78."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


@dataclass(slots=True)
class Source:
    """A parsed tree, where each of its values stands, and the errors found in it so far."""

    tree: dict[str, Any]
    places: dict[Key, tuple[str, int]] = field(default_factory=dict)
    errors: list[tuple[tuple[str, int], str]] = field(default_factory=list)

    def place(self, key: Key) -> tuple[str, int]:
        """File and line of `key`, or of the nearest table above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.places.get((), ("", 1))

    def error(self, key: Key, message: str) -> None:
        """Note that what stands at `key` is wrong; `message` says what was expected and what to do."""
        self.errors.append((self.place(key), f"{self.title(key)}: {message}"))

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
            raise ConfigError(list(lines))


def read(files: Iterable[Path]) -> Source:
    """Parse and merge the files: arrays of tables are joined, a key may be set only once.

    Raises:
        ConfigError: a file cannot be read, is not TOML, or sets again what an earlier one has set.
    """
    source = Source({})
    broken: list[str] = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
            tree = tomllib.loads(text)
        except OSError as e:
            broken.append(f"{path}: cannot be read: {e.strerror}; give the path of a readable site file")
        except UnicodeDecodeError as e:
            broken.append(f"{path}: not UTF-8 text (octet {e.start}); save the file as UTF-8")
        except tomllib.TOMLDecodeError as e:
            reason, _, where = str(e).partition(" (at line ")
            line = where.split(",")[0] if where[:1].isdigit() else str(text.count("\n") + 1)
            broken.append(f"{path}:{line}: not valid TOML: {reason[:1].lower()}{reason[1:]}; mend the syntax here")
        else:
            _merge(source, str(path), tree, dict(_lines(text)))
    if broken:
        raise ConfigError(broken)
    return source


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


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the list of what is known if nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 40 else ""


def parse_table(source: Source, key: Key, raw: object, kind: type[T]) -> T:
    """Turn the table at `key` into a `kind` (a msgspec struct or a dataclass); errors go to the source.

    Nested tables and arrays of tables are parsed in the same way, so that an error deep inside is still one line.
    What is wrong or missing gets its default, or an empty value where it has none, so that the caller's own rules
    can still run over the rest; `source.check()` is what keeps such a table from being used.
    """
    info = mi.type_info(kind)
    assert isinstance(info, mi.StructType | mi.DataclassType), kind
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.encode_name: f for f in info.fields}
    values: dict[str, Any] = {f.name: _empty(f.type) for f in info.fields if f.required}
    if not isinstance(raw, dict):
        source.error(key, f"expected a table, got {_shown(raw)}")
        return kind(**values)
    for name, value in raw.items():
        here = (*key, name)
        if name not in known:
            source.error(here, f'unknown key "{name}"{nearest(name, known)}')
            continue
        attribute = known[name]
        table = _table_type(attribute.type)
        if table is not None and isinstance(_plain(attribute.type), mi.ListType):
            if isinstance(value, list):
                values[attribute.name] = [parse_table(source, (*here, n), row, table) for n, row in enumerate(value)]
            else:
                source.error(here, f"expected an array of tables: write [[{name}]], not [{name}]")
        elif table is not None:
            values[attribute.name] = parse_table(source, here, value, table)
        else:
            try:
                values[attribute.name] = msgspec.convert(value, hints[attribute.name])
            except msgspec.ValidationError:
                expected = expectation(attribute.type) + _hint(attribute.type, value)
                shown = '"..."' if _extra(attribute.type, "secret") else _shown(value)
                source.error(here, f"{name} = {shown}: expected {expected}")
    for name, attribute in known.items():
        if attribute.required and name not in raw:
            source.error(key, f"{_missing(name, attribute.type)} is missing: expected {_wanted(attribute.type)}")
    return kind(**values)


def _empty(kind: mi.Type) -> Any:
    """An empty value of a type, for what the file does not give."""
    kind = _plain(kind)
    match kind:
        case mi.StructType() | mi.DataclassType():
            return kind.cls(**{f.name: _empty(f.type) for f in kind.fields if f.required})
        case mi.ListType():
            return []
        case mi.DictType():
            return {}
        case mi.IntType() | mi.FloatType():
            return 0
        case _:
            return ""


def _table_type(kind: mi.Type) -> type[Any] | None:
    """The struct that a field holds, once, in a list or as an option; None if it holds a plain value."""
    kind = _plain(kind)
    if isinstance(kind, mi.ListType):
        kind = _plain(kind.item_type)
    return kind.cls if isinstance(kind, mi.StructType | mi.DataclassType) else None


def _plain(kind: mi.Type) -> mi.Type:
    """Without the wrappings: metadata, and `| None`."""
    if isinstance(kind, mi.Metadata):
        return _plain(kind.type)
    if isinstance(kind, mi.UnionType):
        left = [t for t in kind.types if not isinstance(t, mi.NoneType)]
        if len(left) == 1:
            return _plain(left[0])
    return kind


def _extra(kind: mi.Type, name: str) -> Any:
    """What the type's metadata say under `name`, at whatever depth of wrapping."""
    if isinstance(kind, mi.Metadata):
        return kind.extra[name] if kind.extra and name in kind.extra else _extra(kind.type, name)
    if isinstance(kind, mi.UnionType):
        return next((found for t in kind.types if (found := _extra(t, name)) is not None), None)
    return None


def _wanted(kind: mi.Type) -> str:
    """The key's own description where it has one, for a key that is missing."""
    schema = kind.extra_json_schema if isinstance(kind, mi.Metadata) else None
    text = str(schema["description"]) if schema and "description" in schema else expectation(kind)
    return text[:1].lower() + text[1:].rstrip(".")


def _missing(name: str, kind: mi.Type) -> str:
    if _table_type(kind) is None:
        return f'key "{name}"'
    return f"table [[{name}]]" if isinstance(_plain(kind), mi.ListType) else f"table [{name}]"


def expectation(kind: mi.Type) -> str:
    """What a field wants, in words: "a whole number of at least 1", "one of: hdlc, wrapper"."""
    special = _extra(kind, "expected")
    if special is not None:
        return str(special)
    kind = _plain(kind)
    match kind:
        case mi.StructType() | mi.DataclassType():
            return "a table"
        case mi.BoolType():
            return "true or false"
        case mi.StrType():
            return "text in quotes"
        case mi.IntType() | mi.FloatType():
            words = "a whole number" if isinstance(kind, mi.IntType) else "a number"
            limits = [("above", kind.gt), ("of at least", kind.ge), ("below", kind.lt), ("of at most", kind.le)]
            return " ".join(
                [words, " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)]
            ).strip()
        case mi.LiteralType():
            return f"one of: {', '.join(map(str, kind.values))}"
        case mi.ListType():
            return f"a list, each {expectation(kind.item_type)}"
        case mi.DictType():
            return f"a table, each value {expectation(kind.value_type)}"
        case _:
            return "a value of another type"


def _hint(kind: mi.Type, value: object) -> str:
    kind = _plain(kind)
    if isinstance(kind, mi.LiteralType) and isinstance(value, str):
        close = difflib.get_close_matches(value.lower(), [str(v) for v in kind.values], n=1)
        return f'; did you mean "{close[0]}"?' if close else ""
    if isinstance(kind, mi.IntType | mi.FloatType) and isinstance(value, str):
        return "; write it without quotes"
    return ""


def _shown(value: object) -> str:
    """A value as the file would show it, short enough for one line."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
