"""Which exit code and which words an error gets at the command line. What is nobody's to mend is raised again."""

from __future__ import annotations

from agent.process.exit_codes import CONFIG, INPUT_OUTPUT, UNAVAILABLE
from agent.site.errors import ConfigError
from agent.store.database import StoreError
from agent.store.history import ArchiveError
from firmware_io.errors import MeterError


def explain(error: Exception) -> tuple[int, list[str]]:
    """The exit code and the lines for standard error.

    Raises:
        Exception: `error` itself, if it is a bug of ours: then the traceback is what helps.
    """
    match error:
        case ConfigError():
            return CONFIG, error.errors
        case MeterError():
            return UNAVAILABLE, [str(error)]
        case StoreError() | ArchiveError():
            return INPUT_OUTPUT, [str(error)]
        case ConnectionError() | TimeoutError():
            return UNAVAILABLE, [f"no connection: {error.strerror or error}; is it running, and is the address right?"]
        case OSError() if error.filename is not None:
            return INPUT_OUTPUT, [f"{error.filename}: {error.strerror}; check the path and its permissions"]
        case OSError():
            return INPUT_OUTPUT, [f"input or output failed: {error.strerror or error}"]
        case _:
            raise error
