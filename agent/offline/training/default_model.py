"""`python -m agent.offline.training.default_model`: how the shipped model is made, from nothing but a seed.

Owns the recipe: which buildings of the wide world it learns from, the temperature, and the figures of the model card.
Buildings go through the pipeline as on a gateway; the network learns which of the flats, "nobody" and "none of these"
is right; its temperature is the one at which networks that had not seen a family of thefts speak truest of it. The
buildings of the last figures are of another seed.

The same seed and library versions give the same octets on the same machine; on others the golden vectors hold.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

from agent.offline.evaluation.bench_detection import Table
from agent.offline.metrics import F64
from agent.offline.training.episodes import HONEST, Episode, episodes
from agent.offline.training.set_net import Net, Recipe, fit, log_loss, temperature
from agent.offline.training.tflite_writer import write
from core.scoring.model import golden_error, load
from core.scoring.model_file import FORMAT, Network
from core.scoring.posterior import FEATURES

NAMED = 0.9
DAYS_ON = 3.0
# Families that are left out together, so that near relatives of a kind do not stand in for it.
FOLDS = (
    ("zero", "tap"), ("share", "clock", "hidden load"), ("days", "main"), ("hours", "common"),
    ("artificial", "hidden home", "fast"), ("circuits", "solar", "coarse"), ("several", "from the start"),
)  # fmt: skip
RECIPE = Recipe(hidden=(24, 12), epochs=40, dropout=0.35)
SHIFT = 4.0  # taken off every logit, which changes no share: a logistic near 1 would lose its digits
GOLDEN = 16
MARKS = "<!-- figures: written by agent.offline.training.default_model -->", "<!-- end of figures -->"


def left_out(found: Sequence[Episode], recipe: Recipe, seed: int) -> dict[int, list[F64]]:
    """Logits of every episode's revisions by networks that have not seen its family; honest ones by the first."""
    out: dict[int, list[F64]] = {}
    for place, families in enumerate(FOLDS):
        net = fit([r.case for e in found if e.family not in families for r in e.revisions], recipe, seed + place)
        for episode in found:
            if episode.family in families or (episode.kind == HONEST and place == 0):
                out[episode.number] = [net.logit(r.case.rows) for r in episode.revisions]
    return out


def best_temperature(found: Sequence[Episode], logits: dict[int, list[F64]]) -> float:
    """The temperature that fits what networks say of families they have not seen."""
    chosen = [e for e in found if e.revisions]
    return temperature(
        [logit for e in chosen for logit in logits[e.number]], [r.case for e in chosen for r in e.revisions]
    )


def shares(logit: F64, kelvin: float) -> F64:
    """Probabilities of one revision's rows."""
    x = logit / kelvin
    weight = np.exp(x - x.max())
    return np.asarray(weight / weight.sum())


def as_network(net: Net, kelvin: float) -> Network:
    """The network in the form of a model file: scale, temperature and shift inside its weights."""
    (first, bias), *rest, (last, shift) = net.layers
    layers = [(first / net.scale, bias), *rest, (last / kelvin, shift / kelvin - SHIFT)]
    return Network(net.mean, tuple((np.asarray(w), np.asarray(b)) for w, b in layers))


def encode(net: Net, kelvin: float, found: Sequence[Episode], seed: int, metrics: dict[str, float]) -> bytes:
    """The .tflite file, with everything inside that its user must know."""
    network = as_network(net, kelvin)
    rows = np.concatenate([r.case.rows for e in found for r in e.revisions])
    rng = np.random.default_rng(seed)
    inputs = (net.mean + net.scale * rng.normal(0, 1, (GOLDEN, len(FEATURES)))).astype(np.float32)
    return write(
        network,
        {
            "format": FORMAT,
            "created_with": f"checkmeter {importlib.metadata.version('checkmeter')}",
            "model": "softmax over a zone's rows",
            "features": list(FEATURES),
            "scaling": {"mean": net.mean.tolist(), "scale": net.scale.tolist()},
            "threshold": NAMED,
            "calibration": {"method": "temperature on families left out", "temperature": kelvin},
            "training": {
                "sha256": hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest(),
                "buildings": sum(bool(e.revisions) for e in found),
                "kinds": len({e.kind for e in found}),
                "revisions": sum(len(e.revisions) for e in found),
                "seed": seed,
            },
            "metrics": {name: round(value, 6) for name, value in metrics.items()},
            "golden": {
                "inputs": [[float(f"{v:.9g}") for v in row] for row in inputs.tolist()],
                "outputs": network.predict(inputs.astype(np.float64)).tolist(),
            },
        },
    )


