"""The life of an alert: identity, material change, hold, flapping, restart."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from agent.alerts.book import AlertBook, AlertPolicy
from agent.alerts.cim import CimCodes
from agent.alerts.condition import Condition
from agent.wire.codec import decode, encode
from agent.wire.events import AlertEvent, TamperData, TamperEvent
from agent.wire.topics import Address
from agent.wire.values import utc
from core.evidence import Evidence, LossKind, Residual, Suspect

HOUR = 3600.0
T0 = 1_767_225_600.0  # 2026-01-01T00:00:00Z
ADDRESS = Address("acme", "riverside-12", "gw-0012")


def evidence(time_s: float = T0, **changed: object) -> Evidence:
    """One zone's evidence of a 412 W loss that began two hours before T0."""
    said = Evidence(
        zone="building",
        time_s=time_s,
        active=True,
        episode=0,
        kind=LossKind.BYPASS,
        onset_s=T0 - 2 * HOUR,
        onset_window_s=(T0 - 3 * HOUR, T0 - HOUR),
        loss_w=412.04,
        loss_w_interval=(371.0, 455.0),
        loss_kwh=0.824,
        suspects=(Suspect("flat-302", 0.55, "bypass"), Suspect("flat-101", 0.2)),
        upstream_probability=0.1,
        residual=Residual(0.9, 1.7, 0.1, 0.6),
        coverage=0.998,
    )
    return replace(said, **changed)


def named(time_s: float, probability: float = 0.95, **changed: object) -> Evidence:
    return evidence(time_s, suspects=(Suspect("flat-302", probability, "bypass"),), **changed)


@pytest.fixture
def book() -> AlertBook:
    return AlertBook(ADDRESS, zone_of={"flat-302": "building"})


def test_a_raised_alert_says_what_the_contract_asks(book: AlertBook) -> None:
    (event,) = book.apply([evidence()])
    assert (event.specversion, event.type, event.source) == ("1.0", "checkmeter.alert.v1", "/acme/riverside-12/gw-0012")
    assert event.subject == "zone/building"
    assert (event.data.state, event.data.revision, event.data.cim) == ("raised", 1, "5.21.67.98")
    assert event.data.loss_w == 412.0
    assert [s.probability for s in event.data.suspects or []] == [0.55, 0.2]
    assert UUID(event.id).version == UUID(event.data.alert_id).version == 4
    assert b'"time":"2026-01-01T00:00:00Z"' in encode(event)
    assert decode(AlertEvent, encode(event)) == event


def test_no_mechanism_is_named_below_the_confidence(book: AlertBook) -> None:
    (raised,) = book.apply([evidence()])
    assert (raised.data.kind, raised.data.severity) == ("non_technical_loss", "warning")
    (updated,) = book.apply([named(T0 + 900)])
    assert (updated.data.kind, updated.data.severity, updated.data.revision) == ("bypass", "critical", 2)
    assert updated.data.alert_id == raised.data.alert_id


@pytest.mark.parametrize(("upstream", "kind"), [(0.95, "upstream_tap"), (0.89, "non_technical_loss")])
def test_an_upstream_tap_needs_the_confidence_too(book: AlertBook, upstream: float, kind: str) -> None:
    (event,) = book.apply([evidence(kind=LossKind.UPSTREAM_TAP, suspects=(), upstream_probability=upstream)])
    assert event.data.kind == kind


def test_identity_stays_while_the_onset_is_refined(book: AlertBook) -> None:
    (raised,) = book.apply([evidence()])
    (updated,) = book.apply([evidence(T0 + 2 * HOUR, onset_s=T0 - 6 * HOUR)])
    assert updated.data.alert_id == raised.data.alert_id
    assert updated.data.onset < raised.data.onset


def test_immaterial_change_says_nothing_and_material_change_keeps_its_distance(book: AlertBook) -> None:
    book.apply([evidence()])
    assert book.apply([evidence(T0 + 2 * HOUR, loss_w=430.0)]) == []
    assert book.apply([evidence(T0 + 0.5 * HOUR, loss_w=600.0)]) == []  # material, but within the hour
    (updated,) = book.apply([evidence(T0 + 1.5 * HOUR, loss_w=600.0)])
    assert updated.data.loss_w == 600.0
    assert book.apply([evidence(T0 + 1.75 * HOUR, loss_w=900.0)]) == []


