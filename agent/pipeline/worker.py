"""The pipeline's thread: what the buses bring goes in, and what a step brings is committed as one piece.

It alone touches the pipeline and the alert book. It knows no bus and no broker: it takes from one queue and gives to
the store, whose committed messages are the publisher's business.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent import wire
from agent.alerts.book import AlertBook
from agent.alerts.tamper import sign_of, tamper_event
from agent.forecast.words import conditions, on_wire
from agent.forecast.zone_forecasts import RECALL_S
from agent.pipeline import checkpoint
from agent.pipeline.evidence_export import EvidenceExport
from agent.pipeline.inbox import Batch, BookRequest, CaughtUp, Outcome
from agent.pipeline.on_wire import balance_on_wire, log_alert
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.step import GAP_S, Step
from agent.pipeline.stored_rows import Floats, StoredRows, portions
from agent.process.heartbeat import Heartbeat
from agent.process.memory import release_free_memory
from agent.site.tables import Config
from agent.store.commit import Commit
from agent.store.messages import Message, alert_message, balance_message, tamper_message
from agent.store.store import Store
from core.registers.booked import StoredHistory
from core.registers.samples import RegisterSample
from firmware_io.clock import Clock
from firmware_io.reading import MeterEvent

log = logging.getLogger("checkmeter.pipeline")

DAY_S = 86400.0
BATCHES_A_STEP = 64  # bounds how long a step is put off while batches keep coming
ROWS_A_STEP = 32  # boundaries closed and committed at once: bounds memory, and what a stop waits for, after a jump
IDLE_S = 0.5  # host seconds between two looks at the clock while nothing comes
FRESH_S = 2 * DAY_S  # a first start brings weeks of stored intervals: older balances would be old news on the wire


@dataclass(slots=True)
class View:
    """What others may look at: whole objects, replaced in one assignment and never changed."""

    balances: dict[str, wire.Balance] = field(default_factory=dict)
    alerts: list[wire.AlertData] = field(default_factory=list)
    suspicion: dict[str, float] = field(default_factory=dict)
    detectable_w: dict[str, float] = field(default_factory=dict)
    boundary_s: float | None = None
    forecasts: dict[str, wire.Forecast] = field(default_factory=dict)


@dataclass(slots=True)
class _Taken:
    """What one turn brought beside the pipeline's own step."""

    events: list[wire.AlertEvent] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    requests: list[tuple[BookRequest, Outcome]] = field(default_factory=list)


