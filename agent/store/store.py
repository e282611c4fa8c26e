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
from typing import Any

from agent.store import checkpoints, statements
from agent.store.checkpoints import Checkpoints
from agent.store.commit import Answered, Commit, Counters, Outgoing, no_probe
from agent.store.database import Database, corrupt, is_corrupt, is_locked
from agent.store.held import Held
from agent.store.history import read_history
from agent.store.messages import Priority
from agent.store.outbox_row import COLUMNS, outgoing
from core.registers.booked import StoredHistory

log = logging.getLogger(__name__)

# Rows whose priority is none of ours any more would never be asked for.
_NO_PRIORITY = (f"(priority < 0 OR priority > {max(Priority)} OR priority IS NULL) AND ? IS NULL", None)

YEAR_9999_S = 253_370_764_800.0
LOOK_S = 5.0  # between two looks whether the file is still there


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
        self._held = Held()
        self._checkpoints = Checkpoints()
        self._looked_s = now_s
        self._recount = False  # the file was replaced: what waits is counted again with the next commit
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
            if self._held.waits:
                self.commit(Commit(), self._held.newest_s)
            self._database.close()

    # -- commit -------------------------------------------------------------------------------------------------------

    def commit(self, commit: Commit, now_s: float) -> bool:
        """Commit all of it, or hold it in memory where nothing can be written now (then False).

        Never raises for a full, locked, torn or vanished file: reading meters goes on.
        """
        with self._lock:
            self._probe("store.begin")
            self._check_file(now_s)
            done = self._commit_somehow(self._held.before(commit), now_s)
            if done:
                self._held.clear()
            else:
                self.counters.evicted += self._held.hold(commit)
            self._probe("store.committed")
        if commit.messages and self._on_commit is not None:
            self._on_commit(min(m.priority for m in commit.messages))
        return done

    def _commit_somehow(self, commit: Commit, now_s: float) -> bool:
        """Try with all, then after making room and without history, then with the older history given up."""
        if self._tight and self._database.fill_ballast():
            log.info("store %s: there is room again, history goes on", self._database.path)
            self._tight = False
        if self._recount:
            self._recount = False
            self._count()
        for attempt in range(3):
            part = Commit(commit.messages, commit.checkpoints, answers=commit.answers) if self._tight else commit
            try:
                self._write(part, now_s)
            except sqlite3.Error as error:
                self.counters.errors += 1
                if is_corrupt(error):
                    self._database.replace(str(error), now_s)
                    self._checkpoints.forget()
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

    def _write(self, commit: Commit, now_s: float) -> None:
        """One transaction."""
        evicted = 0
        with self._database.transaction(full=commit.durable) as db:
            added = [m for m in commit.messages if statements.queue(db, m)]
            if any(m.priority <= Priority.TAMPER and not statements.is_found(db, m) for m in added):
                raise corrupt("an alert that was just queued is not found again: an index is damaged")
            for answered in commit.answers:
                statements.note_answer(db, answered, now_s)
            self._probe("store.inserted")
            sums = self._checkpoints.write(db, commit.checkpoints)
            if commit.history:
                statements.add_history(db, commit.meters, commit.history, self._history_s)
            messages = self.counters.messages + len(added)
            size = self.counters.bytes + sum(len(m.body) for m in added)
            if size > self._outbox_bytes:
                evicted, freed = statements.evict(db, size - self._outbox_bytes)
                messages, size = messages - evicted, size - freed
            self._probe("store.before-commit")
        self._probe("store.after-commit")
        self._checkpoints.committed(sums)
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

    # -- outbox -------------------------------------------------------------------------------------------------------

    def pending(self, limit: int, priorities: Collection[Priority], without: Collection[int] = ()) -> list[Outgoing]:
        """The next `limit` messages: by priority, then the least refused, then the newest; none of `without`."""
        turns = sorted(priorities)
        with self._lock:
            found = self._held.pending(turns, without)
            damaged: list[int] = []
            for where, value in [("priority = ?", priority) for priority in turns] + [_NO_PRIORITY]:
                if len(found) >= limit:
                    break
                room = limit - len(found) + len(without)
                waiting = self._read(
                    f"SELECT {COLUMNS} FROM outbox WHERE {where} ORDER BY attempts, time_s DESC, id DESC LIMIT ?",
                    (value, room),
                )
                for row in waiting:
                    out = outgoing(row)
                    if out is None:
                        damaged.append(row[0])
                    elif out.id not in without and out.message.priority in turns:
                        found.append(out)
            if damaged:
                self._put_rows_aside(damaged)
        found.sort(key=lambda o: (o.message.priority, o.attempts, -o.message.time_s))
        return found[:limit]

    def _put_rows_aside(self, rows: Sequence[int]) -> None:
        """Rows whose checksum is wrong: out of the way, counted and told; what is whole goes on."""
        log.error("store %s: %d damaged messages were put aside", self._database.path, len(rows))
        try:
            with self._database.transaction(full=False) as db:
                self.counters.damaged += statements.put_aside(db, rows)
        except sqlite3.Error as error:
            self._note(error)
        self._count()

    def _read(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a query; none where the file cannot be read now. A corrupt file is replaced, and asked again."""
        for attempt in range(2):
            try:
                return self._database.connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                self._note(error)
                if attempt or not is_corrupt(error):
                    break
        return []

    def delete(self, ids: Collection[int]) -> bool:
        """Those arrived, or are past their time: take them out of the outbox. False if it could not be written."""
        with self._lock:
            self._probe("store.before-delete")
            self._held.delete(ids)
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
            waiting = [row[0] for key in keys for row in self._read("SELECT id FROM outbox WHERE key = ?", (key,))]
            waiting += self._held.ids_of(keys)
            self.delete(waiting)
            return len(waiting)

    def oldest_s(self) -> float | None:
        """Measurement time of the oldest message that waits."""
        with self._lock:
            rows = self._read("SELECT min(time_s) FROM outbox")
        oldest_s = rows[0][0] if rows else None
        return oldest_s if isinstance(oldest_s, float) else None

    def _count(self) -> None:
        rows = self._read("SELECT count(*), coalesce(sum(length(body)), 0) FROM outbox")
        if rows:
            self.counters.messages, self.counters.bytes = rows[0]

    def _note(self, error: sqlite3.Error) -> None:
        """A read or a delete failed: count it, and replace a corrupt file at once: no commit may ever meet it."""
        self.counters.errors += 1
        log.warning("store %s: %s", self._database.path, error)
        if is_corrupt(error):
            self._database.replace(str(error), self._looked_s)
            self._checkpoints.forget()
            self._recount = True

    # -- the file -----------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Now and then, from any thread: see whether the file is still there, and write it again if it is not."""
        with self._lock:
            self._check_file(now_s)

    def _check_file(self, now_s: float) -> None:
        if abs(now_s - self._looked_s) < LOOK_S:
            return
        self._looked_s = now_s
        if self._database.look_after_file(now_s):
            self._checkpoints.forget()
            self._count()

    def newest_boundary_s(self) -> float | None:
        """The end of the last interval that was ever committed; None on a first start."""
        with self._lock:
            rows = self._read("SELECT max(time_s) FROM history")
        newest_s = rows[0][0] if rows else None
        return newest_s if isinstance(newest_s, float) and newest_s < YEAR_9999_S else None

    def drop_history_after(self, time_s: float) -> int:
        """Give up the intervals that end after `time_s`, which a wrong clock has put down; how many."""
        with self._lock:
            try:
                with self._database.transaction(full=True) as db:
                    db.execute("DELETE FROM checkpoint WHERE name = 'pipeline' OR name LIKE 'pipeline.%'")
                    self._checkpoints.forget()
                    return db.execute("DELETE FROM history WHERE time_s > ?", (time_s,)).rowcount
            except sqlite3.Error as error:
                self._note(error)
                return 0

    # -- what was said and seen ---------------------------------------------------------------------------------------

    def checkpoint(self, name: str) -> bytes | None:
        """The last committed state under `name`; None where there is none, or its checksum is wrong."""
        with self._lock:
            return checkpoints.read(self._read, name)

    def checkpoints(self, name: str) -> dict[str, bytes]:
        """The last committed states under `name` and `name.*`; without those whose checksum is wrong."""
        with self._lock:
            return checkpoints.read_parts(self._read, name)

    def resend(self, since_s: float, until_s: float, limit: int) -> int:
        """Queue the events of [since_s, until_s] again, newest first, at most `limit`; how many were queued."""
        with self._lock, self._database.transaction(full=True) as db:
            queued = statements.resend(db, since_s, until_s, limit)
        self._count()
        if queued and self._on_commit is not None:
            self._on_commit(Priority.ALERT)
        return queued

    def history(
        self, since_s: float, until_s: float, meters: Sequence[str], every_s: float | None = None
    ) -> StoredHistory:
        """The rows of [since_s, until_s], oldest first, in the order of `meters`; NaN for a meter not in a row.

        `every_s`: only those at its multiples; rows of before may have been shorter.
        """
        with self._lock:
            try:
                return read_history(self._database.connection, since_s, until_s, meters, every_s)
            except sqlite3.Error as error:
                self._note(error)
                return StoredHistory.of_nothing(len(meters))

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer_of(self, command_id: str) -> bytes | None:
        """What was answered to this command before; None if it is new."""
        with self._lock:
            rows = self._read("SELECT answer FROM command WHERE id = ?", (command_id,))
            held = self._held.answer_of(command_id)
        if held is not None:
            return held
        return bytes(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else None

    def note_command(self, command_id: str, expires_s: float, answer: bytes, now_s: float) -> None:
        """Remember a command until it has expired: before it is carried out, and again with its answer.

        Raises:
            sqlite3.Error: it could not be made durable, so it must not be carried out.
        """
        with self._lock, self._database.transaction(full=True) as db:
            statements.note_answer(db, Answered(command_id, expires_s, answer), now_s)
