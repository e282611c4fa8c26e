"""A CSV file taken apart line by line: a row is a line, so that a broken line costs itself and nothing behind it.

It owns separators, quotes and how long a line may be. It refuses to know what the cells mean. (A quoted cell over
several lines is allowed by RFC 4180; none of our files has a use for it, and a quote that is left open would swallow
all rows up to the next one.)
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from typing import TextIO

LINE_MAX = 1 << 20  # characters of a line that is taken apart: thousands of columns; bounds what is kept


class CsvLines:
    """Rows of an open CSV file: `header`, `delimiter`, then (line number, line, cells) of each line that is not empty.

    `broken` is told line number and reason of each line that cannot be taken apart. `header` is None where there is
    none, or none that can be read.
    """

    def __init__(self, file: TextIO, broken: Callable[[int, str], None]) -> None:
        self._file, self._broken, self._number = file, broken, 0
        self.header: list[str] | None = None
        self.delimiter = ","
        line = self._line()
        if line:
            self.delimiter = ";" if ";" in line and "," not in line else ","
            self.header = self._cells(line)

    def __iter__(self) -> Iterator[tuple[int, str, list[str]]]:
        while (line := self._line()) is not None:
            cells = self._cells(line) if line else None
            if cells is not None:
                yield self._number, line, cells

    def _line(self) -> str | None:
        """The next line without its end, "" where it is empty or too long; None behind the last."""
        self._number += 1
        line = self._file.readline(LINE_MAX)
        if not line:
            return None
        if len(line) == LINE_MAX and line[-1] not in "\r\n":
            while (rest := self._file.readline(LINE_MAX)) and rest[-1] not in "\r\n":
                pass
            self._broken(self._number, f"more than {LINE_MAX} characters")
            return ""
        return line.rstrip("\r\n")

    def _cells(self, line: str) -> list[str] | None:
        if '"' not in line:
            return line.split(self.delimiter)
        try:
            return next(csv.reader([line], delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            reason = "a quote is not closed" if "end of data" in str(error) else str(error)
            self._broken(self._number, reason)
            return None
