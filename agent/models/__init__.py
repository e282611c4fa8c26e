"""The compact models: the one that states who it is, which is shipped, and a score of one's own, where there is one.

Which of the two a file is follows from the features that it asks for.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from core.scoring import posterior
from core.scoring.features import FEATURES
from core.scoring.model import CompactModel, load

NAME = "default.tflite"


@dataclass(frozen=True, slots=True)
class InUse:
    """`states` gives the probabilities of an alert. `scorer` looks at every sub-meter every day; None: nobody does."""

    states: CompactModel
    scorer: CompactModel | None = None

    @property
    def named(self) -> CompactModel:
        """The one that the site file names, or the shipped one."""
        return self.scorer or self.states


def shipped() -> bytes:
    """The shipped model's file. Raises FileNotFoundError where it is not there."""
    return importlib.resources.files(__package__).joinpath(NAME).read_bytes()


def checked(content: bytes) -> CompactModel:
    """The model in `content`, of either kind. Raises ModelRefused where it may not be used."""
    model = load(content)
    return load(content, posterior.FEATURES if states(model) else FEATURES)


def states(model: CompactModel) -> bool:
    """Whether the model gives the probabilities of an alert."""
    return set(model.features) <= set(posterior.FEATURES)


def in_use(path: str | Path | None) -> InUse:
    """The models of a site file's `[detection] model`, the shipped one where it names none.

    Raises OSError where the file cannot be read, ModelRefused where it may not be used.
    """
    named = checked(shipped() if path is None else Path(path).read_bytes())
    if states(named):
        return InUse(named)
    return InUse(checked(shipped()), named)
