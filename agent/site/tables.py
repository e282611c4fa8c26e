"""The tables of the site file as frozen structs, with the limits of each key.

It knows what a site may say, not how the file is read (agent.site.load) nor what is done with it. Secrets never stand
in the file: only paths of them, or names of systemd credentials (`credential:NAME`, see agent.keys.credentials).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec

QUARTER_S = 21_600.0  # of a day: whole rows make one, so that its hours are judged alike

# Upper limits keep infinities and slips of the keyboard out of sums, waits and dates.
Positive = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Watts = Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]
Capacity = Annotated[float, msgspec.Meta(gt=0, le=1_000_000_000)]
Step = Annotated[float, msgspec.Meta(ge=0.000_001, le=1_000_000)]
Ratio = Annotated[float, msgspec.Meta(ge=0.001, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Idle = Annotated[float, msgspec.Meta(gt=0, le=1e9)]  # some meters never drop an association
Pause = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Rest = Annotated[float, msgspec.Meta(ge=0, le=2_678_400)]  # a month
Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?![\s\S])"
Name = Annotated[
    str,
    msgspec.Meta(
        pattern=NAME_PATTERN,
        extra={"expected": "a name: up to 64 letters, digits, dots, hyphens and underscores"},
    ),
]
Secret = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(credential:[A-Za-z0-9._-]+|\.{0,2}/[^\x00-\x1f\x7f-\x9f]+)(?![\s\S])",
        extra={
            "expected": "a path (/etc/checkmeter/keys/...) or credential:NAME; a secret never stands in this file",
            "secret": True,
        },
    ),
]
Text = Annotated[
    str,
    msgspec.Meta(
        max_length=4096,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]*(?![\s\S])",
        extra={"expected": "text in quotes, on one line and without control characters"},
    ),
]
FilePath = Annotated[
    Text,
    msgspec.Meta(
        min_length=1,
        extra={"expected": "a path: not empty, on one line and without control characters"},
    ),
]
EventType = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{1,5}(\.[0-9]{1,5}){3}(?![\s\S])",
        extra={"expected": "four numbers with dots (type.domain.subdomain.action), like 3.12.43.257"},
    ),
]
Label = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        # Not the characters that turn the direction of what follows them (U+202A and so on): they let a name lie.
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*(?![\s\S])",
        extra={"expected": "up to 200 characters of any script on one line, none that turns the writing direction"},
    ),
]
GroupName = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]*(?![\s\S])",
        extra={"expected": "up to 64 characters of any script on one line, none that is invisible"},
    ),
]
Hex16 = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{16}(?![\s\S])", extra={"expected": "16 hexadecimal digits (8 octets)"})
]
EXPECTED_DAY = "a day: 2026-04-06, or 12-25 for every year"
Address = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Digits = Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,12}|[0-9Ff]{8}|[0-9Ff]{8}[0-9A-Fa-f]{8})(?![\s\S])")]
Protocol = Literal["dlms", "dlt645", "dlt698", "modbus", "mbus"]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


Security = Literal["none", "lls", "hls-aes", "hls-md5", "hls-sha1", "hls-sha256", "hls-gmac", "hls-ecdsa"]
_BYTE = r"(25[0-5]|2[0-4]\d|1?\d?\d)"
Obis = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^({_BYTE}-{_BYTE}:)?{_BYTE}\.{_BYTE}\.{_BYTE}([.*]{_BYTE})?(?![\s\S])|^{_BYTE}(\.{_BYTE}){{4,5}}(?![\s\S])",
        description="An OBIS code: 1-0:1.8.0 or 1.0.1.8.0.255.",
    ),
]


def about(text: str) -> msgspec.Meta:
    """What a key means, in one line: for the JSON Schema that editors show, and for the documentation."""
    return msgspec.Meta(description=text)


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table: frozen, and a key that is not listed is an error."""


