"""`make bench-detection`: how well the missing energy is found, on loads that everyone can make again.

It owns the judging of trials and the table; buildings, pipeline and baselines come from their own modules. Every
building is one line of work for a process of its own, so a run takes minutes on two cores.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np

from agent.models import shipped
from agent.offline import metrics
from agent.offline.evaluation import trial
from agent.offline.evaluation.baselines import BaselineAlarm, daily_cusum, percent_rule
from agent.offline.evaluation.virtual_buildings import (
    DAY_S,
    TAP,
    Building,
    Plan,
    Pool,
    household_pool,
    make_building,
    measured_pool,
    plans,
)
from core.evidence import Evidence
from core.scoring.model import load

HORIZON_DAYS = 30
START_DAYS = 14  # a theft that was always there is looked for from this day on
NAMED = 0.9


@dataclass(frozen=True, slots=True)
class Claim:
    """One revision of one alarm: what was claimed when; suspicion by flat number, falling."""

    time_s: float
    raised: bool
    loss_w: float
    suspects: tuple[tuple[int, float], ...]
    nobody: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One building judged for one method; None where the question does not arise."""

    kind: str | None
    from_start: bool
    quiet_days: float
    false_alarms: int
    detected: bool | None = None
    delay_days: float | None = None
    first: bool | None = None
    in_three: bool | None = None
    loss_error: float | None = None
    named: float | None = None  # probability of the flat named, where one is named
    named_rightly: bool | None = None
    suspicion: tuple[float, ...] = ()
    guilty: tuple[bool, ...] = ()


def judge(building: Building, claims: Sequence[Claim], suspicion: Sequence[float]) -> Verdict:
    """The verdict over `claims` in order of time; `suspicion` of every flat at the end of the run."""
    plan, end_s = building.plan, float(building.times_s[-1])
    start_s = float(building.times_s[0])
    from_start = building.onset_s == start_s
    onset_s = end_s if building.onset_s is None else building.onset_s
    early = [c for c in claims if c.raised and c.time_s < onset_s]
    base = Verdict(
        plan.theft,
        from_start,
        (min(onset_s, end_s) - start_s) / DAY_S,
        len(early),
        suspicion=tuple(float(p) for p in suspicion),
        guilty=tuple(j in building.thieves for j in range(plan.flats)),
    )
    if plan.theft is None:
        return base
    horizon_s = onset_s + (HORIZON_DAYS + (START_DAYS if from_start else 0)) * DAY_S
    after = [c for c in claims if onset_s <= c.time_s <= horizon_s]
    raised = [c for c in after if c.raised]
    if not raised:
        return replace(base, detected=False)
    last = after[-1]
    best = last.suspects[0][1] if last.suspects else 0.0
    if building.thieves:
        first = bool(last.suspects) and last.suspects[0][0] in building.thieves and best >= last.nobody
        in_three = any(j in building.thieves for j, _ in last.suspects[:3])
    else:
        first = in_three = last.nobody > best
    stolen_w = building.stolen_w(last.time_s)
    named = best if best >= NAMED else None
    return replace(
        base,
        detected=True,
        delay_days=(raised[0].time_s - onset_s) / DAY_S,
        first=first,
        in_three=in_three,
        loss_error=abs(last.loss_w - stolen_w) / stolen_w if stolen_w > 0 else None,
        named=named,
        named_rightly=None if named is None else last.suspects[0][0] in building.thieves,
    )


def claims_of(evidence: Sequence[Evidence], meters: Sequence[str]) -> list[Claim]:
    """Every revision while an alarm is on; `raised` is the first of an episode of its sign."""
    place = {name: j for j, name in enumerate(meters)}
    seen: set[tuple[bool, int]] = set()
    claims = []
    for item in evidence:
        if not item.active:
            continue
        episode = (item.kind == "balance_surplus", item.episode)
        suspects = tuple((place[s.meter], s.probability) for s in item.suspects)
        claims.append(Claim(item.time_s, episode not in seen, item.loss_w, suspects, item.upstream_probability))
        seen.add(episode)
    return claims


def _baseline(building: Building, alarms: Sequence[BaselineAlarm]) -> Verdict:
    claims = []
    total = np.zeros(building.plan.flats)
    for alarm in alarms:
        order = np.argsort(-alarm.suspicion)[:5]
        suspects = tuple((int(j), float(alarm.suspicion[j])) for j in order)
        claims.append(Claim(alarm.time_s, True, alarm.loss_w, suspects, 0.0))
        total = np.maximum(total, alarm.suspicion)
    return judge(building, claims, total.tolist())


METHODS = ("5 % rule", "daily CUSUM + LS", "checkmeter")


def measure(seed: int, pool: Pool, model: bytes | None, case: tuple[int, Plan]) -> tuple[Verdict, Verdict, Verdict]:
    """Draw one building and judge the three methods on it, in the order of METHODS."""
    number, plan = case
    building = make_building((seed, number), pool, plan)
    found = trial.run(building, None, states=None if model is None else load(model))
    ours = judge(building, claims_of(found.evidence, trial.meters(building)), found.suspicion.tolist())
    return _baseline(building, percent_rule(building)), _baseline(building, daily_cusum(building)), ours


