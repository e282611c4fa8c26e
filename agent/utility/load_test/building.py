"""A building of the simulated fleet: all that its gateway would publish, with a theft in some. No I/O, no clock.

The messages are the structs of the wire contract with the fields that the agent fills: a test runs real agents and
refuses a field of theirs that is never sent here.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from typing import Literal

import msgspec

from agent import wire
from core.scoring.features import FEATURES

INTERVAL_S = 900
BURDEN_KWH = 0.0008 * INTERVAL_S / 3600  # a meter's own 0.8 W
HEALTH_EVERY_S = 4 * INTERVAL_S  # a gateway says it every minute; at a fleet's accelerated time that would be all
FORECAST_EVERY_S, FORECAST_STEP_S = 2 * 3600, 1800  # a gateway makes one each hour; after three it counts as old
VERSIONS = {"checkmeter": "fleet"}
CIM_COVER, CIM_TAMPER = "3.12.141.212", "3.12.43.257"  # EndDeviceEventTypes, as agent.alerts.cim has them
MODEL_SHA256 = hashlib.sha256(b"the fleet's model").hexdigest()
COPPER = 0.012  # of the mean load, growing with its square


def _shape(at_s: int) -> float:
    """A day's shape with two peaks, about 1 in the mean."""
    hour = at_s % 86_400 / 3600
    return 0.6 + 0.5 * math.exp(-(((hour - 7.5) / 1.8) ** 2)) + 0.9 * math.exp(-(((hour - 19.5) / 2.6) ** 2))