class Site(_Table, frozen=True, kw_only=True):
    """[site]: where the alerts say they come from."""

    tenant: Annotated[Name, about("The utility or owner; first part of every topic.")] = "local"
    site: Annotated[Name, about("The building.")]
    gateway: Annotated[Name, about("This gateway; equals the MQTT client id and the certificate's CN.")]
    name: Annotated[Label | None, about("The building as people call it, in any script.")] = None
    address: Annotated[Label | None, about("Its postal address.")] = None
    contact: Annotated[Label | None, about("Who opens the door: a name, a telephone number.")] = None
    feeder: Annotated[
        GroupName | None, about("What supplies it, a line or a transformer: the utility adds up peaks by it.")
    ] = None
    district: Annotated[GroupName | None, about("Where it lies: the utility adds up peaks by it, too.")] = None
    timezone: Annotated[Text, about("Of the people: for hours of the day, reports, clocks of DL/T 645 meters.")] = "UTC"


class Bus(_Table, frozen=True, kw_only=True):
    """[[bus]]: one serial port or TCP link; half-duplex, one thread."""

    id: Annotated[Name, about("How meters name this bus.")]
    port: Annotated[
        Text, about("/dev/ttyUSB0, a stable name under /dev/serial/by-id, tcp://host:port; udp:// with wrapper.")
    ]
    protocol: Annotated[Protocol, about("What its meters speak.")] = "dlms"
    framing: Annotated[
        Literal["hdlc", "wrapper", "rtu", "tcp"] | None,
        about("DLMS: hdlc, or wrapper on TCP. Modbus: rtu (on TCP too: a gateway), or tcp. The usual one by default."),
    ] = None
    baud: Annotated[int, msgspec.Meta(ge=50, le=4_000_000, description="Baud rate of a serial port.")] = 9600
    parity: Annotated[Literal["N", "E", "O"], about("None, even or odd.")] = "N"
    poll_s: Annotated[Seconds, about("One cycle over all meters of the bus, seconds.")] = 60.0
    timeout_s: Annotated[Seconds, about("Wait for the first octet of a reply, seconds.")] = 2.0
    inter_octet_s: Annotated[Seconds, about("Silence inside a reply that makes it a torn one, seconds.")] = 0.1
    opening: Annotated[
        Literal["mode-e"] | None,
        about("Optical heads: sign on by IEC 62056-21 mode E at 300 Bd 7E1, go on in HDLC at `baud` or less."),
    ] = None
    listen: Annotated[
        Text | None, about("DLMS: where its meters push to, tcp://0.0.0.0:4059 or udp://..., in this bus's framing.")
    ] = None
    rs485: Annotated[bool, about("The port's own driver turns the line round by RTS; on-board UARTs need it.")] = False


class Registers(_Table, frozen=True, kw_only=True):
    """[meter.registers]: objects of a DLMS meter that are not where they usually are; a list is added up."""

    energy_import: Annotated[list[Obis] | None, about("Instead of 1-0:1.8.0; several are added up.")] = None
    energy_export: Annotated[list[Obis] | None, about("Instead of 1-0:2.8.0; several are added up.")] = None
    power_import: Annotated[Obis | None, about("Instead of 1-0:1.7.0.")] = None
    power_export: Annotated[Obis | None, about("Instead of 1-0:2.7.0.")] = None
    load_profile: Annotated[Obis | None, about("Instead of 1-0:99.1.0.")] = None
    event_logs: Annotated[list[Obis] | None, about("Instead of 0-0:99.98.0 to 0-0:99.98.7.")] = None
    counter: Annotated[Obis | None, about("Instead of 0-0:43.1.0: the invocation counter of this client.")] = None
    push_setup: Annotated[Obis | None, about("Instead of 0-0:25.9.0: says what stands in its pushes.")] = None
    push_objects: Annotated[
        list[Obis] | None, about("What stands in its pushes, in order, where its push setup cannot be read.")
    ] = None
    compact: Annotated[
        Obis | None, about("Compact data (class 62), 0-0:66.0.1 for one: a poll reads what they capture, in one go.")
    ] = None


