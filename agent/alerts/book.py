"""The life of an alert: raised, updated on material change, acknowledged, cleared; its identity and its restraint.

It owns which alerts are open and what was last said of each. It refuses to know clocks, disks and brokers: all time
comes with what it is told, so service, replay and tests get the same alerts from the same input.

Identity. The `alert_id` of a loss comes from site, zone, sign, episode and the interval in which it was raised, that
of a condition from site, meter (or bus), kind and when it began; it stays while the onset estimate is refined and
while a loss turns from "not attributed" into a named bypass. The `id` of a transition comes from source, alert_id,
revision, state and time. A random one would do while the process lives, but a replay of the same readings, or a step
repeated after a crash, must send what a backend can recognise as the same. No estimate goes into an id: the last digit
of a logarithm depends on the processor, and the same readings must give the same ids on every machine.

Restraint. An alert is cleared only after it was quiet for a hold time, within which a return continues it. Each
return within a day doubles the hold, so a flapping meter makes a logarithmic number of transitions, not one a minute;
updates of one alert keep a distance, and a held back update is made up for by the next evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from agent.alerts.cim import CimCodes
from agent.alerts.condition import Condition
from agent.alerts.loss import first_suspect, loss_data
from agent.alerts.state import Accepted, BookState, OpenAlert, TamperLog
from agent.site.tables import Config
from agent.wire.events import (
    AcknowledgedData,
    AlertData,
    AlertEvent,
    ModelData,
    Severity,
    TamperEvent,
    TamperKind,
)
from agent.wire.state import ActiveSnapshot
from agent.wire.topics import Address
from agent.wire.values import derived_uuid, utc
from core.evidence import Evidence, LossKind

DAY_S = 86400.0
ACCEPTED_MAX = 64  # waiting for the next step: bounds what a flood of commands can leave in the state
SEEN_MAX = 64  # entries of one meter's log that are remembered: bounds the state; a log is read from where it was left
_MOMENTARY: frozenset[TamperKind] = frozenset({"wrong_password", "other"})
_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """How much restraint an alert book has. Powers in W, times in seconds, shares 0..1."""

    confidence: float = 0.9  # a mechanism or a flat is named from here on
    critical_percent: float = 5.0  # of the zone's energy: a loss this large is critical, named or not
    hold_s: float = 3600.0  # quiet for so long before it is cleared; doubled by each return within a day
    hold_limit_s: float = DAY_S
    update_gap_s: float = 3600.0  # between two updates of one alert, unless it becomes more severe
    loss_step: float = 0.1  # a material change of loss_w, as a share of what was said last
    probability_step: float = 0.1  # of the first suspect, or of upstream_probability
    onset_step_s: float = 3600.0  # a material change of the onset, or 10 % of the alert's age if that is more


@dataclass(slots=True)
class AlertBook:
    """The open alerts of one gateway. One thread only.

    `zone_of` says in which zone a meter is a sub (or the main, if nowhere a sub); `model_sha256` and
    `model_threshold` describe the scorer, where there is one.
    """

    address: Address
    zone_of: Mapping[str, str] = field(default_factory=dict)
    policy: AlertPolicy = AlertPolicy()
    cim: CimCodes = field(default_factory=CimCodes)
    model_sha256: str | None = None
    model_threshold: float = 0.5
    _state: BookState = field(default_factory=BookState)

    @classmethod
    def from_config(
        cls, config: Config, model_sha256: str | None = None, model_threshold: float | None = None
    ) -> AlertBook:
        """The book of a site file; the threshold is the site's confidence if the model has none of its own."""
        zone_of = {zone.main: zone.id for zone in config.zone}
        zone_of |= {sub: zone.id for zone in config.zone for sub in zone.subs}
        confidence = config.detection.confidence
        return cls(
            address=Address(config.site.tenant, config.site.site, config.site.gateway),
            zone_of=zone_of,
            policy=AlertPolicy(confidence=confidence),
            cim=CimCodes(config.mqtt.cim if config.mqtt else None),
            model_sha256=model_sha256,
            model_threshold=confidence if model_threshold is None else model_threshold,
        )

    # -- what happens ---------------------------------------------------------------------------------------------

    def apply(self, evidence: Sequence[Evidence]) -> list[AlertEvent]:
        """Judge the zones' evidence, oldest first; give back the transitions to commit and send, oldest first."""
        events: list[AlertEvent] = []
        for item in evidence:
            events += self.advance(item.time_s)  # what was quiet for long enough is over before anything new begins
            sign = "surplus" if item.kind is LossKind.BALANCE_SURPLUS else "loss"
            family = f"{item.zone}/{sign}"
            events += self._judge(
                family,
                f"{family}/{item.episode}",
                active=item.active,
                time_s=item.time_s,
                began_s=item.time_s,
                said=loss_data(item, self.policy.confidence, self.policy.critical_percent, self._model),
                subject=f"zone/{item.zone}",
                hold_s=self.policy.hold_s,
            )
            events += self.advance(item.time_s)
        return events

    def observe(self, conditions: Iterable[Condition]) -> list[AlertEvent]:
        """Judge conditions of meters and buses, oldest first; the transitions, oldest first."""
        events: list[AlertEvent] = []
        for item in conditions:
            if item.active and item.time_s < self._state.maintenance_s:
                continue
            what = f"zone/{item.zone}" if item.zone is not None else f"bus/{item.bus}"
            what = what if item.meter is None else f"meter/{item.meter}"
            family = f"{what}/{item.kind}"
            events += self._judge(
                family,
                family,
                active=item.active,
                time_s=item.time_s,
                began_s=item.since_s,
                said=AlertData(
                    alert_id="unset",
                    revision=1,
                    state="raised",
                    kind=item.kind,
                    severity=item.severity,
                    onset=utc(item.since_s),
                    zone=item.zone if item.meter is None else self.zone_of.get(item.meter),
                    meter=item.meter,
                    bus=item.bus,
                    detail=item.detail,
                ),
                subject=what,
                hold_s=self.policy.hold_s if item.hold_s is None else item.hold_s,
            )
            events += self.advance(item.time_s)
        return events

    def tampered(self, events: Iterable[TamperEvent]) -> list[AlertEvent]:
        """Judge tamper events of meter logs, oldest first; an entry that is read again changes nothing.

        A meter has one tamper alert: it lasts until all its signs have ended. A sign that knows no end (a wrong
        password, an unknown code) is over after a day without another.
        """
        out: list[AlertEvent] = []
        for event in events:
            log = self._state.tampered.setdefault(event.data.meter, TamperLog())
            if event.id in log.seen:
                continue
            log.seen = [*log.seen[1 - SEEN_MAX :], event.id]
            kind = event.data.kind
            detected = event.data.state == "detected"
            lasting = {*log.signs, kind} if detected and kind not in _MOMENTARY else {*log.signs} - {kind}
            log.signs = sorted(lasting)
            same = [sign for sign in log.signs if (sign == "reverse_run") == (kind == "reverse_run")]
            time_s = (event.data.received or event.time).timestamp()
            said = Condition(
                kind="reverse_energy" if kind == "reverse_run" else "tamper",
                active=True,
                time_s=time_s,
                since_s=min(event.time.timestamp(), time_s),
                severity="critical" if same else "warning",
                meter=event.data.meter,
                detail=", ".join(same or [kind]),
                hold_s=None if same else DAY_S,
            )
            out += self.observe([said] if detected else [])
            out += self.observe([] if same else [replace(said, active=False)])
        return out

    def advance(self, time_s: float) -> list[AlertEvent]:
        """Clear what has been quiet for its hold time at `time_s` (UTC seconds of measurement)."""
        events = []
        for key, life in list(self._state.open.items()):
            if life.quiet_s is None:
                continue
            if time_s < life.quiet_s:  # the clock was set back: the hold starts anew
                life.quiet_s = time_s
            elif time_s - life.quiet_s >= life.hold_s:
                del self._state.open[key]
                family = _family(key)
                # The time at which the hold was over, whenever anybody looks: replay says what the service said.
                over_s = life.quiet_s + life.hold_s
                self._state.ended[family] = [*self._recent(family, over_s), over_s]
                events.append(self._transition(life, "cleared", life.data, over_s))
        return sorted(events, key=lambda event: event.time)

    def loss_of(self, alert_id: str) -> tuple[str, float, int]:
        """Zone, sign (1 loss, -1 surplus) and episode of the loss that an open alert tells.

        Raises:
            KeyError: no open alert has this id, or it tells no loss.
        """
        for key, life in self._state.open.items():
            if life.data.alert_id == alert_id and _family(key) != key:
                family, _, episode = key.rpartition("/")
                zone, _, sign = family.rpartition("/")
                return zone, -1.0 if sign == "surplus" else 1.0, int(episode)
        raise KeyError(alert_id)

    def acknowledge(self, alert_id: str, by: str, time_s: float, reason: str | None = None) -> list[AlertEvent]:
        """Note that somebody took notice; no event if it is noted already.

        With a `reason` (stairs, a pump, solar, a known theft) the loss is a normal load of the building from the next
        step on: it waits in `accepted` until a step has taken it, over restarts too.

        Raises:
            KeyError: no open alert has this id.
            ValueError: a reason for an alert that tells no loss.
        """
        life = next((life for life in self._state.open.values() if life.data.alert_id == alert_id), None)
        if life is None:
            raise KeyError(alert_id)
        known = life.data.acknowledged
        if known is not None and (reason is None or known.reason is not None):
            return []
        if reason is not None:
            try:
                loss = self.loss_of(alert_id)
            except KeyError:
                raise ValueError(f"alert {alert_id} tells no loss of energy: acknowledge it without a reason") from None
            if len(self._state.accepted) >= ACCEPTED_MAX:
                raise ValueError("too many losses wait to be taken for normal loads; try again in an hour")
            self._state.accepted.append(Accepted(*loss, reason))
        noted = msgspec.structs.replace(
            life.data, acknowledged=AcknowledgedData(by=by, time=utc(time_s), reason=reason)
        )
        return [self._transition(life, "updated", noted, time_s)]

    def take_accepted(self) -> list[Accepted]:
        """The losses acknowledged with a reason since the last call, for the step that commits their effect."""
        accepted, self._state.accepted = self._state.accepted, []
        return accepted

    def maintain(self, until_s: float) -> None:
        """People work on meters and buses until then: conditions that begin meanwhile raise nothing; losses do."""
        self._state.maintenance_s = until_s

    # -- what is ----------------------------------------------------------------------------------------------------

    def active(self, time_s: float) -> ActiveSnapshot:
        """The open alerts as a snapshot for the retained topic."""
        lives = sorted(self._state.open.values(), key=lambda life: life.data.alert_id)
        return ActiveSnapshot(
            time=utc(time_s), alerts=[msgspec.structs.replace(life.data, features=None) for life in lives]
        )

    def state(self) -> bytes:
        """All that must survive a restart: commit it in one transaction with the events it led to."""
        return msgspec.json.encode(self._state)

    def restore(self, state: bytes) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: not a state of this book's version; start fresh and say so.
        """
        try:
            restored = msgspec.json.decode(state, type=BookState)
        except msgspec.DecodeError as error:
            raise ValueError(f"not a state of the alert book: {error}") from error
        if restored.version != BookState().version:
            raise ValueError(f"state of the alert book has version {restored.version}, expected {BookState().version}")
        self._state = restored

    @property
    def _model(self) -> ModelData | None:
        if self.model_sha256 is None:
            return None
        return ModelData(sha256=self.model_sha256, threshold=self.model_threshold, score=None)

    # -- how it is judged -------------------------------------------------------------------------------------------

    def _judge(
        self,
        family: str,
        key: str,
        *,
        active: bool,
        time_s: float,
        began_s: float,
        said: AlertData,
        subject: str,
        hold_s: float,
    ) -> list[AlertEvent]:
        """One life, one observation; `said` is what would be said now, without id and revision.

        `began_s` (UTC seconds) tells this life from others of the same key; it must be observed, never estimated.
        """
        opened = self._state.open
        life = opened.get(key)
        if not active:
            if life is not None and life.quiet_s is None:
                life.quiet_s = time_s
                last = life.data
                if said.loss_w is not None:  # all that was lost until it ended
                    severity, known = last.severity, last.acknowledged
                    last = msgspec.structs.replace(
                        said, alert_id=last.alert_id, revision=last.revision, severity=severity, acknowledged=known
                    )
                life.data = msgspec.structs.replace(last, detail=said.detail or life.data.detail)
            return []
        if life is None:
            recent = self._recent(family, time_s)
            self._state.ended[family] = recent
            hold_s = min(hold_s * 2.0 ** len(recent), max(self.policy.hold_limit_s, hold_s))
            alert_id = derived_uuid("alert", self.address.tenant, self.address.site, key, utc(began_s).isoformat())
            born = msgspec.structs.replace(said, alert_id=alert_id, revision=0)
            life = opened[key] = OpenAlert(subject=subject, data=born, sent_s=time_s, hold_s=hold_s)
            return [self._transition(life, "raised", born, time_s)]
        if life.quiet_s is not None:  # it came back: the next quiet has to last longer
            life.quiet_s = None
            life.hold_s = min(life.hold_s * 2.0, max(self.policy.hold_limit_s, life.hold_s))
        if said.onset_window is None:  # a condition's onset is no estimate: it stays that of the first time
            said = msgspec.structs.replace(said, onset=life.data.onset)
        worse = _RANK[said.severity] > _RANK[life.data.severity]
        if worse or (self._material(life.data, said, time_s) and abs(time_s - life.sent_s) >= self.policy.update_gap_s):
            # An alert never becomes less severe: who was called out for a critical one must not see it fade.
            severity = said.severity if worse else life.data.severity
            now = msgspec.structs.replace(said, severity=severity, acknowledged=life.data.acknowledged)
            return [self._transition(life, "updated", now, time_s)]
        return []

    def _recent(self, family: str, time_s: float) -> list[float]:
        """When alerts of `family` ended within a day of `time_s`; at most as many as double the hold to its limit."""
        return [end for end in self._state.ended.get(family, []) if abs(time_s - end) < DAY_S][-16:]

    def _transition(self, life: OpenAlert, state: str, said: AlertData, time_s: float) -> AlertEvent:
        """Make the next revision of `life` from `said`, note it, and wrap it."""
        before = life.data
        data = msgspec.structs.replace(
            said,
            alert_id=before.alert_id,
            revision=before.revision + 1,
            state=state,
            cim=self.cim.code(said.kind, cleared=state == "cleared"),
        )
        life.data, life.sent_s = data, time_s
        time = utc(time_s)
        return AlertEvent(
            id=derived_uuid(
                "transition", self.address.source, data.alert_id, str(data.revision), state, time.isoformat()
            ),
            source=self.address.source,
            subject=life.subject,
            time=time,
            data=data,
        )

    def _material(self, old: AlertData, new: AlertData, time_s: float) -> bool:
        """Whether `new` says something that matters beyond `old`."""
        policy = self.policy
        if new.kind != old.kind or new.detail != old.detail:
            return True
        if new.loss_w is not None and (
            old.loss_w is None or abs(new.loss_w - old.loss_w) > policy.loss_step * abs(old.loss_w)
        ):
            return True
        if abs((new.onset - old.onset).total_seconds()) > max(
            policy.onset_step_s, 0.1 * (time_s - old.onset.timestamp())
        ):
            return True
        first_new, first_old = first_suspect(new), first_suspect(old)
        if first_new[0] != first_old[0] and max(first_new[1], first_old[1]) > policy.probability_step:
            return True
        return abs(first_new[1] - first_old[1]) >= policy.probability_step


def _family(key: str) -> str:
    """The family of a life's key: zone and sign without the episode, or meter (bus) and kind."""
    head, _, tail = key.rpartition("/")
    return head if tail.isdigit() and head.endswith(("/loss", "/surplus")) else key
