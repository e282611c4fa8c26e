"""`checkmeter config`: the configuration in effect, and the JSON Schema by which an editor checks site files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec

from agent.site.edit import text_of
from agent.site.load import load
from agent.site.tables import Config

SECRETS = ("password", "authentication_key", "encryption_key", "key")


@click.group("config")
def command() -> None:
    """Show the configuration in effect, or the schema of site files."""


@command.command()
@click.argument("site_file", metavar="SITE.toml", type=click.Path(path_type=Path))
@click.option("--effective", is_flag=True, help="Also what the file leaves to its default.")
@click.option("--json", "as_json", is_flag=True, help="As JSON instead of TOML.")
def show(site_file: Path, effective: bool, as_json: bool) -> None:
    """Show a site file with its conf.d merged in. References of secrets are not followed, and redacted."""
    tree = msgspec.to_builtins(load(site_file))
    if not effective:
        tree = _given(tree, msgspec.to_builtins(_defaults()))
    tree = _redacted(tree)
    click.echo(json.dumps(tree, indent=2) if as_json else text_of(tree).rstrip("\n"))


@command.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of site files: editors such as VS Code (Even Better TOML) check by it."""
    click.echo(json.dumps(site_schema(), indent=2))


@command.command()
def keys() -> None:
    """Print every table and key with its default and meaning, as Markdown."""
    click.echo(reference())


def reference() -> str:
    """All tables and keys of a site file as Markdown tables."""
    lines = []
    for name, kind in _tables().items():
        plural = name in ("bus", "meter", "zone")
        about = (kind.__doc__ or "").split(": ", 1)[-1]
        lines += [f"### `[[{name}]]`" if plural else f"### `[{name}]`", "", about[:1].upper() + about[1:], ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        described = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
        for field in msgspec.structs.fields(kind):
            default = _default(field)
            lines.append(f"| `{field.name}` | {default} | {described[field.name].get('description', '')} |")
        lines.append("")
    return "\n".join(lines)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return "" if value is None else f"`{json.dumps(value)}`"


def site_schema() -> dict[str, Any]:
    """The JSON Schema of a site file."""
    made = msgspec.json.schema(Config)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "checkmeter site file", **made}


def _defaults() -> dict[str, Any]:
    """Defaults by the name of the table."""
    return {
        name: {f.name: f.default for f in msgspec.structs.fields(kind) if f.default is not msgspec.NODEFAULT}
        for name, kind in _tables().items()
    }


def _tables() -> dict[str, type[msgspec.Struct]]:
    from agent.site import tables

    return {
        "site": tables.Site, "bus": tables.Bus, "meter": tables.Meter, "zone": tables.Zone, "mqtt": tables.Mqtt,
        "detection": tables.Detection, "forecast": tables.Forecast, "store": tables.Store, "service": tables.Service,
    }  # fmt: skip


def _given(tree: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Without what equals its default."""

    def lean(table: str, row: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in row.items() if v not in (None, []) and v != defaults.get(table, {}).get(k)}

    shown: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, list):
            shown[name] = [lean(name, row) for row in value]
        elif isinstance(value, dict):
            shown[name] = lean(name, value)
    return {name: value for name, value in shown.items() if value}


def _redacted(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: "<redacted>" if k in SECRETS and v is not None else _redacted(v) for k, v in node.items()}
    return [_redacted(item) for item in node] if isinstance(node, list) else node
