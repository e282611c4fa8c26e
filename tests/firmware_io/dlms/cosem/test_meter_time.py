"""What meters mean by their time: the standard's way, and the ways that the field has found."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from firmware_io.dlms.cosem.meter_time import Convention, Deviation, MeterTime
from firmware_io.errors import RemoteProtocolError

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
# As in published dumps of European meters' pushes: 2020-09-20 12:15:00, deviation -120, daylight saving on.
SUMMER = bytes.fromhex("07e40914070c0f0000ff8880")


def test_a_time_from_the_field() -> None:
    time = MeterTime.decode(SUMMER)
    assert time is not None
    assert (time.deviation_min, time.daylight, time.doubtful) == (-120, True, False)
    assert Convention().utc_s(time) == datetime(2020, 9, 20, 10, 15, tzinfo=UTC).timestamp()
    assert time.encode() == SUMMER[:4] + b"\x07" + SUMMER[5:]


@pytest.mark.parametrize(
    "octets",
    [
        "ffff0914070c0f0000ff8880",  # no year
        "07e4ff14070c0f0000ff8880",  # no month
        "07e409fd070c0f0000ff8880",  # "second last day of the month"
        "07e4091407ff0f0000ff8880",  # no hour
    ],
)
def test_what_leaves_the_moment_open_is_none(octets: str) -> None:
    assert MeterTime.decode(bytes.fromhex(octets)) is None


@pytest.mark.parametrize(
    "octets",
    [
        "07e40d14070c0f0000ff8880",  # month 13
        "07e4021e070c0f0000ff8880",  # 30 February
        "07e4091407180f0000ff8880",  # hour 24
        "07e40914070c3c0000ff8880",  # minute 60
        "07e40914070c0f3d00ff8880",  # second 61
        "07e40914070c0f0064ff8880",  # 100 hundredths
        "07e40914070c0f00000fff80",  # deviation of 4095 minutes
        "00000914070c0f0000ff8880",  # year 0
        "07e40914",
        "",
    ],
)
def test_what_does_not_exist_is_refused(octets: str) -> None:
    with pytest.raises(RemoteProtocolError):
        MeterTime.decode(bytes.fromhex(octets))


def test_what_is_left_open_inside_the_hour_is_its_start() -> None:
    time = MeterTime.decode(bytes.fromhex("07e40914070cffffff800000"))
    assert time is not None
    assert (time.local_s % 3600, time.deviation_min) == (0, None)


@pytest.mark.parametrize(
    ("status", "doubtful"), [(0x00, False), (0x01, True), (0x02, True), (0x08, True), (0x80, False), (0xFF, False)]
)
def test_what_the_meter_thinks_of_its_own_clock(status: int, doubtful: bool) -> None:
    assert MeterTime(NOON, 0, status).doubtful is doubtful


@pytest.mark.parametrize("error_s", [0, -40, 300])
@pytest.mark.parametrize(
    ("deviation", "local_offset_s", "kind"),
    [
        (-120, 7200, Deviation.STANDARD),
        (120, 7200, Deviation.REVERSED),
        (None, 7200, Deviation.ABSENT),
        (None, 0, Deviation.ABSENT),
        (0, 0, Deviation.STANDARD),
        (-345, 20700, Deviation.STANDARD),  # Nepal
        (300, -18000, Deviation.STANDARD),
    ],
)
def test_its_convention_is_learned_from_its_clock(
    deviation: int | None, local_offset_s: float, kind: Deviation, error_s: float
) -> None:
    shown = MeterTime(NOON + local_offset_s + error_s, deviation)
    convention = Convention.learn(shown, NOON)
    assert convention.deviation is kind
    assert convention.utc_s(shown) == NOON + error_s
    assert convention.meter_time(NOON + error_s) == shown
    row = MeterTime(NOON - 86400 + local_offset_s, deviation)
    assert convention.utc_s(row) == NOON - 86400


def test_without_deviation_the_daylight_bit_tells_winter_rows_from_summer_rows() -> None:
    convention = Convention.learn(MeterTime(NOON + 7200, None, 0x80), NOON)
    winter = MeterTime(NOON + 3600, None, 0x00)
    assert convention.utc_s(winter) == NOON


def test_a_clock_that_is_days_off_says_nothing_of_its_zone() -> None:
    assert Convention.learn(MeterTime(NOON - 3 * 86400, None), NOON).offset_s == 0


class TestSiteZone:
    """A clock that sends no deviation, at a site whose zone is known."""

    WINTER_S = 1_772_409_600.0  # 2026-03-02 00:00 UTC
    SUMMER_S = 1_782_864_000.0  # 2026-07-01 00:00 UTC
    BERLIN = "Europe/Berlin"

    @pytest.mark.parametrize("off_s", [0.0, 1000.0, -1000.0, 7200.0, 14 * 3600.0])
    def test_a_wrong_hour_shows(self, off_s: float) -> None:
        time = MeterTime(self.WINTER_S + 3600 + off_s)
        convention = Convention.learn(time, self.WINTER_S, self.BERLIN)
        assert convention.utc_s(time) - self.WINTER_S == off_s
        assert convention.assumed == "the site's local time"

    def test_a_meter_on_standard_time_all_year(self) -> None:
        time = MeterTime(self.SUMMER_S + 3600)
        convention = Convention.learn(time, self.SUMMER_S, self.BERLIN)
        assert (convention.utc_s(time), convention.assumed) == (self.SUMMER_S, "the site's standard time")

    def test_a_meter_on_utc(self) -> None:
        time = MeterTime(self.SUMMER_S)
        convention = Convention.learn(time, self.SUMMER_S, self.BERLIN)
        assert (convention.utc_s(time), convention.assumed) == (self.SUMMER_S, "UTC")

    def test_rows_of_the_other_half_of_the_year_are_right(self) -> None:
        convention = Convention.learn(MeterTime(self.SUMMER_S + 7200), self.SUMMER_S, self.BERLIN)
        assert convention.utc_s(MeterTime(self.WINTER_S + 3600)) == self.WINTER_S
        assert convention.meter_time(self.WINTER_S).local_s == self.WINTER_S + 3600

    @pytest.mark.parametrize(("deviation_min", "kind"), [(-60, Deviation.STANDARD), (60, Deviation.REVERSED)])
    def test_the_sign_of_a_deviation_is_the_sites_however_far_the_clock_is_off(
        self, deviation_min: int, kind: Deviation
    ) -> None:
        time = MeterTime(self.WINTER_S + 3600 + 1000, deviation_min)
        convention = Convention.learn(time, self.WINTER_S, self.BERLIN)
        assert convention.deviation is kind
        assert convention.utc_s(time) - self.WINTER_S == 1000.0

    def test_without_a_zone_it_is_told_what_was_taken(self) -> None:
        assert Convention.learn(MeterTime(self.WINTER_S + 3600), self.WINTER_S).assumed == "+1 h from UTC"
