"""The forecasters of all zones of a site: fed in the pipeline's step, issued at every full hour of the readings.

It owns which zone has a forecaster, when a forecast is due, and what is known to be missing at a zone's main meter. It
knows no clock: an hour is full when the readings say so, so service and replay issue the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from agent.forecast.calendar import calendar_of
from agent.site.tables import Config
from core.arrays import Floats
from core.checkpoint import pack, unpack
from core.forecast.forecaster import Forecaster, step_of
from core.forecast.outdoor import HOURS, OutdoorTemperature
from core.forecast.values import Forecast
from core.registers.align import Flag
from core.registers.booked import StoredHistory

log = logging.getLogger("checkmeter.forecast")

HOUR_S = 3600.0
RECALL_S = 64 * 86_400.0  # of the stored history, at a start
RESTATE = 0.25  # change of a known loss, as a share, from which on the past is stated again


@dataclass(frozen=True, slots=True)
class Overload:
    """A zone's measured load against its capacity, at the end of one interval."""

    zone: str
    time_s: float
    power_w: float
    capacity_w: float


@dataclass(slots=True)
class Issued:
    """What a step brought, oldest first: forecasts at full hours, and intervals over the capacity.

    `withdrawn`: (time in s, zone) from which on a zone has no forecast, because too much of its past is missing.
    """

    forecasts: list[Forecast] = field(default_factory=list)
    overloads: list[Overload] = field(default_factory=list)
    withdrawn: list[tuple[float, str]] = field(default_factory=list)


