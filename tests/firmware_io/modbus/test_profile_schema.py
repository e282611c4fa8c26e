"""The JSON Schema of device profiles: it is current, fits every shipped one, and refuses what the reader refuses."""

from __future__ import annotations

import tomllib
from importlib import resources

import jsonschema
import pytest

from firmware_io.modbus.profile_file import ProfileError, parse, shipped
from firmware_io.modbus.profile_schema import json_schema, text

FOLDER = resources.files("firmware_io.modbus") / "profiles"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
GOOD = (FOLDER / "carlo-gavazzi-em340.toml").read_text("utf-8")

WRONG = [
    ("sclae = 100", "scale = 100", "unknown key sclae"),
    ('phases = "three"', "phases = 3", "phases is 'three'; expected int"),
    ("phases = 2", "phases = 3", "phases is 1 or 3"),
    ('type = "int33"', 'type = "int32"', "type 'int33' is none"),
    ('word_order = "middle"', 'word_order = "little"', "word_order is big"),
    ("function = 5", "function = 4", "function is 3 or 4"),
    ("[registers.energy_imprt]", "[registers.energy_import]", "unknown register energy_imprt"),
    ("[regsters.energy_import]", "[registers.energy_import]", "unknown table"),
    ("max_registers = 500", "max_registers = 50", "a reply holds 1 to 125"),
    ("resolution_wh = 0", "resolution_wh = 100", "resolution_wh is 0"),
    ("codes = []", "codes = ", "codes is empty"),
    ("verified = 1", "verified = false", "verified is 1; expected bool"),
]


def test_the_shipped_schema_is_current_and_a_schema() -> None:
    """Renew it: python -m firmware_io.modbus.profile_schema > firmware_io/modbus/profiles/schema.json"""
    assert (FOLDER / "schema.json").read_text("utf-8") == text()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_profile_fits(name: str) -> None:
    VALIDATOR.validate(tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")))


def wrong(new: str, old: str) -> str:
    assert old in GOOD, old
    at = GOOD.index(old)
    end = at + len(old) if not old.endswith("= ") else GOOD.index("\n", at)
    return GOOD[:at] + new + GOOD[end:]


@pytest.mark.parametrize(("new", "old", "message"), WRONG)
def test_what_the_reader_refuses_with_its_line_the_schema_refuses_too(new: str, old: str, message: str) -> None:
    spoiled = wrong(new, old)
    line = 1 + GOOD[: GOOD.index(old)].count("\n")
    with pytest.raises(ProfileError, match=message) as refused:
        parse("mine", spoiled)
    file, told, _ = str(refused.value).split(":", 2)
    assert (file, int(told)) == ("mine.toml", line), str(refused.value)
    assert not VALIDATOR.is_valid(tomllib.loads(spoiled))
