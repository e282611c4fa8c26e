"""What the store holds of one case, as the lines `topic body` from which the evidence page is made."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agent import wire
from agent.utility.fleet.outcomes import find
from agent.utility.sql.server import StoreMisfit
from agent.utility.sql.store import Store


def full_id(store: Store, alert_id: str, gateway: str | None = None) -> str:
    """The whole id of an alert that is named by its beginning.

    Raises:
        StoreMisfit: no such alert, or several.
    """
    key, _ = find(store, alert_id, gateway)
    return str(store.rows("SELECT alert_id FROM alert WHERE alert_key = ?", (key,))[0][0])


def messages(store: Store, alert_id: str, gateway: str | None = None) -> Iterator[str]:
    """The gateway's info, the alert's revisions and its intervals, oldest first.

    Raises:
        StoreMisfit: no such alert, several gateways have one of this id, or only its state has come.
    """
    key, name = find(store, alert_id, gateway)
    address = wire.Address(*name.split("/"))
    infos = store.rows(
        "SELECT i.body FROM gateway_info i JOIN alert a ON a.gateway_key = i.gateway_key WHERE a.alert_key = ?", (key,)
    )
    for (body,) in infos:
        yield f"{address.topic('info')} {body}"
    alert_id = full_id(store, alert_id, name)
    revisions = store.rows("SELECT body FROM alert_event WHERE alert_key = ? ORDER BY revision", (key,))
    if not revisions:
        raise StoreMisfit(
            f"only the state of alert {alert_id} is known, no revision of it has come: ask {name} for it with the "
            "command resend"
        )
    for (body,) in revisions:
        yield f"{address.topic('event/alert')} {body}"
    bodies = store.rows("SELECT body FROM evidence_chunk WHERE alert_key = ? ORDER BY start_s", (key,))
    for n, (body,) in enumerate(bodies, 1):
        # Numbered anew: the chunks may be those of several reports.
        chunk = msgspec.structs.replace(wire.decode(wire.EvidenceChunk, str(body).encode()), n=n, of=len(bodies))
        yield f"{address.topic(wire.evidence_suffix(alert_id, n, len(bodies)))} {wire.encode(chunk).decode()}"
