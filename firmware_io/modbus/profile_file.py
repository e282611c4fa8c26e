"""Device profiles as TOML files: read, checked, and refused with file, line and what to do.

Shipped ones stand in `profiles/`; docs/add-a-meter.md says how to write one. The checks know every key: a misspelt
one would silently leave a register out.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from firmware_io.modbus.framing import HOLDING, INPUT, MAX_REGISTERS
from firmware_io.modbus.profile import KINDS, QUANTITIES, WORDS, Identification, Profile, Register

MAX_FILE_OCTETS = 65_536
MAX_LINE = 500  # tomllib's time and memory grow with the square of a dotted key, which stands on one line
MAX_GAP_S = 60.0
DEVICE_KEYS: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "source": (str,),
    "verified": (bool,),
    "phases": (int,),
    "function": (int,),
    "word_order": (str,),
    "first_register": (int,),
    "max_registers": (int,),
    "max_gap": (int,),
    "min_gap_s": (int, float),
    "resolution_wh": (int, float),
    "notes": (str,),
    "checked_against": (list,),
}
REGISTER_KEYS: dict[str, tuple[type, ...]] = {
    "address": (int,),
    "type": (str,),
    "scale": (int, float),
    "function": (int,),
    "word_order": (str,),
    "words": (int,),
    "not_available": (list,),
    "exponent_address": (int,),
}
IDENTIFICATION_KEYS = {**REGISTER_KEYS, "codes": (list,)}
DEVICE_NEEDS = ("title", "source", "verified", "phases")
REGISTER_NEEDS = ("address", "type")
IDENTIFICATION_NEEDS = (*REGISTER_NEEDS, "codes")
LIMITS: tuple[tuple[str, float, float], ...] = (
    ("max_gap", 0, MAX_REGISTERS),
    ("first_register", 0, 0xFFFF),
    ("min_gap_s", 0, MAX_GAP_S),
    ("resolution_wh", 0.000_001, 1_000_000),
)
_TABLES = ("device", "identification", "serial", "registers")


class ProfileError(ValueError):
    """A profile that cannot be used: file, line and what to do stand in the message."""


class _Source:
    """One file, and where in it something stands."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._lines = text.splitlines()

    def refuse(self, table: str, key: str | None, message: str) -> NoReturn:
        """Raises: ProfileError."""
        raise ProfileError(f"{self.name}:{self._line(table, key)}: {_printable(message)}")

    def _line(self, table: str, key: str | None) -> int:
        """The line of a key, or of its table; a quick search is enough for a message."""
        at = 0
        for number, line in enumerate(self._lines, 1):
            if line.strip().startswith((f"[{table}]", f"[{table}.")):
                at = number
            elif at and line.strip().startswith("["):
                break
            elif at and key is not None and re.match(rf"\s*{re.escape(key)}\s*=", line):
                return number
        return at or 1


def parse(name: str, text: str) -> Profile:
    """A profile from the text of its file; `name` is how the site file calls it.

    Raises:
        ProfileError: not TOML, an unknown key, an impossible type or limit, or a register that is missing.
    """
    source = _Source(f"{name}.toml", text)
    tables = _tables(source, text)
    device = _checked(source, "device", tables.get("device"), DEVICE_KEYS, DEVICE_NEEDS)
    _texts(source, device)
    if device["phases"] not in (1, 3):
        source.refuse("device", "phases", f"phases is 1 or 3, got {device['phases']}")
    if device.get("function", HOLDING) not in (HOLDING, INPUT):
        source.refuse("device", "function", f"function is {HOLDING} or {INPUT}, got {device['function']}")
    limit = device.get("max_registers", 60)
    if not 1 <= limit <= MAX_REGISTERS:
        source.refuse("device", "max_registers", f"a reply holds 1 to {MAX_REGISTERS} registers, got {limit}")
    _limits(source, device)
    registers = tables.get("registers")
    if not isinstance(registers, dict) or not registers:
        source.refuse("registers", None, "no registers: expected tables like [registers.energy_import]")
    found = []
    for quantity, entry in registers.items():
        table = f"registers.{quantity}"
        if quantity not in QUANTITIES:
            source.refuse(table, None, f"unknown register {quantity}; expected one of {', '.join(sorted(QUANTITIES))}")
        found.append(
            _register(source, table, quantity, _checked(source, table, entry, REGISTER_KEYS, REGISTER_NEEDS), device)
        )
    if not any(register.name == "energy_import" for register in found):
        source.refuse("registers", None, "a meter without [registers.energy_import] is of no use to a balance")
    return Profile(
        name,
        device["title"],
        device["source"],
        device["verified"],
        device["phases"],
        tuple(found),
        _identification(source, tables.get("identification"), device),
        _serial(source, tables.get("serial"), device),
        limit,
        device.get("max_gap", 0),
        float(device.get("min_gap_s", 0.0)),
        float(device.get("resolution_wh", 10.0)),
        device.get("notes", ""),
    )


