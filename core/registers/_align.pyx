# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The balance kernel: registers -> aligned energies -> residual -> Kalman row, streaming and without allocation.

Every `def` validates shapes, then runs one `nogil` block over caller-owned arrays, in place. What each step means is
told in `core.registers.align`, `core.balance.losses` and `core.detection.glr`; this file only knows how.
"""

from libc.math cimport fabs, fmax, fmin, isnan, sqrt
from libc.stdint cimport int32_t, uint8_t

cdef enum:  # flags of one register at one boundary, as in core.registers.align.Flag
    MISSED = 1
    REPLACED = 2
    ROLLOVER = 4
    JUMP = 8
    FIRST = 16

cdef double LONG_WH = 1e5  # added to the standard error in a long gap, whose error lasts from row to row
cdef double FRESH_SHARE = 0.1  # of the limit: what a meter may use, one standard deviation, before any row is known
cdef double UNKNOWN_WH = 1e6  # standard error of what was never read: the balance starts anew behind it


def align_rows(
    const double[:, ::1] wh,         # IN  [T, M] registers, NaN where not read
    const double[:, ::1] sd_wh,      # IN  [T, M] standard error of each register at the boundary
    const double[::1] hours,         # IN  [T] length of the row that ends here, h
    const int32_t[::1] bins,         # IN  [T] hour of day of the row
    const uint8_t[::1] signed_net,   # IN  [M] 1 where the register may fall (export)
    const double[::1] limit_w,       # IN  [M] more than this is no load
    double[::1] last_wh,             # STATE [M] last register that was read, NaN before the first
    double[::1] offset_wh,           # STATE [M] booked energy minus register, since replacements
    double[::1] booked_wh,           # STATE [M] energy booked so far: a register that never breaks
    double[::1] gap_var,             # STATE [M] variance of what was booked without a reading
    double[::1] gap_h,               # STATE [M] hours without a reading
    double[:, ::1] profile_w,        # STATE [M, 24] mean power by hour of day
    double[:, ::1] seen,             # STATE [M, 24] how many rows stand behind it
    double[::1] spread,              # STATE [M] variance of a row's power around the profile, W^2
    double[:, ::1] booked,           # OUT [T, M] booked energy at the row's end, Wh
    double[:, ::1] energy,           # OUT [T, M] its growth over the row, Wh
    double[:, ::1] error,            # OUT [T, M] standard error of `booked`, Wh (single precision); negative: not
                                     # read; beyond -LONG_WH: in a gap of three rows or more
    double[:, ::1] lost,             # OUT [T, M] variance of energy that is lost for good in the row, Wh^2
    uint8_t[:, ::1] flags,           # OUT [T, M]
    double memory,                   # rows per bin that the profile remembers
):
    """Turn registers into energies that add up whatever is missing; NumPy oracle in tests/core."""
    cdef Py_ssize_t rows = wh.shape[0], meters = wh.shape[1], t
    if (sd_wh.shape[0] != rows or booked.shape[0] != rows or energy.shape[0] != rows or error.shape[0] != rows
            or lost.shape[0] != rows or flags.shape[0] != rows or hours.shape[0] != rows or bins.shape[0] != rows):
        raise ValueError("align_rows: rows do not agree")
    if (sd_wh.shape[1] != meters or booked.shape[1] != meters or energy.shape[1] != meters
            or error.shape[1] != meters or lost.shape[1] != meters or flags.shape[1] != meters
            or signed_net.shape[0] != meters or limit_w.shape[0] != meters or last_wh.shape[0] != meters
            or offset_wh.shape[0] != meters or booked_wh.shape[0] != meters or gap_var.shape[0] != meters
            or gap_h.shape[0] != meters
            or spread.shape[0] != meters or profile_w.shape[0] != meters or seen.shape[0] != meters
            or profile_w.shape[1] != 24 or seen.shape[1] != 24):
        raise ValueError("align_rows: meters do not agree")
    for t in range(rows):
        if bins[t] < 0 or bins[t] > 23:
            raise ValueError("align_rows: an hour of day is out of range")
    with nogil:
        for t in range(rows):
            _align_row(&wh[t, 0], &sd_wh[t, 0], hours[t], bins[t], &signed_net[0], &limit_w[0], &last_wh[0],
                       &offset_wh[0], &booked_wh[0], &gap_var[0], &gap_h[0], &profile_w[0, 0], &seen[0, 0], &spread[0],
                       &booked[t, 0], &energy[t, 0], &error[t, 0], &lost[t, 0], &flags[t, 0], memory, meters)


cdef void _align_row(
    const double* wh, const double* sd_wh, double hours, int32_t hour, const uint8_t* signed_net,
    const double* limit_w, double* last_wh, double* offset_wh, double* booked_wh, double* gap_var, double* gap_h,
    double* profile_w, double* seen, double* spread, double* booked, double* energy, double* error, double* lost,
    uint8_t* flags, double memory, Py_ssize_t meters,
) noexcept nogil:
    cdef Py_ssize_t j
    cdef double expected, gained, before, power, miss, most, wrap, fresh, around
    cdef double* mean
    cdef double* count
    for j in range(meters):
        mean = profile_w + 24 * j + hour
        count = seen + 24 * j + hour
        expected = mean[0] * hours
        before = booked_wh[j]
        lost[j] = 0.0
        flags[j] = 0
        if isnan(wh[j]):
            flags[j] = MISSED
            if not isnan(last_wh[j]):
                booked_wh[j] = before + expected
                # Deviations from the profile last for an hour, and most of them for as long as the gap.
                around = spread[j] if spread[j] > 0.0 else (FRESH_SHARE * limit_w[j]) * (FRESH_SHARE * limit_w[j])
                gap_var[j] += around * hours * (1.0 + 0.8 * (2.0 * gap_h[j] + hours))
                gap_h[j] += hours
                error[j] = -<double> <float> (sqrt(gap_var[j]) + (LONG_WH if gap_h[j] > 2.5 * hours else 1e-3))
            else:
                error[j] = -UNKNOWN_WH
        elif isnan(last_wh[j]):  # the first reading starts the count
            flags[j] = FIRST
            offset_wh[j] = before - wh[j]
            last_wh[j] = wh[j]
            error[j] = <double> <float> sd_wh[j]
            lost[j] = UNKNOWN_WH * UNKNOWN_WH
        else:
            gained = wh[j] - last_wh[j]
            fresh = before - (last_wh[j] + offset_wh[j])  # booked ahead of the last reading
            most = 4.0 * fabs(fresh + expected) + limit_w[j] * (gap_h[j] + hours)
            if gained < 0 and not signed_net[j]:
                wrap = _wrap(last_wh[j])
                if last_wh[j] >= 0.999 * wrap and gained + wrap <= most:
                    gained += wrap
                    offset_wh[j] += wrap
                    flags[j] = ROLLOVER
                else:
                    flags[j] = REPLACED
            elif fabs(gained) > most:
                flags[j] = JUMP
            if flags[j] & (REPLACED | JUMP):
                booked_wh[j] = before + expected
                offset_wh[j] = booked_wh[j] - wh[j]
                # What flowed before the new meter was read may have been a shower: three times the usual scatter.
                lost[j] = gap_var[j] + 9.0 * spread[j] * hours * hours + sd_wh[j] * sd_wh[j]
            else:
                booked_wh[j] = wh[j] + offset_wh[j]
                if gap_var[j] == 0.0:  # no gap: the profile learns from whole rows only
                    power = gained / hours
                    miss = power - mean[0]
                    if count[0] == 0.0:
                        spread[j] = fmax(spread[j], power * power)
                    else:
                        spread[j] += (miss * miss - spread[j]) / (24.0 * fmin(memory, 1.0 + count[0]))
                    count[0] = fmin(memory, count[0] + 1.0)
                    mean[0] += miss / count[0]
            error[j] = <double> <float> sd_wh[j]
            last_wh[j] = wh[j]
            gap_var[j] = gap_h[j] = 0.0
        booked[j] = booked_wh[j]
        energy[j] = booked_wh[j] - before


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
