"""Tables to take away: CSV, and Parquet where pyarrow is installed. It knows columns and rows, no pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from importlib.util import find_spec

from agent.utility.fleet import promise, queries, realised
from agent.utility.fleet.queries import Answer
from agent.utility.fleet.spreadsheet import cell
from agent.utility.sql.store import Store

TOP = 1_000_000

Ask = Callable[[Store, float], Answer]
EXPORTS: dict[str, Ask] = {
    "losses": lambda store, now_s: queries.losses(store, now_s, 30, TOP),
    "cases": lambda store, now_s: queries.cases(store, now_s, TOP),
    "gateways": lambda store, now_s: queries.gateways(store, now_s, 2.0, TOP),
    "trend": lambda store, now_s: queries.trend(store, now_s, 365),
    "precision": lambda store, _: queries.precision(store),
    "forecast-skill": lambda store, now_s: realised.skill(store, now_s, 90),
    "inspected": lambda store, _: promise.inspected(store),
}


def parquet_is_there() -> bool:
    """Whether pyarrow is installed (the extra `parquet`)."""
    return find_spec("pyarrow") is not None


def as_csv(answer: Answer) -> bytes:
    """CSV in UTF-8 with a byte order mark, which spreadsheets need; no cell can be taken for a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(answer.columns)
    writer.writerows([cell(value) for value in row] for row in answer.rows)
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def as_parquet(answer: Answer) -> bytes:
    """Parquet, a column's type by its values."""
    import pyarrow
    import pyarrow.parquet

    columns = {name: pyarrow.array([_plain(row[n]) for row in answer.rows]) for n, name in enumerate(answer.columns)}
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _plain(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
