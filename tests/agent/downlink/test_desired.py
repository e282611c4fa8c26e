"""Desired state: checked, on trial, kept or rolled back, over restarts and kills."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.downlink.desired import MAX_STARTS, TRIAL_S, Desired, DesiredRefused
from agent.keys.signing import sign
from agent.wire.codec import encode
from agent.wire.downlink import MAX_CONFIG_BYTES, DesiredConfig, DesiredModel
from agent.wire.values import utc

T0 = 1_767_225_600.0


class Site:
    """A gateway's folder of desired state, over restarts."""

    def __init__(self, folder: Path, backend: Any, kind: Any = "config") -> None:
        self.folder, self.backend, self.kind = folder, backend, kind
        self.monotonic_s = 0.0
        self.restart()

    def restart(self) -> None:
        self.desired = Desired(
            self.kind, self.folder, self.backend.address, self.check, lambda: T0, lambda: self.monotonic_s
        )

    @staticmethod
    def check(content: bytes) -> None:
        if b"bad" in content:
            raise DesiredRefused("site.toml:3: zone: unknown key")

    def offer(
        self, version: int, toml: str = "x = 1", readable: tuple[str, ...] = ("main", "f1"), **changed: Any
    ) -> bool:
        wish = DesiredConfig(target=self.backend.address.target, version=version, issued=utc(T0), toml=toml)
        wish = msgspec.structs.replace(wish, **changed)
        return self.desired.offer(self.backend.signed("config", wish), self.backend.ring, readable)

    def judge(self, connected: bool = True, readable: tuple[str, ...] = ("main", "f1")) -> str:
        return self.desired.judge(connected, ("main", "f1", "f2"), readable)

    def text(self) -> str | None:
        return None if self.desired.active is None else self.desired.active.read_text()


@pytest.fixture
def site(tmp_path: Path, backend: Any) -> Site:
    return Site(tmp_path / "desired", backend)


def test_accepted_tried_and_kept(site: Site) -> None:
    assert site.desired.reported.state == "none"
    assert site.offer(1)
    assert (site.text(), site.desired.reported.state, site.desired.reported.version) == ("x = 1", "on_trial", 1)
    assert site.judge() == "wait"
    site.monotonic_s += TRIAL_S
    assert site.judge() == "kept"
    site.restart()
    reported = site.desired.reported
    assert (site.text(), reported.state, reported.version) == ("x = 1", "kept", 1)
    assert reported.sha256 == hashlib.sha256(b"x = 1").hexdigest()


@pytest.mark.parametrize(
    ("connected", "readable", "reason"), [(False, ("main", "f1"), "broker"), (True, ("main",), "lost: f1")]
)
def test_a_gateway_that_gets_worse_goes_back_to_what_ran_before(
    site: Site, connected: bool, readable: tuple[str, ...], reason: str
) -> None:
    site.offer(1)
    site.monotonic_s += TRIAL_S
    site.judge()
    site.offer(2, "x = 2")
    assert site.text() == "x = 2"
    site.monotonic_s += TRIAL_S
    assert site.judge(connected, readable) == "back"
    assert site.text() == "x = 1"
    assert (site.desired.reported.state, site.desired.reported.desired) == ("rolled_back", 2)
    assert reason in (site.desired.reported.reason or "")
    assert not site.offer(2, "x = 2")  # retained: it comes again with the next connect
    assert site.desired.reported.state == "rolled_back"
    assert site.offer(3, "x = 3")


def test_a_meter_that_the_new_file_leaves_out_is_no_loss(site: Site) -> None:
    site.offer(1, readable=("main", "f1", "gone"))
    site.monotonic_s += TRIAL_S
    assert site.judge() == "kept"


def test_a_file_that_makes_the_agent_die_is_rolled_back_after_some_starts(site: Site) -> None:
    site.offer(1)
    for _ in range(MAX_STARTS):
        site.restart()
        assert not site.desired.started()
        site.monotonic_s += TRIAL_S - 1
    site.restart()
    assert site.desired.started()
    assert site.desired.active is None
    assert site.desired.reported.state == "rolled_back"


def test_the_retained_message_that_comes_again_changes_nothing(site: Site) -> None:
    assert site.offer(1)
    assert not site.offer(1)
    assert site.desired.reported.state == "on_trial"
    site.restart()
    assert not site.offer(1)
    assert site.desired.reported.state == "on_trial"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": "acme/x/gw-1"}, "it is for acme/x/gw-1"),
        ({"expires": utc(T0)}, "expired"),
        ({"toml": "bad"}, "site.toml:3: zone: unknown key"),
        ({"toml": "#" * MAX_CONFIG_BYTES}, "over the limit"),
        ({"version": 1, "toml": "another"}, "not above"),
    ],
)
def test_refused_with_the_reason_and_what_runs_stays(site: Site, changed: dict[str, Any], reason: str) -> None:
    site.offer(1)
    site.monotonic_s += TRIAL_S
    site.judge()
    before = sorted(p.name for p in site.folder.iterdir())
    assert not site.offer(**{"version": 2, **changed})
    assert site.desired.reported.state == "rejected"
    assert reason in (site.desired.reported.reason or "")
    assert (site.text(), site.desired.reported.version) == ("x = 1", 1)
    assert sorted(p.name for p in site.folder.iterdir()) == before


def test_a_stranger_and_another_purpose_are_refused(site: Site) -> None:
    wish = DesiredConfig(target=site.backend.address.target, version=1, issued=utc(T0), toml="x = 1")
    for payload in (
        encode(sign(site.backend.outsider, "config", encode(wish))),
        site.backend.signed("command", wish),
        encode(wish),
        b"\x00" * 100,
    ):
        assert not site.desired.offer(payload, site.backend.ring)
        assert site.desired.reported.state == "rejected"
        assert site.desired.active is None


def test_during_a_trial_another_version_waits(site: Site) -> None:
    site.offer(1)
    assert not site.offer(2, "x = 2")
    assert "still on trial" in (site.desired.reported.reason or "")
    assert (site.desired.reported.state, site.text()) == ("on_trial", "x = 1")


@pytest.mark.parametrize("damage", ["record", "file", "file-missing"])
def test_a_damaged_folder_leaves_the_gateways_own_file_in_force(site: Site, damage: str) -> None:
    site.offer(1)
    match damage:
        case "record":
            (site.folder / "config.json").write_bytes(b"\x00\x01")
        case "file":
            (site.folder / "config-1.toml").write_text("y")
        case _:
            (site.folder / "config-1.toml").unlink()
    site.restart()
    assert site.desired.active is None
    assert site.desired.reported.reason


def test_a_model_must_have_the_sha256_that_it_is_said_to_have(tmp_path: Path, backend: Any) -> None:
    site = Site(tmp_path, backend, "model")
    content = b"TFL3 model"
    good = DesiredModel(
        target=backend.address.target,
        version=1,
        issued=utc(T0),
        sha256=hashlib.sha256(content).hexdigest(),
        tflite=content,
    )
    wrong = msgspec.structs.replace(good, tflite=b"TFL3 other")
    assert not site.desired.offer(backend.signed("model", wrong), backend.ring)
    assert base64.b64encode(content) in encode(good)
    assert site.desired.offer(backend.signed("model", good), backend.ring)
    assert site.desired.active is not None
    assert site.desired.active.read_bytes() == content
