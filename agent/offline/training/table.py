"""Reads a feature table: CSV with a header, numeric features, a target of 0 and 1, identifiers beside them.

It owns the checks and their messages (line, column, what to do); it knows no model. Nothing is filled in or
dropped in silence: a table that cannot be trusted is refused with the first lines that have to be mended.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agent.offline.training.feature_table import TARGET

F64 = NDArray[np.float64]

IDENTIFIERS = frozenset({"site", "building", "zone", "meter", "customer", "id", "day", "date", "time"})
MIN_OF_EACH_CLASS = 5  # fewer cannot be split into a training and a held part, and cross-validated
SHOWN = 5  # so many faults of a kind are listed


class TableError(Exception):
    """The table cannot be used; the message says which lines and what to do."""


class SplitError(TableError):
    """The table is right, but cannot be split into a part to train on and one to judge on."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """`features` [n, len(names)], `target` [n] of 0 and 1, `group` [n] of labels or None, `sha256` of the file."""

    names: tuple[str, ...]
    features: F64
    target: NDArray[np.intp]
    group: NDArray[np.str_] | None
    group_name: str | None
    identifiers: tuple[str, ...]
    sha256: str

    @property
    def leaks(self) -> str | None:
        """Why the held part flatters: rows of one meter stand on both sides of the split; None if they do not."""
        together = self.group_name in ("building", "site", "meter", "customer", "zone")
        if together or not {"meter", "building", "customer"} & set(self.identifiers):
            return None
        how = "no column keeps them together" if self.group_name is None else f"--group {self.group_name}"
        return f"rows of the same meter are trained on and judged on ({how}): AUC and the rest flatter the model"


def read_table(path: Path, group: str | None = None) -> FeatureTable:
    """Read and check `path`. `group` names the column whose rows must stay together; `building` where there is one.

    Raises TableError for what is wrong in the file, OSError where it cannot be read.
    """
    octets = path.read_bytes()
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: octet {error.start} is not UTF-8: save the file as UTF-8") from None
    header, lines, cells = _cells(path, text)
    group_name = group or ("building" if "building" in header else None)
    if group_name:
        _require(path, header, group_name, "the group whose rows stay together (--group)")
    identifiers = tuple(n for n in header if n in IDENTIFIERS or n == group_name)
    names = tuple(n for n in header if n not in identifiers and n != TARGET)
    if not names:
        raise TableError(f"{path}: no feature columns beside {TARGET} and {', '.join(identifiers)}")
    numbers = _numbers(path, lines, cells[[*names, TARGET]])
    target = numbers[:, -1]
    if (bad := np.flatnonzero((target != 0) & (target != 1))).size:
        raise TableError(f"{path}:{lines[bad[0]]}: {TARGET} is {target[bad[0]]:g}: use 1 for theft and 0 for none")
    _check_size(path, target, len(names))
    return FeatureTable(
        names,
        numbers[:, :-1],
        target.astype(np.intp),
        cells[group_name].to_numpy(dtype=str) if group_name else None,
        group_name,
        identifiers,
        hashlib.sha256(octets).hexdigest(),
    )


def _cells(path: Path, text: str) -> tuple[list[str], list[int], pd.DataFrame]:
    """(column names, line number of each row, cells as text)."""
    reader = csv.reader(StringIO(text), strict=True)
    rows, lines = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        _require(path, header, TARGET, "the label, 1 for theft and 0 for none")
        for row in reader:
            if len(row) != len(header) and row:
                raise TableError(f"{path}:{reader.line_num}: {len(row)} cells, the header has {len(header)}")
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise TableError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    if not rows:
        raise TableError(f"{path}: no rows below the header")
    return header, lines, pd.DataFrame(rows, columns=header, dtype=str)


def _check_header(path: Path, names: list[str]) -> None:
    if not names:
        raise TableError(f"{path}:1: no header: the first line names the columns, one of them {TARGET}")
    if "" in names:
        raise TableError(f"{path}:1: column {names.index('') + 1} has no name: name it, or take it out of the file")
    if twice := [name for name in names if names.count(name) > 1]:
        raise TableError(f"{path}:1: column {twice[0]!r} stands there twice: rename or remove one")


def _require(path: Path, header: list[str], name: str, what: str) -> None:
    if name not in header:
        hint = "; is the file separated by semicolons? use commas" if len(header) == 1 and ";" in header[0] else ""
        raise TableError(f"{path}:1: no column {name!r} ({what}); the columns are {', '.join(header)}{hint}")


def _numbers(path: Path, lines: list[int], cells: pd.DataFrame) -> F64:
    """All cells as finite numbers, or an error that lists the first ones that are none."""
    columns = [pd.to_numeric(cells[name], errors="coerce").to_numpy(dtype=float) for name in cells.columns]
    numbers = np.column_stack(columns)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        shown = "\n".join(
            f"{path}:{lines[row]}: {cells.columns[column]} is {_cell(cells.iat[row, column])}"
            for row, column in wrong[:SHOWN]
        )
        more = f"\nand {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise TableError(f"{shown}{more}\nevery feature must be a finite number: mend these cells or remove the rows")
    return numbers


def _cell(text: object) -> str:
    return repr(text) if str(text).strip() else "empty"


def _check_size(path: Path, target: F64, features: int) -> None:
    thefts, rows = int(target.sum()), len(target)
    if thefts in (0, rows):
        raise TableError(f"{path}: all {rows} rows have {TARGET} = {target[0]:g}: a model needs both kinds")
    if rows < features:
        raise TableError(f"{path}: {rows} rows for {features} features: give more rows or fewer features")
    if min(thefts, rows - thefts) < MIN_OF_EACH_CLASS:
        raise TableError(
            f"{path}: {thefts} rows of theft, {rows - thefts} without: at least {MIN_OF_EACH_CLASS} of each are needed"
        )
