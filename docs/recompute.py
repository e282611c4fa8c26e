#!/usr/bin/env python3
"""Do the arithmetic of a checkmeter evidence page again, with nothing but Python's standard library (3.9 or later).

    python3 recompute.py case.html

reads the figures that are attached to the page, checks their SHA-256 manifest, computes the loss, its interval, the
sums and what stands behind the probabilities from the meter readings alone, and compares each number with the sealed
one. It ends with 0 if all agree to 1e-9, else with 1. It shares no code with checkmeter. It does not check the
signature:
that needs Ed25519 (`checkmeter report --verify`, or OpenSSL with the key and signature printed on the page).

What it computes, per interval of the readings, in kWh:

    remainder = main - sum of sub-meters - (a + c * sum^2)

with a and c by least squares over all intervals that end before the onset may have been, if they are five days or more.
Days are whole days in the page's time zone. A day counts if every meter was read in all of its intervals.
"""

import base64
import hashlib
import html
import json
import math
import re
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

TOLERANCE = 1e-9
DAY_S = 86400
LEAST_DAYS_BEFORE = 5


def attached_files(page):
    """Name -> octets of the files inside the page, whose hashes must be those of its manifest."""
    found = re.findall(r'<a class="raw" download="([^"]+)" href="data:[a-z/]+;base64,([A-Za-z0-9+/=]*)"', page)
    files = {name: base64.b64decode(octets) for name, octets in found}
    manifest = re.search(r'<pre id="manifest">([^<]*)</pre>', page)
    if manifest is None:
        raise SystemExit("this is no evidence page of checkmeter: it has no manifest")
    listed = {}
    for line in html.unescape(manifest.group(1)).splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in sorted(set(files) | set(listed)):
        if name not in files or hashlib.sha256(files[name]).hexdigest() != listed.get(name):
            raise SystemExit(f"{name}: not the file that the manifest lists")
    return files


def seconds(text):
    """UTC seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def mean(values):
    return math.fsum(values) / len(values) if values else math.nan


def known(values):
    return [v for v in values if not math.isnan(v)]


def day_numbers(times, zone):
    """The number of the local day of each time; the zone's offset is the one at noon UTC."""
    offsets = {}
    numbers = []
    for t in times:
        utc_day = math.floor(t / DAY_S)
        if utc_day not in offsets:
            noon = datetime.fromtimestamp(utc_day * DAY_S + DAY_S / 2, UTC).astimezone(zone)
            offsets[utc_day] = noon.utcoffset().total_seconds()
        numbers.append(math.floor((t + offsets[utc_day]) / DAY_S))
    return numbers


class Case:
    """The readings: `main` [T] and `subs` [N][T] in kWh per interval, NaN where a meter was not read."""

    def __init__(self, files):
        rows = [line.split(",") for line in files["readings.csv"].decode().splitlines()]
        self.names = rows[0][1:]
        self.times = [seconds(row[0]) for row in rows[1:]]
        self.interval_s = self.times[1] - self.times[0]
        columns = [[float(row[k + 1]) if row[k + 1] else math.nan for row in rows[1:]] for k in range(len(self.names))]
        self.main, self.subs = columns[0], columns[1:]
        self.alert = json.loads(files["alert.json"].splitlines()[-1])["data"]
        self.zone = ZoneInfo(json.loads(files["page.json"])["timezone"])
        window = self.alert.get("onset_window") or [self.alert["onset"], self.alert["onset"]]
        self.before = [t + self.interval_s <= seconds(window[0]) for t in self.times]
        self.after = [t >= seconds(window[1]) for t in self.times]


def technical_loss(case, total, gap):
    """a, c and whether they could be fitted."""
    rows = [k for k in range(len(gap)) if case.before[k] and not math.isnan(gap[k])]
    if len(rows) * case.interval_s < LEAST_DAYS_BEFORE * DAY_S:
        return 0.0, 0.0, False
    square, y = [total[k] ** 2 for k in rows], [gap[k] for k in rows]
    mean_square, mean_y = mean(square), mean(y)
    spread = math.fsum((s - mean_square) ** 2 for s in square)
    c = math.fsum((s - mean_square) * (v - mean_y) for s, v in zip(square, y)) / spread if spread > 0 else 0.0
    return mean_y - c * mean_square, c, True


def balance(case, total, technical, by_day, days, day, chosen):
    """Mean powers over the whole days that lie in `chosen`; None if there are none."""
    kept = [k for k, d in enumerate(days) if d in chosen and not math.isnan(by_day[k])]
    if not kept:
        return None
    there = {days[k] for k in kept}
    rows = [k for k, d in enumerate(day) if d in there]
    to_w = 1000 * 3600 / case.interval_s
    remainder = [by_day[k] * 1000 / 24 for k in kept]
    middle = mean(remainder)
    sd = math.sqrt(math.fsum((r - middle) ** 2 for r in remainder) / (len(kept) - 1)) if len(kept) > 1 else math.nan
    return {
        "days": len(kept),
        "main_w": mean([case.main[k] for k in rows]) * to_w,
        "subs_w": mean([total[k] for k in rows]) * to_w,
        "technical_w": mean([technical[k] for k in rows]) * to_w,
        "residual_w": middle,
        "residual_sd_w": sd,
    }


