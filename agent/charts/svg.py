"""Small charts as SVG text: lines, steps, bands and marks over time or over the hours of a day.

It knows points and labels, not what they mean. The charts have no script and no outside reference, print in black
and white (every line has its own dash), and grow with the width of the page. A narrow one is for a phone, on which a
wide one's text would shrink to a third.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from html import escape

import numpy as np
from numpy.typing import NDArray

from agent.wire.values import utc

Floats = NDArray[np.float64]
_Scale = Callable[[float], float]

MAX_POINTS = 1500  # more than the eye or the printer can tell apart
DAY_S = 86_400
# Steps of a time axis, s: hours, then days, then weeks.
TIME_STEPS_S = (3600, 3 * 3600, 6 * 3600, 12 * 3600, DAY_S, 2 * DAY_S, 7 * DAY_S, 14 * DAY_S, 28 * DAY_S, 91 * DAY_S)


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes of a picture, px of its own: the plot's margins, the text; how many labels an axis has room for."""

    width: int = 860
    height: int = 270
    left: int = 62
    right: int = 14
    top: int = 30
    bottom: int = 30
    font: int = 12
    labels: int = 9
    hours: int = 3  # between labels of a day's axis
    title_characters: int = 200


WIDE = Frame()
# On a phone of 360 px with the page's margins it is shown at nine tenths: 13 px are 11.7.
NARROW = Frame(width=360, height=250, left=50, right=8, top=14, font=13, labels=4, hours=6, title_characters=46)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `y` at the chart's `x`, NaN where it breaks."""

    label: str
    y: Floats
    colour: str = "#2f5d8a"
    dash: str = ""
    width: float = 1.6


