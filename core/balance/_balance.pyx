# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The balance kernel: aligned energies -> residual -> Kalman row, streaming and without allocation.

Every `def` validates shapes, then runs one `nogil` block over caller-owned arrays, in place. What each step means is
told in `core.balance.rows`, `core.balance.losses` and `core.balance.tracker`; this file only knows how.
"""

from libc.math cimport fabs, fmax, sqrt
from libc.stdint cimport int32_t, uint8_t

cdef enum:  # of the flags of one register at one boundary, core.registers.align.Flag
    MISSED = 1
    LONG_GAP = 32
    NEVER_READ = 64
    STANDS = 128

cdef double BOUNDED = 1.0 / 9.0  # a register that stands errs by a step at most: it lacks the heavy tail of a gap

cdef double UNKNOWN_WH2 = 1e12  # variance of what was never read: the balance starts again behind it


def residual_rows(
    const double[:, ::1] energy,          # IN [T, M] Wh
    const double[:, ::1] sd,              # IN [T, M] standard error of the register at the row's end, Wh
    const double[:, ::1] lost,            # IN [T, M] Wh^2
    const uint8_t[:, ::1] flags,    # IN [T, M]
    const int32_t[::1] columns,               # IN [N + 1] of the main meter, then of the sub-meters
    const double[::1] sign,               # IN [N + 1] +1, -1; the main meter's is +1
    rows_out,                             # OUT core.balance.rows.ZoneRows of T rows, filled but for `ends_s`
    double[::1] read,                     # OUT [T] share of the meters that were read
):
    """Residual of one zone: main minus the signed sum of its sub-meters, with its variances."""
    cdef double[:, ::1] subs = rows_out.subs_wh
    cdef double[::1] main = rows_out.main_wh, residual = rows_out.residual_wh, boundary = rows_out.boundary_wh2
    cdef double[::1] lost_out = rows_out.lost_wh2, gap_out = rows_out.gap_wh2
    cdef Py_ssize_t rows = energy.shape[0], count = columns.shape[0], meters = energy.shape[1], t, k
    cdef double total, variance, gap, lost_here, answered, error
    cdef int32_t column
    if (sign.shape[0] != count or subs.shape[0] != rows or subs.shape[1] != count - 1 or main.shape[0] != rows
            or residual.shape[0] != rows or boundary.shape[0] != rows or lost_out.shape[0] != rows
            or gap_out.shape[0] != rows or read.shape[0] != rows or sd.shape[0] != rows or sd.shape[1] != meters
            or flags.shape[0] != rows or flags.shape[1] != meters
            or lost.shape[0] != rows or lost.shape[1] != meters):
        raise ValueError("residual_rows: shapes do not agree")
    for k in range(count):
        if columns[k] < 0 or columns[k] >= meters:
            raise ValueError("residual_rows: a column is out of range")
    with nogil:
        for t in range(rows):
            total = variance = gap = lost_here = answered = 0.0
            for k in range(count):
                column = columns[k]
                if k > 0:
                    subs[t, k - 1] = sign[k] * energy[t, column]
                    total += subs[t, k - 1]
                error = sd[t, column]
                if flags[t, column] & NEVER_READ:
                    variance += UNKNOWN_WH2
                elif flags[t, column] & LONG_GAP:
                    gap += error * error * (BOUNDED if flags[t, column] & STANDS else 1.0)
                else:
                    variance += error * error
                lost_here += lost[t, column]
                if not flags[t, column] & MISSED:
                    answered += 1.0
            main[t] = energy[t, columns[0]]
            residual[t] = main[t] - total
            boundary[t] = variance
            lost_out[t] = lost_here
            gap_out[t] = gap
            read[t] = answered / count


def explain_rows(
    const double[:, ::1] subs,       # IN [T, N] Wh
    const double[::1] main,          # IN [T] Wh
    const int32_t[::1] hour,         # IN [T] hour of the day of each row's middle
    const double[::1] warm,          # IN [T] cosine and
    const double[::1] cool,          # IN [T] sine of that time of day
    const double[::1] x,             # IN [24 + 7 + N] coefficients, in the order of core.balance.losses
    double per_hour,                 # regressor of the unmetered load
    double per_main2,                # of the copper, per Wh^2 of the main meter
    double per_own2,                 # of a flat's own copper, per Wh^2
    double limit,                    # Wh of a flat beyond which it is the end of a gap
    double[::1] expected,            # OUT [T] Wh, but for the read delay
    double[::1] own2,                # OUT [T] sum over the flats of the square of their own copper's regressor, Wh^2
):
    """phi @ x without making phi, each row summed in the same order however many rows there are."""
    cdef Py_ssize_t rows = subs.shape[0], count = subs.shape[1], t, j
    cdef double total, own, used, square
    if (main.shape[0] != rows or hour.shape[0] != rows or warm.shape[0] != rows or cool.shape[0] != rows
            or x.shape[0] != 31 + count or expected.shape[0] != rows or own2.shape[0] != rows):
        raise ValueError("explain_rows: shapes do not agree")
    for t in range(rows):
        if not 0 <= hour[t] < 24:
            raise ValueError("explain_rows: an hour is out of range")
    with nogil:
        for t in range(rows):
            own = square = total = 0.0
            for j in range(count):
                used = subs[t, j]
                total += used * x[31 + j]
                used = used if used < limit else limit
                used = used if used > -limit else -limit
                used = used * used * per_own2
                own += used
                square += used * used
            own2[t] = square
            expected[t] = (total + per_hour * x[hour[t]] + main[t] * main[t] * per_main2 * x[24] + own * x[25]
                           + main[t] * (x[26] + warm[t] * x[27] + cool[t] * x[28] + x[29]))


def own_windows(
    const double[:, ::1] subs,       # IN [T, N] Wh
    const Py_ssize_t[::1] start,        # IN [W] first row and
    const Py_ssize_t[::1] stop,         # IN [W] the row behind the last of each window
    double per_own2,                 # own copper's regressor per Wh^2
    double limit,                    # Wh of a flat beyond which it is the end of a gap
    double[::1] work,                # SCRATCH [N]
    double[:, ::1] own,              # OUT [W, N] sum of the regressor over each window
    double[::1] square,              # OUT [W] sum over window and flats of its square
):
    """What each flat's own power loses in some stretches of rows, per unit of its coefficient."""
    cdef Py_ssize_t rows = subs.shape[0], count = subs.shape[1], windows = start.shape[0], w, j
    if (stop.shape[0] != windows or own.shape[0] != windows or own.shape[1] != count or square.shape[0] != windows
            or work.shape[0] != count):
        raise ValueError("own_windows: shapes do not agree")
    for w in range(windows):
        if not 0 <= start[w] <= stop[w] <= rows:
            raise ValueError("own_windows: a window is out of range")
    if not count:
        return
    with nogil:
        for w in range(windows):
            square[w] = 0.0
            for j in range(count):
                own[w, j] = work[j] = 0.0
            if start[w] < stop[w]:
                _own_window(&subs[start[w], 0], stop[w] - start[w], count, per_own2, limit, &work[0], &own[w, 0])
            for j in range(count):
                square[w] += work[j]


