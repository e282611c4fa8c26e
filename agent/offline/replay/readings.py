"""Recorded registers from a CSV file: rows that can be trusted, and a note with line and column for all that cannot.

It owns the form of READINGS.csv and EVENTS.csv. It knows nothing of balances. Nothing is guessed and nothing becomes a
silent zero: a cell that is no number is "not read", a row out of order is left out, and both are counted and named. A
file of which nothing can be trusted is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from agent.offline.replay.lines import CsvLines
from core.signs import MeterSign, SignKind

Floats = NDArray[np.float64]

NOTES_MAX = 1000  # named one by one; beyond it a broken file is only counted
REGISTER_MAX_KWH = 1e12  # no register has so many digits
SHOWN_MAX = 60  # characters of a cell in a note
EARLIEST_S, LATEST_S = 0.0, 4_102_444_800.0  # 1970 and 2100: no smart meter's register is from before or behind
JUMP_MAX_S = 400 * 86_400.0  # from row to row; beyond it a date is wrong
LEAP_S = 86_400.0  # ahead of its neighbours on both sides: not the rows are in disorder, but this one's date is wrong
USABLE = 0.5  # share of the rows that must be usable, else the file is refused


class ReadingsError(ValueError):
    """The file cannot be used at all; the text says why and what to do."""


@dataclass(slots=True)
class Notes:
    """What was left out and why: a count by reason, and the first ones by line and column."""

    path: str
    counted: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)

    def add(self, reason: str, line: int, column: str | None, detail: str) -> None:
        """Note one thing at `line` (the header is line 1)."""
        self.counted[reason] += 1
        if len(self.named) < NOTES_MAX:
            where = f"line {line}" + (f", column {column}" if column else "")
            self.named.append(f"{self.path}: {where}: {detail}")


@dataclass(frozen=True, slots=True)
class Readings:
    """Registers in Wh, [T, meters] in the order asked for, NaN where not read, at rising `times_s` [T].

    `lines` [T] are their lines in the file. `outdoor_c` [T]: outdoor temperature, NaN where not read; None without.
    """

    times_s: Floats
    wh: Floats
    lines: NDArray[np.intp]
    notes: Notes
    outdoor_c: Floats | None = None


EXPORT = ":export"  # behind a meter's id: the column of its export register


def read(path: Path, meters: Sequence[str], exports: Collection[str] = (), temperature: str | None = None) -> Readings:
    """Read READINGS.csv: header `time,<meter id>,...`, cells cumulative import in kWh, empty where not read.

    Where a meter of `exports` has a column `<meter id>:export` it is taken off; where it has none, its column is taken
    for import minus export already, and that is noted. `temperature` names the column of the outdoor temperature in
    degrees Celsius; where it is missing, that is noted.

    Raises:
        ReadingsError: a column is missing or doubled, or too little of the file is usable.
        OSError: the file cannot be read.
    """
    notes = Notes(str(path))
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return _read(file, meters, exports, temperature, notes)


def _read(
    file: TextIO, meters: Sequence[str], exports: Collection[str], temperature: str | None, notes: Notes
) -> Readings:
    rows = _open(file, notes, "row")
    if rows.delimiter == ";":
        notes.add(
            "semicolons", 1, None, "the cells are separated by semicolons; a comma in a figure is its decimal mark"
        )
    if rows.header is None:
        raise ReadingsError(
            f"{notes.path}: the file has no header that can be read; expected time,<meter id>,..."
            + "".join(f"\n  {note}" for note in notes.named)
        )
    header = [name.strip() for name in rows.header]
    fed_in = [meter for meter in meters if meter in exports and meter + EXPORT in header]
    outside = [temperature] if temperature is not None and temperature in header else []
    if temperature is not None and not outside:
        notes.add("no column of temperature", 1, temperature, "no such column; forecasts go without a temperature")
    place = _columns(header, [*meters, *(meter + EXPORT for meter in fed_in), *outside], notes)
    for meter in meters:
        if meter in exports and meter not in fed_in:
            detail = f"no column {meter}{EXPORT}; {meter} is taken for import minus export"
            notes.add("export without a column", 1, meter, detail)
    times: list[float] = []
    lines: list[int] = []
    cells: list[list[float]] = []
    mark = "" if rows.delimiter == ";" else "."  # of decimals: the file's first one, not known yet
    dated = _Dated(notes, len(header))
    for line, time_s, row, plain in dated.rows(rows):
        if mark != ".":
            mark = mark or next((c for k in place for c in row[k] if c in ",."), "")
            if mark == ",":
                row = [row[0], *(_with_point(cell) for cell in row[1:])]
        try:
            values = [float(row[k]) if row[k] else math.nan for k in place]
        except ValueError:
            plain = False
        # A NaN is what an empty cell gives, and nothing else may: `nan` is a text that Python takes for a number.
        if not plain or not all(
            -REGISTER_MAX_KWH < v < REGISTER_MAX_KWH if v == v else not row[k]
            for k, v in zip(place, values, strict=True)
        ):
            values = [_cell(row[k], line, header[k], notes) for k in place]
        times.append(time_s)
        lines.append(line)
        cells.append(values)
    seen = dated.seen + notes.counted["not CSV"]
    if len(times) < 2 or len(times) < USABLE * seen:
        raise ReadingsError(
            f"{notes.path}: only {len(times)} of {seen} rows can be used, too few to trust the file"
            + "".join(f"\n  {note}" for note in notes.named[:10])
        )
    wh = np.array(cells, np.float64) * 1000.0
    outdoor_c = wh[:, -1] / 1000.0 if outside else None
    for k, meter in enumerate(fed_in, start=len(meters)):
        wh[:, meters.index(meter)] -= wh[:, k]
    wh = np.ascontiguousarray(wh[:, : len(meters)])
    silent = [meter for j, meter in enumerate(meters) if np.isnan(wh[:, j]).all()]
    if silent:
        raise ReadingsError(f"{notes.path}: no reading at all in column {', '.join(silent)}; mend the export")
    return Readings(np.array(times), wh, np.array(lines, np.intp), notes, outdoor_c)


def _open(file: TextIO, notes: Notes, what: str) -> CsvLines:
    return CsvLines(file, lambda line, why: notes.add("not CSV", line, None, f"{why}; the {what} is left out"))


@dataclass(slots=True)
class _Dated:
    """Rows at rising, plausible times; the others are noted. One row is held back to see what comes behind it."""

    notes: Notes
    width: int
    seen: int = 0

    def rows(self, rows: CsvLines) -> Iterator[tuple[int, float, list[str], bool]]:
        """(line, time in s, cells, whether no cell holds what only Python takes for a figure)."""
        held: tuple[int, float, list[str], bool] | None = None
        last_s = -math.inf  # of the last row that was given away
        for line, text, row in rows:
            self.seen += 1
            newest_s = last_s if held is None else held[1]
            time_s = self._time(line, row)
            if time_s is None:
                continue
            if held is not None and last_s < time_s < newest_s - LEAP_S and newest_s - last_s > LEAP_S:
                self._leave_out(held[0], held[2][0], "it lies far ahead of the rows before and behind it")
            elif time_s <= newest_s:
                reason = "time stands still" if time_s == newest_s else "time goes back"
                detail = f"{_short(row[0])} does not come after the row before; the row is left out"
                self.notes.add(reason, line, "time", detail)
                continue
            elif newest_s > -math.inf and time_s - newest_s > JUMP_MAX_S:
                days = (time_s - newest_s) / 86_400
                self._leave_out(line, row[0], f"it lies {days:.0f} days after the row before")
                continue
            elif held is not None:
                yield held
                last_s = held[1]
            held = line, time_s, row, text.isascii() and "_" not in text
        if held is not None:
            yield held

    def _time(self, line: int, row: list[str]) -> float | None:
        if len(row) != self.width:
            detail = f"{len(row)} cells, expected {self.width}; the row is left out"
            self.notes.add("wrong number of cells", line, None, detail)
            return None
        time_s = time_of(row[0])
        if time_s is None:
            detail = f"{_short(row[0])!r} is neither ISO 8601 nor epoch seconds; the row is left out"
            self.notes.add("no time", line, "time", detail)
        elif not EARLIEST_S <= time_s < LATEST_S:
            self._leave_out(line, row[0], "it is not between 1970 and 2100")
            return None
        return time_s

    def _leave_out(self, line: int, text: str, why: str) -> None:
        self.notes.add(
            "time is not plausible", line, "time", f"{_short(text)} is not plausible: {why}; the row is left out"
        )


def _columns(header: Sequence[str], meters: Sequence[str], notes: Notes) -> list[int]:
    """Where each meter's column stands.

    Raises:
        ReadingsError: the first column is not `time`, or a meter has no column, or two.
    """
    errors = []
    if header[0] != "time":
        errors.append(f"line 1, column 1: expected 'time', got {_short(header[0])!r}")
    count = Counter(header)
    missing = [meter for meter in meters if not count[meter]]
    if missing:
        errors.append(f"line 1: no column for meter {', '.join(missing)}; the site file wants it in the balance")
    errors += [f"line 1: {count[m]} columns are named {m}; leave one" for m in meters if count[m] > 1]
    if errors:
        raise ReadingsError("\n".join(f"{notes.path}: {error}" for error in errors))
    for k, name in enumerate(header[1:], start=1):
        if name not in meters:
            detail = "no zone of the site file has this meter; ignored"
            notes.add("column of no meter", 1, _short(name) or str(k + 1), detail)
    return [header.index(meter) for meter in meters]


def _with_point(cell: str) -> str:
    """A figure with a decimal comma as one with a point; a point in it would be a thousands separator or a mix-up."""
    return f"{cell} (its file's decimal mark is the comma)" if "." in cell else cell.replace(",", ".")


def _short(text: str) -> str:
    """As much of a text as a note can show."""
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."


def _cell(text: str, line: int, column: str, notes: Notes) -> float:
    """One register in kWh; NaN and a note where it is none."""
    if not text.strip():
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value != value or not text.isascii() or "_" in text:  # Python takes more for figures than an export means
        notes.add("no number", line, column, f"{_short(text)!r} is no number; taken as not read")
        return math.nan
    if not -REGISTER_MAX_KWH < value < REGISTER_MAX_KWH:
        notes.add("no register", line, column, f"{_short(text)} is no register; taken as not read")
        return math.nan
    return value


def time_of(text: str) -> float | None:
    """Epoch seconds of a time cell, None if it is none; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            seconds = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            return None
        return seconds if 0 <= seconds < 1e11 else None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read_events(path: Path, meters: Sequence[str]) -> tuple[list[MeterSign], Notes]:
    """Read EVENTS.csv: `time,meter,kind,value`; kinds as in core.signs, value empty where the kind has none.

    Raises:
        ReadingsError: the header is another one.
    """
    notes = Notes(str(path))
    signs = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = _open(file, notes, "event")
        header = rows.header or []
        if not {"time", "meter", "kind"} <= set(header):
            shown = _short(",".join(header))
            raise ReadingsError(f"{path}: line 1: expected the columns time,meter,kind,value, got {shown!r}")
        at, whose, what = (header.index(name) for name in ("time", "meter", "kind"))
        for line, _, cells in rows:
            row = [*cells, *[""] * (len(header) - len(cells))]
            time_s = time_of(row[at])
            if time_s is None:
                notes.add("no time", line, "time", f"{_short(row[at])!r} is no time; the event is left out")
            elif row[whose] not in meters:
                detail = f"{_short(row[whose])!r} is in no zone; the event is left out"
                notes.add("unknown meter", line, "meter", detail)
            elif row[what] not in set(SignKind):
                detail = f"{_short(row[what])!r}: expected one of {', '.join(SignKind)}"
                notes.add("unknown kind", line, "kind", detail)
            else:
                value = _cell(row[header.index("value")], line, "value", notes) if "value" in header else math.nan
                value = 0.0 if value != value else value
                signs.append(MeterSign(row[whose], time_s, SignKind(row[what]), value))
    return sorted(signs, key=lambda sign: sign.time_s), notes
