"""Measure the accusation in a world that its makers did not write. `make bench-independent`.

Owns the runs and the score. Every building is written as a site file and a recording, replayed by `checkmeter replay`
(as a process, in the tree that is asked for), and its alerts are read as a utility reads them: every revision, and
nothing else. Refuses to import the product.

    python -m tests.system.bench.independent.run --each 3 --seed 1 --jobs 2 --tree . [--out FOLDER]
        [--kinds theft,ahead,honest or names] [--minutes 9]
        stops then; the same command goes on where it stopped, of one commit, seed and length. After a change that is
        not committed give another --out.
        [--loads HOMES.npz]   measured homes in place of drawn ones
    python -m tests.system.bench.independent.run --validate      homes beside those of Low Carbon London
    python -m tests.system.bench.independent.run --show KIND:NUMBER --seed 1   one building: files, truth, alerts
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.system.bench.independent import ahead, honest, thefts
from tests.system.bench.independent.homes import DAY, F32, LCL, Calendar, Home, weather
from tests.system.bench.independent.kinds import KINDS, Kind
from tests.system.bench.independent.score import LOSS, tables
from tests.system.bench.independent.world import Recording, building

REPLAY_DEADLINE_S = 900.0
CATALOGUE = (thefts, ahead, honest)  # importing them fills KINDS


def draw(kind: Kind, seed: int, number: int, days: int, loads_w: F32 | None = None) -> tuple[Recording, list[str]]:
    """The building of a kind and number, the same for every tree; and what else happens in it.

    In every other house with a theft or a tap honest life goes on about the time: one or two things within three weeks.
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
    onset = 0 if kind.start else int(rng.uniform(0.40, 0.55) * days * DAY)
    house = building(
        rng,
        days,
        first=honest.STARTS.get(kind.name),
        cold_snap=onset // DAY if kind.cold else None,
        warm=False if kind.cold or kind.name in honest.STARTS else None,
        house=kind.house,
        loads_w=loads_w,
    )
    life = []
    if kind.group != "honest" and rng.random() < 0.5:
        for act in rng.choice(np.array(honest.LIFE, object), int(rng.integers(1, 3)), replace=False):
            act(house, max(onset + int(rng.uniform(-21, 21) * DAY), 10 * DAY))
            life.append(act.__name__)
    kind.act(house, onset)
    return house.recording(), life


def minute_of(text: str, first: datetime) -> float:
    return (datetime.fromisoformat(text) - first).total_seconds() / 60


