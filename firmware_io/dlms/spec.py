"""What is to be known of a DLMS meter before it is asked: address, security with the secrets loaded, habits.

The site file and where secrets are kept are the agent's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from firmware_io.dlms.sources import USUAL, Sources

Security = Literal["none", "lls", "hls-aes", "hls-md5", "hls-sha1", "hls-sha256", "hls-gmac", "hls-ecdsa"]
KEY_OCTETS = {0: 16, 1: 16, 2: 32}  # octets of the keys of each security suite
TITLED = ("hls-gmac", "hls-sha256", "hls-ecdsa")  # in whose proofs the system titles are


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
    suite: Literal[0, 1, 2] | None = None  # of security; by the length of the keys where it is not said
    signing_key: bytes | None = field(default=None, repr=False)  # hls-ecdsa: our private key, PEM or hex
    meter_signing_key: bytes | None = None  # the meter's public key for it: PEM, certificate, or point in hex
    agreement_key: bytes | None = field(default=None, repr=False)  # our private key for ECDH, as signing_key
    meter_agreement_key: bytes | None = None  # the meter's public key for it
    master_key: bytes | None = field(default=None, repr=False)  # under which keys are wrapped
    broadcast_key: bytes | None = field(default=None, repr=False)  # of pushes to several clients
    ciphering: Literal["global", "dedicated", "general"] = "global"  # form of ciphered APDUs with hls-gmac
    policy: Literal["both", "authenticated", "encrypted"] = "both"  # what each ciphered APDU is, with hls-gmac
    sources: Sources = USUAL  # from which of its objects the quantities come
    min_gap_s: float = 0.0  # some meters reboot when polled fast
    single_association: bool = False
    with_list: bool = True
    naming: Literal["ln", "sn"] = "ln"  # with short names ("sn") it is read only
    push: bool = False  # what it sends unasked is taken
    access: bool = False  # lists are asked for by ACCESS, where the meter offers it
    gbt_window: int = 0  # general block transfer: so many blocks at once; 0 is not to offer it
    max_pdu: int = 1024
    max_frame: int = 512
    window: int = 1  # HDLC frames in flight; more saves an RR per frame and repeats more after a bad one
    inactivity_s: float = 120.0
    timezone: str | None = None  # of the site (IANA): what a clock without deviation is taken for

    @property
    def ciphers(self) -> bool:
        """Whether its APDUs are ciphered: with hls-gmac always, with hls-ecdsa where it has keys."""
        return self.security == "hls-gmac" or (self.security == "hls-ecdsa" and self.encryption_key is not None)

    def __post_init__(self) -> None:
        """Raises: ValueError: a secret that the security needs is missing, or has the wrong length."""
        if self.security not in ("none", "hls-gmac", "hls-ecdsa") and not self.password:
            raise ValueError(f"meter {self.id}: security {self.security} needs a password")
        if self.security in TITLED and (self.system_title is None or len(self.system_title) != 8):
            raise ValueError(f"meter {self.id}: security {self.security} needs system_title of 8 octets")
        if self.security == "hls-ecdsa" and not (self.signing_key and self.meter_signing_key):
            raise ValueError(f"meter {self.id}: security hls-ecdsa needs signing_key and meter_signing_key")
        if self.ciphers:
            suites = [octets for suite, octets in KEY_OCTETS.items() if self.suite in (None, suite)]
            wanted = " or ".join(f"{octets} octets" for octets in sorted(set(suites)))
            for name, key in (("authentication_key", self.authentication_key), ("encryption_key", self.encryption_key)):
                if key is None or len(key) not in suites or len(key) != len(self.encryption_key or b""):
                    raise ValueError(
                        f"meter {self.id}: security {self.security} needs {name} of {wanted}, both the same"
                    )
            octets = len(self.encryption_key or b"")
            for name, key in (("master_key", self.master_key), ("broadcast_key", self.broadcast_key)):
                if key is not None and len(key) != octets:
                    raise ValueError(
                        f"meter {self.id}: security {self.security} needs {name} of {octets} octets, as encryption_key"
                    )
