# cython: language_level=3, boundscheck=True, wraparound=False, cdivision=True
"""Kernel of the codec: check sequences, frames, A-XDR values and the one GET that a bus is full of.

Only what is measured to matter is here (`make bench-dlms`); every function has its plain Python twin in the tests.
The types of values and APDUs are handed in, so that this module imports none of those that import it.

What a meter says of itself (lengths, counts, numbers) is held in integers of fixed width that can hold every value the
wire can carry, and is compared with the octets at hand before it is used: a Py_ssize_t has 32 bits on armhf.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_SET_ITEM
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from firmware_io.errors import LocalProtocolError, RemoteProtocolError
from firmware_io.dlms.frame import Frame

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_alloc)(PyTypeObject* kind, Py_ssize_t items)

cdef enum:
    FLAG = 0x7E
    MIN_LENGTH = 7
    MAX_LENGTH = 0x7FF
    MAX_ADDRESS_OCTETS = 4
    MAX_DEPTH = 16
    MAX_COMPACT = 200000  # values of compact arrays in one APDU: their types take no octets, so octets bound nothing
    MAX_LIST = 255

cdef uint16_t[256] CRC


cdef inline object _named(kind, tuple values):
    """A named tuple of these values, made as `tuple.__new__` makes it but without the call."""
    cdef Py_ssize_t i, count = PyTuple_GET_SIZE(values)
    made = (<PyTypeObject*>kind).tp_alloc(<PyTypeObject*>kind, count)
    for i in range(count):
        value = <object>PyTuple_GET_ITEM(values, i)
        Py_INCREF(value)
        PyTuple_SET_ITEM(made, i, value)
    return made


cdef void _fill_table() noexcept:
    cdef int32_t octet, _bit
    cdef uint16_t crc
    for octet in range(256):
        crc = <uint16_t>octet
        for _bit in range(8):
            crc = (crc >> 1) ^ 0x8408 if crc & 1 else crc >> 1
        CRC[octet] = crc


_fill_table()


cdef inline uint16_t _fcs(const uint8_t* octets, Py_ssize_t count) noexcept nogil:
    cdef uint16_t crc = 0xFFFF
    cdef Py_ssize_t i
    for i in range(count):
        crc = (crc >> 8) ^ CRC[(crc ^ octets[i]) & 0xFF]
    return crc ^ 0xFFFF


cdef inline bint _fcs_agrees(const uint8_t* octets, Py_ssize_t count) noexcept nogil:
    """Whether the two octets behind `count` are their check sequence."""
    return _fcs(octets, count) == (octets[count] | <uint16_t>octets[count + 1] << 8)


def fcs16(const uint8_t[::1] octets):
    """The check sequence of ISO/IEC 13239 (CRC-16/X.25); it goes on the wire low octet first."""
    if octets.shape[0] == 0:
        return 0
    return _fcs(&octets[0], octets.shape[0])


def encode_frame(bytes destination not None, bytes source not None, int32_t control, bytes information not None,
                 bint segmented):
    """A whole frame with its flags.

    Raises:
        LocalProtocolError: longer than the length field can say.
    """
    cdef Py_ssize_t to = PyBytes_GET_SIZE(destination)
    cdef Py_ssize_t by = PyBytes_GET_SIZE(source)
    cdef Py_ssize_t said = PyBytes_GET_SIZE(information)
    cdef Py_ssize_t header = 2 + to + by + 1
    cdef Py_ssize_t length = header + 2 + (said + 2 if said else 0)
    cdef uint16_t check
    cdef uint8_t* out
    if length > MAX_LENGTH:
        raise LocalProtocolError(f"a frame of {length} octets; the format allows {MAX_LENGTH}")
    frame = PyBytes_FromStringAndSize(NULL, length + 2)
    out = <uint8_t*>PyBytes_AS_STRING(frame)
    out[0] = FLAG
    out[1] = 0xA0 | (0x08 if segmented else 0) | <uint8_t>(length >> 8)
    out[2] = length & 0xFF
    memcpy(out + 3, PyBytes_AS_STRING(destination), to)
    memcpy(out + 3 + to, PyBytes_AS_STRING(source), by)
    out[3 + to + by] = control & 0xFF
    check = _fcs(out + 1, header)
    out[1 + header] = check & 0xFF
    out[2 + header] = check >> 8
    if said:
        memcpy(out + 3 + header, PyBytes_AS_STRING(information), said)
        check = _fcs(out + 1, length - 2)
        out[length - 1] = check & 0xFF
        out[length] = check >> 8
    out[length + 1] = FLAG
    return frame


cdef enum Verdict:
    INCOMPLETE
    NO_FRAME
    CORRUPT
    WHOLE


cdef struct Found:
    Py_ssize_t destination, destination_octets
    Py_ssize_t source, source_octets
    Py_ssize_t information, information_octets
    Py_ssize_t end
    uint8_t control
    bint segmented


cdef inline Py_ssize_t _address(const uint8_t* at, Py_ssize_t held) noexcept nogil:
    """Octets of the address at `at`; 0: more are needed, -1: no address."""
    cdef Py_ssize_t i
    for i in range(MAX_ADDRESS_OCTETS):
        if i >= held:
            return 0
        if at[i] & 1:
            return -1 if i == 2 else i + 1
    return -1


cdef Verdict _look(const uint8_t* octets, Py_ssize_t held, Py_ssize_t max_length, bint closed,
                   Found* found) noexcept nogil:
    """What stands behind a flag; `octets` begins there, `found` counts from there. Reads no more than `held`."""
    cdef Py_ssize_t length, position, header_end
    if held and octets[0] & 0xF0 != 0xA0:
        return NO_FRAME
    if held < 2:
        return INCOMPLETE
    length = <Py_ssize_t>(octets[0] & 0x07) << 8 | octets[1]
    if not MIN_LENGTH <= length <= max_length:
        return NO_FRAME
    position = 2
    found.destination = position
    found.destination_octets = _address(octets + position, held - position)
    if found.destination_octets <= 0:
        return INCOMPLETE if found.destination_octets == 0 else NO_FRAME
    position += found.destination_octets
    found.source = position
    found.source_octets = _address(octets + position, held - position)
    if found.source_octets <= 0:
        return INCOMPLETE if found.source_octets == 0 else NO_FRAME
    position += found.source_octets
    header_end = position + 1
    # Without information there is one check sequence; with it there is an octet at least, and a second one.
    if length != header_end + 2 and length < header_end + 5:
        return NO_FRAME
    if held < header_end + 2:
        return INCOMPLETE
    if not _fcs_agrees(octets, header_end):
        return CORRUPT
    if held < length + (0 if closed else 1):
        return INCOMPLETE
    found.control = octets[position]
    found.segmented = octets[0] & 0x08 != 0
    found.information = header_end + 2
    found.information_octets = 0
    found.end = length
    if length > header_end + 2:
        if not _fcs_agrees(octets, length - 2):
            return CORRUPT
        found.information_octets = length - header_end - 4
    return WHOLE


cdef class Framer:
    """Finds frames in a stream. `corrupt` counts those whose check sequence was wrong, `skipped` other octets."""
    cdef bytearray _buffer
    cdef Py_ssize_t _max_length
    cdef readonly int64_t corrupt, skipped  # of a line that never falls silent: 2^31 octets of noise are weeks

    def __init__(self, Py_ssize_t max_length=MAX_LENGTH):
        self._buffer = bytearray()
        self._max_length = max_length

    def __len__(self):
        return PyByteArray_GET_SIZE(self._buffer)

    @property
    def pending(self):
        """Whether octets of an unfinished frame are held."""
        return PyByteArray_GET_SIZE(self._buffer) > 1

    def receive(self, bytes octets not None):
        """Add what came from the line and return the frames that are complete now."""
        cdef Py_ssize_t held = PyByteArray_GET_SIZE(self._buffer)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(octets), done
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(octets)
        cdef list frames = []
        # The closing flag of the frame before is held, as it may open the next; one that has its own is no news.
        if held == 1 and size and at[0] == FLAG:
            held = 0
        if held == 0:
            done = self._scan(at, size, False, frames)
            if size - done == 1:
                if PyByteArray_GET_SIZE(self._buffer) != 1:
                    self._buffer[:] = b"\x7e"  # nothing but a flag waits alone
            elif done < size or PyByteArray_GET_SIZE(self._buffer):
                self._buffer[:] = octets[done:]
        else:
            # One longest frame at most is held between calls, and one read more during a call.
            self._buffer += octets
            done = self._scan(
                <const uint8_t*>PyByteArray_AS_STRING(self._buffer), PyByteArray_GET_SIZE(self._buffer), False, frames
            )
            del self._buffer[:done]
        return frames

    def idle(self):
        """The line fell silent: what is still unfinished was torn, unless only its closing flag is missing."""
        cdef list frames = []
        self._scan(
            <const uint8_t*>PyByteArray_AS_STRING(self._buffer), PyByteArray_GET_SIZE(self._buffer), True, frames
        )
        self.reset()
        return frames

    def reset(self):
        """Forget what is held; for use before a new request."""
        if PyByteArray_GET_SIZE(self._buffer):
            self._buffer.clear()

    cdef Py_ssize_t _scan(self, const uint8_t* octets, Py_ssize_t size, bint closed, list frames) except -1:
        """Append the frames of `octets` to `frames`; how many octets are done with. `closed`: nothing more comes."""
        cdef Py_ssize_t start = 0
        cdef const uint8_t* base
        cdef const void* flag
        cdef Found found
        cdef Verdict verdict
        while start < size:
            flag = memchr(octets + start, FLAG, size - start)
            if flag == NULL:
                self.skipped += size - start
                return size
            base = <const uint8_t*>flag + 1
            self.skipped += base - 1 - (octets + start)
            start = base - octets
            verdict = _look(base, size - start, self._max_length, closed, &found)
            if verdict == WHOLE:
                frames.append(_named(Frame, (
                    PyBytes_FromStringAndSize(<char*>base + found.destination, found.destination_octets),
                    PyBytes_FromStringAndSize(<char*>base + found.source, found.source_octets),
                    found.control,
                    PyBytes_FromStringAndSize(<char*>base + found.information, found.information_octets),
                    found.segmented,
                )))
                start += found.end  # the closing flag stays: the next frame may share it
            elif verdict == INCOMPLETE:
                if not closed:
                    return start - 1
                if size > start:
                    self.corrupt += 1
            elif verdict == CORRUPT:
                self.corrupt += 1
        return start


cdef class _Cursor:
    """Where a value ends; passed down while values are read."""
    cdef const uint8_t* octets
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef object data_type
    cdef int64_t compact  # values made of compact arrays so far

    cdef int need(self, int64_t count) except -1:
        if count > self.size - self.at:
            raise RemoteProtocolError(
                f"a value is cut short: expected {count} octets at offset {self.at}, got {self.size - self.at}"
            )
        return 0

    cdef uint64_t number(self, Py_ssize_t count) except? 0:
        cdef uint64_t value = 0
        cdef Py_ssize_t i
        self.need(count)
        for i in range(count):
            value = value << 8 | self.octets[self.at + i]
        self.at += count
        return value

    cdef int64_t length(self) except -1:
        """A length as the meter states it, up to 2^32 - 1; it is believed only after `need` or its like."""
        cdef int64_t first = <int64_t>self.number(1)
        if first < 0x80:
            return first
        first &= 0x7F
        if not 1 <= first <= 4:
            raise RemoteProtocolError(f"a length of {first} octets at offset {self.at - 1}: expected 1 to 4")
        return <int64_t>self.number(<Py_ssize_t>first)

    cdef object value(self, int32_t depth):
        self.need(1)
        self.at += 1
        return self.content(self.octets[self.at - 1], depth)

    cdef object content(self, uint8_t tag, int32_t depth):
        """The value of a type whose tag is known."""
        cdef int64_t count, i, _i
        cdef uint32_t bits32
        cdef uint64_t bits64
        cdef float single
        cdef double wide
        if tag == 6:
            value = <uint32_t>self.number(4)
        elif tag == 18:
            value = <uint16_t>self.number(2)
        elif tag == 17 or tag == 22:
            value = <uint8_t>self.number(1)
        elif tag == 16:
            value = <int16_t>self.number(2)
        elif tag == 5:
            value = <int32_t>self.number(4)
        elif tag == 15 or tag == 13:
            value = <int8_t>self.number(1)
        elif tag == 21:
            value = self.number(8)
        elif tag == 20:
            value = <int64_t>self.number(8)
        elif tag == 23:
            bits32 = <uint32_t>self.number(4)
            memcpy(&single, &bits32, 4)
            value = <double>single
        elif tag == 24:
            bits64 = self.number(8)
            memcpy(&wide, &bits64, 8)
            value = wide
        elif tag == 0 or tag == 255:
            value = None
        elif tag == 3:
            value = self.number(1) != 0
        elif tag == 9 or 25 <= tag <= 27:
            count = self.length() if tag == 9 else 12 if tag == 25 else 5 if tag == 26 else 4
            self.need(count)
            value = PyBytes_FromStringAndSize(<char*>self.octets + self.at, <Py_ssize_t>count)
            self.at += <Py_ssize_t>count
        elif tag == 1 or tag == 2:
            if depth >= MAX_DEPTH:
                raise RemoteProtocolError(f"data nested deeper than {MAX_DEPTH}")
            count = self.length()
            # Each element has at least its tag, so a count beyond the octets at hand is a lie.
            if count > self.size - self.at:
                raise RemoteProtocolError(f"{count} elements promised, {self.size - self.at} octets left")
            value = tuple([self.value(depth + 1) for _i in range(count)])
        elif tag == 10 or tag == 12:
            count = self.length()
            self.need(count)
            raw = PyBytes_FromStringAndSize(<char*>self.octets + self.at, <Py_ssize_t>count)
            self.at += <Py_ssize_t>count
            if tag == 10:  # meters put what they like here; Latin-1 keeps every octet
                value = raw.decode("latin-1")
            else:
                try:
                    value = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise RemoteProtocolError(f"UTF-8 string: {error}") from error
        elif tag == 4:
            count = self.length()
            self.need((count + 7) // 8)
            value = "".join(
                ["1" if self.octets[self.at + <Py_ssize_t>(i // 8)] >> (7 - i % 8) & 1 else "0" for i in range(count)]
            )
            self.at += <Py_ssize_t>((count + 7) // 8)
        elif tag == 19:
            return self.compact_array(depth)
        else:
            raise RemoteProtocolError(f"data type {tag} at offset {self.at - 1} is unknown or not supported")
        return _named(self.data_type, (tag, value))

    cdef object compact_array(self, int32_t depth):
        """An array whose type is said once (IEC 62056-6-2, compact-array); it comes out as any other array."""
        cdef Py_ssize_t end, before
        cdef int64_t count
        if depth >= MAX_DEPTH:
            raise RemoteProtocolError(f"data nested deeper than {MAX_DEPTH}")
        kind = self.type_description(depth + 1)
        count = self.length()
        self.need(count)
        end = self.at + <Py_ssize_t>count
        values = []
        while self.at < end:
            before = self.at
            values.append(self.described(kind, depth + 1))
            if self.at == before:
                raise RemoteProtocolError("a compact array of values that take no octets")
        if self.at != end:
            raise RemoteProtocolError(f"a compact array is {self.at - end} octets longer than it says")
        return _named(self.data_type, (1, tuple(values)))

    cdef object type_description(self, int32_t depth):
        """A tag; (1, count, description) for an array; (2, descriptions) for a structure."""
        cdef uint8_t tag = <uint8_t>self.number(1)
        cdef int64_t count, _i
        if depth >= MAX_DEPTH:
            raise RemoteProtocolError(f"types nested deeper than {MAX_DEPTH}")
        if tag == 1:
            count = <int64_t>self.number(2)
            return 1, count, self.type_description(depth + 1)
        if tag == 2:
            count = self.length()
            if count > self.size - self.at:
                raise RemoteProtocolError(f"{count} types promised, {self.size - self.at} octets left")
            return 2, [self.type_description(depth + 1) for _i in range(count)]
        if tag == 19:
            raise RemoteProtocolError("a compact array within a compact array")
        return tag

    cdef object described(self, kind, int32_t depth):
        """One value of a described type."""
        cdef Py_ssize_t before
        cdef int64_t count, _i
        self.compact += 1
        if self.compact > MAX_COMPACT:
            raise RemoteProtocolError(f"more than {MAX_COMPACT} values in compact arrays")
        if not isinstance(kind, tuple):
            return self.content(<uint8_t>kind, depth)
        if kind[0] == 2:
            return _named(self.data_type, (2, tuple([self.described(item, depth + 1) for item in kind[1]])))
        count = kind[1]
        before = self.at
        values = []
        for _i in range(count):
            values.append(self.described(kind[2], depth + 1))
            if self.at == before:
                raise RemoteProtocolError("an array of values that take no octets")
        return _named(self.data_type, (1, tuple(values)))


cdef _Cursor _cursor(bytes octets, Py_ssize_t offset, data_type):
    cdef _Cursor cursor = _Cursor.__new__(_Cursor)
    cursor.octets = <const uint8_t*>PyBytes_AS_STRING(octets)
    cursor.size = PyBytes_GET_SIZE(octets)
    cursor.at = offset
    cursor.data_type = data_type
    cursor.compact = 0
    return cursor


def decode_value(bytes octets not None, Py_ssize_t offset, data_type):
    """The A-XDR value at `offset`, and the offset behind it.

    Raises:
        RemoteProtocolError: malformed or cut short.
    """
    cdef _Cursor cursor
    if not 0 <= offset <= PyBytes_GET_SIZE(octets):
        raise RemoteProtocolError(f"a value is cut short at offset {offset}")
    cursor = _cursor(octets, offset, data_type)
    return cursor.value(0), cursor.at


def decode_get_response(bytes octets not None, response_type, data_type):
    """A GET.response normal with data; None for any other APDU.

    Raises:
        RemoteProtocolError: the value is malformed or cut short, or octets are left over.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(octets)
    cdef _Cursor cursor
    if PyBytes_GET_SIZE(octets) < 5 or at[0] != 0xC4 or at[1] != 1 or at[3] != 0:
        return None
    cursor = _cursor(octets, 4, data_type)
    value = cursor.value(0)
    if cursor.at != cursor.size:
        raise RemoteProtocolError(f"{cursor.size - cursor.at} octets are left over behind the APDU")
    return _named(response_type, (at[2], value))


