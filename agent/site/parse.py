"""TOML tables to frozen structs: every error at once, each with file, line, table and what was expected.

It owns the finding of lines (tomllib tells none) and the turning of one table into one struct or dataclass. It
knows no table by name: `agent.site.tables` says what a site file may hold.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import msgspec.inspect as mi

from agent.site.source import Key, Source

T = TypeVar("T")
SUGGESTIONS_MAX = 1000  # names that are compared with a misspelt one


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the list of what is known if nothing is near."""
    names = sorted(name for name in known if name)
    if len(names) > SUGGESTIONS_MAX or len(word) > 64:
        return ""
    close = difflib.get_close_matches(word.lower(), names, n=max(1, len(names)), cutoff=0.6)
    if close:
        # Of ids that differ in one digit, the one that begins alike: flat-199 is rather flat-109 than flat-399.
        best = max(close, key=lambda name: _alike(word.lower(), name))
        return f'; did you mean "{best}"?'
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 40 else ""


def _alike(word: str, name: str) -> float:
    same = next((k for k, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), min(len(word), len(name)))
    return difflib.SequenceMatcher(None, name, word).ratio() + 0.5 * same / max(len(word), 1)


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
        if source.full:
            source.untold += name not in known
            continue
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
