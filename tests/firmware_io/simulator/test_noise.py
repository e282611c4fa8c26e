"""Ten thousand frames over a line on which one bit in a thousand flips, both ways: not one wrong value."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.reading import Quality
from firmware_io.simulator.building.scenario import Fault, Simulation

MINUTE_S = 60


@pytest.mark.parametrize(("rate", "hours", "least_frames"), [(1e-3, 4.8, 10_000), (1e-4, 0.25, 1_000)])
def test_no_wrong_value_and_every_meter_back_when_the_noise_stops(rate, hours, least_frames, make_bench):
    noise_s = hours * 3600
    fault = Fault(kind="noise", amount=rate, onset="+5s", until=f"+{noise_s}s")
    bench = make_bench(Simulation(seed=5, history_days=8, installed="-60d", fault=[fault]), flats=7)
    good, errors = 0, 0
    while bench.clock.monotonic() < noise_s:
        for poll in bench.bus.poll_cycle():
            errors += poll.error is not None
            for reading in poll.readings:
                if reading.obis != obis.ENERGY_IMPORT or reading.quality & Quality.SUSPECT:
                    continue
                meter, half_s = bench.site.meters[reading.meter], reading.uncertainty_s + 5.0
                low, high = (meter.energy_wh(reading.sampled_s + at)[0] for at in (-half_s, half_s))
                assert low - 10 <= reading.value <= high + 10, reading
                good += 1
        bench.rest(1.0)
    statistics = bench.bus.statistics()
    assert sum(meter.traffic.exchanges for meter in statistics.values()) > least_frames
    assert sum(meter.traffic.corrupt_frames for meter in statistics.values()) > 50
    assert errors > 5
    assert good > 200
    back: set[str] = set()
    while len(back) < 8 and bench.clock.monotonic() < noise_s + 60 * MINUTE_S:
        back |= {poll.meter for poll in bench.bus.poll_cycle() if poll.readings}
        bench.rest(1.0)
    assert len(back) == 8
