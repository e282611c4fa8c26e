"""Buildings of the wide world through the pipeline: every revision of every alarm, as the model is given it.

Owns what is right of a revision: which flats' meters are at fault, that a load ahead of the meters is, or none of
these. Refuses to know networks and files. The pipeline is the service's own; the seam is the model that states: what
it is shown is kept.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from agent.offline.replay.no_book import NoBook
from agent.offline.training.set_net import Case
from agent.offline.world.buildings import HONEST, KINDS, START_S, Building, draw_plan, family_of, make
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config, Detection, Meter, Site, Zone
from core.evidence import Evidence, LossKind
from core.registers.align import GRACE_S
from core.scoring.posterior import FEATURES
from core.signs import MeterSign

F64 = NDArray[np.float64]
DAY_S = 86_400
ATTEMPTS = 4  # at a building that has room for the theft
COMMON_SHARE = 0.3  # of what is missing: from so much unmetered common load on, it explains an alarm before the theft


@dataclass(frozen=True, slots=True)
class Revision:
    """One time that the model was asked: its rows and what is right of them, when, and in which alarm."""

    case: Case
    time_s: float
    raised_s: float
    alarm: tuple[bool, int]  # surplus, episode


@dataclass(frozen=True, slots=True)
class Episode:
    """One building: its number, kind, family, and revisions in order of time; none where nothing was found."""

    number: int
    kind: str
    family: str
    revisions: tuple[Revision, ...]


class _Asked:
    """A model that knows nothing, and keeps what it is shown."""

    features = FEATURES

    def __init__(self) -> None:
        self.shown: list[NDArray[np.float32]] = []

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.shown.append(rows.copy())
        return np.full(len(rows), 0.5, np.float32)


def meters(building: Building) -> tuple[str, ...]:
    """Names of the sub-meters in their order."""
    return tuple(f"flat-{number + 1:03d}" for number in range(building.plan.flats))


def site(building: Building) -> Config:
    """The site file's content for a building."""
    subs = meters(building)
    main = Meter(id="main", accuracy_class=building.main_class, resolution_wh=building.main_step_wh)
    own = [Meter(id=m, accuracy_class=building.sub_class, resolution_wh=building.sub_step_wh) for m in subs]
    return Config(
        site=Site(site="world", gateway="world"),
        meter=[main, *own],
        zone=[Zone(id="building", main="main", subs=list(subs))],
        detection=Detection(interval_s=float(building.times_s[1] - building.times_s[0])),
    )


def draw(seed: int, number: int, kind: str | None = None, loads_wh: F64 | None = None) -> Building | None:
    """Building `number` of a seed; None where no attempt found room for its theft."""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng((seed, number, attempt))
        plan = draw_plan(rng, kind or KINDS[number % len(KINDS)])
        try:
            return make((seed, number, attempt, 1), plan, loads_wh)
        except ValueError:
            continue
    return None


def watch(building: Building, number: int) -> Episode:
    """Run the pipeline over a building, and say what is right of every revision."""
    asked, names = _Asked(), meters(building)
    pipeline = Pipeline(site(building), NoBook(), states=asked, keep=False)
    wh = np.column_stack([building.main_wh, building.subs_wh])
    signs = [MeterSign(names[flat], time_s, kind) for flat, time_s, kind in building.signs]
    revisions: list[Revision] = []
    raised: dict[tuple[bool, int], tuple[float, bool]] = {}
    taken = 0
    for day in range(1, building.plan.days + 1):
        until = int(np.searchsorted(building.times_s, START_S + day * DAY_S, side="right"))
        while signs and signs[0].time_s <= building.times_s[until - 1]:
            pipeline.sign(signs.pop(0))
        pipeline.feed_block(building.times_s[taken:until], wh[taken:until])
        asked.shown.clear()
        evidence = pipeline.step(float(building.times_s[until - 1]) + GRACE_S).evidence
        taken = until
        active = [item for item in evidence if item.active]
        for item in active:
            alarm = (item.kind == LossKind.BALANCE_SURPLUS, item.episode)
            raised.setdefault(alarm, (item.time_s, item.onset_s <= START_S))
        if len(active) != len(asked.shown):  # an alarm too old to be asked again goes on with its last word
            continue
        for item, rows in zip(active, asked.shown, strict=True):
            alarm = (item.kind == LossKind.BALANCE_SURPLUS, item.episode)
            right = truth(building, item, *raised[alarm])
            if right is not None:
                revisions.append(Revision(Case(rows, right, number), item.time_s, raised[alarm][0], alarm))
    return Episode(number, building.plan.kind, family_of(building.plan.kind), tuple(revisions))


def truth(building: Building, item: Evidence, raised_s: float, from_start: bool) -> NDArray[np.bool_] | None:
    """Which rows [N + 2] are right of a revision; None where two causes are mixed and nobody can say."""
    count = building.plan.flats
    right = np.zeros(count + 2, np.bool_)
    surplus = item.kind == LossKind.BALANCE_SURPLUS
    onset_s = building.onset_s
    common = building.unmetered_w >= COMMON_SHARE * item.loss_w and not surplus
    other = onset_s is None or (onset_s > START_S and (raised_s <= onset_s or from_start))
    if other:
        if onset_s is not None and item.time_s > onset_s:
            return None
        right[count if common else count + 1] = True
    elif building.guilty:
        if building.plan.kind == "sub too fast" and not surplus:
            right[count + 1] = True
        else:
            right[list(building.guilty)] = True
    elif building.artefact or surplus:
        right[count if building.plan.kind == "coarse start" and common else count + 1] = True
    else:
        right[[count, *building.accepted]] = True
    return right


def episodes(seed: int, numbers: Sequence[int], jobs: int, label: str, kind: str | None = None) -> list[Episode]:
    """Buildings of a seed, in order, on `jobs` processes."""
    work = functools.partial(_one, seed, kind)
    with (
        concurrent.futures.ProcessPoolExecutor(jobs) as workers,
        click.progressbar(length=len(numbers), label=label) as bar,
    ):
        found = []
        for one in workers.map(work, numbers):
            if one is not None:
                found.append(one)
            bar.update(1)
    return found


def _one(seed: int, kind: str | None, number: int) -> Episode | None:
    building = draw(seed, number, kind)
    return None if building is None else watch(building, number)


__all__ = ["HONEST", "Episode", "Revision", "draw", "episodes", "truth", "watch"]
