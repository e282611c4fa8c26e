"""Registers read one after the other over a slow bus -> energies between common boundaries, each with an error.

It owns the alignment and what makes a register's story break (gap, replacement, rollover, jump); it refuses to know
balances and zones.

Registers are exact, their timing is not. So the error sits at the *boundary* (resolution, read-time uncertainty times
power, a missed poll bridged by the meter's own daily profile) and an interval's error is the difference of two: it
telescopes, and energy is conserved whatever is missing. What a gap was estimated to hold is set right by the row in
which the meter answers again. Only a replaced meter, or one that jumps, loses energy for good; its variance is told
apart. A register of 1 kWh stands still for hours: what has gone on since is booked by the profile, at most a step, and
only where it moves is it known, to less than the row's energy. Booked energy is a register that never breaks: it goes
on where the new meter starts.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.arrays import DAY_S, HOUR_S, Bytes, Floats
from core.registers import _align
from core.registers.samples import RegisterSample, RegisterSpec

PROFILE_DAYS = 20.0  # what a meter's daily profile remembers
SAMPLES_MAX = 4096  # per meter: bounds what a clock far ahead of ours can make us keep
SAMPLES_A_ROW = 64  # closer samples are kept beside boundaries only: bounds what a poll a second makes us keep
READ_JITTER_S = 2.0  # a sample's time is known no better, whatever the bus says
REPLAY_JITTER_S = 4.0  # the same where no read times are given
ROUGHNESS = 0.6  # relative scatter of power within an interval (measured on household loads)
COARSE_WH = 200.0  # registers of larger steps stand still for rows, and their error with them
NEAR = 0.1  # of an interval: a sample so close to a boundary tells its register
GRACE_S = 300.0  # how long a boundary waits for the last meter


class Flag(enum.IntFlag):
    """What happened to one register in one row; the numbers are the kernel's."""

    MISSED = 1
    REPLACED = 2
    ROLLOVER = 4
    JUMP = 8
    FIRST = 16
    LONG_GAP = 32  # not read for three rows or more: the error lasts from row to row
    NEVER_READ = 64
    STANDS = 128  # read, and a coarse register has not moved: booked by its profile, within the step


@dataclass(frozen=True, slots=True)
class AlignedRows:
    """Rows of equal length that end at `ends_s` [T] (UTC seconds); the arrays are [T, meters].

    booked_wh: energy booked until the row's end; energy_wh: its growth; sd_wh: standard error of booked_wh (single
    precision), NaN where the meter was never read; lost_wh2: variance of energy lost for good; flags: `Flag`.
    """

    ends_s: Floats
    hours: float
    booked_wh: Floats
    energy_wh: Floats
    sd_wh: Floats
    lost_wh2: Floats
    flags: Bytes

    def __len__(self) -> int:
        return len(self.ends_s)

    def split(self, at_s: float) -> tuple[AlignedRows | None, AlignedRows | None]:
        """The rows that end by `at_s`, and those behind them; None for none."""
        at = int(np.searchsorted(self.ends_s, at_s, side="right"))
        return self._part(slice(0, at)), self._part(slice(at, len(self)))

    def _part(self, rows: slice) -> AlignedRows | None:
        part = AlignedRows(
            self.ends_s[rows],
            self.hours,
            self.booked_wh[rows],
            self.energy_wh[rows],
            self.sd_wh[rows],
            self.lost_wh2[rows],
            self.flags[rows],
        )
        return part if len(part) else None


@dataclass(slots=True)
class Counters:
    """Samples that could not be used, by reason."""

    unknown_meter: int = 0
    late: int = 0
    not_a_number: int = 0
    overflow: int = 0


