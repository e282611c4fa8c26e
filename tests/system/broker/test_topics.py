"""What is said on each topic, in which form, and what the last will says when nobody else can."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent.wire.forecast import Forecast, ForecastExtreme
from agent.wire.state import ActiveSnapshot, Health, Info, Status
from agent.wire.values import utc

pytestmark = pytest.mark.mosquitto
T0 = 1_767_225_600.0
Check = Callable[..., None]


def forecast() -> Forecast:
    extreme = ForecastExtreme(w=2.0, w_interval=(1.0, 3.0), start=utc(T0), time_probability=[1 / 48] * 48)
    return Forecast(
        zone="building", issued=utc(T0), interval_s=1800, mean_w=[1.0] * 96, quantiles_w={"0.5": [1.0] * 96},
        peak=extreme, trough=extreme, days=30,
    )  # fmt: skip


def test_each_topic_has_its_form_and_its_properties(stage: Any, wait: Check, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port)
    gateway.publisher.publish_retained("status", Status(state="online", since=utc(T0), versions={"checkmeter": "0"}))
    gateway.publisher.publish_retained("info", Info(time=utc(T0), versions={}, meters=[], zones=[], schemas={}))
    gateway.publisher.publish_retained("active", ActiveSnapshot(time=utc(T0), alerts=[]))
    gateway.publisher.publish_retained("forecast/building", forecast())
    gateway.alerts(3)
    gateway.balances(1)
    wait(lambda: gateway.publisher.connected)
    gateway.publisher.health(Health(time=utc(T0), uptime_s=1.0))
    everything_arrived(gateway, listener)
    wait(lambda: {"status", "info", "active", "health", "balance/building"} <= set(listener.topics))
    alert = listener.properties["event/alert"]
    assert (alert.ContentType, alert.PayloadFormatIndicator) == ("application/cloudevents+json", 1)
    assert alert.UserProperty == [("schema", "checkmeter.alert.v1")]
    assert not hasattr(alert, "TopicAlias")
    assert 604000 < listener.properties["balance/building"].MessageExpiryInterval <= 604800 + 900
    assert listener.properties["health"].MessageExpiryInterval <= 180
    late = stage.listener(broker.port, "late")  # only what is retained
    wait(lambda: {"status", "info", "active", "forecast/building"} <= set(late.topics))
    assert set(late.topics) == {"status", "info", "active", "forecast/building"}
    gateway.publisher.clear_retained("forecast/building", Forecast)
    wait(lambda: len(listener.topics["forecast/building"]) == 2)  # subscribers are told, by an empty message
    latest = stage.listener(broker.port, "latest")
    wait(lambda: {"status", "info", "active"} <= set(latest.topics))
    assert set(latest.topics) == {"status", "info", "active"}


def test_mqtt_3_1_1_by_configuration(stage: Any, everything_arrived: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    gateway = stage.gateway(broker.port, version="3.1.1")
    gateway.alerts(30)
    everything_arrived(gateway, listener)
    assert not hasattr(listener.properties["event/alert"], "ContentType")


def test_status_and_info_are_said_again_on_every_connect(stage: Any, wait: Check) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port)
    gateway.publisher.publish_retained("status", Status(state="online", versions={}))
    gateway.publisher.publish_retained("info", Info(time=utc(T0), versions={}, meters=[], zones=[], schemas={}))
    for n in (1, 2, 3):
        wait(lambda n=n: len(listener.topics["status"]) >= n and len(listener.topics["info"]) >= n)
        proxy.cut()
        wait(lambda: not gateway.publisher.connected)
        proxy.mend()
    wait(lambda: gateway.publisher.connected)
    gateway.publisher.stop()
    gateway.thread.join(10)
    wait(lambda: state_of(listener.topics["status"][-1]) == ("offline", "stopped"))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_the_last_will_is_said_when_the_link_dies_and_not_when_it_comes_back_in_time(
    stage: Any, wait: Check, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.uplink.connection.WILL_DELAY_S", 1)
    broker = stage.broker()
    listener = stage.listener(broker.port)
    proxy = stage.proxy(broker.port)
    gateway = stage.gateway(proxy.port, version=version)
    gateway.publisher.publish_retained("status", Status(state="online", versions={}))
    wait(lambda: listener.topics["status"])
    proxy.cut()
    if version == "5":  # 3.1.1 knows no delay
        time.sleep(0.3)
        proxy.mend()
        wait(lambda: gateway.publisher.connected)
        time.sleep(1.5)
        assert {state_of(body)[0] for body in listener.topics["status"]} == {"online"}
        proxy.cut()
    wait(lambda: state_of(listener.topics["status"][-1]) == ("offline", "connection lost"))
    proxy.mend()
    wait(lambda: state_of(listener.topics["status"][-1])[0] == "online")


def state_of(body: bytes) -> tuple[str, str | None]:
    status = json.loads(body)
    return status["state"], status.get("reason")
