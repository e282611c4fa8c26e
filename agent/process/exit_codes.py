"""sysexits constants."""

from __future__ import annotations

NEGATIVE = 1  # the verb's own negative answer

USAGE = 2

UNAVAILABLE = 69  # a device or a broker (EX_UNAVAILABLE)

SOFTWARE = 70  # a bug of ours (EX_SOFTWARE): systemd starts the service again from its last commit

INPUT_OUTPUT = 74  # EX_IOERR

CONFIG = 78  # EX_CONFIG
