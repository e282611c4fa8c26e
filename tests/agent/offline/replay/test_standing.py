"""From a store alone the same is told as the detector told that wrote it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.offline.replay.no_book import NoBook
from agent.offline.replay.standing import detectable_w
from agent.offline.training.episodes import site
from agent.offline.world.buildings import HONEST, START_S, Plan, make
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config
from agent.store.commit import Commit
from agent.store.store import Store
from core.registers.align import GRACE_S

DAYS = 16


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Config, dict[str, float]]:
    """A store of sixteen days, and what its writer told at the end."""
    building = make((3, 1), Plan(HONEST, 6, DAYS, 10))
    config = site(building)
    config = msgspec.structs.replace(
        config, store=msgspec.structs.replace(config.store, path=str(tmp_path / "store.sqlite"))
    )
    pipeline, store = Pipeline(config, NoBook(), interval_s=config.detection.row_s), Store(config.store.path, START_S)
    wh, taken = np.column_stack([building.main_wh, building.subs_wh]), 0
    for day in range(1, DAYS + 1):
        until = int(np.searchsorted(building.times_s, START_S + day * 86_400, side="right"))
        pipeline.feed_block(building.times_s[taken:until], wh[taken:until])
        now_s = float(building.times_s[until - 1]) + GRACE_S
        step, taken = pipeline.step(now_s), until
        store.commit(Commit(checkpoints=step.checkpoint or {}, meters=pipeline.meters, history=step.history), now_s)
    store.close()
    return config, pipeline.detectable_w()


def test_the_least_loss_that_would_be_found_is_in_the_store(stored: tuple[Config, dict[str, float]]) -> None:
    config, told = stored
    assert told["building"] > 1.0
    assert detectable_w(config) == pytest.approx(told)


def test_a_checkpoint_of_another_site_says_nothing(stored: tuple[Config, dict[str, float]]) -> None:
    config, _ = stored
    other = msgspec.structs.replace(
        config, meter=[*config.meter[:-1], msgspec.structs.replace(config.meter[-1], id="x")]
    )
    zone = msgspec.structs.replace(config.zone[0], subs=[*config.zone[0].subs[:-1], "x"])
    assert detectable_w(msgspec.structs.replace(other, zone=[zone])) == {}
