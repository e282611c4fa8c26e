"""ConfigError, and how text from a file is shown in a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with escapes for what a terminal would obey or hide: control characters, changes of writing direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ConfigError(Exception):
    """The site file cannot be used; `errors` holds one line for each thing to mend. Exit code 78."""

    def __init__(self, errors: list[str]) -> None:
        self.errors = [printable(error) for error in errors]
        super().__init__("\n".join(self.errors))
