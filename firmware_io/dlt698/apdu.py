"""The services of DL/T 698.45 that reading takes: CONNECT, GET of attributes and of records, and values. Sans IO.

Values come as plain Python ones: numbers, octets, texts, lists, None, `datetime`. Source: DL/T 698.45-2017, 6.3.5 and
6.3.6, and the annex for data types.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any, NamedTuple

from firmware_io.errors import LocalProtocolError, RemoteProtocolError

CONNECT, CONNECT_RESPONSE, RELEASE = 0x02, 0x82, 0x03
GET, GET_RESPONSE, ERROR_RESPONSE = 0x05, 0x85, 0xEE
NORMAL, LIST, RECORD = 0x01, 0x02, 0x03
VERSION, MAX_APDU, ASSOCIATION_S = 0x0010, 1024, 7200
_RESULT_AT = 71  # of a response to CONNECT: behind versions of the factory, conformance and sizes
MAX_ROWS = 255  # of one response: their number has one octet
CONNECT_TEXTS = {
    1: "wrong password",
    2: "it wants a key: symmetric security is not supported",
    3: "it wants a certificate, which is not supported",
    4: "it wants a signature, which is not supported",
    5: "another version of the protocol",
}
MAX_DEPTH, MAX_ITEMS = 8, 512
MAX_LISTED = 32
NOT_AUTHORISED = frozenset((3, 20, 21))  # data access results: no right, wrong password, security
DAR_TEXTS = {
    1: "hardware failure",
    2: "temporarily not",
    3: "no right to read it",
    4: "no such object",
    6: "no such attribute",
    8: "another data type",
    20: "wrong password",
    21: "security refuses",
}
_NUMBERS = {
    3: ">?",
    5: ">i",
    6: ">I",
    15: ">b",
    16: ">h",
    17: ">B",
    18: ">H",
    20: ">q",
    21: ">Q",
    22: ">B",
    23: ">f",
    24: ">d",
}
_FIXED = {80: 2, 81: 4, 83: 4, 84: 3, 89: 2, 26: 5, 27: 3}


class Denied(NamedTuple):
    """An attribute that the meter does not give: the data access result."""

    code: int

    @property
    def text(self) -> str:
        """The code in words."""
        return DAR_TEXTS.get(self.code, f"data access result {self.code}")

    @property
    def refused(self) -> bool:
        """Whether the meter has it and does not give it to us."""
        return self.code in NOT_AUTHORISED


def get(piid: int, oads: list[int]) -> bytes:
    """GET of one or several attributes, each an OAD as a 32-bit number.

    Raises:
        LocalProtocolError: none, or more than one request holds.
    """
    if not 1 <= len(oads) <= MAX_LISTED:
        raise LocalProtocolError(f"a GET takes 1 to {MAX_LISTED} attributes, got {len(oads)}")
    names = b"".join(oad.to_bytes(4, "big") for oad in oads)
    if len(oads) == 1:
        return bytes((GET, NORMAL, piid)) + names + b"\x00"
    return bytes((GET, LIST, piid, len(oads))) + names + b"\x00"


def connect(piid: int, password: bytes | None) -> bytes:
    """CONNECT as a public client, or with a password: all services offered, an association of two hours.

    Raises:
        LocalProtocolError: a password that is too long.
    """
    if password is not None and len(password) > 127:
        raise LocalProtocolError(f"a password of {len(password)} octets")
    sizes = struct.pack(">HHBHI", MAX_APDU, MAX_APDU, 1, MAX_APDU, ASSOCIATION_S)
    mechanism = b"\x00" if password is None else bytes((1, len(password))) + password
    return bytes((CONNECT, piid)) + VERSION.to_bytes(2, "big") + b"\xff" * 24 + sizes + mechanism + b"\x00"


def connected(apdu: bytes) -> str:
    """What a response to CONNECT says: empty where the association is open, else why it is not.

    Raises:
        RemoteProtocolError: cut off.
    """
    if len(apdu) <= _RESULT_AT:
        raise RemoteProtocolError(f"its answer to CONNECT has {len(apdu)} octets")
    code = apdu[_RESULT_AT]
    return CONNECT_TEXTS.get(code, f"result {code}") if code else ""


def release(piid: int) -> bytes:
    """The end of an association."""
    return bytes((RELEASE, piid, 0))


def get_record(piid: int, table: int, time: int, first: datetime, last: datetime, columns: tuple[int, ...]) -> bytes:
    """GET of the rows of a table from `first` until before `last` by its column `time`; local times (selector 2)."""
    begin, end = (b"\x1c" + struct.pack(">HBBBBB", *moment.timetuple()[:6]) for moment in (first, last))
    selector = b"\x02" + time.to_bytes(4, "big") + begin + end + b"\x00"
    wanted = bytes((len(columns),)) + b"".join(b"\x00" + column.to_bytes(4, "big") for column in columns)
    return bytes((GET, RECORD, piid)) + table.to_bytes(4, "big") + selector + wanted + b"\x00"


def rows(apdu: bytes) -> list[list[Any]] | Denied:
    """The rows in a response to GET of records, each with a value for each column that was asked for.

    Raises:
        RemoteProtocolError: not a response that makes sense.
    """
    try:
        if apdu[:2] != bytes((GET_RESPONSE, RECORD)):
            raise ValueError(f"expected records, got {apdu[:3].hex()}")
        columns, at = apdu[7], 8
        for _ in range(columns):
            if apdu[at] != 0:
                raise ValueError("a column of columns is not read")
            at += 5
        choice, count = apdu[at], apdu[at + 1]
        if choice == 0:
            return Denied(count)
        if choice != 1:
            raise ValueError(f"a result of kind {choice}")
        at += 2
        found: list[list[Any]] = []
        for _ in range(count):
            row: list[Any] = []
            for _ in range(columns):
                value, at = _value(apdu, at, 0)
                row.append(value)
            found.append(row)
        return found
    except (IndexError, ValueError, struct.error) as error:
        raise RemoteProtocolError(f"its records cannot be read: {error}") from error


def piid_of(apdu: bytes) -> int | None:
    """The number of the question that a response answers; None where it is none."""
    if len(apdu) > 3 and apdu[0] in (GET_RESPONSE, CONNECT_RESPONSE):
        return apdu[2 if apdu[0] == GET_RESPONSE else 1] & 0x3F
    return None


def results(apdu: bytes) -> dict[int, Any]:
    """What a response to GET brings, by OAD: a value, or `Denied`.

    Raises:
        RemoteProtocolError: not a response that makes sense.
    """
    try:
        if apdu[:2] == bytes((GET_RESPONSE, NORMAL)):
            count, at = 1, 3
        elif apdu[:2] == bytes((GET_RESPONSE, LIST)):
            count, at = apdu[3], 4
        else:
            raise ValueError(f"expected a response to GET, got {apdu[:3].hex()}")
        found: dict[int, Any] = {}
        for _ in range(count):
            oad = int.from_bytes(apdu[at : at + 4], "big")
            choice = apdu[at + 4]
            at += 5
            if choice == 0:
                found[oad], at = Denied(apdu[at]), at + 1
            elif choice == 1:
                found[oad], at = _value(apdu, at, 0)
            else:
                raise ValueError(f"a result of kind {choice}")
        return found
    except (IndexError, ValueError, struct.error) as error:
        raise RemoteProtocolError(f"its answer cannot be read: {error}") from error


def _value(octets: bytes, at: int, depth: int) -> tuple[Any, int]:
    """One value and where it ends. Raises: IndexError, ValueError, struct.error."""
    if depth > MAX_DEPTH:
        raise ValueError(f"deeper than {MAX_DEPTH}")
    kind = octets[at]
    at += 1
    if kind == 0:
        return None, at
    if kind in (1, 2):
        count = octets[at]
        at += 1
        items: list[Any] = []
        for _ in range(count):
            item, at = _value(octets, at, depth + 1)
            items.append(item)
            if len(items) > MAX_ITEMS:
                raise ValueError(f"more than {MAX_ITEMS} items")
        return items, at
    if kind in _NUMBERS:
        code = _NUMBERS[kind]
        number = struct.unpack_from(code, octets, at)[0]
        return number, at + struct.calcsize(code)
    if kind == 28:
        year, month, day, hour, minute, second = struct.unpack_from(">HBBBBB", octets, at)
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC), at + 7
        except ValueError:
            return None, at + 7  # never set
    if kind == 4:
        bits, at = _length(octets, at)
        end = at + -(-bits // 8)
        return _cut(octets, at, end), end
    if kind in (9, 10, 12):
        size, at = _length(octets, at)
        raw = _cut(octets, at, at + size)
        return raw if kind == 9 else raw.decode("utf-8", "replace"), at + size
    if kind in _FIXED:
        return _cut(octets, at, at + _FIXED[kind]), at + _FIXED[kind]
    raise ValueError(f"data type {kind} is not read")


def _length(octets: bytes, at: int) -> tuple[int, int]:
    first = octets[at]
    if first < 0x80:
        return first, at + 1
    count = first & 0x7F
    if not 1 <= count <= 2:
        raise ValueError(f"a length of {count} octets")
    return int.from_bytes(_cut(octets, at + 1, at + 1 + count), "big"), at + 1 + count


def _cut(octets: bytes, at: int, end: int) -> bytes:
    if end > len(octets):
        raise ValueError("cut off")
    return octets[at:end]
