"""`checkmeter utility ingest` and `health`."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from pathlib import Path

import click

from agent.process.clock import SystemClock
from agent.process.exit_codes import NEGATIVE
from agent.process.logging_setup import configure
from agent.utility.ingest.decode import Reader
from agent.utility.ingest.ingest import Ingest, Replica
from agent.utility.ingest.metrics import progress_seconds
from agent.utility.mqtt.connection import Broker
from agent.utility.sql.server import StoreError
from agent.utility.sql.store import KEEP_DAYS, open_store
from agent.utility.sql.upkeep import maintain
from agent.utility.verbs.options import broker_options, store_option

log = logging.getLogger(__name__)


class Lookback:
    """Holds forecasts that are over against their loads, beside the ingest: a thread and a connection of its own.

    The thread may die with the process: what it had not written is compared the next day.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether it is at it."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, now_s: float) -> None:
        """Begin, unless the last one is still at it."""
        if not self.busy:
            self._thread = threading.Thread(target=self._run, args=(now_s,), name="forecasts looked back", daemon=True)
            self._thread.start()

    def _run(self, now_s: float) -> None:
        from agent.utility.fleet.realised import settle  # with NumPy, which the ingest itself does without

        try:
            with open_store(self._dsn) as store:
                log.info("%d forecasts that are over were held against their loads", settle(store, now_s))
        except StoreError as error:
            log.warning("forecasts that are over: %s", error)


@click.command()
@broker_options
@store_option
@click.option(
    "--replica",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Each ingest's own number, always the same.",
)
@click.option("--group", default="checkmeter", show_default=True, help="Ingests of one group share the messages.")
@click.option("--tenant", "tenants", multiple=True, help="Only this tenant's; may be repeated [default: all].")
@click.option(
    "--keep-days",
    type=click.IntRange(2, 3660),
    default=KEEP_DAYS,
    show_default=True,
    help="Days of intervals kept; days' sums and alerts stay.",
)
@click.option(
    "--metrics",
    "metrics_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Prometheus text file, replaced every 10 s.",
)
@click.option("--leave", is_flag=True, help="Take what waits for this replica, then leave the group for good.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info", show_default=True)
def ingest(
    broker: Broker,
    dsn: str,
    replica: int,
    group: str,
    tenants: tuple[str, ...],
    keep_days: int,
    metrics_path: Path | None,
    leave: bool,
    log_level: str,
) -> None:
    """Take the gateways' messages from the broker and write them into the store, until told to stop.

    A message is acknowledged after its COMMIT. SIGTERM or SIGINT ends it in order: what is in hand is committed.
    """
    configure(log_level)
    # Letters live for one batch; the collector would walk through all of them every few hundred messages.
    gc.set_threshold(100_000, 50, 100)
    clock = SystemClock()
    stop = threading.Event()
    lookback = Lookback(dsn)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with open_store(dsn) as store:
        store.check_version()

        def daily(now_s: float) -> None:
            maintain(store, now_s, keep_days, replica=f"{group}-{replica}")
            lookback.begin(now_s)

        Ingest(
            broker,
            store,
            Reader(clock.now, tenants, keep_days),
            clock,
            Replica(replica, group),
            maintain=daily,
            metrics_path=metrics_path,
            leaving=leave,
        ).run(stop)


@click.command()
@click.option("--metrics", "metrics_path", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--within", "within_s", type=click.FloatRange(1.0), default=60.0, show_default=True, help="Seconds.")
def health(metrics_path: Path, within_s: float) -> None:
    """Exit 0 if the ingest that writes this metrics file has made progress lately, else 1."""
    try:
        seen_s = progress_seconds(metrics_path.read_text())
    except FileNotFoundError:
        seen_s = None
    if seen_s is None:
        click.echo(f"{metrics_path}: no sign of an ingest")
        raise click.exceptions.Exit(NEGATIVE)
    age_s = SystemClock().now() - seen_s
    click.echo(f"last progress {age_s:.0f} s ago")
    if age_s > within_s:
        raise click.exceptions.Exit(NEGATIVE)
