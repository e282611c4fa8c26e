"""What reading meters costs: time on the wire, CPU for each exchange, codec operations beside the two peers.

    python tests/system/bench/bench_dlms.py [--short] [--json]

The poll cycle runs against `checkmeter simulate` in a process of its own over a paced pseudo-terminal. Codec times
are CPU time, the best of several runs, all in one process, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.process.clock import SystemClock
from firmware_io.bus import Bus, BusMeter
from firmware_io.clock import Clock
from firmware_io.dlms.apdu import acse, axdr, decode
from firmware_io.dlms.apdu.decode import Attribute, GetRequest, GetResponse
from firmware_io.dlms.hdlc.framer import Address, Frame, Framer, encode_frame, frame_octets
from firmware_io.dlms.hdlc.link import Parameters, Received, ServerLink
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.channel import open_channel
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.obis import ENERGY_IMPORT
from firmware_io.simulator.building.building import ZonePlan
from firmware_io.simulator.building.scenario import Simulation
from firmware_io.simulator.line.bus import LineClock, NullModem
from firmware_io.simulator.site import SimulatedMeterPlan, SimulatedSite
from firmware_io.spec import BusSpec
from firmware_io.transport import open_transport

METERS = 32
TURNAROUND_S = 0.02
START_S = 1_772_409_600.0  # 2026-03-02 00:00 UTC
FIRST_ADDRESS = 16
GOALS = {9600: 0.97, 115200: 0.90}
EK, AK = bytes(range(16)), bytes(range(0xD0, 0xE0))
CLIENT_TITLE, METER_TITLE = b"CHK\x00\x00\x00\x00\x01", b"CHM\x00\x00\x00\x00\x02"


# Poll cycle


@contextlib.contextmanager
def simulated(baud: int, folder: Path) -> Iterator[Path]:
    """A line of METERS simulated meters; yields its port."""
    port = folder / f"line-{baud}"
    meters = "".join(f'[[meter]]\nid = "m{n}"\nbus = "line"\naddress = {FIRST_ADDRESS + n}\n' for n in range(METERS))
    subs = ", ".join(f'"m{n}"' for n in range(1, METERS))
    site = folder / f"site-{baud}.toml"
    site.write_text(
        f'[site]\nsite = "bench"\ngateway = "bench"\n[[bus]]\nid = "line"\nport = "{port}"\nbaud = {baud}\n{meters}'
        f'[[zone]]\nid = "z"\nmain = "m0"\nsubs = [{subs}]\n'
        f"[simulation]\nseed = 1\nhistory_days = 2\nturnaround_s = {TURNAROUND_S}\n"
    )
    simulator = subprocess.Popen(
        [sys.executable, "-m", "agent.cli.main", "simulate", str(site), "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert simulator.stdout is not None
        if not json.loads(simulator.stdout.readline() or "{}").get("ready"):
            raise SystemExit("the simulator does not start")
        yield port
    finally:
        simulator.send_signal(signal.SIGTERM)
        simulator.wait(10)


def driven(spec: BusSpec, meters: list[DlmsSpec], clock: Clock) -> list[BusMeter]:
    """Meters with their drivers; the first is the main meter."""
    counters = MemoryCounters()
    return [BusMeter(m.id, DlmsDriver(m, spec, clock, counters), m is meters[0]) for m in meters]


def traffic_of(bus: Bus) -> tuple[int, int]:
    """Octets both ways and exchanges so far."""
    traffic = [s.traffic for s in bus.statistics().values()]
    return sum(t.sent_octets + t.received_octets for t in traffic), sum(t.exchanges for t in traffic)


def cycle(bus: Bus) -> int:
    """One poll cycle; how many polls failed."""
    return sum(poll.error is not None for poll in bus.poll_cycle())


def poll_cycles(baud: int, cycles: int) -> dict[str, float]:
    """Wire time and turnarounds of some cycles over the time they took; CPU time for each exchange."""
    with tempfile.TemporaryDirectory() as folder, simulated(baud, Path(folder)) as port:
        spec = BusSpec("line", str(port), baud=baud, timeout_s=1.0)
        meters = [DlmsSpec(f"m{n}", FIRST_ADDRESS + n) for n in range(METERS)]
        bus = Bus(spec, driven(spec, meters, SystemClock()), open_transport, SystemClock())
        cycle(bus)  # associates
        octets, exchanges = traffic_of(bus)
        started, cpu = time.monotonic(), time.process_time()
        failed = sum(cycle(bus) for _ in range(cycles))
        took_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
        octets_now, exchanges_now = traffic_of(bus)
        octets, exchanges = octets_now - octets, exchanges_now - exchanges
        wire_s = octets * 10 / baud + exchanges * TURNAROUND_S
        bus.close()
        return {
            "baud": baud,
            "cycle_s": took_s / cycles,
            "wire_and_turnaround_s": wire_s / cycles,
            "efficiency": wire_s / took_s,
            "goal": GOALS[baud],
            "exchanges": exchanges / cycles,
            "octets": octets / cycles,
            "failed": failed,
            "cpu_us_per_exchange": 1e6 * cpu_s / exchanges,
        }


def dead_meter(baud: int, seconds: float = 7200.0) -> dict[str, float]:
    """What one silent meter of METERS costs: the time of its probes over all, in so much of the line's time.

    The share of the first minute is told beside it: probes are dense then, because most disturbances are short.

    In the line's own time, which is exact and does not wait: octets, turnarounds and time-outs.
    """
    clock = LineClock(START_S)
    spec = BusSpec("line", "/dev/null-modem", baud=baud)
    meters = [DlmsSpec(f"m{n}", FIRST_ADDRESS + n) for n in range(METERS - 1)]
    plans = [SimulatedMeterPlan(meter, "line") for meter in meters]
    simulation = Simulation(seed=1, history_days=2, turnaround_s=TURNAROUND_S)
    zones = [ZonePlan("m0", tuple(meter.id for meter in meters[1:]))]
    site = SimulatedSite(simulation, [spec], plans, zones, clock, start_s=START_S)
    line = NullModem(site.lines["line"], clock.move)
    everybody = [*meters, DlmsSpec("dead", FIRST_ADDRESS + METERS)]
    bus = Bus(spec, driven(spec, everybody, clock), lambda _: line, clock)
    for _ in range(2):
        cycle(bus)  # associates, and finds the dead one dead
    began_s = before_s = clock.elapsed_s
    probe_s, seen, first_minute = 0.0, 0, 0.0
    while clock.elapsed_s - began_s < seconds:
        for poll in bus.poll_cycle():
            if poll.meter == "dead":
                probe_s += clock.elapsed_s - before_s
                seen += 1
            before_s = clock.elapsed_s
        if not first_minute and clock.elapsed_s - began_s >= 60:
            first_minute = probe_s / (clock.elapsed_s - began_s)
    share = probe_s / (clock.elapsed_s - began_s)
    return {"baud": baud, "share": share, "first_minute": first_minute, "probes": seen, "seconds": seconds}


# Codec


def best_us(operation: Callable[[], object], number: int) -> float:
    """CPU time of an operation, microseconds: the best of several runs."""
    operation()
    return min(timeit.repeat(operation, timer=time.process_time, number=number, repeat=5)) / number * 1e6


class BenchMeter:
    """A meter with GMAC security behind one HDLC link: octets in, octets out. The same for all three clients."""

    challenge = b"sixteen octets!!"

    def __init__(self) -> None:
        self._link = ServerLink(Address.server(1, 17), Address.client(16), Parameters(512, 512, 1, 1))
        self._framer = Framer()
        self._ciphering = Ciphering(EK, AK, METER_TITLE, iter(range(1, 1 << 31)).__next__, CLIENT_TITLE)
        self._client_challenge = b""
        self._held = b""

    def answer(self, octets: bytes) -> bytes:
        for frame in self._framer.receive(bytes(octets)):
            for event in self._link.handle(frame):
                if isinstance(event, Received):
                    self._link.send(self._unit(event.pdu))
        return self._link.take()

    def _unit(self, pdu: bytes) -> bytes:
        if pdu[0] == 0x60:
            request = acse.AssociationRequest.decode(pdu)
            self._client_challenge = request.authentication or b""
            self._ciphering.form = "general" if request.user_information[0] == 0xDB else "global"
            self._ciphering.open(request.user_information)
            granted = acse.InitiateResponse(acse.Conformance(0x7E1F), 512).encode()
            return acse.AssociationResponse(
                0,
                14,
                self._ciphering.protect(granted, "global"),
                acse.Context.LN_CIPHERED,
                METER_TITLE,
                acse.Mechanism.HLS_GMAC,
                self.challenge,
            ).encode()
        if pdu[0] == 0xDB:
            self._ciphering.form = "general"
        asked = decode.decode(self._ciphering.open(pdu))
        if isinstance(asked, decode.ActionRequest):
            assert asked.parameters is not None
            self._ciphering.verify(asked.parameters.value, self.challenge)
            proof = axdr.octet_string(self._ciphering.prove(self._client_challenge))
            return self._ciphering.protect(
                decode.ActionResponse(asked.invoke, decode.ActionResult.SUCCESS, proof).encode()
            )
        assert isinstance(asked, GetRequest)
        return self._ciphering.protect(GetResponse(asked.invoke, axdr.uint32(1234567)).encode())

    # As our transport, and as the IO of dlms-cosem

    def write(self, octets: bytes) -> None:
        self._held += self.answer(octets)

    def read(self, max_octets: int, deadline: float) -> bytes:
        held, self._held = self._held, b""
        return held

    def monotonic(self) -> float:
        return 0.0

    def close(self) -> None: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...

    send = write

    def recv(self, amount: int = 1) -> bytes:
        taken, self._held = self._held[:amount], self._held[amount:]
        return taken

    def recv_until(self, end: bytes) -> bytes:
        return self.recv(self._held.index(end) + len(end))


def ours() -> dict[str, Callable[[], object]]:
    framer = Framer()
    server, client = Address.server(1, 17).encode(), Address.client(16).encode()
    reply = GetResponse(0xC1, axdr.uint32(1234567)).encode()
    frame = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00" + reply))
    attribute = Attribute(3, ENERGY_IMPORT, 2)

    def parse() -> object:
        [received] = framer.receive(frame)
        return decode.decode(received.information[3:]).result.value

    def encode() -> bytes:
        return frame_octets(server, client, 0x32, b"\xe6\xe6\x00" + GetRequest(0xC1, attribute).encode(), False)

    assert parse() == 1234567
    counters = iter(range(1, 1 << 31))
    ours_ = Ciphering(EK, AK, CLIENT_TITLE, lambda: next(counters), METER_TITLE)
    meters = Ciphering(EK, AK, METER_TITLE, lambda: next(counters), CLIENT_TITLE)
    sealed = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00" + meters.protect(reply)))

    def ciphered() -> object:
        frame_octets(server, client, 0x32, b"\xe6\xe6\x00" + ours_.protect(GetRequest(0xC1, attribute).encode()), False)
        [received] = framer.receive(sealed)
        ours_.peer_counter = -1  # the same reply again and again
        return decode.decode(ours_.open(received.information[3:])).result.value

    spec = DlmsSpec("m", 17, security="hls-gmac", authentication_key=AK, encryption_key=EK, system_title=CLIENT_TITLE)

    def association() -> object:
        channel = open_channel(BenchMeter(), BusSpec("line", "/dev/null"), spec)
        session = Session(spec, channel, MemoryCounters())
        session.connect()
        return session.get(attribute).value

    return {"parse": parse, "encode": encode, "ciphered": ciphered, "association": association}


def gurux() -> dict[str, Callable[[], object]]:
    from gurux_dlms import GXByteBuffer, GXDLMSClient, GXReplyData
    from gurux_dlms.enums import Authentication, InterfaceType, Security
    from gurux_dlms.GXDLMSSettings import GXDLMSSettings
    from gurux_dlms.objects import GXDLMSRegister
    from gurux_dlms.secure import GXDLMSSecureClient

    following = (GXDLMSSettings.increaseReceiverSequence, GXDLMSSettings.increaseSendSequence)
    before = next(n for n in range(0, 256, 2) if following[0](following[1](n)) == 0x30)  # so that 0x30 is due
    plain = GXDLMSClient(True, 16, (1 << 7) | 17, Authentication.NONE, None, InterfaceType.HDLC)
    register = GXDLMSRegister("1.0.1.8.0.255")
    server, client = Address.server(1, 17).encode(), Address.client(16).encode()
    reply = GetResponse(0xC1, axdr.uint32(1234567)).encode()
    frame = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00" + reply))

    def parse() -> object:
        plain.settings.receiverFrame = before
        data = GXReplyData()
        plain.getData(GXByteBuffer(frame), data, None)
        return plain.updateValue(register, 2, data.value)

    def encode() -> object:
        return plain.read(register, 2)

    secure = GXDLMSSecureClient(True, 16, (1 << 7) | 17, Authentication.HIGH_GMAC, None, InterfaceType.HDLC)
    secure.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
    secure.ciphering.blockCipherKey, secure.ciphering.authenticationKey = EK, AK
    secure.ciphering.systemTitle = CLIENT_TITLE
    secure.settings.sourceSystemTitle = METER_TITLE
    secure.settings.connected = 3
    counters = iter(range(1, 1 << 31))
    meters = Ciphering(EK, AK, METER_TITLE, lambda: next(counters), CLIENT_TITLE)
    sealed = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00" + meters.protect(reply)))

    def ciphered() -> object:
        with contextlib.redirect_stdout(io.StringIO()):
            secure.read(register, 2)
            secure.settings.receiverFrame = before
            data = GXReplyData()
            secure.getData(GXByteBuffer(sealed), data, None)
        return data.value

    def association() -> object:
        one = GXDLMSSecureClient(True, 16, (1 << 7) | 17, Authentication.HIGH_GMAC, None, InterfaceType.HDLC)
        one.ciphering.security = Security.AUTHENTICATION_ENCRYPTION
        one.ciphering.blockCipherKey, one.ciphering.authenticationKey = EK, AK
        one.ciphering.systemTitle = CLIENT_TITLE
        one.ciphering.invocationCounter = 1
        meter = BenchMeter()

        def exchange(request: bytes) -> GXReplyData:
            data = GXReplyData()
            one.getData(GXByteBuffer(meter.answer(request)), data, None)
            return data

        with contextlib.redirect_stdout(io.StringIO()):
            one.parseUAResponse(exchange(one.snrmRequest()).data)
            one.parseAareResponse(exchange(one.aarqRequest()[0]).data)
            one.parseApplicationAssociationResponse(exchange(one.getApplicationAssociationRequest()[0]).data)
            return exchange(one.read(register, 2)[0]).value

    return {"parse": parse, "encode": encode, "ciphered": ciphered, "association": association}


def cosem() -> dict[str, Callable[[], object]]:
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    from dlms_cosem import cosem as cosem_objects
    from dlms_cosem import enumerations
    from dlms_cosem.client import DlmsClient
    from dlms_cosem.hdlc.address import HdlcAddress
    from dlms_cosem.hdlc.frames import InformationFrame
    from dlms_cosem.io import HdlcTransport
    from dlms_cosem.protocol.xdlms import GetRequestNormal, GetResponseFactory
    from dlms_cosem.security import HighLevelSecurityGmacAuthentication, SecurityControlField, decrypt, encrypt
    from dlms_cosem.utils import parse_as_dlms_data

    server, client = Address.server(1, 17).encode(), Address.client(16).encode()
    reply = GetResponse(0xC1, axdr.uint32(1234567)).encode()
    frame = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00" + reply))
    to, by = HdlcAddress(1, 17, "server"), HdlcAddress(16, None, "client")
    attribute = cosem_objects.CosemAttribute(
        enumerations.CosemInterface.REGISTER, cosem_objects.Obis.from_string("1.0.1.8.0.255"), 2
    )

    control = SecurityControlField(0, authenticated=True, encrypted=True)
    body = b"\x30\x00\x00\x00\x07" + encrypt(control, METER_TITLE, 7, EK, reply, AK)
    sealed_frame = encode_frame(Frame(client, server, 0x30, b"\xe6\xe7\x00\xcc" + bytes((len(body),)) + body))

    def information(payload: bytes) -> InformationFrame:
        return InformationFrame(to, by, payload, send_sequence_number=1, receive_sequence_number=1)

    def parse() -> object:
        received = InformationFrame.from_bytes(frame)
        return parse_as_dlms_data(GetResponseFactory.from_bytes(received.payload[3:]).data)

    def encode() -> object:
        request = GetRequestNormal(cosem_attribute=attribute).to_bytes()
        return information(b"\xe6\xe6\x00" + request).to_bytes()

    counters = iter(range(1, 1 << 31))

    def ciphered() -> object:
        request = GetRequestNormal(cosem_attribute=attribute).to_bytes()
        sealed = encrypt(control, CLIENT_TITLE, next(counters), EK, request, AK)
        information(b"\xe6\xe6\x00\xc8" + sealed).to_bytes()
        received = InformationFrame.from_bytes(sealed_frame)
        plain = decrypt(control, METER_TITLE, 7, EK, received.payload[10:], AK)  # LLC, tag, length, control, counter
        return parse_as_dlms_data(GetResponseFactory.from_bytes(bytes(plain)).data)

    def association() -> object:
        transport = HdlcTransport(
            client_logical_address=16, server_logical_address=1, server_physical_address=17, io=BenchMeter()
        )
        one = DlmsClient(
            transport=transport,
            authentication=HighLevelSecurityGmacAuthentication(challenge_length=16),
            encryption_key=EK,
            authentication_key=AK,
            client_system_title=CLIENT_TITLE,
            client_initial_invocation_counter=1,
        )
        try:
            one.connect()
            one.associate()
            return parse_as_dlms_data(one.get(attribute))
        except ValueError:  # it loses a frame whose check sequence ends in a flag, one in 256
            return association()

    return {"parse": parse, "encode": encode, "ciphered": ciphered, "association": association}


def codec(number: int) -> dict[str, dict[str, float]]:
    """Microseconds by operation and implementation."""
    table: dict[str, dict[str, float]] = {}
    for name, build in (("checkmeter", ours), ("gurux-dlms", gurux), ("dlms-cosem", cosem)):
        for operation, run in build().items():
            if operation != "encode" and run() != 1234567:
                raise SystemExit(f"{name} does not read the value in {operation}: there is nothing to compare")
            runs = number if name == "checkmeter" else max(50, number // 40)
            if operation == "association":  # with the meter's side in it, which is ours for all of them
                runs //= 20
            table.setdefault(operation, {})[name] = best_us(run, runs)
    return table


def main() -> None:
    """Run all and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--short", action="store_true", help="codec only")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    results: dict[str, object] = {"codec_us": (table := codec(20_000))}
    if not options.json:
        print(f"{'CPU us per operation':24}{'checkmeter':>12}{'gurux-dlms':>12}{'dlms-cosem':>12}{'gurux/ours':>12}")
        for operation, by in table.items():
            row = "".join(f"{by[name]:12.2f}" for name in ("checkmeter", "gurux-dlms", "dlms-cosem"))
            print(f"{operation:24}{row}{by['gurux-dlms'] / by['checkmeter']:11.0f}x")
    if not options.short:
        lines = [poll_cycles(9600, 2), poll_cycles(115200, 8)]
        dead = dead_meter(9600)
        results |= {"poll_cycles": lines, "dead_meter": dead}
        if not options.json:
            for line in lines:
                print(
                    f"{METERS} meters at {line['baud']} Bd: {line['cycle_s']:.3f} s a cycle, wire and turnaround "
                    f"{line['wire_and_turnaround_s']:.3f} s: efficiency {line['efficiency']:.3f}, goal {line['goal']}; "
                    f"{line['exchanges']:.0f} exchanges of {line['cpu_us_per_exchange']:.0f} us CPU, "
                    f"{line['failed']} failed"
                )
            print(
                f"one dead meter of {METERS}: {100 * dead['share']:.2f} % of {dead['seconds'] / 3600:.0f} h of the "
                f"line ({dead['probes']:.0f} probes), {100 * dead['first_minute']:.1f} % of the first minute"
            )
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
