"""A building of the simulated fleet: balances, a theft and alerts that look like real ones. No I/O, no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from agent import wire
from core.scoring.features import FEATURES

INTERVAL_S = 900
BURDEN_KWH = 0.0008 * INTERVAL_S / 3600  # a meter's own 0.8 W
COPPER = 0.012  # of the mean load, growing with its square


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
        self._revision = 0
        self._stolen_kwh = 0.0

    def status(self, state: str, since_s: float | None) -> wire.Status:
        """`status`; without a time in the will."""
        assert state in {"online", "degraded", "offline"}
        return wire.Status(
            state=state,  # type: ignore[arg-type]  # a Literal, checked above
            since=None if since_s is None else wire.utc(since_s),
            versions={"checkmeter": "fleet"},
        )

    def info(self, now_s: float) -> wire.Info:
        """`info`."""
        return wire.Info(
            time=wire.utc(now_s),
            versions={"checkmeter": "fleet"},
            meters=[wire.MeterInfo(id=name) for name in ("main", *self.flats)],
            zones=[wire.ZoneInfo(id="building", main="main", subs=self.flats)],
            schemas={name: name for name in ("checkmeter.balance.v1", "checkmeter.alert.v1")},
        )

    def balance(self, start_s: int) -> wire.Balance:
        """One interval: a day's shape with two peaks, losses by physics, a little noise, and what is stolen."""
        hour = start_s % 86_400 / 3600
        shape = 0.6 + 0.5 * math.exp(-(((hour - 7.5) / 1.8) ** 2)) + 0.9 * math.exp(-(((hour - 19.5) / 2.6) ** 2))
        through = max(0.05, self._mean_kwh * self._habit * shape * self._rng.lognormvariate(0.0, 0.15))
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

    def events(self, start_s: int) -> Iterator[wire.AlertEvent | wire.TamperEvent]:
        """What the gateway says of this interval besides the balance."""
        if self._thief is None:
            return
        age_s = start_s - self._onset_s
        if age_s == 2 * INTERVAL_S and self._rng.random() < 0.3:
            yield self._tamper(start_s)
        if age_s in {6 * INTERVAL_S, 12 * INTERVAL_S, 24 * INTERVAL_S} and self._stealing(start_s):
            yield self._alert(start_s, "updated" if self._revision else "raised")
        elif self._revision and start_s - INTERVAL_S < self._end_s <= start_s:
            yield self._alert(start_s, "cleared")

    def _stealing(self, start_s: int) -> bool:
        return self._thief is not None and self._onset_s <= start_s < self._end_s

    def _alert(self, start_s: int, state: str) -> wire.AlertEvent:
        assert state in {"raised", "updated", "cleared"}
        assert self._thief is not None
        self._revision += 1
        alert_id = wire.derived_uuid(*self.address, "theft", str(self._onset_s))
        sure = min(0.97, 0.6 + 0.15 * self._revision)
        other = self._rng.choice(self.flats)
        suspects = [wire.SuspectData(meter=self._thief, probability=round(sure, 3), mechanism="proportional")]
        if other != self._thief:
            suspects.append(wire.SuspectData(meter=other, probability=round((1 - sure) / 2, 3)))
        loss_w = self._theft_kwh / INTERVAL_S * 3.6e6
        return wire.AlertEvent(
            id=wire.derived_uuid(alert_id, str(self._revision)),
            source=self.address.source,
            subject="zone/building",
            time=wire.utc(start_s),
            data=wire.AlertData(
                alert_id=alert_id,
                revision=self._revision,
                state=state,  # type: ignore[arg-type]  # a Literal, checked above
                kind="under_registration",
                severity="warning",
                onset=wire.utc(self._onset_s),
                zone="building",
                loss_w=round(loss_w, 1),
                loss_w_interval=(round(0.9 * loss_w, 1), round(1.1 * loss_w, 1)),
                loss_kwh=round(self._stolen_kwh, 3),
                suspects=suspects,
                upstream_probability=0.02,
                features={flat: self._features(flat) for flat in sorted({self._thief, other, self.flats[0]})},
                model=wire.ModelData(sha256="0" * 64, threshold=0.6, score=round(sure, 3)),
                quality=wire.QualityData(coverage=1.0),
            ),
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
            data=wire.TamperData(meter=self._thief, kind="terminal_cover", state="detected", zone="building", code=40),
        )
