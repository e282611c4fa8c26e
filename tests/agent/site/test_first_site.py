"""A first site file from the meters that answered: one bus for each line, names that no two share."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.meter.answers import of_dlms
from agent.site.edit import text_of
from agent.site.first_site import first_site, main_of
from agent.site.load import load
from firmware_io.dlms.meter.scan import Found, attempts

MAIN = of_dlms(Found(0, 1, 2, "M1", framing="wrapper", port="tcp://10.0.0.7:4059"))
SUBS = [
    of_dlms(Found(9600, 17, 2, "S17", parity="E", port="/dev/ttyUSB0")),
    of_dlms(Found(9600, 300, 4, "S300", parity="E", port="/dev/ttyUSB0")),
    of_dlms(Found(2400, 17, 1, None, port="/dev/ttyUSB1")),
]


def test_the_main_meter_by_tcp_and_the_others_on_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text_of(first_site([MAIN, *SUBS])))
    config = load(path, online=True)
    assert [(b.id, b.port, b.framing, b.baud, b.parity) for b in config.bus] == [
        ("line", "tcp://10.0.0.7:4059", "wrapper", 9600, "N"),
        ("line-2", "/dev/ttyUSB0", None, 9600, "E"),
        ("line-3", "/dev/ttyUSB1", None, 2400, "N"),
    ]
    assert [(m.id, m.bus, m.address, m.address_octets, m.serial) for m in config.meter] == [
        ("main", "line", 1, 0, "M1"),
        ("meter-17", "line-2", 17, 0, "S17"),
        ("meter-300", "line-2", 300, 0, "S300"),
        ("meter-17-2", "line-3", 17, 1, None),
    ]
    assert config.zone[0].subs == ["meter-17", "meter-300", "meter-17-2"]


def test_the_main_meter_may_be_another_one() -> None:
    main = main_of([MAIN, *SUBS], "300")
    assert main.serial == "S300"
    assert first_site([MAIN, *SUBS], main=main)["zone"][0]["subs"] == ["meter-1", "meter-17", "meter-17-2"]
    with pytest.raises(LookupError, match="no meter answered at address 5"):
        main_of(SUBS, "5")


def test_what_is_tried_on_a_port_begins_with_the_usual() -> None:
    serial = attempts("/dev/ttyUSB0", last=130)
    assert [(a.framing, a.baud, a.parity) for a in serial[:3]] == [
        ("hdlc", 9600, "N"),
        ("hdlc", 9600, "E"),
        ("hdlc", 2400, "N"),
    ]
    assert serial[0].tries[-3:] == ((128, 4), (129, 4), (130, 4))  # beyond what two octets hold
    tcp = attempts("tcp://10.0.0.7:4059")
    assert [a.framing for a in tcp] == ["wrapper", "hdlc"]
    assert tcp[0].tries[0] == (1, 2)
