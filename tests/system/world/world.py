"""The agent's rooms in a world where one seed decides everything that goes wrong, in virtual time. Run over the shim.

    python world.py FOLDER --seconds 30 [--first 1] [--days 15]     seeds one after another
    python world.py FOLDER --seed 17 [--days 15]                    one seed again, to the octet

Real are: bus thread and bus, meter watch, pipeline, detector, alert book, store on SQLite, command desk, send window,
the clock that is believed within reason. Played are meters (behind the driver seam), the disk (the shim), broker and
network, backend, time, and kills. After each turn the invariants are looked at; a violation prints its seed.
"""

from __future__ import annotations

import argparse
import errno
import gc
import hashlib
import json
import logging
import os
import queue
import random
import re
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from disk import Disk
from parts import DAY_S, Backend, Driver, House, Network, NoTransport, WorldClock

from agent.alerts.book import AlertBook
from agent.downlink.backend import Backend as CommandRoom
from agent.keys.signing import KeyRing, sign
from agent.pipeline.inbox import Batch, BookRequest, CaughtUp
from agent.pipeline.pipeline import Pipeline
from agent.pipeline.worker import Worker
from agent.polling.bus_thread import BusThread
from agent.polling.meter_watch import MeterWatch
from agent.process.trusted_clock import TrustedClock
from agent.site.tables import Bus as BusTable
from agent.site.tables import Config, Detection, Meter, Site, Zone
from agent.site.tables import Store as StoreTable
from agent.store.commit import Commit
from agent.store.held import HELD_MAX
from agent.store.messages import Priority
from agent.store.store import Store
from agent.uplink.publisher import Downlink
from agent.uplink.send_window import Pace, SendWindow
from agent.wire.codec import encode
from agent.wire.downlink import Command
from agent.wire.topics import Address
from agent.wire.values import utc
from firmware_io.bus import Bus, BusMeter
from firmware_io.spec import BusSpec

INTERVAL_S = 3600.0
POLL_S = 1800.0
PACE = Pace(silence_s=10_000.0, pause_limit_s=7200.0)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def peak_memory_mb() -> float:
    """The most that this program has held. Not `ru_maxrss`: a process begins with that of whoever started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 1e3  # type: ignore[index]


MEMORY_MB = 300.0  # of this whole process: the agent's rooms, and the world's own books


def _told(body: bytes) -> str:
    """An event without the time at which it was read: an event log that is read again is read later."""
    event = json.loads(body)
    event["data"].pop("received", None)
    return json.dumps(event)


class Violation(AssertionError):
    """An invariant does not hold."""


class Quiet:
    """Where the command room would publish retained state at once."""

    connected = True

    def publish_retained(self, *_: object) -> None:
        """Nobody listens."""


class Gateway:
    """One life of the agent's rooms, from a start to a kill."""

    def __init__(self, world: World) -> None:
        self.world = world
        clock = world.trusted = TrustedClock(world.clock)
        for driver in world.drivers:
            driver._gateway = clock
            driver.identity = None
        config = world.config
        self.inbox: queue.Queue[Batch | CaughtUp] = queue.Queue(1000)
        self.store = Store(world.folder / "s.sqlite", clock.now(), history_days=60)
        world.watch_commits(self.store)
        self.book = AlertBook.from_config(config)
        self.pipeline = Pipeline(config, self.book)
        (table,) = config.bus
        bus = Bus(
            BusSpec("line", "/dev/none"),
            [BusMeter(d.name, d, d.name == "main") for d in world.drivers],
            lambda _spec: NoTransport(),
            clock,
        )
        watches = [MeterWatch(meter) for meter in config.meter]
        self.bus = BusThread(table, bus, watches, clock, self.inbox, INTERVAL_S, clock)
        self.worker = Worker(
            config, clock, self.pipeline, self.book, self.store, self.inbox, ["line"], lambda: clock.settled
        )
        newest_s = self.store.newest_boundary_s()
        if newest_s is not None:
            clock.remember(newest_s)
        known_s = self.worker.restore()
        self.window = SendWindow(self.store, PACE, uniform=world.rng.uniform)
        self.store.on_commit(lambda _priority: self.window.invalidate())
        self.room = CommandRoom(
            config, None, self.store, clock, give=self._give, open_alerts=lambda: self.worker.view.alerts,
            republish_all=lambda: None, send_evidence=self.worker.evidence.send,
        )  # fmt: skip
        self.room._desk._keys = KeyRing([KEY.public_key()])
        self.stop = threading.Event()
        self.bus.catch_up(self.stop, known_s)
        self.work()

    def _give(self, request: BookRequest) -> bool:
        try:
            self.inbox.put_nowait(Batch(requests=(request,)))
        except queue.Full:
            return False
        return True

    def work(self) -> None:
        """The pipeline's turn, and the main thread's."""
        items: list[Batch | CaughtUp] = []
        while not self.inbox.empty():
            items.append(self.inbox.get_nowait())
        self.worker.take(items)
        self.room.tick(Quiet(), [])  # type: ignore[arg-type]
        self.store.tick(self.world.trusted.now())