def replay(kind: Kind, args: argparse.Namespace, number: int, keep: Path | None = None) -> dict[str, Any]:
    """Replay one building; what was said, with the truth beside each word."""
    recording, life = draw(kind, args.seed, number, args.days, args.loads_w)
    house = recording.house
    phases_known = bool(house.rng.random() < 0.5)
    with tempfile.TemporaryDirectory(prefix="independent-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "site.toml").write_text(recording.site(phases_known))
        (folder / "readings.csv").write_text(recording.csv())
        alerts = folder / "alerts.jsonl"
        command = [args.python, "-m", "agent.cli.main", "replay", str(folder / "site.toml")]
        command += [str(folder / "readings.csv"), "--alerts", str(alerts)]
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=args.tree,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=REPLAY_DEADLINE_S,
            check=False,
        )
        if done.returncode:
            return {"kind": kind.name, "number": number, "failed": done.stderr[-600:]}
        events = [json.loads(line) for line in alerts.read_text().splitlines() if line]
    cumulative = np.concatenate([[0.0], np.cumsum(recording.loss_w, dtype=np.float64) / 60_000])
    words = []
    for event in events:
        data = event["data"]
        at = minute_of(event["time"], house.calendar.first)
        since = minute_of(data["onset"], house.calendar.first)
        a, b = (int(np.clip(m, 0, house.minutes)) for m in (since, at))
        words.append(
            {
                "alert": data["alert_id"],
                "revision": data["revision"],
                "state": data["state"],
                "kind": data["kind"],
                "severity": data["severity"],
                "meter": data.get("meter"),
                "at": at,
                "onset": since,
                "loss_w": data.get("loss_w"),
                "interval": data.get("loss_w_interval"),
                "loss_kwh": data.get("loss_kwh"),
                "suspects": [(s["meter"], s["probability"]) for s in data.get("suspects") or []],
                "upstream": data.get("upstream_probability"),
                "unexplained": data.get("unexplained_probability"),
                "true_w": (cumulative[b] - cumulative[a]) / max(b - a, 1) * 60_000,
                "true_kwh": cumulative[b] - cumulative[a],
                "ever_kwh": cumulative[b],
            }
        )
    return {
        "kind": kind.name,
        "group": kind.group,
        "number": number,
        "seed": args.seed,
        "days": args.days,
        "flats": house.flats,
        "mean_w": recording.mean_w,
        "interval_s": house.reading.interval_s,
        "style": house.reading.style,
        "step_wh": house.step_wh,
        "main_step_wh": house.main_step_wh,
        "common": "metered"
        if house.house_metered
        else f"declared {house.declared_w:.0f} W"
        if house.declared_w
        else "silent",
        "life": life,
        "over": sorted(house.over),
        "guilty": house.guilty,
        "onset": house.onset,
        "balance": kind.balance,
        "thieves": kind.thieves,
        "true_w": float(recording.loss_w[house.onset :].mean()) if house.onset is not None else 0.0,
        "words": words,
        "took_s": round(time.monotonic() - began, 1),
    }


def chosen(names: str) -> list[Kind]:
    wanted = names.split(",")
    unknown = [name for name in wanted if name not in KINDS and name not in ("all", "theft", "ahead", "honest")]
    if unknown:
        raise SystemExit(f"no kind {unknown}; there are: {', '.join(KINDS)}")
    return [kind for kind in KINDS.values() if {"all", kind.name, kind.group} & set(wanted)]


def measure(args: argparse.Namespace) -> None:
    """Run what has not been run, within the minutes given; print the tables of all that has."""
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    kinds = {kind.name for kind in chosen(args.kinds)}
    records = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if any(r.get("seed", args.seed) != args.seed or r.get("days", args.days) != args.days for r in records):
        raise SystemExit(f"{args.out} holds buildings of another seed or length: give another --out")
    have = {(r["kind"], r["number"]) for r in records if "failed" not in r}
    todo = [
        (kind, number)
        for number in range(args.first, args.first + args.each)
        for kind in chosen(args.kinds)
        if (kind.name, number) not in have
    ]
    until = time.monotonic() + args.minutes * 60

    def one(task: tuple[Kind, int]) -> dict[str, Any] | None:
        return replay(task[0], args, task[1]) if time.monotonic() < until else None

    left = 0
    with ThreadPoolExecutor(args.jobs) as pool, results.open("a") as out:
        for record in pool.map(one, todo):
            if record is None:
                left += 1
                continue
            records.append(record)
            out.write(json.dumps(record) + "\n")
            out.flush()
            if not args.quiet:
                print(line_of(record), file=sys.stderr, flush=True)
    good = [r for r in records if "failed" not in r and r["kind"] in kinds and r["number"] < args.first + args.each]
    print(f"seed {args.seed}, {args.days} days, tree {commit_of(args.tree)}, homes {args.loads or 'drawn'}")
    print(tables(good))
    if left:
        print(f"{left} buildings are left: the same command goes on with them.")
    failed = sum("failed" in r for r in records)
    if failed:
        print(f"{failed} replays failed: see {results}")


