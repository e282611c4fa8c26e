"""Simulated meters where they can be plugged in: pseudo-terminals, TCP, and the command that runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from firmware_io import obis
from firmware_io.bus import Bus, BusMeter
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import MemoryCounters
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import TransportError
from firmware_io.simulator.line.ports import open_port
from firmware_io.spec import BusSpec
from firmware_io.transport import Serial, open_transport
from tests.firmware_io.lab import HostClock

SITE = """
[site]
site = "test"
gateway = "gw"
timezone = "Europe/Berlin"
[[bus]]
id = "line"
port = "{port}"
framing = "{framing}"
baud = 115200
[[meter]]
id = "main"
bus = "line"
address = 16
accuracy_class = 0.5
[[meter]]
id = "flat-1"
bus = "line"
address = 17
[[meter]]
id = "flat-2"
bus = "line"
address = 18
[[zone]]
id = "house"
main = "main"
subs = ["flat-1", "flat-2"]
[simulation]
seed = 3
history_days = 2
installed = "-10d"
turnaround_s = 0.002
"""


@pytest.fixture
def site_file(tmp_path):
    def write(port: str, framing: str = "hdlc", more: str = "") -> Path:
        path = tmp_path / "site.toml"
        path.write_text(SITE.format(port=port, framing=framing) + more)
        return path

    return write


@pytest.fixture
def simulate():
    """Start `checkmeter simulate` and wait until it says that it is ready."""
    started = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], dict]:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli.main", "simulate", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> str:
    """An address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def bus_of(spec: BusSpec, meters: list[DlmsSpec]) -> Bus:
    counters = MemoryCounters()
    drivers = [BusMeter(m.id, DlmsDriver(m, spec, HostClock(), counters), m.id == "main") for m in meters]
    return Bus(spec, drivers, open_transport, HostClock())


def read_all(port: str, framing: str = "hdlc") -> dict[str, dict]:
    """One cycle over the three meters."""
    meters = [DlmsSpec(n, 16 + k, framing=framing) for k, n in enumerate(("main", "flat-1", "flat-2"))]
    bus = bus_of(BusSpec("line", port, baud=115200), meters)
    try:
        polls = list(bus.poll_cycle())
    finally:
        bus.close()
    assert not [p.error for p in polls if p.error]
    return {p.meter: {r.obis: r.value for r in p.readings} for p in polls}


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(10)


def test_a_pseudo_terminal_at_the_ports_path(site_file, simulate, tmp_path):
    port = tmp_path / "dev" / "rs485"
    process, ready = simulate(str(site_file(str(port))), "--start", "2026-03-02T00:00:00Z", "--speed", "60")
    assert ready["ports"] == {"line": str(port)}
    assert ready["start_s"] == 1772409600.0
    assert ready["speed"] == 60.0
    assert abs(ready["wall_origin_s"] - time.time()) < 60
    first = read_all(str(port))
    assert set(first) == {"main", "flat-1", "flat-2"}
    assert first["main"][obis.ENERGY_IMPORT] > first["flat-1"][obis.ENERGY_IMPORT] > 0
    second = read_all(str(port))  # a second client after the first has gone
    assert second["main"][obis.ENERGY_IMPORT] >= first["main"][obis.ENERGY_IMPORT]
    assert stop(process) == 0
    assert not port.is_symlink()


@pytest.mark.parametrize("framing", ["hdlc", "wrapper"])
def test_tcp(framing, site_file, simulate):
    process, ready = simulate(str(site_file(free_port(), framing)))
    port = ready["ports"]["line"]
    assert read_all(port, framing)["flat-2"][obis.ENERGY_IMPORT] > 0
    host, number = port.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(number))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" * 4)
        assert read_all(port, framing)["flat-2"]
    assert stop(process, signal.SIGINT) == 0


def test_links_in_a_folder_of_ones_choice(site_file, simulate, tmp_path):
    process, ready = simulate(str(site_file("/dev/ttyUSB7")), "--port-link", str(tmp_path / "links"))
    assert ready["ports"] == {"line": str(tmp_path / "links" / "line")}
    assert read_all(ready["ports"]["line"])
    assert stop(process) == 0


