"""pydlms-client as a peer: its client reads the simulated meter, its simulated meter is read by our driver.

A process of its own under an interpreter that has it (CHECKMETER_PYDLMS, or the one of the tests): it is GPL. What
the two implementations agree on here, nobody has tuned to the other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.meter.rekey import agree, transfer
from firmware_io.dlms.protection.elliptic import PrivateKey
from firmware_io.dlms.protection.general import Keyring, sign
from firmware_io.dlms.protection.security import Ciphering
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.sources import Sources
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import SecurityError
from firmware_io.obis import ObisCode
from firmware_io.simulator.building.scenario import Fault, Simulation
from firmware_io.simulator.line.ports import LineThread, open_port
from firmware_io.spec import BusSpec
from firmware_io.transport import open_transport
from tests.firmware_io.lab import HostClock

PYTHON = os.environ.get("CHECKMETER_PYDLMS") or (sys.executable if importlib.util.find_spec("pydlms") else None)
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="pydlms-client is not installed; CHECKMETER_PYDLMS names an interpreter that has it"
)
SCRIPT = Path(__file__).with_name("pydlms_process.py")
ENERGY = ["get", 3, "1.0.1.8.0.255", 2]
SERIAL = ["get", 1, "0.0.96.1.0.255", 2]
MECHANISMS = {"none": 0, "lls": 1, "hls-aes": 2, "hls-md5": 3, "hls-sha1": 4, "gmac": 5, "hls-sha256": 6, "ecdsa": 7}
FORMS = ["none", "lls", "hls-aes", "hls-md5", "hls-sha1", "hls-sha256", "hls-gmac", "gmac-suite1", "gmac-256"]
FORMS += ["ecdsa-plain", "ecdsa-1", "ecdsa-2"]
PYDLMS_TITLE = bytes.fromhex("5059440000000001")
METER_KEYS = {1: "55" * 32, 2: "55" * 48}


def run(verb: str, arguments: dict) -> list:
    done = subprocess.run(
        [PYTHON, str(SCRIPT), verb, json.dumps(arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def pydlms_meter(**arguments):
    """Their simulated meter on a TCP port."""
    process = subprocess.Popen(
        [PYTHON, str(SCRIPT), "serve", json.dumps(arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield json.loads(process.stdout.readline())["port"]
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@contextmanager
def on_tcp(bench):
    """Our simulated meters on a TCP port."""
    thread = LineThread("line", bench.site.lines["line"], open_port("tcp://127.0.0.1:0", 0, "N"))
    thread.start()
    try:
        yield int(thread.port.name.rsplit(":", 1)[1])
    finally:
        thread.stop()


def suite_of(plan: dict) -> int:
    return plan.get("suite") or (2 if len(plan.get("encryption_key", b"")) == 32 else 0)


def theirs(plan: dict) -> dict:
    """A plan of ours as arguments of their process."""
    kind = plan.get("security", "none").replace("hls-gmac", "gmac").replace("hls-ecdsa", "ecdsa")
    octets = ("encryption_key", "authentication_key", "master_key")
    arguments = {name: plan[name].hex() for name in octets if name in plan}
    if "password" in plan:
        arguments["secret"] = plan["password"].hex()
    return {"mechanism": MECHANISMS[kind], "client": plan.get("client", 16), "suite": suite_of(plan), **arguments}


def client_arguments(plan: dict, port: int) -> dict:
    arguments = theirs(plan) | {"port": port}
    if "system_title" in plan:
        arguments["title"] = plan["system_title"].hex()
    if "signing_key" in plan:
        arguments["signing_key"] = plan["signing_key"].decode()
        arguments["peer_signing_key"] = plan["meter_signing_key"].decode()
    return arguments


@pytest.mark.parametrize("kind", FORMS)
def test_their_client_reads_our_meter(kind, make_bench, secured):
    plan = secured(kind)
    bench = make_bench(framing="wrapper", flats=1, meter=plan)
    with on_tcp(bench) as port:
        listed = ["list", [1, "0.0.96.1.0.255", 2], [3, "1.0.32.7.0.255", 2]]
        found = run("ask", client_arguments(plan, port) | {"steps": [SERIAL, ENERGY, listed]})
    meter = bench.site.meters["flat-1"]
    assert found[0] == meter.serial_number().encode().hex()
    assert found[1] == round(meter.energy_wh(bench.clock.now())[0] / 10)  # its scaler is 1
    assert found[2][0] == found[0]
    assert 2000 < found[2][1] < 2600


OF_THEIRS = [kind for kind in FORMS if kind not in ("gmac-suite1", "gmac-256")]


@pytest.mark.parametrize(("kind", "hdlc"), [*((kind, False) for kind in OF_THEIRS), ("hls-gmac", True)])
def test_our_driver_reads_their_meter(kind, hdlc, secured):
    # Their simulated meter verifies GMAC proofs by suite 0 alone; suites 1 and 2 are tried with signatures.
    plan = secured(kind)
    suite = suite_of(plan) or 1
    arguments = theirs(plan) | {"hdlc": hdlc}
    if kind.startswith("ecdsa"):
        key = METER_KEYS[suite].encode()
        point = PrivateKey.load(plan["signing_key"]).public.point
        arguments |= {"meter_key": key.decode(), "client_point": point.hex()}
        plan |= {"meter_signing_key": PrivateKey.load(key).public.point.hex().encode()}
    with pydlms_meter(**arguments) as port:
        assert_read(DlmsSpec(**plan, id="m", address=1, framing="hdlc" if hdlc else "wrapper"), port)


def assert_read(spec: DlmsSpec, port: int) -> DlmsDriver:
    bus, driver = bus_of(spec, port)
    try:
        readings = {reading.obis: reading.value for reading in bus.poll("m")}
    finally:
        bus.close()
    assert readings[obis.ENERGY_IMPORT] == 12345678
    assert readings[obis.POWER_IMPORT] == 1520
    assert readings[obis.VOLTAGE[0]] == pytest.approx(230.1)
    return driver


def bus_of(spec: DlmsSpec, port: int) -> tuple[Bus, DlmsDriver]:
    line = BusSpec("line", f"tcp://127.0.0.1:{port}")
    driver = DlmsDriver(spec, line, HostClock(), MemoryCounters())
    return Bus(line, [BusMeter("m", driver)], open_transport, HostClock()), driver


# Keys that are changed


@pytest.mark.parametrize("kind", ["gmac-suite1", "ecdsa-1", "ecdsa-2"])
def test_their_client_changes_the_keys_of_our_meter(kind, make_bench, secured):
    plan = secured(kind)
    bench = make_bench(framing="wrapper", flats=1, meter=plan)
    new = bytes(range(0x70, 0x70 + len(plan["encryption_key"])))
    with on_tcp(bench) as port:
        arguments = client_arguments(plan, port)
        assert run("ask", arguments | {"steps": [["transfer", 0, new.hex()]]}) == ["transferred"]
        arguments |= {"encryption_key": new.hex(), "counter": 1}
        found = run("ask", arguments | {"steps": [SERIAL]})
        assert found == [bench.site.meters["flat-1"].serial_number().encode().hex()]
        if kind == "gmac-suite1":
            return
        arguments |= {"counter": 100, "server_title": bench.site.meters["flat-1"].identity.system_title.hex()}
        (agreed,) = run("ask", arguments | {"steps": [["agree", 0]]})
        assert bytes.fromhex(agreed) == bench.site.meters["flat-1"].keys.pending[0]
        assert run("ask", arguments | {"encryption_key": agreed, "counter": 1, "steps": [SERIAL]}) == found


@pytest.mark.parametrize("kind", ["ecdsa-1", "ecdsa-2"])
def test_our_client_agrees_with_our_meter_as_theirs_does(kind, make_bench, secured):
    bench = make_bench(flats=1, meter=secured(kind))
    session, spec = bench.session("flat-1"), bench.meters[1]
    agreed = agree(session, spec, ["encryption", "authentication"])
    keys = bench.site.meters["flat-1"].keys
    assert keys.pending == {0: agreed["encryption"], 2: agreed["authentication"]}
    session.release()
    bench.drivers["flat-1"].take_spec(
        replace(spec, encryption_key=agreed["encryption"], authentication_key=agreed["authentication"])
    )
    assert bench.bus.poll("flat-1")
    transfer(bench.session("flat-1"), spec, {"broadcast": bytes(len(agreed["encryption"]))})
    assert keys.pending[1] == bytes(len(agreed["encryption"]))


# general-ciphering and general-signing

PUSH = bytes.fromhex("0f0000000100" + "020106000003e8")


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("sender", ["they", "we"])
def test_general_apdus_of_each_side_are_opened_by_the_other(suite, sender):
    ours, peer = b"CHK\x00\x00\x00\x00\x01", b"PYD\x00\x00\x00\x00\x01"
    size = 16 if suite == 1 else 32
    octets = {name: bytes([n]) * size for n, name in enumerate(("unicast", "broadcast", "master", "authentication"), 1)}
    names = {"unicast": "encryption_key", "broadcast": "broadcast_key", "master": "master_key"}
    names |= {"authentication": "authentication_key"}
    points = 32 * suite if suite == 1 else 48
    secret = {who: f"{n:02x}" * points for n, who in enumerate(("us", "them"), 0x21)}
    private = {who: PrivateKey.load(text.encode()) for who, text in secret.items()}
    forms = ["unicast", "broadcast", "wrapped", "agreed", "static"]
    arguments = {names[name]: key.hex() for name, key in octets.items()}
    arguments |= {"title": peer.hex(), "server_title": ours.hex(), "recipient": ours.hex(), "plain": PUSH.hex()}
    arguments |= {
        "suite": suite,
        "signing_key": secret["them"],
        "agreement_key": secret["them"],
        "forms": [*forms, "signed"],
    }
    arguments |= {key: private["us"].public.point.hex() for key in ("peer_signing_key", "peer_agreement_key")}
    keys = Keyring(
        suite,
        ours,
        **octets,
        signing=private["us"],
        agreement=private["us"],
        peer_signing=private["them"].public,
        peer_agreement=private["them"].public,
    )
    counter = iter(range(1, 99))
    ciphering = Ciphering(
        octets["unicast"], octets["authentication"], ours, lambda: next(counter), peer, suite=suite, keys=keys
    )
    if sender == "we":
        apdus = [ciphering.protect_general(PUSH, form, b"\x01").hex() for form in forms] + [
            sign(keys, PUSH, peer).hex()
        ]
        assert run("open", arguments | {"apdus": apdus}) == [PUSH.hex()] * 6
        return
    *ciphered, signed = map(bytes.fromhex, run("make", arguments))
    assert [ciphering.open(apdu) for apdu in ciphered] == [PUSH] * 5
    for apdu in ciphered:
        with pytest.raises(SecurityError, match="replay"):
            ciphering.open(apdu)
    with pytest.raises(SecurityError, match="plain APDU"):  # signed is not enough where all is ciphered
        ciphering.open(signed)
    for apdu in (*ciphered, signed):
        for at in range(1, len(apdu), 7):
            with pytest.raises(SecurityError):
                ciphering.open(apdu[:at] + bytes((apdu[at] ^ 1,)) + apdu[at + 1 :])


# Application layer


def test_their_client_takes_our_compact_data_apart(make_bench):
    bench = make_bench(framing="wrapper", flats=1)
    with on_tcp(bench) as port:
        (cells,) = run("ask", {"port": port, "client": 16, "steps": [["compact", "0.0.66.0.1.255"]]})
    meter = bench.site.meters["flat-1"]
    assert cells[:2] == [meter.serial_number().encode().hex(), round(meter.energy_wh(bench.clock.now())[0] / 10)]


def test_our_driver_reads_their_compact_data():
    spec = DlmsSpec("m", 1, framing="wrapper", sources=Sources(compact=ObisCode(0, 0, 66, 0, 1)))
    with pydlms_meter(client=16) as port:
        bus, driver = bus_of(spec, port)
        readings = bus.poll("m")
        bus.close()
    assert [(r.obis, r.value) for r in readings] == [(obis.ENERGY_IMPORT, 12345678)]
    assert driver.identity is not None
    assert driver.identity.unreadable == ()


@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
def test_their_client_uses_access_and_general_blocks_with_our_meter(kind, make_bench, secured):
    plan = secured(kind)
    small = Simulation(seed=5, history_days=8, installed="-60d", fault=[Fault(kind="small_pdu", amount=160)])
    bench = make_bench(small, framing="wrapper", flats=1, meter=plan | {"gbt_window": 4})
    items = [[1, "0.0.96.1.0.255", 2], [3, "1.0.1.8.0.255", 2], [3, "1.0.9.9.9.255", 2]]
    options = {"propose_access": True, "propose_gbt": True, "gbt_window": 3}
    with on_tcp(bench) as port:
        steps = [["access", *items], ["access", *items * 6], ["get", 15, "0.0.40.0.0.255", 2]]
        found = run("ask", client_arguments(plan, port) | options | {"steps": steps})
    meter = bench.site.meters["flat-1"]
    three = [meter.serial_number().encode().hex(), round(meter.energy_wh(bench.clock.now())[0] / 10), None]
    assert found[:2] == [three, three * 6]  # the second request and its answer fit into no PDU
    assert len(found[2]) > 20


@pytest.mark.parametrize("lose", [[], [2, 5]])
def test_our_driver_uses_access_and_general_blocks_with_their_meter(lose):
    spec = DlmsSpec("m", 1, framing="wrapper", access=True, gbt_window=4, max_pdu=128)
    with pydlms_meter(client=16, gbt=True, window=2, lose=lose, max_pdu=128) as port:
        bus, _ = bus_of(spec, port)
        readings = {reading.obis: reading.value for reading in bus.poll("m")}
        assert readings[obis.ENERGY_IMPORT] == 12345678
        rows = bus.use("m", lambda driver, line: driver.session(line).get(Attribute(7, obis.LOAD_PROFILE, 2)))
        bus.close()
    assert len(rows.value) == 96


@pytest.mark.parametrize("kind", ["none", "hls-gmac"])
def test_short_names_with_their_client_and_their_meter(kind, make_bench, secured):
    plan = secured(kind) | {"naming": "sn"}
    bench = make_bench(framing="wrapper", flats=1, meter=plan)
    with on_tcp(bench) as port:
        found = run("ask", client_arguments(plan, port) | {"logical_names": False, "steps": [SERIAL, ENERGY]})
    meter = bench.site.meters["flat-1"]
    assert found == [meter.serial_number().encode().hex(), round(meter.energy_wh(bench.clock.now())[0] / 10)]
    with pydlms_meter(**theirs(plan)) as port:
        assert_read(DlmsSpec(**plan, id="m", address=1, framing="wrapper"), port)