def commit_of(tree: Path) -> str:
    """What was measured, as git names it; "-dirty" where files were changed since."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() or "without history"


def line_of(record: dict[str, Any]) -> str:
    """One building in one line."""
    name = f"{record['kind']}:{record['number']}"
    if "failed" in record:
        return f"{name} FAILED {record['failed'].splitlines()[-1:]}"
    words = [word for word in record["words"] if word["kind"] in LOSS]
    wrong = sorted({m for w in words for m, p in w["suspects"] if p >= 0.9 and m not in record["guilty"]})
    last = words[-1] if words else None
    said = (
        "silent"
        if last is None
        else f"{last['kind']} {last['loss_w']:.0f} W {last['suspects'][:1]} up {last['upstream']}"
    )
    name += "".join(f" +{what}" for what in record["life"])
    return f"{name} {record['took_s']} s, true {record['true_w']:.0f} W {list(record['guilty'])}: {said}" + (
        f"  INNOCENT {wrong}" if wrong else ""
    )


def validate() -> None:
    """Sixty homes of a year beside the figures of Low Carbon London."""
    rng, count = np.random.default_rng(1), 60
    calendar = Calendar(datetime.fromisoformat("2023-01-01T00:00:00+00:00"), 364, "Europe/London")
    sky = weather(calendar, rng, False)
    half = np.array([Home(rng, False).load(calendar, sky).sum(0).reshape(-1, 30).mean(1) for _ in range(count)]).T
    shape = half.reshape(364, 48, count).mean(axis=(0, 2))
    shape = np.roll(shape, 0) / shape.mean()
    days = half.reshape(364, 48, count).mean(1)
    rest = half - np.tile(half.reshape(364, 48, count).mean(0), (364, 1))
    months = np.array([days[30 * i : 30 * i + 30].mean() for i in range(12)]) / days.mean()
    peaks = [
        float(np.median([half[:, rng.choice(count, homes, False)].mean(1).max() for _ in range(60)]))
        for homes in (5, 10, 20)
    ]
    ours = (
        np.percentile(half.mean(0) * 8.76, (5, 25, 50, 75, 95)),
        shape[[4, 8, 16, 24, 32, 36, 40, 44]],
        np.percentile(half.mean(0) / half.max(0), (5, 50, 95)),
        np.percentile(half.std(0) / half.mean(0), (5, 50, 95)),
        np.percentile(days[:60].std(0) / days[:60].mean(0), (5, 50, 95)),
        [np.median([np.corrcoef(rest[1:, j], rest[:-1, j])[0, 1] for j in range(count)])],
        peaks,
        months[[0, 3, 6, 9]],
    )
    for (what, theirs), mine in zip(LCL.items(), ours, strict=True):
        digits = 0 if max(theirs) > 10 else 2
        print(f"{what}\n    measured  {theirs}\n    this one  {tuple(round(float(x), digits) for x in mine)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the accusation in a world that its makers did not write.")
    parser.add_argument("--kinds", default="all", help="all, theft, ahead, honest, or names, with commas")
    parser.add_argument("--each", type=int, default=3, help="buildings of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first building of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=66)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="start no more after so many")
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[4], help="the product's checkout")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, help="default: build/independent/COMMIT-seedN")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--show", help="KIND:NUMBER: keep its files under --out, print every word")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--loads", type=Path, help="npz of measured homes: kwh [half hours of a year, homes]")
    args = parser.parse_args()
    out = (
        args.out
        or Path("build/independent")
        / f"{commit_of(args.tree)}-seed{args.seed}-{args.days}{'-measured' if args.loads else ''}"
    )
    args.out, args.loads_w = out.resolve(), None
    if args.loads is not None:
        kwh = np.load(args.loads)["kwh"]
        args.loads_w = np.nan_to_num(kwh[:, np.isnan(kwh).mean(0) < 0.02] * 2000).astype(np.float32)
    if args.validate:
        validate()
    elif args.show:
        name, _, number = args.show.partition(":")
        record = replay(KINDS[name], args, int(number or 0), args.out / f"{name}-{number}")
        for word in record.pop("words", []):
            print(json.dumps(word))
        print(json.dumps(record, indent=1))
    else:
        measure(args)


if __name__ == "__main__":
    main()
