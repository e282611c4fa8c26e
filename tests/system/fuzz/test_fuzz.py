"""The fuzz targets under Hypothesis and a few hundred mutations each: a short form of `make fuzz` in every test run."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.system.fuzz import fuzz, fuzz_messages, fuzz_protocols
from tests.system.fuzz.runner import Fuzzer

FUZZERS = (fuzz.FUZZER, fuzz_messages.FUZZER, fuzz_protocols.FUZZER)
MUTATIONS = {fuzz.FUZZER.special: 700, fuzz_messages.FUZZER.special: 60, fuzz_protocols.FUZZER.special: 500}
EVERY = [pytest.param(fuzzer, name, id=name) for fuzzer in FUZZERS for name in sorted(fuzzer.targets)]


@pytest.mark.parametrize(("fuzzer", "name"), EVERY)
@given(octets=st.binary(max_size=400))
@settings(max_examples=80, deadline=None)
def test_arbitrary_octets(fuzzer: Fuzzer, name: str, octets: bytes) -> None:
    fuzzer.tried(name, octets)


@pytest.mark.parametrize(("fuzzer", "name"), EVERY)
def test_spoiled_units(fuzzer: Fuzzer, name: str) -> None:
    chance = random.Random(name)
    for _ in range(60 if name in fuzzer.slow else MUTATIONS[fuzzer.special]):
        fuzzer.tried(name, fuzzer.mutated(chance.choice(fuzzer.seeds[name]), chance))
        fuzzer.tried(name, chance.randbytes(chance.randrange(200)))


@pytest.mark.parametrize(("fuzzer", "name"), EVERY)
def test_the_seeds_themselves_are_understood(fuzzer: Fuzzer, name: str) -> None:
    for seed in fuzzer.seeds[name]:
        fuzzer.tried(name, seed)


@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_a_target_that_breaks_is_seen(fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzzer.targets, "broken", lambda octets: octets[99])
    with pytest.raises(IndexError):
        fuzzer.tried("broken", b"")


def test_a_push_whose_sender_s_title_is_too_short_is_refused() -> None:
    """Found by the long form: one octet of title left the cipher without its nonce."""
    fuzz.FUZZER.tried("pushes", bytes.fromhex("db01d41a30000000017998c7eb2e4f2e6288eca5b928e41da730a1db579d"))