@dataclass(slots=True)
class Table:
    """Rows of text, printed with the columns aligned."""

    head: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table for a document."""
        lines = [list(self.head), ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)

    def __str__(self) -> str:
        lines = [list(self.head), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def _share(values: Sequence[bool | None]) -> str:
    told = [v for v in values if v is not None]
    return f"{np.mean(told):.2f}" if told else "-"


def _middle(values: Sequence[float | None]) -> str:
    told = [v for v in values if v is not None]
    return f"{np.median(told):.2g}" if told else "-"


def false_alarms_a_year(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """(false alarms a building-year, building-years watched)."""
    years = sum(v.quiet_days for v in verdicts) / 365
    return (sum(v.false_alarms for v in verdicts) / years if years else 0.0), years


def _auc(verdicts: Sequence[Verdict]) -> float:
    truth = [g for v in verdicts if v.kind not in (None, TAP) for g in v.guilty]
    score = [p for v in verdicts if v.kind not in (None, TAP) for p in v.suspicion]
    return metrics.auc(truth, score) if truth else float("nan")


def summary(by_method: Sequence[Sequence[Verdict]]) -> Table:
    """One line a measure, one column a method."""
    table = Table(["", *METHODS])
    columns: list[list[str]] = []
    for verdicts in by_method:
        later = [v for v in verdicts if v.kind and not v.from_start]
        always = [v for v in verdicts if v.kind and v.from_start]
        rate, years = false_alarms_a_year(verdicts)
        everyone = [(g, p) for v in verdicts for g, p in zip(v.guilty, v.suspicion, strict=True)]
        curve = metrics.curve([g for g, _ in everyone], [p for _, p in everyone])
        named = [v.named_rightly for v in verdicts]
        columns.append(
            [
                _share([v.detected for v in later]),
                _middle([v.delay_days for v in later]),
                f"{rate:.2f}",
                f"{years:.0f}",
                f"{_share([v.first for v in later])} / {_share([v.in_three for v in later])}",
                f"{_share(named)} of {sum(n is not None for n in named)}",
                f"{_auc(later):.3f}",
                f"{curve.recall_at(0.001):.2f}",
                f"{metrics.calibration([g for g, _ in everyone], [p for _, p in everyone]).ece:.3f}",
                _middle([v.loss_error for v in later]),
                _share([v.detected for v in always]),
            ]
        )
    labels = (
        f"detected within {HORIZON_DAYS} d",
        "median delay, days",
        "false alarms a building-year",
        "building-years without theft",
        'thief ranked first / in three, "nobody" included',
        f"flat named with >= {NAMED:g}: rightly",
        "household AUC",
        "recall at 0.1 % false positives, all flats",
        "calibration error (ECE), all flats",
        "loss error, median",
        "there from the start: detected",
    )
    for place, label in enumerate(labels):
        table.rows.append([label, *(column[place] for column in columns)])
    return table


def by_kind(verdicts: Sequence[Verdict]) -> Table:
    """checkmeter by kind of theft."""
    table = Table(["checkmeter by kind", "cases", "detected", "delay, d", "first", "in three", "AUC", "loss error"])
    for kind in dict.fromkeys((v.kind, v.from_start) for v in verdicts if v.kind):
        group = [v for v in verdicts if (v.kind, v.from_start) == kind]
        table.rows.append(
            [
                f"{kind[0]}{', from the start' if kind[1] else ''}",
                str(len(group)),
                _share([v.detected for v in group]),
                _middle([v.delay_days for v in group]),
                _share([v.first for v in group]),
                _share([v.in_three for v in group]),
                "-" if kind[0] == TAP else f"{_auc(group):.3f}",
                _middle([v.loss_error for v in group]),
            ]
        )
    return table


@click.command()
@click.option("--flats", default=40, show_default=True)
@click.option("--days", default=150, show_default=True)
@click.option("--per-kind", default=4, show_default=True, help="Thefts of each kind.")
@click.option("--from-start", default=3, show_default=True, help="Thefts of three kinds that were always there.")
@click.option("--clean", default=20, show_default=True, help="Buildings without theft.")
@click.option("--seed", default=7, show_default=True)
@click.option("--harsh", is_flag=True, help="Common load, coarse main register, late and missed reads, new tenants.")
@click.option(
    "--loads", type=click.Path(exists=True, path_type=Path), help="Measured loads instead: .npz with kwh, interval_s."
)
@click.option("--jobs", default=2, show_default=True)
def main(
    flats: int,
    days: int,
    per_kind: int,
    from_start: int,
    clean: int,
    seed: int,
    harsh: bool,
    loads: Path | None,
    jobs: int,
) -> None:
    """Measure detection and attribution on virtual buildings, beside the two usual rules."""
    pool = measured_pool(loads) if loads else household_pool(seed + 1000, households=120)
    cases = list(enumerate(plans(Plan(flats=flats, days=days, harsh=harsh), per_kind, from_start, clean)))
    work = functools.partial(measure, seed, pool, shipped())
    verdicts = []
    with (
        concurrent.futures.ProcessPoolExecutor(jobs) as workers,
        click.progressbar(length=len(cases), label=f"{len(cases)} buildings") as bar,
    ):
        for verdict in workers.map(work, cases):
            verdicts.append(verdict)
            bar.update(1)
    by_method = list(zip(*verdicts, strict=True))
    click.echo(f"\n{flats} flats, {days} days, thefts >= 0.2 % of load, seed {seed}{', harsh' if harsh else ''}\n")
    click.echo(summary(by_method))
    click.echo("")
    click.echo(by_kind(by_method[2]))


if __name__ == "__main__":
    main()