def _tables(source: _Source, text: str) -> dict[str, Any]:
    """The tables of the text, none of them unknown."""
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise ProfileError(f"{source.name}:{number}: a line of {len(line)} characters; write at most {MAX_LINE}")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{source.name}: {_printable(str(error))}; mend the syntax here") from error
    except (ValueError, RecursionError, MemoryError) as error:  # a number of 5000 digits, brackets 600 deep
        raise ProfileError(
            f"{source.name}: cannot be parsed: {type(error).__name__}; write it in a simpler form"
        ) from error
    for table in tables:
        if table not in _TABLES:
            source.refuse(table, None, f"unknown table [{table}]; expected one of {', '.join(_TABLES)}")
    return tables


def _texts(source: _Source, device: Mapping[str, Any]) -> None:
    for key in ("title", "source"):
        if not device[key].strip() or not device[key].isprintable():
            source.refuse("device", key, f"{key} is {_shown(device[key])}; expected a line of readable text")
    notes = device.get("notes", "")
    if _printable(notes, keep="\n") != notes:
        source.refuse("device", "notes", "notes has control characters; expected readable text")
    if not all(isinstance(entry, str) and entry.isprintable() for entry in device.get("checked_against", [])):
        source.refuse("device", "checked_against", "checked_against is a list of lines of readable text")


def _limits(source: _Source, device: Mapping[str, Any]) -> None:
    for key, low, high in LIMITS:
        if not low <= device.get(key, low) <= high:
            source.refuse("device", key, f"{key} is {_shown(device[key])}; expected {low:g} to {high:g}")


