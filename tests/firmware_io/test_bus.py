"""The bus over meters that are plain functions: order of work, back-off, noise, the line going away."""

from __future__ import annotations

import itertools
import random

import pytest

from firmware_io import obis
from firmware_io.bus import MAIN_EVERY
from firmware_io.dlms.apdu import decode
from firmware_io.errors import AccessDenied, RemoteProtocolError, ResponseTimeout, TransportError
from firmware_io.reading import Quality, Unit


class TestCycle:
    def test_one_list_request_for_each_meter_over_an_open_association(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), make_meter(), make_meter())
        site.cycle()
        for meter in site.meters:
            meter.asked.clear()
        polls = site.cycle()
        assert [len(m.asked) for m in site.meters] == [2, 1, 1]
        assert [m.associations for m in site.meters] == [1, 1, 1]
        assert all(isinstance(r, decode.GetListRequest) for m in site.meters for r in m.asked)
        assert {r.obis: (r.value, r.unit) for r in polls["m1"][0].readings} == {
            obis.ENERGY_IMPORT: (1000.0, Unit.WATT_HOUR),
            obis.POWER_IMPORT: (500.0, Unit.WATT),
        }

    def test_the_main_meters_samples_bracket_the_others(self, make_site, make_meter) -> None:
        site = make_site(*[make_meter() for _ in range(2 * MAIN_EVERY + 3)])
        site.cycle()
        order = [poll.meter for poll in site.bus.poll_cycle()]
        assert order[0] == order[-1] == "m0"
        mains = [i for i, meter in enumerate(order) if meter == "m0"]
        assert max(b - a for a, b in itertools.pairwise(mains)) == MAIN_EVERY + 1
        assert sorted(set(order)) == sorted(f"m{n}" for n in range(len(site.meters)))

    def test_a_sample_is_stamped_between_question_and_answer(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter())
        site.bus.poll("m0")
        before_s = clock.now()
        reading = site.bus.poll("m0")[0]
        assert before_s < reading.sampled_s < clock.now()
        assert reading.uncertainty_s == pytest.approx((clock.now() - before_s) / 2)

    def test_idle_associations_are_kept_alive(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter())
        site.cycle()
        for _ in range(20):
            clock.time_s += 30
            site.bus.keep_alive()
        site.cycle()
        assert [m.associations for m in site.meters] == [1, 1]

    def test_a_dropped_association_is_opened_again_in_the_same_poll(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(inactivity_s=5), make_meter())
        site.cycle()
        clock.time_s += 30
        polls = site.cycle()
        assert all(poll.error is None for poll in polls["m0"])
        assert site.meters[0].associations >= 2

    def test_a_meter_for_one_client_only_is_released_after_each_poll(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), single_association=True)
        for _ in range(3):
            assert site.energy("m0") == (1000.0, Quality.GOOD)
        assert site.meters[0].associations == 3
        assert site.session("m0").open

    def test_close_releases(self, make_site, make_meter) -> None:
        site = make_site(make_meter())
        site.cycle()
        session = site.session("m0")
        site.bus.close()
        assert not session.open


