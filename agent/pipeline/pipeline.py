"""The one step of service, replay and tests: register samples in, alerts and a checkpoint out.

It owns the order of things: align the registers, let every zone's monitor judge the new rows, hand the evidence
to the alert book, and give back what belongs into ONE transaction. It refuses to know buses, disks, clocks and
brokers. Only one thread may touch it.

Use: `feed` and `sign` in any order, then `step(now_s)`, again and again. After a restart: make a new Pipeline,
`restore` the last checkpoint and the history rows that were stored, and go on; the same input gives the same
output bit for bit.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from agent.alerts.condition import clock_faults
from agent.forecast.zone_forecasts import ZoneForecasts
from agent.pipeline import checkpoint
from agent.pipeline.fast import SEGMENT_S, FastRows, short_rows_s
from agent.pipeline.pipeline_zone import PipelineZone
from agent.pipeline.step import Book, Step
from agent.site.local_time import offset_s
from agent.site.tables import Config
from agent.wire.events import AlertEvent
from core.arrays import Floats
from core.balance.rows import ZoneRows
from core.evidence import Evidence
from core.monitor import zone_tree
from core.monitor.spec import Settings, ZoneSpec
from core.monitor.zone_monitor import ZoneMonitor
from core.registers.align import AlignedRows, Aligner, Flag
from core.registers.booked import HistoryRow, StoredHistory
from core.registers.samples import RegisterSample, RegisterSpec
from core.scoring.features import FEATURES
from core.scoring.zone_scores import Scorer
from core.signs import MeterSign, SignKind

VERSION = 5  # of the checkpoint
LIMIT_W = 50_000.0  # no flat draws more; the main meter may draw so much for each


class Pipeline:
    """Aligned registers -> zone monitors -> alert book.

    `meters` fixes the column order of history rows and of `feed_block`. The constructor's `interval_s` overrides the
    site file's where recorded rows are coarser; the attribute is the length of the rows that are judged and kept.
    `keep`: replay needs neither history rows nor checkpoints.
    """

    meters: tuple[str, ...]

    def __init__(
        self,
        config: Config,
        book: Book,
        scorer: Scorer | None = None,
        *,
        states: Scorer | None = None,
        interval_s: float | None = None,
        keep: bool = True,
        forecasts: ZoneForecasts | None = None,
    ) -> None:
        self._config, self._book, self._keep, self.forecasts = config, book, keep, forecasts
        self._asked_s = interval_s or config.detection.interval_s
        self.interval_s = config.detection.row_of(self._asked_s)
        known = {m.id: m for m in config.meter}
        wanted = dict.fromkeys(m for zone in config.zone for m in (zone.main, *zone.subs))
        self.meters = tuple(wanted)
        most = dict.fromkeys(self.meters, LIMIT_W)
        for zone in config.zone:
            most[zone.main] = max(most[zone.main], LIMIT_W * len(zone.subs))
        exporting = {m for zone in config.zone for m in zone.export}
        self._specs = [
            RegisterSpec(m, known[m].resolution_wh, known[m].accuracy_class, most[m], m in exporting)
            for m in self.meters
        ]
        self._scorer, self._states = scorer, states
        self._aligner = Aligner(self._specs, self.interval_s)
        self._zones = self._fresh_zones()
        polls_s = [bus.poll_s for bus in config.bus] if interval_s is None else []
        short_s = short_rows_s(self._asked_s, self.interval_s, max(polls_s, default=0.0))
        self._fast = None if short_s is None else FastRows(self._specs, short_s, [len(z.subs) for z in config.zone])
        self._tree = zone_tree.nesting({zone.id: (zone.main, frozenset(zone.subs)) for zone in config.zone})
        self._open: dict[str, float] = {}  # W lost in each zone with a latched loss that was told
        self._clocks: dict[str, float] = {}  # meters whose clock is off, and since when that is known
        self.counted: dict[str, int] = {flag.name or "": 0 for flag in Flag}
        self._main_read: dict[str, bool] = {}  # whether a zone's main meter was read at the last boundary
        # A capacity bears on no balance: changing it must not cost the detector its state.
        zones = [{k: v for k, v in msgspec.structs.asdict(z).items() if k != "capacity_w"} for z in config.zone]
        self._site = zlib.crc32(msgspec.json.encode([config.meter, zones, self.interval_s]))

    def _fresh_zones(self) -> list[PipelineZone]:
        """The zones of the site file with monitors that have seen nothing."""
        config = self._config
        known = {m.id: m for m in config.meter}
        place = {m: j for j, m in enumerate(self.meters)}
        return [
            PipelineZone(
                ZoneMonitor(
                    ZoneSpec(
                        zone.id,
                        tuple(zone.subs),
                        tuple(known[m].accuracy_class for m in zone.subs),
                        known[zone.main].accuracy_class,
                        tuple(known[m].resolution_wh for m in zone.subs),
                        zone.unmetered_w,
                    ),
                    self.interval_s / 3600,
                    Settings(
                        config.detection.false_alarms_per_year,
                        config.detection.confidence,
                        config.detection.guard_days,
                        offset_s(config.site.timezone),
                    ),
                    scorer=self._scorer,
                    states=self._states,
                ),
                np.array([place[m] for m in (zone.main, *zone.subs)], np.int32),
                np.array([1.0, *(-1.0 if m in zone.minus else 1.0 for m in zone.subs)]),
            )
            for zone in config.zone
        ]

    @property
    def unusable(self) -> dict[str, int]:
        """Samples that could not be used, by reason."""
        counters = self._aligner.counters
        return {
            "unknown meter": counters.unknown_meter,
            "too late": counters.late,
            "not a number": counters.not_a_number,
            "too many": counters.overflow,
        }

    @property
    def next_s(self) -> float | None:
        """The boundary that is closed next; None before the first sample."""
        return self._aligner.next_s

    def reset(self) -> None:
        """Forget everything that was fed, as if new; the alert book is not ours and keeps what is open."""
        before = self._aligner
        self._zones, self._aligner, self._open = self._fresh_zones(), Aligner(self._specs, self.interval_s), {}
        self._aligner.counters = before.counters
        self._aligner.book_from(before.state["booked_wh"])  # later rows must not count from nothing again
        self._main_read, self._clocks = {}, {}
        if self._fast is not None:
            self._fast.reset()
        if self.forecasts is not None:
            self.forecasts = self.forecasts.fresh()

    # -- in -----------------------------------------------------------------------------------------------------------

    def feed(self, samples: Iterable[RegisterSample]) -> None:
        """Take register samples of any meters, in any order; what cannot be true is counted and becomes an event."""
        samples = list(samples)
        self._aligner.feed(samples)
        if self._fast is not None:
            self._fast.feed(samples)

    def awaits(self, rows: Mapping[str, float]) -> None:
        """Hold boundaries open for stored rows that are still to come: meter -> boundary."""
        self._aligner.awaits(rows)

    def feed_block(self, times_s: Floats, wh: Floats) -> None:
        """Take whole rows, fast: registers `wh` [T, meters] at rising `times_s` [T]; NaN where not read.

        Of rows that are closer than those that are judged, those at their ends are taken: registers are cumulative.
        """
        if self._fast is not None:
            self._fast.feed_block(times_s, wh)
        if self._asked_s < self.interval_s:
            at_s = np.rint(times_s / self._asked_s) * self._asked_s
            ends = np.abs(at_s - np.rint(at_s / self.interval_s) * self.interval_s) < 1e-3
            times_s, wh = times_s[ends], wh[ends]
        self._aligner.feed_block(times_s, wh)

    def offset_wh(self, parts: Mapping[str, bytes] | None = None) -> Floats:
        """[meters] Booked energy minus register: now, or in a checkpoint; NaN where that cannot be told."""
        if parts is None:
            return self._aligner.offset_wh
        try:
            return self._aligner_in(self._unpack(parts)).offset_wh
        except Exception:  # whatever stands in the file, the meters are read
            return np.full(len(self.meters), np.nan)

    def go_through_again(self, history: StoredHistory, first: int) -> Floats:
        """Begin anew with the stored rows from `first` on; what is to be fed for them, NaN where nothing was read."""
        self.reset()
        self._aligner.book_from(history.wh[first])
        return np.where(history.flags[first:] & Flag.MISSED, np.nan, history.wh[first:])

    def registers_follow(self, offset_wh: Floats) -> Step:
        """Stored rows went through again, and registers come next; see `Aligner.registers_follow`."""
        self._aligner.registers_follow(offset_wh)
        return Step([], [], [], [], self._checkpoint())

    def sign(self, sign: MeterSign) -> None:
        """Take one tamper sign."""
        for zone in self._zones:
            zone.monitor.sign(sign)

    def accept(self, zone: str, sign: float, episode: int, reason: str, now_s: float) -> list[AlertEvent]:
        """Take a told loss of a zone for a normal load of the building from now on: what the book says of its end."""
        found = next((z.monitor for z in self._zones if z.monitor.zone.id == zone), None)
        if found is None:
            return []
        evidence = found.accept(sign, episode, reason, now_s)
        for item in evidence:
            zone_tree.smallest(item, self._tree, self._open)
        return self._book.apply(evidence)

    # -- step ---------------------------------------------------------------------------------------------------------

    def step(self, now_s: float) -> Step:
        """Close every boundary that all meters have answered, or whose grace time is over at `now_s`."""
        result = Step.nothing()
        if self._fast is not None:
            self._fast.close(now_s)
        while (aligned := self._aligner.close(now_s)) is not None:
            self._judge_all(aligned, result)
        self._judge_short(math.inf, None, result)
        result.alerts.extend(self._book.apply(result.evidence))
        result.alerts.extend(self._clock_faults())
        if result.history or result.evidence:  # only then is there a checkpoint, which an accepted load must be in
            for loss in self._book.take_accepted():
                result.alerts.extend(self.accept(loss.zone, loss.sign, loss.episode, loss.reason, now_s))
            return Step(result.alerts, result.evidence, result.balances, result.history, self._checkpoint())
        return result

    def _judge_all(self, aligned: AlignedRows, result: Step) -> None:
        """Judge rows, and the short ones among them in their time."""
        rest: AlignedRows | None = aligned
        while rest is not None and self._fast is not None:
            next_s = self._fast.next_s
            if next_s is None or next_s > rest.ends_s[-1]:
                break
            end_s = math.ceil(next_s / SEGMENT_S) * SEGMENT_S
            rest = self._judge_short(end_s, rest, result)
            if rest is not None:
                part, rest = rest.split(end_s)
                self._judge(part, result)
        self._judge(rest, result)

    def _judge_short(self, until_s: float, rest: AlignedRows | None, result: Step) -> AlignedRows | None:
        """Look at the short rows up to `until_s`; a large loss is told behind the rows of `rest` that came before."""
        if self._fast is None:
            return rest
        monitors = [zone.monitor for zone in self._zones]
        for n, loss in self._fast.look(until_s, monitors, lambda n, part: self._zones[n].short_rows(part)):
            if rest is not None:
                part, rest = rest.split(loss.at_s)
                self._judge(part, result)
            self._tell(monitors[n].large(loss), result)
        return rest

    def _judge(self, aligned: AlignedRows | None, result: Step) -> None:
        """Have the monitors judge rows."""
        if aligned is None:
            return
        self._note(aligned)
        found: list[Evidence] = []
        for zone in self._zones:
            rows, missed, read = zone.rows(aligned)
            if self.forecasts is not None:
                self._forecast(self.forecasts, zone, aligned, rows)
            found += zone.monitor.step(rows, missed, read)
            if self._keep:
                result.balances.extend(zone.balances(rows, read, self.interval_s))
        self._tell(found, result)
        if self._keep:
            columns = aligned.ends_s, aligned.booked_wh, aligned.sd_wh, aligned.flags
            result.history.extend(
                HistoryRow(float(t), wh.copy(), sd.copy(), flags.copy())
                for t, wh, sd, flags in zip(*columns, strict=True)
            )

    def _tell(self, found: list[Evidence], result: Step) -> None:
        """Keep what the tree of zones does not explain by a smaller one."""
        found.sort(key=lambda evidence: evidence.time_s)
        found = [e for e in found if zone_tree.smallest(e, self._tree, self._open)]
        result.evidence.extend(found)
        if self.forecasts is not None:
            self._missing(self.forecasts, found)

    def _clock_faults(self) -> list[AlertEvent]:
        """A meter whose clock is found to be off, or to be right again, is a fault of the meter and nobody's theft."""
        if self.next_s is None:
            return []
        found = {m: off_s for zone in self._zones for m, off_s in zone.monitor.clocks().items()}
        self._clocks, changed = clock_faults(self._clocks, found, self.next_s - self.interval_s)
        return self._book.observe(changed)

    def _forecast(self, forecasts: ZoneForecasts, zone: PipelineZone, aligned: AlignedRows, rows: ZoneRows) -> None:
        """Give a zone's load to its forecaster: only what its main meter was read for at both ends."""
        main, name = zone.columns[0], zone.monitor.zone.id
        read = (aligned.flags[:, main] & np.uint8(Flag.MISSED)) == 0
        before = np.concatenate([[self._main_read.get(name, False)], read[:-1]])
        self._main_read[name] = bool(read[-1])
        measured = read & before & (aligned.flags[:, main] == 0)
        bridged = (aligned.flags[:, main] & ~np.uint8(Flag.MISSED | Flag.LONG_GAP | Flag.STANDS)) == 0
        energy_wh, booked_wh = (np.where(known, rows.main_wh, np.nan) for known in (measured, bridged))
        forecasts.take(name, rows.ends_s, energy_wh, booked_wh)

    def _missing(self, forecasts: ZoneForecasts, found: Sequence[Evidence]) -> None:
        """A main meter that is found to show too little is forecast by what is drawn behind it."""
        for item in found:
            first = item.suspects[0] if item.suspects else None
            if first is not None and first.probability >= self._config.detection.confidence:
                loss_w = item.loss_w if item.active else 0.0
                forecasts.missing(first.meter, item.onset_s, item.time_s, loss_w)

    def _note(self, aligned: AlignedRows) -> None:
        """Count what happened to registers; a replaced meter is a sign of its own."""
        special = aligned.flags & np.uint8(Flag.REPLACED | Flag.ROLLOVER | Flag.JUMP)
        for t, j in np.argwhere(special):
            flag = Flag(int(special[t, j]))
            self.counted[flag.name or ""] += 1
            if flag & Flag.REPLACED:
                self.sign(MeterSign(self.meters[j], float(aligned.ends_s[t]), SignKind.METER_REPLACED))

    def detectable_w(self) -> dict[str, float]:
        """By zone, the smallest steady loss that would be found within a week, W; without those of a new zone."""
        told = {zone.monitor.zone.id: zone.monitor.detectable_w() for zone in self._zones}
        return {zone: watt for zone, watt in told.items() if math.isfinite(watt)}

    def scores(self) -> dict[str, dict[str, float]]:
        """Per sub-meter: `theft_probability` and the features behind it."""
        scores: dict[str, dict[str, float]] = {}
        for zone in self._zones:
            monitor = zone.monitor
            rows, probability = monitor.standing()
            for meter, p, row in zip(monitor.zone.subs, probability, rows, strict=True):
                named = {"theft_probability": float(p), **dict(zip(FEATURES, row.tolist(), strict=True))}
                scores.setdefault(meter, named)
        return scores

    # -- state --------------------------------------------------------------------------------------------------------

    def _checkpoint(self) -> dict[str, bytes]:
        values: dict[str, Any] = {
            "version": VERSION,
            "site": self._site,
            "next_s": self._aligner.next_s,
            "counted": self.counted,
            "open": self._open,
            "clocks": self._clocks,
        }
        values |= {f"aligner.{name}": array for name, array in self._aligner.state.items()}
        for n, zone in enumerate(self._zones):
            values |= {f"{n}.{name}": value for name, value in zone.monitor.pack().items()}
        return checkpoint.split(values)

    def _unpack(self, parts: Mapping[str, bytes]) -> dict[str, Any]:
        values = checkpoint.join(parts)
        if values.get("version") != VERSION or values.get("site") != self._site:
            raise ValueError("the checkpoint belongs to another site file or version")
        return values

    def _aligner_in(self, values: Mapping[str, Any]) -> Aligner:
        aligner = Aligner(self._specs, self.interval_s)
        aligner.next_s = values["next_s"]
        for name, array in aligner.state.items():
            array[:] = values.get(f"aligner.{name}", 0.0)  # an older version may not have known it
        return aligner

    def needed_from_s(self, parts: Mapping[str, bytes]) -> float:
        """The time of the oldest stored row that `restore` needs.

        Raises:
            ValueError: as `restore`.
        """
        values = self._unpack(parts)
        rows = max(values[f"{n}.count"] - values[f"{n}.first"] for n in range(len(self._zones)))
        return float(values["next_s"] - (rows + 1.5) * self.interval_s)

    def restore(self, parts: Mapping[str, bytes], history: StoredHistory) -> None:
        """Go on where the checkpoint of `parts` was made; `history` are the stored rows up to it (more is ignored).

        Raises:
            ValueError: the checkpoint belongs to another site file or version; start fresh and say so. Nothing is
                changed then.
        """
        values = self._unpack(parts)
        fresh, aligner = self._fresh_zones(), self._aligner_in(values)
        kept = int(np.searchsorted(history.times_s, values["next_s"] - 0.5 * self.interval_s))
        for n, zone in enumerate(fresh):
            prefix = f"{n}."
            packed = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
            zone.monitor.restore(packed, *zone.past(aligner, history, kept, packed["first"], packed["count"]))
        self._zones, self._aligner = fresh, aligner
        self.counted, self._open, self._clocks = values["counted"], values["open"], values["clocks"]
