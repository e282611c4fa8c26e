"""What the detector of a gateway could find as it stood at its last commit: out of the store, without a service.

Owns the way from a store's checkpoint to a pipeline that can be asked. It changes nothing in the store, and refuses to
mend what it cannot use: then nothing is known.
"""

from __future__ import annotations

from agent.offline.replay.no_book import NoBook
from agent.pipeline import checkpoint
from agent.pipeline.pipeline import Pipeline
from agent.site.tables import Config
from agent.store.checkpoints import read_parts
from agent.store.history import open_archive, read_history


def detectable_w(config: Config) -> dict[str, float]:
    """By zone, the smallest steady loss that would be found within a week, W; none where no checkpoint can be used.

    Raises:
        ArchiveError: no store, or it cannot be read.
    """
    pipeline = Pipeline(config, NoBook(), interval_s=config.detection.row_s)
    with open_archive(config.store.path) as db:
        saved = read_parts(lambda sql, values: db.execute(sql, values).fetchall(), checkpoint.HEAD)
        try:
            since_s = pipeline.needed_from_s(saved)
            pipeline.restore(saved, read_history(db, since_s, float("inf"), pipeline.meters, pipeline.interval_s))
        except (ValueError, KeyError):  # another release's, or of a site file that has changed since
            return {}
    return pipeline.detectable_w()