class TestBackOff:
    def an_hour(self, site, clock, hours: float = 1.0) -> tuple[float, dict[str, float]]:
        """Which share of the line's time went without an answer, and the longest gap between readings of each meter."""
        began_s, lost_s = clock.time_s, 0.0
        read_s: dict[str, float] = {}
        gaps: dict[str, float] = {}
        while clock.time_s - began_s < 3600 * hours:
            for polls, rest_s in ((site.bus.poll_cycle, 0.0), *[(site.bus.probe, 5.0)] * 6):
                clock.time_s += rest_s
                before_s = clock.time_s
                for poll in polls():
                    lost_s += (clock.time_s - before_s) * (poll.error is not None)
                    if poll.error is None:
                        gaps[poll.meter] = max(
                            gaps.get(poll.meter, 0.0), clock.time_s - read_s.get(poll.meter, began_s)
                        )
                        read_s[poll.meter] = clock.time_s
                    before_s = clock.time_s
        return lost_s / (clock.time_s - began_s), gaps

    @pytest.mark.parametrize("silent", [1, 5])
    @pytest.mark.parametrize("ever", [True, False])
    def test_silent_meters_cost_less_than_a_hundredth(
        self, silent: int, ever: bool, make_site, make_meter, clock
    ) -> None:
        site = make_site(*[make_meter() for _ in range(7)], *[make_meter(silent=not ever) for _ in range(silent)])
        site.cycle()
        for meter in site.meters[7:]:
            meter.silent = True
        share, gaps = self.an_hour(site, clock, 2.0)
        assert share < 0.01
        assert set(gaps) == {f"m{n}" for n in range(7)}
        assert max(gaps.values()) < 30 + 2 * (1 + silent) + 4  # a rest, and the time-outs of those that fall silent

    @pytest.mark.parametrize("outage_s", [5.0, 20.0, 60.0])
    def test_a_short_disturbance_is_over_when_it_is_over(self, outage_s: float, make_site, make_meter, clock) -> None:
        site = make_site(*[make_meter() for _ in range(6)])
        site.cycle()
        self.silenced(site, clock, [site.meters[3]], outage_s)
        began_s = clock.time_s
        assert self.back(site, clock, {"m3"}) - began_s <= 10.0

    @pytest.mark.parametrize("outage_s", [10.0, 60.0, 600.0])
    def test_half_of_the_meters_are_found_again_after_a_power_cut(
        self, outage_s: float, make_site, make_meter, clock
    ) -> None:
        site = make_site(*[make_meter() for _ in range(12)])
        site.cycle()
        self.silenced(site, clock, site.meters[1::2], outage_s)
        began_s = clock.time_s
        assert self.back(site, clock, {f"m{n}" for n in range(1, 12, 2)}) - began_s <= 10.0

    def silenced(self, site, clock, meters, outage_s: float) -> None:
        """Poll all the time, with some of the meters without supply for so long."""
        end_s = clock.time_s + outage_s
        for meter in meters:
            meter.silent = True
        while clock.time_s < end_s:
            site.cycle()
        for meter in meters:
            meter.silent = False

    def back(self, site, clock, meters: set[str]) -> float:
        """When all these have been read again, polling all the time."""
        left = set(meters)
        while True:
            for poll in site.bus.poll_cycle():
                if poll.error is None:
                    left.discard(poll.meter)
                if not left:
                    return clock.time_s

    def test_a_main_meter_is_asked_in_each_cycle_whatever_happens(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), make_meter(), make_meter())
        site.meters[0].silent = True
        for _ in range(30):
            polls = site.cycle()
        assert len(polls["m0"]) == 1
        exchanges = site.bus.statistics()["m0"].traffic.exchanges
        site.cycle()
        assert site.bus.statistics()["m0"].traffic.exchanges == exchanges + 1  # without a repeat

    def test_a_damaged_reply_is_no_silence(self, make_site, make_meter, clock) -> None:
        """Every second reply corrupt, for a minute: it is read whenever a reply comes through."""
        site = make_site(make_meter(), make_meter(), make_meter())
        site.cycle()
        chance = random.Random(5)
        read = site.line.read

        def corrupt(count: int, deadline: float) -> bytes:
            octets = read(count, deadline)
            damaged = octets and octets[4:5] == bytes([site.address_octet(1)]) and chance.random() < 0.5
            return octets[:-3] + bytes([octets[-3] ^ 0xFF]) + octets[-2:] if damaged else octets

        site.line.read = corrupt
        good = sum(poll.error is None for _ in range(60) for poll in site.cycle().get("m1", ()))
        assert good > 20
        assert not site.bus.statistics()["m1"].silent

    def test_a_meter_that_answers_late_takes_its_share_and_no_more(self, make_site, make_meter, clock) -> None:
        site = make_site(*[make_meter() for _ in range(6)])
        site.cycle()
        site.meters[3].late_s = 1.4  # the time-out is 1 s
        for _ in range(3):
            site.cycle()
        traffic = site.bus.statistics()["m3"].traffic
        repeats, began_s = traffic.repeats, clock.time_s
        took_s, polled, before_s = 0.0, 0, clock.time_s
        while clock.time_s - began_s < 200:
            for poll in site.bus.poll_cycle():
                if poll.meter == "m3":
                    assert poll.error is None
                    took_s, polled = took_s + clock.time_s - before_s, polled + 1
                before_s = clock.time_s
        assert polled >= 5
        assert took_s / (clock.time_s - began_s) < 0.15
        assert traffic.repeats == repeats  # it is waited for, and not asked twice each time

    def test_one_that_comes_back_brings_the_others_back(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), *[make_meter(silent=True) for _ in range(5)])
        for _ in range(3):
            site.cycle()
        assert set(site.cycle()) == {"m0"}
        for meter in site.meters:
            meter.silent = False
        site.bus.poll("m3")  # somebody asks for it, or its probe is due
        polls = site.cycle()
        assert sorted(polls) == [f"m{n}" for n in range(6)]
        assert all(poll.error is None for each in polls.values() for poll in each)

    def test_when_all_are_silent_it_may_be_the_line_and_all_are_tried_in_each_cycle(
        self, make_site, make_meter
    ) -> None:
        site = make_site(*[make_meter(silent=True) for _ in range(6)])
        for _ in range(3):
            site.cycle()
        assert len(site.cycle()) == 6
        for meter in site.meters:
            meter.silent = False
        site.cycle()
        assert all(poll.error is None for each in site.cycle().values() for poll in each)

    def test_one_lost_answer_is_no_silence(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), make_meter())
        site.cycle()
        site.meters[1].silent = True
        assert isinstance(site.cycle()["m1"][0].error, ResponseTimeout)
        site.meters[1].silent = False
        assert site.cycle()["m1"][0].error is None
        assert site.bus.statistics()["m1"].timeouts == 1

    def test_a_refused_password_is_tried_once_until_somebody_has_seen_to_it(self, make_site, make_meter) -> None:
        site = make_site(make_meter(), make_meter(refuses=13), security="lls", password=b"x")
        assert isinstance(site.cycle()["m1"][0].error, AccessDenied)
        for _ in range(5):
            assert "m1" not in site.cycle()
            with pytest.raises(AccessDenied, match="left alone"):
                site.bus.poll("m1")
        assert site.meters[1].associations == 1
        site.meters[1].refuses = 0
        site.bus.retry_denied("m1")
        assert site.cycle()["m1"][0].error is None

    def test_a_line_that_is_gone_is_opened_again_and_not_at_every_poll(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter(), make_meter())
        site.cycle()
        site.line.broken = True
        tries = 0
        for _ in range(100):
            tries += sum(isinstance(p.error, TransportError) for each in site.cycle().values() for p in each)
            clock.time_s += 1
        assert site.line.opened == 1
        assert tries > 0
        site.line.broken = False
        clock.time_s += 60
        assert all(poll.error is None for each in site.cycle().values() for poll in each)
        assert site.line.opened == 2


