"""A backend in sixty lines: takes alerts from any number of gateways, each transition once, and in order.

    pip install paho-mqtt
    python subscribe.py mqtt://localhost:1883 --tenant acme

It keeps the three rules of docs/mqtt.md: a message is acknowledged after it was stored, an `id` that was seen before
is dropped, and of an alert's revisions the highest counts. The same in a shell, to look at:

    mosquitto_sub -h localhost -V 5 -q 1 -i desk-1 -c -t 'checkmeter/v1/+/+/+/event/#' -F '%t %p'
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt


def store(database: sqlite3.Connection, payload: bytes) -> str | None:
    """Keep an alert event for good; the line to show, None if it was kept before."""
    event = json.loads(payload)
    alert = event["data"]
    with database:  # one transaction, over when this block ends
        new = database.execute("INSERT OR IGNORE INTO event VALUES (?, ?)", (event["id"], payload)).rowcount
        if not new:
            return None
        database.execute(
            "INSERT INTO alert VALUES (?, ?, ?) ON CONFLICT (alert_id) DO UPDATE SET"
            " revision = excluded.revision, state = excluded.state WHERE excluded.revision > revision",
            (alert["alert_id"], alert["revision"], alert["state"]),
        )
    watts = f" {alert['loss_w']:.0f} W" if alert.get("loss_w") is not None else ""
    who = ", ".join(f"{s['meter']} {s['probability']:.0%}" for s in alert.get("suspects", [])[:3])
    return (
        f"{event['time']} {event['source']} {event['subject']} {alert['state']}: {alert['kind']}{watts} {who}".rstrip()
    )


def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser(description="Print each new alert of all gateways of a tenant.")
    parser.add_argument("url", help="mqtt://host:port or mqtts://host:port")
    parser.add_argument("--tenant", default="+")
    parser.add_argument("--database", default="alerts.sqlite")
    parser.add_argument("--client-id", default="desk-1", help="keep it: the broker keeps the session under it")
    parser.add_argument("--end-to-end", action="store_true", help='for gateways with delivery = "end_to_end"')
    options = parser.parse_args()
    database = sqlite3.connect(options.database)
    database.execute("CREATE TABLE IF NOT EXISTS event (id TEXT PRIMARY KEY, body BLOB)")
    database.execute("CREATE TABLE IF NOT EXISTS alert (alert_id TEXT PRIMARY KEY, revision INTEGER, state TEXT)")

    def on_message(client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        line = store(database, message.payload)
        if line is not None:
            print(line, flush=True)
        client.ack(message.mid, message.qos)  # after COMMIT, never before
        if options.end_to_end:
            topic = message.topic.removesuffix("event/alert") + "ack"
            client.publish(topic, json.dumps({"ids": [json.loads(message.payload)["id"]]}), qos=1)

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=options.client_id, protocol=mqtt.MQTTv5, manual_ack=True
    )
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe(f"checkmeter/v1/{options.tenant}/+/+/event/alert", qos=1)
    session = mqtt.Properties(mqtt.PacketTypes.CONNECT)
    session.SessionExpiryInterval = 7 * 86400
    url = urlsplit(options.url)
    if url.scheme == "mqtts":
        client.tls_set()
    port = url.port or (8883 if url.scheme == "mqtts" else 1883)
    client.connect(url.hostname or "localhost", port, clean_start=False, properties=session)
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
