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
from itertools import pairwise

from agent import wire
from agent.pipeline.inbox import Batch, CaughtUp
from agent.pipeline.stored_rows import StoredRows
from agent.polling.bus_conditions import BusConditions
from agent.polling.meter_watch import MeterWatch
from agent.process.heartbeat import Heartbeat
from agent.process.trusted_clock import TrustedClock
from agent.site.tables import Bus as BusConfig
from firmware_io.bus import Bus, Poll
from firmware_io.clock import Clock
from firmware_io.errors import AccessDenied, MeterError, RegisterUnavailable, TransportError
from firmware_io.obis import ENERGY_EXPORT, ENERGY_IMPORT
from firmware_io.reading import Quality, Reading, Unit

log = logging.getLogger("checkmeter.bus")

DAY_S = 86400.0
CATCH_UP_S = 60 * DAY_S  # at a first start; meters seldom store more
CHUNK_S = 2 * DAY_S  # of one profile request: bounds how long the thread gives no sign of life
USUAL_PERIOD_S = 900.0  # of a load profile whose period is not known yet
ROW_DELAY_S = 15.0  # a meter's clock may be late by as much
CATCH_UP_ROUNDS, ROUND_PAUSE_S = 3, 10.0  # a line that fails while it starts must not cost the history
EVENTS_S = 900.0  # each meter's event logs are read this often
EARLY_S = 1.0
LOOK_S = 5.0  # between two looks at what must be kept alive, while a cycle is waited for
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
        self._row_s: dict[str, float] = {}  # the newest stored row of each meter that may have a profile
        self._period_s: dict[str, float] = {}  # how far apart a meter's stored rows are
        self.watches = {watch.config.id: watch for watch in watches}
        self._bus, self._clock, self._inbox = bus, clock, inbox
        self._trusted = trusted  # the same clock, where the meters' clocks may speak for or against it
        self._asked: dict[str, int] = {}  # meter -> how often our time had jumped when its clock was last read
        self._carried: deque[Batch] = deque(maxlen=CARRIED)
        self._conditions = BusConditions(config, self.watches)
        self._events_since_s: dict[str, float] = {}
        self._events_due_s: dict[str, float] = {}
        self.heartbeat = Heartbeat(f"bus {config.id}", BEAT_S)
        self.phase = "starting"
        self.failures = 0  # times that the thread had to begin again
        self.cycles = 0
        self.skipped = 0
        self._port_said = False  # in this round of catching up
        self.cycle_s: float | None = None

    def run(self, stop: threading.Event, known_s: float | None) -> None:
        """Catch up from `known_s` (None: a first start), then poll until `stop`."""
        caught_up, pause_s = False, 0.0
        while not stop.is_set():
            try:
                if not caught_up:
                    self.catch_up(stop, known_s)
                    caught_up = True
                while not stop.is_set():
                    due_s = self._next_due_s()
                    self.cycle(stop)
                    self._pause(stop, due_s)
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
        for meter, row_s in list(self._row_s.items()):
            self._caught_up(stop, meter, row_s + 1.0, stored)
        self._row_s |= dict.fromkeys(left, first_s)  # whether they have one is seen when they answer
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
        self.phase = f"reading what the meters stored: {len(self._row_s)} of {len(self.watches)} done"
        try:
            if watch.serial is None or self._time_has_jumped(meter):
                self._identify(meter)
            registers = self._stored(stop, watch, first_s)
            stored.add(meter, registers)
            if not registers and meter not in self._row_s:  # nothing since the first pass is no sign of it
                stored.without.add(meter)
            self._row_s[meter] = max(registers, default=first_s - 1.0)
            if len(registers) > 1:
                times_s = sorted(registers)
                self._period_s[meter] = min(b - a for a, b in pairwise(times_s))
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
        """Poll every meter that is due once, read some event logs, and say what has changed for the worse or better."""
        self._read_rows(stop)
        began_s = self._clock.monotonic()
        asked_s = time.perf_counter()
        for poll in self._bus.poll_cycle():
            answered_s = time.perf_counter()
            self._take(poll, answered_s - asked_s)
            self.heartbeat.beat()
            if stop.is_set():
                return
            asked_s = time.perf_counter()
        self._read_events(stop)
        self.cycles += 1
        self.cycle_s = self._clock.monotonic() - began_s
        conditions = self._conditions.changed(self._clock.now())
        if conditions:
            self._hand_over(Batch(conditions=conditions))

    def _next_due_s(self) -> float:
        """When the cycle after the one that begins now is due: at the next multiple of `poll_s` of the day's time.

        So intervals end where meters are read: one that stores no load profile is read just behind the boundary.
        """
        poll_s = self.config.poll_s
        early_s = min(EARLY_S, poll_s / 10)  # a wait may end a little before its time
        left_s = poll_s - (self._clock.now() + early_s) % poll_s + early_s
        return self._clock.monotonic() + left_s

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
            self._hand_over(Batch(samples=samples, signs=signs))

    def _read_rows(self, stop: threading.Event) -> None:
        """After a boundary, ask each meter that has a profile for its new row: exact in time, as no poll can be.

        Polling waits for it, so that the boundary is not closed by polls on either side of it.
        """
        now_s = self._clock.now()
        boundary_s = now_s // self._interval_s * self._interval_s
        due = [
            meter
            for meter, row_s in self._row_s.items()
            if row_s < boundary_s and self._has_row(meter, boundary_s) and not self.watches[meter].silent
        ]
        if not due or self._clock.wait(stop, boundary_s + ROW_DELAY_S - now_s):
            return
        for meter in due:
            if stop.is_set():
                return
            # Boundaries of a gap are judged already: no alert waits for a meter that may never answer again.
            first_s = max(self._row_s[meter], boundary_s - self._interval_s) + 1.0
            self._row_s[meter] = boundary_s  # whatever comes of it, this boundary is not asked for again
            try:
                if self._time_has_jumped(meter):
                    self._identify(meter)
                readings = self._bus.read_profile(meter, first_s, boundary_s + ROW_DELAY_S)
            except MeterError as error:
                log.info("load profile: %s", error)
                continue
            finally:
                self.heartbeat.beat()
            identity = self._bus.identity(meter)
            offset_s = 0.0 if identity is None else identity.clock_offset_s or 0.0
            samples = self.watches[meter].stored(readings, offset_s)
            if samples:
                self._hand_over(Batch(samples=samples))

    def _has_row(self, meter: str, boundary_s: float) -> bool:
        """Whether a meter can have stored a row at a boundary: its capture period divides it.

        A balance every ten seconds must not wait at each boundary for rows that come every quarter of an hour.
        """
        period_s = self._period_s.get(meter, max(self._interval_s, USUAL_PERIOD_S))
        return boundary_s % period_s < 1.0

    def _read_events(self, stop: threading.Event) -> None:
        """The event logs of those meters whose turn it is: a share of all in each cycle, so that none waits long."""
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
            cycle_s=None if self.cycle_s is None else round(self.cycle_s, 2),
        )


def _registers(readings: Sequence[Reading], *, exports: bool) -> dict[float, float]:
    """Import minus export (where that counts) by time, from profile rows whose time can be trusted."""
    doubtful = Quality.CLOCK_INVALID | Quality.CLOCK_OFF
    trusted = [r for r in readings if r.unit is Unit.WATT_HOUR and not r.quality & doubtful]
    registers = {r.sampled_s: r.value for r in trusted if r.obis == ENERGY_IMPORT}
    if not exports:
        return registers
    exported = {r.sampled_s: r.value for r in trusted if r.obis == ENERGY_EXPORT}
    return {t: wh - exported[t] for t, wh in registers.items() if t in exported}
