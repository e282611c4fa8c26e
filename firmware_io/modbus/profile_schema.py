"""The JSON Schema of device profiles, for editors and other programs: made of the tables that `profile_file` checks by.

    python -m firmware_io.modbus.profile_schema > firmware_io/modbus/profiles/schema.json

What a schema cannot say (a register outside the device's limits, a text that needs its length) `profile_file` refuses
beyond it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from firmware_io.modbus.framing import HOLDING, INPUT, MAX_REGISTERS
from firmware_io.modbus.profile import KINDS, QUANTITIES
from firmware_io.modbus.profile_file import (
    DEVICE_KEYS,
    DEVICE_NEEDS,
    IDENTIFICATION_KEYS,
    IDENTIFICATION_NEEDS,
    LIMITS,
    REGISTER_KEYS,
    REGISTER_NEEDS,
)

TITLE = "Device profile of a Modbus meter"
_TYPES: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
_WHAT: dict[str, dict[str, Any]] = {
    "title": {"description": "Vendor and model.", "minLength": 1},
    "source": {"description": "Manual, revision and page that the register numbers are from.", "minLength": 1},
    "verified": {"description": "Whether somebody has compared it with the device's own display."},
    "phases": {"enum": [1, 3]},
    "function": {"description": "3: holding registers, 4: input registers.", "enum": [HOLDING, INPUT]},
    "word_order": {"description": "big: high word first.", "enum": ["big", "little"]},
    "first_register": {"description": "What the manual calls the first register: 1 where it counts from 1."},
    "max_registers": {"description": "Most registers of one question.", "minimum": 1, "maximum": MAX_REGISTERS},
    "max_gap": {"description": "Registers in between that may be read and thrown away."},
    "min_gap_s": {"description": "Silence that the device wants ahead of a question, seconds."},
    "resolution_wh": {"description": "One count of its energy register, Wh."},
    "notes": {"description": "What is uncertain, and why."},
    "checked_against": {"description": "Independent programs with the same numbers.", "items": {"type": "string"}},
    "address": {"description": "As in the frame, or as the manual counts with first_register."},
    "type": {"enum": list(KINDS)},
    "scale": {"description": "The number times scale is the value in the unit of its name; not 0."},
    "words": {"description": "Of a text: its registers.", "minimum": 1, "maximum": MAX_REGISTERS},
    "not_available": {"description": "Raw numbers that mean: none.", "items": {"type": "integer", "minimum": 0}},
    "exponent_address": {"description": "A register with the power of ten, int16.", "minimum": 0},
    "codes": {
        "description": "What the register says on a device of this profile: numbers, or [first, last].",
        "minItems": 1,
        "items": {
            "anyOf": [
                {"type": "integer"},
                {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            ]
        },
    },
}


def json_schema() -> dict[str, Any]:
    """The schema, JSON Schema 2020-12."""
    registers = {
        name: {"$ref": "#/$defs/register", "description": f"{code}, {unit.symbol or 'a number'}"}
        for name, (code, unit) in sorted(QUANTITIES.items())
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "type": "object",
        "additionalProperties": False,
        "required": ["device", "registers"],
        "properties": {
            "device": _table(DEVICE_KEYS, DEVICE_NEEDS),
            "identification": _table(IDENTIFICATION_KEYS, IDENTIFICATION_NEEDS),
            "serial": {"$ref": "#/$defs/register"},
            "registers": {
                "type": "object",
                "additionalProperties": False,
                "required": ["energy_import"],
                "properties": registers,
            },
        },
        "$defs": {"register": _table(REGISTER_KEYS, REGISTER_NEEDS)},
    }


def _table(keys: dict[str, tuple[type, ...]], needed: tuple[str, ...]) -> dict[str, Any]:
    limits = {key: {"minimum": low, "maximum": high} for key, low, high in LIMITS}
    properties = {}
    for key, types in keys.items():
        kinds = [_TYPES[kind] for kind in types]
        kind = "number" if "number" in kinds else kinds[0]
        properties[key] = {"type": kind} | limits.get(key, {}) | _WHAT[key]
    return {"type": "object", "additionalProperties": False, "required": list(needed), "properties": properties}


def text() -> str:
    """The schema as it is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
