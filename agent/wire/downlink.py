"""Ack, Signed, Command, DesiredConfig, DesiredModel, Reported; size limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from agent.wire.values import END, Body, Id, Order, Sha256, Time

# Limits on what a backend may send us. They bound what a hostile or broken sender can make us parse or keep.
MAX_COMMAND_BYTES = 16 * 1024

MAX_ACK_BYTES = 64 * 1024

MAX_CONFIG_BYTES = 512 * 1024

MAX_MODEL_BYTES = 2 * 1024 * 1024


class Ack(Order, frozen=True, kw_only=True):
    """`ack`, in end-to-end delivery: the CloudEvent or message ids that the backend has stored for good."""

    ids: list[str]


class Signed(Order, frozen=True, kw_only=True):
    """What a signed message looks like on the wire: the text itself, the key's id, the Ed25519 signature in hex.

    The signature covers the octets of `payload` as they stand, behind the purpose (see agent.keys.signing): no
    canonical form of JSON is needed, so none can be got wrong.
    """

    payload: str
    key: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{16}}{END}")]
    signature: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{128}}{END}")]


class Command(Order, frozen=True, kw_only=True):
    """`cmd/req`, inside `Signed`. `target` is `{tenant}/{site}/{gateway}`, so that no other gateway obeys it."""

    id: Id
    target: str
    name: Literal["ping", "snapshot", "report", "resend", "acknowledge", "set-mode", "reload", "live", "weather"]
    issued: Time
    expires: Time
    by: Annotated[str, msgspec.Meta(max_length=128)] = ""
    args: dict[str, Any] = {}


class CommandResult(Body, frozen=True, kw_only=True):
    """`cmd/res`. `refused`: nothing was changed, `reason` says why; `failed`: it was tried and did not work."""

    id: str | None
    name: str | None = None
    status: Literal["done", "refused", "failed"]
    time: Time
    reason: str | None = None
    result: dict[str, Any] = {}


class DesiredConfig(Order, frozen=True, kw_only=True):
    """`config/desired`, retained, inside `Signed`: a whole site file."""

    target: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    issued: Time
    expires: Time | None = None
    toml: str


class DesiredModel(Order, frozen=True, kw_only=True):
    """`model/desired`, retained, inside `Signed`: a whole .tflite file (base64) and its SHA-256."""

    target: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    issued: Time
    expires: Time | None = None
    sha256: Sha256
    tflite: bytes


class Reported(Body, frozen=True, kw_only=True):
    """`config/reported` and `model/reported`, retained.

    `version` and `sha256` are what runs now; `desired` is the version spoken of in `state`.
    """

    state: Literal["none", "on_trial", "kept", "rejected", "rolled_back"]
    time: Time
    version: int | None = None
    sha256: str | None = None
    desired: int | None = None
    reason: str | None = None
