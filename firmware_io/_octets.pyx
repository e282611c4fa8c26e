# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""Kernel of the protocols that only ask: check sums, frames in a stream of octets, BCD and register values.

Only what `make bench-protocols` measures to matter is here; every function has its plain Python twin in the tests. It
knows frames, no meaning: the types of frames are handed in, so that this module imports nothing of the house.

What a meter says of itself (lengths, counts, numbers) is held in integers of fixed width that can hold every value the
wire can carry, and is compared with the octets at hand before it is used: a Py_ssize_t has 32 bits on armhf.
"""

import enum

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_SET_ITEM
from libc.math cimport isfinite
from libc.stdint cimport INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_alloc)(PyTypeObject* kind, Py_ssize_t items)

cdef enum:
    WAKE_UP_645 = 0xFE
    START = 0x68
    END = 0x16
    OFFSET = 0x33
    HEAD_645 = 10
    MODBUS_EXCEPTION = 0x80
    MODBUS_OCTETS = 250  # of the registers in a reply: 125 of them
    TCP_HEADER = 7
    MBUS_ACK = 0xE5
    MBUS_SHORT = 0x10
    MAX_698 = 2048
    SCRAMBLED = 0x08
    BCD_OCTETS = 9  # 18 digits: what 64 bits hold

cdef uint16_t[256] MODBUS
cdef uint16_t[256] HDLC


class Verdict(enum.Enum):
    """What octets are that are no frame."""

    MORE = enum.auto()  # may become a frame when more of them come
    NOTHING = enum.auto()  # no frame begins here


cdef object _MORE = Verdict.MORE
cdef object _NOTHING = Verdict.NOTHING


cdef void _fill(uint16_t* table, uint16_t polynomial) noexcept:
    cdef int32_t octet, _bit
    cdef uint16_t crc
    for octet in range(256):
        crc = <uint16_t>octet
        for _bit in range(8):
            crc = (crc >> 1) ^ polynomial if crc & 1 else crc >> 1
        table[octet] = crc


_fill(MODBUS, 0xA001)
_fill(HDLC, 0x8408)


cdef inline uint16_t _crc(const uint16_t* table, const uint8_t* octets, Py_ssize_t count) noexcept nogil:
    cdef uint16_t crc = 0xFFFF
    cdef Py_ssize_t i
    for i in range(count):
        crc = (crc >> 8) ^ table[(crc ^ octets[i]) & 0xFF]
    return crc


cdef inline uint8_t _sum(const uint8_t* octets, Py_ssize_t count) noexcept nogil:
    cdef uint8_t total = 0
    cdef Py_ssize_t i
    for i in range(count):
        total = <uint8_t>(total + octets[i])
    return total


cdef inline uint16_t _low_first(const uint8_t* octets) noexcept nogil:
    return octets[0] | <uint16_t>octets[1] << 8


cdef inline uint16_t _high_first(const uint8_t* octets) noexcept nogil:
    return octets[1] | <uint16_t>octets[0] << 8


cdef inline object _named(kind, tuple values):
    """A named tuple of these values, made as `tuple.__new__` makes it but without the call."""
    cdef Py_ssize_t i, count = PyTuple_GET_SIZE(values)
    made = (<PyTypeObject*>kind).tp_alloc(<PyTypeObject*>kind, count)
    for i in range(count):
        value = <object>PyTuple_GET_ITEM(values, i)
        Py_INCREF(value)
        PyTuple_SET_ITEM(made, i, value)
    return made


cdef inline bytes _cut(const uint8_t* octets, Py_ssize_t count):
    return PyBytes_FromStringAndSize(<const char*>octets, count)


def crc16_modbus(const uint8_t[::1] octets):
    """The check of an RTU frame (polynomial A001h reflected, start FFFFh)."""
    return _crc(MODBUS, &octets[0], octets.shape[0]) if octets.shape[0] else 0xFFFF


def fcs16(const uint8_t[::1] octets):
    """The check of HDLC and of DL/T 698.45 (RFC 1662: reflected 8408h, start and final XOR FFFFh)."""
    return (_crc(HDLC, &octets[0], octets.shape[0]) if octets.shape[0] else <uint16_t>0xFFFF) ^ 0xFFFF


# Octets to send


def encode_dlt645(bytes address not None, uint8_t control, bytes data not None, Py_ssize_t wake_up):
    """A frame of DL/T 645 behind `wake_up` times FEh. Raises: ValueError: it is none."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), i
    cdef const uint8_t* said = <const uint8_t*>PyBytes_AS_STRING(data)
    cdef uint8_t* out
    if PyBytes_GET_SIZE(address) != 6 or size > 255 or not 0 <= wake_up <= 255:
        raise ValueError(f"address {address.hex()}, {size} octets, {wake_up} of wake-up")
    frame = PyBytes_FromStringAndSize(NULL, wake_up + HEAD_645 + size + 2)
    out = <uint8_t*>PyBytes_AS_STRING(frame)
    for i in range(wake_up):
        out[i] = WAKE_UP_645
    out += wake_up
    out[0] = out[7] = START
    memcpy(out + 1, PyBytes_AS_STRING(address), 6)
    out[8] = control
    out[9] = <uint8_t>size
    for i in range(size):
        out[HEAD_645 + i] = <uint8_t>(said[i] + OFFSET)
    out[HEAD_645 + size] = _sum(out, HEAD_645 + size)
    out[HEAD_645 + size + 1] = END
    return frame


