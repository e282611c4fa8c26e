"""Where the flats' loads come from: the household model, or a CSV of measured ones; always power by minute and week.

A source is asked for one flat and one week; it keeps nothing that its caller must free.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from firmware_io.simulator.building.household import MINUTES, WEEK_S, Household
from firmware_io.simulator.building.weather import Weather

Floats = npt.NDArray[np.float64]


class LoadSource(Protocol):
    """The flats' true loads."""

    def power_w(self, flat: int, week: int) -> Floats:
        """Mean W in each of the 10080 minutes of a week since the epoch; the same answer every time."""


class HouseholdLoads:
    """Loads of the stochastic household model, one household a flat."""

    def __init__(self, seed: int, flats: int, weather: Weather | None = None, timezone: str = "UTC") -> None:
        weather = weather or Weather(seed)
        self.households = [Household(seed, flat, weather, timezone) for flat in range(flats)]

    def power_w(self, flat: int, week: int) -> Floats:
        """See `LoadSource`."""
        return self.households[flat].power_w(week)


class CsvLoads:
    """Loads from a file: a `time` column (RFC 3339 or epoch seconds, UTC) and one column of kWh per flat.

    The rows are equally spaced; the file is repeated in whole weeks where the simulation runs past its ends.
    """

    def __init__(self, path: Path, flats: list[str]) -> None:
        with path.open(newline="") as lines:
            rows = csv.reader(lines)
            header = next(rows, [])
            missing = [name for name in flats if name not in header]
            if not header or header[0] != "time" or missing:
                what = f"no column {missing[0]!r}" if missing else "its first column must be `time`"
                raise ValueError(f"{path}: {what}; columns are {', '.join(header[:8])}")
            columns = [header.index(name) for name in flats]
            times, energies = [], []
            for line, row in enumerate(rows, 2):
                try:
                    times.append(_time_s(row[0]))
                    energies.append([float(row[c] or 0.0) for c in columns])
                except (ValueError, IndexError) as error:
                    raise ValueError(f"{path}:{line}: {error}") from None
        if len(times) < 2:
            raise ValueError(f"{path}: needs at least a week of rows, has {len(times)}")
        step_s = times[1] - times[0]
        if step_s <= 0 or step_s % 60 or WEEK_S % step_s:
            raise ValueError(f"{path}: rows must be whole minutes apart and divide a week, are {step_s:g} s apart")
        if np.any(np.abs(np.diff(times) - step_s) > 1):
            raise ValueError(f"{path}: rows must be equally spaced, {step_s:g} s apart")
        self._rows_a_week = int(WEEK_S // step_s)
        whole = len(times) // self._rows_a_week * self._rows_a_week
        if not whole:
            raise ValueError(f"{path}: needs a whole week, {self._rows_a_week} rows; it has {len(times)}")
        used = np.array(energies)[:whole]
        if not np.all(np.isfinite(used)) or used.min() < 0:
            raise ValueError(f"{path}: energies must be finite and not negative")
        self._first_s, self._step_s = times[0], step_s
        self._watts = used * (3_600_000 / step_s)

    def power_w(self, flat: int, week: int) -> Floats:
        """See `LoadSource`."""
        first = int((week * WEEK_S - self._first_s) // self._step_s)
        rows = np.arange(first, first + self._rows_a_week) % len(self._watts)
        return np.repeat(self._watts[rows, flat], int(self._step_s // 60))


def _time_s(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def household_energy(
    seed: int,
    flats: int,
    start_s: int,
    interval_s: int,
    n: int,
    *,
    timezone: str = "UTC",
    weather: Weather | None = None,
) -> Floats:
    """Energy of `flats` modelled households in kWh, shape [n, flats], interval k from `start_s + k * interval_s` on.

    The same numbers that a simulated building of this seed has behind its meters. `start_s` and `interval_s` are
    whole minutes. Raises ValueError otherwise.
    """
    if start_s % 60 or interval_s % 60 or interval_s <= 0:
        raise ValueError(f"start_s and interval_s must be whole minutes, got {start_s} and {interval_s}")
    loads = HouseholdLoads(seed, flats, weather, timezone)
    first, last = start_s // WEEK_S, (start_s + n * interval_s - 1) // WEEK_S
    skip, step = (start_s - first * WEEK_S) // 60, interval_s // 60
    energy = np.empty((n, flats))
    minutes = np.empty((last - first + 1) * MINUTES)
    for flat in range(flats):
        for week in range(first, last + 1):
            at = (week - first) * MINUTES
            minutes[at : at + MINUTES] = loads.power_w(flat, week)
        energy[:, flat] = minutes[skip : skip + n * step].reshape(n, step).sum(axis=1) / 60_000
    return energy
