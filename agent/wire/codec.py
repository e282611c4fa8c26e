"""Schema ids; bytes to structs and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from agent.wire.downlink import Ack, Command, CommandResult, DesiredConfig, DesiredModel, Reported, Signed
from agent.wire.events import AlertEvent, TamperEvent
from agent.wire.forecast import Forecast
from agent.wire.live import Live
from agent.wire.state import ActiveSnapshot, Balance, EvidenceChunk, Health, Info, Register, Status
from agent.wire.values import WireError

# schema id -> struct: what `info` lists, what docs/schemas holds, what the MQTT user property `schema` says.
SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "checkmeter.alert.v1": AlertEvent,
    "checkmeter.tamper.v1": TamperEvent,
    "checkmeter.active.v1": ActiveSnapshot,
    "checkmeter.balance.v1": Balance,
    "checkmeter.status.v1": Status,
    "checkmeter.info.v1": Info,
    "checkmeter.health.v1": Health,
    "checkmeter.evidence.v1": EvidenceChunk,
    "checkmeter.forecast.v1": Forecast,
    "checkmeter.live.v1": Live,
    "checkmeter.register.v1": Register,
    "checkmeter.ack.v1": Ack,
    "checkmeter.signed.v1": Signed,
    "checkmeter.command.v1": Command,
    "checkmeter.result.v1": CommandResult,
    "checkmeter.config-desired.v1": DesiredConfig,
    "checkmeter.model-desired.v1": DesiredModel,
    "checkmeter.reported.v1": Reported,
}

SCHEMA_OF: Mapping[type, str] = {struct: name for name, struct in SCHEMAS.items()}

T = TypeVar("T", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """The JSON octets of a message, UTF-8."""
    return msgspec.json.encode(message)


def decode(struct: type[T], payload: bytes, limit: int | None = None) -> T:
    """The message in `payload`, checked against its struct.

    Raises:
        WireError: longer than `limit` octets (not parsed at all), not JSON, or not of this form.
    """
    if limit is not None and len(payload) > limit:
        raise WireError(f"{len(payload)} octets are over the limit of {limit}")
    try:
        return msgspec.json.decode(payload, type=struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {SCHEMA_OF[struct]}: {error}") from error
