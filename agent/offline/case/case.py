"""The facts of one case: an alert's revisions, the energies around it, the meters. Read from messages or the store.

It owns where the facts come from and that they fit together. What follows from them is `case_analysis`, how they
are shown `case_page`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.wire.codec import decode
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.state import EvidenceChunk, Health, Info, MeterInfo
from agent.wire.topics import split_topic
from agent.wire.values import WireError

Floats = NDArray[np.float64]

MAX_ROWS = 400 * 96  # a bit more than a year of quarter hours: bounds what a wrong time stamp can make us allocate


class CaseError(Exception):
    """The case cannot be made of these facts; the text says what is missing and where to get it."""


@dataclass(frozen=True, slots=True)
class Energies:
    """Energy of a zone's meters on one regular grid: row k covers `start_s + k * interval_s` onward.

    main_kwh [T], subs_kwh [T, N]: kWh per interval, NaN where not read.
    """

    start_s: float
    interval_s: float
    main: str
    subs: tuple[str, ...]
    main_kwh: Floats
    subs_kwh: Floats

    @property
    def times_s(self) -> Floats:
        """Start of each interval, UTC seconds."""
        return self.start_s + self.interval_s * np.arange(len(self.main_kwh))


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known of one alert. `revisions` are in order, without gaps at the end.

    detectable_w: the smallest steady loss that would be found within a week in this zone; None where nobody said.
    """

    revisions: tuple[AlertEvent, ...]
    energies: Energies
    meters: tuple[MeterInfo, ...] = ()
    info: Info | None = None
    tampers: tuple[TamperEvent, ...] = ()
    detectable_w: float | None = None

    @property
    def alert(self) -> AlertEvent:
        """The last revision: it says all."""
        return self.revisions[-1]


def check_complete(energies: Energies, info: Info | None, zone: str | None) -> None:
    """Refuse a case in which a meter of the zone has no figures at all: its energy would look missing.

    Raises:
        CaseError: naming the meters.
    """
    known = next((z for z in info.zones if z.id == zone), None) if info is not None else None
    shown = dict(zip((energies.main, *energies.subs), (energies.main_kwh, *energies.subs_kwh.T), strict=True))
    if known is not None:
        absent = sorted({known.main, *known.subs} - shown.keys())
        foreign = sorted(shown.keys() - {known.main, *known.subs})
        if absent or foreign or known.main != energies.main:
            raise CaseError(
                f"the figures are not those of zone {zone}: "
                + "; ".join(
                    f"{words} {', '.join(names)}" for words, names in (("without", absent), ("with", foreign)) if names
                )
                + ". Ask the gateway for the evidence again, and record all of its messages"
            )
    silent = sorted(name for name, kwh in shown.items() if not np.isfinite(kwh).any())
    if silent:
        raise CaseError(f"not one interval of {', '.join(silent)} was read: nothing can be said of what is missing")


@dataclass(frozen=True, slots=True)
class Gathered:
    """What messages of one gateway say, before it is known to be enough for a case."""

    revisions: tuple[AlertEvent, ...]
    chunks: tuple[EvidenceChunk, ...]
    info: Info | None
    tampers: tuple[TamperEvent, ...]
    detectable_w: dict[str, float]  # by zone, as the last health says
    wrong: dict[str, tuple[str, int]]  # by kind: what is wrong with the first that cannot be read, and how many

    def unreadable(self, kind: str) -> str:
        """How many messages of a kind cannot be read, and why, as the end of a sentence; empty if all can."""
        if kind not in self.wrong:
            return ""
        reason, count = self.wrong[kind]
        if count == 1:
            return f"; 1 {kind} message cannot be read: {reason}"
        return f"; {count} {kind} messages cannot be read, the first: {reason}"