# -- figures ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Count:
    """So many of so many, with its 95 % interval (Wilson 1927)."""

    hits: int = 0
    of: int = 0

    def add(self, hit: bool) -> None:
        self.hits += hit
        self.of += 1

    def __str__(self) -> str:
        if not self.of:
            return "-"
        p, n, z = self.hits / self.of, self.of, 1.96
        middle, half = p + z * z / 2 / n, z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
        low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
        return f"{self.hits}/{self.of} {p:.3f} [{low:.2f}, {high:.2f}]"


@dataclass(slots=True)
class Verdict:
    """What is counted of some episodes."""

    first_alert: Count = field(default_factory=Count)
    three_days: Count = field(default_factory=Count)
    last_word: Count = field(default_factory=Count)
    innocent_ever: Count = field(default_factory=Count)
    first: Count = field(default_factory=Count)
    named: Count = field(default_factory=Count)
    nobody: Count = field(default_factory=Count)
    renamed: Count = field(default_factory=Count)
    error: float = 0.0  # expected calibration error of the greatest share


def judge(found: Sequence[Episode], stated: Sequence[Sequence[F64]]) -> Verdict:
    """Count what is named with NAMED or more: in the first alert, after three days, in the last word, and ever.

    `first` is whether what is right comes first in the last word; `renamed` whether a flat named in one revision was
    another in a later one of the same alarm.
    """
    out = Verdict()
    said, true = [], []
    for episode, revisions in zip(found, stated, strict=True):
        if not episode.revisions:
            continue
        innocent, changed = False, False
        names: dict[tuple[bool, int], int] = {}
        for revision, share in zip(episode.revisions, revisions, strict=True):
            right, flat = revision.case.right, _named(share)
            said.append(float(share.max()))
            true.append(bool(right[int(np.argmax(share))]))
            if flat is not None:
                innocent |= not right[flat]
                changed |= names.setdefault(revision.alarm, flat) != flat
                names[revision.alarm] = flat
        out.innocent_ever.add(innocent)
        out.renamed.add(changed)
        later = next(
            (k for k, r in enumerate(episode.revisions) if r.time_s - r.raised_s >= (DAYS_ON - 0.1) * 86_400), None
        )
        for count, place in ((out.first_alert, 0), (out.three_days, later), (out.last_word, len(revisions) - 1)):
            if place is None or (flat := _named(revisions[place])) is None:
                continue
            count.add(bool(episode.revisions[place].case.right[flat]))
        right, share = episode.revisions[-1].case.right, revisions[-1]
        out.first.add(bool(right[int(np.argmax(share))]))
        if right[:-2].any() and not right[-2]:
            flat = _named(share)
            out.named.add(flat is not None and bool(right[flat]))
        if share[-2] >= NAMED:
            out.nobody.add(bool(right[-2]))
    if said:
        table, hits = np.array(said), np.array(true)
        bins = np.clip((table * 10).astype(int), 0, 9)
        out.error = float(sum(abs((table - hits)[bins == k].sum()) for k in range(10)) / len(table))
    return out


def _named(share: F64) -> int | None:
    flat = int(np.argmax(share[:-2]))
    return flat if share[flat] >= NAMED else None


HEAD = (
    "kind", "buildings", "named right: first alert", "3 days on", "last word", "an innocent named ever",
    "right one first", "thief named", "nobody >= 0.9 right", "renamed", "calibration error",
)  # fmt: skip