def encode_rtu_read(uint8_t unit, uint8_t function, uint16_t address, uint16_t count):
    """A read of registers as an RTU frame."""
    cdef uint8_t[8] out
    cdef uint16_t crc
    out[0], out[1] = unit, function
    out[2], out[3] = address >> 8, address & 0xFF
    out[4], out[5] = count >> 8, count & 0xFF
    crc = _crc(MODBUS, out, 6)
    out[6], out[7] = crc & 0xFF, crc >> 8
    return _cut(out, 8)


# Frames in a stream


cdef class Parser:
    """Says what stands at a place of the octets: a frame and where it ends, or a `Verdict`."""

    cdef object _frame

    def __init__(self, frame):
        self._frame = frame

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        """The frame, `end` set to its length; else None, and `end` is 0 for more octets, -1 for no frame."""
        raise NotImplementedError

    def __call__(self, bytearray octets not None, Py_ssize_t at):
        cdef Py_ssize_t held = PyByteArray_GET_SIZE(octets), end = 0
        if not 0 <= at < held:
            raise IndexError(at)
        frame = self.find(<const uint8_t*>PyByteArray_AS_STRING(octets) + at, held - at, &end)
        if end > 0:
            return frame, at + end
        return _NOTHING if end else _MORE


cdef class Dlt645Parser(Parser):
    """68 | address | 68 | control | length | data + 33h | sum | 16 (DL/T 645-2007, clause 5)."""

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        cdef Py_ssize_t size, i
        cdef uint8_t* out
        end[0] = -1
        # The second 68h sorts out nearly every false head early.
        if octets[0] != START or (held > 7 and octets[7] != START):
            return None
        end[0] = 0
        if held < HEAD_645:
            return None
        size = octets[9]
        if held < HEAD_645 + size + 2:
            return None
        end[0] = -1
        if octets[HEAD_645 + size + 1] != END or _sum(octets, HEAD_645 + size) != octets[HEAD_645 + size]:
            return None
        data = PyBytes_FromStringAndSize(NULL, size)
        out = <uint8_t*>PyBytes_AS_STRING(data)
        for i in range(size):
            out[i] = <uint8_t>(octets[HEAD_645 + i] - OFFSET)
        end[0] = HEAD_645 + size + 2
        return _named(self._frame, (_cut(octets + 1, 6), octets[8], data))


