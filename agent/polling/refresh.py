"""How often a meter refreshes the register that it shows, found out from what it shows.

Some meters count all the time and show a new value every 15 or 60 s only. Polled each second, such a register looks as
if nothing flowed, then as if all flowed at once; and what it shows is as old as its last refresh. Once the refresh is
known, only the polls that see a new value are samples, dated between the last poll with the old value and the first
with the new one. It owns that finding for one meter; it refuses to know balances.

A register that counts on never moves by more than one step between two polls that are closer than its steps. So a meter
refreshes where it moves by several steps at once, after polls in which it stood, and always so far apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from core.registers.samples import RegisterSample

MOVES = 12  # that it is judged by
AGREE = 10  # of them have to be alike
SEVERAL = 2.0  # steps at once: more than a register that counts on can show
APART = 2.5  # polls: a register that moves with nearly every poll needs no such care
STILL = 3.0  # refreshes without a move: nothing flows, and what it shows is right
STEPS_WH = (1000.0, 100.0, 10.0, 1.0, 0.1, 0.01)  # that registers have


@dataclass(slots=True)
class _Move:
    """One change of the register: between two polls, so long after the change before, by so much."""

    time_s: float
    half_s: float
    apart_s: float
    wh: float


@dataclass(slots=True)
class Refresh:
    """One meter's register, poll by poll."""

    every_s: float | None = None  # how often it shows a new value; None while it shows what flows
    _last: RegisterSample | None = None  # the last poll
    _given_s: float = 0.0  # the last sample that was let through
    _moves: deque[_Move] = field(default_factory=lambda: deque(maxlen=MOVES))
    _gaps_s: deque[float] = field(default_factory=lambda: deque(maxlen=MOVES))  # between polls

    def take(self, samples: Sequence[RegisterSample]) -> list[RegisterSample]:
        """What of one poll's samples is to be believed, and when it was so."""
        return [kept for sample in samples if (kept := self._one(sample)) is not None]

    def _one(self, sample: RegisterSample) -> RegisterSample | None:
        before, self._last = self._last, sample
        if before is None or sample.time_s <= before.time_s or sample.import_wh != sample.import_wh:
            return sample
        gap_s, moved_wh = sample.time_s - before.time_s, sample.import_wh - before.import_wh
        self._gaps_s.append(gap_s)
        middle_s, half_s = sample.time_s - gap_s / 2, gap_s / 2
        if moved_wh:
            apart_s = middle_s - self._moves[-1].time_s if self._moves else 0.0
            self._moves.append(_Move(middle_s, half_s, apart_s, moved_wh))
            self.every_s = self._judged(sample.import_wh)
        if self.every_s is None or gap_s >= self.every_s:
            return sample
        if moved_wh:
            self._given_s = sample.time_s
            return replace(sample, time_s=middle_s, uncertainty_s=max(sample.uncertainty_s, half_s))
        if sample.time_s - self._given_s > STILL * self.every_s:
            return sample
        return None

    def _judged(self, shown_wh: float) -> float | None:
        """The refresh that the last moves agree on."""
        if len(self._moves) < MOVES:
            return None
        moves, polls_s = list(self._moves)[1:], sorted(self._gaps_s)[len(self._gaps_s) // 2]
        if self.every_s is not None and _alike(moves, self.every_s) >= AGREE:
            return self.every_s  # a small load moves it by single steps, but never between two refreshes
        usual_s = sorted(move.apart_s for move in moves)[len(moves) // 2]
        step_wh = _step(shown_wh, [move.wh for move in moves])
        several = sum(abs(move.wh) >= SEVERAL * step_wh for move in moves)
        agree = min(several, _alike(moves, usual_s)) >= AGREE and usual_s >= APART * polls_s
        return usual_s if agree else None


def _alike(moves: Sequence[_Move], every_s: float) -> int:
    """How many moves are a whole number of refreshes behind the one before, as well as two polls can tell."""
    return sum(
        abs(move.apart_s - max(1, round(move.apart_s / every_s)) * every_s) <= 2 * move.half_s + 0.05 * every_s
        for move in moves
    )


def _step(shown_wh: float, moved_wh: Sequence[float]) -> float:
    """The step that all these values are whole multiples of, as far as meters have one, Wh."""
    for step_wh in STEPS_WH:
        if all(abs(value / step_wh - round(value / step_wh)) < 1e-6 for value in (shown_wh, *moved_wh)):
            return step_wh
    return STEPS_WH[-1]