@dataclass(frozen=True, slots=True)
class Band:
    """An area between `low` and `high` at the chart's `x`."""

    label: str
    low: Floats
    high: Floats
    colour: str = "#2f5d8a"


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at `x` with a word beside it."""

    x: float
    label: str
    colour: str = "#b03a2e"


def chart(
    title: str,
    x: Floats,
    lines: Sequence[Line],
    *,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    y_label: str = "",
    zone: tzinfo = UTC,
    hours: bool = False,
    numbers: bool = False,
    from_zero: bool = True,
    frame: Frame = WIDE,
    day: Callable[[datetime], str] = "{:%d %b}".format,
) -> str:
    """One chart as an `<svg>` element.

    `x` [T] are UTC seconds, or hours 0..24 where `hours` is set, or plain figures where `numbers` is.
    `from_zero` keeps zero on the y axis. `day` writes a local day on the time axis.

    Raises:
        ValueError: no point at all, or a line of another length than `x`.
    """
    if len(x) == 0 or any(len(line.y) != len(x) for line in lines):
        raise ValueError("a chart needs points, and as many in each line as on its axis")
    values = [line.y for line in lines] + [b.low for b in bands] + [b.high for b in bands]
    head, top = _head(title, lines, bands, frame)
    height = frame.height + top - frame.top
    low, high = _limits(values, from_zero)
    ticks = _number_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    x0, x1 = float(x[0]), float(x[-1]) if x[-1] > x[0] else float(x[0]) + 1.0

    def px(value: float) -> float:
        return frame.left + (value - x0) / (x1 - x0) * (frame.width - frame.left - frame.right)

    def py(value: float) -> float:
        return top + (high - value) / (high - low) * (height - top - frame.bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {height}" role="img" '
        f'aria-label="{escape(title, quote=True)}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="{frame.font}">',
        f'<rect width="{frame.width}" height="{height}" fill="#fff"/>',
        *head,
    ]
    parts += [
        f'<path d="M{frame.left} {py(t):.1f}H{frame.width - frame.right}" '
        f'stroke="{"#9aa7b4" if t == 0 else "#e3e8ed"}"/>'
        f'<text x="{frame.left - 6}" y="{py(t) + 4:.1f}" text-anchor="end" fill="#51606f">{_number(t)}</text>'
        for t in ticks
    ]
    if y_label:
        parts.append(
            f'<text x="{frame.left - 6}" y="{top - 8}" text-anchor="end" fill="#51606f">{escape(y_label)}</text>'
        )
    if numbers:
        ticks_x = [(t, _number(t)) for t in _number_ticks(x0, x1) if x0 <= t <= x1]
    else:
        ticks_x = _hour_ticks(x0, x1, frame.hours) if hours else _time_ticks(x0, x1, zone, frame.labels, day)
    for value, label in ticks_x:
        # The last label ends at the picture's edge instead of beyond it.
        anchor = "end" if px(value) > frame.width - frame.right - 4 * len(label) else "middle"
        parts.append(f'<path d="M{px(value):.1f} {height - frame.bottom}v4" stroke="#9aa7b4"/>')
        parts.append(
            f'<text x="{px(value):.1f}" y="{height - frame.bottom + 17}" text-anchor="{anchor}" fill="#51606f">'
            f"{label}</text>"
        )
    for band in bands:
        parts += _area(thin(x, band.low, band.high), px, py, band.colour)
    for line in lines:
        parts += _polyline(thin(x, line.y), px, py, line)
    for mark in marks:
        if x0 <= mark.x <= x1:
            anchor, shift = ("end", -4) if px(mark.x) > frame.width * 0.8 else ("start", 4)
            parts.append(
                f'<path d="M{px(mark.x):.1f} {top}V{height - frame.bottom}" stroke="{mark.colour}" '
                'stroke-dasharray="5 3"/>'
                f'<text x="{px(mark.x) + shift:.1f}" y="{top + 11}" text-anchor="{anchor}" fill="{mark.colour}">'
                f"{escape(mark.label)}</text>"
            )
    parts.append("</svg>")
    return "".join(parts)


def thin(x: Floats, *columns: Floats) -> tuple[Floats, ...]:
    """At most MAX_POINTS points: means over runs of neighbours (NaN where a whole run is unknown)."""
    step = math.ceil(len(x) / MAX_POINTS)
    if step == 1:
        return (x, *columns)
    usable = len(x) // step * step
    out = [x[:usable].reshape(-1, step).mean(1)]
    for column in columns:
        runs = column[:usable].reshape(-1, step)
        known = ~np.isnan(runs)
        count = known.sum(1)
        total = np.where(known, runs, 0.0).sum(1)
        out.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return tuple(out)


def _limits(values: Sequence[Floats], from_zero: bool) -> tuple[float, float]:
    known = [v[np.isfinite(v)] for v in values]
    known = [v for v in known if len(v)]
    low = min((float(v.min()) for v in known), default=0.0)
    high = max((float(v.max()) for v in known), default=1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _number_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:.10g}" if abs(value) < 1e5 else f"{value:.3g}"


def _hour_ticks(x0: float, x1: float, every: int) -> list[tuple[float, str]]:
    return [(float(h), f"{h:02d}:00") for h in range(0, 25, every) if x0 <= h <= x1]


def _time_ticks(
    x0: float, x1: float, zone: tzinfo, most: int, day: Callable[[datetime], str]
) -> list[tuple[float, str]]:
    step = next((s for s in TIME_STEPS_S if (x1 - x0) / s <= most), TIME_STEPS_S[-1])
    offset = (utc(x0).astimezone(zone).utcoffset() or timedelta()).total_seconds()
    first = math.ceil((x0 + offset) / step) * step - offset
    moments = [(t, utc(t).astimezone(zone)) for t in np.arange(first, x1 + 1, step).tolist()]
    return [(t, day(moment) if step >= DAY_S else f"{day(moment)} {moment:%H:%M}") for t, moment in moments]


def _runs(ok: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ok.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _polyline(points: tuple[Floats, ...], px: _Scale, py: _Scale, line: Line) -> list[str]:
    x, y = points
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    out = []
    for a, b in _runs(np.isfinite(y)):
        path = " ".join(f"{px(float(u)):.1f},{py(float(v)):.1f}" for u, v in zip(x[a:b], y[a:b], strict=True))
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="{line.width}" '
            f'stroke-linejoin="round"{dash}/>'
        )
    return out


def _area(points: tuple[Floats, ...], px: _Scale, py: _Scale, colour: str) -> list[str]:
    x, low, high = points
    out = []
    for a, b in _runs(np.isfinite(low) & np.isfinite(high)):
        there = [f"{px(float(u)):.1f},{py(float(v)):.1f}" for u, v in zip(x[a:b], high[a:b], strict=True)]
        back = [f"{px(float(u)):.1f},{py(float(v)):.1f}" for u, v in zip(x[a:b], low[a:b], strict=True)]
        out.append(f'<polygon points="{" ".join(there + back[::-1])}" fill="{colour}" fill-opacity="0.16"/>')
    return out


def _head(title: str, lines: Sequence[Line], bands: Sequence[Band], frame: Frame) -> tuple[list[str], int]:
    """Title and legend, and where the plot begins below them.

    A wide picture has the legend beside its title, a narrow one below it, an entry a line.
    """
    entries: list[tuple[str, Line | Band]] = [(line.label, line) for line in lines if line.label]
    entries += [(band.label, band) for band in bands if band.label]
    if len(entries) < 2:
        entries = []
    words = textwrap.wrap(title, frame.title_characters) or [""]
    left = frame.left if frame is not NARROW else 4
    step = frame.font + 5
    out = [
        f'<text x="{left}" y="{16 + k * step}" font-weight="bold" fill="#1d2733">{escape(text)}</text>'
        for k, text in enumerate(words)
    ]
    if frame is not NARROW:
        right = frame.width - frame.right
        for label, drawn in reversed(entries):
            right -= 7 * len(label) + 34
            out += _key(right, 16, label, drawn)
        return out, frame.top
    y = 16 + len(words) * step
    for label, drawn in entries:
        out += _key(left, y, label, drawn)
        y += step
    return out, y + frame.top - 4


def _key(x: float, y: float, label: str, drawn: Line | Band) -> list[str]:
    """One entry of a legend: an area's key is an area, a line's has its width and its dash."""
    if isinstance(drawn, Band):
        key = f'<rect x="{x}" y="{y - 9}" width="20" height="10" fill="{drawn.colour}" fill-opacity="0.16"/>'
    else:
        dash = f' stroke-dasharray="{drawn.dash}"' if drawn.dash else ""
        key = f'<path d="M{x} {y - 4}h20" stroke="{drawn.colour}" stroke-width="{drawn.width}"{dash}/>'
    return [key, f'<text x="{x + 25}" y="{y}" fill="#1d2733">{escape(label)}</text>']