def test_more_severe_is_said_at_once_and_severity_never_falls(book: AlertBook) -> None:
    book.apply([evidence()])
    (worse,) = book.apply([evidence(T0 + 900, residual=Residual(4, 6.3, 0.9, 0.6))])
    assert worse.data.severity == "critical"
    (later,) = book.apply([evidence(T0 + 9 * HOUR, loss_w=200.0)])
    assert later.data.severity == "critical"


def test_what_is_told_at_the_end_is_all_that_was_lost_and_why_it_ends(book: AlertBook) -> None:
    book.apply([evidence()])
    book.apply([evidence(T0 + HOUR, active=False, loss_kwh=77.0, loss_w=300.0, returned=True)])
    (cleared,) = book.advance(T0 + 12 * HOUR)
    assert (cleared.data.state, cleared.data.loss_kwh, cleared.data.loss_w) == ("cleared", 77.0, 300.0)
    assert "caught up" in (cleared.data.detail or "")


def test_cleared_only_after_the_hold_and_a_return_continues_the_alert(book: AlertBook) -> None:
    (raised,) = book.apply([evidence()])
    assert book.apply([evidence(T0 + HOUR, active=False)]) == []
    assert book.apply([evidence(T0 + 1.5 * HOUR)]) == []  # back within the hold
    assert book.advance(T0 + 20 * HOUR) == []
    book.apply([evidence(T0 + 20 * HOUR, active=False)])
    assert book.advance(T0 + 21.5 * HOUR) == []  # the hold has doubled
    (cleared,) = book.advance(T0 + 22 * HOUR)
    assert (cleared.data.state, cleared.data.cim) == ("cleared", "5.21.67.75")
    assert cleared.data.alert_id == raised.data.alert_id
    assert book.active(T0 + 22 * HOUR).alerts == []


def test_a_loss_of_its_own_never_continues_another_s_alert(book: AlertBook) -> None:
    """Also where nobody looked between the end of the first and the beginning of the second, as in a replay."""
    told = book.apply(
        [evidence(), evidence(T0 + HOUR, active=False), evidence(T0 + 900 * HOUR, episode=1), evidence(T0 + 901 * HOUR)]
    )
    assert [event.data.state for event in told] == ["raised", "cleared", "raised", "raised"]
    assert len({event.data.alert_id for event in told}) == 3
    assert told[1].time.timestamp() == T0 + 2 * HOUR, "when the hold was over, not when somebody looked"
    assert book.loss_of(told[2].data.alert_id) == ("building", 1.0, 1)
    with pytest.raises(KeyError):
        book.loss_of(told[0].data.alert_id)


def test_what_a_common_load_would_explain_is_a_question(book: AlertBook) -> None:
    (event,) = book.apply([evidence(question=True, residual=Residual(4, 6.3, 0.9, 0.6))])
    assert (event.data.kind, event.data.severity) == ("non_technical_loss", "info")
    assert "stairs, lift, pumps" in (event.data.detail or "")


def test_a_new_episode_after_the_end_is_a_new_alert(book: AlertBook) -> None:
    (first,) = book.apply([evidence()])
    book.apply([evidence(T0 + HOUR, active=False)])
    book.advance(T0 + 3 * HOUR)
    (second,) = book.apply([evidence(T0 + 48 * HOUR, episode=1)])
    assert second.data.alert_id != first.data.alert_id
    assert second.data.revision == 1


def test_loss_and_surplus_of_a_zone_are_two_alerts(book: AlertBook) -> None:
    events = book.apply([evidence(), evidence(kind=LossKind.BALANCE_SURPLUS, loss_w=-50.0)])
    assert [e.data.kind for e in events] == ["non_technical_loss", "balance_surplus"]
    assert len({e.data.alert_id for e in events}) == 2


