"""What was promised, held against what inspections found: stated probabilities, and false alarms a building-year.

A probability of 90 % is kept if nine of ten such cases are what was stated. An inspected case with the outcome
"nothing" is a false alarm; a case that nobody has inspected says nothing, so the rate found is a lower bound.
"""

from __future__ import annotations

from typing import NamedTuple

from agent.utility.fleet.queries import Answer, wilson
from agent.utility.sql.store import Store

YEAR_S = 365.25 * 86_400
PROMISED_A_YEAR = 0.1  # false alarms a building and year: the default of [detection] in a site file


def inspected(store: Store) -> Answer:
    """Each inspected case: what was stated of it, and what was found."""
    columns = (
        "alert_id", "tenant", "site", "gateway", "kind", "suspect", "loss_kwh", "stated_probability", "outcome",
        "meter", "inspected_s", "inspector", "confirmed_by", "as_stated", "unexplained_probability",
    )  # fmt: skip
    return Answer(
        columns, store.rows(f"SELECT {', '.join(columns)} FROM inspected_case ORDER BY inspected_s, alert_id")
    )


class Stated(NamedTuple):
    """The cases whose stated probability lies in one tenth, and the share of them that was as stated."""

    from_percent: int
    inspected: int
    stated_percent: float
    found_percent: float
    at_least_percent: float
    at_most_percent: float

    @property
    def kept(self) -> bool:
        """Whether the stated probability lies inside the 95 % interval of what was found."""
        return self.at_least_percent <= self.stated_percent <= self.at_most_percent


def stated(store: Store) -> list[Stated]:
    """Stated probabilities against what was found, by tenths."""
    rows = store.rows(
        "SELECT from_percent, inspected, stated_percent, as_stated FROM stated_against_found ORDER BY from_percent"
    )
    out = []
    for tenth, n, percent, hits in rows:
        count, right = int(str(n)), int(float(str(hits)))
        low, high = wilson(right, count)
        found = 100.0 * right / count
        out.append(Stated(int(float(str(tenth))), count, float(str(percent)), found, 100 * low, 100 * high))
    return out


class FalseAlarms(NamedTuple):
    """False alarms that were found, over the time that the fleet was watched."""

    found: int
    inspected: int
    zone_years: float

    @property
    def a_year(self) -> float | None:
        """Found false alarms a zone and year; None before the fleet was watched for a zone-month."""
        return self.found / self.zone_years if self.zone_years >= 1 / 12 else None


def false_alarms(store: Store) -> FalseAlarms:
    """Of all inspected cases, over all days in the store."""
    found, count = store.rows(
        "SELECT COALESCE(SUM(CASE WHEN outcome = 'nothing' THEN 1 ELSE 0 END), 0), COUNT(*) FROM inspected_case"
    )[0]
    known_s = store.rows("SELECT COALESCE(SUM(known_s), 0) FROM balance_day")[0][0]
    return FalseAlarms(int(float(str(found))), int(str(count)), float(str(known_s)) / YEAR_S)
