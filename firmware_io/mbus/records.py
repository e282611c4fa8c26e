"""What a meter's answer says: its header and its records, from octets (EN 13757-3, clauses 5 and 6). Sans IO.

A record that cannot be read ends the walk: behind it nobody knows where the next one begins. What was read before
it stands.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from firmware_io.errors import RemoteProtocolError, SecurityError
from firmware_io.mbus import frame as wire
from firmware_io.mbus import units
from firmware_io.mbus.frame import Frame, SecondaryAddress
from firmware_io.mbus.units import Meaning

MAX_RECORDS = 256
MAX_EXTENSIONS = 10  # DIFE and VIFE (EN 13757-3, 6.3.3)
MORE_FOLLOWS = 0x1F
FILLER, MANUFACTURER_DATA = 0x2F, 0x0F
AES_CBC = 5  # encryption mode of the configuration word
CIPHER_MODES = frozenset((2, 3, 5, 7, 13))  # old meters leave anything in that word: other modes are none
_LENGTHS = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, 0, 6, 0)  # octets by the low digit of a DIF
_INTEGERS, _REAL, _BCD, _VARIABLE, _NONE = (1, 2, 3, 4, 6, 7), 5, (9, 10, 11, 12, 14), 13, (0, 8)


class Function(enum.IntEnum):
    """What a record's value is of (DIF bits 4 and 5)."""

    INSTANT = 0
    MAXIMUM = 1
    MINIMUM = 2
    IN_ERROR = 3


_FUNCTIONS = tuple(Function)


class Record(NamedTuple):
    """One record. `value` is scaled into the unit; None where the meter has none. `extensions` are its VIFEs."""

    meaning: Meaning
    value: float | str | datetime | None
    function: Function = Function.INSTANT
    storage: int = 0
    tariff: int = 0
    subunit: int = 0
    extensions: tuple[int, ...] = ()

    @property
    def now(self) -> bool:
        """Whether it is the value of now, of everything, and not of a tariff, a part, or a due date."""
        return self.function is Function.INSTANT and not (self.storage or self.tariff or self.subunit)


@dataclass(frozen=True, slots=True)
class Telegram:
    """One answer of a meter. `address` is None where the header does not say it."""

    address: SecondaryAddress | None
    access: int
    status: int
    records: tuple[Record, ...]
    more: bool = False  # further telegrams follow
    broken: str = ""  # why the walk ended early
    manufacturer_octets: bytes = field(default=b"", repr=False)


def decode(frame: Frame, key: bytes | None = None) -> Telegram:
    """The answer in a frame; `key` opens mode 5 (AES-CBC-128).

    Raises:
        SecurityError: it is ciphered and there is no key, or the wrong one.
        RemoteProtocolError: an application error, or nothing that we know.
    """
    data = frame.data
    if frame.ci == wire.RESPONSE_VARIABLE and len(data) >= 12:
        address = SecondaryAddress(
            data[3::-1].hex().upper(),
            wire.manufacturer(int.from_bytes(data[4:6], "little")),
            data[6],
            data[7],
        )
        body = _opened(data[12:], data[10:12], data[4:6] + data[:4] + data[6:8], data[8], key)
        return _walk(address, data[8], data[9], body)
    if frame.ci == wire.RESPONSE_SHORT and len(data) >= 4:
        if int.from_bytes(data[2:4], "little") >> 8 & 0x1F in CIPHER_MODES:
            raise SecurityError("ciphered without a long header: its initial vector is not known")
        return _walk(None, data[0], data[1], data[4:])
    if frame.ci == wire.RESPONSE_NONE:
        return _walk(None, 0, 0, data)
    if frame.ci == wire.RESPONSE_FIXED and len(data) >= 16:
        return _fixed(data)
    if frame.ci == wire.APPLICATION_ERROR:
        raise RemoteProtocolError(f"application error {data[0] if data else 0}")
    raise RemoteProtocolError(f"an answer of kind {frame.ci or 0:02X}h with {len(data)} octets is not known")


def _opened(body: bytes, word: bytes, who: bytes, access: int, key: bytes | None) -> bytes:
    """The records of a header's meter, deciphered where its configuration word says so (EN 13757-7, mode 5)."""
    configuration = int.from_bytes(word, "little")
    mode = configuration >> 8 & 0x1F
    if mode not in CIPHER_MODES:
        return body
    if mode != AES_CBC:
        raise SecurityError(f"ciphered in mode {mode}; only mode 5 can be read")
    if key is None:
        raise SecurityError("ciphered: give its key")
    size = 16 * (configuration >> 4 & 0x0F)
    if not size:
        return body
    if len(body) < size:
        raise RemoteProtocolError(f"says that {size} octets are ciphered, and has {len(body)}")
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # six megabytes that few meters need

    decryptor = Cipher(algorithms.AES(key), modes.CBC(who + bytes((access,)) * 8)).decryptor()
    plain = decryptor.update(body[:size]) + decryptor.finalize()
    if plain[:2] != b"\x2f\x2f":
        raise SecurityError("cannot be deciphered: the key is another one")
    return plain + body[size:]


