"""Recorded buildings whose replay must be the same on every processor: `recorded.py make|replay|compare FOLDER ...`.

`make` writes site files and readings, once, on one machine; `replay` runs `checkmeter replay` over them where it is
called; `compare` holds two such results against each other. Balances and alerts have to agree octet for octet. The
model's scores come from a runtime that rounds as each processor likes: they may differ by 1e-4, in no more than that.

numpy's logarithms differ in the last digit with AVX2 and FMA, so the octets are compared with an amd64 that is told to
do without (`BASELINE`); the ids have to be the same with and without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

BASELINE = {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"}
START_S = 1_704_067_200  # 2024-01-01T00:00:00Z
#        name          flats  days  seed  irregular
BUILDINGS = (
    ("gaps", 8, 30, 11, False),
    ("irregular", 6, 25, 12, True),
)
RESULTS = ("alerts.jsonl", "balance.csv", "scores.csv")
SCORE_TOLERANCE = 1e-4


def make(folder: Path) -> None:
    """Site file and readings of each building: a theft for its last third, gaps, and one replaced meter."""
    for name, flats, days, seed, irregular in BUILDINGS:
        building = folder / name
        building.mkdir(parents=True, exist_ok=True)
        meters = ["main", *(f"flat-{k}" for k in range(1, flats + 1))]
        site = '[site]\ntenant = "t"\nsite = "house"\ngateway = "g"\n'
        for meter in meters:
            accuracy = 0.5 if meter == "main" else 1.0
            site += f'[[meter]]\nid = "{meter}"\naccuracy_class = {accuracy}\nresolution_wh = 10\n'
        site += f'[[zone]]\nid = "building"\nmain = "main"\nsubs = {json.dumps(meters[1:])}\n'
        (building / "site.toml").write_text(site)
        rng = np.random.default_rng(seed)
        rows = days * 48
        daily = 1.0 + 0.5 * np.sin(np.arange(rows) / 48 * 2 * np.pi)
        power_w = 80 + rng.gamma(0.8, 350, (rows, flats)) * daily[:, None]
        shown_w = power_w.copy()
        shown_w[2 * rows // 3 :, 2] *= 0.3
        main_w = power_w.sum(axis=1) * 1.012 + 1.5
        wh = np.vstack([np.zeros(flats + 1), np.cumsum(np.column_stack([main_w, shown_w]) / 2, axis=0)])
        wh[rows // 4 :, 4] -= wh[rows // 4, 4]  # a new meter begins at zero
        times_s = START_S + 1800.0 * np.arange(rows + 1)
        if irregular:
            times_s = times_s + np.round(rng.uniform(0, 200, rows + 1))
        cells = [[f"{v:.2f}" for v in row] for row in (wh // 10 / 100).tolist()]
        for k in rng.integers(10, rows - 10, days):
            cells[k][1 + int(k) % flats] = ""
        lines = [f"{t:.0f}," + ",".join(row) for t, row in zip(times_s.tolist(), cells, strict=True)]
        (building / "readings.csv").write_text("\n".join(["time," + ",".join(meters), *lines]) + "\n")


def replay(folder: Path, out: Path) -> None:
    """`checkmeter replay` of every building of `folder`, results in `out`."""
    for building in sorted(path for path in folder.iterdir() if (path / "site.toml").exists()):
        result = out / building.name
        result.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-m", "agent.cli.main", "replay", "site.toml", "readings.csv"]
        words += [
            "--alerts",
            result / "alerts.jsonl",
            "--scores",
            result / "scores.csv",
            "--csv",
            result / "balance.csv",
        ]
        there = dict(os.environ, PYTHONPATH=str(Path.cwd()))
        subprocess.run(words, cwd=building, env=there, check=True, stdout=subprocess.DEVNULL)


def compare(here: Path, there: Path, *, ids_only: bool) -> list[str]:
    """What differs between two results; nothing if nothing does."""
    found = []
    for name, *_ in BUILDINGS:
        one, other = _ids(here / name), _ids(there / name)
        if not one:
            found.append(f"{name}: no alert at all, so nothing is compared")
        if one != other:
            found.append(f"{name}: ids of alerts differ")
        found += [
            f"{name}/{result}: octets differ"
            for result in (() if ids_only else RESULTS[:2])
            if (here / name / result).read_bytes() != (there / name / result).read_bytes()
        ]
        if not ids_only and (worst := _scores_apart(here / name, there / name)) > SCORE_TOLERANCE:
            found.append(f"{name}/scores.csv: apart by {worst:.2g}")
    return found


def _ids(result: Path) -> list[tuple[str, ...]]:
    events = [json.loads(line) for line in (result / "alerts.jsonl").read_text().splitlines()]
    return [
        (e["id"], e["time"], e["data"]["alert_id"], str(e["data"]["revision"]), e["data"]["state"], e["data"]["kind"])
        for e in events
    ]


def _scores_apart(one: Path, other: Path) -> float:
    tables = []
    for result in (one, other):
        lines = (result / "scores.csv").read_text().splitlines()[1:]
        tables.append([[float(cell or "nan") for cell in line.split(",")[1:]] for line in lines])
    a, b = (np.array(table) for table in tables)
    if a.shape != b.shape or not a.size or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b) / np.maximum(1.0, np.abs(a))))


def main(argv: list[str]) -> int:
    """One of the verbs; `compare` prints what differs and exits with 1 if anything does."""
    verb, *folders = argv[1:]
    paths = [Path(folder).absolute() for folder in folders if not folder.startswith("--")]
    if verb == "make":
        make(*paths)
    elif verb == "replay":
        replay(*paths)
    else:
        found = compare(*paths, ids_only="--ids" in folders)
        print("\n".join(found) or "the same")
        return 1 if found else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
