"""`python -m agent.offline.training.default_model`: how the shipped model is made, from nothing but a seed.

It owns the training population: which buildings, thefts and days the model learns from. Buildings go through the
pipeline as on a gateway, each flat's features are written down on several days, and `checkmeter train`'s own workflow
does the rest, split by building. The buildings of the last figures come from households that no building of the
training has (another seed of the household model), so that they tell what to expect of people never seen.

The same seed and library versions give the same octets on the same machine; on others the golden vectors hold.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from agent.offline import metrics
from agent.offline.evaluation import trial
from agent.offline.evaluation.bench_detection import Table
from agent.offline.evaluation.virtual_buildings import KINDS, TAP, Plan, Pool, household_pool, make_building
from agent.offline.metrics import F64
from agent.offline.training import train_report
from agent.offline.training.table import FeatureTable
from agent.offline.training.train import Kind, Settings, encode, train
from core.scoring.features import FEATURES
from core.scoring.model import CompactModel, golden_error, load

HOUSEHOLDS = 160
QUIET_SHARE = 0.15  # of the buildings; the others have their quiet time before the onset
AFTER_DAYS = (2, 5, 12, 30)  # days since the onset on which the flats are looked at, and the last day of all
NAMED = 0.9


@dataclass(frozen=True, slots=True)
class Sample:
    """All flats of one building on several days: features [n, F], who steals [n], and where it comes from."""

    building: str
    kind: str
    features: F64
    guilty: NDArray[np.int64]
    alarmed: NDArray[np.bool_]


def population(seed: int, count: int) -> list[Plan]:
    """Plans of `count` buildings: every kind of theft, sizes, onsets, harsh and plain."""
    rng = np.random.default_rng((seed, 1))
    cases = []
    for number in range(count):
        days = int(rng.integers(100, 151))
        from_start = rng.random() < 0.08
        plan = Plan(
            flats=int(rng.integers(16, 73)),
            days=days,
            theft=None if rng.random() < QUIET_SHARE else KINDS[number % len(KINDS)],
            onset_day=0 if from_start else int(rng.integers(30, days - 20)),
            thieves=1,
            harsh=bool(rng.random() < 0.35),
        )
        two = plan.theft not in (None, TAP) and rng.random() < 0.1
        cases.append(replace(plan, thieves=2 if two else 1))
    return cases


def sample(seed: int, pool: Pool, case: tuple[int, Plan]) -> Sample:
    """One building through the pipeline, all its flats on several days."""
    number, plan = case
    building = make_building((seed, 2, number), pool, plan)
    onset = plan.days if plan.theft is None else plan.onset_day
    quiet = [day for day in (onset // 2, onset - 2) if day > 14]
    found = trial.run(building, None, [*quiet, *(onset + day for day in AFTER_DAYS)])
    features, guilty = [], []
    for snapshot in found.snapshots:
        features.append(snapshot.features)
        stealing = snapshot.day > onset
        guilty.append(np.array([stealing and j in building.thieves for j in range(plan.flats)], np.int64))
    table = np.vstack(features)
    return Sample(
        f"{seed}-{number:04d}",
        str(plan.theft or "none"),
        table,
        np.concatenate(guilty),
        table[:, FEATURES.index("alarm")] > 0,
    )


def samples(seed: int, pool: Pool, plans: Sequence[Plan], jobs: int, label: str) -> list[Sample]:
    """All buildings, in order, on `jobs` processes."""
    work = functools.partial(sample, seed, pool)
    with (
        concurrent.futures.ProcessPoolExecutor(jobs) as workers,
        click.progressbar(length=len(plans), label=label) as bar,
    ):
        found = []
        for one in workers.map(work, enumerate(plans)):
            found.append(one)
            bar.update(1)
    return found


def as_table(found: Sequence[Sample]) -> FeatureTable:
    """The samples as `checkmeter train` takes them; the checksum is that of the rows, there being no file."""
    features = np.vstack([s.features for s in found])
    group = np.concatenate([np.full(len(s.guilty), s.building) for s in found])
    return FeatureTable(
        FEATURES,
        features,
        np.concatenate([s.guilty for s in found]),
        group,
        "building",
        ("building",),
        hashlib.sha256(features.astype("<f4").tobytes()).hexdigest(),
    )


def by_kind(found: Sequence[Sample], probability: Sequence[F64]) -> Table:
    """Measures on buildings of people never seen, by kind of theft."""
    table = Table(["kind", "rows", "thefts", "AUC", "AUC if alarmed", "recall at 0.1 %", "ECE", f"named >= {NAMED}"])
    kinds = [*sorted({s.kind for s in found} - {"none", TAP}), TAP, "none"]
    groups: list[tuple[str, Iterable[str]]] = [("all", kinds), *((kind, (kind,)) for kind in kinds)]
    for name, members in groups:
        chosen = [(s, p) for s, p in zip(found, probability, strict=True) if s.kind in set(members)]
        if not chosen:
            continue
        truth = np.concatenate([s.guilty for s, _ in chosen])
        score = np.concatenate([p for _, p in chosen])
        alarmed = np.concatenate([s.alarmed for s, _ in chosen])
        named = score >= NAMED
        both = 0 < truth.sum() < len(truth)
        curve = metrics.curve(truth, score)
        table.rows.append(
            [
                name,
                str(len(truth)),
                str(truth.sum()),
                f"{curve.auc():.4f}" if both else "-",
                f"{metrics.auc(truth[alarmed], score[alarmed]):.4f}" if truth[alarmed].any() else "-",
                f"{curve.recall_at(0.001):.3f}" if both else "-",
                f"{metrics.calibration(truth, score).ece:.4f}",
                f"{truth[named].mean():.3f} of {named.sum()}" if named.any() else "- of 0",
            ]
        )
    return table


MARKS = "<!-- figures: written by agent.offline.training.default_model -->", "<!-- end of figures -->"


def card_figures(model: CompactModel, heading: str, table: Table) -> str:
    """The part of the model card that the script writes itself: what was made, and how it does."""
    meta = model.file.metadata
    trained, measured = meta["training"], meta["metrics"]
    layers = " -> ".join(map(str, [len(model.features), *(len(b) for _, b in model.file.network.layers)]))
    return "\n".join(
        [
            f"- file: SHA-256 `{model.sha256}`, made with {meta['created_with']}",
            f"- kind: {meta['model']}, {layers}, L2 penalty {trained['penalty']:g}, threshold {model.threshold:.3f}",
            f"- trained on {trained['rows']} rows ({trained['thefts']} of theft) of simulated buildings, seed "
            f"{trained['seed']}; SHA-256 of the rows `{trained['sha256'][:16]}...`",
            f"- held-out buildings ({trained['held_rows']} rows, {trained['held_thefts']} of theft): AUC "
            f"{measured['auc']:.4f} ({measured['auc_low']:.4f} to {measured['auc_high']:.4f}), recall at 0.1 % false "
            f"positives {measured['recall_at_fpr_0.001']:.3f}, ECE {measured['ece']:.4f}",
            "",
            heading,
            "",
            table.markdown(),
        ]
    )


def write_card(card: Path, figures: str) -> None:
    """Put `figures` between the marks of `card`. Raises ValueError where it has none."""
    text = card.read_text(encoding="utf-8")
    begin, end = text.find(MARKS[0]), text.find(MARKS[1])
    if not 0 <= begin < end:
        raise ValueError(f"{card}: has no part for the figures ({MARKS[0]})")
    whole = text[: begin + len(MARKS[0])] + "\n" + figures + "\n" + text[end:]
    card.write_text(whole, encoding="utf-8")


@click.command()
@click.option(
    "-o", "--output", default="agent/models/default.tflite", type=click.Path(path_type=Path), show_default=True
)
@click.option("--report", type=click.Path(path_type=Path), help="The training report, HTML.")
@click.option("--card", type=click.Path(exists=True, path_type=Path), help="Write the figures into this model card.")
@click.option("--buildings", default=120, show_default=True)
@click.option(
    "--unseen",
    default=36,
    show_default=True,
    help="Buildings of other households for the figures; 0: the held-out ones.",
)
@click.option("--model", type=click.Choice(["logistic", "mlp"]), default="mlp", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--jobs", default=2, show_default=True)
def main(
    output: Path, report: Path | None, card: Path | None, buildings: int, unseen: int, model: Kind, seed: int, jobs: int
) -> None:
    """Make the shipped model."""
    found = samples(seed, household_pool(seed, HOUSEHOLDS), population(seed, buildings), jobs, "training buildings")
    table = as_table(found)
    result = train(table, Settings(model, 0.8, seed))
    content = encode(table, result)
    checked = load(content, FEATURES)
    output.write_bytes(content)
    if report:
        page = train_report.render(table, result, "virtual buildings", checked.sha256)
        report.write_text(page, encoding="utf-8")
    click.echo(f"{output}: {len(content)} octets, golden vectors repeated to {golden_error(checked):.1g}")
    if unseen:
        other = seed + 1
        judged = samples(other, household_pool(other, HOUSEHOLDS), population(other, unseen), jobs, "unseen buildings")
        heading = f"{unseen} buildings of other households, which no part of the training saw:"
    else:
        held = {str(name) for name in table.group[result.held]} if table.group is not None else set()
        judged = [s for s in found if s.building in held]
        heading = f"The {len(judged)} held-out buildings by kind (their households are also in training buildings):"
    probability = [checked.score(s.features.astype(np.float32)).astype(np.float64) for s in judged]
    figures = by_kind(judged, probability)
    click.echo(heading)
    click.echo(figures)
    if card:
        write_card(card, card_figures(checked, heading, figures))


if __name__ == "__main__":
    main()
