"""What a TOML text may be before a parser sees it: its size, its nesting, its keys and numbers.

It owns the limits, and one pass over the text that finds what breaks them. tomllib recurses for every bracket, and its
time and memory grow with the square of a dotted key: 4 kB of a site file can end a process, 40 kB take it a gigabyte.
"""

from __future__ import annotations

import re

MAX_BYTES = 512 * 1024  # a site of 1000 meters takes half of it
MAX_DEPTH = 16  # brackets and braces within each other
MAX_BARE = 256  # characters of a number or an unquoted key
MAX_PARTS = 8  # of a dotted key
MAX_TABLES = 4000

_BARE = re.compile(r"[A-Za-z0-9_+\-.:]+")


def broken_limit(text: str) -> tuple[int, str] | None:
    """Line and reason of the first limit that `text` breaks; None if it breaks none. Linear in the text's length."""
    octets = len(text.encode("utf-8", "surrogatepass"))
    if octets > MAX_BYTES:
        return 1, f"{octets} octets; a site file has at most {MAX_BYTES}"
    at = depth = parts = tables = 0
    new_line = True
    while at < len(text):
        char = text[at]
        if char in "\"'":
            at = _after_string(text, at)
            new_line = False
            continue
        if char == "#":
            at = _line_end(text, at)
            continue
        bare = _BARE.match(text, at)
        if bare is not None:
            parts += bare.group().count(".")
            at, new_line = bare.end(), False
            if len(bare.group()) > MAX_BARE:
                return _at(text, at, f"a number or key of {len(bare.group())} characters; at most {MAX_BARE}")
            if parts >= MAX_PARTS:
                return _at(text, at, f"a key of more than {MAX_PARTS} parts")
            continue
        if char in "[{":
            tables += new_line and not depth
            depth += 1
        elif char in "]}":
            depth = max(0, depth - 1)
        if char not in " \t.":
            parts = 0
        if depth > MAX_DEPTH:
            return _at(text, at, f"brackets nested deeper than {MAX_DEPTH}")
        if tables > MAX_TABLES:
            return _at(text, at, f"more than {MAX_TABLES} tables")
        new_line = char == "\n" or (new_line and char in " \t\r")
        at += 1
    return None


def _after_string(text: str, at: int) -> int:
    """The place behind the string that begins at `at`; the text's end if it does not end."""
    quote = text[at]
    mark = quote * 3 if text.startswith(quote * 3, at) else quote
    at += len(mark)
    limit = len(text) if len(mark) == 3 else _line_end(text, at)
    while True:
        end = text.find(mark, at, limit)
        if end < 0:
            return limit
        escape = text.find("\\", at, end) if quote == '"' else -1
        if escape < 0:
            return end + len(mark)
        at = escape + 2


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _at(text: str, at: int, reason: str) -> tuple[int, str]:
    return text.count("\n", 0, at) + 1, reason
