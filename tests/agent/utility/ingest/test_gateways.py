"""The gateway's own publisher on one side, the ingest on the other, a real broker between them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.alerts.book import AlertBook
from agent.alerts.condition import Condition
from agent.site.tables import Mqtt
from agent.store.commit import Commit
from agent.store.messages import alert_message
from agent.store.store import Store as Outbox
from agent.uplink.publisher import Publisher
from agent.uplink.send_window import Pace
from agent.utility.sql.store import open_store
from agent.wire.topics import Address

pytestmark = pytest.mark.mosquitto
ADDRESS = Address("acme", "riverside-12", "gw-0012")


def test_end_to_end_an_alert_leaves_the_outbox_when_the_utility_has_committed_it(
    mosquitto: Any, dsn: str, replica: Any, wait: Any, tmp_path: Path
) -> None:
    began_s = time.time() - 3600
    outbox = Outbox(tmp_path / "gateway.sqlite", began_s)
    link = Mqtt(url=mosquitto.url, delivery="end_to_end")
    quick = Pace(start_jitter_s=0.05, pause_s=0.1, pause_limit_s=0.4, ack_s=1.0)
    publisher = Publisher(
        link, ADDRESS, outbox, time.time, lambda down: down.done() or True, {"checkmeter": "0.1"}, pace=quick
    )
    thread = threading.Thread(target=publisher.run, name="publisher")
    thread.start()
    try:
        book = AlertBook(ADDRESS)
        for n in range(30):
            moment_s = began_s + n
            events = book.observe([Condition("meter_fault", True, moment_s, moment_s, meter=f"m{n}")])
            outbox.commit(Commit([alert_message(event) for event in events], {"alerts": book.state()}), moment_s)
        wait(lambda: publisher.connected, "the gateway is connected")
        assert outbox.counters.messages == 30, "nobody has stored them yet"

        ingest = replica(mosquitto.url, dsn)
        wait(lambda: outbox.counters.messages == 0, "every alert is confirmed and gone from the outbox")
        with open_store(dsn) as store:
            assert store.rows("SELECT COUNT(*) FROM alert_event") == [(30,)]
            assert store.rows(
                "SELECT COUNT(*) FROM open_case WHERE kind = 'meter_fault' AND site = 'riverside-12'"
            ) == [(30,)]
            assert store.rows("SELECT COUNT(*) FROM dead_letter") == [(0,)]
    finally:
        publisher.stop()
        thread.join(20)
        outbox.close()
    assert ingest.stop() == 0
