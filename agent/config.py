"""The site file: TOML in, frozen structs out. Every error at once, each with file, line, key and what to do.

It knows what a site may say, not what is done with it. Secrets never stand in the file: only paths of them, or
names of systemd credentials (`credential:NAME`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ConfigError(Exception):
    """The site file cannot be used; `errors` holds one line for each thing to mend. Exit code 78."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: frozen, and a key that is not listed is an error."""


class Site(_Table, frozen=True, kw_only=True):
    """[site]: where the alerts say they come from."""

    tenant: Name = "local"
    site: Name
    gateway: Name
    timezone: str = "UTC"  # of the people in the building: for hour-of-day features and reports only


class Bus(_Table, frozen=True, kw_only=True):
    """[[bus]]: one serial port or TCP link; half-duplex, one thread."""

    id: Name
    port: str  # /dev/ttyUSB0, or tcp://host:port
    framing: Literal["hdlc", "wrapper"] = "hdlc"
    baud: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    poll_s: Positive = 60.0  # one cycle over all meters of the bus
    timeout_s: Positive = 2.0  # for the first octet of a reply
    inter_octet_s: Positive = 0.1
    echo: bool = False  # the adapter hears what it sends


class Meter(_Table, frozen=True, kw_only=True):
    """[[meter]]: one main meter or sub-meter. A replay needs `id`, `accuracy_class` and `resolution_wh` only."""

    id: Name
    bus: str | None = None
    address: int | None = None  # HDLC physical address, or wrapper's server port
    logical_address: int = 1
    address_octets: Literal[0, 1, 2, 4] = 0  # 0: the shortest that holds the address
    client: int = 16
    accuracy_class: Positive = 1.0
    resolution_wh: Positive = 10.0
    serial: str | None = None  # expected serial number; another one is a replaced meter
    phase: Literal[0, 1, 2, 3] = 0  # 0: three-phase or unknown
    ct_ratio: Positive = 1.0
    security: Literal["none", "lls", "hls-gmac"] = "none"
    password: str | None = None  # path or credential:NAME
    authentication_key: str | None = None
    encryption_key: str | None = None
    system_title: str | None = None  # ours towards this meter, 16 hex digits
    min_gap_s: NotNegative = 0.0  # some meters reboot when polled fast
    single_association: bool = False
    with_list: bool = True
    max_pdu: int = 1024
    max_frame: int = 512
    inactivity_s: Positive = 120.0


class Zone(_Table, frozen=True, kw_only=True):
    """[[zone]]: one balance. A sub that is another zone's main meter makes the tree of zones."""

    id: Name
    main: str
    subs: list[str]
    export: list[str] = []  # meters in `subs` whose export register is taken off their import
    minus: list[str] = []  # meters that count against the sum (a shared load metered twice)


class Detection(_Table, frozen=True, kw_only=True):
    """[detection]: what an alarm promises."""

    interval_s: Positive = 900.0
    false_alarms_per_year: Positive = 0.1
    confidence: Probability = 0.9  # below it no flat is named
    guard_days: Positive = 14.0  # rows younger than this are not absorbed as normal
    model: str | None = None  # path of a .tflite; the shipped one by default


class Mqtt(_Table, frozen=True, kw_only=True):
    """[mqtt]: the utility's broker."""

    url: str  # mqtt://host:port or mqtts://host:port
    version: Literal["5", "3.1.1"] = "5"
    client_id: str | None = None  # the gateway's name by default
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    username: str | None = None
    password: str | None = None  # path or credential:NAME
    alpn: list[str] = []
    keepalive_s: int = 60
    inflight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    delivery: Literal["broker", "end_to_end"] = "broker"
    command_keys: list[str] = []  # paths of Ed25519 public keys that may sign commands
    cim: dict[str, str] = {}  # alert or tamper kind -> IEC 61968-9 event type


class Store(_Table, frozen=True, kw_only=True):
    """[store]: what is kept on the gateway's disk."""

    path: str = "/var/lib/checkmeter/checkmeter.sqlite"
    outbox_mb: Positive = 64.0
    history_days: Positive = 120.0


class Config(_Table, frozen=True, kw_only=True):
    """A whole site file."""

    site: Site
    bus: list[Bus] = []
    meter: list[Meter]
    zone: list[Zone]
    detection: Detection = Detection()
    mqtt: Mqtt | None = None
    store: Store = Store()
    simulation: dict[str, object] | None = None  # read by `checkmeter simulate` only, checked there