cdef class RtuParser(Parser):
    """Replies of one unit to one function of Modbus RTU; what others say is noise between them."""

    cdef uint8_t _unit, _function

    def __init__(self, frame, uint8_t unit, uint8_t function):
        Parser.__init__(self, frame)
        self._unit, self._function = unit, function

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        cdef Py_ssize_t size
        end[0] = -1
        if octets[0] != self._unit or (held > 1 and octets[1] & ~MODBUS_EXCEPTION != self._function):
            return None
        end[0] = 0
        if held < 3:
            return None
        size = octets[2]
        if octets[1] != self._function:
            size = 0
        elif not size or size & 1 or size > MODBUS_OCTETS:
            end[0] = -1
            return None
        if held < size + 5:
            return None
        end[0] = -1
        if _crc(MODBUS, octets, size + 5):  # over its own check a frame gives 0
            return None
        end[0] = size + 5
        if octets[1] != self._function:
            return _named(self._frame, (self._unit, self._function, b"", octets[2], None))
        return _named(self._frame, (self._unit, self._function, _cut(octets + 3, size), 0, None))


cdef class TcpParser(Parser):
    """Modbus TCP; a frame that is no reply to a read is an exception 0 without registers."""

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        cdef Py_ssize_t length
        cdef uint16_t transaction
        end[0] = 0
        if held < TCP_HEADER + 2:
            return None
        length = _high_first(octets + 4)
        if octets[2] or octets[3] or not 3 <= length <= 254:
            end[0] = -1
            return None
        if held < 6 + length:
            return None
        end[0] = 6 + length
        transaction = _high_first(octets)
        if octets[7] & MODBUS_EXCEPTION:
            return _named(self._frame, (octets[6], octets[7] & ~MODBUS_EXCEPTION, b"", octets[8], transaction))
        registers = _cut(octets + 9, length - 3) if octets[8] == length - 3 else b""
        return _named(self._frame, (octets[6], octets[7], registers, 0, transaction))


cdef class MbusParser(Parser):
    """E5 | 10 C A sum 16 | 68 L L 68 C A CI data sum 16 (EN 13757-2, 5.7)."""

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        cdef Py_ssize_t size
        end[0] = 1
        if octets[0] == MBUS_ACK:
            return _named(self._frame, (MBUS_ACK, 0, None, b""))
        end[0] = 0
        if octets[0] == MBUS_SHORT:
            if held < 5:
                return None
            end[0] = -1
            if octets[4] != END or _sum(octets + 1, 2) != octets[3]:
                return None
            end[0] = 5
            return _named(self._frame, (octets[1], octets[2], None, b""))
        if octets[0] != START:
            end[0] = -1
            return None
        if held < 4:
            end[0] = -1 if held > 2 and octets[1] != octets[2] else 0
            return None
        size = octets[1]
        if octets[2] != size or octets[3] != START or size < 3:
            end[0] = -1
            return None
        if held < size + 6:
            return None
        end[0] = -1
        if octets[size + 5] != END or _sum(octets + 4, size) != octets[size + 4]:
            return None
        end[0] = size + 6
        return _named(self._frame, (octets[4], octets[5], octets[6], _cut(octets + 7, size - 3)))