class Building:
    """One gateway's zone. The same seed and number give the same building."""

    def __init__(self, seed: int, number: int, start_s: int, end_s: int) -> None:
        rng = random.Random(f"{seed}/{number}")
        self._rng = rng
        self.address = wire.Address("fleet", f"site-{number:05d}", f"gw-{number:05d}")
        self.flats = [f"flat-{n:03d}" for n in range(1, rng.randrange(8, 61))]
        self._mean_kwh = 0.35 * INTERVAL_S / 3600 * len(self.flats)  # 350 W a flat
        self._habit = rng.gauss(1.0, 0.2)
        self._thief = rng.choice(self.flats) if rng.random() < 0.05 else None
        self._theft_kwh = rng.uniform(0.1, 1.5) * INTERVAL_S / 3600
        span_s = end_s - start_s
        self._onset_s = (start_s + int(span_s * rng.uniform(0.1, 0.6))) // INTERVAL_S * INTERVAL_S
        self._end_s = self._onset_s + int(span_s * 0.3) if rng.random() < 0.5 else end_s + span_s
        self._start_s = start_s
        self._revision = 0
        self._open: wire.AlertData | None = None
        self._tampered: wire.AlertData | None = None
        self._water_m3 = 1200.0
        self._stolen_kwh = 0.0

    # -- retained state --------------------------------------------------------------------------------------------

    def hello(self, now_s: float) -> list[tuple[str, msgspec.Struct]]:
        """What a gateway retains on the broker when it connects, as the agent does it: suffix and message."""
        nothing = wire.Reported(state="none", time=wire.utc(now_s))
        return [
            ("status", self.status("degraded", now_s)),
            ("info", self.info(now_s)),
            ("active", self.active(now_s)),
            ("config/reported", nothing),
            ("model/reported", nothing),
            ("status", self.status("online", now_s)),
        ]

    def status(self, state: Literal["online", "degraded", "offline"], since_s: float | None) -> wire.Status:
        """`status`; without a time in the will."""
        return wire.Status(
            state=state,
            since=None if since_s is None else wire.utc(since_s),
            reason={"online": None, "degraded": "starting", "offline": "connection lost"}[state],
            versions=VERSIONS,
        )

    def info(self, now_s: float) -> wire.Info:
        """`info`."""
        return wire.Info(
            time=wire.utc(now_s),
            name=f"House {self.address.site[5:]}",
            address=f"{int(self.address.site[5:])} Fleet Street",
            contact="the caretaker",
            feeder=f"Feeder {int(self.address.site[5:]) // 50 + 1}",
            district=("Harbour", "Hill", "Old Town")[int(self.address.site[5:]) % 3],
            versions=VERSIONS,
            meters=[
                wire.MeterInfo(
                    id=name,
                    name=name.replace("flat-", "Flat "),
                    service_point=f"SP-{self.address.site}-{name}",
                    bus="rs485-1",
                    accuracy_class=0.5 if name == "main" else 1.0,
                    serial=f"{self.address.gateway}-{name}",
                    firmware="1.4",
                )
                for name in ("main", *self.flats)
            ],
            zones=[wire.ZoneInfo(id="building", name="whole house", main="main", subs=self.flats)],
            config_sha256=hashlib.sha256(self.address.target.encode()).hexdigest(),
            model_sha256=MODEL_SHA256,
            schemas={name.split(".")[1]: name for name in wire.SCHEMAS},
        )

    def active(self, now_s: float) -> wire.ActiveSnapshot:
        """`active`: no alerts in a healthy building, which is nearly always what is retained."""
        alerts = [] if self._open is None else [msgspec.structs.replace(self._open, features=None)]
        if self._tampered is not None:
            alerts.append(self._tampered)
        return wire.ActiveSnapshot(time=wire.utc(now_s), alerts=alerts)

    def health(self, now_s: float) -> wire.Health:
        """`health`, of a gateway that reads its meters every minute."""
        uptime_s = max(1.0, now_s - self._start_s)
        cycles = int(uptime_s / 60)
        return wire.Health(
            time=wire.utc(now_s),
            uptime_s=round(uptime_s, 1),
            buses=[
                wire.BusHealth(
                    id="rs485-1",
                    state="up",
                    cycles=cycles,
                    skipped=1,
                    errors={"timeout": 2},
                    cycle_s=4.1,
                    poll_s=60.0,
                    kept_s=60.0,
                )
            ],
            meters=[
                wire.MeterHealth(
                    id=name,
                    last_reading=wire.utc(now_s),
                    readings=cycles,
                    errors={"timeout": 2},
                    latency_ms=41.0,
                    refresh_s=15.0,
                )
                for name in ("main", *self.flats)
            ],
            queue=wire.QueueHealth(messages=1, bytes=400, oldest=wire.utc(now_s), evicted=1, refused=1, store_errors=1),
            cpu_percent=round(2.0 + self._rng.random(), 1),
            memory_mb=61.4,
            flash_bytes_day=4_400_000,
            detectable_w={"building": 85.0},
        )

    # -- interval by interval --------------------------------------------------------------------------------------

    def interval(self, start_s: int) -> list[tuple[str, msgspec.Struct]]:
        """All that the gateway publishes of one interval, in its order: suffix and message."""
        out: list[tuple[str, msgspec.Struct]] = [(wire.balance_suffix("building"), self.balance(start_s))]
        events = list(self.events(start_s))
        out += [("event/alert" if isinstance(e, wire.AlertEvent) else "event/tamper", e) for e in events]
        alerts = [event for event in events if isinstance(event, wire.AlertEvent)]
        if alerts:
            out.append(("active", self.active(start_s)))
        for event in alerts:
            if event.data.loss_w is not None and event.data.state == "raised":
                out += self._evidence(event)
            if event.data.revision == 2:  # somebody has asked for the case once more, and looked at the house live
                out.append(("cmd/res", self._answer(start_s, "report", {"messages": 2})))
                until = wire.utc(start_s + 300).isoformat()
                out.append(("cmd/res", self._answer(start_s, "live", {"until": until})))
        if start_s % HEALTH_EVERY_S == 0:
            out.append(("health", self.health(start_s)))
        if start_s % FORECAST_EVERY_S == 0:
            out.append((wire.forecast_suffix("building"), self.forecast(start_s)))
            out.append((wire.register_suffix("water"), self.water(start_s)))
        return out

    def water(self, start_s: int) -> wire.Register:
        """`register/water`: what the house's water meter shows."""
        self._water_m3 += 0.01 * len(self.flats) * _shape(start_s)
        counted = wire.Amount(obis="8-0:1.0.0", value=round(self._water_m3, 3), unit="m³")
        return wire.Register(meter="water", medium="cold-water", time=wire.utc(start_s), amounts=[counted])

    def balance(self, start_s: int) -> wire.Balance:
        """One interval: a day's shape with two peaks, losses by physics, a little noise, and what is stolen."""
        through = max(0.05, self._mean_kwh * self._habit * _shape(start_s) * self._rng.lognormvariate(0.0, 0.15))
        stolen = self._theft_kwh if self._stealing(start_s) else 0.0
        self._stolen_kwh += stolen
        technical = round(BURDEN_KWH * len(self.flats) + COPPER * through * through / self._mean_kwh, 3)
        registered = round(through - stolen, 3)
        main = round(through + technical + self._rng.gauss(0.0, 0.004), 3)
        return wire.Balance(
            zone="building",
            start=wire.utc(start_s),
            end=wire.utc(start_s + INTERVAL_S),
            main_kwh=main,
            sum_kwh=registered,
            technical_loss_kwh=technical,
            residual_kwh=round(main - registered - technical, 3),
            uncertainty_kwh=0.012,
            coverage=1.0,
        )

    def forecast(self, start_s: int) -> wire.Forecast:
        """The next 48 h: the day's shape without its noise."""
        steps = [start_s + n * FORECAST_STEP_S for n in range(2 * 86_400 // FORECAST_STEP_S)]
        mean_w = [round(self._mean_kwh * self._habit * _shape(at) / INTERVAL_S * 3.6e6, 1) for at in steps]
        day_w = mean_w[: len(mean_w) // 2]
        capacity_w = 1.5 * max(day_w)

        def extreme(watts: float) -> wire.ForecastExtreme:
            at = day_w.index(watts)
            return wire.ForecastExtreme(
                w=watts,
                w_interval=(round(0.85 * watts, 1), round(1.15 * watts, 1)),
                start=wire.utc(steps[at]),
                time_probability=[float(n == at) for n in range(len(day_w))],
            )

        return wire.Forecast(
            zone="building",
            issued=wire.utc(start_s),
            interval_s=FORECAST_STEP_S,
            mean_w=mean_w,
            quantiles_w={
                share: [round(factor * w, 1) for w in mean_w]
                for share, factor in (("0.05", 0.75), ("0.5", 1.0), ("0.95", 1.3))
            },
            peak=extreme(max(day_w)),
            trough=extreme(min(day_w)),
            over_capacity=wire.OverCapacity(capacity_w=round(capacity_w, 1), probability=0.01, duration_s=900.0),
            days=28,
            flags=["warming_up"],
        )

    def events(self, start_s: int) -> Iterator[wire.AlertEvent | wire.TamperEvent]:
        """What the gateway says of this interval besides the balance."""
        if self._thief is None:
            return
        age_s = start_s - self._onset_s
        if age_s == 2 * INTERVAL_S and self._rng.random() < 0.3:
            yield self._tamper(start_s)
            yield self._tamper_alert(start_s)
        if age_s in {6 * INTERVAL_S, 12 * INTERVAL_S, 24 * INTERVAL_S} and self._stealing(start_s):
            yield self._alert(start_s, "updated" if self._revision else "raised")
        elif self._revision and start_s - INTERVAL_S < self._end_s <= start_s:
            yield self._alert(start_s, "cleared")
            self._open = self._tampered = None

    def _stealing(self, start_s: int) -> bool:
        return self._thief is not None and self._onset_s <= start_s < self._end_s

    def _alert(self, start_s: int, state: wire.AlertState) -> wire.AlertEvent:
        assert self._thief is not None
        self._revision += 1
        alert_id = wire.derived_uuid(*self.address, "theft", str(self._onset_s))
        sure = min(0.93, 0.6 + 0.15 * self._revision)
        other = self._rng.choice(self.flats)
        suspects = [wire.SuspectData(meter=self._thief, probability=round(sure, 3), mechanism="proportional")]
        if other != self._thief:
            suspects.append(wire.SuspectData(meter=other, probability=round((1 - sure) / 2, 3)))
        loss_w = self._theft_kwh / INTERVAL_S * 3.6e6
        self._open = wire.AlertData(
            alert_id=alert_id,
            revision=self._revision,
            state=state,
            kind="under_registration",
            severity="warning",
            onset=wire.utc(self._onset_s),
            onset_window=(wire.utc(self._onset_s - 3600), wire.utc(self._onset_s + 3600)),
            zone="building",
            loss_w=round(loss_w, 1),
            loss_w_interval=(round(0.9 * loss_w, 1), round(1.1 * loss_w, 1)),
            loss_kwh=round(self._stolen_kwh, 3),
            suspects=suspects,
            upstream_probability=0.02,
            unexplained_probability=0.01,
            residual=wire.ResidualData(
                kwh=round(self._stolen_kwh, 3), percent=4.2, uncertainty_kwh=0.4, technical_loss_kwh=3.1
            ),
            features={flat: self._features(flat) for flat in sorted({self._thief, other, self.flats[0]})},
            model=wire.ModelData(sha256=MODEL_SHA256, threshold=0.6, score=round(sure, 3)),
            quality=wire.QualityData(coverage=1.0),
        )
        return wire.AlertEvent(
            id=wire.derived_uuid(alert_id, str(self._revision)),
            source=self.address.source,
            subject="zone/building",
            time=wire.utc(start_s),
            data=self._open,
        )

    def _evidence(self, event: wire.AlertEvent) -> list[tuple[str, msgspec.Struct]]:
        """Two chunks of a day each before the alert."""
        chunks: list[tuple[str, msgspec.Struct]] = []
        for n in (1, 2):
            kwh = [round(self._rng.uniform(0.02, 0.2), 3) for _ in range(96)]
            start_s = event.time.timestamp() - (3 - n) * 86_400
            chunk = wire.EvidenceChunk(
                alert_id=event.data.alert_id,
                n=n,
                of=2,
                zone="building",
                start=wire.utc(start_s),
                interval_s=float(INTERVAL_S),
                series=[
                    wire.Series(meter="main", kwh=[round(len(self.flats) * v, 3) for v in kwh]),
                    *(wire.Series(meter=flat, kwh=list(kwh)) for flat in self.flats),
                ],
            )
            chunks.append((wire.evidence_suffix(chunk.alert_id, n, 2), chunk))
        return chunks

    def _answer(self, start_s: int, name: str, result: dict[str, int | str]) -> wire.CommandResult:
        return wire.CommandResult(
            id=wire.derived_uuid(*self.address, name), name=name, status="done", time=wire.utc(start_s), result=result
        )

    def _features(self, flat: str) -> dict[str, float | None]:
        """Features of the right names; a thief's are drawn from another distribution than the others'."""
        guilty = float(flat == self._thief)
        return {name: round(self._rng.gauss(2.0 * guilty, 1.0), 3) for name in FEATURES}

    def _tamper(self, start_s: int) -> wire.TamperEvent:
        assert self._thief is not None
        return wire.TamperEvent(
            id=wire.derived_uuid(*self.address, "cover", str(start_s)),
            source=self.address.source,
            subject=f"meter/{self._thief}",
            time=wire.utc(start_s),
            data=wire.TamperData(
                meter=self._thief,
                kind="terminal_cover",
                state="detected",
                zone="building",
                log="0.0.99.98.1.255",
                code=40,
                received=wire.utc(start_s + 60),
                detail="terminal cover removed",
                cim=CIM_COVER,
            ),
        )

    def _tamper_alert(self, start_s: int) -> wire.AlertEvent:
        """A meter's own alert beside the zone's."""
        alert_id = wire.derived_uuid(*self.address, "tamper", str(self._onset_s))
        self._tampered = wire.AlertData(
            alert_id=alert_id,
            revision=1,
            state="raised",
            kind="tamper",
            severity="warning",
            onset=wire.utc(start_s),
            zone="building",
            meter=self._thief,
            detail="terminal_cover",
            cim=CIM_TAMPER,
        )
        return wire.AlertEvent(
            id=wire.derived_uuid(alert_id, "1"),
            source=self.address.source,
            subject=f"meter/{self._thief}",
            time=wire.utc(start_s),
            data=self._tampered,
        )
