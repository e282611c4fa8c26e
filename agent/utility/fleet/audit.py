"""The audit log: who changed what, on the page or with a verb. An entry is written in the transaction of its change."""

from __future__ import annotations

import uuid

from agent.utility.sql.schema import AUDIT
from agent.utility.sql.statements import Row
from agent.utility.sql.table import Table

SHELL = "shell"  # the role of somebody with a verb: who may open the store may write to it, and says a name


def entry(who: str, role: str, action: str, subject: str, detail: str, at_s: float) -> tuple[Table, Row]:
    """A row of the log, to be written beside the change."""
    row = (uuid.uuid4().bytes, who[:64], role[:16], action[:32], subject[:255], detail[:255] or None, int(at_s))
    return AUDIT, row