cdef class Dlt698Parser(Parser):
    """68 | length | control | address | client | HCS | APDU | FCS | 16 (DL/T 698.45, clause 6)."""

    cdef object find(self, const uint8_t* octets, Py_ssize_t held, Py_ssize_t* end):
        cdef Py_ssize_t length, size, head, said, i
        cdef uint16_t check
        cdef uint8_t* out
        end[0] = -1
        if octets[0] != START:
            return None
        end[0] = 0
        if held < 3:
            return None
        length = _low_first(octets + 1)
        if not 10 <= length <= MAX_698:
            end[0] = -1
            return None
        if held < 5:
            return None
        size = (octets[4] & 0x0F) + 1
        head = 6 + size  # behind the client's address
        if length < size + 9:
            end[0] = -1
            return None
        if held < head + 2:
            return None
        if <uint16_t>(_crc(HDLC, octets + 1, head - 1) ^ 0xFFFF) != _low_first(octets + head):
            end[0] = -1
            return None
        if held < length + 2:
            return None
        end[0] = -1
        check = <uint16_t>(_crc(HDLC, octets + 1, length - 2) ^ 0xFFFF)
        if octets[length + 1] != END or check != _low_first(octets + length - 1):
            return None
        said = length - 1 - head - 2
        apdu = _cut(octets + head + 2, said)
        if octets[3] & SCRAMBLED:
            apdu = PyBytes_FromStringAndSize(NULL, said)
            out = <uint8_t*>PyBytes_AS_STRING(apdu)
            for i in range(said):
                out[i] = <uint8_t>(octets[head + 2 + i] - OFFSET)
        end[0] = length + 2
        return _named(self._frame, (_cut(octets + 5, size), octets[3], apdu, octets[head - 1]))


cdef class Framer:
    """Finds frames in a stream of octets; anything between them is skipped.

    Octets that look like the head of a frame hold up what follows; `idle` says that nothing follows, and looks for
    frames inside them. `parse` is a `Parser`, or any callable that answers like one.
    """

    cdef object _parse
    cdef Parser _fast
    cdef bytearray _held
    cdef Py_ssize_t _max_octets  # bounds what a babbling line can make us keep
    cdef readonly object skipped

    def __init__(self, parse, Py_ssize_t max_octets):
        self._parse = parse
        self._fast = parse if isinstance(parse, Parser) else None
        self._max_octets = max_octets
        self._held = bytearray()
        self.skipped = 0

    def __class_getitem__(cls, frame):
        return cls

    @property
    def pending(self):
        """Whether octets are held that may become a frame."""
        return PyByteArray_GET_SIZE(self._held) > 0

    def receive(self, bytes octets not None):
        """Frames that are complete with these octets."""
        cdef list frames = []
        self._held += octets
        self._scan(frames, 0)
        while PyByteArray_GET_SIZE(self._held) > self._max_octets:  # no frame is so long: its head was noise
            self._scan(frames, 1)
        return frames

    def idle(self):
        """The line is silent: frames that a false head has hidden. Nothing is held afterwards."""
        cdef list frames = []
        while PyByteArray_GET_SIZE(self._held):
            self._scan(frames, 1)
        return frames

    cdef int _scan(self, list frames, Py_ssize_t at) except -1:
        """Take the frames from place `at` on; what is before them is skipped."""
        cdef Py_ssize_t held = PyByteArray_GET_SIZE(self._held), end, skipped = at
        while at < held:
            if self._fast is not None:
                frame = self._fast.find(
                    <const uint8_t*>PyByteArray_AS_STRING(self._held) + at, held - at, &end
                )
            else:
                found = self._parse(self._held, at)
                end = 0 if found is _MORE else -1
                if end and found is not _NOTHING:
                    frame, end = found
                    end -= at
            if not end:
                break
            if end > 0:
                frames.append(frame)
                at += end
            else:
                at += 1
                skipped += 1
        self.skipped += skipped
        del self._held[:at]
        return 0


# Values


cdef int64_t _bcd(const uint8_t* octets, Py_ssize_t count, bint signed) noexcept nogil:
    """The number of BCD octets, low octet first; the least number where a digit is none."""
    cdef int64_t number = 0
    cdef Py_ssize_t i
    cdef uint8_t octet
    cdef bint negative = signed and count and octets[count - 1] & 0x80
    for i in range(count - 1, -1, -1):
        octet = octets[i]
        if negative and i == count - 1:
            octet &= 0x7F
        if octet >> 4 > 9 or octet & 0x0F > 9:
            return INT64_MIN
        number = 100 * number + 10 * (octet >> 4) + (octet & 0x0F)
    return -number if negative else number


