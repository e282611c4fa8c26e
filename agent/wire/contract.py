"""The wire contract in machine form: JSON Schemas and an AsyncAPI 3 document, made from the structs of agent.wire.

Run `python -m agent.wire.contract docs` to write them; a test holds the files in docs/ against what this module makes.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.wire.codec import SCHEMAS

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Channel(NamedTuple):
    """One topic: its suffix, who sends, the schema, QoS, retained, expiry in seconds, and what it is for."""

    suffix: str
    up: bool
    schema: str
    qos: int
    retain: bool
    expiry_s: int | None
    about: str


CHANNELS = (
    Channel("status", True, "checkmeter.status.v1", 1, True, None, "Online, degraded, offline; also the last will."),
    Channel("info", True, "checkmeter.info.v1", 1, True, None, "Meters, zones, versions, digests, schema ids."),
    Channel("health", True, "checkmeter.health.v1", 0, False, 180, "Buses, meters, queue, CPU, memory; every 60 s."),
    Channel("event/alert", True, "checkmeter.alert.v1", 1, False, None, "One transition of one alert."),
    Channel("event/tamper", True, "checkmeter.tamper.v1", 1, False, None, "An entry of a meter's event log."),
    Channel("active", True, "checkmeter.active.v1", 1, True, None, "The open alerts, as a snapshot."),
    Channel("balance/{zone}", True, "checkmeter.balance.v1", 1, False, 604800, "One interval of one zone."),
    Channel("forecast/{zone}", True, "checkmeter.forecast.v1", 1, True, None, "The next 48 h of one zone; hourly."),
    Channel("live/{zone}", True, "checkmeter.live.v1", 0, False, 5, "The balance of the moment, if it is asked for."),
    Channel("register/{meter}", True, "checkmeter.register.v1", 1, True, None, "Water, heat, gas: what a meter shows."),
    Channel("evidence/{alert_id}/{n}-{of}", True, "checkmeter.evidence.v1", 1, False, None, "Intervals of a case."),
    Channel("cmd/res", True, "checkmeter.result.v1", 1, False, None, "The answer to a command."),
    Channel("config/reported", True, "checkmeter.reported.v1", 1, True, None, "What became of a desired file."),
    Channel("model/reported", True, "checkmeter.reported.v1", 1, True, None, "What became of a desired model."),
    Channel("ack", False, "checkmeter.ack.v1", 1, False, None, "End-to-end delivery: events stored for good."),
    Channel("cmd/req", False, "checkmeter.signed.v1", 1, False, None, "A signed command (checkmeter.command.v1)."),
    Channel("config/desired", False, "checkmeter.signed.v1", 1, True, None, "Signed checkmeter.config-desired.v1."),
    Channel("model/desired", False, "checkmeter.signed.v1", 1, True, None, "Signed checkmeter.model-desired.v1."),
)  # fmt: skip


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message."""
    struct = SCHEMAS[name]
    made: dict[str, Any] = msgspec.json.schema(struct)
    for definition in made["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    if not struct.__struct_config__.omit_defaults:  # then every field is there, also one that has a default
        top = made["$defs"][struct.__name__]
        top["required"] = list(top["properties"])
    return {"$schema": SCHEMA_DIALECT, "$id": f"urn:checkmeter:schema:{name}", "title": name, **made}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document, from the utility's point of view turned round: the gateway is the application."""
    channels, operations, messages = {}, {}, {}
    for item in CHANNELS:
        key = item.suffix.replace("/", "-").replace("{", "").replace("}", "")
        names = [*("tenant", "site", "gateway"), *(p.split("}")[0] for p in item.suffix.split("{")[1:])]
        message = item.schema.removeprefix("checkmeter.").replace(".", "-")
        messages[message] = {
            "name": item.schema,
            "contentType": "application/cloudevents+json"
            if message in ("alert-v1", "tamper-v1")
            else "application/json",
            "payload": {
                "schemaFormat": "application/schema+json;version=draft-2020-12",
                "schema": {"$ref": f"./schemas/{item.schema}.json"},
            },
        }
        channels[key] = {
            "address": "checkmeter/v1/{tenant}/{site}/{gateway}/" + item.suffix,
            "description": item.about,
            "parameters": {name: {"description": _PARAMETERS[name]} for name in names},
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        }
        mqtt: dict[str, Any] = {"qos": item.qos, "retain": item.retain, "bindingVersion": "0.2.0"}
        if item.expiry_s is not None:
            mqtt["messageExpiryInterval"] = item.expiry_s
        operations[key] = {
            "action": "send" if item.up else "receive",
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": [{"$ref": f"#/channels/{key}/messages/{message}"}],
            "bindings": {"mqtt": mqtt},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "checkmeter gateway",
            "version": "1",
            "description": "What a gateway sends and what it receives. Dedupe events on `id`; order the revisions of "
            "an alert by (`alert_id`, `revision`). See mqtt.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "utility": {
                "host": "broker.example:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "5.0",
                "bindings": {
                    "mqtt": {
                        "cleanSession": False,
                        "lastWill": {
                            "topic": "checkmeter/v1/{tenant}/{site}/{gateway}/status",
                            "qos": 1,
                            "retain": True,
                        },
                        "keepAlive": 60,
                        "sessionExpiryInterval": 604800,
                        "bindingVersion": "0.2.0",
                    }
                },
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


_PARAMETERS = {
    "tenant": "The utility's name for itself or its customer.",
    "meter": "The meter, as the site file calls it.",
    "site": "The building.",
    "gateway": "The gateway; equals the client id and the common name of its certificate.",
    "zone": "The balance that is meant.",
    "alert_id": "The alert that the evidence belongs to.",
    "n": "Number of the chunk, from 1.",
    "of": "How many chunks there are.",
}


def files() -> dict[str, str]:
    """Path below docs/ -> content, of all that is made here."""

    def pretty(value: dict[str, Any]) -> str:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"

    return {"asyncapi.json": pretty(asyncapi())} | {f"schemas/{name}.json": pretty(schema(name)) for name in SCHEMAS}


def write(folder: Path) -> None:
    """Write all of it below `folder`."""
    for name, content in files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