def test_a_simulator_that_was_killed_leaves_nothing_in_the_way(site_file, simulate, tmp_path):
    port = tmp_path / "rs485"
    site = str(site_file(str(port)))
    process, ready = simulate(site, "--start", "2026-03-02T00:00:00Z")
    before = read_all(str(port))
    process.kill()
    process.wait()
    assert port.is_symlink()
    again, ready_again = simulate(site, "--start", "2026-03-02T00:00:00Z", "--origin", str(ready["wall_origin_s"]))
    assert ready_again["wall_origin_s"] == ready["wall_origin_s"]
    after = read_all(str(port))
    for meter, values in before.items():  # the same registers, a little later
        assert 0 <= after[meter][obis.ENERGY_IMPORT] - values[obis.ENERGY_IMPORT] <= 500
    assert stop(again) == 0


def test_two_simulators_on_one_port(site_file, simulate):
    process, ready = simulate(str(site_file(free_port())))
    taken = ready["ports"]["line"]
    outcome = CliRunner().invoke(cli, ["simulate", str(site_file(taken))])
    assert outcome.exit_code == 69
    assert f"cannot listen on {taken}" in outcome.output
    assert stop(process) == 0


def test_a_file_in_the_way_is_not_overwritten(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(TransportError, match="in the way"):
        open_port(str(path), 9600, "N")
    assert path.read_text() == "data"
    with pytest.raises(TransportError, match="cannot make"):
        open_port("/proc/no/such/place", 9600, "N")


def test_more_octets_than_a_terminal_holds(tmp_path):
    port = open_port(str(tmp_path / "rs485"), 115200, "N")
    octets = bytes(range(256)) * 64
    client = Serial(port.name, 115200)
    got = bytearray()

    def read():
        while len(got) < len(octets):
            got.extend(client.read(4096, time.monotonic() + 2) or b"\xff" * len(octets))

    reader = threading.Thread(target=read)
    try:
        reader.start()
        port.write(None, octets)
        reader.join(5)
        assert bytes(got) == octets
        port.write(None, octets)  # nobody reads: the rest is lost, and nothing hangs
    finally:
        client.close()
        port.close()


def test_a_client_that_never_reads_is_hung_up():
    port = open_port(free_port(), 9600, "N")
    host, number = port.name.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(number))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deadline = time.monotonic() + 5
        while len(port.sources()) < 2 and time.monotonic() < deadline:
            port.read(port.sources()[0])
        connection = port.sources()[1]
        port.write(connection, bytes(50_000_000))
        assert port.read(connection) == (connection, b"")
    port.close()


def test_a_wrong_baud_rate_is_not_understood(tmp_path):
    port = open_port(str(tmp_path / "rs485"), 19200, "N")
    try:
        for baud, heard in ((9600, bytes(5)), (19200, b"hello")):
            client = Serial(port.name, baud)
            client.write(b"hello")
            assert port.read(port.sources()[0]) == (None, heard)
            client.close()
    finally:
        port.close()


def test_a_real_port_is_opened(tmp_path):
    master, slave = os.openpty()
    try:
        port = open_port(os.ttyname(slave), 9600, "N")
        port.write(None, b"hello")
        assert os.read(master, 5) == b"hello"
        os.write(master, b"there")
        assert port.read(port.sources()[0]) == (None, b"there")
        port.close()
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("spead = 2", 'unknown key "spead"; did you mean "speed"?'),
        ("speed = 0", "speed: expected a number above 0"),
        ('[[simulation.theft]]\nkind = "bypas"\nmeter = "flat-1"', 'did you mean "bypass"?'),
        (
            '[[simulation.theft]]\nkind = "bypass"\nmeter = "flat-9"',
            '"flat-9" is none of the sub-meters: flat-1, flat-2',
        ),
        ('[[simulation.theft]]\nkind = "bypass"\nmeter = "main"', '"main" is none of the sub-meters'),
        ('[[simulation.theft]]\nkind = "tap"\nonset = "soon"', 'onset = "soon" is not a time'),
        ('[[simulation.fault]]\nkind = "silense"', 'did you mean "silence"?'),
        ('[[simulation.fault]]\nkind = "late"\nprobability = 2.0', "probability: expected above 0, up to 1"),
        ('[[simulation.fault]]\nkind = "late"\nmeter = "flat-9"', '"flat-9" is no meter of the site'),
        ('loads = "nowhere.csv"', "nowhere.csv"),
    ],
)
def test_a_wrong_simulation_table_is_one_message(more, message, site_file):
    outcome = CliRunner().invoke(cli, ["simulate", str(site_file(free_port(), more=more))])
    assert outcome.exit_code == 78, outcome.output
    assert message in outcome.output
    assert "Traceback" not in outcome.output


