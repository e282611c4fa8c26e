"""The agent's doors and signs of life: status socket, metrics, textfile, sd_notify, heartbeats, log lines."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import select
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from agent import wire
from agent.cli.main import cli
from agent.offline.demo.brokers import free_port
from agent.process import heartbeat, logging_setup, sdnotify
from agent.status.dashboard import building
from agent.status.local_socket import LocalEndpoints, ask
from agent.status.snapshot import MeterView, Snapshot, metrics_text

SNAPSHOT = Snapshot(
    now_s=1_700_000_060.0,
    status=wire.Status(state="online", versions={"checkmeter": "1"}),
    health=wire.Health(
        time=wire.utc(1_700_000_060.0),
        uptime_s=3600.0,
        buses=[wire.BusHealth(id="b1", state="up", cycles=60, errors={"timeout": 2}, cycle_s=1.5)],
        meters=[wire.MeterHealth(id="main", last_reading=wire.utc(1_700_000_000.0), readings=60, latency_ms=40.0)],
        queue=wire.QueueHealth(messages=3, bytes=999),
        cpu_percent=1.2,
        memory_mb=61.0,
    ),
    phase="watching",
    broker="connected",
    meters=[MeterView(id="main", bus="b1", time_s=1_700_000_000.0, energy_kwh=1234.5)],
    balances=[
        wire.Balance(
            zone="building",
            start=wire.utc(1_699_999_200.0),
            end=wire.utc(1_700_000_100.0),
            main_kwh=4.2,
            sum_kwh=3.9,
            technical_loss_kwh=0.1,
            residual_kwh=0.2,
            uncertainty_kwh=0.05,
            coverage=1.0,
        )
    ],
)


@contextmanager
def serving(doors: LocalEndpoints, snapshot: Snapshot = SNAPSHOT) -> Iterator[None]:
    """What the service's main thread does with its doors."""
    stop_read, stop_write = socket.socketpair()

    def serve() -> None:
        while stop_read not in (ready := select.select([stop_read, *doors.listeners], [], [])[0]):
            for listener in ready:
                doors.serve(listener, lambda: snapshot)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop_write.send(b"x")
        thread.join()
        stop_read.close()
        stop_write.close()
        doors.close()


def test_status_comes_through_the_socket_and_the_verb_shows_it(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with serving(LocalEndpoints(path, None, None)):
        assert ask(path) == SNAPSHOT
        shown = CliRunner().invoke(cli, ["status", "--socket", path])
        as_json = CliRunner().invoke(cli, ["status", "--socket", path, "--json"])
    assert shown.exit_code == 0
    assert "bus b1: up, 60 cycles" in shown.output
    assert "1234.50 kWh  read 1 min 0 s ago" in shown.output
    assert msgspec.json.decode(as_json.output, type=Snapshot) == SNAPSHOT
    assert not Path(path).exists()


def test_status_exit_code_tells_online_from_degraded_and_from_absent(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    absent = CliRunner().invoke(cli, ["status", "--socket", path])
    assert absent.exit_code == 69
    assert "is it running" in absent.output
    poor = msgspec.structs.replace(
        SNAPSHOT, status=wire.Status(state="degraded", reason="1 meters do not answer", meters=["main"], versions={})
    )
    with serving(LocalEndpoints(path, None, None), poor):
        assert CliRunner().invoke(cli, ["status", "--socket", path]).exit_code == 1


def test_a_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    big = msgspec.structs.replace(SNAPSHOT, meters=[MeterView(id=f"m{n}", bus="b") for n in range(100_000)])
    with serving(LocalEndpoints(path, None, None), big), socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(path)
        assert len(ask(path).meters) == 100_000


def test_a_socket_left_by_a_crash_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    first = LocalEndpoints(str(path), None, None)
    second = LocalEndpoints(str(path), None, None)
    assert len(first.listeners) == 1
    assert second.listeners == []
    first.close()


def test_the_dashboard_shows_state_balance_alerts_and_meters() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    alert = wire.AlertData(
        alert_id="a1",
        revision=1,
        state="raised",
        kind="bypass",
        severity="critical",
        zone="building",
        onset=wire.utc(1_699_990_000.0),
        loss_w=412.0,
        suspects=[wire.SuspectData(meter="flat-302", probability=0.97)],
    )
    seen = msgspec.structs.replace(SNAPSHOT, alerts=[alert], suspicion={"main": 0.5})
    console.print(building(seen))
    shown = console.export_text()
    assert "main 16800 W = subs 15600 W + lines   400 W + missing   800 W (± 200)" in shown
    assert re.search(r"! bypass in building since 14 Nov 19:26, 412 W, flat-302 97 %", shown)
    assert re.search(r"main +1234.50 kWh +- +1 min 0 s ago +█{10} 50 %", shown)


def test_the_suspect_stays_on_a_small_screen_and_the_rest_is_counted() -> None:
    meters = [msgspec.structs.replace(SNAPSHOT.meters[0], id=f"flat-{n:03d}") for n in range(120)]
    seen = msgspec.structs.replace(SNAPSHOT, meters=meters, suspicion={"flat-117": 0.9, "flat-003": 0.2})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(building(seen, height=24))
    lines = console.export_text().splitlines()
    assert len(lines) <= 24
    shown = [line.split()[0] for line in lines if line.startswith("flat-")]
    assert shown[:2] == ["flat-117", "flat-003"]
    assert f"{120 - len(shown)} more meters" in lines[-1]


LINE = re.compile(r'^checkmeter_[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+-]+$')


def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    text = metrics_text(SNAPSHOT)
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.match(line) for line in samples)
    assert 'checkmeter_bus_errors_total{bus="b1",kind="timeout"} 2' in samples
    assert 'checkmeter_zone_residual_joules{zone="building"} 720000' in samples
    assert 'checkmeter_meter_energy_joules_total{meter="main"} 4444200000' in samples
    assert any(line.startswith('checkmeter_build_info{version="') for line in samples)


def test_a_label_may_hold_anything() -> None:
    odd = msgspec.structs.replace(SNAPSHOT, suspicion={'a"b\\c\nd': 0.5})
    assert 'checkmeter_meter_suspicion_ratio{meter="a\\"b\\\\c\\nd"} 0.5\n' in metrics_text(odd)


def test_metrics_describe_every_sample(tmp_path: Path) -> None:
    text = metrics_text(SNAPSHOT)
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    described = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert {line.split("{")[0].split(" ")[0] for line in samples} == described


def test_metrics_over_http_and_as_textfile(tmp_path: Path) -> None:
    port = free_port()
    doors = LocalEndpoints(None, port, str(tmp_path / "checkmeter.prom"))
    doors.write_textfile(lambda: SNAPSHOT)
    assert (tmp_path / "checkmeter.prom").read_text() == metrics_text(SNAPSHOT)
    assert [p.name for p in tmp_path.iterdir()] == ["checkmeter.prom"]
    with serving(doors), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert answer.read().decode() == metrics_text(SNAPSHOT)


def test_notify_reaches_the_manager_and_is_silent_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sdnotify.notify("READY=1")
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        sdnotify.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    ("limit_us", "pid", "expected"),
    [("60000000", None, 30.0), ("60000000", "1", None), ("", None, None), ("x", None, None)],
)
def test_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, limit_us: str, pid: str | None, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", limit_us)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert sdnotify.watchdog_interval_s() == expected


