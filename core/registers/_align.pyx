# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The alignment kernel: registers -> energies between common boundaries, streaming and without allocation.

Every `def` validates shapes, then runs one `nogil` block over caller-owned arrays, in place. What each step means is
told in `core.registers.align`; this file only knows how.
"""

from libc.math cimport NAN, fabs, fmax, fmin, isnan, sqrt
from libc.stdint cimport int32_t, uint8_t

import numpy as np

cdef enum:  # flags of one register at one boundary, as in core.registers.align.Flag
    MISSED = 1
    REPLACED = 2
    ROLLOVER = 4
    JUMP = 8
    FIRST = 16
    LONG_GAP = 32
    NEVER_READ = 64
    STANDS = 128

cdef double LONG_GAP_ROWS = 2.5  # a gap of more rows than this is long: its error lasts from row to row
cdef double FRESH_SHARE = 0.1  # of the limit: what a meter may use, one standard deviation, before any row is known
cdef double UNKNOWN_WH2 = 1e12  # variance of a register that is read for the first time: the count starts behind it


cdef class AlignState:
    """What is remembered of M meters from row to row.

    last_wh: last register that was read, NaN before the first; offset_wh: booked energy minus register, since
    replacements; booked_wh: energy booked so far, a register that never breaks; gap_wh2: variance of what was booked
    without a reading; gap_h: hours without a reading; profile_w, profile_rows [M, 24]: mean power by hour of the UTC
    day, and how many rows stand behind it; spread_w2: variance of a row's power around the profile.

    Args:
        limit_w: [M] more than this is no load.
        signed_net: [M] uint8, 1 where the register may fall (import minus export).
        row_h: length of a row.
        memory_rows: rows per hour of day that the profile remembers.
        white, lasting: how a gap's variance grows, in units of the spread: `white` with its length in hours, `lasting`
            with the square of it. Within a row of minutes a load does not change: nothing of it is white.
        step_wh: [M] step of a register so coarse that it stands still for rows; 0 where it is not. None: of none.
    """

    cdef readonly dict arrays  # name -> NumPy array, for a checkpoint; the views below look at the same memory
    cdef readonly double row_h, memory_rows, white, lasting
    cdef readonly Py_ssize_t meters
    cdef double[::1] last_wh, offset_wh, booked_wh, gap_wh2, gap_h, spread_w2, still_wh
    cdef double[:, ::1] profile_w, profile_rows
    cdef double[::1] limit_w, step_wh
    cdef uint8_t[::1] signed_net

    def __init__(
        self, limit_w, signed_net, double row_h, double memory_rows, double white=1.0, double lasting=0.8, step_wh=None
    ):
        meters = len(limit_w)
        if len(signed_net) != meters or (step_wh is not None and len(step_wh) != meters):
            raise ValueError("AlignState: limits, signs and steps do not agree")
        self.step_wh = np.zeros(meters) if step_wh is None else np.array(step_wh, np.float64)
        self.limit_w = np.array(limit_w, np.float64)
        self.signed_net = np.array(signed_net, np.uint8)
        self.row_h, self.memory_rows, self.meters = row_h, memory_rows, meters
        self.white, self.lasting = white, lasting
        self.arrays = {
            "last_wh": np.full(meters, np.nan),
            "offset_wh": np.zeros(meters),
            "booked_wh": np.zeros(meters),
            "gap_wh2": np.zeros(meters),
            "gap_h": np.zeros(meters),
            "spread_w2": np.zeros(meters),
            "still_wh": np.zeros(meters),
            "profile_w": np.zeros((meters, 24)),
            "profile_rows": np.zeros((meters, 24)),
        }
        self.last_wh = self.arrays["last_wh"]
        self.offset_wh = self.arrays["offset_wh"]
        self.booked_wh = self.arrays["booked_wh"]
        self.gap_wh2 = self.arrays["gap_wh2"]
        self.gap_h = self.arrays["gap_h"]
        self.spread_w2 = self.arrays["spread_w2"]
        self.still_wh = self.arrays["still_wh"]
        self.profile_w = self.arrays["profile_w"]
        self.profile_rows = self.arrays["profile_rows"]


def align_rows(
    AlignState state not None,
    const double[:, ::1] wh,         # IN [T, M] registers, NaN where not read
    const double[:, ::1] read_sd_wh,  # IN [T, M] standard error of each register at the boundary, where read
    const int32_t[::1] utc_hour,         # IN [T] hour of day of the row
    out,                             # OUT core.registers.align.AlignedRows of T rows, filled
):
    """Turn registers into energies that add up whatever is missing; NumPy oracle in tests/core."""
    cdef double[:, ::1] booked = out.booked_wh, energy = out.energy_wh, sd = out.sd_wh, lost = out.lost_wh2
    cdef uint8_t[:, ::1] flags = out.flags
    cdef Py_ssize_t rows = wh.shape[0], meters = wh.shape[1], t
    if (read_sd_wh.shape[0] != rows or booked.shape[0] != rows or energy.shape[0] != rows or sd.shape[0] != rows
            or lost.shape[0] != rows or flags.shape[0] != rows or utc_hour.shape[0] != rows):
        raise ValueError("align_rows: rows do not agree")
    if (read_sd_wh.shape[1] != meters or booked.shape[1] != meters or energy.shape[1] != meters
            or sd.shape[1] != meters or lost.shape[1] != meters or flags.shape[1] != meters or state.meters != meters):
        raise ValueError("align_rows: meters do not agree")
    for t in range(rows):
        if utc_hour[t] < 0 or utc_hour[t] > 23:
            raise ValueError("align_rows: an hour of day is out of range")
    with nogil:
        for t in range(rows):
            _align_row(state, &wh[t, 0], &read_sd_wh[t, 0], utc_hour[t], &booked[t, 0], &energy[t, 0], &sd[t, 0],
                       &lost[t, 0], &flags[t, 0])


cdef void _align_row(
    AlignState s, const double* wh, const double* read_sd_wh, int hour, double* booked, double* energy, double* sd,
    double* lost, uint8_t* flags,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double hours = s.row_h, expected, gained, before, power, deviation, limit, wrap, ahead, scatter, step
    for j in range(s.meters):
        expected = s.profile_w[j, hour] * hours
        before = s.booked_wh[j]
        lost[j] = 0.0
        flags[j] = 0
        if isnan(wh[j]):
            flags[j] = MISSED
            if not isnan(s.last_wh[j]):
                s.booked_wh[j] = before + expected
                # Deviations from the profile last for an hour, and most of them for as long as the gap.
                scatter = s.spread_w2[j]
                if scatter <= 0.0:
                    scatter = (FRESH_SHARE * s.limit_w[j]) * (FRESH_SHARE * s.limit_w[j])
                s.gap_wh2[j] += scatter * hours * (s.white + s.lasting * (2.0 * s.gap_h[j] + hours))
                s.gap_h[j] += hours
                if s.gap_h[j] > LONG_GAP_ROWS * hours:
                    flags[j] |= LONG_GAP
                sd[j] = <double> <float> sqrt(s.gap_wh2[j])
            else:
                flags[j] |= NEVER_READ
                sd[j] = NAN
        elif isnan(s.last_wh[j]):  # the first reading starts the count
            flags[j] = FIRST
            s.offset_wh[j] = before - wh[j] - 0.5 * s.step_wh[j]
            s.last_wh[j] = wh[j]
            sd[j] = <double> <float> read_sd_wh[j]
            lost[j] = UNKNOWN_WH2
        elif s.step_wh[j] > 0.0 and wh[j] == s.last_wh[j]:
            # It has gone on, but by less than a step: as the profile has it, and never beyond.
            flags[j] = STANDS | LONG_GAP
            step = s.step_wh[j]
            s.booked_wh[j] = fmax(before, fmin(before + expected, wh[j] + s.offset_wh[j] + step))
            s.gap_h[j] += hours
            # Large loads come in lumps of about a step: nothing is sure but that it is within.
            s.gap_wh2[j] = step * step / 12.0 * fmin(1.0, fabs(s.booked_wh[j] - s.offset_wh[j] - wh[j]) / step)
            sd[j] = <double> <float> sqrt(s.gap_wh2[j])
        else:
            gained = wh[j] - s.last_wh[j]
            ahead = before - (s.last_wh[j] + s.offset_wh[j])  # booked by estimate, beyond the last reading
            # A register that stood still, read but not fed anew, catches up: by what was to be expected meanwhile.
            limit = 4.0 * (fabs(ahead + expected) + s.still_wh[j]) + s.limit_w[j] * (s.gap_h[j] + hours)
            if gained < 0 and not s.signed_net[j]:
                wrap = _wrap(s.last_wh[j])
                if s.last_wh[j] >= 0.999 * wrap and gained + wrap <= limit:
                    gained += wrap
                    s.offset_wh[j] += wrap
                    flags[j] = ROLLOVER
                else:
                    flags[j] = REPLACED
            elif fabs(gained) > limit:
                flags[j] = JUMP
            if flags[j] & (REPLACED | JUMP):
                s.booked_wh[j] = before + expected
                s.offset_wh[j] = s.booked_wh[j] - wh[j] - 0.5 * s.step_wh[j]
                # What flowed before the new meter was read may have been a shower: three times the usual scatter.
                lost[j] = s.gap_wh2[j] + 9.0 * s.spread_w2[j] * hours * hours + read_sd_wh[j] * read_sd_wh[j]
            elif s.step_wh[j] > 0.0:
                _move(s, j, wh[j], gained, hour, read_sd_wh[j], &sd[j], &lost[j])
                s.last_wh[j] = wh[j]
                s.gap_wh2[j] = s.gap_h[j] = 0.0
                booked[j] = s.booked_wh[j]
                energy[j] = s.booked_wh[j] - before
                continue
            else:
                s.booked_wh[j] = wh[j] + s.offset_wh[j]
                if s.gap_wh2[j] == 0.0:  # no gap: the profile learns from whole rows only
                    power = gained / hours
                    deviation = power - s.profile_w[j, hour]
                    if s.profile_rows[j, hour] == 0.0:
                        s.spread_w2[j] = fmax(s.spread_w2[j], power * power)
                    else:
                        s.spread_w2[j] += (deviation * deviation - s.spread_w2[j]) / (
                            24.0 * fmin(s.memory_rows, 1.0 + s.profile_rows[j, hour]))
                    s.profile_rows[j, hour] = fmin(s.memory_rows, s.profile_rows[j, hour] + 1.0)
                    s.profile_w[j, hour] += deviation / s.profile_rows[j, hour]
            s.still_wh[j] = s.still_wh[j] + fabs(expected) if gained == 0.0 else 0.0
            sd[j] = <double> <float> read_sd_wh[j]
            s.last_wh[j] = wh[j]
            s.gap_wh2[j] = s.gap_h[j] = 0.0
        booked[j] = s.booked_wh[j]
        energy[j] = s.booked_wh[j] - before


cdef void _move(
    AlignState s, Py_ssize_t j, double wh, double gained, int hour, double read_sd_wh, double* sd, double* lost
) noexcept nogil:
    """A coarse register has moved: within the row, its energy was a whole number of steps. Its profile learns."""
    cdef double step = s.step_wh[j], power = gained / (s.gap_h[j] + s.row_h), was = 0.0, known = 0.0, deviation
    # Half of what it may have gone on since: a row in which it moves has twice the energy of others.
    cdef double beyond = 0.5 * fmin(step, 2.0 * fabs(power) * s.row_h)
    cdef Py_ssize_t k, h, rows = <Py_ssize_t> (s.gap_h[j] / s.row_h + 1.5)
    s.booked_wh[j] = wh + s.offset_wh[j] + beyond
    sd[0] = <double> <float> sqrt(beyond * beyond / 3.0 + fmax(0.0, read_sd_wh * read_sd_wh - step * step / 12.0))
    for h in range(24):
        known += s.profile_rows[j, h]
    if known == 0.0:
        lost[0] = step * step / 12.0  # how far it had gone within its first step nobody knew
    rows = rows if rows * s.row_h < 24.0 else <Py_ssize_t> (24.0 / s.row_h)
    for k in range(rows):
        h = (hour + 24 - <Py_ssize_t> (k * s.row_h)) % 24
        was += s.profile_w[j, h] / rows
        s.profile_rows[j, h] = fmin(s.memory_rows, s.profile_rows[j, h] + 1.0)
        s.profile_w[j, h] += (power - s.profile_w[j, h]) / s.profile_rows[j, h]
    deviation = power - was
    if known == 0.0:
        s.spread_w2[j] = power * power
    else:
        s.spread_w2[j] += (deviation * deviation - s.spread_w2[j]) / fmin(24.0 * s.memory_rows, 1.0 + known / rows)


cdef double _wrap(double wh) noexcept nogil:
    cdef double limit = 1.0
    while limit <= wh:
        limit *= 10.0
    return limit


def spread_gaps(double[:, ::1] subs, const uint8_t[:, ::1] missed):
    """Spread each gap's total over it, the row that answers included, as the estimates were; in place.

    A gap that no row answers is left as it is.
    """
    cdef Py_ssize_t rows = subs.shape[0], count = subs.shape[1], j, t, start
    if missed.shape[0] != rows or missed.shape[1] != count:
        raise ValueError("spread_gaps: shapes do not agree")
    with nogil:
        for j in range(count):
            start = -1
            for t in range(rows):
                if missed[t, j]:
                    if start < 0:
                        start = t
                elif start >= 0:
                    _spread(&subs[0, 0], start, t, j, count)
                    start = -1


cdef void _spread(double* subs, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t j, Py_ssize_t count) noexcept nogil:
    cdef double total = subs[stop * count + j], shape = 0.0, mean
    cdef Py_ssize_t t
    for t in range(start, stop):
        total += subs[t * count + j]
        shape += fmax(subs[t * count + j], 0.0)
    mean = shape / (stop - start)
    shape += mean
    for t in range(start, stop + 1):
        if shape > 0:
            subs[t * count + j] = total * (fmax(subs[t * count + j], 0.0) if t < stop else mean) / shape
        else:
            subs[t * count + j] = total / (stop - start + 1)
