"""How the page is run: everything that the command line decides, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

from agent.utility.fleet.promise import PROMISED_A_YEAR
from agent.utility.sql.store import Store
from agent.utility.web.people import Proxy

# The evidence page of a case from the store: (store, "tenant/site/gateway", alert id) -> a whole HTML file. Raises
# ValueError with the reason why there is none.
Evidence = Callable[[Store, str, str], str]


@dataclass(frozen=True, slots=True)
class Settings:
    """`price` is money for a kWh."""

    dsn: str
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    proxy: Proxy | None = None
    price: float | None = None
    currency: str = ""
    zone: tzinfo = UTC
    refresh_s: int = 60
    days: int = 30
    promised_a_year: float = PROMISED_A_YEAR
    requests_per_s: float = 50.0  # of one person, or of one address where nobody signs in
    burst: int = 200
    secure: bool = False
    evidence: Evidence | None = None

    def promising(self, a_year: float) -> Settings:
        """The same with another promised rate of false alarms, a building and year."""
        return replace(self, promised_a_year=a_year)
