"""The meter that does wrong: what the client does about each fault of the simulator's list.

Whatever happens, a value that is handed on as good is the meter's, the error is one of the declared ones, the next
meters are read, and the meter itself is read again once the fault is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from firmware_io import obis
from firmware_io.dlms.sources import Sources
from firmware_io.errors import AccessDenied, IdentityMismatch, RemoteProtocolError, ResponseTimeout, SecurityError
from firmware_io.identity import EXCHANGE_ANSWERS
from firmware_io.obis import ObisCode
from firmware_io.reading import Quality, Reading
from firmware_io.simulator.building.scenario import FAULTS, Fault, Simulation
from firmware_io.simulator.meter.events import LOG_ENTRIES, Code

FAULTY = "flat-1"
CYCLE_S = 60.0
FROM_S, UNTIL_S = 300.0, 1500.0  # of a fault, after the start


@dataclass(frozen=True)
class Case:
    """A fault of the line, the link, the application or security, and what the client says while it lasts."""

    kind: str
    errors: tuple[type[Exception], ...] = ()  # at least one of them comes, and no other; none: it is read all the same
    amount: float | None = None
    probability: float = 1.0
    security: str = "none"
    meter: dict[str, object] = field(default_factory=dict)
    client: dict[str, object] = field(default_factory=dict)
    sometimes: bool = False  # some polls succeed
    framing: str = "hdlc"
    obis: str | None = None


CASES = [
    # the link
    Case("silence", (ResponseTimeout,)),
    Case("late", (), amount=3.0),
    Case("late", (ResponseTimeout,), amount=4.5),
    Case("late", (), amount=1.2),
    Case("late_tail", (ResponseTimeout,), amount=3.0),
    Case("truncated", (ResponseTimeout,)),
    Case("truncated", (), amount=1),  # only the closing flag
    Case("truncated", (ResponseTimeout,), amount=9, probability=0.6, sometimes=True),
    Case("extra", ()),
    Case("noise", (ResponseTimeout, RemoteProtocolError), amount=1e-3, sometimes=True),
    Case("noise", (ResponseTimeout, RemoteProtocolError), amount=2e-2, sometimes=True),
    Case("bad_hcs", (ResponseTimeout,)),
    Case("bad_fcs", (ResponseTimeout,)),
    Case("fcs_7e"),
    Case("shared_flag"),
    Case("echo"),
    Case("foreign_frame"),
    Case("wrong_source", (ResponseTimeout,)),
    Case("duplicate"),
    Case("dm", (RemoteProtocolError,)),
    Case("dm", (RemoteProtocolError,), probability=0.3, sometimes=True),
    Case("frmr", (RemoteProtocolError,)),
    Case("rnr", (), probability=0.5),
    Case("rnr", (ResponseTimeout,)),
    Case("inactivity", (), amount=20.0),
    # limits
    Case("min_gap", (ResponseTimeout,), amount=0.3, sometimes=True),
    Case("min_gap", (), amount=0.3, client={"min_gap_s": 0.35}),
    Case("single_association", ()),
    Case("single_association", (), client={"single_association": True}),
    Case("small_pdu", (), amount=48),
    Case("no_list"),
    Case("list_partial"),
    Case("push"),
    Case("push", security="hls-gmac"),
    Case("endless_blocks", (RemoteProtocolError,)),
    Case("one_frame"),
    Case("one_frame", security="hls-gmac", client={"max_frame": 128}),
    Case("no_access", meter={"access": True}),
    Case("no_blocks", meter={"gbt_window": 3, "max_pdu": 64}),
    Case("lost_block", meter={"gbt_window": 3, "max_pdu": 64}, framing="wrapper", probability=0.1),
    Case("compact_template", meter={"sources": Sources(compact=ObisCode(0, 0, 66, 0, 1))}),
    Case("push", meter={"push": True}),
    Case("no_range"),
    Case("no_selection"),
    Case("lifo"),
    Case("odd_type"),
    Case("nan"),
    Case("malformed", obis="1.0.32.7.0"),
    Case("twin", (IdentityMismatch,), probability=0.3, sometimes=True),
    Case("twin", (IdentityMismatch,), probability=0.3, sometimes=True, client={"serial": "CHM00000002"}),
    Case("exception", (RemoteProtocolError,)),
    Case("service_error", (RemoteProtocolError,)),
    Case("wrong_invoke_id", (RemoteProtocolError,)),
    Case("malformed", (RemoteProtocolError,)),
    Case("undefined_object"),
    # security
    Case("refusal", (AccessDenied,), security="lls", sometimes=True),
    Case("refusal", (AccessDenied,), security="hls-gmac", sometimes=True),
    Case("undeciphered", (AccessDenied,), security="hls-gmac", sometimes=True),
    Case("counter_zero", (SecurityError,), security="hls-gmac"),
    Case("counter_lost", (SecurityError,), security="hls-gmac"),
    Case("counter_low", (SecurityError,), security="hls-gmac"),
    Case("flipped_tag", (SecurityError,), security="hls-gmac"),
    Case("replay", (SecurityError,), security="hls-gmac"),
    Case("plaintext", (SecurityError,), security="hls-gmac"),
    # the wrapper knows some of them, too
    Case("silence", (ResponseTimeout,), framing="wrapper"),
    Case("late", (ResponseTimeout,), amount=3.0, framing="wrapper"),
    Case("push", framing="wrapper"),
    Case("foreign_frame", framing="wrapper"),
]
ON_ASSOCIATION = ("wrong_key", "wrong_title")
ONE_REGISTER = ("undefined_object", "list_partial", "odd_type", "nan")
OF_TIME = ("clock_drift", "clock_jump", "clock_invalid", "deviation_reversed", "deviation_undefined")
OF_TIME += ("dst_doubled", "dst_missing", "profile_gap")
OF_VALUES = ("scaler_changed", "scaler_absent", "int32", "uint64", "rollover", "frozen", "decrease", "replaced")
OF_VALUES += ("ct_ratio",)
OF_TAMPER = ("cover", "terminal_cover", "magnet", "reverse", "neutral_current", "phase_loss", "log_overflow")


def test_every_fault_of_the_list_is_tried_here():
    tried = {case.kind for case in CASES} | set(ON_ASSOCIATION + OF_TIME + OF_VALUES + OF_TAMPER)
    assert tried == set(FAULTS)


def fault(kind: str, *, meter: str | None = FAULTY, until: float | None = UNTIL_S, **more) -> Simulation:
    last = None if until is None else f"+{until}s"
    return Simulation(
        seed=5,
        history_days=8,
        installed="-60d",
        fault=[Fault(kind=kind, meter=meter, onset=f"+{FROM_S}s", until=last, **more)],
    )


def is_true(bench, reading: Reading) -> bool:
    """Whether a register is what the meter showed at some moment of the exchange."""
    if reading.obis != obis.ENERGY_IMPORT:
        return True
    meter = bench.site.meters[reading.meter]
    half = reading.uncertainty_s + 4.0  # an answer that was repeated may be as old as the time-out
    shown = [meter.energy_wh(reading.sampled_s + offset)[0] for offset in (-half, 0.0, half)]
    step = 10.0 ** meter.energy_scaler(reading.sampled_s)
    return min(shown) - step <= reading.value <= max(shown) + step


def cycle(bench):
    """One poll of all meters and the rest of the minute."""
    begin = bench.clock.monotonic()
    polls = list(bench.bus.poll_cycle())
    for poll in polls:
        for reading in poll.readings:
            assert reading.quality & Quality.SUSPECT or is_true(bench, reading), reading
    pause = CYCLE_S - (bench.clock.monotonic() - begin)
    bench.rest(max(pause, 1.0))
    bench.bus.keep_alive()
    return polls


def until(bench, end_s: float):
    """Cycles up to a time; all their polls."""
    polls = []
    while bench.clock.monotonic() < end_s:
        polls += cycle(bench)
    return polls


def energies(polls, meter=FAULTY):
    return [r for p in polls if p.meter == meter for r in p.readings if r.obis == obis.ENERGY_IMPORT]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.kind}-{c.amount}-{c.probability}-{c.security}-{c.framing}")
def test_fault_on_the_wire(case: Case, make_bench, secured):
    everywhere = case.kind == "echo"
    simulation = fault(
        case.kind,
        meter=None if everywhere else FAULTY,
        amount=case.amount,
        probability=case.probability,
        obis="1.0.32.7.0" if case.kind in ONE_REGISTER else case.obis,
    )
    meter = secured(case.security) | case.meter
    bench = make_bench(simulation, meter=meter, client=case.client, framing=case.framing)
    healthy = until(bench, FROM_S)
    assert not [p.error for p in healthy if p.error]
    polls = until(bench, UNTIL_S / 2)
    bench.bus.close()  # the gateway is started again meanwhile: associations are opened under the fault, too
    polls += until(bench, UNTIL_S)
    mine = [p for p in polls if p.meter == FAULTY]
    errors = [p.error for p in mine if p.error]
    assert all(isinstance(e, case.errors) for e in errors), errors
    assert all(e.meter == FAULTY for e in errors)
    assert bool(errors) == bool(case.errors) or case.kind == "noise"
    if not case.errors:
        assert len(energies(mine)) >= 19  # a slow one may rest for a cycle
    elif not case.sometimes:
        assert not energies(mine)
    if case.kind in ONE_REGISTER or case.obis:
        assert not [r for p in mine for r in p.readings if r.obis == obis.VOLTAGE[0]]
    others = [p for p in polls if p.meter != FAULTY]
    assert len(others) > 3 * 10
    if not everywhere and case.kind not in ("late", "late_tail"):  # a late answer may fall into another's question
        assert not [p.error for p in others if p.error]
    bench.bus.retry_denied(FAULTY)
    after = until(bench, bench.clock.monotonic() + 1800)  # the probes of a silent meter come rarely
    assert energies(after)
    assert not [p.error for p in after[-8:] if p.error]
    assert bench.bus.identify(FAULTY).serial == "CHM00000002"


@pytest.mark.parametrize(("kind", "error"), [("wrong_key", AccessDenied), ("wrong_title", SecurityError)])
def test_a_meter_that_cannot_prove_itself_is_never_believed(kind, error, make_bench, secured):
    bench = make_bench(fault(kind), meter=secured("hls-gmac"))
    bench.clock.move(FROM_S)
    polls = until(bench, UNTIL_S - CYCLE_S)
    mine = [p for p in polls if p.meter == FAULTY]
    assert mine
    assert all(isinstance(p.error, error) for p in mine if p.error)
    assert not energies(mine)
    if error is AccessDenied:  # retries could lock the meter: one attempt, then it waits for a person
        assert len([p for p in mine if p.error]) == 1
    bench.clock.move(CYCLE_S)
    bench.bus.retry_denied(FAULTY)
    assert energies(until(bench, bench.clock.monotonic() + 1800))


@pytest.mark.parametrize("kind", ["refusal", "undeciphered"])
def test_a_forged_refusal_does_not_blind_us_for_good(kind, make_bench, secured):
    """One frame that anybody could have sent: the meter is left alone for an hour, and read again."""
    bench = make_bench(fault(kind, until=FROM_S + CYCLE_S), meter=secured("hls-gmac"))
    until(bench, FROM_S - 1)
    bench.bus.close()
    bench.clock.move(CYCLE_S / 2)
    polls = until(bench, FROM_S + 3600 + 4 * CYCLE_S)
    mine = [p for p in polls if p.meter == FAULTY]
    assert isinstance(mine[0].error, AccessDenied)
    assert energies(mine[1:])
    assert sum(p.error is not None for p in mine) == 1


def test_endless_blocks_do_not_hold_the_line(make_bench):
    bench = make_bench(fault("endless_blocks"))
    until(bench, FROM_S)
    exchanges = bench.bus.statistics()[FAULTY].traffic.exchanges
    for poll in bench.bus.poll_cycle():
        assert (poll.error is None) == (poll.meter != FAULTY)
    assert bench.bus.statistics()[FAULTY].traffic.exchanges - exchanges < 200


def test_a_wrong_password_is_tried_once(make_bench, secured):
    bench = make_bench(meter=secured("lls"), client={"password": b"guess"})
    polls = until(bench, 600)
    assert [type(p.error) for p in polls if p.meter == FAULTY] == [AccessDenied]
    codes = [e.code for e in bench.site.meters[FAULTY].log.entries(True, bench.clock.now())]
    assert codes.count(Code.AUTHENTICATION_FAILED) == 1


# Time: the registers are right, and each row of the profile stands at its true time or is flagged.


@pytest.mark.parametrize("kind", OF_TIME)
def test_fault_of_the_clock(kind, make_bench, start_s):
    amount = {"clock_drift": 400.0, "clock_jump": 7200.0}.get(kind)
    onset = "-90d" if kind.startswith("deviation") else "-1d"  # such a meter is so from the factory
    simulation = Simulation(
        seed=5, history_days=8, installed="-60d", fault=[Fault(kind=kind, meter=FAULTY, onset=onset, amount=amount)]
    )
    bench = make_bench(simulation, timezone="Europe/Berlin")
    assert energies(cycle(bench))
    rows = [r for r in bench.bus.read_profile(FAULTY, start_s - 2 * 86_400, start_s) if r.obis == obis.ENERGY_IMPORT]
    wrong = [r for r in rows if not is_true(bench, r)]
    flags = Quality.CLOCK_OFF | Quality.CLOCK_INVALID | Quality.INCOMPLETE
    assert not [r for r in wrong if not r.quality & flags]
    before = [r for r in rows if r.sampled_s < start_s - 90_000]
    after = [r for r in rows if r.sampled_s > start_s - 80_000]
    assert len(before) > 90
    if kind in ("deviation_reversed", "deviation_undefined"):
        assert len(after) > 85
    if kind == "profile_gap":
        assert not after
    if kind == "clock_invalid":
        assert all(r.quality & Quality.CLOCK_INVALID for r in after)
    if kind in ("clock_jump", "dst_doubled", "dst_missing", "clock_drift"):
        assert all(r.quality & Quality.CLOCK_OFF for r in rows)


@pytest.mark.parametrize("kinds", [("no_range",), ("no_range", "lifo"), ("no_selection",), ("no_selection", "lifo")])
def test_a_load_profile_that_cannot_be_selected_by_range(kinds, make_bench, start_s):
    faults = [Fault(kind=kind, meter=FAULTY) for kind in kinds]
    bench = make_bench(Simulation(seed=5, history_days=8, installed="-60d", fault=faults))
    rows = [r for r in bench.bus.read_profile(FAULTY, start_s - 86_400, start_s) if r.obis == obis.ENERGY_IMPORT]
    assert [r.sampled_s for r in rows] == [start_s - 86_400 + 900 * k for k in range(97)]
    assert all(is_true(bench, r) for r in rows)
    assert bench.drivers[FAULTY].associations == 1


@pytest.mark.parametrize(("zone", "day"), [("Europe/Berlin", 27), ("Europe/Berlin", -128), ("UTC", 27)])
def test_profile_over_a_change_of_daylight_saving(zone, day, make_bench, start_s):
    simulation = Simulation(seed=5, history_days=30, installed="-200d")
    bench = make_bench(simulation, timezone=zone)
    bench.clock.move(max(day, 0) * 86_400 + 3 * 86_400)
    middle = start_s + day * 86_400
    if day < 0:
        simulation = Simulation(seed=5, history_days=200, installed="-210d")
        bench = make_bench(simulation, timezone=zone)
    rows = [r for r in bench.bus.read_profile(FAULTY, middle - 86_400, middle + 86_400) if r.obis == obis.ENERGY_IMPORT]
    assert [r.sampled_s for r in rows] == [middle - 86_400 + 900 * k for k in range(193)]
    assert all(is_true(bench, r) for r in rows)


# Values: an odd one is read twice and flagged, or refused; never handed on as good.


@pytest.mark.parametrize("kind", ["scaler_changed", "int32", "uint64", "rollover", "decrease"])
def test_a_register_that_changes_its_ways_is_seen_twice_or_flagged(kind, make_bench):
    bench = make_bench(fault(kind, until=None, amount={"rollover": 2, "decrease": 50.0}.get(kind)))
    until(bench, FROM_S)
    later = energies(until(bench, UNTIL_S))
    assert len(later) >= 15
    meter = bench.site.meters[FAULTY]
    assert all(abs(r.value - meter.energy_wh(r.sampled_s)[0]) <= 110 for r in later)
    suspect = [r for r in later if r.quality & Quality.SUSPECT]
    assert len(suspect) <= 1
    if kind in ("rollover", "decrease"):
        assert suspect == later[:1]


def test_a_replaced_meter_is_read_when_it_stays(make_bench):
    bench = make_bench(fault("replaced", until=None))
    until(bench, FROM_S)
    polls = until(bench, FROM_S + 3 * EXCHANGE_ANSWERS * CYCLE_S)
    mine = [p for p in polls if p.meter == FAULTY]
    assert sum(isinstance(p.error, IdentityMismatch) for p in mine) == EXCHANGE_ANSWERS - 1
    later = energies(mine)
    meter = bench.site.meters[FAULTY]
    assert len(later) > EXCHANGE_ANSWERS
    assert all(abs(r.value - meter.energy_wh(r.sampled_s)[0]) <= 110 for r in later)
    assert bench.bus.identify(FAULTY).serial == "CHM00000002R1"


def test_a_register_without_a_scaler_is_not_guessed(make_bench):
    simulation = Simulation(seed=5, history_days=8, installed="-60d", fault=[Fault(kind="scaler_absent", meter=FAULTY)])
    bench = make_bench(simulation)
    polls = cycle(bench)
    assert not energies(polls)
    assert [r for p in polls if p.meter == FAULTY for r in p.readings if r.obis == obis.VOLTAGE[0]]
    assert energies(polls, "flat-2")


def test_a_frozen_register_catches_up(make_bench):
    bench = make_bench(fault("frozen"))
    values = [r.value for r in energies(until(bench, UNTIL_S))]
    after = [r.value for r in energies(until(bench, UNTIL_S + 600))]
    assert values[6:] == [values[6]] * len(values[6:])
    assert after[-1] > values[-1]
    true = bench.site.building.energy_wh(FAULTY, bench.clock.now())[0]
    assert abs(after[-1] - true) < 100


def test_a_wrong_transformer_ratio_halves_what_is_counted(make_bench, start_s):
    bench = make_bench(fault("ct_ratio", until=None, amount=0.5))
    bench.clock.move(86_400)
    cycle(bench)
    meter, true = bench.site.meters[FAULTY], bench.site.building
    onset = start_s + FROM_S
    shown = meter.energy_wh(bench.clock.now())[0] - meter.energy_wh(onset)[0]
    flowed = true.energy_wh(FAULTY, bench.clock.now())[0] - true.energy_wh(FAULTY, onset)[0]
    assert shown == pytest.approx(flowed / 2, abs=20)


# Tamper: it is in the log, in the error register, or in the currents.


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("cover", [Code.METER_COVER_REMOVED, Code.METER_COVER_CLOSED]),
        ("terminal_cover", [Code.TERMINAL_COVER_REMOVED, Code.TERMINAL_COVER_CLOSED]),
        ("magnet", [Code.STRONG_FIELD, Code.STRONG_FIELD_GONE]),
        ("reverse", [Code.CURRENT_REVERSED]),
        ("phase_loss", [Code.PHASE_LOST, Code.PHASE_BACK]),
    ],
)
def test_tampering_is_in_the_log(kind, codes, make_bench, start_s):
    bench = make_bench(fault(kind))
    until(bench, UNTIL_S + 60)
    events = bench.bus.read_events(FAULTY, start_s)
    assert [e.code for e in events] == codes
    assert abs(events[0].meter_time_s - start_s - FROM_S) < 1
    assert not bench.bus.read_events("flat-2", start_s)


def test_tampering_shows_in_registers(make_bench):
    readings = {}
    for kind in ("magnet", "reverse", "neutral_current", "phase_loss"):
        bench = make_bench(fault(kind))
        bench.clock.move(FROM_S + 60)
        readings[kind] = {r.obis: r.value for p in cycle(bench) if p.meter == FAULTY for r in p.readings}
    assert readings["magnet"][obis.ERROR_REGISTER] == 1 << 13
    assert readings["reverse"][obis.POWER_IMPORT] == 0.0 < readings["reverse"][obis.POWER_EXPORT]
    assert readings["neutral_current"][obis.NEUTRAL_CURRENT] > readings["neutral_current"][obis.CURRENT[0]] + 1.5
    assert readings["phase_loss"][obis.VOLTAGE[0]] == 0.0


def test_reverse_energy_counts_as_export(make_bench, start_s):
    bench = make_bench(fault("reverse"))
    bench.clock.move(86_400)
    meter = bench.site.meters[FAULTY]
    before, after = meter.energy_wh(start_s + FROM_S), meter.energy_wh(start_s + UNTIL_S)
    flowed = [bench.site.building.energy_wh(FAULTY, start_s + at)[0] for at in (FROM_S, UNTIL_S)]
    assert after[0] - before[0] == pytest.approx(0, abs=10)
    assert after[1] - before[1] == pytest.approx(flowed[1] - flowed[0], abs=20)


def test_a_log_that_overflows_keeps_the_newest(make_bench, start_s):
    bench = make_bench(fault("log_overflow"))
    bench.clock.move(FROM_S + 3600)
    events = bench.bus.read_events(FAULTY, start_s)
    fraud = [e for e in events if e.log == obis.EVENT_LOG_FRAUD]
    assert len(fraud) == LOG_ENTRIES
    assert fraud[-1].meter_time_s - start_s == pytest.approx(FROM_S + 7 * (2 * LOG_ENTRIES - 1), abs=1)
