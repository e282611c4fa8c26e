"""Arbitrary octets into every parser: only declared errors may come out, quickly, and what was understood is stable.

    python -m tests.system.fuzz.fuzz [--seconds 600] [--inputs N] [--seed 1] [--only framer --only values]

A mutational fuzzer over seeds of real shape; `fuzz_atheris.py` drives the same targets by coverage, and the test
suite by Hypothesis. What has been tried is written down in `README.md` beside this file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from firmware_io import obis
from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.access import AccessItem, AccessKind
from firmware_io.dlms.apdu.blocks import Block, BlockTransfer
from firmware_io.dlms.apdu.short_names import NextBlock, ReadRequest, ReadResponse, ValueBlock, Variable
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.cosem.registers import Scale
from firmware_io.dlms.hdlc.framer import Address, Frame, Framer, encode_frame
from firmware_io.dlms.hdlc.link import ClientLink, Parameters, ServerLink
from firmware_io.dlms.meter.push import FrameCutter, PushOpener, UnitCutter, layout, values_of
from firmware_io.dlms.protection.elliptic import PrivateKey
from firmware_io.dlms.protection.general import KeyForm, Keyring, open_signed, sign
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.channel import HdlcChannel
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.opening import ModeE
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.session.trace import Tracer
from firmware_io.dlms.session.wrapper import Unit, Unwrapper
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import Traffic
from firmware_io.errors import LocalProtocolError, MeterError, RemoteProtocolError, SecurityError
from firmware_io.spec import Timing
from tests.system.fuzz.runner import Fuzzer

SERVER, CLIENT = Address.server(1, 17), Address.client(16)
KEY, TITLE, METER_TITLE = bytes(range(16)), b"CHK\x00\x00\x00\x00\x01", b"CHM\x00\x00\x00\x00\x02"

Target = Callable[[bytes], None]


def framer(octets: bytes) -> None:
    """The same frames, however the stream is cut; each of them is one that we could have sent."""
    whole = Framer()
    frames = whole.receive(octets) + whole.idle()
    cut = Framer()
    step = 1 + len(octets) % 7
    pieces: list[Frame] = []
    for start in range(0, len(octets), step):
        pieces += cut.receive(octets[start : start + step])
    pieces += cut.idle()
    assert pieces == frames, (pieces, frames)
    assert (cut.corrupt, cut.skipped) == (whole.corrupt, whole.skipped)
    for frame in frames:
        assert encode_frame(frame)[1:-1] in octets


def values(octets: bytes) -> None:
    """What is understood as a value is written back as one that means the same."""
    data = axdr.decode(octets)
    again = axdr.encode(data)
    assert axdr.encode(axdr.decode(again)) == again


def apdus(octets: bytes) -> None:
    """What is understood as an APDU is written back as one that means the same."""
    unit = decode.decode(octets)
    again = unit.encode()
    assert decode.decode(again).encode() == again


def associations(octets: bytes) -> None:
    """All association APDUs, and the initiate in them."""
    kinds = (acse.AssociationRequest, acse.AssociationResponse, acse.ReleaseRequest, acse.ReleaseResponse)
    for unit in _understood(kinds, octets):
        initiates(unit.user_information)
    initiates(octets)


def _understood(kinds: tuple[Any, ...], octets: bytes) -> list[Any]:
    """What the octets are as each of the kinds that understands them; each is written back and means the same."""
    units = []
    for kind in kinds:
        try:
            unit = kind.decode(octets)
        except RemoteProtocolError:
            continue
        again = unit.encode()
        assert kind.decode(again).encode() == again
        units.append(unit)
    return units


def initiates(octets: bytes) -> None:
    for kind in (acse.InitiateRequest, acse.InitiateResponse):
        try:
            unit: Any = kind.decode(octets)
        except RemoteProtocolError:
            continue
        assert kind.decode(unit.encode()) == unit


def _frames_of(octets: bytes, destination: bytes, source: bytes) -> list[Frame]:
    """Octets as a conversation: control field, flags and length, information; all frames check out."""
    frames, at = [], 0
    while at + 2 <= len(octets):
        control, size = octets[at], octets[at + 1]
        information = octets[at + 2 : at + 2 + (size & 0x7F)]
        frames.append(Frame(destination, source, control, information, bool(size & 0x80)))
        at += 2 + len(information)
    return frames


def client_link(octets: bytes) -> None:
    """A server that says anything at any time."""
    link = ClientLink(SERVER, CLIENT, Parameters(64, 64, 3, 3), max_pdu=1000)
    link.connect()
    for frame in _frames_of(octets, CLIENT.encode(), SERVER.encode()):
        assert len(link.take()) < 4000
        try:
            events = link.handle(frame)
        except RemoteProtocolError:
            link.connect()
            continue
        if link.turn and link.state.name == "CONNECTED" and frame.control & 1:
            try:
                link.send(frame.information)
            except LocalProtocolError:
                link.repeat()
        assert len(events) <= 1


def server_link(octets: bytes) -> None:
    """A client that says anything at any time."""
    link = ServerLink(SERVER, CLIENT, Parameters(64, 64, 3, 3), max_pdu=1000)
    for frame in _frames_of(octets, SERVER.encode(), CLIENT.encode()):
        for event in link.handle(frame):
            if type(event).__name__ == "Received" and link.state.name == "CONNECTED":
                link.send(b"answer" * 30)
        assert len(link.take()) < 1000


def ciphering(octets: bytes) -> None:
    """Nobody without the keys makes a unit that is taken, and nothing but security errors come out."""
    ours = Ciphering(KEY, KEY, TITLE, lambda: 1, METER_TITLE)
    ours.use_dedicated_key(KEY)
    with contextlib.suppress(RemoteProtocolError):
        # The length in front is not authenticated, and may be written in a longer form: what is inside may not.
        assert ours.open(octets) == UNIT, f"a forged unit was taken: {octets.hex()}"
    try:
        ours.verify(octets, b"challenge")
    except SecurityError:
        return
    raise AssertionError(f"a forged proof was taken: {octets.hex()}")


def wrapper(octets: bytes) -> None:
    """Units, however the stream is cut."""
    unwrapper = Unwrapper()
    for start in range(0, len(octets), 5):
        for unit in unwrapper.receive(octets[start : start + 5]):
            assert unit.encode() in octets


def times(octets: bytes) -> None:
    """Date-times, profile rows, capture objects, scalers."""
    time_ = MeterTime.decode(octets[:12])
    if time_ is not None:
        learned = Convention.learn(time_, 1_700_000_000.0)
        assert abs(learned.utc_s(learned.meter_time(1_700_000_000.0)) - 1_700_000_000.0) < 90_000
    data = axdr.decode(octets[12:])
    for parse in (profile.columns, Scale.decode, lambda d: profile.rows(d, COLUMNS, 900.0)):
        try:
            parse(data)
        except RemoteProtocolError:
            continue


class _Script:
    """A channel whose meter says what the input says, unit after unit."""

    in_order = True
    unit_octets = 65_535

    def __init__(self, octets: bytes) -> None:
        self.traffic = Traffic()
        self._left = octets

    def all(self) -> Iterator[bytes]:
        """Every unit."""
        while self._left:
            yield self.receive()

    def open(self) -> None: ...
    def send(self, pdu: bytes) -> None: ...
    def poll(self) -> None: ...
    def close(self) -> None: ...

    def monotonic(self) -> float:
        return 0.0

    def receive(self) -> bytes:
        if not self._left:
            raise RemoteProtocolError("the meter has no more to say")
        size = self._left[0]
        unit, self._left = self._left[1 : 1 + size], self._left[1 + size :]
        return unit


def sessions(octets: bytes) -> None:
    """A meter that answers anything: a declared error, or an answer of the right kind."""
    for spec in SPECS:
        session = Session(spec, _Script(octets), MemoryCounters())
        session.with_list = True
        if spec.security == "none":
            session.open = True  # straight to the services
        try:
            if not session.open:
                session.connect()
            results = session.get_list([decode.Attribute(3, obis.ENERGY_IMPORT, 2), decode.Attribute(8, obis.CLOCK, 2)])
            assert len(results) == 2
            session.capture_objects(obis.LOAD_PROFILE)
        except LocalProtocolError:
            assert not session.open
        except MeterError:
            continue


def channels(octets: bytes) -> None:
    """A line that says anything: the channel comes back in bounded time with a unit or a declared error."""
    line = _Line(octets)
    link = ClientLink(SERVER, CLIENT, Parameters(), max_pdu=1000)
    channel = HdlcChannel(line, link, Timing(1.0, 0.1, 0.001))
    try:
        channel.open()
        for _ in range(3):
            channel.send(b"request")
            channel.receive()
    except MeterError:
        pass
    assert line.time_s < 60
    tracer = Tracer(lambda text: None, (b"secret",))
    tracer(True, octets)
    tracer(False, octets)


def blocks(octets: bytes) -> None:
    """Blocks in any order and number: one unit, or a declared error, and no more kept than is allowed."""
    transfer = BlockTransfer(3, begun=bool(octets[:1] and octets[0] & 1))
    if octets[:1] and octets[0] & 2:
        transfer = BlockTransfer(3)
        transfer.load(octets * 3, 16)
    for unit in _Script(octets[1:]).all():
        block = Block.decode(unit)
        assert Block.decode(block.encode()) == block
        whole = transfer.take(block)
        assert whole is None or len(whole) <= len(octets)
        if whole is None and not block.streaming:
            assert transfer.answer()


def short_names(octets: bytes) -> None:
    """READ in both directions."""
    _understood((ReadRequest, ReadResponse), octets)


def general(octets: bytes) -> None:
    """general-ciphering and general-signing: nobody without the keys makes a unit that is taken."""
    counter = iter(range(1, 9))
    ours = Ciphering(KEY, KEY, TITLE, lambda: next(counter), METER_TITLE, suite=1, keys=RING)
    with contextlib.suppress(SecurityError):
        assert ours.open(octets) == UNIT, f"a forged unit was taken: {octets.hex()}"
    try:
        header, content = open_signed(RING, octets)
    except SecurityError:
        return
    # A signature is not unique: what it is over must be what was signed.
    assert (header.originator, content) == (METER_TITLE, UNIT), f"a forged signature was taken: {octets.hex()}"


def pushes(octets: bytes) -> None:
    """Pushes of any kind, at any door; the layout of one, and the buffer of compact data."""
    for cutter in (UnitCutter(), FrameCutter()):
        with contextlib.suppress(RemoteProtocolError):
            cutter.receive(octets)
    for spec in (SPECS[0], SPECS[3]):
        try:
            push, authentic = PushOpener(spec).open(octets, None)
        except RemoteProtocolError:
            continue
        assert not authentic, f"a forged push was taken: {octets.hex()}"
        with contextlib.suppress(RemoteProtocolError):
            values_of(push, [column.attribute for column in COLUMNS], authentic=False)
    with contextlib.suppress(RemoteProtocolError):
        layout(axdr.decode(octets))


def openings(octets: bytes) -> None:
    """An optical head that says anything."""
    line = _Line(octets)
    with contextlib.suppress(RemoteProtocolError):
        ModeE(9600).sign_on(line)
    assert line.time_s < 20


class _Line:
    """A transport on which the input trickles in, and then nothing."""

    def __init__(self, octets: bytes) -> None:
        self._left = octets
        self.time_s = 0.0

    def read(self, max_octets: int, deadline: float) -> bytes:
        if self._left and self.time_s + 0.01 <= deadline:
            self.time_s += 0.01
            piece, self._left = self._left[:16], self._left[16:]
            return piece
        self.time_s = max(self.time_s, deadline)
        return b""

    def write(self, octets: bytes) -> None: ...
    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self.time_s


COLUMNS = (
    profile.Column(decode.Attribute(8, obis.CLOCK, 2)),
    profile.Column(decode.Attribute(3, obis.ENERGY_IMPORT, 2)),
)
SPECS = (
    DlmsSpec("plain", 17),
    DlmsSpec("lls", 17, security="lls", password=b"secret"),
    DlmsSpec("sha256", 17, security="hls-sha256", password=b"secret", system_title=TITLE),
    DlmsSpec("gmac", 17, security="hls-gmac", authentication_key=KEY, encryption_key=KEY, system_title=TITLE),
    DlmsSpec("short", 17, security="lls", password=b"secret", naming="sn"),
    DlmsSpec("blocks", 17, security="lls", password=b"secret", access=True, gbt_window=3),
)
TARGETS: dict[str, Target] = {
    "framer": framer,
    "values": values,
    "apdus": apdus,
    "associations": associations,
    "client_link": client_link,
    "server_link": server_link,
    "ciphering": ciphering,
    "wrapper": wrapper,
    "times": times,
    "sessions": sessions,
    "channels": channels,
    "blocks": blocks,
    "short_names": short_names,
    "general": general,
    "pushes": pushes,
    "openings": openings,
}


def _seeds() -> dict[str, list[bytes]]:
    """Inputs of real shape for each target."""
    attribute = decode.Attribute(3, obis.ENERGY_IMPORT, 2)
    clock = axdr.octet_string(MeterTime(1_700_000_000.0, -60, 0x80).encode())
    row = axdr.structure(clock, axdr.uint32(123456))
    plain = [
        axdr.uint32(1234567),
        axdr.structure(axdr.int8(-2), axdr.enumeration(30)),
        axdr.array([row, axdr.structure(axdr.NULL, axdr.uint32(123460)), axdr.structure(axdr.NULL, axdr.NULL)]),
        axdr.array([column.encode() for column in COLUMNS]),
        axdr.Data(axdr.Tag.BIT_STRING, "1011001"),
        axdr.Data(axdr.Tag.FLOAT32, 1.5),
        axdr.visible_string("meter 17"),
        axdr.Data(axdr.Tag.UTF8_STRING, "Zähler"),
    ]
    encoded = [axdr.encode(value) for value in plain]
    units: list[decode.Apdu] = [
        decode.GetRequest(0xC1, attribute),
        decode.GetRequest(0xC1, attribute, profile.by_entry(1, 10)),
        decode.GetListRequest(0xC1, ((attribute, None), (attribute, None))),
        *(decode.GetResponse(0xC1, value) for value in plain),
        decode.GetBlock(0xC1, False, 1, encoded[2][:20]),
        decode.GetListResponse(0xC1, (plain[0], decode.DataAccessResult.OBJECT_UNDEFINED)),
        decode.SetRequest(0xC1, attribute, None, plain[0]),
        decode.SetFirstBlock(0xC1, attribute, None, False, 1, b"12345"),
        decode.ActionRequest(0xC1, attribute, plain[0]),
        decode.ActionResponse(0xC1, decode.ActionResult.SUCCESS, plain[6]),
        decode.DataNotification(1, b"", plain[2]),
        decode.EventNotification(b"", attribute, plain[0]),
        decode.ExceptionResponse(1, 6, 77),
        decode.ServiceError(1, 0, 1),
        decode.SetListRequest(0xC1, ((attribute, plain[0]), (attribute, plain[6]))),
        decode.SetListResponse(0xC1, (decode.DataAccessResult.SUCCESS, decode.DataAccessResult.TYPE_UNMATCHED)),
        decode.ActionListRequest(0xC1, ((attribute, plain[0]), (attribute, None))),
        decode.ActionListResponse(0xC1, ((decode.ActionResult.SUCCESS, plain[0]), (decode.ActionResult(3), None))),
        decode.ActionNext(0xC1, 1),
        decode.ActionBlock(0xC1, False, 1, b"12345"),
        decode.AccessRequest(0xC0000001, (AccessItem(AccessKind.GET, attribute), *SELECTED)),
        decode.AccessResponse(0xC0000001, ((AccessKind.GET, decode.DataAccessResult.SUCCESS, plain[0]),)),
    ]
    pdus = [unit.encode() for unit in units]
    initiate = acse.InitiateRequest(acse.Conformance(0x5A9F), 1024, KEY).encode()
    accepted = acse.InitiateResponse(acse.Conformance(0x1A9D), 512).encode()
    opening = [
        initiate,
        accepted,
        acse.AssociationRequest(acse.Context.LN, acse.Mechanism.LLS, initiate, None, b"12345678").encode(),
        acse.AssociationRequest(acse.Context.LN_CIPHERED, acse.Mechanism.HLS_GMAC, initiate, TITLE, KEY).encode(),
        acse.AssociationResponse(0, 0, accepted).encode(),
        acse.AssociationResponse(
            0, 14, accepted, acse.Context.LN_CIPHERED, METER_TITLE, acse.Mechanism.HLS_GMAC, KEY
        ).encode(),
        acse.ReleaseRequest().encode(),
        acse.ReleaseResponse(0, accepted).encode(),
    ]
    client, server = CLIENT.encode(), SERVER.encode()
    frames = [
        encode_frame(Frame(client, server, 0x73, Parameters().encode())),
        *(
            encode_frame(Frame(client, server, 0x10 | (n + 1) % 8 << 5 | n % 8 << 1, b"\xe6\xe7\x00" + pdu, n % 5 == 4))
            for n, pdu in enumerate(pdus)
        ),
        encode_frame(Frame(client, server, 0x1F)),
        encode_frame(Frame(client, server, 0x11)),
    ]
    talk = (
        bytes((0x73, 23)) + Parameters().encode() + b"\x30\x09\xe6\xe7\x00" + pdus[3][:6] + b"\x52\x84\xe6\xe7\x00\x01"
    )
    orders = b"\x93\x17" + Parameters().encode() + b"\x10\x09\xe6\xe6\x00" + pdus[0][:6] + b"\x31\x00\x51\x00\x53\x00"
    said = [opening[4], opening[5], pdus[3], pdus[8], decode.GetListResponse(0xC1, (plain[0], clock)).encode()]
    objects = axdr.array(
        [axdr.structure(axdr.int16(256), axdr.uint16(3), axdr.uint8(0), axdr.octet_string(bytes(NAME)))]
    )
    short = [
        ReadRequest((Variable(0xFA08), Variable(264, profile.by_entry(1, 10)), NextBlock(3))),
        ReadResponse((objects, plain[0], decode.DataAccessResult.OBJECT_UNDEFINED)),
        ReadResponse((ValueBlock(False, 1, b"12345"),)),
    ]
    said += [
        acse.AssociationResponse(
            0, 0, acse.InitiateResponse(acse.Conformance(0x100A20), 512, short=True).encode(), acse.Context.SN
        ).encode(),
        short[1].encode(),
        decode.AccessResponse(0xC0000002, ((AccessKind.GET, decode.DataAccessResult.SUCCESS, plain[0]),) * 2).encode(),
    ]
    cut = BlockTransfer(3).load(b"an APDU in general blocks, of some length" * 2, 12)
    script = [bytes((len(one),)) + one for one in said if len(one) < 256]
    return {
        "framer": [*frames, b"".join(frames[:6]), b"\x7e".join(frames[2:5])],
        "values": encoded,
        "apdus": pdus,
        "associations": opening,
        "client_link": [talk, talk * 3],
        "server_link": [orders, orders * 3],
        "ciphering": list(GENUINE),
        "wrapper": [Unit(1, 16, pdu).encode() for pdu in pdus[:6]],
        "times": [MeterTime(1_700_000_000.0, -60, 0).encode() + value for value in encoded],
        "sessions": [script[-1] + script[2], *(script[0] + script[-1] + s for s in script), b"".join(script)],
        "channels": [b"".join(frames[:4]), *frames],
        "blocks": [b"\0" + b"".join(bytes((len(block),)) + block for block in cut), b"\3\x0a\xe0\xc3\0\1\0\1\3abc"],
        "short_names": [unit.encode() for unit in short],
        "general": list(GENERAL),
        "pushes": [
            pdus[PUSHED],
            Unit(1, 16, pdus[PUSHED]).encode(),
            *GENERAL,
            *GENUINE,
            encoded[3],
            frames[PUSHED + 1],
        ],
        "openings": [b"/CHM5\\2CHECKMETER-SIM\r\n\x06252\r\n", b"/ISk5\\2MT382-1000\r\n", b"/?!\r\n"],
    }


def _genuine() -> frozenset[bytes]:
    meter = Ciphering(KEY, KEY, METER_TITLE, iter(range(1, 99)).__next__, TITLE)
    meter.use_dedicated_key(KEY)
    return frozenset(meter.protect(UNIT, form) for form in ("global", "dedicated", "general"))


def _general() -> frozenset[bytes]:
    """What the meter sends in the general forms."""
    sender = PrivateKey.load(b"22" * 32)
    ring = Keyring(1, METER_TITLE, KEY, KEY, KEY, KEY, sender, sender, PEER.public, PEER.public)
    meter = Ciphering(KEY, KEY, METER_TITLE, iter(range(1, 99)).__next__, TITLE, suite=1, keys=ring)
    forms: tuple[KeyForm, ...] = ("unicast", "broadcast", "wrapped", "agreed", "static")
    return frozenset((*(meter.protect_general(UNIT, form, b"\1") for form in forms), sign(ring, UNIT, TITLE)))


UNIT = decode.GetResponse(0xC1, axdr.uint32(1234567)).encode()
NAME = obis.ENERGY_IMPORT
SELECTED = (AccessItem(AccessKind.GET_SELECTED, decode.Attribute(7, NAME, 2), axdr.NULL, profile.by_entry(1, 10)),)
PUSHED = 17  # of the units: the first push
PEER = PrivateKey.load(b"11" * 32)
_METER = PrivateKey.load(b"22" * 32).public
RING = Keyring(1, TITLE, KEY, KEY, KEY, KEY, PEER, PEER, _METER, _METER)
GENERAL = _general()
GENUINE = _genuine()
SEEDS = _seeds()
FUZZER = Fuzzer(
    TARGETS,
    SEEDS,
    bytes((0x00, 0x01, 0x02, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xA0, 0xA8, 0xC4, 0xDB, 0xFF)),
    (RemoteProtocolError,),
)

if __name__ == "__main__":
    raise SystemExit(FUZZER.main(__doc__.splitlines()[0]))
