"""What `check` says of cycles and intervals, and that its octets are those of the drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.lab.simulate import read_simulation, simulated_site
from agent.polling.buses import open_buses
from agent.polling.rates import least_cycle_s, rate_doubts
from agent.site.load import load, read_site
from firmware_io.poll_cost import poll_cost
from firmware_io.simulator.line.bus import LineClock, NullModem

START_S = 1_772_438_400.0
SITE = """\
[site]
site = "s"
gateway = "g"
[[bus]]
id = "line"
port = "{port}"
protocol = "{protocol}"
baud = {baud}
parity = "{parity}"
poll_s = {poll_s}
{meters}
[[zone]]
id = "house"
main = "m0"
subs = [{subs}]
[detection]
interval_s = {interval_s}
[store]
path = "store.sqlite"
[simulation]
history_days = 1
"""


def site(folder: Path, count=3, protocol="dlms", baud=9600, parity="N", poll_s=60, port="/dev/x", interval_s=900,
         address=lambda n: f"{16 + n}", more=""):  # fmt: skip
    meters = "\n".join(f'[[meter]]\nid = "m{n}"\nbus = "line"\naddress = {address(n)}\n{more}' for n in range(count))
    subs = ", ".join(f'"m{n}"' for n in range(1, count))
    path = folder / "site.toml"
    path.write_text(SITE.format(port=port, protocol=protocol, baud=baud, parity=parity, poll_s=poll_s, meters=meters,
                                subs=subs, interval_s=interval_s))  # fmt: skip
    return path


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("protocol", "baud", "parity", "address", "more"),
    [
        ("dlms", 9600, "N", lambda n: f"{16 + n}", ""),
        ("dlms", 9600, "N", lambda n: f"{16 + n}", "with_list = false"),
        ("dlt645", 2400, "E", lambda n: f'"{100000 + n}"', ""),
        ("dlt698", 9600, "E", lambda n: f'"{100000 + n}"', ""),
        ("modbus", 9600, "N", lambda n: f"{1 + n}", 'profile = "eastron-sdm630"\nproven = true'),
        ("mbus", 2400, "E", lambda n: f"{1 + n}", ""),
    ],
)
def test_a_cycle_takes_what_check_says_and_the_octets_are_the_drivers_own(
    tmp_path, protocol, baud, parity, address, more, live
) -> None:
    path = site(tmp_path, protocol=protocol, baud=baud, parity=parity, address=address,
                more=f"{more}\nlive = {str(live).lower()}")  # fmt: skip
    config, clock = load(path, online=True), LineClock(START_S)
    simulated = simulated_site(config, read_simulation(config, read_site(path), path), clock, START_S)
    (bus,) = open_buses(config, clock, lambda spec: NullModem(simulated.lines[spec.id], clock.move)).values()
    for _ in range(3):  # the first cycles connect and find out
        assert [poll.error for poll in bus.poll_cycle()] == [None] * 4
    traffic = bus.statistics()["m1"].traffic
    before, began_s = (traffic.exchanges, traffic.sent_octets + traffic.received_octets), clock.monotonic()
    assert len(list(bus.poll_cycle())) == 4
    cost = poll_cost(protocol, live=live, with_list="with_list" not in more)
    assert traffic.exchanges - before[0] == cost.exchanges
    assert traffic.sent_octets + traffic.received_octets - before[1] == pytest.approx(cost.octets, rel=0.02)
    took_s = clock.monotonic() - began_s
    assert 0.6 * took_s <= least_cycle_s(config, config.bus[0]) <= 1.001 * took_s


def test_what_can_be_kept_is_not_doubted(tmp_path) -> None:
    assert rate_doubts(load(site(tmp_path, count=40, poll_s=15), online=True)) == []
    assert rate_doubts(load(site(tmp_path, count=100, poll_s=1, port="tcp://127.0.0.1:4059"), online=True)) == []


def test_a_cycle_that_a_line_cannot_bear_is_said_with_the_one_that_it_can(tmp_path) -> None:
    (doubt,) = rate_doubts(load(site(tmp_path, count=40, poll_s=1), online=True))
    assert "poll_s = 1 cannot be kept: 40 meters at 9600 Bd take 9.8 s at least; set poll_s = 10" in doubt


def test_intervals_shorter_than_cycle_or_register_are_said(tmp_path) -> None:
    slow, coarse = rate_doubts(load(site(tmp_path, count=25, poll_s=60, interval_s=10), online=True))
    assert "read every 60 s, less often than interval_s = 10" in slow
    assert "steps of 10 Wh are" in coarse
    assert "the shortest useful one is 60" in coarse
    kilowatt_hours = site(tmp_path, count=11, more="resolution_wh = 1000")
    (coarse,) = rate_doubts(load(kilowatt_hours, online=True))
    assert "the shortest useful one is 7200" in coarse
    assert rate_doubts(load(site(tmp_path, count=11, interval_s=7200, more="resolution_wh = 1000"), online=True)) == []
    fine = site(tmp_path, count=25, poll_s=5, port="tcp://127.0.0.1:4059", interval_s=10, more="resolution_wh = 1.0")
    assert rate_doubts(load(fine, online=True)) == []
