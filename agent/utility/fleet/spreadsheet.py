"""A cell of a CSV file that a spreadsheet may open: what a gateway sent is text there, never a formula."""

from __future__ import annotations

# What a formula begins with (OWASP, "CSV Injection"); in full width, too: spreadsheets of East Asia take that as well.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")


def cell(value: object) -> object:
    """A value as it stands in CSV: empty where there is none, with an apostrophe before what could be a formula."""
    if value is None:
        return ""
    if isinstance(value, str) and (value.startswith(FORMULA) or value.lstrip().startswith(FORMULA)):
        return "'" + value
    return value
