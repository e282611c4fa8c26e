"""The compact model that is shipped, and how the agent gets the one it shall use."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from core.scoring.features import FEATURES
from core.scoring.model import CompactModel, load

NAME = "default.tflite"


def shipped() -> bytes:
    """The shipped model's file. Raises FileNotFoundError where it is not there."""
    return importlib.resources.files(__package__).joinpath(NAME).read_bytes()


def in_use(path: str | Path | None) -> CompactModel:
    """The model of a site file's `[detection] model`, the shipped one where it names none.

    Raises OSError where the file cannot be read, ModelRefused where it may not be used.
    """
    return load(shipped() if path is None else Path(path).read_bytes(), FEATURES)
