"""Address and topics."""

from __future__ import annotations

from typing import NamedTuple

from agent.wire.values import WireError

ROOT = "checkmeter/v1"


class Address(NamedTuple):
    """Whose messages: `checkmeter/v1/{tenant}/{site}/{gateway}`."""

    tenant: str
    site: str
    gateway: str

    @property
    def source(self) -> str:
        """The CloudEvents `source`."""
        return "/" + "/".join(self)

    @property
    def target(self) -> str:
        """The `target` of commands and desired state."""
        return "/".join(self)

    def topic(self, suffix: str) -> str:
        """The whole topic of `suffix`."""
        return f"{ROOT}/{self.tenant}/{self.site}/{self.gateway}/{suffix}"


def balance_suffix(zone: str) -> str:
    """`balance/{zone}`."""
    return f"balance/{zone}"


def forecast_suffix(zone: str) -> str:
    """`forecast/{zone}`."""
    return f"forecast/{zone}"


def live_suffix(zone: str) -> str:
    """`live/{zone}`."""
    return f"live/{zone}"


def register_suffix(meter: str) -> str:
    """`register/{meter}`."""
    return f"register/{meter}"


def evidence_suffix(alert_id: str, n: int, of: int) -> str:
    """`evidence/{alert_id}/{n}-{of}`."""
    return f"evidence/{alert_id}/{n}-{of}"


def split_topic(topic: str) -> tuple[Address, str]:
    """Whose topic it is, and the suffix.

    Raises:
        WireError: not a topic of this contract.
    """
    parts = topic.split("/", 5)
    if len(parts) != 6 or f"{parts[0]}/{parts[1]}" != ROOT:
        raise WireError(f"{topic!r} is not {ROOT}/{{tenant}}/{{site}}/{{gateway}}/...")
    return Address(*parts[2:5]), parts[5]
