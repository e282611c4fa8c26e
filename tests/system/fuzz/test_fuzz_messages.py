"""A short form of `fuzz_messages.py` in every test run."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "checkmeter_fuzz_messages", Path(__file__).with_name("fuzz_messages.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FUZZ = _load()


@pytest.mark.parametrize("name", sorted(FUZZ.TARGETS))
@given(octets=st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_arbitrary_octets(name: str, octets: bytes) -> None:
    FUZZ.tried(name, octets)


@pytest.mark.parametrize("name", sorted(FUZZ.TARGETS))
def test_spoiled_units(name: str) -> None:
    chance = random.Random(name)
    for _ in range(60):
        FUZZ.tried(name, FUZZ.mutated(chance.choice(FUZZ.SEEDS[name]), chance))


def test_a_target_that_breaks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUZZ.TARGETS, "broken", lambda octets: octets[99])
    with pytest.raises(IndexError):
        FUZZ.tried("broken", b"")
