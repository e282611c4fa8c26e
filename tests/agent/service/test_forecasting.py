"""The service's forecasts: there as soon as the stored profiles are in, again every hour, and again after a restart."""

from __future__ import annotations


def test_a_first_start_forecasts_from_what_the_meters_stored_and_then_every_hour(make_rig) -> None:
    rig = make_rig(history_days=10)
    assert rig.worker.view.forecasts == {}
    rig.catch_up()
    rig.cycles(1)
    first = rig.worker.view.forecasts["building"]
    assert first.days >= 9
    assert first.flags == ["warming_up"]
    assert first.interval_s == 900
    assert 0 <= rig.clock.now() - first.issued.timestamp() <= 1800
    for _ in range(80):
        rig.cycles(1)
        if rig.worker.view.forecasts["building"] is not first:
            break
    second = rig.worker.view.forecasts["building"]
    assert second.issued > first.issued
    assert second.issued.timestamp() % 3600 == 0


def test_a_restart_forecasts_at_once_from_the_store(make_rig) -> None:
    rig = make_rig(history_days=10)
    rig.catch_up()
    rig.cycles(20)
    before = rig.worker.view.forecasts["building"]
    rig.restart()
    rig.catch_up()
    rig.cycles(1)
    after = rig.worker.view.forecasts["building"]
    assert after.days == before.days
    assert after.issued >= before.issued
    assert abs(after.peak.w / before.peak.w - 1) < 0.1
