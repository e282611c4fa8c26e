"""A tree of tables as TOML text: tomllib only reads."""

from __future__ import annotations

import json
from typing import Any


def toml_lines(tree: dict[str, Any]) -> list[str]:
    """A tree of tables and arrays of tables as TOML; keys without a value are left out."""
    lines: list[str] = []
    for name, value in tree.items():
        if isinstance(value, list):
            for row in value:
                lines += ["", f"[[{name}]]", *_keys(row)]
        elif isinstance(value, dict):
            lines += ["", f"[{name}]", *_keys(value)]
    return lines[1:]


def _keys(row: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in row.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers and booleans are written alike in both