def _walk(address: SecondaryAddress | None, access: int, status: int, octets: bytes) -> Telegram:
    records: list[Record] = []
    at, more, broken, rest = 0, False, "", b""
    while at < len(octets):
        dif = octets[at]
        if dif == FILLER:
            at += 1
            continue
        if dif in (MORE_FOLLOWS, MANUFACTURER_DATA):
            more, rest = dif == MORE_FOLLOWS, octets[at + 1 :]
            break
        if len(records) >= MAX_RECORDS:
            broken = f"more than {MAX_RECORDS} records"
            break
        try:
            record, at = _record(octets, at)
        except (IndexError, ValueError) as error:
            broken = f"record {len(records) + 1} at octet {at}: {error}"
            break
        records.append(record)
    return Telegram(address, access, status, tuple(records), more, broken, rest)


def _extensions(octets: bytes, at: int, last: int) -> tuple[Sequence[int], int]:
    """DIFE or VIFE after an octet that has the extension bit."""
    found: list[int] = []
    while last & 0x80:
        if len(found) >= MAX_EXTENSIONS:
            raise ValueError(f"more than {MAX_EXTENSIONS} extensions")
        last = octets[at]
        found.append(last)
        at += 1
    return found, at


def _record(octets: bytes, at: int) -> tuple[Record, int]:
    """One record and where it ends. Raises: IndexError, ValueError: it is not whole, or makes no sense."""
    dif = octets[at]
    storage, tariff, subunit = dif >> 6 & 1, 0, 0
    difes, at = _extensions(octets, at + 1, dif) if dif & 0x80 else ((), at + 1)
    for place, dife in enumerate(difes):
        storage |= (dife & 0x0F) << 4 * place + 1
        tariff |= (dife >> 4 & 3) << 2 * place
        subunit |= (dife >> 6 & 1) << place
    begin = at
    vif = octets[at]
    at += 1
    if vif & 0x7F == 0x7C:  # the unit in plain text
        at += 1 + octets[at]
    while vif & 0x80:
        vif = octets[at]
        at += 1
    meaning, vifes, factor, divisor, dated = _information(octets[begin:at])
    kind = dif & 0x0F
    value: float | str | datetime | None
    if kind == _VARIABLE:
        value, at = _variable(octets, at)
    else:
        end = at + _LENGTHS[kind]
        if end > len(octets):
            raise ValueError("its value is cut off")
        if kind in _INTEGERS and not dated:
            value, at = int.from_bytes(octets[at:end], "little", signed=True), end
        else:
            value, at = _value(kind, octets[at:end], dated), end
    if value.__class__ is int or value.__class__ is float:
        value = value / divisor if divisor else value * factor
    return Record(meaning, value, _FUNCTIONS[dif >> 4 & 3], storage, tariff, subunit, vifes), at


@lru_cache(maxsize=512)  # a meter's records have the same few for ever; a bound against a line that makes them up
def _information(octets: bytes) -> tuple[Meaning, tuple[int, ...], float, int, bool]:
    """A value information block: meaning, VIFE, the factor, the divisor where that is not 0, and whether it is a date.

    Raises: IndexError, ValueError: it is not whole, or makes no sense.
    """
    vif, at, text = octets[0], 1, ""
    if vif & 0x7F == 0x7C:
        at = 2 + octets[1]
        text = _text(octets[2:at])
    found, _ = _extensions(octets, at, vif)
    meaning = _meaning(vif, found, text)
    factor = meaning.factor
    for vife in found if vif not in (0xFB, 0xFD) else found[1:]:
        if vife & 0x7F == units.MANUFACTURER_VIFE:
            break  # what follows is the manufacturer's
        factor *= units.factor_of(vife)
    # Dividing by a power of ten is right to the last digit, multiplying by its inverse is not.
    inverse = round(1 / factor) if factor < 1 else 0
    exact = inverse and abs(inverse * factor - 1) < 1e-12
    dated = meaning.quantity in (units.DATE, units.DATE_TIME)
    return meaning, tuple(found), factor, inverse if exact else 0, dated


def _meaning(vif: int, vifes: Sequence[int], text: str) -> Meaning:
    if text:
        return Meaning("plain text", text)
    if vif == 0xFB and vifes:
        return units.extension_fb(vifes[0])
    if vif == 0xFD and vifes:
        return units.extension_fd(vifes[0])
    return units.primary(vif)