class Worker:
    """Feeds the pipeline and commits its steps. `run` is the body of its thread; tests call `take` alone.

    Args:
        buses: those whose stored rows are waited for at the start.
        settled: whether the time is known at all; without it no reading can be dated, and none is judged.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        pipeline: Pipeline,
        book: AlertBook,
        store: Store,
        inbox: queue.Queue[Batch | CaughtUp],
        buses: Iterable[str],
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config, self._clock = config, clock
        self._pipeline, self._book, self._store = pipeline, book, store
        self._inbox = inbox
        self._settled = settled
        self.misdated = 0  # samples whose time cannot be right
        self.evidence = EvidenceExport(config, store, clock)
        self._behind = set(buses)
        self._stored: list[StoredRows] = []
        self._backlog: deque[_Backlog] = deque()
        self._stop = threading.Event()
        self._known_s = float("-inf")  # the last boundary that the pipeline knows from before
        self.failure: str | None = None  # why a step failed and the thread has ended
        self.heartbeat = Heartbeat("pipeline", 60.0)
        self.view = View()

    # -- start --------------------------------------------------------------------------------------------------------

    def restore(self) -> float | None:
        """Go on where the last commit was made; the time of the last known boundary, None on a first start.

        A checkpoint that cannot be used (another site file, a newer version) costs no history: the stored registers
        go through the pipeline again.
        """
        meters, history = self._pipeline.meters, None
        saved, alerts = self._store.checkpoints(checkpoint.HEAD), self._store.checkpoint("alerts")
        if self._pipeline.forecasts is not None:
            self._pipeline.forecasts.restore_outdoor(self._store.checkpoint("outdoor"))
        if alerts is not None:
            try:
                self._book.restore(alerts)
            except Exception as e:  # whatever stands in the file, the meters are read
                log.warning("open alerts could not be taken over: %s", e)
        refusal = None
        if saved:
            try:
                history = self._stored_history(self._pipeline.needed_from_s(saved), meters)
                self._pipeline.restore(saved, history)
            except Exception as e:
                refusal = e
        if not saved or refusal is not None:
            if refusal is not None:
                log.warning("the detector starts anew from the stored rows: %s", refusal)
            history = self._replay_stored(self._pipeline.offset_wh(saved))
        self.view = View(alerts=self._book.active(self._clock.now()).alerts)
        if history is None or not len(history):
            return None
        self._known_s = float(history.times_s[-1])
        del history
        self._recall()
        release_free_memory()
        return self._known_s

    def _recall(self) -> None:
        """What the zones drew in the weeks before, for their forecasts; stored rows that go through again bring it."""
        forecasts = self._pipeline.forecasts
        if forecasts is not None and not self._backlog:
            since_s = self._known_s - RECALL_S
            forecasts.recall(self._stored_history(since_s, list(forecasts.mains.values())))
            forecasts.issue_now()

    def _stored_history(self, since_s: float, meters: Sequence[str], until_s: float = float("inf")) -> StoredHistory:
        return self._store.history(since_s, until_s, meters, self._pipeline.interval_s)

    def _replay_stored(self, offset_wh: Floats, until_s: float = float("inf")) -> StoredHistory:
        """Have the pipeline go through all stored rows until `until_s` again; what it will see.

        They are booked energies: `offset_wh` tells what lay between them and the meters' registers, which come next.
        """
        meters, interval_s = self._pipeline.meters, self._pipeline.interval_s
        history = self._stored_history(float("-inf"), meters, until_s)
        if len(history):
            first = int(np.searchsorted(history.times_s, float(history.times_s[-1]) - 2 * GAP_S))
            rows = StoredRows(meters, interval_s)
            rows.times_s, rows.wh = history.times_s[first:], self._pipeline.go_through_again(history, first)
            self._backlog.append(_Backlog(portions([rows], meters, interval_s), offset_wh))
        return history

    # -- run ----------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Take what comes until `stop` is set and the queue is empty. Stored rows not yet worked off are not lost:
        the meters, or the store, still have them at the next start.

        A step that fails is the last one: book and pipeline may then know what the store does not (an alert that is
        open and was never sent), and the buses have said what changed only once. Only a new start from the last
        commit has all of it again; whoever runs this thread sees `failure` and makes one.
        """
        self._stop = stop
        while True:
            stopping = stop.is_set()
            items = self._next(stopping)
            self.heartbeat.beat()
            try:
                self.take(items)
            except Exception as error:
                log.exception("a step failed; only a new start from the last commit can go on")
                self.failure = f"{type(error).__name__}: {error}"
                return
            if stopping and not items:
                return

    def _next(self, stopping: bool) -> list[Batch | CaughtUp]:
        items: list[Batch | CaughtUp] = []
        try:
            items.append(self._inbox.get(timeout=0 if stopping else IDLE_S))
            while len(items) < BATCHES_A_STEP:
                items.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return items

    def take(self, items: Sequence[Batch | CaughtUp]) -> None:
        """One turn: feed, close boundaries, judge, commit; some boundaries at once, each portion committed."""
        self._keep_time()
        taken = _Taken()
        for item in items:
            if isinstance(item, CaughtUp):
                self._catch_up(item)
            else:
                self._absorb(item, taken)
        if self._backlog:
            self._digest()
        # Until the stored profiles are in, a boundary would be closed without the meters that come last.
        early = self._behind or self._backlog or not self._settled()
        step = Step.nothing() if early else self._next_step()
        taken.events = [*step.alerts, *taken.events, *self._look_ahead(), *self._book.advance(self._clock.now())]
        self._commit(step, taken)
        while not early and self._boundaries_left() and not self._stop.is_set():
            self.heartbeat.beat()
            step = self._next_step()
            self._commit(step, _Taken(events=[*step.alerts, *self._look_ahead()]))

    def _absorb(self, batch: Batch, taken: _Taken) -> None:
        """Feed one batch: samples and signs to the pipeline; events, conditions and requests to the alert book."""
        self._pipeline.feed(self._dated(batch.samples))
        self._pipeline.awaits(batch.awaited)
        for sign in batch.signs:
            self._pipeline.sign(sign)
        tampers = [tamper for event in batch.events for tamper in self._tamper(event)]
        taken.messages += map(tamper_message, tampers)
        taken.events += self._book.tampered(tampers)
        taken.events += self._book.observe(batch.conditions)
        for request in batch.requests:
            outcome = request.act(self._book)
            taken.events += outcome.events
            taken.requests.append((request, outcome))

    def _catch_up(self, item: CaughtUp) -> None:
        """One bus has its stored rows together; with the last bus they are fed."""
        self._stored.append(item.stored)
        self._behind.discard(item.bus)
        if not self._behind:
            self._feed_stored()

    # -- time ---------------------------------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        """Begin the balance again where its boundaries and the clock do not belong to the same time any more."""
        next_s = self._pipeline.next_s
        if next_s is None or not self._settled() or self._backlog:
            return
        interval_s, now_s = self._pipeline.interval_s, self._clock.now()
        if next_s - interval_s > now_s + interval_s:
            dropped = self._store.drop_history_after(now_s)
            log.warning("%d intervals lie ahead of the clock, which was wrong: put aside; judging goes on", dropped)
            offset_wh = self._pipeline.offset_wh()
            self._pipeline.reset()
            history = self._replay_stored(offset_wh, now_s)  # a full disk keeps even rows that were dropped
            self._known_s = float(history.times_s[-1]) if len(history) else float("-inf")
        elif now_s - next_s > GAP_S:
            log.warning("nothing was judged since %s; the balance begins again", wire.utc(next_s).isoformat())
            self._pipeline.reset()

    def _dated(self, samples: Sequence[RegisterSample]) -> Sequence[RegisterSample]:
        """The samples whose time can be right; registers are cumulative, so the others cost no energy."""
        now_s, ahead_s = self._clock.now(), self._pipeline.interval_s
        if not self._settled():
            self.misdated += len(samples)
            return ()
        right = [sample for sample in samples if now_s - GAP_S <= sample.time_s <= now_s + ahead_s]
        self.misdated += len(samples) - len(right)
        return right

    def _next_step(self) -> Step:
        """Close what is due, but some boundaries at most."""
        now_s, next_s = self._clock.now(), self._pipeline.next_s
        if next_s is not None:
            now_s = min(now_s, next_s + ROWS_A_STEP * self._pipeline.interval_s)
        return self._pipeline.step(now_s)

    def _boundaries_left(self) -> bool:
        """Whether a boundary is due whatever the meters say: the grace time is at most one interval."""
        next_s = self._pipeline.next_s
        return next_s is not None and self._clock.now() >= next_s + 2 * self._pipeline.interval_s

    # -- stored rows --------------------------------------------------------------------------------------------------

    def _look_ahead(self) -> list[wire.AlertEvent]:
        """Take up the forecasts that the step brought; the alerts about capacities that they lead to."""
        if self._pipeline.forecasts is None:
            return []
        issued = self._pipeline.forecasts.drain()
        if issued.forecasts or issued.withdrawn:
            told = [(forecast.issued_s, forecast.zone, forecast) for forecast in issued.forecasts]
            said = self.view.forecasts.copy()
            for _, zone, forecast in sorted([*told, *((*w, None) for w in issued.withdrawn)], key=lambda t: t[:2]):
                said.pop(zone, None)
                if forecast is not None:
                    said[zone] = on_wire(forecast)
            self.view = dataclasses.replace(self.view, forecasts=said)
        return self._book.observe(conditions(issued))

    def _feed_stored(self) -> None:
        """Profiles of all meters, after what is known from before."""
        tables, self._stored = self._stored, []
        until_s = self._clock.now() + self._pipeline.interval_s
        after_s = max(self._known_s, until_s - 2 * GAP_S)  # whatever a meter says: no rows of another century
        without = sorted(set(self._pipeline.meters) & set().union(*(table.without for table in tables)))
        tables = [table.within(after_s, until_s) for table in tables]
        first_s = min((float(table.times_s[0]) for table in tables if len(table.times_s)), default=None)
        if first_s is not None and without and self._known_s == float("-inf"):
            # Weeks of rows in which a sub-meter is missing are weeks in which its energy is: no past is better.
            log.info("stored profiles are not used: %s store none, and a balance needs every meter", ", ".join(without))
        elif first_s is not None:
            log.info("stored profiles from %s on", wire.utc(first_s).isoformat())
            rows = portions(tables, self._pipeline.meters, self._pipeline.interval_s)
            self._backlog.append(_Backlog(rows))

    def _digest(self) -> None:
        """Work off the backlog: each portion is a step of its own, so that the thread shows life and can be stopped.

        Rows of the store's own history are not checkpointed before registers can follow the last of them.
        """
        while self._backlog and not self._stop.is_set():
            backlog = self._backlog[0]
            portion = next(backlog.portions, None)
            if portion is None:
                self._backlog.popleft()
                if backlog.offset_wh is not None:
                    self._commit(self._pipeline.registers_follow(backlog.offset_wh), _Taken())
                continue
            times_s, rows = portion
            self._pipeline.feed_block(times_s, rows)
            if self._pipeline.forecasts is not None:  # what would have been said then is no news
                self._pipeline.forecasts.muted = True
            # No later boundary may close yet: what it needs comes with the next portion.
            step = self._pipeline.step(float(times_s[-1]))
            if self._pipeline.forecasts is not None:
                self._pipeline.forecasts.muted = False
            if backlog.offset_wh is not None:
                step = dataclasses.replace(step, checkpoint=None)
            self._commit(step, _Taken(events=step.alerts))
            self.heartbeat.beat()
        if self._pipeline.forecasts is not None and not self._backlog:
            self._pipeline.forecasts.issue_now()
        release_free_memory()

    def _tamper(self, event: MeterEvent) -> list[wire.TamperEvent]:
        sign = sign_of(event)
        if sign is not None:
            self._pipeline.sign(sign)
        told = tamper_event(event, self._book.address, self._book.zone_of.get(event.meter), self._book.cim)
        return [] if told is None else [told]

    def _commit(self, step: Step, taken: _Taken) -> None:
        """All that a turn brought, in one transaction; then what may follow it: log, evidence, the view."""
        balances = [balance_on_wire(balance) for balance in step.balances]
        commit = self._commit_of(step, taken, balances)
        if commit.messages or commit.checkpoints or commit.history:
            self._store.commit(commit, self._clock.now())
        for request, _ in taken.requests:
            request.committed()
        for event in taken.events:
            log_alert(event)
            if event.data.state == "raised" and event.data.zone is not None and event.data.loss_w is not None:
                self.evidence.send(event.data)
        if step.checkpoint is not None or taken.events:
            self._show(balances, step)

    def _commit_of(self, step: Step, taken: _Taken, balances: Sequence[wire.Balance]) -> Commit:
        """What belongs together: the step's messages and checkpoints, and the answers to what was asked of the book."""
        fresh_s = self._clock.now() - FRESH_S
        messages = [*map(alert_message, taken.events), *taken.messages]
        messages += [message for _, outcome in taken.requests for message in outcome.messages]
        messages += [balance_message(b) for b in balances if b.end.timestamp() >= fresh_s]
        checkpoints: dict[str, bytes] = {}
        if taken.events or taken.requests or step.checkpoint is not None:
            checkpoints["alerts"] = self._book.state()
        if step.checkpoint is not None:
            checkpoints |= step.checkpoint
        forecasts = self._pipeline.forecasts
        if forecasts is not None and (outdoor := forecasts.outdoor_state()) is not None:
            checkpoints["outdoor"] = outdoor
        answers = [answer for _, outcome in taken.requests for answer in outcome.answers]
        return Commit(messages, checkpoints, self._pipeline.meters, step.history, answers)

    def _show(self, balances: Sequence[wire.Balance], step: Step) -> None:
        now_s = self._clock.now()
        scores = self._pipeline.scores() if step.checkpoint is not None else {}
        self.view = View(
            forecasts=self.view.forecasts,
            balances=self.view.balances | {balance.zone: balance for balance in balances},
            alerts=self._book.active(now_s).alerts,
            detectable_w=self._pipeline.detectable_w() if step.checkpoint is not None else self.view.detectable_w,
            suspicion={m: s.get("theft_probability", 0.0) for m, s in scores.items()} or self.view.suspicion,
            boundary_s=step.history[-1].time_s if step.history else self.view.boundary_s,
        )


@dataclass(frozen=True, slots=True)
class _Backlog:
    """Stored rows that the pipeline has not seen; or those of the store, which it has to see anew.

    offset_wh: of the store's, [meters]: booked energy minus register when they were booked, NaN where unknown.
    """

    portions: Iterator[tuple[Floats, Floats]]
    offset_wh: Floats | None = None