cdef void _own_window(
    const double* subs, Py_ssize_t rows, Py_ssize_t count, double per_own2, double limit, double* work, double* own
) noexcept nogil:
    cdef Py_ssize_t t, j
    cdef double used
    for t in range(rows):
        for j in range(count):  # no sum runs along it, so that the compiler may take several flats at a time
            used = subs[t * count + j]
            used = used if used < limit else limit
            used = used if used > -limit else -limit
            used = used * used * per_own2
            own[j] += used
            work[j] += used * used


def told_windows(
    const Py_ssize_t[::1] rows,      # IN [5] of all time: of the first row here; earliest, likeliest and latest onset;
                                     # first of the end's doubt
    Py_ssize_t until,                # first row that surely lies behind the end
    const int32_t[::1] slot,         # IN [T] slot of the day
    double row_h,
    double drift,                    # what a level gains in a day, in units of itself, one standard deviation
    const double[::1] swing,         # IN [S] variance of a row's energy in each slot
    const Py_ssize_t[::1] start,     # IN [W]
    const Py_ssize_t[::1] stop,      # IN [W]
    double[:, ::1] out,              # OUT [W, S + 3] levels by slot, growth, doubt of the onset, doubt of the end
    double[::1] variance,            # OUT [W] of the swing
):
    """What a told loss of unit level may add to stretches of rows."""
    cdef Py_ssize_t count = slot.shape[0], windows = start.shape[0], slots = swing.shape[0], w, t, at
    cdef Py_ssize_t first, lo, onset, hi, faded
    if (rows.shape[0] != 5 or stop.shape[0] != windows or out.shape[0] != windows or out.shape[1] != slots + 3
            or variance.shape[0] != windows):
        raise ValueError("told_windows: shapes do not agree")
    for t in range(count):
        if not 0 <= slot[t] < slots:
            raise ValueError("told_windows: a slot is out of range")
    for w in range(windows):
        if not 0 <= start[w] <= stop[w] <= count:
            raise ValueError("told_windows: a window is out of range")
    first, lo, onset, hi, faded = rows[0], rows[1], rows[2], rows[3], rows[4]
    with nogil:
        for w in range(windows):
            variance[w] = 0.0
            for t in range(slots + 3):
                out[w, t] = 0.0
            for t in range(start[w], stop[w]):
                at = first + t
                if onset <= at < faded:
                    out[w, slot[t]] += 1.0
                    out[w, slots] += drift * sqrt((at - onset) * row_h / 24.0)
                if lo <= at < until:
                    variance[w] += swing[slot[t]]
                    if at < hi and hi > lo + 1:
                        out[w, slots + 1] += 1.0
                    if at >= faded:
                        out[w, slots + 2] += 1.0


