"""One virtual building through the pipeline: what was raised, who was suspected, and how each flat looked.

It owns the run; what is drawn, and what is made of the outcome, it leaves to others. The pipeline is the service's
own, so what is measured here is what a gateway does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.offline.evaluation.virtual_buildings import DAY_S, Building
from agent.offline.metrics import F64
from agent.offline.replay.no_book import NoBook
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config, Detection, Meter, Site, Zone
from core.evidence import Evidence
from core.registers.align import GRACE_S
from core.scoring.features import FEATURES
from core.scoring.zone_scores import Scorer
from core.signs import MeterSign


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All flats on one day of the run: features [N, len(FEATURES)] and probabilities [N]."""

    day: int
    features: F64
    probability: F64


@dataclass(frozen=True, slots=True)
class Trial:
    """What the pipeline said of one building; `suspicion` [N] at the end."""

    building: Building
    evidence: tuple[Evidence, ...]
    snapshots: tuple[Snapshot, ...]
    suspicion: F64


def meters(building: Building) -> tuple[str, ...]:
    """Names of the sub-meters in their order."""
    return tuple(f"flat-{number + 1:03d}" for number in range(building.plan.flats))


def site(building: Building) -> Config:
    """The site file's content for a building."""
    subs = meters(building)
    return Config(
        site=Site(site="virtual", gateway="virtual"),
        meter=[
            Meter(id="main", accuracy_class=0.5, resolution_wh=building.main_step_wh),
            *(Meter(id=name, accuracy_class=1.0, resolution_wh=10.0) for name in subs),
        ],
        zone=[Zone(id="building", main="main", subs=list(subs))],
        detection=Detection(interval_s=float(building.times_s[1] - building.times_s[0])),
    )


def run(building: Building, scorer: Scorer | None, days: Sequence[int] = (), states: Scorer | None = None) -> Trial:
    """Run the pipeline over the whole building; take a snapshot at the end of each of `days`."""
    pipeline = Pipeline(site(building), NoBook(), scorer, states=states, keep=False)
    wh = np.column_stack([building.main_wh, building.subs_wh])
    last = (len(building.times_s) - 1) * round(building.times_s[1] - building.times_s[0]) // DAY_S
    evidence: list[Evidence] = []
    snapshots = []
    names = meters(building)
    signs = [MeterSign(names[flat], time_s, kind) for flat, time_s, kind in building.signs]
    taken = 0
    for day in sorted({*(d for d in days if 0 < d < last), last}):
        until = int(np.searchsorted(building.times_s, building.times_s[0] + day * DAY_S, side="right"))
        while signs and signs[0].time_s <= building.times_s[until - 1]:
            pipeline.sign(signs.pop(0))
        pipeline.feed_block(building.times_s[taken:until], wh[taken:until])
        evidence += pipeline.step(float(building.times_s[until - 1]) + GRACE_S).evidence
        taken = until
        scores = pipeline.scores()
        table = np.array([[scores[name][feature] for feature in FEATURES] for name in names])
        probability = np.array([scores[name]["theft_probability"] for name in names])
        snapshots.append(Snapshot(day, table, probability))
    return Trial(building, tuple(evidence), tuple(snapshots), snapshots[-1].probability)