def _printable(text: str, keep: str = "") -> str:
    """`text` with escapes for what a terminal would obey."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def _shown(value: object) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _checked(
    source: _Source, table: str, entry: object, keys: Mapping[str, tuple[type, ...]], needed: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(entry, dict):
        source.refuse(table, None, f"[{table}] is missing or not a table")
    for key, value in entry.items():
        if key not in keys:
            source.refuse(table, key, f"unknown key {key} in [{table}]; expected one of {', '.join(sorted(keys))}")
        if not isinstance(value, keys[key]) or (isinstance(value, bool) and bool not in keys[key]):
            source.refuse(
                table, key, f"{key} is {_shown(value)}; expected {' or '.join(t.__name__ for t in keys[key])}"
            )
    for key in needed:
        if key not in entry:
            source.refuse(table, None, f"[{table}] needs {key}")
    return entry


def _register(source: _Source, table: str, name: str, entry: dict[str, Any], device: dict[str, Any]) -> Register:
    kind = entry["type"]
    if kind not in KINDS:
        source.refuse(table, "type", f"type {_shown(kind)} is none; expected one of {', '.join(KINDS)}")
    order = entry.get("word_order", device.get("word_order", "big"))
    if order not in ("big", "little"):
        where = table if "word_order" in entry else "device"
        source.refuse(where, "word_order", f"word_order is big (high word first) or little, got {order!r}")
    if kind == "text" and name != "serial":
        source.refuse(table, "type", f"{name} is a number: text is for the serial number only")
    function = entry.get("function", device.get("function", HOLDING))
    if function not in (HOLDING, INPUT):
        source.refuse(table, "function", f"function is {HOLDING} or {INPUT}, got {function}")
    address = entry["address"] - device.get("first_register", 0)
    words = entry.get("words", 0) if kind == "text" else WORDS[kind]
    limit = device.get("max_registers", 60)
    if not 1 <= words <= limit:
        if kind != "text":
            source.refuse(table, None, f"{words} registers, but max_registers is {limit}")
        what = f"words is {_shown(words)}" if "words" in entry else "text needs words"
        source.refuse(table, "words", f"{what}; expected its number of registers, 1 to {limit} (max_registers)")
    if not 0 <= address <= 0x10000 - words:
        source.refuse(table, "address", f"register {_shown(entry['address'])} is outside 0 to 65535")
    scale = entry.get("scale", 1.0)
    if not 1e-9 <= abs(scale) <= 1e9:
        source.refuse(
            table, "scale", f"scale {_shown(scale)} is no scale: the number times scale is the value in its unit"
        )
    not_available = entry.get("not_available", [])
    if not all(isinstance(code, int) and 0 <= code < 1 << 64 for code in not_available):
        source.refuse(table, "not_available", "not_available is a list of numbers as they stand in the registers")
    exponent = entry.get("exponent_address")
    if exponent is not None:
        exponent -= device.get("first_register", 0)
        if not 0 <= exponent <= 0xFFFF:
            shown = _shown(entry["exponent_address"])
            source.refuse(table, "exponent_address", f"register {shown} is outside 0 to 65535")
    return Register(name, function, address, kind, order, float(scale), words, tuple(not_available), exponent)


def _identification(source: _Source, entry: object, device: dict[str, Any]) -> Identification | None:
    if entry is None:
        return None
    table = _checked(source, "identification", entry, IDENTIFICATION_KEYS, IDENTIFICATION_NEEDS)
    if not table["codes"]:
        source.refuse("identification", "codes", "codes is empty: no device would be this one; expected [71, [80, 89]]")
    codes: list[tuple[int, int]] = []
    for code in table["codes"]:
        pair = code if isinstance(code, list) else [code, code]
        if len(pair) != 2 or not all(isinstance(end, int) for end in pair) or pair[0] > pair[1]:
            source.refuse("identification", "codes", f"{_shown(code)} is no code: expected a number or [first, last]")
        codes.append((pair[0], pair[1]))
    register = _register(source, "identification", "identification", table, device)
    return Identification(register, tuple(codes))


def _serial(source: _Source, entry: object, device: dict[str, Any]) -> Register | None:
    if entry is None:
        return None
    return _register(
        source, "serial", "serial", _checked(source, "serial", entry, REGISTER_KEYS, REGISTER_NEEDS), device
    )


def _octets_of(path: Path) -> bytes:
    """As much of a file as shows whether it is too long. Raises: OSError: none, or a pipe, a device."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("not a regular file")
    with open(handle, "rb") as file:
        return file.read(MAX_FILE_OCTETS + 1)


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, Profile]:
    """All profiles that come with checkmeter, by name. Raises: ProfileError: one of them is broken."""
    folder = resources.files("firmware_io.modbus") / "profiles"
    files = sorted((entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {name[:-5]: parse(name[:-5], entry.read_text("utf-8")) for name, entry in files}


def load(name: str, beside: Path | None = None) -> Profile:
    """The profile that a site file names: a path to a file of one's own, or the name of a shipped one.

    Raises:
        ProfileError: there is none, or it is broken.
    """
    if name.endswith(".toml"):
        path = Path(name) if beside is None else beside / name
        try:
            octets = _octets_of(path)
            text = octets.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"cannot read profile {path}: {error}") from error
        if len(octets) > MAX_FILE_OCTETS:
            raise ProfileError(f"profile {path} has more than {MAX_FILE_OCTETS} octets: that is no profile")
        return parse(path.stem, text)
    try:
        return shipped()[name]
    except KeyError:
        raise ProfileError(
            f"no profile {name}; shipped are {', '.join(shipped())}; or give the path of a file of your own"
        ) from None
