"""Real processes, a real broker: the building, the agent, and what a subscriber receives."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.offline.case.verify import verify
from agent.offline.demo.brokers import LocalBroker, end, free_port, local_broker
from agent.status.local_socket import ask

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(180)]

SITE = """\
[site]
tenant = "acme"
site = "e2e"
gateway = "gw-e2e"
[[bus]]
id = "line"
port = "{folder}/line"
baud = 115200
poll_s = 2
{meters}
[[zone]]
id = "building"
main = "main"
subs = ["flat-1", "flat-2", "flat-3"]
[mqtt]
url = "{broker}"
[store]
path = "{folder}/store.sqlite"
[service]
socket = "{folder}/control.sock"
[simulation]
history_days = 2
pace = false
turnaround_s = 0.0
"""


def site_file(folder: Path, broker: str) -> Path:
    meters = "\n".join(
        f'[[meter]]\nid = "{name}"\nbus = "line"\naddress = {16 + n}'
        for n, name in enumerate(("main", "flat-1", "flat-2", "flat-3"))
    )
    path = folder / "site.toml"
    path.write_text(SITE.format(folder=folder, broker=broker, meters=meters))
    return path


def checkmeter(*words: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "agent.cli.main", *map(str, words)], text=True, **options)


def await_that(what: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    with local_broker(tmp_path, "mosquitto") as running:
        yield running


@pytest.fixture
def received(broker: LocalBroker) -> Iterator[list[tuple[str, bytes]]]:
    messages: list[tuple[str, bytes]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = lambda _c, _u, message: messages.append((message.topic, bytes(message.payload)))
    client.on_connect = lambda client, *_: client.subscribe("checkmeter/#", qos=1)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield messages
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def building(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(site: Path) -> subprocess.Popen[str]:
        process = checkmeter("simulate", site, stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        return process

    yield start
    for process in running:
        end(process)
        process.stdout.close()


@contextlib.contextmanager
def agent(site: Path, log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    with log.open("a") as out:
        process = checkmeter("run", site, stdout=out, stderr=out, env=os.environ | environment)
    try:
        yield process
    finally:
        end(process)


@pytest.mark.mosquitto
@pytest.mark.timeout(960)
@pytest.mark.parametrize(
    ("example", "gateway", "thief"),
    [("demo-building", "riverside-12/gw-0012", "flat-302"), ("mixed-building", "mixed-7/gw-0007", "flat-103")],
)
def test_the_demo_finds_the_thief_and_ends_by_itself(tmp_path: Path, example: str, gateway: str, thief: str) -> None:
    """The whole journey, accelerated: octets on a pseudo-terminal to an alert in a subscriber's hand, and the page."""
    root = Path(__file__).resolve().parents[3]
    command = ["demo", root / f"examples/{example}.toml", "--keep", tmp_path / "demo"]
    demo = checkmeter(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = demo.communicate(timeout=900)  # the building's time waits for a busy host
    assert demo.returncode == 0, said[-3000:] + (tmp_path / "demo/agent.log").read_text()[-2000:]
    assert re.search(f"MQTT checkmeter/v1/acme/{gateway}/event/alert", said)
    assert re.search(rf"^FOUND: {thief}, \d+ W, (9\d|100) % sure", said, re.MULTILINE)
    page = tmp_path / "demo/case.html"
    assert f"open {page}" in said
    assert verify(page.read_text()) == []
    assert f"{thief}</h1>" in page.read_text()


@pytest.mark.mosquitto
def test_first_reading_status_reload_and_a_quick_end(
    tmp_path: Path, broker: LocalBroker, received: list[tuple[str, bytes]], building: Callable
) -> None:
    site = site_file(tmp_path, broker.url)
    building(site)
    control = str(tmp_path / "control.sock")
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    told = []
    began = time.monotonic()
    with (
        manager,
        agent(site, tmp_path / "agent.log", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000") as process,
    ):
        while "READY=1" not in "".join(told):
            told.append(manager.recv(4096).decode())
        await_that(lambda: any(view.time_s for view in ask(control).meters))
        assert time.monotonic() - began < 8  # alone 1.2 s (make bench-agent); the suite shares two cores
        await_that(lambda: ask(control).status.state == "online")
        await_that(lambda: any(topic.endswith("/status") and b'"online"' in body for topic, body in received))

        def plates() -> list[tuple[str | None, str | None]]:
            last = [json.loads(body) for topic, body in received if topic.endswith("/info")][-1]
            return [(meter.get("serial"), meter.get("firmware")) for meter in last["meters"]]

        await_that(lambda: all(serial and firmware for serial, firmware in plates()))
        while "WATCHDOG=1" not in "".join(told):
            told.append(manager.recv(4096).decode())

        process.send_signal(signal.SIGHUP)
        while "RELOADING=1" not in "".join(told):
            told.append(manager.recv(4096).decode())
        await_that(lambda: "READY=1" in manager.recv(4096).decode())
        await_that(lambda: ask(control).health.uptime_s < 10 and ask(control).status.state == "online")
        site.write_text(site.read_text().replace("poll_s", "pol_s"))
        process.send_signal(signal.SIGHUP)
        await_that(lambda: "the old configuration stays in use" in (tmp_path / "agent.log").read_text())
        assert ask(control).status.state == "online"

        asked_to_stop = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - asked_to_stop < 4  # alone 0.3 s
    await_that(lambda: any(topic.endswith("/status") and b'"offline"' in body for topic, body in received))
    info = next(json.loads(body) for topic, body in received if topic.endswith("/info"))
    assert [meter["id"] for meter in info["meters"]] == ["main", "flat-1", "flat-2", "flat-3"]
    assert "Traceback" not in (tmp_path / "agent.log").read_text()


@pytest.mark.mosquitto
def test_a_dead_building_and_a_dead_broker_stop_nothing(
    tmp_path: Path, received: list[tuple[str, bytes]], broker: LocalBroker, building: Callable
) -> None:
    site = site_file(tmp_path, broker.url)
    meters = building(site)
    control = str(tmp_path / "control.sock")
    with agent(site, tmp_path / "agent.log") as process:
        await_that(lambda: Path(control).exists() and ask(control).status.state == "online")
        end(meters)
        await_that(lambda: ask(control).status.state == "degraded" and len(ask(control).status.meters) == 4)
        await_that(lambda: any(topic.endswith("/status") and b"flat-3" in body for topic, body in received))
        building(site)
        await_that(lambda: ask(control).status.state == "online", 60)
        end(broker.process)
        await_that(lambda: ask(control).broker == "disconnected")
        before = ask(control).health.buses[0].cycles
        await_that(lambda: ask(control).health.buses[0].cycles > before + 1)
        assert process.poll() is None
    assert "Traceback" not in (tmp_path / "agent.log").read_text()


def test_without_broker_and_building_the_agent_says_so_in_one_line_each_and_ends_in_time(tmp_path: Path) -> None:
    site = site_file(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    log = tmp_path / "agent.log"
    with agent(site, log) as process:
        await_that(lambda: (tmp_path / "control.sock").exists())
        await_that(
            lambda: "broker mqtt://127.0.0.1" in log.read_text() and "cannot open serial port" in log.read_text()
        )
        began = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 4
    text = log.read_text()
    assert "Traceback" not in text
    assert sum("cannot open serial port" in line for line in text.splitlines()) < 20


def test_init_writes_a_site_file_that_check_finds_right(tmp_path: Path, building: Callable) -> None:
    port = free_port()
    site = site_file(tmp_path, "mqtt://127.0.0.1:1")
    site.write_text(site.read_text().replace(f'"{tmp_path}/line"', f'"tcp://127.0.0.1:{port}"'))
    building(site)
    made = tmp_path / "made.toml"
    line = f"tcp://127.0.0.1:{port}"
    init = checkmeter("init", line, "-o", made, "--last", 20, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = init.communicate(timeout=60)
    assert init.returncode == 0, said
    check = checkmeter("check", "--online", made, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = check.communicate(timeout=60)
    answered = re.findall(r"^ok    meter (\S+):", said, re.MULTILINE)
    assert answered == ["main", "meter-17", "meter-18", "meter-19"], said
    again = checkmeter("init", line, "-o", made, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "exists" in said


def test_check_online_tells_of_each_thing_that_is_not_there(tmp_path: Path) -> None:
    site = site_file(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    check = checkmeter("check", "--online", site, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = check.communicate(timeout=60)
    assert check.returncode == 69
    assert re.search(r"^FAIL  broker: mqtt://127.0.0.1", said, re.MULTILINE)
    assert re.search(r"^FAIL  bus line: cannot open serial port", said, re.MULTILINE)
    assert re.search(r"^ok    disk:", said, re.MULTILINE)
    assert "Traceback" not in said


def test_two_agents_do_not_share_a_store(tmp_path: Path) -> None:
    site = site_file(tmp_path, f"mqtt://127.0.0.1:{free_port()}")
    with agent(site, tmp_path / "agent.log"):
        await_that(lambda: (tmp_path / "control.sock").exists())
        second = checkmeter("run", site, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = second.communicate(timeout=20)
    assert second.returncode == 74
    assert "another checkmeter owns this store" in said
    assert "Traceback" not in said


OTHER_MEDIA = """
[[bus]]
id = "cellar"
port = "{folder}/cellar"
protocol = "mbus"
baud = 2400
parity = "E"
poll_s = 2
[[meter]]
id = "water"
bus = "cellar"
address = "20481234"
medium = "cold-water"
[[meter]]
id = "heating"
bus = "cellar"
address = 3
medium = "heat"
[[zone]]"""


@pytest.mark.mosquitto
def test_water_and_heat_are_published_with_their_units_and_shown(
    tmp_path: Path, broker: LocalBroker, received: list[tuple[str, bytes]], building: Callable
) -> None:
    site = site_file(tmp_path, broker.url)
    site.write_text(site.read_text().replace("\n[[zone]]", OTHER_MEDIA.format(folder=tmp_path), 1))
    building(site)
    with agent(site, tmp_path / "agent.log"):

        def registers() -> dict[str, wire.Register]:
            told = [(topic, body) for topic, body in received if "/register/" in topic]
            return {topic.rpartition("/")[2]: wire.decode(wire.Register, body) for topic, body in told}

        await_that(lambda: registers().keys() == {"water", "heating"})
        water, heat = registers()["water"], registers()["heating"]
        assert (water.medium, water.amounts[0].obis, water.amounts[0].unit) == ("cold-water", "8.0.1.0.0.255", "m³")
        assert (heat.medium, heat.amounts[0].obis, heat.amounts[0].unit) == ("heat", "6.0.1.0.0.255", "kWh")
        assert {amount.unit for amount in heat.amounts} == {"kWh", "m³", "°C"}
        shown = checkmeter("status", site, stdout=subprocess.PIPE).communicate(timeout=60)[0]
        line = next(line for line in shown.splitlines() if line.split()[:1] == ["water"])
        assert f"{water.amounts[0].value:.3f} m³" in line
        assert water.amounts[0].value > 0
        assert not any("/balance/water" in topic for topic, _ in received)
