"""What is TiDB's own: the statements that only it takes, and the list of those that it refuses.

Sources: docs.pingcap.com, "MySQL compatibility", "Best practices for high-concurrency writes", "Split Region",
"AUTO_RANDOM", "TTL", "TiFlash". No TiDB runs in our tests: the list is what stands in for one, beside TiDB's own parser
(`make proof-tidb`), which knows what can be written but not what is carried out. The list is kept at the oldest
version that is still in wide use, so it also names what later versions take (savepoints since 6.2, foreign keys since
6.6, GET_LOCK with limits since 6.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.utility.sql.cases import ALERT_EVENT, TAMPER
from agent.utility.sql.schema import BALANCE, DEAD_LETTER

REGIONS = 16  # of a new table or partition: writes of a new day spread over the stores from its first second
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


class Refusal(NamedTuple):
    """One thing that TiDB refuses or that harms it, as a pattern over a statement without its literals."""

    pattern: str
    reason: str


REFUSALS = (
    Refusal(r"\bFOREIGN\s+KEY\b|\bREFERENCES\b", "foreign keys: ignored before 6.6, costly across regions after"),
    Refusal(r"\bTRIGGER\b", "triggers"),
    Refusal(r"\b(PROCEDURE|FUNCTION)\b|\bCALL\s+\w", "stored procedures and functions"),
    Refusal(r"\bEVENT\b(?!_)", "events"),
    Refusal(r"\bSAVEPOINT\b", "savepoints (before 6.2)"),
    Refusal(r"\b(GET|RELEASE)_LOCK\b", "GET_LOCK (before 6.2)"),
    Refusal(r"\bLOCK\s+(TABLES?|IN\s+SHARE)\b", "LOCK TABLES has no effect, LOCK IN SHARE MODE is refused"),
    Refusal(r"\bFOR\s+SHARE\b|\bSKIP\s+LOCKED\b", "shared row locks, SKIP LOCKED"),
    Refusal(r"\)\s+AS\s+new\b|\bVALUES\s*\(.*\)\s+AS\s+\w+\s+ON\b", "the row alias of INSERT: use VALUES()"),
    Refusal(r"\bRETURNING\b", "RETURNING (MariaDB and SQLite only)"),
    Refusal(r"\bON\s+CONFLICT\b|\bexcluded\.", "SQLite's upsert"),
    Refusal(r"\bREPLACE\s+INTO\b|\bINSERT\s+OR\b|\bINSERT\s+IGNORE\b", "a write that hides why a row was not written"),
    Refusal(r"\bAUTO_INCREMENT\b|\bAUTOINCREMENT\b", "a monotonic key: every insert hits the same region"),
    Refusal(r"\b(FULLTEXT|SPATIAL)\b", "full-text and spatial indexes"),
    Refusal(r"\bWITHOUT\s+ROWID\b|\bPRAGMA\b|\bBEGIN\s+IMMEDIATE\b|\bsqlite_master\b", "SQLite's own"),
    Refusal(r"\bMATERIALIZED\b", "materialized views"),
    Refusal(r"\bXA\s+\w|\bHANDLER\b|\bCREATE\s+TABLESPACE\b|\bUSE\s+FRM\b", "XA, HANDLER, tablespaces"),
    Refusal(r"\bCREATE\s+TABLE\b.*\bAS\s+SELECT\b", "CREATE TABLE AS SELECT"),
    Refusal(r"\bSET\s+(SESSION\s+)?TRANSACTION\b.*\bSERIALIZABLE\b", "SERIALIZABLE"),
    Refusal(r"\bSQL_CALC_FOUND_ROWS\b|\bPROCEDURE\s+ANALYSE\b|\bOPTIMIZE\s+TABLE\b|\bCHECK\s+TABLE\b", "not supported"),
    Refusal(r"\bIN\s*\(\s*VALUES\b", "a table value constructor as a list"),
    Refusal(r"\bUPDATE\b.*\bORDER\s+BY\b(?!.*\bLIMIT\b)", "UPDATE with ORDER BY but no LIMIT"),
    Refusal(r"\bSUBPARTITION\b|\bEXCHANGE\s+PARTITION\b", "subpartitions"),
    Refusal(r"\bCHARACTER\s+SET\s+(?!utf8mb4\b|utf8\b|ascii\b|latin1\b|binary\b|gbk\b)\w+", "this character set"),
    Refusal(r"\bCOLLATE\s+\w*(uca1400|nopad)\w*", "MariaDB's collations"),
    Refusal(r"KEY(\s+\w+)?\s*\(\s*(day|\w+_s|\w+_us|\w+_at)\b", "an index that begins with time: one hot region"),
)  # fmt: skip

_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)


def refusals(statement: str) -> list[str]:
    """Why TiDB would refuse a statement, or suffer from it; empty if it takes it."""
    words = _LITERAL.sub("''", statement)
    return [r.reason for r in REFUSALS if re.search(r.pattern, words, re.IGNORECASE | re.DOTALL)]


def tidb_statements(tiflash_replicas: int, days: Sequence[int]) -> list[str]:
    """The migration that only TiDB sees: regions from the start, TTL, and a columnar replica if asked for.

    PD merges empty regions an hour after a split, so each split table says `merge_option=deny`, each partition of
    `days` (today and ahead) until its day is over; days gone by are not split, nobody writes to them.
    """
    lowest_id, highest_id = "0x" + "00" * 16, "0x" + "FF" * 16
    key_range = {
        "balance_day": f"({_LOWEST}, 0) AND ({_HIGHEST}, 0)",
        "alert": f"({_LOWEST}) AND ({_HIGHEST})",
        ALERT_EVENT.name: f"({lowest_id}) AND ({highest_id})",
        TAMPER.name: f"({lowest_id}) AND ({highest_id})",
    }
    statements = new_partitions(days)
    for name, between in key_range.items():
        statements.append(f"ALTER TABLE {name} ATTRIBUTES 'merge_option=deny'")
        statements.append(f"SPLIT TABLE {name} BETWEEN {between} REGIONS {REGIONS}")
    statements.append(f"ALTER TABLE {DEAD_LETTER.name} TTL = received_at + INTERVAL 30 DAY TTL_ENABLE = 'ON'")
    if tiflash_replicas:  # not of `balance`: the questions read days, and every replica takes all that is written
        statements.append(f"ALTER TABLE balance_day SET TIFLASH REPLICA {tiflash_replicas}")
    return statements


def new_partitions(days: Sequence[int]) -> list[str]:
    """A new partition is one region, to which the whole fleet would write at midnight: split it, and keep it split."""
    between = f"BETWEEN ({_LOWEST}, 0) AND ({_HIGHEST}, 0)"
    names = ", ".join(f"p{day}" for day in days)
    return [
        *(f"ALTER TABLE {BALANCE.name} PARTITION p{day} ATTRIBUTES 'merge_option=deny'" for day in days),
        # Scattering goes on by itself; the ingest, which runs this once a day, does not stand still for it.
        "SET SESSION tidb_wait_split_region_finish = 0",
        f"SPLIT PARTITION TABLE {BALANCE.name} PARTITION ({names}) {between} REGIONS {REGIONS}",
    ]


def after_the_day(days: Iterable[int]) -> list[str]:
    """Partitions that nobody writes to any more may be merged again: regions cost PD heartbeats."""
    return [f"ALTER TABLE {BALANCE.name} PARTITION p{day} ATTRIBUTES DEFAULT" for day in days]
