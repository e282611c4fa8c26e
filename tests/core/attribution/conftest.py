"""A small synthetic building for attribution: households, registers' steps, errors of the balance, and thefts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from core.attribution.attribute import Onset, Rows

Floats = NDArray[np.float64]
SLOTS, FLATS, PAST_DAYS, AFTER_DAYS = 48, 10, 42, 8
STEP_WH = 10.0


@dataclass
class House:
    """What is used and what is shown, Wh a row [T, N], and what is tapped ahead of the meters [T]."""

    used: Floats
    shown: Floats
    tap: Floats
    noise_wh: Floats
    onset: int

    @property
    def after(self) -> slice:
        return slice(self.onset, None)

    @property
    def hour(self) -> Floats:
        return np.arange(len(self.tap)) % SLOTS * 24.0 / SLOTS

    def rows(self, **changes: object) -> Rows:
        """As detection hands them over: steps of the registers, errors at the boundaries."""
        register = np.floor(np.cumsum(np.vstack([np.zeros(FLATS), self.shown]), axis=0) / STEP_WH) * STEP_WH
        count = len(self.tap)
        error = np.diff(self.noise_wh)
        made = Rows(
            sub_wh=np.diff(register, axis=0),
            residual_wh=(self.used - self.shown).sum(1) + self.tap + error,
            boundary_variance_wh2=np.full(count + 1, 25.0**2),
            day=19_700 + np.arange(count) // SLOTS,
            slot=np.arange(count) % SLOTS,
            slots_per_day=SLOTS,
            estimated=np.zeros((count, FLATS), bool),
            resolution_wh=np.full(FLATS, STEP_WH),
        )
        return replace(made, **changes)

    @property
    def when(self) -> Onset:
        """The onset to within some hours."""
        return Onset(max(0, self.onset - 6), self.onset, self.onset + 6)


def households(rng: np.random.Generator, rows: int) -> Floats:
    """Loads [rows, FLATS] in Wh: a base, two peaks a day of their own, and bursts that last."""
    hour = np.arange(rows) % SLOTS * 24.0 / SLOTS
    out = np.empty((rows, FLATS))
    for i in range(FLATS):
        base, peak = rng.uniform(25, 60), rng.uniform(100, 300)
        morning, evening = rng.normal(7.5, 0.7), rng.normal(19, 1)
        shape = base + peak * (0.6 * np.exp(-((hour - morning) ** 2) / 2) + np.exp(-((hour - evening) ** 2) / 6))
        burst = np.zeros(rows)
        for t in range(1, rows):
            burst[t] = 0.6 * burst[t - 1] + 0.8 * rng.normal()
        out[:, i] = shape * np.exp(0.5 * burst - 0.125)
    return out


@pytest.fixture
def house() -> Callable[..., House]:
    """Make a house: house(seed) is honest; steal by changing `shown` or `tap` after the onset."""

    def make(seed: int = 1, after_days: int = AFTER_DAYS, past_days: int = PAST_DAYS) -> House:
        rng = np.random.default_rng(seed)
        rows = (past_days + after_days) * SLOTS
        used = households(rng, rows)
        return House(used, used.copy(), np.zeros(rows), rng.normal(0, 25.0, rows + 1), past_days * SLOTS)

    return make
