"""IEC 61968-9 end device event types for alerts and tamper events; there is no code for "theft".

The form is type.domain.subdomain.action, type 5 a gateway and 3 an electricity meter. The utility may set its own
under `[mqtt.cim]`: the key is a kind as on the wire, with `.cleared` behind it for the end of the condition.
"""

from __future__ import annotations

from collections.abc import Mapping

_IMBALANCE = {"": "5.21.67.98", ".cleared": "5.21.67.75"}
_TAMPER = {"": "3.12.43.257", ".cleared": "3.12.43.291"}
_COVER = {"": "3.12.141.212", ".cleared": "3.12.141.16"}

DEFAULTS: dict[str, str] = {
    kind + suffix: code
    for kind, codes in {
        "non_technical_loss": _IMBALANCE,
        "under_registration": _IMBALANCE,
        "bypass": _IMBALANCE,
        "upstream_tap": _IMBALANCE,
        "balance_surplus": _IMBALANCE,
        "tamper": _TAMPER,
        "reverse_energy": {"": "3.12.6.219"},
        "terminal_cover": _COVER,
        "meter_cover": _COVER,
        "magnetic_field": {"": "3.12.66.242", ".cleared": "3.12.66.243"},
        "reverse_run": {"": "3.12.6.219"},
        "wrong_password": _TAMPER,
        "other": _TAMPER,
    }.items()
    for suffix, code in codes.items()
}


class CimCodes:
    """The event types of one site: the defaults, and what the utility set instead."""

    def __init__(self, configured: Mapping[str, str] | None = None) -> None:
        self._codes = DEFAULTS | dict(configured or {})

    def code(self, kind: str, *, cleared: bool = False) -> str | None:
        """The event type of `kind`, None where there is none (a communication loss, say)."""
        return self._codes.get(kind + ".cleared" if cleared else kind)