class Meter(_Table, frozen=True, kw_only=True):
    """[[meter]]: one main meter or sub-meter. A replay needs `id`, `accuracy_class` and `resolution_wh` only."""

    id: Annotated[Name, about("How zones and alerts name this meter.")]
    name: Annotated[Label | None, about('As people call it, in any script: "302室".')] = None
    service_point: Annotated[Label | None, about("The utility's number of the connection or contract.")] = None
    bus: Annotated[Text | None, about("The id of the [[bus]] it is connected to.")] = None
    protocol: Annotated[
        Protocol | None, about("Its own protocol on a line that DLMS and DL/T 645 meters share; the bus's by default.")
    ] = None
    address: Annotated[
        Address | Digits | None,
        msgspec.Meta(
            description="HDLC physical address or the wrapper's server port; Modbus unit; M-Bus primary address, or "
            "secondary in quotes; DL/T 645 and 698.45: up to 12 digits in quotes.",
            extra={"expected": "a whole number of at least 0 and of at most 65535, or digits in quotes"},
        ),
    ] = None
    logical_address: Annotated[int, msgspec.Meta(ge=0, le=16383, description="HDLC logical device.")] = 1
    address_octets: Annotated[Literal[0, 1, 2, 4], about("0: the shortest that holds the address.")] = 0
    client: Annotated[
        int, msgspec.Meta(ge=1, le=65535, description="Client SAP: 16 is the public client; up to 16383 over HDLC.")
    ] = 16
    accuracy_class: Annotated[Positive, about("From the meter's face plate: 0.2, 0.5, 1 or 2 (per cent).")] = 1.0
    resolution_wh: Annotated[Step, about("The step of its energy register, Wh.")] = 10.0
    serial: Annotated[Text | None, about("Expected serial number; another one is a replaced meter.")] = None
    phase: Annotated[Literal[0, 1, 2, 3], about("0: three-phase or unknown.")] = 0
    ct_ratio: Annotated[Ratio, about("Factor on its registers, where the meter does not apply it itself.")] = 1.0
    security: Annotated[Security, about("How the association is secured.")] = "none"
    password: Annotated[Secret | None, about("LLS or HLS secret: a path or credential:NAME.")] = None
    authentication_key: Annotated[Secret | None, about("hls-gmac: path or credential:NAME of a key in hex.")] = None
    encryption_key: Annotated[Secret | None, about("hls-gmac: path or credential:NAME of a key in hex.")] = None
    system_title: Annotated[Hex16 | None, about("Ours towards this meter, 16 hex digits.")] = None
    suite: Annotated[
        Literal[0, 1, 2] | None, about("Security suite; by default 0 with keys of 16 octets, 2 with keys of 32.")
    ] = None
    signing_key: Annotated[Secret | None, about("hls-ecdsa: our private key, PEM or hex.")] = None
    meter_signing_key: Annotated[
        Text | None, about("hls-ecdsa: path of the meter's public key: PEM, a certificate, or its point in hex.")
    ] = None
    agreement_key: Annotated[
        Secret | None, about("Our private key for pushes under an agreed key (general-ciphering).")
    ] = None
    meter_agreement_key: Annotated[Text | None, about("Path of the meter's public key for that.")] = None
    master_key: Annotated[Secret | None, about("The key that keys are wrapped with (checkmeter rekey), hex.")] = None
    broadcast_key: Annotated[Secret | None, about("Key of pushes that the meter sends to several clients, hex.")] = None
    ciphering: Annotated[
        Literal["global", "dedicated", "general"], about("Form of ciphered APDUs: glo-, ded- or general-glo-ciphering.")
    ] = "global"
    policy: Annotated[
        Literal["both", "authenticated", "encrypted"], about("What a ciphered APDU is; with hls-gmac only.")
    ] = "both"
    min_gap_s: Annotated[Pause, about("Pause between requests; some meters reboot when polled fast.")] = 0.0
    single_association: Annotated[bool, about("The line bears one open association at a time.")] = False
    with_list: Annotated[bool, about("The meter answers a GET with a list of registers.")] = True
    naming: Annotated[
        Literal["ln", "sn"], about("How it names its objects: logical or short names; with short ones it is read only.")
    ] = "ln"
    push: Annotated[bool, about("Take what it sends unasked, on its line or at the bus's `listen`.")] = False
    access: Annotated[bool, about("Ask for lists by ACCESS, where the meter offers it.")] = False
    gbt_window: Annotated[
        int, msgspec.Meta(ge=0, le=63, description="General block transfer: blocks taken at once; 0 does not offer it.")
    ] = 0
    max_pdu: Annotated[int, msgspec.Meta(ge=64, le=65535, description="Largest APDU it takes, octets.")] = 1024
    max_frame: Annotated[int, msgspec.Meta(ge=32, le=2030, description="Largest HDLC information field.")] = 512
    companion: Annotated[
        Literal["dsmr5", "idis", "is15959"] | None, about("The companion profile whose objects it has.")
    ] = None
    registers: Annotated[Registers | None, about("Objects that are not where they usually are.")] = None
    window: Annotated[int, msgspec.Meta(ge=1, le=7, description="HDLC frames in flight; the meter may want less.")] = 1
    inactivity_s: Annotated[Idle, about("It drops an idle association after so many seconds.")] = 120.0
    profile: Annotated[Text | None, about("Modbus: a shipped device profile, or the path of one of your own.")] = None
    proven: Annotated[bool, about("Modbus: the profile is proven; else an hour passes first.")] = False
    live: Annotated[bool, about("Power, voltages and currents with each poll; energy alone is quicker.")] = True
    edition: Annotated[Literal[2007, 1997], about("Of DL/T 645.")] = 2007
    rates: Annotated[bool, about("DL/T 645: the energy of the four rates too.")] = False
    medium: Annotated[
        Literal["electricity", "heat", "cold-water", "hot-water", "gas"],
        about("What it measures; other media than electricity are read and shown, and take part in no balance yet."),
    ] = "electricity"
    interval_s: Annotated[Rest, about("M-Bus: asked no more often than this; spares batteries.")] = 0.0