def test_loads_from_a_csv_beside_the_site_file(site_file, simulate, tmp_path):
    week_s = 7 * 86_400
    start = 1772409600 // week_s * week_s - week_s
    rows = [f"{start + 1800 * k},0.5,0.0" for k in range(3 * 336)]
    (tmp_path / "loads.csv").write_text("\n".join(["time,flat-1,flat-2", *rows]) + "\n")
    process, ready = simulate(
        str(site_file(free_port(), more='loads = "loads.csv"')), "--start", "2026-03-02T00:00:00Z"
    )
    values = read_all(ready["ports"]["line"])
    assert values["flat-1"][obis.POWER_IMPORT] == pytest.approx(1000, rel=0.011)
    assert values["flat-2"][obis.POWER_IMPORT] == 0
    assert stop(process) == 0


def test_meters_with_secrets(simulate, tmp_path):
    for name, text in (("lls", "open sesame"), ("ek", "00" * 16), ("ak", "d0" * 16)):
        (tmp_path / name).write_text(text + "\n")
    port = free_port()
    site = SITE.format(port=port, framing="hdlc")
    site = site.replace("address = 17\n", 'address = 17\nclient = 2\nsecurity = "lls"\npassword = "./lls"\n')
    gmac = 'client = 1\nsecurity = "hls-gmac"\nencryption_key = "./ek"\nauthentication_key = "./ak"\n'
    site = site.replace("address = 18\n", f'address = 18\n{gmac}system_title = "43484b0000000001"\n')
    (tmp_path / "site.toml").write_text(site)
    process, _ = simulate(str(tmp_path / "site.toml"))
    spec = BusSpec("line", port)
    meters = [
        DlmsSpec("main", 16),
        DlmsSpec("flat-1", 17, client=2, security="lls", password=b"open sesame"),
        DlmsSpec(
            "flat-2",
            18,
            client=1,
            security="hls-gmac",
            encryption_key=bytes(16),
            authentication_key=b"\xd0" * 16,
            system_title=bytes.fromhex("43484b0000000001"),
        ),
    ]
    bus = bus_of(spec, meters)
    polls = list(bus.poll_cycle())
    bus.close()
    assert not [p.error for p in polls if p.error]
    assert stop(process) == 0
    (tmp_path / "ek").write_text("00" * 32)
    outcome = CliRunner().invoke(cli, ["simulate", str(tmp_path / "site.toml")])
    assert outcome.exit_code == 78
    assert "_key of 16 octets" in outcome.output


@pytest.mark.parametrize("example", ["demo-building.toml", "faults.toml"])
def test_the_examples_run(example, simulate, tmp_path):
    source = Path(__file__).resolve().parents[3] / "examples" / example
    process, ready = simulate(str(source), "--port-link", str(tmp_path))
    assert ready["ports"] == {"rs485-1": str(tmp_path / "rs485-1")}
    assert stop(process) == 0


def test_a_link_to_somebody_elses_terminal_is_left_alone(tmp_path):
    """As socat's `link=` makes it: the meters answer at that end, and the link stays what it is."""
    ours, theirs = os.openpty()
    link = tmp_path / "rs485"
    link.symlink_to(os.ttyname(theirs))
    port = open_port(str(link), 9600, "N")
    os.write(ours, b"\x7e")
    assert port.read(port.sources()[0])[1] == b"\x7e"
    port.close()
    assert os.readlink(link) == os.ttyname(theirs)
    with pytest.raises(TransportError, match="in use"):
        open_port("/dev/ttyUSB7", 9600, "N", link)
    assert os.readlink(link) == os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_second_simulator_does_not_take_a_live_ones_link(tmp_path):
    link = tmp_path / "rs485"
    first = open_port(str(link), 9600, "N")
    with pytest.raises(TransportError, match="another simulator answers"):
        open_port(str(link), 9600, "N")
    assert link.exists()
    first.close()
    assert list(tmp_path.iterdir()) == []
    again = open_port(str(link), 9600, "N")
    again.close()
