from core.arrays import Bytes, Floats, Ints, Ints32
from core.balance.rows import ZoneRows

def residual_rows(
    energy: Floats,
    sd: Floats,
    lost: Floats,
    flags: Bytes,
    columns: Ints32,
    sign: Floats,
    rows_out: ZoneRows,
    read: Floats,
) -> None:
    """Residual of one zone: main minus the signed sum of its sub-meters, with its variances.

    Args:
        energy: [T, M], Wh; energy of every meter in each row.
        sd: [T, M], Wh; standard error of the register at the row's end, NaN where never read.
        lost: [T, M], Wh^2; variance of energy that is lost for good.
        flags: [T, M] uint8, `core.registers.align.Flag`.
        columns: [N + 1] int32; the main meter's column, then the sub-meters'.
        sign: [N + 1], +1 or -1; what each counts, the main meter's is +1.
        rows_out: T rows of N sub-meters, filled in place but for `ends_s`.
        read: [T], filled in place; share of the N + 1 meters that were read.

    Raises:
        ValueError: shapes do not agree, or a column is out of range.
    """

def explain_rows(
    subs: Floats,
    main: Floats,
    hour: Ints32,
    warm: Floats,
    cool: Floats,
    x: Floats,
    per_hour: float,
    per_main2: float,
    per_own2: float,
    limit: float,
    expected: Floats,
    own2: Floats,
) -> None:
    """Technical loss of rows; each summed in the same order however many rows there are.

    Args:
        subs: [T, N], Wh.
        main: [T], Wh.
        hour: [T] int32; UTC hour of each row's middle.
        warm, cool: [T]; cosine and sine of that time of day.
        x: [31 + N]; coefficients in the order of core.balance.losses, that of the delay is not used.
        per_hour: sub-meter-hours of a row, the regressor of the unmetered load.
        per_main2: 1 / Wh; regressor of the copper per square of the main meter's energy.
        per_own2: 1 / Wh; the same of a flat's own copper.
        limit: Wh; more than this of a flat in a row is the end of a gap.
        expected: [T], Wh, filled in place.
        own2: [T], Wh^2, filled in place; squares of the flats' own copper, summed, per unit of its coefficient.

    Raises:
        ValueError: shapes do not agree, or an hour is none.
    """

def own_windows(
    subs: Floats, start: Ints, stop: Ints, per_own2: float, limit: float, work: Floats, own: Floats, square: Floats
) -> None:
    """What each flat's own power loses in stretches of rows, per unit of its coefficient.

    Args:
        subs: [T, N], Wh.
        start, stop: [W]; first row of each window, and the row behind its last.
        per_own2, limit: as for `explain_rows`.
        work: [N], scratch.
        own: [W, N], Wh, filled in place.
        square: [W], Wh^2, filled in place; squares of the same by row, summed over rows and flats.

    Raises:
        ValueError: shapes do not agree, or a window is out of range.
    """

def told_windows(
    rows: Ints,
    until: int,
    slot: Ints32,
    row_h: float,
    drift: float,
    swing: Floats,
    start: Ints,
    stop: Ints,
    out: Floats,
    variance: Floats,
) -> None:
    """What a told loss of unit level may add to stretches of rows.

    Args:
        rows: [5], of all time; the first row here, the earliest, likeliest and latest onset, the end's first doubt.
        until: first row of all time that surely lies behind the end.
        slot: [T] int32; slot of the day, 0 .. S - 1.
        row_h: h.
        drift: in units of the level, of a day after the onset; it grows with the root of time.
        swing: [S], Wh^2; variance of a row's energy in each slot.
        start, stop: [W]; first row of each window, and the row behind its last.
        out: [W, S + 3], filled in place; rows on by slot, growth, rows of the onset's doubt, of the end's doubt.
        variance: [W], Wh^2, filled in place.

    Raises:
        ValueError: shapes do not agree, a slot is none, or a window is out of range.
    """

def absorb_rows(
    x: Floats,
    p: Floats,
    phi: Floats,
    y: Floats,
    boundary: Floats,
    drift: Floats,
    hours: Floats,
    walk: Floats,
    keep: Floats,
    late: Floats,
    skew: int,
    clip: float,
    work: Floats,
    out: Floats,
) -> None:
    """Kalman rows: predict the balance's offset, then observe that it is zero but for the boundary's error.

    Args:
        x: [1 + P], Wh and the coefficients' units; offset of the balance, then the coefficients; updated in place.
        p: [1 + P, 1 + P]; covariance of `x`, updated in place.
        phi: [T, P], Wh per unit of coefficient.
        y: [T], Wh; residual.
        boundary: [T], Wh^2; variance of the error at the row's end.
        drift: [T], Wh^2; variance of energy that nothing explains.
        hours: [T], h.
        walk: [P], variance that each coefficient gains in an hour.
        keep: [P], what remains of each coefficient after an hour; 1 for a random walk.
        late: [T], Wh/s; power at the boundary.
        skew: index in `x` of the mean read delay, 0 where there is none.
        clip: standard deviations beyond which an innovation is clipped (Huber 1964).
        work: [1 + P], scratch.
        out: [T, 2]; innovation (Wh) and its variance (Wh^2), filled in place.

    Raises:
        ValueError: shapes do not agree.
    """

def track_rows(
    state: Floats, r: Floats, boundary: Floats, drift: Floats, allowed: Floats, clip: float, out: Floats
) -> None:
    """Follow the cumulative unexplained energy through the boundaries' errors.

    Args:
        state: [5]; offset (Wh), its variance (Wh^2), outliers in a row (signed), CUSUM (Wh), booked energy (Wh).
        r: [T], Wh; unexplained energy.
        boundary: [T], Wh^2; variance of the error at the row's end.
        drift: [T], Wh^2; variance of true unexplained energy.
        allowed: [T], Wh; energy that the CUSUM lets pass.
        clip: standard deviations beyond which an innovation is an outlier.
        out: [T, 3], filled in place; booked energy (Wh), its variance (Wh^2), CUSUM (Wh).

    Raises:
        ValueError: shapes do not agree.
    """