class Zone(_Table, frozen=True, kw_only=True):
    """[[zone]]: one balance. A sub that is another zone's main meter makes the tree of zones."""

    id: Annotated[Name, about("How alerts name this zone.")]
    name: Annotated[Label | None, about("As people call it, in any script.")] = None
    main: Annotated[Text, about("The id of the main meter.")]
    subs: Annotated[list[Text], about("The ids of the sub-meters behind it.")]
    export: Annotated[list[Text], about("Those of `main` and `subs` whose export register is taken off.")] = []
    unmetered_w: Annotated[
        Watts, about("Load behind `main` that has no meter (stairs, lift, pumps), W in the mean over a day.")
    ] = 0.0
    minus: Annotated[list[Text], about("Those of `subs` that count against the sum: a shared load metered twice.")] = []
    capacity_w: Annotated[
        Capacity | None, about("What fuse, transformer share or contract bear, W: near it an alert says so.")
    ] = None


class Forecast(_Table, frozen=True, kw_only=True):
    """[forecast]: the next two days of each zone."""

    enabled: Annotated[bool, about("Say every hour what each zone will draw in the next 48 h.")] = True
    holidays: Annotated[
        list[
            Annotated[
                str, msgspec.Meta(pattern=r"^([0-9]{4}-)?[0-9]{2}-[0-9]{2}(?![\s\S])", extra={"expected": EXPECTED_DAY})
            ]
        ],
        about("Days like Sundays: 2026-04-06 once, 12-25 every year."),
    ] = []
    temperature: Annotated[
        Label | None,
        about("Column of a replay's READINGS.csv: outdoor temperature in °C. Live: the command `weather`."),
    ] = None