def bcd_number(const uint8_t[::1] octets, bint signed):
    """The number of BCD octets, low octet first; None where a digit is none, or there is no octet.

    With `signed`, the highest bit is the sign.

    Raises:
        ValueError: more digits than 18.
    """
    cdef Py_ssize_t count = octets.shape[0]
    cdef int64_t number
    if count > BCD_OCTETS:
        raise ValueError(f"{count} octets of BCD")
    if not count:
        return None
    number = _bcd(&octets[0], count, signed)
    return None if number == INT64_MIN else number


def bcd_scaled(bytes octets not None, Py_ssize_t at, Py_ssize_t count, bint signed, double factor, double divisor):
    """The BCD number of `count` octets from place `at` on, times `factor` or by `divisor`, if that is not 0.

    None where the octets do not reach so far, or a digit is none. At most nine octets.
    """
    cdef int64_t number
    if not 0 <= at <= PyBytes_GET_SIZE(octets) - count or not 1 <= count <= BCD_OCTETS:
        return None
    number = _bcd(<const uint8_t*>PyBytes_AS_STRING(octets) + at, count, signed)
    if number == INT64_MIN:
        return None
    return number / divisor if divisor else number * factor


cdef struct Column:
    int32_t at  # octets from the block's begin
    uint8_t size  # octets
    char kind  # i, u, f
    bint little
    double scale
    double divisor  # where it is not 0, instead of the scale: a tenth is no number of ours


cdef class Registers:
    """How the values of a block of registers are written; decodes all of them at once.

    `columns`: place in octets, size in octets, kind (`i`, `u`, `f`), low word first, scale, divisor, raw numbers that
    mean "none".
    """

    cdef list _none
    cdef Column[128] _columns
    cdef Py_ssize_t _count

    def __init__(self, columns):
        cdef Py_ssize_t i
        if len(columns) > 128:
            raise ValueError(f"{len(columns)} registers in one block")
        self._none = []
        self._count = len(columns)
        for i, (at, size, kind, little, scale, divisor, none) in enumerate(columns):
            known = size in (2, 4, 8) and kind in ("i", "u", "f") and (kind, size) != ("f", 2)
            if not known or not 0 <= at <= 1 << 16:
                raise ValueError(f"a register of {size} octets at {at}, kind {kind}")
            self._columns[i] = Column(at, size, ord(kind), little, scale, divisor)
            self._none.append(tuple(none))

    def decode(self, bytes registers not None):
        """The values, scaled; None where the device has none, or the octets do not reach so far."""
        cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(registers)
        cdef Py_ssize_t held = PyBytes_GET_SIZE(registers), i, k, words
        cdef list values = [None] * self._count
        cdef Column* column
        cdef uint64_t raw
        cdef uint32_t raw32
        cdef double number
        cdef float single
        for i in range(self._count):
            column = &self._columns[i]
            if column.at + column.size > held:
                continue
            raw, words = 0, column.size // 2
            for k in range(words):
                raw = raw << 16 | _high_first(octets + column.at + 2 * (words - 1 - k if column.little else k))
            if <tuple>self._none[i] and raw in <tuple>self._none[i]:
                continue
            if column.kind == c"f":
                if column.size == 4:
                    raw32 = <uint32_t>raw
                    memcpy(&single, &raw32, 4)
                    number = single
                else:
                    memcpy(&number, &raw, 8)
                if not isfinite(number):
                    continue
            elif column.kind == c"u":
                number = <double>raw
            elif column.size == 2:
                number = <int16_t><uint16_t>raw
            elif column.size == 4:
                number = <int32_t><uint32_t>raw
            else:
                number = <double><int64_t>raw
            values[i] = number / column.divisor if column.divisor else number * column.scale
        return values
