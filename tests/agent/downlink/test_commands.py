"""Commands: who may, which, once; and everything that is refused with a reason and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from click.testing import CliRunner

from agent.cli.gateway.keys import command as keys_verb
from agent.downlink.commands import (
    ANSWERS,
    ARGUMENTS,
    Acknowledge,
    CommandDesk,
    CommandFailed,
    LiveArguments,
    WeatherArguments,
)
from agent.keys.signing import KeyRing, read_public, sign
from agent.store.messages import Priority
from agent.store.store import Store
from agent.wire.codec import decode, encode
from agent.wire.downlink import MAX_COMMAND_BYTES, Command, CommandResult, Signed
from agent.wire.values import utc

T0 = 1_767_225_600.0


class Bench:
    """A desk over a real store, with handlers that note what they were told."""

    def __init__(self, path: Path, backend: Any) -> None:
        self.backend = backend
        self.now_s = T0
        self.told: list[tuple[str, Any, str]] = []
        self.path = path
        self.open()

    def open(self) -> None:
        self.store = Store(self.path, T0)
        names = ("snapshot", "report", "acknowledge", "set-mode", "reload")
        handlers = {name: self._handler(name) for name in names}
        self.desk = CommandDesk(self.backend.address, self.backend.ring, self.store, lambda: self.now_s, handlers)

    def _handler(self, name: str) -> Callable[[Any, str], dict[str, Any]]:
        def handle(arguments: Any, by: str) -> dict[str, Any]:
            self.told.append((name, arguments, by))
            if name == "reload":
                raise CommandFailed("the site file is wrong")
            if name == "snapshot" and len(self.told) > 1:
                raise ZeroDivisionError("a bug")
            return {"n": len(self.told)}

        return handle

    def wish(self, name: str = "snapshot", **changed: Any) -> Command:
        wish = Command(
            id="c-1",
            target=self.backend.address.target,
            name=name,  # type: ignore[arg-type]
            issued=utc(T0 - 60),
            expires=utc(T0 + 600),
            by="dispatcher 7",
        )
        return msgspec.structs.replace(wish, **changed)

    def give(self, wish: Command, change: Callable[[Signed], Signed] = lambda s: s) -> CommandResult:
        result = self.desk.handle(self.backend.signed("command", wish, change))
        assert result is not None
        return result

    def answers(self) -> list[CommandResult]:
        return [decode(CommandResult, o.message.body) for o in self.store.pending(100, [Priority.ANSWER])]


@pytest.fixture
def bench(tmp_path: Path, backend: Any) -> Iterator[Bench]:
    bench = Bench(tmp_path / "s.sqlite", backend)
    yield bench
    bench.store.close()


def test_a_command_is_carried_out_and_answered(bench: Bench) -> None:
    result = bench.give(bench.wish("acknowledge", args={"alert_id": "a-1"}))
    assert (result.status, result.id, result.name, result.result) == ("done", "c-1", "acknowledge", {"n": 1})
    ((name, arguments, by),) = bench.told
    assert (name, arguments.alert_id, by) == ("acknowledge", "a-1", "dispatcher 7")
    assert bench.answers() == [result]


def test_the_same_command_again_does_nothing_and_gets_the_same_answer_also_after_a_restart(bench: Bench) -> None:
    first = bench.give(bench.wish())
    bench.now_s += 30
    assert bench.give(bench.wish()) == first
    bench.store.close()
    bench.open()
    assert bench.give(bench.wish()) == first
    assert len(bench.told) == 1


def test_a_command_that_a_restart_interrupted_is_not_begun_again(bench: Bench) -> None:
    bench.store.note_command("c-1", T0 + 600, b"begun", T0)
    result = bench.give(bench.wish("reload"))
    assert (result.status, result.reason) == ("failed", "interrupted by a restart; not begun again")
    assert bench.told == []


def test_what_cannot_be_done_and_a_bug_are_answered(bench: Bench) -> None:
    assert bench.give(bench.wish("reload")).reason == "the site file is wrong"
    failed = bench.give(bench.wish("snapshot", id="c-2"))
    assert (failed.status, failed.reason) == ("failed", "ZeroDivisionError: a bug")


def test_ping_and_resend_need_nobody(bench: Bench) -> None:
    assert bench.give(bench.wish("ping")).result == {"queued": 0, "queued_bytes": 0}
    args = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    assert bench.give(bench.wish("resend", id="c-2", args=args)).result["queued"] == 0


REFUSED: dict[str, tuple[Callable[[Bench], bytes], str]] = {
    "not JSON": (lambda b: b"\xff\x00{", "not a checkmeter.signed.v1"),
    "not signed": (lambda b: encode(b.wish()), "not a checkmeter.signed.v1"),
    "too large": (lambda b: b"[" * (MAX_COMMAND_BYTES + 1), "over the limit"),
    "deeply nested": (lambda b: b'{"payload":' + b"[" * 10_000, "not a checkmeter.signed.v1"),
    "an outsider's key": (lambda b: encode(sign(b.backend.outsider, "command", encode(b.wish()))), "may not sign"),
    "an outsider under our key's name": (
        lambda b: b.backend.signed("command", b.wish(), lambda s: msgspec.structs.replace(s, signature="0" * 128)),
        "does not fit",
    ),
    "changed after signing": (
        lambda b: b.backend.signed(
            "command",
            b.wish("ping"),
            lambda s: msgspec.structs.replace(s, payload=s.payload.replace("ping", "snapshot")),
        ),
        "does not fit",
    ),
    "signed as a configuration": (lambda b: b.backend.signed("config", b.wish()), "does not fit"),
    "not a command": (
        lambda b: b.backend.signed("command", b.wish(), lambda s: sign(b.backend.key, "command", b'{"id":"x"}')),
        "not a checkmeter.command.v1",
    ),
    "an unknown field": (
        lambda b: encode(sign(b.backend.key, "command", encode(b.wish())[:-1] + b',"shell":"rm"}')),
        "shell",
    ),
    "a command that there is not": (
        lambda b: encode(sign(b.backend.key, "command", encode(b.wish()).replace(b'"snapshot"', b'"exec"'))),
        "exec",
    ),
    "for another gateway": (lambda b: b.backend.signed("command", b.wish(target="acme/x/gw-1")), "it is for acme/x"),
    "expired": (lambda b: b.backend.signed("command", b.wish(expires=utc(T0))), "expired at"),
    "from the future": (lambda b: b.backend.signed("command", b.wish(issued=utc(T0 + 400))), "clock says"),
    "too long a life": (
        lambda b: b.backend.signed("command", b.wish(expires=utc(T0) + timedelta(days=2))),
        "lives longer",
    ),
    "wrong arguments": (lambda b: b.backend.signed("command", b.wish("acknowledge")), "alert_id"),
    "arguments too many": (lambda b: b.backend.signed("command", b.wish("ping", args={"x": 1})), "x"),
    "a mode that there is not": (
        lambda b: b.backend.signed("command", b.wish("set-mode", args={"mode": "off"})),
        "mode",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason_and_nothing_changes(bench: Bench, case: str) -> None:
    make, reason = REFUSED[case]
    result = bench.desk.handle(make(bench))
    assert result is not None
    assert result.status == "refused"
    assert reason in (result.reason or "")
    assert bench.told == []
    assert bench.answers() == [result]
    assert bench.store.answer_of("c-1") is None


def test_without_keys_nobody_may_command(bench: Bench) -> None:
    desk = CommandDesk(bench.backend.address, KeyRing(), bench.store, lambda: T0, {})
    result = desk.handle(bench.backend.signed("command", bench.wish("ping")))
    assert result is not None
    assert "may not sign" in (result.reason or "")


def test_a_flood_without_a_key_makes_us_send_little(bench: Bench) -> None:
    answered = [bench.desk.handle(b"junk %d" % i) for i in range(1000)]
    assert sum(a is not None for a in answered) == ANSWERS
    assert len(bench.answers()) <= ANSWERS
    bench.now_s += 120
    assert bench.desk.handle(b"junk") is not None


def test_the_keys_verb_makes_keys_that_sign_commands(tmp_path: Path, bench: Bench) -> None:
    runner = CliRunner()
    made = runner.invoke(keys_verb, ["make", str(tmp_path / "ops")])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "ops.key").stat().st_mode & 0o777 == 0o600
    shown = runner.invoke(keys_verb, ["show", str(tmp_path / "ops.pub"), str(tmp_path / "ops.key")])
    assert len({line.split()[0] for line in shown.output.splitlines()}) == 1
    again = runner.invoke(keys_verb, ["make", str(tmp_path / "ops")])
    assert again.exit_code == 1
    assert "never overwritten" in again.output
    arguments = ["--key", str(tmp_path / "ops.key"), "--target", bench.backend.address.target, "--arg", "alert_id=a-1"]
    signed = runner.invoke(keys_verb, ["sign", *arguments, "acknowledge"])
    assert signed.exit_code == 0, signed.output
    desk = CommandDesk(
        bench.backend.address, KeyRing([read_public(tmp_path / "ops.pub")]), bench.store,
        lambda: json.loads(json.loads(signed.output)["payload"]) and decode(
            Command, json.loads(signed.output)["payload"].encode()
        ).issued.timestamp(),
        {"acknowledge": lambda arguments, by: {"alert": arguments.alert_id}},
    )  # fmt: skip
    result = desk.handle(signed.output.strip().encode())
    assert result is not None
    assert result.result == {"alert": "a-1"}


def test_a_file_that_is_no_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.pub").write_text("no key")
    shown = CliRunner().invoke(keys_verb, ["show", str(tmp_path / "x.pub")])
    assert shown.exit_code == 1
    assert "no public key in PEM" in shown.output


TYPED: dict[str, dict[str, str]] = {
    "ping": {},
    "snapshot": {},
    "report": {"alert_id": "7", "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
    "resend": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
    "acknowledge": {"alert_id": "a-1", "reason": "true"},
    "set-mode": {"mode": "maintenance", "until": "2026-01-02T00:00:00Z"},
    "reload": {},
    "live": {"zone": "12", "for_s": "300", "meters": "true"},
    "weather": {"start": "2026-01-01T00:00:00Z", "interval_s": "3600", "outdoor_c": "[3.5, -2, 0]"},
}


@pytest.mark.parametrize("name", get_args(msgspec.structs.fields(Command)[2].type))
def test_each_command_is_signed_with_arguments_as_the_gateway_takes_them(name: str, tmp_path: Path) -> None:
    CliRunner().invoke(keys_verb, ["make", str(tmp_path / "ops")])
    key = ["sign", "--key", str(tmp_path / "ops.key"), "--target", "acme/house/gw"]
    signed = CliRunner().invoke(keys_verb, [*key, *(f"--arg={k}={v}" for k, v in TYPED[name].items()), name])
    assert signed.exit_code == 0, signed.output
    command = decode(Command, json.loads(signed.output)["payload"].encode())
    order = msgspec.convert(command.args, ARGUMENTS[name])
    assert set(command.args) == set(TYPED[name])
    if name == "live":
        assert isinstance(order, LiveArguments)
        assert (order.zone, order.for_s, order.meters) == ("12", 300.0, True)
    if name == "acknowledge":
        assert isinstance(order, Acknowledge)
        assert order.reason == "true"
    if name == "weather":
        assert isinstance(order, WeatherArguments)
        assert (order.interval_s, order.outdoor_c) == (3600, [3.5, -2.0, 0.0])
    wrong = CliRunner().invoke(keys_verb, [*key, "--arg", "colour=red", name])
    assert (wrong.exit_code, f"{name} takes" in wrong.output) == (2, True), wrong.output


def test_the_documented_live_command_can_be_signed(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/seconds.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "keys sign" in line)
    CliRunner().invoke(keys_verb, ["make", str(tmp_path / "ops")])
    words = line.replace("\\", "").replace("ops.key", str(tmp_path / "ops.key")).split()[2:]
    signed = CliRunner().invoke(keys_verb, words)
    assert signed.exit_code == 0, signed.output


@pytest.mark.parametrize("name", ["resend", "report"])
def test_a_span_that_ends_before_it_begins_is_refused(bench: Bench, name: str) -> None:
    args = {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    given = bench.give(bench.wish(name, args=args | ({"alert_id": "a-1"} if name == "report" else {})))
    assert (given.status, "since is after until" in (given.reason or "")) == ("refused", True)


def test_who_is_not_named_is_known_by_the_key(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        bench.give(bench.wish(by=""))
    key = json.loads(bench.backend.signed("command", bench.wish()))["key"]
    assert bench.told[-1][2] == f"key {key}"
    assert f"by key {key}" in caplog.text