def absorb_rows(
    double[::1] x,                   # STATE [1 + P] offset of the balance, then the coefficients
    double[:, ::1] p,                # STATE [1 + P, 1 + P] covariance, full and symmetric
    const double[:, ::1] phi,        # IN [T, P] regressors, Wh per unit of coefficient
    const double[::1] y,             # IN [T] residual, Wh
    const double[::1] boundary,      # IN [T] variance at the row's end, Wh^2
    const double[::1] drift,         # IN [T] variance of energy that nothing explains, Wh^2
    const double[::1] hours,         # IN [T]
    const double[::1] walk,          # IN [P] variance that each coefficient gains in an hour
    const double[::1] keep,          # IN [P] what remains of each coefficient after an hour (1: random walk)
    const double[::1] late,          # IN [T] power at the boundary, Wh per second of read delay
    Py_ssize_t skew,                 # index in x of the mean read delay, 0 where there is none
    double clip,                     # innovations beyond so many standard deviations are clipped
    double[::1] work,                # SCRATCH [1 + P]
    double[:, ::1] out,              # OUT [T, 2] innovation and its variance
):
    """One Kalman row after the other: predict the balance's offset, then observe that it is zero but for its error."""
    cdef Py_ssize_t n = x.shape[0], rows = phi.shape[0], t
    if (p.shape[0] != n or p.shape[1] != n or phi.shape[1] != n - 1 or y.shape[0] != rows
            or boundary.shape[0] != rows or drift.shape[0] != rows or hours.shape[0] != rows
            or walk.shape[0] != n - 1 or keep.shape[0] != n - 1 or late.shape[0] != rows or work.shape[0] != n
            or out.shape[0] != rows or out.shape[1] != 2 or skew < 0 or skew >= n):
        raise ValueError("absorb_rows: shapes do not agree")
    with nogil:
        for t in range(rows):
            _absorb_row(&x[0], &p[0, 0], &phi[t, 0], y[t], boundary[t], drift[t], hours[t], &walk[0], &keep[0],
                        late[t], skew, clip, &work[0], &out[t, 0], n)


