"""What may be typed for an attribute, a method and a value: refused before a meter is addressed."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli.main import cli
from agent.cli.meter.write import parse
from firmware_io.dlms.apdu.decode import Attribute
from firmware_io.errors import LocalProtocolError
from firmware_io.obis import ObisCode

RAW = re.compile(r"fromhex|format requires|invalid literal|could not convert|codec can't|argument out of range")


@pytest.mark.parametrize(
    "item", ["8:0-0:1.0.0#262=int16:-30", "8:0-0:1.0.0#0", "65536:0-0:1.0.0#2=null", "8:0-0:1.0.0#9999"]
)
@pytest.mark.parametrize("verb", ["call", "write"])
def test_a_number_that_would_be_cut_is_refused(verb: str, item: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, [verb, str(tmp_path / "none.toml"), "main", item, "--yes"])
    assert result.exit_code == 2
    assert "is 1 to 255" in result.output or "is 0 to 65535" in result.output


@pytest.mark.parametrize("attribute", [(8, 262), (8, 256), (8, -129), (65536, 2), (-1, 2)])
def test_an_attribute_that_does_not_fit_is_not_written(attribute: tuple[int, int]) -> None:
    with pytest.raises(LocalProtocolError, match="out of range"):
        Attribute(attribute[0], ObisCode(0, 0, 1, 0, 0), attribute[1]).encode()
    assert Attribute(8, ObisCode(0, 0, 1, 0, 0), -1).encode()[-1] == 0xFF


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("octet-string:zz", "two of 0-9 and a-f"),
        ("uint8:300", "0 to 255"),
        ("enum:-1", "0 to 255"),
        ("int16:40000", "-32768 to 32767"),
        ("int16:x", "whole number"),
        ("uint64:99999999999999999999", "0 to 18446744073709551615"),
        ("float32:x", "no number"),
        ("float32:1e300", "does not fit"),
        ("date-time:07e8", "24 hex digits"),
        ("visible-string:€", "Latin"),
        ("bit-string:012", "zeros and ones"),
    ],
)
def test_a_value_that_is_none_says_what_to_type(value: str, told: str) -> None:
    with pytest.raises(click.UsageError) as error:
        parse(f"1:0-0:1.0.0#2={value}")
    assert told in error.value.message
    assert not RAW.search(error.value.message)