class ZoneForecasts:
    """One forecaster a zone. One thread only.

    `muted`: take readings, issue nothing (stored ones at a start). `record`, where given, is told every interval taken:
    zone, end in s, energy in Wh or NaN, and what is booked for it, Wh or NaN. `outdoor`: one that has temperatures.
    """

    def __init__(
        self,
        config: Config,
        interval_s: float,
        record: Callable[[str, float, float, float], None] | None = None,
        outdoor: OutdoorTemperature | None = None,
    ) -> None:
        self.interval_s, self.muted, self._record, self._config = interval_s, False, record, config
        self.zones: dict[str, Forecaster] = {}
        self.mains = {zone.id: zone.main for zone in config.zone}
        self._missing_w: dict[str, float] = {}
        self._withdrawn: set[str] = set()  # zones of which it was said that they have no forecast
        self._issued = Issued()
        self._outdoor, self._outdoor_stored = outdoor, True
        if not config.forecast.enabled:
            return
        if step_of(interval_s) is None:
            log.info("no forecast: intervals of %g s do not divide an hour", interval_s)
            return
        calendar = calendar_of(config.site.timezone, config.forecast.holidays)
        self._outdoor = outdoor or OutdoorTemperature(calendar)
        self.zones = {
            zone.id: Forecaster(zone.id, interval_s, calendar, capacity_w=zone.capacity_w, outdoor=self._outdoor)
            for zone in config.zone
        }

    def take(self, zone: str, ends_s: Floats, energy_wh: Floats, booked_wh: Floats | None = None) -> None:
        """Take a zone's intervals [T] that end at rising `ends_s`; NaN where its main meter was not read.

        `booked_wh` [T] is what is booked where it was not: right in sum when it is read again, NaN if even that is not.
        """
        forecaster = self.zones.get(zone)
        if forecaster is None:
            return
        missing_wh = self._missing_w.get(zone, 0.0) * self.interval_s / HOUR_S
        energy_wh = energy_wh + missing_wh
        booked = (energy_wh if booked_wh is None else booked_wh + missing_wh).tolist()
        start, quiet = 0, True
        for k, (end_s, wh) in enumerate(zip(ends_s.tolist(), energy_wh.tolist(), strict=True)):
            if self._record is not None:
                self._record(zone, end_s, wh, booked[k])
            if self.muted:
                continue
            power_w, capacity_w = wh * HOUR_S / self.interval_s, forecaster.capacity_w
            if capacity_w is not None and power_w > capacity_w:
                self._issued.overloads.append(Overload(zone, end_s, power_w, capacity_w))
                quiet = False
            if end_s % HOUR_S < 1e-3:
                forecaster.add(ends_s[start : k + 1], energy_wh[start : k + 1])
                start = k + 1
                self._issue(forecaster, end_s, quiet=quiet)
                quiet = True
        forecaster.add(ends_s[start:], energy_wh[start:])

    def issue_now(self) -> None:
        """Issue what follows from all that was taken, be the hour full or not: after a start, for those who look."""
        for forecaster in self.zones.values():
            if forecaster.until_s is not None:
                self._issue(forecaster, forecaster.until_s)

    def _issue(self, forecaster: Forecaster, at_s: float, *, quiet: bool = True) -> None:
        forecast, zone = forecaster.forecast(at_s), forecaster.zone
        if forecast is not None:
            self._issued.forecasts.append(forecast)
            self._withdrawn.discard(zone)
        elif quiet and zone not in self._withdrawn:  # said once: what was said before the gap, or a start, is over
            self._issued.withdrawn.append((at_s, zone))
            self._withdrawn.add(zone)

    def fresh(self) -> ZoneForecasts:
        """The same, as if nothing had been taken."""
        other = ZoneForecasts(self._config, self.interval_s, self._record, self._outdoor)
        other.muted, other._issued, other._outdoor_stored = self.muted, self._issued, self._outdoor_stored
        return other

    def at_midnight(self, forecast: Forecast) -> bool:
        """Whether it was issued at a local midnight."""
        forecaster = self.zones[forecast.zone]
        _, step = forecaster.calendar.place(np.array([forecast.issued_s]), forecast.step_s)
        return int(step[0]) == 0

    def drain(self) -> Issued:
        """What was issued since the last call."""
        issued, self._issued = self._issued, Issued()
        issued.forecasts.sort(key=lambda forecast: forecast.issued_s)
        issued.withdrawn.sort()
        issued.overloads.sort(key=lambda overload: overload.time_s)
        return issued

    # -- outdoor temperature -------------------------------------------------------------------------------------------

    def take_outdoor(self, times_s: Floats, outdoor_c: Floats, now_s: float = np.inf) -> None:
        """Take temperatures [n] at `times_s` [n], degrees Celsius: until `now_s` as measured, after it as expected.

        They bear on forecasts from the next local midnight on; a measured one is not used before its day is over.
        """
        if self._outdoor is None:
            return
        past = times_s <= now_s
        self._outdoor.measure(times_s[past], outdoor_c[past])
        self._outdoor.expect(times_s[~past], outdoor_c[~past])
        self._outdoor_stored = False

    def outdoor_state(self) -> bytes | None:
        """The temperatures for the store; None where there is nothing new since the last call."""
        if self._outdoor is None or self._outdoor_stored:
            return None
        self._outdoor_stored = True
        tables = zip(("measured", "expected"), self._outdoor.rows(), strict=True)
        return pack(
            {
                name + part: array
                for name, rows in tables
                for part, array in (
                    ("_days", np.array(list(rows), np.intp)),
                    ("_c", np.array(list(rows.values()), np.float32).reshape(-1, HOURS)),
                )
            }
        )

    def restore_outdoor(self, state: bytes | None) -> None:
        """Take the temperatures of a store; those of a torn or foreign one are lost, which costs a week's accuracy."""
        if self._outdoor is None or state is None:
            return
        try:
            kept = unpack(state)
            for name, rows in zip(("measured", "expected"), self._outdoor.rows(), strict=True):
                table = np.asarray(kept[name + "_c"], np.float64).reshape(-1, HOURS)
                rows |= dict(zip(kept[name + "_days"].tolist(), table, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("stored outdoor temperatures could not be taken over: %s", error)

    def missing(self, meter: str, since_s: float, now_s: float, loss_w: float) -> None:
        """`meter` shows `loss_w` too little since then (0: no longer): where it is a zone's main meter, the load is
        what is drawn, not what is shown, so that stolen energy is not learned as saved.
        """
        for zone, main in self.mains.items():
            if main != meter or zone not in self.zones:
                continue
            before_w = self._missing_w.get(zone, 0.0)
            if abs(loss_w - before_w) <= RESTATE * max(loss_w, before_w):
                continue
            if loss_w > 0:
                self.zones[zone].restate(since_s, now_s, loss_w - before_w)
            self._missing_w[zone] = loss_w

    def recall(self, history: StoredHistory) -> None:
        """Learn from stored rows of the main meters (in the order of `mains`), without issuing anything."""
        if len(history) < 2:
            return
        for column, zone in enumerate(self.mains):
            forecaster = self.zones.get(zone)
            if forecaster is None:
                continue
            energy_wh = np.diff(history.wh[:, column])
            whole = np.abs(np.diff(history.times_s) - self.interval_s) < 1.0
            flags, here = history.flags[:, column], np.isfinite(history.sd_wh[:, column])
            read = here & ((flags & np.uint8(Flag.MISSED)) == 0)
            energy_wh = np.where(whole & read[:-1] & here[1:] & (flags[1:] == 0), energy_wh, np.nan)
            forecaster.add(history.times_s[1:], energy_wh)