class World:
    """Everything that one seed decides."""

    def __init__(self, seed: int, folder: Path, disk: Disk) -> None:
        self.seed, self.rng, self.disk = seed, random.Random(seed), disk
        self.folder = folder / "a"
        self._folders = folder
        shutil.rmtree(folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        disk.heal()
        disk.watch(self.folder)
        self.clock = WorldClock()
        flats = self.rng.randrange(2, 5)
        self.house = House(flats, self.rng)
        names = ["main", *(f"flat-{n}" for n in range(flats))]
        self.trusted = TrustedClock(self.clock)
        self.drivers = [Driver(name, n - 1, self.house, self.clock, self.trusted) for n, name in enumerate(names)]
        self.clocks = self.rng.random() < 0.8  # whether the meters of this house have clocks
        for driver in self.drivers:
            driver.has_clock = self.clocks
        self.config = Config(
            site=Site(tenant="t", site="s", gateway="g"),
            bus=[BusTable(id="line", port="/dev/none", poll_s=POLL_S)],
            meter=[Meter(id=name, bus="line", address=n + 1) for n, name in enumerate(names)],
            zone=[Zone(id="building", main="main", subs=names[1:])],
            detection=Detection(interval_s=INTERVAL_S),
            store=StoreTable(path=str(self.folder / "s.sqlite")),
        )
        self.address = Address("t", "s", "g")
        self.backend = Backend()
        self.network = Network(self.rng, self.backend)
        self.made: dict[str, set[bytes]] = {}  # every event that ever was in a commit
        self.promised: set[str] = set()  # those whose commit reached the disk
        self._held: dict[str, None] = {}
        self.misled = False  # whether a wrong clock was ever believed (no meter spoke against it): days that never were
        self.forgotten = False  # whether the store was ever deleted
        self.commands: dict[str, bytes] = {}
        self.unacknowledged: dict[str, bytes] = {}
        self.lives = self.kills = self.cuts = self.faults = self.turns = 0
        self._skew_until_s = self._disk_until_s = self._line_until_s = self._broker_until_s = 0.0
        self._blind_since_s = self.clock.true_s
        self.gateway = Gateway(self)
        self.network.connect(self.gateway.window, self.clock.elapsed_s)

    # -- what is promised ---------------------------------------------------------------------------------------------

    def watch_commits(self, store: Store) -> None:
        """Note what each commit holds, and whether it reached the disk."""
        commit = store.commit

        def watched(what: Commit, now_s: float) -> bool:
            events = [m for m in what.messages if m.priority <= Priority.TAMPER]
            for message in events:
                self.made.setdefault(message.key, set()).add(message.body)
            self._believable(what)
            done = commit(what, now_s)
            self._held |= dict.fromkeys(m.key for m in events)
            if done and store.volatile is None:
                self.promised |= self._held.keys()
                self._held.clear()
            return done

        store.commit = watched  # type: ignore[method-assign]

    def _believable(self, what: Commit) -> None:
        """No energy that never flowed. A row in which a meter answers again holds what its gap was estimated wrong."""
        self.misled |= abs(self.trusted.now() - self.clock.true_s) > DAY_S / 2
        for message in what.messages:
            if message.priority is Priority.BALANCE and not self.misled:
                balance = json.loads(message.body)
                most_kwh = DAY_S / 3600 * self.house.most_w / 1000
                if abs(balance["main_kwh"] or 0.0) > most_kwh or abs(balance["sum_kwh"] or 0.0) > most_kwh:
                    raise Violation(f"in an hour of a house of {self.house.most_w:.0f} W at most: {balance}")

    def check(self) -> None:
        """After every turn."""
        gateway, clock = self.gateway, self.clock
        if len(gateway.store._held) > HELD_MAX:
            raise Violation(f"{len(gateway.store._held)} messages are held in memory")
        for key, bodies in self.backend.events.items():
            if not bodies <= self.made.get(key, set()):
                raise Violation(f"the backend has an event that nobody made: {key}")
            if len(bodies) > 1 and len({_told(body) for body in bodies}) > 1 and not self.forgotten:
                raise Violation(f"event {key} came with {len(bodies)} contents")
        newest_s = gateway.pipeline.next_s
        if newest_s is None:
            return
        newest_s -= INTERVAL_S
        if newest_s > self.trusted.now() + INTERVAL_S + POLL_S:
            raise Violation(f"a boundary lies {newest_s - self.trusted.now():.0f} s ahead of the clock")
        well = self.trusted.settled and abs(self.trusted.now() - clock.true_s) < 900
        if not well or newest_s >= clock.true_s - 2 * INTERVAL_S - POLL_S:
            self._blind_since_s = clock.true_s
        elif clock.true_s - self._blind_since_s > 3 * INTERVAL_S + POLL_S:
            raise Violation(f"nothing was judged for {(clock.true_s - newest_s) / 3600:.1f} h, and nothing was said")
        asked = self.trusted._meters_s is not None  # without a second source nobody can tell
        if asked and self.trusted.doubt is None and abs(self.trusted.now() - clock.true_s) > 1800:
            raise Violation(f"the clock is {self.trusted.now() - clock.true_s:.0f} s off, and nothing was said")
        memory_mb = peak_memory_mb()
        if memory_mb > MEMORY_MB:
            raise Violation(f"{memory_mb:.0f} MB of memory")

    def finish(self) -> None:
        """Everything is mended: all that was promised arrives."""
        self.disk.heal()
        self.clock.skew_s = 0.0
        self.network.up = self.network.subscribed = True
        for driver in self.drivers:
            driver.silent = False
        self._reconnect()
        for _ in range(60):
            self.turn()
            if self.network.window is None or self.promised <= self.backend.events.keys():
                self._reconnect()
            if self.promised <= self.backend.events.keys() and not self.gateway.store.counters.messages:
                break
        lost = self.promised - self.backend.events.keys()
        if lost:
            raise Violation(f"{len(lost)} committed events never arrived: {sorted(lost)[:3]}")
        answered: dict[str, set[str]] = {}
        for body in self.backend.answers:
            answer = json.loads(body)
            answered.setdefault(answer["id"], set()).add(answer["status"])
        for command, statuses in answered.items():
            if len(statuses - {"refused"}) > 1 and statuses != {"done", "failed"}:
                raise Violation(f"command {command} was answered {statuses}")
        self.gateway.store.close()

    # -- what happens -------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """One poll of the bus, one turn of every other thread."""
        self.turns += 1
        gateway = self.gateway
        gateway.bus.cycle(gateway.stop)
        gateway.work()
        for _ in range(4):
            self.network.turn(self.clock.elapsed_s, self.trusted.now(), lambda: None)
            self.clock.move(2.0)
        due_s = gateway.bus._rhythm.next_s(self.clock.elapsed_s, self.trusted.now())
        self.clock.move(max(0.0, due_s - self.clock.elapsed_s))
        gateway.work()  # the threads look at the clock every half second, also while no poll comes

    def act(self) -> None:
        """What goes wrong, or is mended, before the next turn."""
        rng, now_s = self.rng, self.clock.elapsed_s
        if self.disk.failed and now_s >= self._disk_until_s:
            self.disk.heal()
        if now_s >= self._skew_until_s:
            self.clock.skew_s = 0.0
        if now_s >= self._line_until_s:
            for driver in self.drivers:
                driver.silent = False
        if now_s >= self._broker_until_s and not (self.network.up and self.network.subscribed):
            self.network.up = self.network.subscribed = True
            self._reconnect()
        if self.network.window is None and self.network.up:
            self._reconnect()
        draw = rng.random()
        if draw < 0.010:
            self._die(power=rng.random() < 0.5)
        elif draw < 0.020:
            self.disk.fail(rng.randrange(40), rng.choice((1, 3, 1_000_000)), rng.choice((errno.EIO, errno.ENOSPC)))
            self._disk_until_s = now_s + rng.uniform(0, 12) * 3600
            self.faults += 1
        elif draw < 0.026:
            self.clock.skew_s = rng.choice((-86400.0, 3 * DAY_S, 400 * DAY_S, -1.77e9, 120.0, -1800.0, 7200.0))
            self._skew_until_s = now_s + rng.choice((20.0, 3600.0, 6 * 3600.0))
            self.faults += 1
        elif draw < 0.046:
            for driver in rng.sample(self.drivers, rng.randrange(1, len(self.drivers) + 1)):
                driver.silent = True
            self._line_until_s = now_s + rng.uniform(0.5, 20) * 3600
            self.faults += 1
        elif draw < 0.060:
            self.network.cut(now_s)
            self.network.up = False
            self._broker_until_s = now_s + rng.uniform(0, 30) * 3600
            self.faults += 1
        elif draw < 0.066:
            self.network.subscribed = False
            self._broker_until_s = now_s + rng.uniform(0, 10) * 3600
            self.faults += 1
        elif draw < 0.076:
            rng.choice(self.drivers).log.append((self.clock.true_s, rng.choice((40, 41))))
        elif draw < 0.100:
            self._command()
        elif draw < 0.102:
            for path in self.folder.glob("s.sqlite*"):
                path.unlink()
            self.forgotten = True
            self.faults += 1

    def _command(self) -> None:
        """A command to the alert book, which the broker delivers until it is acknowledged."""
        now_s = self.trusted.now()
        if not self.trusted.settled or now_s < 1.7e9:
            return
        number = f"c-{len(self.commands)}"
        alerts = self.gateway.worker.view.alerts
        name, arguments = "set-mode", {"mode": "normal"}
        if alerts and self.rng.random() < 0.7:
            name, arguments = "acknowledge", {"alert_id": self.rng.choice(alerts).alert_id}
        wish = Command(
            id=number, target=self.address.target, name=name, issued=utc(now_s), expires=utc(now_s + 80_000),
            by="ops", args=arguments,
        )  # type: ignore[arg-type]  # fmt: skip
        self.commands[number] = self.unacknowledged[number] = encode(sign(KEY, "command", encode(wish)))
        self._deliver(number)

    def _deliver(self, number: str) -> None:
        payload = self.unacknowledged[number]
        self.gateway.room.on_downlink(
            Downlink("cmd/req", payload, lambda: self.unacknowledged.pop(number, None) and None)
        )

    def _reconnect(self) -> None:
        self.network.cut(self.clock.elapsed_s)
        self.network.connect(self.gateway.window, self.clock.elapsed_s)
        for number in list(self.unacknowledged)[:20]:
            self._deliver(number)

    def _die(self, *, power: bool) -> None:
        """kill -9, or a power cut; then a new start, on what is left of the disk."""
        self.network.cut(self.clock.elapsed_s)
        self.lives += 1
        fresh = self._folders / f"life{self.lives}"
        broken = self.disk.failed
        self.disk.heal()
        shutil.copytree(self.folder, fresh)
        if power:
            self.disk.power_cut(self.rng.getrandbits(32), fresh)
            self.cuts += 1
        self.kills += 1
        self._held.clear()
        self.disk.watch(self._folders / "nothing")
        old = self.gateway
        old.store._database.connection.close()
        old.store._database.close_lock()
        shutil.rmtree(self.folder)
        fresh.rename(self.folder)
        self.disk.watch(self.folder)
        self.clock.move(self.rng.uniform(5, 300))
        del old, broken
        self.gateway = Gateway(self)
        if self.network.up:
            self._reconnect()

    def digest(self) -> str:
        """What the backend has, in one figure: the same seed gives the same, to the octet."""
        sha = hashlib.sha256()
        for key in sorted(self.backend.events):
            sha.update(key.encode() + b"".join(sorted(self.backend.events[key])))
        return sha.hexdigest()[:16]


def play(seed: int, days: float, folder: Path, disk: Disk) -> World:
    """One seed to its end. Raises: Violation, or whatever the agent let escape."""
    world = World(seed, folder, disk)
    while world.clock.elapsed_s < days * DAY_S:
        world.act()
        world.turn()
        world.check()
    world.finish()
    return world


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--days", type=float, default=15.0)
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set of names is chance, too
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    logging.disable(logging.CRITICAL)
    disk = Disk(options.folder / "none")
    seeds = [options.seed] if options.seed is not None else range(options.first, 1 << 30)
    until_s = time.monotonic() + options.seconds
    played: list[World] = []
    totals = dict.fromkeys(("days", "events", "kills", "power cuts", "faults", "commands"), 0.0)
    failures = 0
    for seed in seeds:
        try:
            world = play(seed, options.days, options.folder / "world", disk)
        except Exception as error:
            failures += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if options.seed is not None:
                raise
            if failures >= 5:
                break
            continue
        totals["days"] += options.days
        totals["events"] += len(world.backend.events)
        totals["kills"] += world.kills
        totals["power cuts"] += world.cuts
        totals["faults"] += world.faults
        totals["commands"] += len(world.commands)
        if options.seed is not None:
            print(f"seed {seed}: {world.digest()}")
        del world
        gc.collect()
        if time.monotonic() > until_s:
            break
    del played
    figures: dict[str, Any] = {name: round(value) for name, value in totals.items()} | {"violations": failures}
    figures["MB"] = round(peak_memory_mb())
    print(json.dumps(figures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
