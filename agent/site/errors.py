"""ConfigError."""

from __future__ import annotations


class ConfigError(Exception):
    """The site file cannot be used; `errors` holds one line for each thing to mend. Exit code 78."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
