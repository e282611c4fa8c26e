"""Which meter a flat hangs on: its breaker is switched in a rhythm, and the powers tell who moved with it.

It owns the rhythm and the judgement: how far the building's meter and each sub-meter fall while the breaker is off, and
what follows from that. It asks nobody and waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

REACTION_S = 3.0  # behind each word of the program in which nobody knows whether the breaker has moved
LEAST_W = 30.0  # that have to go off for anything to be seen
CLEAR_Z = 4.0  # standard deviations that count as having moved
SAME_SHARE = 0.1  # of the building's fall by which a meter's own may differ: gain, lines


@dataclass(frozen=True, slots=True)
class Rhythm:
    """On, then `rounds` times off and on, `step_s` each."""

    step_s: float
    rounds: int
    reaction_s: float = REACTION_S

    @property
    def length_s(self) -> float:
        """Of the whole."""
        return self.step_s * (2 * self.rounds + 1)

    def phase(self, at_s: float) -> int:
        """Number of the step that runs `at_s` after the beginning: even ones are on."""
        return min(2 * self.rounds, max(0, int(at_s // self.step_s)))

    def counts(self, at_s: float) -> bool:
        """Whether the breaker must have been moved by then."""
        return 0 <= at_s < self.length_s and at_s % self.step_s >= min(self.reaction_s, self.step_s / 2)


@dataclass(frozen=True, slots=True)
class Fall:
    """How far a power falls while the breaker is off, W, and its standard error."""

    power_w: float
    sd_w: float

    @property
    def clear(self) -> bool:
        """Whether it moved."""
        return self.power_w >= LEAST_W and self.power_w > CLEAR_Z * self.sd_w


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rhythm tells: falls of the building's meter and of all sub-meters; `meter` is the one that moved."""

    main: Fall
    subs: Mapping[str, Fall]
    meter: str | None
    beside_w: float  # what went off and no sub-meter has seen

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        moved = [f"{name} by {fall.power_w:.0f} W" for name, fall in self.subs.items() if fall.clear]
        if not self.main.clear:
            return (
                f"the building's meter did not move ({self.main.power_w:.0f} ± {self.main.sd_w:.0f} W)"
                + (f", though {' and '.join(moved)} fell" if moved else "")
                + "; switch on a kettle or a heater in the flat and try again"
            )
        fell = f"the building fell by {self.main.power_w:.0f} W each time"
        if self.meter is None and not moved:
            return f"{fell}, and no sub-meter with it: what this breaker switches passes all meters by"
        if self.meter is None:
            return f"{fell}, and several meters fell: {', '.join(moved)}; let nobody else switch, and try again"
        seen_w = self.subs[self.meter].power_w
        if self.beside_w:
            return f"{fell}, {self.meter} by {seen_w:.0f} W only: {self.beside_w:.0f} W behind this breaker pass it by"
        return f"{fell}, and {self.meter} by {seen_w:.0f} W: the breaker hangs on {self.meter}"


def seen_enough(rhythm: Rhythm, trace: Sequence[tuple[float, float]]) -> bool:
    """Whether each step of the rhythm has a power that counts; without, there is no fall to tell."""
    return not math.isnan(_fall(rhythm, trace).power_w)


def judge(rhythm: Rhythm, main: Sequence[tuple[float, float]], subs: Mapping[str, Sequence[tuple[float, float]]]) -> (
    Verdict
):  # fmt: skip
    """What (seconds after the beginning, W) of the building's meter and of each sub-meter tell."""
    whole = _fall(rhythm, main)
    falls = {name: _fall(rhythm, trace) for name, trace in subs.items()}
    clear = [name for name, fall in falls.items() if fall.clear]
    meter = clear[0] if len(clear) == 1 else None
    for name in clear:  # of several, one alone may explain the building's fall
        others_w = sum(falls[other].power_w for other in clear if other != name)
        if len(clear) > 1 and others_w < SAME_SHARE * whole.power_w:
            meter = name
    beside_w = 0.0
    if meter is not None and whole.clear:
        left_w = whole.power_w - falls[meter].power_w
        doubt_w = CLEAR_Z * math.hypot(whole.sd_w, falls[meter].sd_w)
        beside_w = left_w if left_w > max(LEAST_W, doubt_w, SAME_SHARE * whole.power_w) else 0.0
    return Verdict(whole, falls, meter, beside_w)


def _fall(rhythm: Rhythm, trace: Sequence[tuple[float, float]]) -> Fall:
    """Mean over the rounds of: what was on before and after, minus what was on while it was off."""
    steps: list[list[float]] = [[] for _ in range(2 * rhythm.rounds + 1)]
    for at_s, power_w in trace:
        if rhythm.counts(at_s) and not math.isnan(power_w):
            steps[rhythm.phase(at_s)].append(power_w)
    if not all(steps):
        return Fall(math.nan, math.inf)
    means = [math.fsum(step) / len(step) for step in steps]
    falls = [(means[n - 1] + means[n + 1]) / 2 - means[n] for n in range(1, len(steps), 2)]
    mean_w = math.fsum(falls) / len(falls)
    between = math.fsum((fall - mean_w) ** 2 for fall in falls) / max(1, len(falls) - 1) / len(falls)
    # One round cannot tell how different rounds are: then what happens within the steps has to.
    within = math.fsum(math.fsum((p - m) ** 2 for p in s) / len(s) ** 2 for s, m in zip(steps, means, strict=True))
    return Fall(mean_w, math.sqrt(max(between, within / len(falls))))