def test_identity_tells_the_clock(make_site, make_meter) -> None:
    site = make_site(make_meter(), make_meter(clock_offset_s=-300.0, serial="CHM 7"))
    identity = site.bus.identify("m1")
    assert identity.serial == "CHM 7"
    assert identity.clock_offset_s == pytest.approx(-300, abs=1.0)


def test_no_value_is_wrong_in_ten_thousand_noisy_frames(make_site, make_meter, clock, make_dirt) -> None:
    """Bit errors at 1e-3 in both directions: values are right or missing, and all are back when the noise stops."""
    site = make_site(*[make_meter(energy_wh=1e6 * (n + 1)) for n in range(6)])
    site.cycle()
    noise = make_dirt(11).noise(1e-3)
    write, read = site.line.write, site.line.read
    site.line.write = lambda octets: write(noise(octets)[0][1])
    site.line.read = lambda count, deadline: noise(read(count, deadline))[0][1]
    shown = {f"m{n}": {meter.energy_wh} for n, meter in enumerate(site.meters)}
    frames = right = 0
    while frames < 10_000:
        for poll in site.bus.poll_cycle():
            for reading in poll.readings:
                if reading.obis == obis.ENERGY_IMPORT:
                    assert reading.value in shown[poll.meter]
                    right += 1
                else:
                    assert (reading.obis, reading.value) == (obis.POWER_IMPORT, 500.0)
        for n, meter in enumerate(site.meters):
            meter.energy_wh += 10 * (n + 1)
            shown[f"m{n}"].add(meter.energy_wh)
        clock.time_s += 60
        frames = 2 * sum(s.traffic.exchanges for s in site.bus.statistics().values())
    assert right > 900
    assert sum(s.traffic.corrupt_frames for s in site.bus.statistics().values()) > 500
    site.line.write, site.line.read = write, read
    for _ in range(3):
        clock.time_s += 600
        polls = site.cycle()
    assert sorted(polls) == [f"m{n}" for n in range(6)]
    assert all(poll.error is None for each in polls.values() for poll in each)


def test_a_protocol_error_names_meter_and_what_was_expected(make_site, make_meter) -> None:
    site = make_site(make_meter(), make_meter())
    site.cycle()
    site.meters[1].spoil = lambda octets: octets[:2] + bytes((octets[2] ^ 5,)) + octets[3:]
    with pytest.raises(RemoteProtocolError, match=r"m1: invoke-id \d+: expected \d+"):
        site.bus.poll("m1")