def _value(kind: int, octets: bytes, dated: bool) -> float | datetime | None:
    if kind in _NONE:
        return None
    if dated and kind in _INTEGERS:
        return _date(octets)
    if kind == _REAL:
        number = float(struct.unpack("<f", octets)[0])
        return number if number == number and abs(number) != float("inf") else None
    return _bcd(octets)


def _bcd(octets: bytes) -> float | None:
    """BCD, low octet first; an F in front is a minus sign (EN 13757-3, annex B). None where a digit is none."""
    digits = octets[::-1].hex()
    negative = digits[:1] == "f"
    digits = digits[1:] if negative else digits
    if not digits.isdigit():
        return None
    return -float(digits) if negative else float(digits)


def _variable(octets: bytes, at: int) -> tuple[float | str | None, int]:
    """A value with its own length in front (LVAR)."""
    size = octets[at]
    at += 1
    value: float | str | None
    if size <= 0xBF:
        end, kind = at + size, "text"
    elif size <= 0xCF:
        end, kind = at + size - 0xC0, "bcd"
    elif size <= 0xDF:
        end, kind = at + size - 0xD0, "minus"
    elif size <= 0xEF:
        end, kind = at + size - 0xE0, "binary"
    elif size <= 0xF4:
        end, kind = at + 4 * (size - 0xEC), "binary"
    else:
        raise ValueError(f"a length of {size:02X}h is not known")
    if end > len(octets):
        raise ValueError("its value is cut off")
    raw = octets[at:end]
    if kind == "text":
        value = _text(raw)
    elif kind == "binary":
        value = float(int.from_bytes(raw, "little", signed=True)) if len(raw) <= 8 else raw[::-1].hex()
    else:
        number = _bcd(raw)
        value = -number if number is not None and kind == "minus" else number
    return value, end


def _text(raw: bytes) -> str:
    """A text, which is sent last character first."""
    return "".join(chr(octet) if 32 <= octet < 127 or octet >= 160 else "?" for octet in reversed(raw)).strip()


def _date(octets: bytes) -> datetime | None:
    """Types G (2 octets), F (4) and I (6) of annex A: the meter's local time, marked UTC. None where it is none."""
    if len(octets) not in (2, 4, 6):
        return None
    if len(octets) == 2:
        day_octet, month_octet, minute, hour, second = octets[0], octets[1], 0, 0, 0
    elif len(octets) == 4:
        minute, hour, second = octets[0] & 0x3F, octets[1] & 0x1F, 0
        if octets[0] & 0x80:
            return None  # the meter says that its time is invalid
        day_octet, month_octet = octets[2], octets[3]
    else:
        second, minute, hour = octets[0] & 0x3F, octets[1] & 0x3F, octets[2] & 0x1F
        day_octet, month_octet = octets[3], octets[4]
    year = (day_octet & 0xE0) >> 5 | (month_octet & 0xF0) >> 1
    try:
        return datetime(2000 + year, month_octet & 0x0F, day_octet & 0x1F, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


# The fixed structure of old meters: two counters (EN 1434-3).

_FIXED_DECADES: tuple[tuple[int, str, str, float], ...] = (
    (0x02, units.ENERGY, "Wh", 1.0),
    (0x0B, units.ENERGY, "Wh", 1000 / 3600),
    (0x14, units.POWER, "W", 1.0),
    (0x1D, units.POWER, "W", 1000 / 3600),
    (0x26, units.VOLUME, "m³", 1e-6),
    (0x2F, units.FLOW, "m³/h", 1e-6),
)


def _fixed_meaning(code: int) -> Meaning:
    """The meaning of a unit code: nine decades a quantity."""
    for first, quantity, unit, factor in _FIXED_DECADES:
        if first <= code <= first + 8:
            return Meaning(quantity, unit, factor * 10 ** (code - first))
    return Meaning("temperature", "°C", 1e-3) if code == 0x38 else units.UNKNOWN


def _fixed(data: bytes) -> Telegram:
    status = data[5]
    codes = [data[6] & 0x3F, data[7] & 0x3F]
    medium = data[6] >> 6 | data[7] >> 6 << 2
    if codes[1] == 0x3E:
        codes[1] = codes[0]  # the same, but of a due date
    records = []
    for place, code in enumerate(codes):
        raw = data[8 + 4 * place : 12 + 4 * place]
        number = float(int.from_bytes(raw, "little")) if status & 1 else _bcd(raw)
        meaning = _fixed_meaning(code)
        value = None if number is None else number * meaning.factor
        stored = int(place == 1 and (data[7] & 0x3F == 0x3E or bool(status & 2)))
        records.append(Record(meaning, value, storage=stored))
    address = SecondaryAddress(data[3::-1].hex().upper(), None, None, medium)
    return Telegram(address, data[4], status, tuple(records))
