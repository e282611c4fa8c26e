"""What is to be known of a DLMS meter before it is asked: address, security with the secrets loaded, habits.

The site file and where secrets are kept are the agent's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from firmware_io.dlms.sources import USUAL, Sources

Security = Literal["none", "lls", "hls-gmac"]


@dataclass(frozen=True, slots=True)
class DlmsSpec:
    """One meter on a bus. `address` is the HDLC physical address, or the wrapper's server port.

    With `address_octets` = 1 the single octet carries `address` and there is no logical device address; 0 takes
    the shortest of two and four octets. Keys and passwords are octets and never shown by `repr`.
    """

    id: str
    address: int
    logical_address: int = 1
    address_octets: Literal[0, 1, 2, 4] = 0
    client: int = 16
    framing: Literal["hdlc", "wrapper"] = "hdlc"  # the same for all meters of a bus
    serial: str | None = None  # expected serial number; another one is a replaced meter
    security: Security = "none"
    password: bytes | None = field(default=None, repr=False)
    authentication_key: bytes | None = field(default=None, repr=False)
    encryption_key: bytes | None = field(default=None, repr=False)
    system_title: bytes | None = None  # ours towards this meter, 8 octets
    ciphering: Literal["global", "dedicated", "general"] = "global"  # form of ciphered APDUs with hls-gmac
    sources: Sources = USUAL  # from which of its objects the quantities come
    min_gap_s: float = 0.0  # some meters reboot when polled fast
    single_association: bool = False
    with_list: bool = True
    max_pdu: int = 1024
    max_frame: int = 512
    inactivity_s: float = 120.0
    timezone: str | None = None  # of the site (IANA): what a clock without deviation is taken for

    def __post_init__(self) -> None:
        """Raises: ValueError: a secret that the security needs is missing, or has the wrong length."""
        if self.security == "lls" and not self.password:
            raise ValueError(f"meter {self.id}: security lls needs a password")
        if self.security == "hls-gmac":
            for name, secret, octets in (
                ("authentication_key", self.authentication_key, 16),
                ("encryption_key", self.encryption_key, 16),
                ("system_title", self.system_title, 8),
            ):
                if secret is None or len(secret) != octets:
                    raise ValueError(f"meter {self.id}: security hls-gmac needs {name} of {octets} octets")