@dataclass(slots=True)
class _Samples:
    """Samples of one meter that boundaries still need, by rising time."""

    time_s: list[float] = field(default_factory=list)
    error_s: list[float] = field(default_factory=list)
    wh: list[float] = field(default_factory=list)

    def drop_last(self) -> None:
        """Forget the newest sample."""
        del self.time_s[-1], self.error_s[-1], self.wh[-1]

    def exact(self, end_s: float) -> bool:
        """Whether a sample at that very instant is there, as meters store them."""
        at = bisect.bisect_left(self.time_s, end_s)
        return at < len(self.time_s) and self.time_s[at] == end_s and self.error_s[at] == 0.0


class Aligner:
    """Samples in, rows out. Feed in any order; `close` gives the rows that are complete or out of patience.

    `short`: rows of minutes or less.
    """

    def __init__(self, meters: Sequence[RegisterSpec], interval_s: float, *, short: bool = False) -> None:
        if DAY_S % interval_s:
            raise ValueError(f"the interval must divide the day, got {interval_s} s")
        self.meters = tuple(meters)
        self.interval_s = float(interval_s)
        self.next_s: float | None = None  # the boundary that is closed next
        self.counters = Counters()
        self._place = {meter.id: j for j, meter in enumerate(meters)}
        self._samples = [_Samples() for _ in meters]
        self._awaited: dict[int, float] = {}  # meter -> boundary whose stored row is to come
        self._blocks: list[tuple[Floats, Floats]] = []
        self._resolution_sd = np.array([m.resolution_wh for m in meters]) / math.sqrt(12.0)
        self._signed = np.array([m.exports for m in meters], np.uint8)
        self._limit_w = np.array([m.limit_w for m in meters], np.float64)
        row_h = self.interval_s / HOUR_S
        # Rows of a minute are recorded only where the instants are known, and a load lasts longer than such a row.
        self._jitter_s = READ_JITTER_S if short else REPLAY_JITTER_S
        white, lasting = (0.0, 1.8) if short else (1.0, 0.8)
        memory_rows = PROFILE_DAYS * HOUR_S / self.interval_s
        coarse = np.array([m.resolution_wh if m.resolution_wh > COARSE_WH else 0.0 for m in meters])
        self._state = _align.AlignState(self._limit_w, self._signed, row_h, memory_rows, white, lasting, coarse)
        self._row_wh = np.full(len(meters), np.nan)  # the last whole row, as it was fed

    @property
    def state(self) -> dict[str, Floats]:
        """All that is remembered of the meters, by name, in arrays to be read and written in place."""
        return {**self._state.arrays, "row_wh": self._row_wh}

    def feed(self, samples: Iterable[RegisterSample]) -> None:
        """Take samples; those of unknown meters, without a value or older than the last closed row are counted."""
        for sample in samples:
            j = self._place.get(sample.meter)
            if j is None:
                self.counters.unknown_meter += 1
                continue
            wh = sample.import_wh - (sample.export_wh if self._signed[j] else 0.0)
            if not math.isfinite(wh) or not math.isfinite(sample.time_s):
                self.counters.not_a_number += 1
                continue
            if self.next_s is not None and sample.time_s <= self.next_s - 2 * self.interval_s:
                self.counters.late += 1
                continue
            kept = self._samples[j]
            at = bisect.bisect_left(kept.time_s, sample.time_s)
            if at < len(kept.time_s) and kept.time_s[at] == sample.time_s:
                continue  # the same instant again: the first stands
            error_s = 0.0 if sample.from_profile else math.hypot(sample.uncertainty_s, READ_JITTER_S)
            if at == len(kept.time_s) > 1 and self._between(kept.time_s[-2], sample.time_s):
                kept.drop_last()
                at -= 1
            kept.time_s.insert(at, sample.time_s)
            kept.error_s.insert(at, error_s)
            kept.wh.insert(at, wh)
            if len(kept.time_s) > SAMPLES_MAX:
                self.counters.overflow += 1
                del kept.time_s[0], kept.error_s[0], kept.wh[0]

    def feed_block(self, times_s: Floats, wh: Floats) -> None:
        """Take whole rows at rising times: [T] and [T, meters], NaN where not read. Not to be mixed with `feed`."""
        self._blocks.append((np.asarray(times_s, np.float64), np.ascontiguousarray(wh, np.float64)))

    def _between(self, before_s: float, after_s: float) -> bool:
        """Whether what lies between two samples is of no use: they are close, and no boundary is between them."""
        close = after_s - before_s < self.interval_s / SAMPLES_A_ROW
        return close and before_s // self.interval_s == after_s // self.interval_s and before_s % self.interval_s > 0.0

    def awaits(self, rows: Mapping[str, float]) -> None:
        """Wait for an exact sample of each of these meters at that boundary, though it was read behind it."""
        for meter, end_s in rows.items():
            if meter in self._place:
                self._awaited[self._place[meter]] = end_s

    @property
    def offset_wh(self) -> Floats:
        """[M] Booked energy minus register; NaN where no register is known."""
        state = self._state.arrays
        return np.where(np.isnan(state["last_wh"]), np.nan, state["offset_wh"])

    def book_from(self, booked_wh: Floats) -> None:
        """Let the count of a fresh aligner begin at `booked_wh` [M], Wh, so that its rows go on with those stored."""
        self._state.arrays["booked_wh"][:] = booked_wh

    def registers_follow(self, offset_wh: Floats) -> None:
        """What was fed until now were booked energies of the past; what comes next are registers.

        `offset_wh` [M] is what `offset_wh` was when those energies were booked. NaN where that is not known any more:
        the count of that meter starts with its next register, and what flowed until then is lost.
        """
        state, known = self._state.arrays, np.isfinite(offset_wh)
        state["last_wh"][:] = np.where(known, state["last_wh"] - offset_wh, np.nan)
        state["offset_wh"][known] += offset_wh[known]
        for name in ("gap_wh2", "gap_h"):
            state[name][~known] = 0.0
        self._row_wh[:] = np.nan

    def close(self, now_s: float) -> AlignedRows | None:
        """The rows that ended and are complete, or whose grace time is over at `now_s`; None if there is none."""
        if self._blocks:
            blocks, self._blocks = self._blocks, []
            times = np.concatenate([b[0] for b in blocks])
            return self._rows(times, np.concatenate([b[1] for b in blocks]))
        if self.next_s is None:
            first = min((s.time_s[0] for s in self._samples if s.time_s), default=None)
            if first is None:
                return None
            self.next_s = math.ceil(first / self.interval_s) * self.interval_s
        ends, registers, errors = [], [], []
        while self._complete(self.next_s, now_s):
            row = [self._boundary(j, self.next_s) for j in range(len(self.meters))]
            ends.append(self.next_s)
            registers.append([r[0] for r in row])
            errors.append([r[1] for r in row])
            self.next_s += self.interval_s
            if len(ends) == SAMPLES_MAX:
                break
        if not ends:
            return None
        self._forget()
        return self._align(np.array(ends), np.array(registers), np.array(errors))

    def rebuild(self, ends_s: Floats, booked_wh: Floats, sd_wh: Floats, flags: Bytes) -> AlignedRows:
        """Rows of the past from stored booked energies; the first row only serves as the start of the second.

        The differences are those of the kernel bit for bit; lost energies are told by the caller.
        """
        zeros = np.zeros_like(booked_wh[1:])
        return AlignedRows(
            ends_s[1:],
            self.interval_s / HOUR_S,
            booked_wh[1:],
            np.diff(booked_wh, axis=0),
            sd_wh[1:],
            zeros,
            flags[1:],
        )

    def _complete(self, end_s: float, now_s: float) -> bool:
        if now_s < end_s:
            return False
        if now_s >= end_s + min(GRACE_S, self.interval_s):
            return True
        return all(s.time_s and s.time_s[-1] >= end_s for s in self._samples) and not any(
            awaited_s == end_s and not self._samples[j].exact(end_s) for j, awaited_s in self._awaited.items()
        )

    def _boundary(self, j: int, end_s: float) -> tuple[float, float]:
        """Register of meter j at the boundary and its standard error; NaN where the samples do not tell it."""
        s = self._samples[j]
        after = bisect.bisect_left(s.time_s, end_s)
        before = after - 1
        fine = float(self._resolution_sd[j])
        if after < len(s.time_s) and (s.time_s[after] == end_s or (before < 0 and s.time_s[after] - end_s <= 0.5)):
            power = self._power(s, max(before, 0), after)
            return s.wh[after], math.hypot(fine, power * s.error_s[after])
        if before < 0:
            return math.nan, fine
        if after == len(s.time_s):
            gap_s = end_s - s.time_s[before]
            if gap_s > NEAR * self.interval_s:
                return math.nan, fine
            power = self._power(s, max(before - 1, 0), before)
            return s.wh[before] + power * gap_s, math.hypot(fine, power * math.hypot(s.error_s[before], gap_s))
        span_s = s.time_s[after] - s.time_s[before]
        near_s = min(end_s - s.time_s[before], s.time_s[after] - end_s)
        # Beside a sample the register is known, whatever lies between that and the next: a poll an interval is enough.
        if span_s > self.interval_s * (2.0 if near_s <= NEAR * self.interval_s else 1.0):
            return math.nan, fine
        power = self._power(s, before, after)
        error_s = math.hypot(max(s.error_s[before], s.error_s[after]), ROUGHNESS * near_s)
        return s.wh[before] + power * (end_s - s.time_s[before]), math.hypot(fine, power * error_s)

    @staticmethod
    def _power(s: _Samples, before: int, after: int) -> float:
        """Mean power between two samples, Wh per second; 0 where the register fell."""
        span_s = s.time_s[after] - s.time_s[before]
        return max(0.0, (s.wh[after] - s.wh[before]) / span_s) if span_s > 0 else 0.0

    def _forget(self) -> None:
        """Drop the samples that no later boundary needs: all but the last one before it."""
        assert self.next_s is not None
        for s in self._samples:
            drop = bisect.bisect_left(s.time_s, self.next_s - self.interval_s) - 1
            if drop > 0:
                del s.time_s[:drop], s.error_s[:drop], s.wh[:drop]

    def _rows(self, times: Floats, wh: Floats) -> AlignedRows | None:
        """Rows that stand on the grid; absent times become rows in which nobody answered."""
        start = times[0] if self.next_s is None else self.next_s
        place = np.rint((times - start) / self.interval_s).astype(np.intp)
        fresh = place >= 0
        self.counters.late += int((~fresh).sum())
        if not fresh.any():
            return None
        place, wh = place[fresh], wh[fresh]
        count = int(place[-1]) + 1
        if count != len(place):
            whole = np.full((count, wh.shape[1]), np.nan)
            whole[place] = wh
            wh = whole
        ends = start + self.interval_s * np.arange(count)
        self.next_s = float(ends[-1] + self.interval_s)
        # Without read times every read may be late; the mean delay is the loss model's.
        power = np.abs(np.diff(wh, axis=0, prepend=self._row_wh[None, :])) / self.interval_s
        self._row_wh[:] = wh[-1]
        sd = np.sqrt(
            self._resolution_sd**2 + (self._jitter_s * np.nan_to_num(np.minimum(power, self._limit_w / HOUR_S))) ** 2
        )
        return self._align(ends, wh, sd)

    def _align(self, ends: Floats, wh: Floats, sd: Floats) -> AlignedRows:
        shape = wh.shape
        booked, energy, error, lost = (np.empty(shape) for _ in range(4))
        rows = AlignedRows(ends, self._state.row_h, booked, energy, error, lost, np.empty(shape, np.uint8))
        utc_hour = ((ends - 0.5 * self.interval_s) % DAY_S // HOUR_S).astype(np.int32)
        _align.align_rows(self._state, np.ascontiguousarray(wh), np.ascontiguousarray(sd), utc_hour, rows)
        return rows