class Detection(_Table, frozen=True, kw_only=True):
    """[detection]: what an alarm promises."""

    interval_s: Annotated[Seconds, about("The balance is drawn up this often, seconds.")] = 900.0
    balance_s: Annotated[
        Seconds, about("Shorter balances are for large losses only; those of this length are judged, kept and sent.")
    ] = 900.0
    false_alarms_per_year: Annotated[Positive, about("Promised rate of false alarms, per building and year.")] = 0.1
    confidence: Annotated[Probability, about("Below this probability no flat is named.")] = 0.9
    guard_days: Annotated[Days, about("Rows younger than this are not absorbed as normal.")] = 14.0
    model: Annotated[FilePath | None, about("Path of a .tflite; the shipped one by default.")] = None

    @property
    def row_s(self) -> float:
        """Length of the rows that are judged, kept and sent, seconds."""
        return self.row_of(self.interval_s)

    def row_of(self, interval_s: float) -> float:
        """The same for another interval: its shortest multiple that is not below `balance_s` and divides six hours."""
        if interval_s >= self.balance_s:
            return interval_s
        quarter = round(QUARTER_S / interval_s)
        least = math.ceil(self.balance_s / interval_s - 1e-9)
        return interval_s * next(n for n in range(least, quarter + 1) if quarter % n == 0)


class Mqtt(_Table, frozen=True, kw_only=True):
    """[mqtt]: the utility's broker."""

    url: Annotated[Text, about("mqtt://host:port or mqtts://host:port.")]
    insecure: Annotated[
        bool, about("Allow mqtt:// (no encryption, no proof of who the broker is) beyond loopback.")
    ] = False
    version: Annotated[Literal["5", "3.1.1"], about("Protocol version; 3.1.1 has no properties.")] = "5"
    client_id: Annotated[Text | None, about("The gateway's name by default.")] = None
    ca: Annotated[FilePath | None, about("CA certificate, PEM; the system's store by default.")] = None
    certificate: Annotated[FilePath | None, about("Client certificate, PEM.")] = None
    key: Annotated[Secret | None, about("Client key, PEM: a path or credential:NAME.")] = None
    username: Annotated[Text | None, about("Where the broker asks for one.")] = None
    password: Annotated[Secret | None, about("A path or credential:NAME.")] = None
    alpn: Annotated[list[Text], about("ALPN protocols for brokers on port 443.")] = []
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600, description="MQTT keep-alive, seconds.")] = 60
    inflight: Annotated[int, msgspec.Meta(ge=1, le=1000, description="Messages sent and not acknowledged.")] = 20
    delivery: Annotated[
        Literal["broker", "end_to_end"], about("Who must acknowledge before a message leaves the outbox.")
    ] = "broker"
    command_keys: Annotated[list[FilePath], about("Paths of Ed25519 public keys that may sign commands.")] = []
    cim: Annotated[dict[Text, EventType], about("Alert or tamper kind -> IEC 61968-9 event type.")] = {}


class Store(_Table, frozen=True, kw_only=True):
    """[store]: what is kept on the gateway's disk."""

    path: Annotated[FilePath, about("Outbox, checkpoints and history: one SQLite file.")] = (
        "/var/lib/checkmeter/checkmeter.sqlite"
    )
    outbox_mb: Annotated[Positive, about("Cap of what waits for the broker, MB.")] = 64.0
    history_days: Annotated[Days, about("How long interval history is kept.")] = 120.0


class Service(_Table, frozen=True, kw_only=True):
    """[service]: how the running agent can be watched on the gateway."""

    socket: Annotated[FilePath, about("Unix socket of `checkmeter status` and `watch`.")] = (
        "/run/checkmeter/control.sock"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], about("Least level that is logged.")] = "info"
    log_format: Annotated[Literal["text", "json"], about("Text with journald priorities, or one JSON a line.")] = "text"
    metrics_textfile: Annotated[FilePath | None, about("Prometheus textfile, written anew every 30 s.")] = None
    metrics_port: Annotated[Port | None, about("Serve /metrics on this port of the loopback address.")] = None


class Config(_Table, frozen=True, kw_only=True):
    """A whole site file."""

    site: Site
    bus: list[Bus] = []
    meter: list[Meter]
    zone: list[Zone]
    detection: Detection = Detection()
    forecast: Forecast = Forecast()
    mqtt: Mqtt | None = None
    store: Store = Store()
    service: Service = Service()
    simulation: dict[str, Any] | None = None  # read by `checkmeter simulate` only, checked there
