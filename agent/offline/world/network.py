"""The wires of a building: which phase and floor each flat is on, and what flowing to it costs.

Owns the copper between the main meter and the flats, and the house's own loads. Refuses to know how energy is metered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.offline.world.climate import F64, Climate

# Voltage drop of mains and service at the building's mean load, as a share of it. IEC 60364-5-52 (annex G) allows 3 to
# 5 % at design load; the mean of a house is a third to a tenth of that (diversity, IEC 60050-691-10-05).
RISER_SHARE, DROP_SHARE = (0.001, 0.012), (0.0005, 0.006)
THIRD_HARMONIC = (0.02, 0.25)  # of the phase current; adds up in the neutral (EN 61000-3-2 class D loads)


@dataclass(frozen=True, slots=True)
class Riser:
    """Phase of each flat [flat] (-1: three-phase), its floor's order [flat], and the resistances in relative units."""

    phase: np.ndarray[tuple[int], np.dtype[np.intp]]
    order: np.ndarray[tuple[int], np.dtype[np.intp]]
    riser_share: float
    drop_share: F64  # by flat
    triplen: float
    three_phase: bool


def draw_riser(rng: np.random.Generator, flats: int) -> Riser:
    """Single-phase flats on three phases, or three-phase flats."""
    three = bool(rng.random() < 0.4)
    phase = np.full(flats, -1) if three else rng.permutation(np.arange(flats) % 3)
    return Riser(
        phase, rng.permutation(flats), float(rng.uniform(*RISER_SHARE)), rng.uniform(*DROP_SHARE, flats),
        float(rng.uniform(*THIRD_HARMONIC)), three,
    )  # fmt: skip


def copper_wh(riser: Riser, flow_wh: F64, tap_wh: F64, temperature_c: F64) -> F64:
    """Loss [time] of `flow_wh` [time, flat] through drops and riser, with `tap_wh` [time] drawn half way up.

    A riser of even section: each floor's segment carries what lies beyond it. What fluctuates within a row costs more
    than its mean: by half in a single drop, by little in the riser.
    """
    rows, flats = flow_wh.shape
    mean = max(float(flow_wh.sum(1).mean()), 1e-9)
    drops = 1.5 * (flow_wh**2 @ riser.drop_share) / (mean / flats) / (1.0 if riser.three_phase else 0.5) / 2
    ordered = np.empty_like(flow_wh)
    ordered[:, riser.order] = flow_wh
    phase = np.empty(flats, np.intp)
    phase[riser.order] = riser.phase
    squares = np.zeros(rows)
    beyond = []
    for k in range(3):
        part = ordered / 3 if riser.three_phase else np.where(phase == k, ordered, 0.0)
        sums = np.cumsum(part[:, ::-1], axis=1)[:, ::-1]
        sums[:, : flats // 2 + 1] += tap_wh[:, None] * (1 / 3 if riser.three_phase else float(k == 0))
        beyond.append(sums)
        squares += (sums**2).sum(1)
    a, b, c = beyond
    neutral = a**2 + b**2 + c**2 - a * b - b * c - c * a + (3 * riser.triplen) ** 2 * ((a + b + c) / 3) ** 2
    squares += neutral.sum(1)
    even = 3 * (mean / 3) ** 2 * sum((k / flats) ** 2 for k in range(1, flats + 1))
    return np.asarray((riser.riser_share * mean * 1.05 * squares / even + drops) * (1 + 0.0039 * (temperature_c - 20)))


@dataclass(frozen=True, slots=True)
class Common:
    """The house's own loads [time] in Wh: light of stairs and cellar, lift, heating pump and ventilation."""

    light_wh: F64
    lift_wh: F64
    pump_wh: F64

    @property
    def total_wh(self) -> F64:
        return np.asarray(self.light_wh + self.lift_wh + self.pump_wh)


def draw_common(rng: np.random.Generator, sky: Climate, flats: int, load_wh: F64) -> Common:
    """Stairs of 1 to 10 W a flat, a lift of 20 to 60 Wh a trip (VDI 4707, ISO 25745-2), a pump of 0 to 4 W a flat."""
    rows = len(sky.hour)
    row_h = 24.0 / (rows / (int(sky.day[-1]) + 1))
    lively = load_wh / max(float(load_wh.mean()), 1e-9)
    light = rng.uniform(1, 10) * flats * (rng.uniform(0.2, 0.9) + rng.uniform(0.2, 1.5) * sky.dark) * row_h
    lift = np.zeros(rows)
    if rng.random() < 0.5:
        trips = rng.poisson(np.clip(lively, 0, 4) * rng.uniform(1.5, 6) * flats * row_h / 24)
        lift = trips * rng.uniform(15, 60) + rng.uniform(30, 250) * row_h
    cold = np.clip((18 - sky.temperature_c) / 18, 0, 1.5)
    pump = rng.uniform(0, 4) * flats * (cold > 0.05) * (0.3 + cold) * row_h
    return Common(light * rng.uniform(0.97, 1.03, rows), lift, pump * rng.uniform(0.9, 1.1, rows))
