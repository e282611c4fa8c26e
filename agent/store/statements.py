"""Writing the store's tables, inside a transaction that is somebody else's (reading them: agent.store.history)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from agent.store.commit import Answered
from agent.store.messages import Message, Priority
from agent.store.schema import checksum
from core.registers.booked import HistoryRow

PRUNE_ROWS = 500  # per commit: bounds the time a commit takes, and what a clock that jumped ahead can wipe at once


def queue(db: sqlite3.Connection, m: Message) -> bool:
    """Queue a message, once: an event that was ever queued under its key is not queued again."""
    if m.priority <= Priority.TAMPER:
        seal = checksum(m.suffix, m.schema, m.key, m.body)
        row = (m.key, m.time_s, m.suffix, m.schema, m.body, seal)
        columns = "key, time_s, suffix, schema, body, crc"
        if not db.execute(f"INSERT OR IGNORE INTO event ({columns}) VALUES (?, ?, ?, ?, ?, ?)", row).rowcount:
            return False
    return queue_again(db, m)


def queue_again(db: sqlite3.Connection, m: Message) -> bool:
    """Queue a message unless it waits already."""
    seal = checksum(m.suffix, m.schema, m.key, m.body)
    return bool(
        db.execute(
            "INSERT OR IGNORE INTO outbox (priority, time_s, expires_s, suffix, schema, key, body, crc)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (m.priority, m.time_s, m.expires_s, m.suffix, m.schema, m.key, m.body, seal),
        ).rowcount
    )


def resend(db: sqlite3.Connection, since_s: float, until_s: float, limit: int) -> int:
    """Queue the events of [since_s, until_s] again, newest first, at most `limit`; how many were queued."""
    queued = 0
    for suffix, body, schema, key, time_s, crc in db.execute(
        "SELECT suffix, body, schema, key, time_s, crc FROM event WHERE time_s BETWEEN ? AND ?"
        " ORDER BY time_s DESC LIMIT ?",
        (since_s, until_s, limit),
    ).fetchall():
        if crc is not None and checksum(suffix, schema, key, body) != crc:
            continue
        priority = Priority.ALERT if suffix == "event/alert" else Priority.TAMPER
        queued += queue_again(db, Message(suffix, body, schema, priority, key, time_s))
    return queued


def is_found(db: sqlite3.Connection, m: Message) -> bool:
    """Whether a message that was just queued is found by the index that decides what is sent next."""
    found = db.execute(
        "SELECT 1 FROM outbox INDEXED BY outbox_turn WHERE priority = ? AND attempts = 0 AND time_s = ? AND key = ?",
        (m.priority, m.time_s, m.key),
    )
    return found.fetchone() is not None


def note_answer(db: sqlite3.Connection, answered: Answered, now_s: float) -> None:
    """Remember what was answered to a command, until it has expired.

    The newest thousand stay in any case: a clock that jumped ahead must not make old commands new again.
    """
    db.execute("REPLACE INTO command VALUES (?, ?, ?)", (answered.command_id, answered.expires_s, answered.answer))
    db.execute(
        "DELETE FROM command WHERE expires_s < ? AND id NOT IN"
        " (SELECT id FROM command ORDER BY expires_s DESC LIMIT 1000)",
        (now_s - 86400.0,),
    )


def put_aside(db: sqlite3.Connection, rows: Sequence[int]) -> int:
    """Move damaged rows out of the way; how many, and keep the latest hundred for whoever wants to look."""
    moved = 0
    for row in rows:
        db.execute("REPLACE INTO damaged SELECT id, suffix, key, body FROM outbox WHERE id = ?", (row,))
        moved += db.execute("DELETE FROM outbox WHERE id = ?", (row,)).rowcount
    db.execute("DELETE FROM damaged WHERE id NOT IN (SELECT id FROM damaged ORDER BY id DESC LIMIT 100)")
    return moved


def evict(db: sqlite3.Connection, excess_bytes: float) -> tuple[int, int]:
    """Give up the oldest of the lowest priority, and only then of the next, but never alerts: how many, and octets."""
    count = size = 0
    for priority in sorted(set(Priority) - {Priority.ALERT}, reverse=True):
        if size >= excess_bytes:
            break
        victims = []
        for row, octets in db.execute(
            "SELECT id, length(body) FROM outbox WHERE priority = ? ORDER BY time_s, id", (priority,)
        ):
            if size >= excess_bytes:
                break
            victims.append((row,))
            size += octets
        db.executemany("DELETE FROM outbox WHERE id = ?", victims)
        count += len(victims)
    return count, size


def add_history(db: sqlite3.Connection, meters: Sequence[str], rows: Sequence[HistoryRow], keep_s: float) -> None:
    """Add rows whose columns are `meters`, and drop as many that are past their time, counted from the newest."""
    columns = msgspec.json.encode(list(meters)).decode()
    db.execute("INSERT OR IGNORE INTO history_meters (meters) VALUES (?)", (columns,))
    (key,) = db.execute("SELECT id FROM history_meters WHERE meters = ?", (columns,)).fetchone()
    db.executemany(
        "REPLACE INTO history VALUES (?, ?, ?, ?, ?)",
        [
            (row.time_s, key, row.wh.astype("<f8").tobytes(), row.sd_wh.astype("<f4").tobytes(), row.flags.tobytes())
            for row in rows
        ],
    )
    oldest_s = max(row.time_s for row in rows) - keep_s
    for table, name in (("history", "time_s"), ("event", "key")):
        old = f"SELECT {name} FROM {table} WHERE time_s < ? ORDER BY time_s LIMIT ?"
        db.execute(f"DELETE FROM {table} WHERE {name} IN ({old})", (oldest_s, PRUNE_ROWS))


def give_up_older_half(db: sqlite3.Connection) -> None:
    """Free pages inside the file: the older half of the history."""
    db.execute(
        "DELETE FROM history WHERE time_s <= (SELECT time_s FROM history ORDER BY time_s"
        " LIMIT 1 OFFSET (SELECT count(*) / 2 FROM history))"
    )
