"""Reading and writing one meter over an association: get, get_list, set, action, read a profile, release.

Which registers are read when, and what to do about a meter that does not answer, is the bus's business. After a
`ResponseTimeout` or a `RemoteProtocolError` the association is closed (`open` is False); `connect` opens it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from firmware_io.dlms.apdu import axdr, decode
from firmware_io.dlms.apdu.access import AccessItem, AccessKind
from firmware_io.dlms.apdu.acse import Conformance
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import ActionResult, Apdu, Attribute, DataAccessResult, Selection
from firmware_io.dlms.apdu.refusals import DataAccessError, MalformedData, ServiceRefused, data_or_error, expect
from firmware_io.dlms.cosem import profile
from firmware_io.dlms.cosem.meter_time import MeterTime
from firmware_io.dlms.session.association import Association, Push
from firmware_io.dlms.session.blocks import LongValue
from firmware_io.dlms.session.channel import Channel
from firmware_io.dlms.session.counters import InvocationCounters
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import (
    AccessDenied,
    LocalProtocolError,
    MeterError,
    RegisterUnavailable,
    RemoteProtocolError,
    ResponseTimeout,
    TransportError,
)
from firmware_io.obis import ObisCode

T = TypeVar("T")

MAX_LONG_GET = 1 << 20  # octets of one attribute in blocks: bounds what a meter can make us keep
LIST_HEAD, ACCESS_HEAD = 4, 9  # octets of a GET with list in front of its items, and of an ACCESS beside them
LIST_ITEM, ACCESS_ITEM = 10, 11
LONG_INVOKE = 0xC0000000  # confirmed, high priority
CIPHER_OVERHEAD = 5 + 12 + 4 + 10  # control and counter, tag, lengths, general header


class Session:
    """A client's association; `public` opens it without security whatever the meter's own asks for."""

    def __init__(
        self,
        spec: DlmsSpec,
        channel: Channel,
        counters: InvocationCounters,
        on_push: Push | None = None,
        *,
        public: bool = False,
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._association = Association(spec, channel, counters, on_push, public=public)
        self.with_list = spec.with_list
        self.open = False
        self._list_limit = decode.MAX_ITEMS
        self.identified = False  # in this association, by whoever asked it
        self.malformed: dict[Attribute, str] = {}  # attributes of lists whose values could not be understood, and why

    @property
    def meter(self) -> str:
        """Whose association it is."""
        return self._spec.id

    def connect(self) -> None:
        """Open the link and the association; authenticate both sides where the security asks for it.

        Raises:
            AccessDenied: the meter refuses our password or keys. Do not try again: it may lock itself.
            RemoteProtocolError: it refuses for another reason, or breaks the protocol.
            ResponseTimeout: it does not answer.
        """
        with self._guarded(opening=True):
            self.open = self.identified = False
            self._association.connect()
            self.open = True

    @property
    def authenticated(self) -> bool:
        """Whether every reply proves which meter gave it."""
        return self._association.ciphered

    @property
    def meter_title(self) -> bytes | None:
        """The meter's system title, where its replies are ciphered."""
        return self._association.meter_title

    @property
    def selects(self) -> bool:
        """Whether the meter offers selective access."""
        selected = Conformance.SELECTIVE_ACCESS | Conformance.PARAMETERISED_ACCESS
        return bool(self._association.conformance & selected)

    @property
    def list_size(self) -> int:
        """How many attributes go into one request with list; 1 where the meter takes none."""
        listed = Conformance.ACCESS if self._by_access else Conformance.MULTIPLE_REFERENCES
        if not self.with_list or not self._association.conformance & listed:
            return 1
        # One that needs two frames takes as many turnarounds as two lists, and not every meter joins frames.
        octets = min(self._association.pdu_limit, self._channel.unit_octets)
        octets -= CIPHER_OVERHEAD if self.authenticated else 0
        head, item = (ACCESS_HEAD, ACCESS_ITEM) if self._by_access else (LIST_HEAD, LIST_ITEM)
        return max(1, min(decode.MAX_ITEMS, self._list_limit, (octets - head) // item))

    @property
    def _by_access(self) -> bool:
        return self._spec.access and bool(self._association.conformance & Conformance.ACCESS)

    def shrink_lists(self) -> None:
        """Ask for less at once from now on: the meter did not take what was asked."""
        self._list_limit = max(1, self.list_size // 2)

    def get(self, attribute: Attribute, selection: Selection | None = None) -> Data:
        """Read one attribute, in blocks where it is long.

        Raises:
            DataAccessError: the meter has it not, or not now.
            MalformedData: it answered, but not with data.
            ServiceRefused: it does not do that; the association goes on.
            AccessDenied: we have no right to it.
        """
        with self._guarded(attribute.name, keep=(ServiceRefused,) if selection else ()):
            invoke = self._association.next_invoke()
            reply = self._association.request(decode.GetRequest(invoke, attribute, selection), invoke)
            if isinstance(reply, decode.GetBlock):
                return _in_blocks(axdr.decode, self._blocks(reply, invoke, attribute))
            if not isinstance(reply, decode.GetResponse):
                raise RemoteProtocolError(f"expected GET.response, got {type(reply).__name__}")
            return data_or_error(attribute, reply.result)

    def get_list(self, attributes: Sequence[Attribute]) -> list[Data | DataAccessResult]:
        """Read several attributes, as few requests as the meter takes; one result for each, in the same order.

        A meter that refuses lists is asked one by one, now and as long as `with_list` stays False.
        """
        results: list[Data | DataAccessResult] = []
        size = self.list_size
        for start in range(0, len(attributes), size):
            part = attributes[start : start + size]
            answered = self._get_part(part) if self.with_list and len(part) > 1 else None
            results += self._one_by_one(part) if answered is None else answered
        return results

    def set(self, attribute: Attribute, value: Data) -> None:
        """Write one attribute, in blocks where it is long.

        Raises:
            DataAccessError: the meter does not take it.
            AccessDenied: we have no right to write it.
        """
        with self._guarded(attribute.name):
            invoke = self._association.next_invoke()
            request = decode.SetRequest(invoke, attribute, None, value)
            if len(request.encode()) + CIPHER_OVERHEAD <= self._association.pdu_limit:
                reply = self._association.request(request, invoke)
            else:
                reply = self._set_blocks(attribute, axdr.encode(value), invoke)
            if not isinstance(reply, decode.SetResponse | decode.SetLastBlockResponse):
                raise RemoteProtocolError(f"expected SET.response, got {type(reply).__name__}")
            if reply.result is not DataAccessResult.SUCCESS:
                data_or_error(attribute, reply.result)

    def set_list(self, items: Sequence[tuple[Attribute, Data]]) -> list[DataAccessResult]:
        """Write several attributes in one request; how each ended.

        Raises:
            ServiceRefused: the meter takes no lists, or not one so long; nothing was written.
        """
        with self._guarded(keep=(ServiceRefused,)):
            invoke = self._association.next_invoke()
            reply = self._association.request(self._fitting(decode.SetListRequest(invoke, tuple(items))), invoke)
            results = list(expect(decode.SetListResponse, reply).results)
            if len(results) != len(items):
                raise RemoteProtocolError(f"{len(items)} attributes set, {len(results)} results came")
            return results

    def call_list(
        self, items: Sequence[tuple[Attribute, Data | None]]
    ) -> list[tuple[ActionResult, Data | DataAccessResult | None]]:
        """Call several methods in one request; how each ended, and what it returned.

        Raises:
            ServiceRefused: the meter takes no lists, or not one so long; nothing was called.
        """
        with self._guarded(keep=(ServiceRefused,)):
            invoke = self._association.next_invoke()
            reply = self._association.request(self._fitting(decode.ActionListRequest(invoke, tuple(items))), invoke)
            results = list(expect(decode.ActionListResponse, reply).results)
            if len(results) != len(items):
                raise RemoteProtocolError(f"{len(items)} methods called, {len(results)} results came")
            return results

    def _fitting(self, request: Apdu) -> Apdu:
        """The request, if the meter takes lists, and one so long. Raises: ServiceRefused."""
        conformance = self._association.conformance
        if not conformance & Conformance.MULTIPLE_REFERENCES:
            raise ServiceRefused("the meter takes no lists: one at a time")
        octets = len(request.encode()) + CIPHER_OVERHEAD
        if octets > self._association.pdu_limit and not conformance & Conformance.GENERAL_BLOCK_TRANSFER:
            raise ServiceRefused(f"the meter takes {self._association.pdu_limit} octets at once: ask for less")
        return request

    def action(self, method: Attribute, parameters: Data | None = None) -> Data | None:
        """Call a method; what it returns, if anything.

        Raises:
            ActionError: it did not succeed.
            AccessDenied: we have no right to it.
        """
        with self._guarded(method.name):
            return self._association.action(method, parameters)

    def capture_objects(self, name: ObisCode) -> tuple[tuple[profile.Column, ...], float]:
        """The columns of a profile and its capture period in seconds (0: not periodic)."""
        attributes = [Attribute(profile.CLASS, name, n) for n in (profile.CAPTURE_OBJECTS, profile.CAPTURE_PERIOD)]
        captured, period = (self.get(attribute) for attribute in attributes)
        with self._guarded(name):
            if not isinstance(period.value, int):
                raise RemoteProtocolError(f"capture period: expected a number, got {period}")
            return profile.columns(captured), float(period.value)

    def read_profile(
        self, name: ObisCode, columns: tuple[profile.Column, ...], period_s: float, first: MeterTime, last: MeterTime
    ) -> list[profile.Row]:
        """The rows of a profile captured from `first` to `last`, by the meter's own time."""
        clock = next((column for column in columns if column.is_time), None)
        if clock is None:
            raise RegisterUnavailable(
                "the profile has no clock column; read it by entry", meter=self.meter, obis=str(name)
            )
        return self._profile_rows(name, columns, period_s, profile.by_range(first, last, clock))

    def read_entries(
        self, name: ObisCode, columns: tuple[profile.Column, ...], period_s: float, first: int, last: int
    ) -> list[profile.Row]:
        """Rows `first` to `last` of a profile, counted from 1; `last` 0 is the newest or oldest, as it is sorted."""
        return self._profile_rows(name, columns, period_s, profile.by_entry(first, last))

    def read_whole(self, name: ObisCode, columns: tuple[profile.Column, ...], period_s: float) -> list[profile.Row]:
        """All rows of a profile, of a meter that selects nothing."""
        return self._profile_rows(name, columns, period_s, None)

    def keep_alive(self) -> None:
        """Keep the association from its inactivity time-out."""
        with self._guarded():
            self._association.keep_alive()

    def release(self) -> None:
        """Release the association and the link; a meter that does not answer is left to its time-out."""
        if self.open:
            self._association.release()
        else:
            self._association.drop()
        self.open = False

    def _get_part(self, attributes: Sequence[Attribute]) -> list[Data | DataAccessResult] | None:
        """A GET with list; None when the meter refuses lists."""
        with self._guarded(keep=(ServiceRefused,)):
            invoke = self._association.next_invoke()
            request: Apdu = decode.GetListRequest(invoke, tuple((attribute, None) for attribute in attributes))
            if self._by_access:
                items = tuple(AccessItem(AccessKind.GET, attribute) for attribute in attributes)
                request = decode.AccessRequest(LONG_INVOKE | invoke & 0x0F, items)
            try:
                reply = self._association.request(request, invoke)
            except ServiceRefused:
                self.with_list = False
                return None
            except MalformedData:
                return None  # one of them; which one is seen when each is asked alone
            if isinstance(reply, decode.GetBlock):
                results = _in_blocks(decode.decode_results, self._blocks(reply, invoke, attributes[0]))
            elif isinstance(reply, decode.GetListResponse):
                results = reply.results
            elif isinstance(reply, decode.AccessResponse):
                results = tuple(value if end == 0 else DataAccessResult(end) for _, end, value in reply.results)
            elif isinstance(reply, decode.GetResponse) and isinstance(reply.result, DataAccessResult):
                self.with_list = False
                return None
            else:
                raise RemoteProtocolError(f"expected GET.response with list, got {type(reply).__name__}")
            if len(results) != len(attributes):
                raise RemoteProtocolError(f"{len(attributes)} attributes asked for, {len(results)} came")
            return list(results)

    def _one_by_one(self, attributes: Sequence[Attribute]) -> list[Data | DataAccessResult]:
        results: list[Data | DataAccessResult] = []
        for attribute in attributes:
            try:
                results.append(self.get(attribute))
            except DataAccessError as error:
                results.append(error.result)
            except AccessDenied:
                results.append(DataAccessResult.READ_WRITE_DENIED)
            except MalformedData as error:
                self.malformed[attribute] = str(error)
                results.append(DataAccessResult.OTHER_REASON)
        return results

    def _blocks(self, first: decode.GetBlock, invoke: int, attribute: Attribute) -> bytes:
        """The octets of a reply that comes in blocks."""
        block, long = first, LongValue(self._channel.monotonic, MAX_LONG_GET)
        while True:
            if isinstance(block.payload, DataAccessResult):
                raise DataAccessError(attribute, block.payload)
            whole = long.add(block.block, block.payload, last=block.last)
            if whole is not None:
                return whole
            reply = self._association.request(decode.GetNext(invoke, block.block), invoke)
            if isinstance(reply, decode.GetResponse) and isinstance(reply.result, DataAccessResult):
                raise DataAccessError(attribute, reply.result)
            block = expect(decode.GetBlock, reply)

    def _set_blocks(self, attribute: Attribute, octets: bytes, invoke: int) -> Apdu:
        size = max(16, self._association.pdu_limit - CIPHER_OVERHEAD - 32)
        parts = [octets[i : i + size] for i in range(0, len(octets), size)]
        reply: Apdu | None = None
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            block: Apdu = decode.SetBlock(invoke, last, number, part)
            if number == 1:
                block = decode.SetFirstBlock(invoke, attribute, None, last, number, part)
            reply = self._association.request(block, invoke)
            if isinstance(reply, decode.SetResponse):
                return reply  # refused half way
            if not last and expect(decode.SetBlockResponse, reply).block != number:
                raise RemoteProtocolError(f"SET block {number} was sent, another one is acknowledged")
        assert reply is not None
        return reply

    def _profile_rows(
        self, name: ObisCode, columns: tuple[profile.Column, ...], period_s: float, selection: Selection | None
    ) -> list[profile.Row]:
        buffer = self.get(Attribute(profile.CLASS, name, profile.BUFFER), selection)
        with self._guarded(name):
            return profile.rows(buffer, columns, period_s)

    @contextmanager
    def _guarded(
        self, obis: ObisCode | None = None, keep: tuple[type[MeterError], ...] = (), *, opening: bool = False
    ) -> Iterator[None]:
        """Name the meter in what is raised, and close the association where it cannot go on."""
        try:
            if not (self.open or opening):
                raise LocalProtocolError("a request on an association that is not open")
            yield
        except MeterError as error:
            broken = isinstance(error, TransportError | ResponseTimeout | RemoteProtocolError | LocalProtocolError)
            if broken and not isinstance(error, keep):
                self.open = False
            if error.meter is None:
                error.meter, error.obis = self.meter, None if obis is None else str(obis)
                error.args = (f"{' '.join(p for p in (error.meter, error.obis) if p)}: {error}",)
            raise


def _in_blocks(decode_all: Callable[[bytes], T], octets: bytes) -> T:
    """What blocks hold together.

    Raises:
        MalformedData: they came whole, and are no such thing.
    """
    try:
        return decode_all(octets)
    except RemoteProtocolError as error:
        raise MalformedData(str(error)) from error