def test_a_flapping_meter_makes_few_transitions(book: AlertBook) -> None:
    events = []
    for minute in range(3 * 24 * 60):
        now = T0 + 60 * minute
        silent = minute % 40 < 20  # 20 minutes silent, 20 minutes there, for three days
        since = now - 60 * (minute % 40)
        events += book.observe([Condition("communication_loss", silent, now, since, meter="flat-302", hold_s=600.0)])
    assert 2 <= len(events) <= 12
    assert events[0].data.zone == "building"
    assert events[0].subject == "meter/flat-302"


def test_a_clock_set_back_restarts_the_hold(book: AlertBook) -> None:
    book.apply([evidence()])
    book.apply([evidence(T0 + HOUR, active=False)])
    assert book.advance(T0 - 48 * HOUR) == []
    assert book.advance(T0 - 47.5 * HOUR) == []
    assert [e.data.state for e in book.advance(T0 - 47 * HOUR)] == ["cleared"]


def test_the_same_input_gives_the_same_events_and_each_transition_an_id_of_its_own() -> None:
    story = [evidence(), named(T0 + 900), evidence(T0 + HOUR, active=False), evidence(T0 + 9 * HOUR, active=False)]
    one, two = (AlertBook(ADDRESS).apply(story) for _ in range(2))
    assert one == two
    assert len({e.id for e in one}) == len(one) == 3
    assert len({e.data.alert_id for e in one}) == 1


def test_no_estimate_goes_into_an_id_for_its_last_digit_depends_on_the_processor() -> None:
    (here,) = AlertBook(ADDRESS).apply([named(T0)])
    off = named(T0, loss_w=412.1, onset_s=T0 - 7 * 900.0, features={"flat-302": {"share": 0.0713}})
    (there,) = AlertBook(ADDRESS).apply([off])
    assert there.data != here.data
    assert (there.id, there.data.alert_id) == (here.id, here.data.alert_id)
    (unnamed,) = AlertBook(ADDRESS).apply([evidence()])
    assert unnamed.data.kind != here.data.kind
    assert (unnamed.id, unnamed.data.alert_id) == (here.id, here.data.alert_id)


def test_each_exact_fact_makes_another_id() -> None:
    story = [evidence(zone="z", episode=1), evidence(zone="y", episode=1), evidence(zone="z", episode=2)]
    story += [evidence(T0 + 900, zone="z", episode=1)]
    raised = [AlertBook(ADDRESS).apply([item])[0] for item in story]
    raised += AlertBook(ADDRESS._replace(site="other")).apply(story[:1])
    assert len({e.data.alert_id for e in raised}) == len({e.id for e in raised}) == 5


def test_a_restored_book_goes_on_as_if_nothing_had_happened() -> None:
    story = [evidence(), named(T0 + 900), named(T0 + 9 * HOUR, loss_w=800.0), evidence(T0 + 10 * HOUR, active=False)]
    story.append(evidence(T0 + 20 * HOUR, active=False))
    whole = AlertBook(ADDRESS).apply(story)
    pieces = []
    state = AlertBook(ADDRESS).state()
    for item in story:
        book = AlertBook(ADDRESS)
        book.restore(state)
        pieces += book.apply([item])
        state = book.state()
    assert pieces == whole
    assert [e.data.revision for e in whole] == [1, 2, 3, 4]


def test_a_foreign_state_is_refused(book: AlertBook) -> None:
    for bad in (b"", b"\x00", b'{"open":3}', b'{"version":99}'):
        with pytest.raises(ValueError, match="state"):
            book.restore(bad)


def test_acknowledging_is_told_once_and_kept(book: AlertBook) -> None:
    (raised,) = book.apply([evidence()])
    (noted,) = book.acknowledge(raised.data.alert_id, "dispatcher 7", T0 + 60)
    assert noted.data.acknowledged is not None
    assert noted.data.acknowledged.by == "dispatcher 7"
    assert book.acknowledge(raised.data.alert_id, "dispatcher 8", T0 + 61) == []
    (later,) = book.apply([named(T0 + 900)])
    assert later.data.acknowledged == noted.data.acknowledged
    with pytest.raises(KeyError):
        book.acknowledge("no-such-alert", "x", T0)


