"""Log lines on standard error: with journald's priorities under systemd, with the time elsewhere, or as JSON.

Repeated faults are rate-limited, so that a dead meter cannot fill a disk: of one kind of line, five a minute pass,
and the next one to pass says how many did not.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Literal

# What a command, a gateway or a meter says may reach a terminal or a journal: no control characters, no second line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029) if code != 10}
_CONTROL_AND_LINE_FEED = _CONTROL | {10: "\\x0a"}

BURST, WINDOW_S = 5, 60.0
KINDS = 512  # bounds what a fault with ever new texts can make us remember
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class RateLimit(logging.Filter):
    """Lets `BURST` lines of one kind (logger, text before its arguments, first argument) through per window."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes; it says so if others did not."""
        first = record.args[0] if isinstance(record.args, tuple) and record.args else None
        kind = (record.name, record.levelno, record.msg, str(first))
        began, count = self._seen.get(kind, (record.created, 0))
        if record.created - began >= WINDOW_S:
            if count > BURST:
                record.msg = f"{record.getMessage()} ({count - BURST} more like it in the last {WINDOW_S:.0f} s)"
                record.args = ()
            began, count = record.created, 0
        if len(self._seen) >= KINDS and kind not in self._seen:
            self._seen.pop(next(iter(self._seen)))
        self._seen[kind] = (began, count + 1)
        return count < BURST


class _Text(logging.Formatter):
    """`<priority>` for journald, which has the time; a time and a level for a person."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(name)s: %(message)s" if journal else "%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.converter = time.gmtime
        self.default_msec_format = "%s.%03dZ"
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self._journal = journal

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging.Formatter's
        """The line; what was said is one line of it."""
        record.message = record.message.translate(_CONTROL_AND_LINE_FEED)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).translate(_CONTROL)  # tracebacks have lines
        if not self._journal:
            return text
        mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
        return "\n".join(mark + line for line in text.splitlines())


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure(level: str = "info", log_format: Literal["text", "json"] = "text") -> None:
    """Set up the root logger; may be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RateLimit())
    handler.setFormatter(_Json() if log_format == "json" else _Text(journal="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
