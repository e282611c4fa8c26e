"""A small balance in memory: rows of an honest building, to be stolen from and read late."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from core.balance.history import History
from core.balance.losses import BURDEN_W, LossModel
from core.balance.rows import ZoneRows
from core.balance.tracker import Follower

FLATS = 12
HOURS = 0.5
DAY = 48


@dataclass
class House:
    """Energies of an honest building, Wh, and what its balance sees of them."""

    subs_wh: np.ndarray
    main_wh: np.ndarray

    @property
    def load_w(self):
        return float(self.main_wh.mean()) / HOURS

    def model(self):
        return LossModel(HOURS, 0.5, [1.0] * FLATS, self.load_w)

    def rows(self, error_wh=None, boundary_wh=15.0):
        """Rows whose boundaries err by `error_wh` [T] on top of their known scatter."""
        count = len(self.main_wh)
        error = np.random.default_rng(9).normal(0, boundary_wh, count)
        error += 0.0 if error_wh is None else error_wh
        main = self.main_wh + np.diff(error, prepend=0.0)
        return ZoneRows(
            ends_s=1800.0 * (1 + np.arange(count)),
            main_wh=main,
            subs_wh=self.subs_wh,
            residual_wh=main - self.subs_wh.sum(axis=1),
            boundary_wh2=np.full(count, boundary_wh**2),
            lost_wh2=np.zeros(count),
            gap_wh2=np.zeros(count),
        )

    def stolen(self, shown_wh):
        """The same building with meters that show `shown_wh`."""
        return replace(self, subs_wh=shown_wh)

    def tapped(self, power_w):
        """The same building with `power_w` [T] taken ahead of the sub-meters."""
        return replace(self, main_wh=self.main_wh + np.asarray(power_w) * HOURS)


def house(days, seed=1, own=0.0):
    """`own`: mean share of copper that follows a flat's own power; the flats lie evenly along the riser."""
    rng = np.random.default_rng(seed)
    hour = np.arange(days * DAY) % DAY / 2
    shape = 0.5 + np.exp(-((hour - 19) ** 2) / 12) + 0.6 * np.exp(-((hour - 8) ** 2) / 4)
    appliances = rng.gamma(0.6, rng.uniform(150, 600, FLATS), (days * DAY, FLATS))
    power = rng.uniform(30, 120, FLATS) + shape[:, None] * appliances
    total = power.sum(axis=1)
    copper = 0.012 * total**2 / total.mean() + own * 4.5 * (power**2 @ np.linspace(0, 2, FLATS)) / total.mean()
    return House(power * HOURS, (total + BURDEN_W * FLATS + copper) * HOURS)


@pytest.fixture(name="house")
def _house():
    return house


@pytest.fixture
def followed():
    """(history, model, follower) after all rows, the first `learned` days of them learned."""

    def follow(rows, model, learned):
        history = History(len(rows) + 64, FLATS)
        history.fill(0, rows, np.zeros((len(rows), FLATS), np.bool_), np.ones(len(rows)))
        model.absorb(rows[: learned * DAY])
        follower = Follower()
        follower.explain(history, model, model.x)
        return history, model, follower

    return follow
