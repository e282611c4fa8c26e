"""The case file of an alert: the registers around its onset, cut from the stored history into messages.

It owns how much of the history a case gets. It knows no broker: the messages go into the outbox. Any thread may ask.
"""

from __future__ import annotations

from agent.site.tables import Config
from agent.store.commit import Commit
from agent.store.messages import evidence_messages
from agent.store.store import Store
from agent.wire.events import AlertData
from firmware_io.clock import Clock

DAY_S = 86400.0
BEFORE_S = 14 * DAY_S  # of the balance before the onset, for the case file
SPAN_S = 60 * DAY_S  # at most, so that one alert cannot fill the outbox


class EvidenceExport:
    """Queues the evidence of alerts."""

    def __init__(self, config: Config, store: Store, clock: Clock) -> None:
        self._config, self._store, self._clock = config, store, clock

    def send(self, alert: AlertData, since_s: float | None = None, until_s: float | None = None) -> int:
        """Queue the zone's registers around the onset, or of [since_s, until_s]; how many messages.

        Commit the alert first: it must not wait for them.
        """
        zone = next((z for z in self._config.zone if z.id == alert.zone), None)
        if zone is None:
            return 0
        meters = [zone.main, *zone.subs]
        now_s = self._clock.now()
        since_s = max(alert.onset.timestamp() - BEFORE_S, now_s - SPAN_S) if since_s is None else since_s
        interval_s = self._config.detection.row_s
        rows = self._store.history(since_s, now_s if until_s is None else until_s, meters, interval_s)
        if len(rows) < 2:
            return 0
        messages = list(evidence_messages(alert.alert_id, zone.id, interval_s, meters, rows.times_s, rows.wh))
        self._store.commit(Commit(messages), now_s)
        return len(messages)