def recompute(files):
    """All results that the page states, in the form of its result.json."""
    case = Case(files)
    count = len(case.times)
    total = [math.fsum(sub[k] for sub in case.subs) for k in range(count)]
    gap = [case.main[k] - total[k] for k in range(count)]
    a, c, fitted = technical_loss(case, total, gap)
    technical = [a + c * t**2 if fitted else 0.0 for t in total]
    remainder = [gap[k] - technical[k] for k in range(count)]
    day = day_numbers(case.times, case.zone)
    days = sorted(set(day))
    rows_of = {d: [k for k in range(count) if day[k] == d] for d in days}
    a_day = round(DAY_S / case.interval_s)

    def sums(values):
        """Of whole days; the two days a year that are an hour short or long count."""
        out = []
        for d in days:
            rows = [values[k] for k in rows_of[d]]
            whole = len(rows) >= a_day - a_day // 24 and not any(map(math.isnan, rows))
            out.append(math.fsum(rows) if whole else math.nan)
        return out

    by_day = sums(remainder)
    days_before = {d for d in days if all(case.before[k] for k in rows_of[d])}
    days_after = {d for d in days if all(case.after[k] for k in rows_of[d])}
    before = balance(case, total, technical, by_day, days, day, days_before)
    after = balance(case, total, technical, by_day, days, day, days_after)
    missing_w = after["residual_w"] - (before["residual_w"] if before else 0.0)
    sd_w = math.nan
    if before and not math.isnan(before["residual_sd_w"]):
        after_sd = before["residual_sd_w"] if math.isnan(after["residual_sd_w"]) else after["residual_sd_w"]
        sd_w = math.sqrt(after_sd**2 / after["days"] + before["residual_sd_w"] ** 2 / before["days"])
    suspects = {s["meter"]: s["probability"] for s in case.alert.get("suspects") or []}
    nobody = case.alert.get("upstream_probability") or 0.0
    named = max(suspects, key=lambda m: suspects[m], default=None)
    if named is not None and (suspects[named] <= nobody or named not in case.names[1:]):
        named = None
    suspect = None
    if named is not None:
        own = case.subs[case.names.index(named) - 1]
        to_w = 1000 * 3600 / case.interval_s
        before_w = mean(known([own[k] for k in range(count) if case.before[k]])) * to_w
        after_w = mean(known([own[k] for k in range(count) if case.after[k]])) * to_w
        fall_w = before_w - after_w
        suspect = {
            "meter": named,
            "before_w": before_w,
            "after_w": after_w,
            "share_of_fall": missing_w / fall_w if math.isfinite(fall_w) and fall_w > 1 else None,
            "by_day_kwh": sums(own),
        }
    return {
        "technical_loss": {"fitted": fitted, "offset_kwh": a, "copper_per_kwh": c},
        "before": before,
        "after": after,
        "missing_w": missing_w,
        "missing_interval_w": [missing_w - 2 * sd_w, missing_w + 2 * sd_w],
        "missing_kwh": math.fsum(known([remainder[k] for k in range(count) if case.after[k]])),
        "remainder_by_day_kwh": by_day,
        "sums_kwh": {name: math.fsum(known(v)) for name, v in zip(case.names, [case.main, *case.subs])},
        "suspect": suspect,
        "probability_sum": math.fsum([*suspects.values(), nobody]),
    }


def leaves(value, path=""):
    """Every number or word of nested results with its path; a missing number is NaN in one and null in the other."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{k}]")
    else:
        missing = isinstance(value, float) and math.isnan(value)
        yield path, None if missing else value


def differences(sealed, again):
    """(path, sealed, recomputed) of each result that differs; the largest difference; how many were compared."""
    one, two = dict(leaves(sealed)), dict(leaves(again))
    wrong, largest = [], 0.0
    for path in sorted(set(one) | set(two)):
        x, y = one.get(path), two.get(path)
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y))
        off = abs(x - y) / max(1.0, abs(x)) if numbers else 0.0 if x == y else math.inf
        off = math.inf if math.isnan(off) else off  # infinity against anything is no agreement
        largest = max(largest, off)
        if off > TOLERANCE:
            wrong.append((path, x, y))
    return wrong, largest, len(one)


def main(words):
    if len(words) != 1:
        raise SystemExit("usage: python3 recompute.py PAGE.html")
    with open(words[0], encoding="utf-8", newline="") as file:
        files = attached_files(file.read())
    again = recompute(files)
    wrong, largest, count = differences(json.loads(files["result.json"]), again)
    low, high = again["missing_interval_w"]
    print(f"missing: {again['missing_w']:.3f} W (95 %: {low:.3f} to {high:.3f} W), {again['missing_kwh']:.3f} kWh")
    for path, x, y in wrong:
        print(f"{path}: sealed {x}, recomputed {y}")
    print(f"{count} figures compared, {len(wrong)} differ; largest difference {largest:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