def test_a_heartbeat_is_late_after_its_limit() -> None:
    assert heartbeat.Heartbeat("x", 100.0).late_by_s() < 0
    assert heartbeat.Heartbeat("x", -1.0).late_by_s() > 0


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers[:], root.level = before, level


def test_repeated_faults_are_limited_and_counted(
    lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logging_setup.configure()
    now = [1000.0]
    monkeypatch.setattr(logging.time, "time", lambda: now[0])  # LogRecord's own clock
    log = logging.getLogger("bus")
    for n in range(100):
        log.warning("meter %s: %s", "flat-1", n)
        log.warning("meter %s: %s", "flat-2", n) if n < 3 else None
    now[0] += 61
    log.warning("meter %s: %s", "flat-1", "last")
    shown = lines()
    assert sum("flat-1" in line for line in shown) == logging_setup.BURST + 1
    assert sum("flat-2" in line for line in shown) == 3
    assert "95 more like it" in shown[-1]


def test_log_lines_for_journald_and_as_json(lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    logging_setup.configure()
    logging.getLogger("bus").error("dead")
    assert lines() == ["<3>bus: dead"]
    logging_setup.configure(log_format="json")
    logging.getLogger("bus").warning("late by %d s", 3)
    entry = json.loads(lines()[-1])
    assert (entry["level"], entry["message"]) == ("warning", "late by 3 s")


def test_what_a_stranger_says_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "field `x\n<0>kernel: all is lost \x1b[2J\x9b2J\u2028y`\r"
    for journal in (True, False):
        monkeypatch.setenv("JOURNAL_STREAM", "1:2") if journal else monkeypatch.delenv("JOURNAL_STREAM", False)
        logging_setup.configure()
        logging.getLogger("checkmeter.test").warning("command refused: %s", said)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()
        assert line.startswith("<4>") is journal
        assert "\\x1b[2J" in line
    logging.getLogger().handlers[:] = []


def test_the_metrics_file_follows_nobody_s_link(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "shared"
    victim.write_text("precious")
    folder.mkdir()
    (folder / f".metrics.prom.{os.getpid()}").symlink_to(victim)
    (folder / "metrics.prom").symlink_to(victim)
    doors = LocalEndpoints(None, None, str(folder / "metrics.prom"))
    doors.write_textfile(lambda: SNAPSHOT)
    assert victim.read_text() == "precious"
    assert not (folder / "metrics.prom").is_symlink()
    assert "checkmeter_up" in (folder / "metrics.prom").read_text()
    assert (folder / "metrics.prom").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (msgspec.json.encode(SNAPSHOT)[:200], "closed in the middle of its answer"),
        (b"", "closed in the middle of its answer"),
        (b'{"now_s": "yesterday"}', "another version"),
    ],
)
def test_an_answer_that_breaks_off_is_no_connection(tmp_path: Path, answer: bytes, said: str) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(answer)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        done = CliRunner().invoke(cli, ["status", "--socket", str(path)])
        server.join(5)
    assert done.exit_code == 69, done.output
    assert said in done.output