def figures(found: Sequence[Episode], stated: Sequence[Sequence[F64]]) -> Table:
    """All, by family, and by kind."""
    table = Table(HEAD)
    told = [(e, s) for e, s in zip(found, stated, strict=True) if e.revisions]
    groups = [("all", told), ("honest", [x for x in told if x[0].kind == HONEST])]
    groups += [
        (f"family: {f}", [x for x in told if x[0].family == f]) for f in dict.fromkeys(e.family for e, _ in told)
    ]
    groups += [(k, [x for x in told if x[0].kind == k]) for k in dict.fromkeys(e.kind for e, _ in told)]
    for name, members in groups:
        v = judge([e for e, _ in members], [s for _, s in members])
        cells = (v.first_alert, v.three_days, v.last_word, v.innocent_ever, v.first, v.named, v.nobody, v.renamed)
        table.rows.append([name, str(len(members)), *map(str, cells), f"{v.error:.3f}"])
    return table


def write_card(card: Path, text: str) -> None:
    """Put `text` between the marks of `card`. Raises ValueError where it has none."""
    whole = card.read_text(encoding="utf-8")
    begin, end = whole.find(MARKS[0]), whole.find(MARKS[1])
    if not 0 <= begin < end:
        raise ValueError(f"{card}: has no part for the figures ({MARKS[0]})")
    card.write_text(whole[: begin + len(MARKS[0])] + "\n" + text + "\n" + whole[end:], encoding="utf-8")


def _cached(cache: Path | None, name: str, seed: int, count: int, jobs: int, label: str) -> list[Episode]:
    path = None if cache is None else cache / f"{name}-{seed}-{count}.pickle"
    if path is not None and path.exists():
        found: list[Episode] = pickle.loads(path.read_bytes())
        return found
    found = episodes(seed, range(count), jobs, label)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(found))
    return found


@click.command()
@click.option(
    "-o", "--output", default="agent/models/default.tflite", type=click.Path(path_type=Path), show_default=True
)
@click.option("--card", type=click.Path(exists=True, path_type=Path), help="Write the figures into this model card.")
@click.option("--buildings", default=1480, show_default=True, help="To learn from.")
@click.option("--unseen", default=296, show_default=True, help="Of another seed, for the figures.")
@click.option("--seed", default=11, show_default=True)
@click.option("--jobs", default=2, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="Keep the buildings' evidence here; trust nobody's.")
def main(
    output: Path, card: Path | None, buildings: int, unseen: int, seed: int, jobs: int, cache: Path | None
) -> None:
    """Make the shipped model."""
    found = _cached(cache, "learn", seed, buildings, jobs, "training buildings")
    judged = _cached(cache, "judge", seed + 11, unseen, jobs, "unseen buildings")
    make(found, judged, output, card, seed)


def make(found: Sequence[Episode], judged: Sequence[Episode], output: Path, card: Path | None, seed: int) -> None:
    """Train on `found`, write the model, and say how it does on `judged` and on families left out."""
    logits = left_out(found, RECIPE, seed)
    kelvin = best_temperature(found, logits)
    net = fit([r.case for e in found for r in e.revisions], RECIPE, seed)
    chosen = [e for e in judged if e.revisions]
    unseen = [net.logit(r.case.rows) for e in chosen for r in e.revisions]
    loss = log_loss(unseen, [r.case for e in chosen for r in e.revisions], kelvin)
    content = encode(net, kelvin, found, seed, {"temperature": kelvin, "log_loss_unseen": loss})
    checked = load(content, FEATURES)
    output.write_bytes(content)
    click.echo(f"{output}: {len(content)} octets, golden vectors repeated to {golden_error(checked):.1g}")
    known = figures(judged, [[shares(net.logit(r.case.rows), kelvin) for r in e.revisions] for e in judged])
    apart = figures(found, [[shares(x, kelvin) for x in logits.get(e.number, [])] for e in found])
    weights = sum(w.size + b.size for w, b in checked.file.network.layers)
    text = [
        f"- file: SHA-256 `{checked.sha256}`, {weights} weights, temperature {kelvin:.2f}",
        f"- trained on {sum(bool(e.revisions) for e in found)} buildings with an alarm, seed {seed}",
    ]
    for heading, table in (("Buildings of another seed", known), ("Families left out of training", apart)):
        click.echo(f"\n{heading}\n{table}")
        text += ["", f"{heading}:", "", table.markdown()]
    if card:
        write_card(card, "\n".join(text))


if __name__ == "__main__":
    main()
