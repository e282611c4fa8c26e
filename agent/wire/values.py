"""Time, Share, Id, Body, Order, WireError; utc, number, derived_uuid."""

from __future__ import annotations

import hashlib
import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # and a timedelta: where time_t has 32 bits, fromtimestamp ends with 2038

Time = Annotated[datetime, msgspec.Meta(tz=True)]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

Count = Annotated[int, msgspec.Meta(ge=0)]

END = r"(?![\s\S])"  # of the text. In Python `$` also matches before a trailing line feed; JSON Schema knows no \\Z

Sha256 = Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{64}}{END}")]

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=f"^[A-Za-z0-9._-]+{END}")]

UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # RFC 9562, section 4: its text form

# Said, not enforced here: what the gateway derives is one, and who stores events checks it.
Uuid = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid", "pattern": f"^{UUID}{END}"})]


class WireError(ValueError):
    """Bytes that are not the message they should be; the text says what is wrong, fit to be sent back."""


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all that goes up; readers ignore fields they do not know, so that fields may be added."""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of all that comes down; an unknown field is an error, so that no wish is silently ignored."""


def utc(seconds: float) -> datetime:
    """UTC seconds since the epoch as the wire writes them, to the millisecond."""
    # Not fromtimestamp: Debian's time_t has 32 bits on armhf, and a meter's clock may be beyond 2038.
    return EPOCH + timedelta(seconds=round(seconds, 3))


def number(value: float | None, digits: int = 3) -> float | None:
    """A figure as the wire writes it: rounded, and `null` where it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def derived_uuid(*parts: str) -> str:
    """A UUID of version 4's shape that the same parts always give (SHA-256), so that a duplicate keeps its id."""
    digest = bytearray(hashlib.sha256("\x1f".join(parts).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))
