"""How the page is run: everything that the command line decides, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING

from agent.utility.fleet.promise import PROMISED_A_YEAR
from agent.utility.sql.store import Store
from agent.utility.web.signin.people import Proxy

if TYPE_CHECKING:
    from agent.utility.web.signin.oidc import Oidc

# The evidence page of a case from the store: (store, "tenant/site/gateway", alert id) -> a whole HTML file. Raises
# ValueError with the reason why there is none.
Evidence = Callable[[Store, str, str], str]


@dataclass(frozen=True, slots=True)
class Settings:
    """`price` is money for a kWh."""

    dsn: str
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "::1"})
    proxy: Proxy | None = None  # one of the two signs people in, or nobody does
    oidc: Oidc | None = None
    price: float | None = None
    currency: str = ""
    zone: tzinfo = UTC
    refresh_s: int = 60
    days: int = 30
    promised_a_year: float = PROMISED_A_YEAR
    requests_per_s: float = 50.0  # of one person, or of one address where nobody signs in
    burst: int = 200
    secure: bool = False
    session_hours: float = 8.0
    evidence: Evidence | None = None
    evidence_script: str = "'none'"  # its one script, as a Content-Security-Policy names it

    def promising(self, a_year: float) -> Settings:
        """The same with another promised rate of false alarms, a building and year."""
        return replace(self, promised_a_year=a_year)
