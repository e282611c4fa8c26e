"""One bus and its thread: what the meters stored first, then poll after poll, into the pipeline's queue.

It owns the rhythm: catching up at the start, cycles, event logs, conditions. How a meter is read is `firmware_io.bus`'s
business, what its readings mean `agent.polling.meter_watch`'s. A full queue costs a poll and is counted: registers are
cumulative, so no energy is lost with it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence

from agent import wire
from agent.pipeline.inbox import NOT_AWAITED, Batch, CaughtUp
from agent.pipeline.stored_rows import StoredRows
from agent.polling.bus_conditions import BusConditions
from agent.polling.late_rows import ROW_DELAY_S, LateRows
from agent.polling.meter_watch import MeterWatch
from agent.polling.rhythm import Rhythm
from agent.process.heartbeat import Heartbeat
from agent.process.trusted_clock import TrustedClock
from agent.site.tables import Bus as BusConfig
from core.registers.samples import RegisterSample
from firmware_io.bus import Bus, Poll
from firmware_io.clock import Clock
from firmware_io.errors import AccessDenied, MeterError, RegisterUnavailable, TransportError
from firmware_io.obis import ENERGY_EXPORT, ENERGY_IMPORT
from firmware_io.reading import Quality, Reading, Unit

log = logging.getLogger("checkmeter.bus")

DAY_S = 86400.0
CATCH_UP_S = 60 * DAY_S  # at a first start; meters seldom store more
CHUNK_S = 2 * DAY_S  # of one profile request: bounds how long the thread gives no sign of life
ROWS_LEAST = 2  # of load profiles read in a cycle that the polls fill: a boundary is not held open for long
SPARE = 0.9  # of a cycle may be used by polls, rows and event logs together
CATCH_UP_ROUNDS, ROUND_PAUSE_S = 3, 10.0  # a line that fails while it starts must not cost the history
EVENTS_CYCLES = 16  # on a line that the polls fill, they are read behind one cycle in so many
EVENTS_S = 900.0  # each meter's event logs are read this often
LOOK_S = 5.0  # between two looks at what must be kept alive, while a cycle is waited for
GATHER_S = 0.2  # of polls are handed over together
CARRIED = 1000  # events and conditions kept while the queue is full
BEAT_S = 120.0
RESTART_S, RESTART_LIMIT_S = 1.0, 60.0  # before a thread that failed begins again, host seconds; doubled each time


class BusThread:
    """The thread of one bus. `run` is its body; `cycle` and `catch_up` are for tests too."""

    def __init__(
        self,
        config: BusConfig,
        bus: Bus,
        watches: Sequence[MeterWatch],
        clock: Clock,
        inbox: queue.Queue[Batch | CaughtUp],
        interval_s: float = 900.0,
        trusted: TrustedClock | None = None,
    ) -> None:
        self.config = config
        self._interval_s = interval_s
        self._rows = LateRows(interval_s)
        self._rhythm = Rhythm(config.poll_s)
        self.watches = {watch.config.id: watch for watch in watches}
        self._bus, self._clock, self._inbox = bus, clock, inbox
        self._trusted = trusted  # the same clock, where the meters' clocks may speak for or against it
        self._asked: dict[str, int] = {}  # meter -> how often our time had jumped when its clock was last read
        self._carried: deque[Batch] = deque(maxlen=CARRIED)
        self._gathered: Batch | None = None  # by one cycle at most
        self._gathered_s = 0.0
        self._conditions = BusConditions(config, self.watches)
        self._events_since_s: dict[str, float] = {}
        self._events_due_s: dict[str, float] = {}
        self.heartbeat = Heartbeat(f"bus {config.id}", BEAT_S)
        self.phase = "starting"
        self.failures = 0  # times that the thread had to begin again
        self.cycles = 0
        self.skipped = 0
        self._port_said = False  # in this round of catching up

    def run(self, stop: threading.Event, known_s: float | None) -> None:
        """Catch up from `known_s` (None: a first start), then poll until `stop`."""
        caught_up, pause_s = False, 0.0
        while not stop.is_set():
            try:
                if not caught_up:
                    self.catch_up(stop, known_s)
                    caught_up = True
                while not stop.is_set():
                    self.cycle(stop)
                    self._pause(stop, self._rhythm.next_s(self._clock.monotonic(), self._clock.now()))
            except Exception:  # a bug, or a meter that finds one: the other meters of the line are read all the same
                self.failures += 1
                pause_s = min(RESTART_LIMIT_S, RESTART_S * 2.0 ** min(self.failures - 1, 10))
                log.exception("bus %s: its thread failed and begins again in %.0f s", self.config.id, pause_s)
            finally:
                self._bus.close()
            self.heartbeat.beat()
            stop.wait(pause_s)

    # -- catching up --------------------------------------------------------------------------------------------------

    def catch_up(self, stop: threading.Event, known_s: float | None) -> None:
        """Who the meters are, and what they stored since `known_s`; the pipeline waits for this.

        The second pass is short: it reads what the first meters have stored while the last ones were read.
        """
        self._settle_the_time(stop)
        now_s = self._clock.now()
        if known_s is not None and known_s > now_s:  # put down by a clock that was ahead
            known_s = None
        first_s = now_s - CATCH_UP_S if known_s is None else max(known_s + 1.0, now_s - CATCH_UP_S)
        self._events_since_s = dict.fromkeys(self.watches, first_s)
        stored = StoredRows(list(self.watches), self._interval_s)
        left = list(self.watches)
        for attempt in range(CATCH_UP_ROUNDS):
            if attempt and (not left or self._clock.wait(stop, ROUND_PAUSE_S)):
                break
            self._port_said = False
            left = [meter for meter in left if not self._caught_up(stop, meter, first_s, stored)]
        for meter, row_s in list(self._rows.newest_s.items()):
            self._caught_up(stop, meter, row_s + 1.0, stored)
        self._rows.newest_s |= dict.fromkeys(left, first_s)  # whether they have one is seen when they answer
        self.phase = ""
        self._put(CaughtUp(self.config.id, stored), stop)

    def _settle_the_time(self, stop: threading.Event) -> None:
        """Where our own clock is in doubt, ask the meters first: what they stored is asked for by time."""
        for meter in self.watches:
            if self._trusted is None or self._trusted.doubt is None or stop.is_set():
                return
            self.heartbeat.beat()
            try:
                self._identify(meter)
            except MeterError as error:
                log.info("%s; the next meter is asked for the time", error)

    def _identify(self, meter: str) -> None:
        """Who the meter is and what its clock says, asked now. Raises: MeterError."""
        identity = self._bus.identify(meter)
        if self._trusted is not None:
            self._asked[meter] = self._trusted.steps
            if identity.clock_offset_s is not None and not identity.clock_doubtful:
                self._trusted.witness(identity.clock_offset_s)
        self.watches[meter].identified(identity.serial, identity.firmware, self._clock.now())

    def _time_has_jumped(self, meter: str) -> bool:
        """Whether our time has jumped since this meter's clock was compared with it."""
        return self._trusted is not None and self._asked.get(meter, 0) != self._trusted.steps

    def _caught_up(self, stop: threading.Event, meter: str, first_s: float, stored: StoredRows) -> bool:
        """Add what one meter stored after `first_s`; False if it is worth asking again."""
        self.heartbeat.beat()
        if stop.is_set():
            return True
        watch = self.watches[meter]
        self.phase = f"reading what the meters stored: {len(self._rows.newest_s)} of {len(self.watches)} done"
        try:
            if watch.serial is None or self._time_has_jumped(meter):
                self._identify(meter)
            registers = self._stored(stop, watch, first_s)
            stored.add(meter, registers)
            if not registers and meter not in self._rows.newest_s:  # nothing since the first pass is no sign of it
                stored.without.add(meter)
            self._rows.stored(meter, registers, first_s)
        except RegisterUnavailable as error:
            log.info("%s; it starts with what it shows now", error)
            stored.without.add(meter)
        except MeterError as error:
            watch.failed(error, self._clock.now())
            # A port that is away fails every meter behind it: that is one message, not one for each of them.
            if not (isinstance(error, TransportError) and self._port_said):
                log.warning("%s", error)
            self._port_said |= isinstance(error, TransportError)
            return isinstance(error, AccessDenied)
        return True

    def _stored(self, stop: threading.Event, watch: MeterWatch, first_s: float) -> dict[float, float]:
        """One meter's stored registers after `first_s` by time: Wh, primary, import minus export."""
        registers: dict[float, float] = {}
        start_s = first_s
        while start_s < (now_s := self._clock.now()) and not stop.is_set():
            end_s = min(start_s + CHUNK_S, now_s)
            registers |= _registers(self._bus.read_profile(watch.config.id, start_s, end_s), exports=watch.exports)
            self.heartbeat.beat()
            if end_s == now_s:
                break
            start_s = end_s + 1.0
        ratio = watch.config.ct_ratio
        return {time_s: wh * ratio for time_s, wh in registers.items()}

    # -- polling ------------------------------------------------------------------------------------------------------

    def cycle(self, stop: threading.Event) -> None:
        """Poll every meter that is due once, read some rows and event logs, and say what has changed."""
        began_s = self._clock.monotonic()
        self._rhythm.begins(began_s)
        asked_s = time.perf_counter()
        for poll in self._bus.poll_cycle():
            answered_s = time.perf_counter()
            self._take(poll, answered_s - asked_s)
            self.heartbeat.beat()
            if stop.is_set():
                break
            asked_s = time.perf_counter()
        self._flush()
        if stop.is_set():
            return
        self.cycles += 1
        self._rhythm.ended(self._clock.monotonic())
        # What is read beside the polls may take the rest of the cycle; where there is none, two rows a cycle.
        until_s = began_s + SPARE * self.config.poll_s
        self._read_rows(stop, until_s)
        self._read_events(stop, until_s)
        conditions = self._conditions.changed(self._clock.now())
        if conditions:
            self._hand_over(Batch(conditions=conditions))

    def _take(self, poll: Poll, took_s: float) -> None:
        watch = self.watches[poll.meter]
        if poll.error is not None:
            if watch.failures == 0:
                log.warning("%s", poll.error)
            watch.failed(poll.error, self._clock.now())
        elif poll.readings:
            if watch.silent:
                log.info("%s answers again", poll.meter)
            watch.latency_s = took_s
            samples, signs = watch.answered(poll.readings)
            identity = self._bus.identity(poll.meter)
            for why in watch.newly_unreadable(() if identity is None else identity.unreadable):
                log.warning("%s: a register is left out: %s", poll.meter, why)
            if identity is not None and (
                sign := watch.identified(identity.serial, identity.firmware, self._clock.now())
            ):
                signs.append(sign)
            awaited = self._rows.awaited(self._clock.now(), lambda meter: self.watches[meter].silent)
            self._gather(Batch(samples=samples, signs=signs, awaited=awaited))

    def _gather(self, batch: Batch) -> None:
        """Hand over what a poll brought; where one takes milliseconds, some together: the pipeline wakes for each."""
        now_s = self._clock.monotonic()
        if self._gathered is None:
            self._gathered, self._gathered_s = batch, now_s
        else:
            before = self._gathered
            self._gathered = Batch(
                samples=[*before.samples, *batch.samples],
                signs=[*before.signs, *batch.signs],
                awaited={**before.awaited, **batch.awaited},
            )
        if now_s - self._gathered_s >= GATHER_S:
            self._flush()

    def _flush(self) -> None:
        """Hand over what quick polls have gathered."""
        if self._gathered is not None:
            batch, self._gathered = self._gathered, None
            self._hand_over(batch)

    def _read_rows(self, stop: threading.Event, until_s: float) -> None:
        """Ask meters for their rows of the last boundary: `ROWS_LEAST`, and as many as there is time for."""
        asked = 0
        while (due := self._rows.due(self._clock.now())) is not None and not stop.is_set():
            meter, first_s, boundary_s = due
            samples: Sequence[RegisterSample] = ()
            try:
                if self._time_has_jumped(meter):
                    self._identify(meter)
                readings = self._bus.read_profile(meter, first_s, boundary_s + ROW_DELAY_S)
                identity = self._bus.identity(meter)
                offset_s = 0.0 if identity is None else identity.clock_offset_s or 0.0
                samples = self.watches[meter].stored(readings, offset_s)
            except MeterError as error:
                log.info("load profile: %s", error)
            self.heartbeat.beat()
            self._hand_over(Batch(samples=samples, awaited={meter: NOT_AWAITED}))
            asked += 1
            if asked >= ROWS_LEAST and self._clock.monotonic() >= until_s:
                return

    def _read_events(self, stop: threading.Event, until_s: float) -> None:
        """The event logs of those meters whose turn it is: a share of all in each cycle, so that none waits long."""
        if self._clock.monotonic() >= until_s and self.cycles % EVENTS_CYCLES:
            return  # the polls take all of the cycle
        now_s = self._clock.now()
        due = [
            meter
            for meter, watch in self.watches.items()
            if not watch.silent and watch.readings and self._events_due_s.get(meter, 0.0) <= now_s
        ]
        share = max(1, round(len(self.watches) * self.config.poll_s / EVENTS_S))
        for meter in sorted(due, key=lambda m: self._events_due_s.get(m, 0.0))[:share]:
            if stop.is_set():
                return
            self._events_due_s[meter] = now_s + EVENTS_S
            since_s = self._events_since_s.setdefault(meter, now_s - EVENTS_S)
            try:
                events = self._bus.read_events(meter, since_s)
            except MeterError as error:
                log.info("event logs: %s", error)
                continue
            finally:
                self.heartbeat.beat()
            if events:
                self._events_since_s[meter] = max(since_s, *(event.meter_time_s for event in events))
                self._hand_over(Batch(events=events))

    def _pause(self, stop: threading.Event, until_s: float) -> None:
        """Wait for the next cycle, and keep the associations alive meanwhile."""
        while not stop.is_set():
            self.heartbeat.beat()
            left_s = until_s - self._clock.monotonic()
            if left_s <= 0 or self._clock.wait(stop, min(left_s, LOOK_S)):
                return
            self._bus.keep_alive()
            for poll in self._bus.probe():
                self._take(poll, 0.0)
                self.heartbeat.beat()
            self._flush()
            self._read_rows(stop, until_s - (1.0 - SPARE) * self.config.poll_s)

    # -- handing over -------------------------------------------------------------------------------------------------

    def _hand_over(self, batch: Batch) -> None:
        """Queue a batch; where the queue is full its samples are dropped, the rest is carried along."""
        try:
            while self._carried:
                self._inbox.put_nowait(self._carried[0])
                self._carried.popleft()
            self._inbox.put_nowait(batch)
        except queue.Full:
            self.skipped += 1
            log.warning("bus %s: the pipeline's queue is full; a poll is skipped", self.config.id)
            if batch.events or batch.signs or batch.conditions:
                self._carried.append(Batch(events=batch.events, signs=batch.signs, conditions=batch.conditions))

    def _put(self, item: CaughtUp, stop: threading.Event) -> None:
        """Queue what must not be lost, however long that takes."""
        while not stop.is_set():
            try:
                self._inbox.put(item, timeout=1.0)
            except queue.Full:
                self.heartbeat.beat()
            else:
                return

    # -- what can be seen ---------------------------------------------------------------------------------------------

    def health(self) -> wire.BusHealth:
        """The bus's figures."""
        errors: dict[str, int] = {}
        for watch in self.watches.values():
            for kind, count in dict(watch.errors).items():  # a copy: the bus thread may add a kind meanwhile
                errors[kind] = errors.get(kind, 0) + count
        up = any(not watch.silent for watch in self.watches.values())
        return wire.BusHealth(
            id=self.config.id,
            state="up" if up else "down",
            cycles=self.cycles,
            skipped=self.skipped,
            errors=errors,
            cycle_s=_rounded(self._rhythm.cycle_s),
            poll_s=self.config.poll_s,
            kept_s=_rounded(self._rhythm.kept_s),
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _registers(readings: Sequence[Reading], *, exports: bool) -> dict[float, float]:
    """Import minus export (where that counts) by time, from profile rows whose time can be trusted."""
    doubtful = Quality.CLOCK_INVALID | Quality.CLOCK_OFF
    trusted = [r for r in readings if r.unit is Unit.WATT_HOUR and not r.quality & doubtful]
    registers = {r.sampled_s: r.value for r in trusted if r.obis == ENERGY_IMPORT}
    if not exports:
        return registers
    exported = {r.sampled_s: r.value for r in trusted if r.obis == ENERGY_EXPORT}
    return {t: wh - exported[t] for t, wh in registers.items() if t in exported}
