"""What has changed of a bus and its meters since it was last said: faults, reversed energy, silence of one or of all.

It owns what counts as a communication loss and that nothing is said twice; alerts are made of it in agent.alerts.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.alerts.condition import Condition
from agent.polling.meter_watch import MeterWatch
from agent.site.tables import Bus as BusConfig

LOSS_S = 900.0  # a meter that was silent so long (and five cycles) is a communication loss


class BusConditions:
    """The conditions of one bus, each said when it begins and when it ends."""

    def __init__(self, config: BusConfig, watches: Mapping[str, MeterWatch]) -> None:
        self._config, self._watches = config, watches
        self._said: dict[str, bool] = {}

    def changed(self, now_s: float) -> list[Condition]:
        """What has changed since it was last said: faults, reversed energy, silence of meters or of the whole bus."""
        patience_s = max(LOSS_S, 5 * self._config.poll_s)
        lost = {
            meter: watch.failing_since_s
            for meter, watch in self._watches.items()
            if watch.silent and watch.failing_since_s is not None and now_s - watch.failing_since_s >= patience_s
        }
        whole_bus = len(lost) == len(self._watches) > 1
        found = [
            Condition(
                kind="communication_loss",
                active=whole_bus,
                time_s=now_s,
                since_s=max(lost.values()) if whole_bus else now_s,
                bus=self._config.id,
                severity="critical",
                detail=f"no meter of bus {self._config.id} ({self._config.port}) answers; check adapter, wires, supply",
            )
        ]
        for meter, watch in self._watches.items():
            found.append(watch.fault(now_s))
            reverse = watch.reversed_energy(now_s)
            if reverse is not None:
                found.append(reverse)
            if (meter in lost and not whole_bus) or not watch.failures:
                found.append(
                    Condition(
                        kind="communication_loss",
                        active=meter in lost,
                        time_s=now_s,
                        since_s=lost.get(meter, now_s),
                        meter=meter,
                        detail=f"it does not answer on bus {self._config.id}; check its supply, wiring and address",
                    )
                )
        changed = []
        for condition in found:
            key = f"{condition.kind} {condition.meter} {condition.bus}"
            if self._said.get(key) != condition.active:
                self._said[key] = condition.active
                changed.append(condition)
        return changed