def decode_get_list(bytes octets not None, response_type, data_type, result_type):
    """A GET.response with list; None for any other APDU.

    Raises:
        RemoteProtocolError: a value is malformed or cut short, or octets are left over.
    """
    cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(octets)
    cdef _Cursor cursor
    cdef int64_t count, _i
    cdef uint64_t choice
    if PyBytes_GET_SIZE(octets) < 4 or at[0] != 0xC4 or at[1] != 3:
        return None
    cursor = _cursor(octets, 3, data_type)
    count = cursor.length()
    if count > MAX_LIST or count > cursor.size - cursor.at:
        raise RemoteProtocolError(f"a list of {count} items in {cursor.size - cursor.at} octets")
    results = []
    for _i in range(count):
        choice = cursor.number(1)
        if choice == 0:
            results.append(cursor.value(0))
        elif choice == 1:
            results.append(result_type(cursor.number(1)))
        else:
            raise RemoteProtocolError(f"result choice {choice}: expected 0 (data) or 1 (data-access-result)")
    if cursor.at != cursor.size:
        raise RemoteProtocolError(f"{cursor.size - cursor.at} octets are left over behind the APDU")
    return _named(response_type, (at[2], tuple(results)))


def encode_get(int32_t invoke, attribute):
    """A GET.request normal without selective access; `attribute` is class, logical name, number.

    Raises:
        LocalProtocolError: no attribute, or a number does not fit.
    """
    cdef uint8_t* out
    cdef int32_t i, group, class_id, number
    if not (PyTuple_Check(attribute) and PyTuple_GET_SIZE(attribute) == 3 and 0 <= invoke <= 0xFF):
        raise LocalProtocolError(f"GET of {attribute}, invoke-id {invoke}: no such attribute")
    class_id = <object>PyTuple_GET_ITEM(attribute, 0)
    name = <object>PyTuple_GET_ITEM(attribute, 1)
    number = <object>PyTuple_GET_ITEM(attribute, 2)
    if not (PyTuple_Check(name) and PyTuple_GET_SIZE(name) == 6):
        raise LocalProtocolError(f"GET of {attribute}: {name} is no logical name")
    if not (0 <= class_id <= 0xFFFF and -0x80 <= number <= 0xFF):
        raise LocalProtocolError(f"GET of {attribute}: out of range")
    request = PyBytes_FromStringAndSize(NULL, 13)
    out = <uint8_t*>PyBytes_AS_STRING(request)
    out[0], out[1], out[2] = 0xC0, 1, invoke
    out[3], out[4] = class_id >> 8, class_id & 0xFF
    for i in range(6):
        group = <object>PyTuple_GET_ITEM(name, i)
        if not 0 <= group <= 0xFF:
            raise LocalProtocolError(f"GET of {attribute}: {name} is no logical name")
        out[5 + i] = group
    out[11], out[12] = number & 0xFF, 0
    return request
