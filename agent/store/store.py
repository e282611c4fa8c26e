"""What the gateway must not forget: the outbox, the checkpoints, the events sent, the interval history.

It owns what is committed together and what gives way when there is no room. It knows neither MQTT nor what a message
says. Any thread may call it: one lock, one connection.

The rule: a step's alerts and the detector's checkpoint are committed in ONE transaction with `synchronous=FULL`, and
the publisher sees only what is committed. A step without alerts is committed with NORMAL: after a power cut the last
such steps may be gone, together with their checkpoint, and are simply made again.

When the disk is full, history goes first, then the ballast, then old history. When even that is not enough, or another
process keeps the file locked, the step is held in memory, sent from there, and committed as soon as the file allows.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from agent.store import statements
from agent.store.commit import Commit, Counters, Outgoing, no_probe
from agent.store.database import Database, checksum, is_corrupt, is_locked
from agent.store.history import read_history
from agent.store.messages import Message, Priority
from core.registers.booked import StoredHistory

log = logging.getLogger(__name__)

HELD_MAX = 1000  # messages kept in memory while nothing can be written; beyond it the least important go
_ROW = "id, priority, attempts, time_s, expires_s, suffix, schema, key, body"


class Store:
    """The gateway's memory on disk.

    Args:
        path: the file; beside it live `.lock`, `.ballast`, and `.aside-*` files.
        now_s: UTC seconds, for the names of files put aside.
        outbox_bytes: the cap of what waits; lower priorities give way, alerts never do.
        history_days: how long history and sent events are kept.
        probe: see `no_probe`.
    """

    def __init__(
        self,
        path: str | Path,
        now_s: float,
        *,
        outbox_bytes: float = 64e6,
        history_days: float = 120.0,
        probe: Callable[[str], None] = no_probe,
    ) -> None:
        self._lock = threading.RLock()
        self._probe = probe
        self._outbox_bytes = outbox_bytes
        self._history_s = history_days * 86400.0
        self._held: dict[int, Outgoing] = {}
        self._held_checkpoints: dict[str, bytes] = {}
        self._next_held = -1
        self._opened_s = now_s
        self._tight = False  # the disk was full: nothing but messages and checkpoints is written
        self._on_commit: Callable[[Priority], None] | None = None
        self.counters = Counters()
        self._database = Database(path, now_s)
        self._count()
        self._tight = not self._database.fill_ballast()

    @property
    def replaced(self) -> str | None:
        """Why an earlier file was put aside: to be told in an alert."""
        return self._database.replaced

    @property
    def volatile(self) -> str | None:
        """Why there is no file at all: to be told in an alert."""
        return self._database.volatile

    def on_commit(self, listener: Callable[[Priority], None]) -> None:
        """Call `listener` with the highest new priority after each commit; it must only record."""
        self._on_commit = listener

    def close(self) -> None:
        """Write what is held, if it can be, and close the file."""
        with self._lock:
            if self._held or self._held_checkpoints:
                self.commit(Commit(), self._wall_of_held())
            self._database.close()

    # -- commit -------------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit, now_s: float) -> bool:
        """Commit all of it, or hold it in memory where nothing can be written now (then False).

        Never raises for a full, locked, torn or vanished file: reading meters goes on.
        """
        with self._lock:
            self._probe("store.begin")
            held = tuple(o.message for o in self._held.values())
            whole = Commit(
                messages=(*held, *commit.messages),
                checkpoints=self._held_checkpoints | dict(commit.checkpoints),
                meters=commit.meters,
                history=commit.history,
            )
            done = self._commit_somehow(whole, now_s)
            if done:
                self._held.clear()
                self._held_checkpoints = {}
            else:
                self._hold(commit)
            self._probe("store.committed")
        if commit.messages and self._on_commit is not None:
            self._on_commit(min(m.priority for m in commit.messages))
        return done

    def _commit_somehow(self, commit: Commit, now_s: float) -> bool:
        """Try with all, then after making room and without history, then with the older history given up."""
        if self._tight and self._database.fill_ballast():
            log.info("store %s: there is room again, history goes on", self._database.path)
            self._tight = False
        for attempt in range(3):
            part = Commit(commit.messages, commit.checkpoints) if self._tight else commit
            try:
                self._write(part)
            except sqlite3.Error as error:
                self.counters.errors += 1
                if is_corrupt(error):
                    self._database.replace(str(error), now_s)
                    self._count()
                    continue
                if is_locked(error):
                    log.warning("store %s: %s; end what holds the file", self._database.path, error)
                    return False  # waiting again would only hold up the next step
                if not self._tight:
                    log.error("store %s: %s; no history until the disk has room again", self._database.path, error)
                self._tight = True
                self._database.make_room()
                if attempt == 1:
                    self._give_up_history()
            else:
                self.counters.dropped_history += len(commit.history) - len(part.history)
                return True
        return False

    def _write(self, commit: Commit) -> None:
        """One transaction."""
        evicted = 0
        with self._database.transaction(full=commit.durable) as db:
            added = [m for m in commit.messages if statements.queue(db, m)]
            self._probe("store.inserted")
            for name, state in commit.checkpoints.items():
                db.execute("REPLACE INTO checkpoint VALUES (?, ?, ?)", (name, state, checksum(name, state)))
            if commit.history:
                statements.add_history(db, commit.meters, commit.history, self._history_s)
            messages = self.counters.messages + len(added)
            size = self.counters.bytes + sum(len(m.body) for m in added)
            if size > self._outbox_bytes:
                evicted, freed = statements.evict(db, size - self._outbox_bytes)
                messages, size = messages - evicted, size - freed
            self._probe("store.before-commit")
        self._probe("store.after-commit")
        self.counters.messages, self.counters.bytes = messages, size
        self.counters.evicted += evicted

    def _give_up_history(self) -> None:
        """Free pages inside the file: the older half of the history."""
        try:
            with self._database.transaction(full=False) as db:
                statements.give_up_older_half(db)
        except sqlite3.Error as error:
            log.warning("store %s: no room could be made: %s", self._database.path, error)
        self._database.make_room()

    def _hold(self, commit: Commit) -> None:
        """Keep a step in memory until it can be written."""
        self._held_checkpoints |= commit.checkpoints
        for message in commit.messages:
            self._held[self._next_held] = Outgoing(self._next_held, message)
            self._next_held -= 1
        while len(self._held) > HELD_MAX:
            worst = max(self._held.values(), key=lambda o: (o.message.priority, -o.message.time_s))
            del self._held[worst.id]
            self.counters.evicted += 1

    def _wall_of_held(self) -> float:
        return max((o.message.time_s for o in self._held.values()), default=0.0)

    # -- outbox -------------------------------------------------------------------------------------------------------

    def pending(self, limit: int, priorities: Collection[Priority], without: Collection[int] = ()) -> list[Outgoing]:
        """The next `limit` messages: by priority, then the least refused, then the newest; none of `without`."""
        turns = sorted(priorities)
        with self._lock:
            found = [o for o in self._held.values() if o.message.priority in turns and o.id not in without]
            for priority in turns:
                if len(found) >= limit:
                    break
                try:
                    waiting = self._database.connection.execute(
                        f"SELECT {_ROW} FROM outbox WHERE priority = ? ORDER BY attempts, time_s DESC, id DESC LIMIT ?",
                        (priority, limit - len(found) + len(without)),
                    ).fetchall()
                except sqlite3.Error as error:
                    self._note(error)
                    break
                found += [o for o in map(_outgoing, waiting) if o.id not in without]
        found.sort(key=lambda o: (o.message.priority, o.attempts, -o.message.time_s))
        return found[:limit]

    def delete(self, ids: Collection[int]) -> bool:
        """Those arrived, or are past their time: take them out of the outbox. False if it could not be written."""
        with self._lock:
            self._probe("store.before-delete")
            for held in [i for i in ids if i < 0]:
                self._held.pop(held, None)
            written = [(i,) for i in ids if i >= 0]
            for attempt in range(2):
                try:
                    with self._database.transaction(full=False) as db:
                        gone = [
                            size
                            for row in written
                            for (size,) in db.execute("DELETE FROM outbox WHERE id = ? RETURNING length(body)", row)
                        ]
                except sqlite3.Error as error:
                    self._note(error)
                    if attempt or is_locked(error):
                        return False
                    self._database.make_room()
                else:
                    self.counters.messages -= len(gone)
                    self.counters.bytes -= sum(gone)
                    break
            self._probe("store.deleted")
        return True

    def refused(self, row: int) -> None:
        """The broker did not take it: it goes behind the others of its priority."""
        with self._lock:
            try:
                with self._database.transaction(full=False) as db:
                    db.execute("UPDATE outbox SET attempts = attempts + 1 WHERE id = ?", (row,))
            except sqlite3.Error as error:
                self._note(error)

    def delete_keys(self, keys: Collection[str]) -> int:
        """End-to-end delivery: the backend has these events for good; how many of them still waited."""
        with self._lock:
            try:
                waiting = [
                    row[0]
                    for key in keys
                    for row in self._database.connection.execute("SELECT id FROM outbox WHERE key = ?", (key,))
                ]
            except sqlite3.Error as error:
                self._note(error)
                return 0
            waiting += [o.id for o in self._held.values() if o.message.key in keys]
            self.delete(waiting)
            return len(waiting)

    def oldest_s(self) -> float | None:
        """Measurement time of the oldest message that waits."""
        with self._lock:
            try:
                (oldest,) = self._database.connection.execute("SELECT min(time_s) FROM outbox").fetchone()
            except sqlite3.Error as error:
                self._note(error)
                return None
        return None if oldest is None else float(oldest)

    def _count(self) -> None:
        try:
            messages, size = self._database.connection.execute(
                "SELECT count(*), coalesce(sum(length(body)), 0) FROM outbox"
            ).fetchone()
        except sqlite3.Error as error:
            self._note(error)
        else:
            self.counters.messages, self.counters.bytes = messages, size

    def _note(self, error: sqlite3.Error) -> None:
        """A read or a delete failed: count it; a corrupt file is replaced by the next commit, which meets it too."""
        self.counters.errors += 1
        log.warning("store %s: %s", self._database.path, error)

    # -- what was said and seen ---------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> bytes | None:
        """The last committed state under `name`; None where there is none, or its checksum is wrong."""
        with self._lock:
            for attempt in range(2):
                try:
                    row = self._database.connection.execute(
                        "SELECT state, crc FROM checkpoint WHERE name = ?", (name,)
                    ).fetchone()
                except sqlite3.Error as error:
                    self._note(error)
                    if attempt or not is_corrupt(error):
                        return None
                    self._database.replace(str(error), self._opened_s)
                    self._count()
                else:
                    return bytes(row[0]) if row is not None and checksum(name, row[0]) == row[1] else None
        return None

    def resend(self, since_s: float, until_s: float, limit: int) -> int:
        """Queue the events of [since_s, until_s] again, newest first, at most `limit`; how many were queued."""
        with self._lock, self._database.transaction(full=True) as db:
            found = db.execute(
                "SELECT suffix, body, schema, key, time_s FROM event WHERE time_s BETWEEN ? AND ?"
                " ORDER BY time_s DESC LIMIT ?",
                (since_s, until_s, limit),
            ).fetchall()
            queued = 0
            for suffix, body, schema, key, time_s in found:
                priority = Priority.ALERT if suffix == "event/alert" else Priority.TAMPER
                queued += statements.queue_again(db, Message(suffix, body, schema, priority, key, time_s))
        self._count()
        if queued and self._on_commit is not None:
            self._on_commit(Priority.ALERT)
        return queued

    def history(self, since_s: float, until_s: float, meters: Sequence[str]) -> StoredHistory:
        """The rows of [since_s, until_s], oldest first, in the order of `meters`; NaN for a meter not in a row."""
        with self._lock:
            try:
                return read_history(self._database.connection, since_s, until_s, meters)
            except sqlite3.Error as error:
                self._note(error)
                return StoredHistory.of_nothing(len(meters))

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer_of(self, command_id: str) -> bytes | None:
        """What was answered to this command before; None if it is new."""
        with self._lock:
            row = self._database.connection.execute("SELECT answer FROM command WHERE id = ?", (command_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def note_command(self, command_id: str, expires_s: float, answer: bytes, now_s: float) -> None:
        """Remember a command until it has expired: before it is carried out, and again with its answer.

        Raises:
            sqlite3.Error: it could not be made durable, so it must not be carried out.
        """
        with self._lock, self._database.transaction(full=True) as db:
            db.execute("REPLACE INTO command VALUES (?, ?, ?)", (command_id, expires_s, answer))
            # The newest thousand stay in any case: a clock that jumped ahead must not make old commands new again.
            db.execute(
                "DELETE FROM command WHERE expires_s < ? AND id NOT IN"
                " (SELECT id FROM command ORDER BY expires_s DESC LIMIT 1000)",
                (now_s - 86400.0,),
            )


def _outgoing(row: tuple[int, int, int, float, float | None, str, str, str, bytes]) -> Outgoing:
    number, priority, attempts, time_s, expires_s, suffix, schema, key, body = row
    return Outgoing(number, Message(suffix, body, schema, Priority(priority), key, time_s, expires_s), attempts)