def test_figures_that_are_not_finite_become_null_and_shares_stay_shares(book: AlertBook) -> None:
    nan = float("nan")
    (event,) = book.apply(
        [evidence(loss_kwh=nan, residual=Residual(nan, nan, nan, 0.6), coverage=1.0000001, features={"f": {"x": nan}})]
    )
    again = decode(AlertEvent, encode(event))
    assert again.data.loss_kwh is None
    assert again.data.residual is not None
    assert again.data.residual.kwh is None
    assert again.data.quality is not None
    assert again.data.quality.coverage == 1.0
    assert again.data.features == {"f": {"x": None}}


def entry(n: int, kind: str, state: str = "detected") -> TamperEvent:
    """A tamper event of flat-302, `n` minutes after T0."""
    data = TamperData(meter="flat-302", kind=kind, state=state, received=utc(T0 + 60 * n + 5))
    return TamperEvent(id=f"{n}-{kind}", source="/a", subject="meter/flat-302", time=utc(T0 + 60 * n), data=data)


def test_tamper_lasts_until_all_its_signs_have_ended(book: AlertBook) -> None:
    (raised,) = book.tampered([entry(0, "magnetic_field")])
    assert (raised.data.kind, raised.data.severity, raised.data.zone) == ("tamper", "critical", "building")
    assert raised.data.cim == "3.12.43.257"
    (updated,) = book.tampered([entry(90, "meter_cover")])
    assert updated.data.detail == "magnetic_field, meter_cover"
    assert book.tampered([entry(91, "magnetic_field", "ended"), entry(91, "magnetic_field", "ended")]) == []
    assert book.advance(T0 + 9 * HOUR) == []
    assert book.tampered([entry(600, "meter_cover", "ended")]) == []
    (cleared,) = book.advance(T0 + 12 * HOUR)
    assert (cleared.data.state, cleared.data.cim) == ("cleared", "3.12.43.291")
    assert cleared.data.alert_id == raised.data.alert_id


def test_a_wrong_password_is_over_after_a_day(book: AlertBook) -> None:
    (raised,) = book.tampered([entry(0, "wrong_password")])
    assert raised.data.severity == "warning"
    assert book.advance(T0 + 23 * HOUR) == []
    assert [e.data.state for e in book.advance(T0 + 25 * HOUR)] == ["cleared"]


def test_a_log_that_is_read_again_after_a_restart_raises_nothing(book: AlertBook) -> None:
    story = [entry(0, "meter_cover"), entry(5, "meter_cover", "ended")]
    assert len(book.tampered(story)) == 1
    book.advance(T0 + 5 * HOUR)
    again = AlertBook(ADDRESS)
    again.restore(book.state())
    assert again.tampered(story) == []


def test_reverse_energy_is_an_alert_of_its_own(book: AlertBook) -> None:
    events = book.tampered([entry(0, "reverse_run"), entry(1, "meter_cover")])
    assert [e.data.kind for e in events] == ["reverse_energy", "tamper"]


def test_maintenance_holds_back_conditions_and_not_losses(book: AlertBook) -> None:
    book.maintain(T0 + HOUR)
    silent = Condition("communication_loss", True, T0, T0, meter="flat-302")
    assert book.observe([silent]) == []
    assert len(book.apply([evidence()])) == 1
    assert len(book.observe([replace(silent, time_s=T0 + HOUR)])) == 1


def test_event_types_come_from_the_configuration() -> None:
    book = AlertBook(ADDRESS, cim=CimCodes({"non_technical_loss": "5.21.1.2"}), policy=AlertPolicy())
    (event,) = book.apply([evidence()])
    assert event.data.cim == "5.21.1.2"


def test_a_loss_that_is_one_with_an_older_one_says_so_when_it_ends(book: AlertBook) -> None:
    book.apply([evidence(episode=2)])
    book.apply([evidence(T0 + 2 * HOUR, episode=2, active=False, merged_into=1)])
    ended = book.advance(T0 + 72 * HOUR)[-1]
    assert ended.data.state == "cleared"
    assert "one with the loss that was told before" in (ended.data.detail or "")
