"""Meters as they are read over a bus: gain, temperature, starting current, clock, resolution, missed polls, exchange.

Owns the way from energy to the register that a gateway gets. Refuses to know who uses the energy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from agent.offline.world.climate import F64

TEMPERATURE_PER_K = (1e-5, 3e-4)  # IEC 62053-21 table 8 allows 5e-4 for class 1
STARTING_W = (0.5, 4.6)  # IEC 62053-21, 8.2: 0.4 % of 5 A at 230 V, and better
BURDEN_W = (0.2, 1.8)  # IEC 62053-61: at most 2 W in the voltage circuit
CLOCK_DRIFT = 5.8e-6  # IEC 62054-21: 0.5 s a day
EXCHANGES_PER_YEAR = (0.0, 0.08)  # verification every 8 to 16 years, and failures


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter's ways; `offset_s` [time + 1]: how much later than its stamp each register was taken."""

    accuracy_class: float
    step_wh: float
    gain: float
    per_k: float
    low_load: float  # relative error that fades as 1 / load, Wh per row
    starting_wh: float
    offset_s: F64
    missed: np.ndarray[tuple[int], np.dtype[np.bool_]]
    exchanged_row: int | None = None
    new_gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How a whole installation is read."""

    by_profile: bool  # stored load profiles by each meter's own clock, else one poll after the other
    poll_s: float  # between two meters of a line
    retry_share: float
    missed_share: float
    silences_per_month: float
    step_wh: float
    main_step_wh: float
    sub_class: float
    main_class: float


def draw_reading(rng: np.random.Generator) -> Reading:
    """An installation: one make of sub-meters, a main meter, a bus."""
    step = float(rng.choice([1.0, 10.0, 100.0, 1000.0], p=[0.35, 0.45, 0.14, 0.06]))
    return Reading(
        by_profile=bool(rng.random() < 0.35),
        poll_s=float(rng.uniform(0.1, 2.5)),
        retry_share=float(rng.choice([0.0, 0.01, 0.05])),
        missed_share=float(rng.choice([0.0, 0.003, 0.015, 0.05])),
        silences_per_month=float(rng.choice([0.0, 0.1, 0.6])),
        step_wh=step,
        main_step_wh=float(rng.choice([1.0, 10.0, 100.0])) if step < 1000 else float(rng.choice([100.0, 1000.0])),
        sub_class=float(rng.choice([1.0, 1.0, 2.0, 0.5])),
        main_class=float(rng.choice([0.2, 0.5, 0.5, 1.0])),
    )


def draw_meter(rng: np.random.Generator, reading: Reading, rows: int, row_h: float, place: int | None) -> Meter:
    """The sub-meter that is polled as number `place`, or the main meter (None)."""
    accuracy = reading.main_class if place is None else reading.sub_class
    sd = accuracy / 100 / rng.uniform(2.0, 3.5)
    gain = 1 + float(np.clip(rng.normal(0, sd), -accuracy / 100, accuracy / 100))
    at_s = np.arange(rows + 1) * row_h * 3600.0
    if reading.by_profile:
        offset = rng.normal(0, rng.uniform(1, 20)) + rng.normal(0, CLOCK_DRIFT) * (at_s % (30 * 86_400.0))
    else:
        late = rng.exponential(0.3, rows + 1) + np.where(
            rng.random(rows + 1) < reading.retry_share, rng.uniform(1, 60, rows + 1), 0.0
        )
        offset = (0.0 if place is None else (place + 1) * reading.poll_s) + late
    missed = rng.random(rows + 1) < reading.missed_share
    for _ in range(rng.poisson(reading.silences_per_month * rows * row_h / 730)):
        start = int(rng.integers(1, rows))
        missed[start : start + int(rng.exponential(8.0 / row_h)) + 2] = True
    missed[[0, -1]] = False
    exchange = None
    if place is not None and rng.random() < rng.uniform(*EXCHANGES_PER_YEAR) * rows * row_h / 8766:
        exchange = int(rng.integers(10, rows - 10))
    return Meter(
        accuracy,
        reading.main_step_wh if place is None else reading.step_wh,
        gain,
        float(rng.choice([-1, 1]) * np.exp(rng.uniform(*np.log(TEMPERATURE_PER_K)))) / (3 if place is None else 1),
        float(rng.normal(0, 0.004)) * 50 * row_h,
        rng.uniform(*STARTING_W) * row_h,
        np.asarray(offset),
        missed,
        exchange,
        1 + float(np.clip(rng.normal(0, sd), -accuracy / 100, accuracy / 100)),
    )


def register_wh(rng: np.random.Generator, meter: Meter, energy_wh: F64, temperature_c: F64, row_h: float) -> F64:
    """The register [time + 1] that a gateway got at each boundary; NaN where the meter did not answer."""
    rows = len(energy_wh)
    gain = np.full(rows, meter.gain)
    if meter.exchanged_row is not None:
        gain[meter.exchanged_row :] = meter.new_gain
    seen = np.where(energy_wh < meter.starting_wh, 0.0, energy_wh)
    seen = seen * (gain + meter.per_k * (temperature_c - 20)) + np.where(seen > 0, meter.low_load, 0.0)
    total = np.concatenate([[0.0], np.cumsum(np.maximum(seen, 0.0))])
    at = np.arange(rows + 1.0)
    # Within a row the power is not its mean: a short delay meets more or less of it.
    late = meter.offset_s / (row_h * 3600.0)
    late = np.where(np.abs(late) < 0.2, late * rng.gamma(2.0, 0.5, rows + 1), late)
    read = np.maximum.accumulate(np.interp(np.clip(at + late, 0, rows), at, total))
    read = np.floor((read + rng.uniform(0, 3e7)) / meter.step_wh) * meter.step_wh
    if meter.exchanged_row is not None:
        read[meter.exchanged_row :] -= read[meter.exchanged_row] - meter.step_wh * rng.integers(0, 30)
    return np.where(meter.missed, np.nan, read)


def shifted(meter: Meter, row: int, by_s: float) -> Meter:
    """The meter with its clock off by so much from `row` on."""
    offset = meter.offset_s.copy()
    offset[row:] += by_s
    return replace(meter, offset_s=offset)
