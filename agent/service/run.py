"""Main thread: signals, watchdog, reload."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from agent.downlink.in_force import InForce
from agent.process import exit_codes, logging_setup, sdnotify
from agent.process.memory import limit_allocator
from agent.process.trusted_clock import TrustedClock
from agent.service.agent import LOOK_S, TEXTFILE_S, Agent, log
from agent.site.errors import ConfigError
from agent.site.tables import Config
from agent.status.local_socket import LocalEndpoints
from firmware_io.clock import Clock


class Signals:
    """Signals as bytes in a pipe that the main thread can wait for together with its sockets."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch TERM, INT and HUP meanwhile."""
        wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self.read_end)
            os.close(self._write_end)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, bytes([number]))

    def take(self) -> set[int]:
        """The signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            return set(os.read(self.read_end, 64))
        return set()


def run(site_file: Path, clock: Clock) -> int:
    """Run until SIGTERM or SIGINT, or until a step fails; SIGHUP reads the site file again. The exit code.

    Raises:
        ConfigError: the site file is wrong at the start. One that is wrong at a reload is told and left unused.
        StoreBusy: another agent owns the store.
    """
    limit_allocator()
    os.umask(0o027)  # store and keys' counters are nobody else's, also outside the unit
    clock = TrustedClock(clock)
    signals = Signals()
    in_force = InForce(site_file, clock, time.monotonic)
    config, sha256 = in_force.load()
    logging_setup.configure(config.service.log_level, config.service.log_format)
    with signals.caught():
        while True:
            try:
                agent = Agent(config, sha256, clock, in_force)
            except ConfigError as error:  # what the utility sent must never leave a gateway that does not start
                if not in_force.give_up("; ".join(error.errors)):
                    raise
                config, sha256 = in_force.load()
                continue
            endpoints = LocalEndpoints(
                config.service.socket, config.service.metrics_port, config.service.metrics_textfile
            )
            try:
                agent.start()
                sdnotify.notify("READY=1", f"STATUS={len(config.meter)} meters on {len(config.bus)} buses")
                log.info("reading %d meters on %d buses", len(config.meter), len(config.bus))
                renewed = _watch(agent, endpoints, signals, lambda: _reload(in_force))
                sdnotify.notify("STOPPING=1" if renewed is None else sdnotify.reloading())
            finally:
                endpoints.close()
                agent.stop()
            if agent.failure is not None:
                log.error("ended for a new start from the last commit: %s", agent.failure)
                return exit_codes.SOFTWARE
            if renewed is None:
                log.info("stopped")
                return 0
            config, sha256 = renewed
            logging_setup.configure(config.service.log_level, config.service.log_format)


def _reload(in_force: InForce) -> tuple[Config, str] | None:
    """The site file as it is now, None if it is wrong."""
    try:
        return in_force.load()
    except ConfigError as e:
        for line in e.errors:
            log.error("reload: %s", line)
        log.error("reload: the old configuration stays in use")
        return None


def _watch(
    agent: Agent, endpoints: LocalEndpoints, signals: Signals, reload: Callable[[], tuple[Config, str] | None]
) -> tuple[Config, str] | None:
    """The main thread's loop. None to stop, a configuration to go on with."""
    interval_s = sdnotify.watchdog_interval_s()
    fed_s = textfile_s = 0.0
    late: set[str] = set()
    while True:
        waiting: list[int | socket.socket] = [signals.read_end, *endpoints.listeners]
        ready, _, _ = select.select(waiting, [], [], min(LOOK_S, interval_s or LOOK_S))
        for listener in ready:
            if isinstance(listener, socket.socket):
                endpoints.serve(listener, agent.snapshot)
        caught = signals.take()
        if caught & {signal.SIGTERM, signal.SIGINT} or agent.failure is not None:
            return None
        if signal.SIGHUP in caught and (renewed := reload()) is not None:
            return renewed
        if agent.tick() and (renewed := reload()) is not None:
            return renewed
        now_s = time.monotonic()
        hung = {beat.name for beat in agent.heartbeats() if beat.late_by_s() > 0}
        for name in sorted(hung - late):
            log.error("thread %s makes no progress; the watchdog is not fed", name)
        late = hung
        if interval_s is not None and not hung and now_s - fed_s >= interval_s / 2:
            fed_s = now_s
            sdnotify.notify("WATCHDOG=1")
        if now_s - textfile_s >= TEXTFILE_S:
            textfile_s = now_s
            endpoints.write_textfile(agent.snapshot)