cdef void _absorb_row(
    double* x, double* p, const double* phi, double y, double boundary, double drift, double hours,
    const double* walk, const double* keep, double late, Py_ssize_t skew, double clip, double* work, double* out,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t i, j
    cdef double total, offset, gain, f, innovation, scatter
    cdef double* row
    # Predict: offset += phi . coefficients - y; its covariance follows.
    # The covariance is symmetric: its rows are added up instead of its columns, most regressors of an hour being zero.
    offset = x[0] - y
    for j in range(n):
        work[j] = 0.0
    for i in range(1, n):
        f = phi[i - 1]
        if f != 0.0:
            row = p + i * n
            for j in range(n):
                work[j] += row[j] * f
            offset += f * x[i]
    total = 0.0
    for i in range(1, n):
        total += work[i] * phi[i - 1]
    p[0] += 2.0 * work[0] + total + drift
    x[0] = offset
    for i in range(1, n):
        p[i] += work[i]
        p[i * n] = p[i]
    # Coefficients walk, or fall back towards zero (their mean is taken off before).
    for i in range(1, n):
        if keep[i - 1] != 1.0:
            f = 1.0 - (1.0 - keep[i - 1]) * hours
            x[i] *= f
            for j in range(n):
                p[i * n + j] *= f
                p[j * n + i] *= f
        p[i * n + i] += walk[i - 1] * hours
    # Observe: 0 = offset - late * skew + error.
    for i in range(n):
        work[i] = p[i * n] - late * p[i * n + skew]
    scatter = work[0] - late * work[skew] + boundary
    innovation = -(x[0] - late * x[skew])
    out[0] = innovation
    out[1] = scatter
    # A late read of the main meter is an outlier of its boundary, not of the energy (Huber 1964).
    if innovation * innovation > clip * clip * scatter:
        scatter = innovation * innovation / (clip * clip)
    f = innovation / scatter
    for i in range(n):
        x[i] += work[i] * f
    for i in range(n):
        row = p + i * n
        gain = work[i] / scatter
        for j in range(n):
            row[j] -= gain * work[j]


def track_rows(
    double[::1] state,               # STATE [5] offset, its variance, outliers in a row (signed), CUSUM, booked energy
    const double[::1] r,             # IN [T] unexplained energy, Wh
    const double[::1] boundary,      # IN [T] variance at the row's end, Wh^2
    const double[::1] drift,         # IN [T] variance of true unexplained energy, Wh^2
    const double[::1] allowed,       # IN [T] energy that the CUSUM lets pass, Wh
    double clip,
    double[:, ::1] out,              # OUT [T, 3] booked unexplained energy after filtering, its variance, CUSUM
):
    """Follow the cumulative unexplained energy through boundary errors; an outlier that stays is energy."""
    cdef Py_ssize_t t, rows = r.shape[0]
    cdef double offset, scatter, gain, side, moved
    if (state.shape[0] != 5 or boundary.shape[0] != rows or drift.shape[0] != rows or allowed.shape[0] != rows
            or out.shape[0] != rows or out.shape[1] != 3):
        raise ValueError("track_rows: shapes do not agree")
    with nogil:
        for t in range(rows):
            offset = state[0] - r[t]   # estimate minus observation of the cumulative energy
            state[1] += drift[t]
            scatter = state[1] + boundary[t]
            side = 0.0
            if offset * offset > clip * clip * scatter:
                side = 1.0 if offset > 0 else -1.0
                if side * state[2] > 0:
                    side += state[2]
                # Two late reads in a row happen once a year; a third outlier on the same side is energy.
                if fabs(side) < 3.0:
                    scatter = offset * offset / (clip * clip)
                else:
                    state[1] += offset * offset
                    scatter = state[1] + boundary[t]
            gain = state[1] / scatter
            moved = -gain * offset
            state[0] = offset + moved
            state[1] -= gain * state[1]
            state[2] = side
            state[3] = fmax(0.0, state[3] + moved - allowed[t])
            state[4] += moved
            out[t, 0] = state[4]
            # While it disagrees with what is observed, it is no more certain than that.
            out[t, 1] = state[1] + fmax(0.0, state[0] * state[0] - 9.0 * boundary[t])
            out[t, 2] = state[3]
