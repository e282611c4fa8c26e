"""The fuzz targets of the protocols beside DLMS: a short form of `fuzz_protocols.py` in every test run."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "checkmeter_fuzz_protocols", Path(__file__).with_name("fuzz_protocols.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FUZZ = _load()


@pytest.mark.parametrize("name", sorted(FUZZ.TARGETS))
def test_spoiled_units(name: str) -> None:
    chance = random.Random(name)
    for _ in range(60 if name == "drivers" else 500):
        FUZZ.tried(name, FUZZ.mutated(chance.choice(FUZZ.SEEDS[name]), chance))
        FUZZ.tried(name, chance.randbytes(chance.randrange(200)))