def from_messages(lines: Iterable[str], alert_id: str) -> Case:
    """Make the case from recorded messages, one a line: topic, a blank, the JSON body (`mosquitto_sub -v`).

    Raises:
        CaseError: the alert, its evidence or the gateway's `info` is not among them.
    """
    found = _gather(lines, alert_id)
    if not found.revisions:
        raise CaseError(
            f"no revision of alert {alert_id} is among the messages"
            f"{found.unreadable('event/alert') or '; record event/alert too'}"
        )
    if not found.chunks:
        raise CaseError(
            f"no evidence/{alert_id}/... is among the messages"
            f"{found.unreadable('evidence') or '; ask the gateway for it with the report command'}"
        )
    if found.info is None:
        if wrong := found.wrong.get("info"):
            raise CaseError(f"the gateway's info message cannot be read: {wrong[0]}")
        raise CaseError("the gateway's retained info message is missing; it says which meter is the main meter")
    zone = found.chunks[0].zone
    known = next((z for z in found.info.zones if z.id == zone), None)
    if known is None:
        raise CaseError(f"the gateway's info knows no zone {zone!r}")
    missing = sorted(set(range(1, found.chunks[0].of + 1)) - {c.n for c in found.chunks})
    if missing:
        raise CaseError(
            f"of {found.chunks[0].of} evidence messages these are missing: {missing}"
            f"{found.unreadable('evidence')}; ask for them again"
        )
    energies = _on_one_grid(found.chunks, known.main)
    energies.subs_kwh[:, [name in known.minus for name in energies.subs]] *= -1.0
    check_complete(energies, found.info, zone)
    return Case(
        revisions=found.revisions,
        energies=energies,
        meters=tuple(found.info.meters),
        info=found.info,
        tampers=found.tampers,
        detectable_w=found.detectable_w.get(zone),
    )


def _gather(lines: Iterable[str], alert_id: str) -> Gathered:
    revisions: dict[int, AlertEvent] = {}
    chunks: dict[int, EvidenceChunk] = {}
    tampers: dict[str, TamperEvent] = {}
    info: Info | None = None
    detectable_w: dict[str, float] = {}
    wrong: dict[str, tuple[str, int]] = {}
    for line in lines:
        topic, _, body = line.strip().partition(" ")
        kind = ""
        try:
            _, suffix = split_topic(topic)
            payload = body.encode()
            kind = "evidence" if suffix.startswith(f"evidence/{alert_id}/") else suffix
            if suffix == "event/alert":
                event = decode(AlertEvent, payload)
                if event.data.alert_id == alert_id:
                    revisions[event.data.revision] = event
            elif kind == "evidence":
                chunk = decode(EvidenceChunk, payload)
                chunks[chunk.n] = chunk
            elif suffix == "event/tamper":
                tamper = decode(TamperEvent, payload)
                tampers[tamper.id] = tamper
            elif suffix == "info":
                info = decode(Info, payload)
            elif suffix == "health":
                detectable_w = decode(Health, payload).detectable_w
        except (WireError, msgspec.ValidationError) as error:
            if kind:
                first, count = wrong.get(kind, (str(error), 0))
                wrong[kind] = first, count + 1
    return Gathered(
        tuple(revisions[k] for k in sorted(revisions)),
        tuple(chunks[k] for k in sorted(chunks)),
        info,
        tuple(sorted(tampers.values(), key=lambda t: t.time)),
        detectable_w,
        wrong,
    )


def _on_one_grid(chunks: tuple[EvidenceChunk, ...], main: str) -> Energies:
    interval_s = chunks[0].interval_s
    if any(c.interval_s != interval_s for c in chunks):
        raise CaseError("the evidence messages have different intervals; they are of more than one request")
    start_s = min(c.start.timestamp() for c in chunks)
    names = list(dict.fromkeys(s.meter for c in chunks for s in c.series))
    if main not in names:
        raise CaseError(f"the evidence holds no series of the main meter {main!r}")
    end_s = max(c.start.timestamp() + interval_s * max((len(s.kwh) for s in c.series), default=0) for c in chunks)
    rows = round((end_s - start_s) / interval_s)
    if not 0 < rows <= MAX_ROWS:
        raise CaseError(f"the evidence spans {rows} intervals; at most {MAX_ROWS} can be shown")
    table = np.full((rows, len(names)), np.nan)
    for chunk in chunks:
        first = round((chunk.start.timestamp() - start_s) / interval_s)
        for series in chunk.series:
            values = np.array([np.nan if v is None else v for v in series.kwh], dtype=np.float64)
            table[first : first + len(values), names.index(series.meter)] = values
    k = names.index(main)
    subs = tuple(n for n in names if n != main)
    return Energies(start_s, interval_s, main, subs, table[:, k].copy(), np.delete(table, k, axis=1))
