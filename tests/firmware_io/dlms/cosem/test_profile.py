"""What a meter stores: load profile and event logs over the bus."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.errors import RegisterUnavailable
from firmware_io.reading import Quality


class TestStored:
    """Load profile and event logs, for meters that select by range, and for those that do not."""

    PERIOD_S = 900
    EVENT = obis.ObisCode(0, 0, 96, 11, 0)

    def filled(self, meter, clock, *, by_range: bool, hours: int = 30):
        end_s = clock.now() // self.PERIOD_S * self.PERIOD_S
        stamps = [end_s - self.PERIOD_S * n for n in range(hours * 4, -1, -1)]

        def rows(selection: decode.Selection | None) -> axdr.Data | DataAccessResult:
            assert selection is not None
            parameters = selection.parameters.value
            if selection.selector == 1:
                if not by_range:
                    return DataAccessResult.TYPE_UNMATCHED
                first, last = (MeterTime.decode(bound.value).local_s for bound in parameters[1:3])
                chosen = [t for t in stamps if first <= t <= last]
            else:
                chosen = stamps[parameters[0].value - 1 : parameters[1].value]
            times = [
                axdr.octet_string(MeterTime(t, 0, 0).encode()) if n == 0 else axdr.NULL for n, t in enumerate(chosen)
            ]
            counts = [axdr.uint32(int(t) % 10**6) for t in chosen]
            return axdr.array(axdr.structure(t, count, axdr.uint8(7)) for t, count in zip(times, counts, strict=True))

        captured = axdr.array(
            profile.Column(Attribute(*a)).encode()
            for a in ((8, obis.CLOCK, 2), (3, obis.ENERGY_IMPORT, 2), (1, self.EVENT, 2))
        )
        for name in (obis.LOAD_PROFILE, obis.EVENT_LOG_STANDARD):
            meter.others |= {
                (7, name, 2): rows,
                (7, name, 3): captured,
                (7, name, 4): axdr.uint32(self.PERIOD_S),
                (7, name, 7): axdr.uint32(len(stamps)),
            }
        return meter

    @pytest.mark.parametrize("by_range", [True, False])
    def test_the_rows_asked_for_and_no_others(self, make_site, make_meter, clock, by_range: bool) -> None:
        site = make_site(self.filled(make_meter(), clock, by_range=by_range))
        first_s = clock.now() - 6 * 3600
        readings = site.bus.read_profile("m0", first_s, clock.now())
        assert len(readings) == 24
        assert all(r.sampled_s % self.PERIOD_S == 0 and first_s <= r.sampled_s <= clock.now() for r in readings)
        assert all(r.value == 10 * (int(r.sampled_s) % 10**6) for r in readings)
        assert {r.quality for r in readings} == {Quality.FROM_PROFILE}

    @pytest.mark.parametrize("by_range", [True, False])
    def test_long_spans_go_in_several_requests(self, make_site, make_meter, clock, by_range: bool) -> None:
        site = make_site(self.filled(make_meter(), clock, by_range=by_range, hours=24 * 7))
        readings = site.bus.read_profile("m0", clock.now() - 6 * 86400, clock.now())
        assert len(readings) == 6 * 96
        assert [r.sampled_s for r in readings] == sorted({r.sampled_s for r in readings})
        assert {r.quality for r in readings} == {Quality.FROM_PROFILE}

    def test_an_hour_that_comes_twice_is_doubtful_and_not_lost(self, make_site, make_meter, clock) -> None:
        meter = self.filled(make_meter(), clock, by_range=True)
        stamps = [clock.now() // 3600 * 3600 - 3600 * back for back in (4, 3, 3, 2)]  # the clock was put back
        meter.others[7, obis.LOAD_PROFILE, 2] = axdr.array(
            axdr.structure(axdr.octet_string(MeterTime(t, None, 0xFF).encode()), axdr.uint32(n), axdr.uint8(7))
            for n, t in enumerate(stamps)
        )
        readings = make_site(meter).bus.read_profile("m0", clock.now() - 36000, clock.now())
        assert [(r.value, bool(r.quality & Quality.CLOCK_INVALID)) for r in readings] == [
            (0.0, False),
            (10.0, True),
            (20.0, True),
            (30.0, False),
        ]

    def test_a_clock_that_is_off_is_said(self, make_site, make_meter, clock) -> None:
        meter = self.filled(make_meter(), clock, by_range=True)
        meter.clock_offset_s = 400.0
        readings = make_site(meter).bus.read_profile("m0", clock.now() - 7200, clock.now())
        assert readings
        assert all(r.quality == Quality.FROM_PROFILE | Quality.CLOCK_OFF for r in readings)

    def test_events_that_are_newer_and_logs_that_are_not_there(self, make_site, make_meter, clock) -> None:
        meter = self.filled(make_meter(), clock, by_range=True)
        site = make_site(meter)
        events = site.bus.read_events("m0", clock.now() - 3600)
        assert [event.code for event in events] == [7] * 4
        assert {event.log for event in events} == {obis.EVENT_LOG_STANDARD}
        meter.asked.clear()
        assert site.bus.read_events("m0", clock.now()) == []
        asked = [a for request in meter.asked for a in (request.attribute,)]
        assert [a.class_id for a in asked] == [1, 7, 1]  # the log that is there, between two looks at the name plate

    def test_a_meter_without_a_profile_is_a_meter_that_answers(self, make_site, make_meter, clock) -> None:
        site = make_site(make_meter())
        for _ in range(3):
            with pytest.raises(RegisterUnavailable, match="object undefined"):
                site.bus.read_profile("m0", clock.now() - 3600, clock.now())
        assert not site.bus.statistics()["m0"].silent


class TestNull:
    """Null in a profile is a repetition where the meter leaves repetitions out, and missing where it does not."""

    COLUMNS = tuple(
        profile.Column(Attribute(*a))
        for a in ((8, obis.CLOCK, 2), (1, obis.ERROR_REGISTER, 2), (3, obis.ENERGY_IMPORT, 2))
    )

    def values(self, *rows: tuple[axdr.Data, axdr.Data]) -> list[object]:
        times = [axdr.octet_string(MeterTime(900.0 * n, 0, 0).encode()) for n in range(len(rows))]
        buffer = axdr.array(axdr.structure(t, *row) for t, row in zip(times, rows, strict=True))
        return [row.values[2].value for row in profile.rows(buffer, self.COLUMNS, 900.0)]

    def test_as_before(self) -> None:
        rows = [(axdr.uint8(0), axdr.uint32(5)), (axdr.NULL, axdr.NULL), (axdr.NULL, axdr.uint32(6))]
        assert self.values(*rows) == [5, 5, 6]

    def test_missing(self) -> None:
        rows = [(axdr.uint8(0), axdr.uint32(5)), (axdr.uint8(0), axdr.NULL), (axdr.uint8(0), axdr.uint32(6))]
        assert self.values(*rows) == [5, None, 6]
