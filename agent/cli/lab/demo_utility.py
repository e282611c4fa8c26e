"""The utility's side of the demo: an ingest and the page beside building and agent, and the case's address."""

from __future__ import annotations

import contextlib
import sys
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.offline.demo.brokers import LocalBroker
from agent.offline.demo.demo import DemoError, Outcome
from agent.utility.sql.store import open_store

STORED_LOOKS, LOOK_S = 1200, 0.1  # for the alert to reach the store, from when a subscriber has it


class UtilitySide:
    """A store in the demo's folder, filled by a real `utility ingest` and shown by a real `utility serve`."""

    def __init__(self, folder: Path, serve_s: float | None, say: Callable[[str], None]) -> None:
        self._dsn = f"sqlite:///{(folder / 'fleet.sqlite').absolute()}"
        self._page_log = folder / "page.log"
        self._serve_s, self._say = serve_s, say

    def processes(self, broker: LocalBroker) -> Mapping[str, Sequence[str]]:
        """What runs beside the demo.

        Raises:
            DemoError: the broker speaks no MQTT 5.
        """
        if broker.version != "5":
            raise DemoError(
                f"--utility needs a broker with MQTT 5, as Mosquitto; {broker.name} speaks {broker.version}"
            )
        with open_store(self._dsn, make=True) as store:
            store.migrate(time.time())
        self._say("utility   checkmeter utility ingest and serve: messages into SQL, and a page over it")
        return {
            "ingest": ["utility", "ingest", "--store", self._dsn, "--broker", broker.url],
            "page": ["utility", "serve", "--store", self._dsn, "--port", "0"],
        }

    def show(self, outcome: Outcome) -> None:
        """The page of the theft; it stays until Ctrl-C.

        Raises:
            DemoError: the alert that a subscriber has received is not in the store.
        """
        if outcome.found is None:
            return
        alert_id = outcome.found.data.alert_id
        with open_store(self._dsn) as store:
            query = "SELECT g.tenant, g.site, g.gateway FROM open_case g WHERE g.alert_id = ?"
            for _ in range(STORED_LOOKS):
                if rows := store.rows(query, (alert_id,)):
                    break
                time.sleep(LOOK_S)
            else:
                raise DemoError(f"the alert {alert_id} does not reach the store; see ingest.log (--keep)")
        address = self._page_log.read_text().splitlines()[0].rstrip("/")
        self._say(f"\nThe case on the utility's page: {address}/case/{'/'.join(map(str, rows[0]))}/{alert_id}")
        if sys.stdout.isatty():
            webbrowser.open(f"{address}/case/{'/'.join(map(str, rows[0]))}/{alert_id}")
            self._say("Ctrl-C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(86_400 if self._serve_s is None else self._serve_s)
