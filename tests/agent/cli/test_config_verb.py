"""`checkmeter config`: what is shown can be read back, secrets are not in it, and the schema judges as `load` does."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.cli.site.config import reference, site_schema
from agent.site.load import load

SITE = """\
[site]
site = "riverside-12"
gateway = "gw-0012"
[[bus]]
id = "rs485-1"
port = "/dev/ttyUSB0"
[[meter]]
id = "main"
bus = "rs485-1"
address = 16
security = "lls"
password = "credential:key_main"
[[meter]]
id = "flat-1"
bus = "rs485-1"
address = 17
[[zone]]
id = "building"
main = "main"
subs = ["flat-1"]
[mqtt]
url = "mqtts://broker.example"
cim = { "bypass" = "5.21.67.98" }
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


def test_what_is_shown_is_a_site_file_again(site: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["config", "show", str(site)])
    assert shown.exit_code == 0, shown.output
    again = tmp_path / "again.toml"
    again.write_text(shown.output.replace("<redacted>", "credential:key_main"))
    assert load(again) == load(site)


def test_effective_shows_defaults_and_no_secret(site: Path) -> None:
    shown = tomllib.loads(CliRunner().invoke(cli, ["config", "show", "--effective", str(site)]).output)
    assert shown["bus"][0]["poll_s"] == 60.0
    assert shown["meter"][0]["password"] == "<redacted>"
    assert shown["store"]["history_days"] == 120.0


def test_the_documentation_lists_every_key_as_it_is() -> None:
    documented = (Path(__file__).resolve().parents[3] / "docs/configuration.md").read_text()
    assert reference().rstrip() in documented, "write it anew: checkmeter config keys"
    missing = [line for line in reference().splitlines() if line.startswith("|") and line.endswith("|  |")]
    assert not missing


def test_the_schema_accepts_what_load_accepts_and_refuses_what_it_refuses(site: Path) -> None:
    schema = json.loads(CliRunner().invoke(cli, ["config", "schema"]).output)
    assert schema == site_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(SITE), schema)
    for old, new in (("address = 17", "adress = 17"), ('"lls"', '"md5"'), ("credential:key_main", "hunter2")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(SITE.replace(old, new)), schema)
