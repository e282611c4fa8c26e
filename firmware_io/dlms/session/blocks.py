"""What comes in blocks: units over a channel in general blocks, and the long values of GET, READ and ACTION."""

from __future__ import annotations

from collections.abc import Callable

from firmware_io.dlms.apdu.blocks import HEAD_OCTETS, TAG, Block, BlockTransfer
from firmware_io.dlms.session.channel import Channel
from firmware_io.errors import RemoteProtocolError, ResponseTimeout

MAX_SECONDS = 90.0  # one unit or value in blocks: bounds how long it holds the line; 20 kB take as long at 2400 Bd
FEW_BLOCKS, SMALLEST_BLOCK = 32, 8  # so many blocks may be small; on the average they bring more than that


class LongValue:
    """A value in numbered blocks, bounded in octets (`most`), in blocks and in time."""

    def __init__(self, monotonic: Callable[[], float], most: int) -> None:
        self._monotonic, self._most = monotonic, most
        self._last_s = monotonic() + MAX_SECONDS
        self._gathered = bytearray()
        self._count = 0
        self._number: int | None = None  # of the last block

    def add(self, number: int, payload: bytes, *, last: bool) -> bytes | None:
        """The next block: all octets when it is the last. Raises: RemoteProtocolError: another one, or without end."""
        if self._number is not None and number != self._number + 1:
            raise RemoteProtocolError(f"block {number} came, {self._number + 1} was expected")
        if self._number is not None and not payload and not last:
            raise RemoteProtocolError(f"block {number} is empty")
        self._number = number
        self._gathered += payload
        octets = len(self._gathered)
        if octets > self._most:
            raise RemoteProtocolError(f"more than {self._most} octets in blocks")
        if last:
            return bytes(self._gathered)
        self._count += 1
        if self._count >= FEW_BLOCKS + octets // SMALLEST_BLOCK:
            raise RemoteProtocolError(f"{self._count} blocks with {octets} octets in them: it will not end")
        if self._monotonic() > self._last_s:
            raise RemoteProtocolError(f"{octets} octets in blocks after {MAX_SECONDS:.0f} s: too slow")
        return None


class BlockWay:
    """One exchange: one unit goes, one comes; either may be whole."""

    def __init__(self, channel: Channel, window: int, pdu_limit: int) -> None:
        self._channel = channel
        self._window = window
        self._limit = pdu_limit
        self._transfer = BlockTransfer(window)

    def send(self, unit: bytes) -> None:
        """Send a unit, in blocks where the meter takes it no otherwise; the last is sent by `receive`."""
        if len(unit) <= self._limit:
            self._transfer = BlockTransfer(self._window, begun=True)
            self._channel.send(unit)
            return
        size = self._limit - HEAD_OCTETS
        if size < 1:
            raise RemoteProtocolError(f"the meter takes {self._limit} octets at once: no block fits into that")
        self._transfer = BlockTransfer(self._window, stream=False)  # a channel has one unit of ours at a time
        (block,) = self._transfer.load(unit, size)
        self._channel.send(block)

    def receive(self) -> bytes:
        """The meter's next unit, put together where it comes in blocks. Raises: MeterError."""
        last_s = self._channel.monotonic() + MAX_SECONDS
        while True:
            try:
                octets = self._channel.receive()
            except ResponseTimeout:
                if self._channel.in_order:
                    raise  # the link has repeated it, and is gone
                self._answer()
                continue
            if octets[:1] != bytes((TAG,)):
                return octets
            block = Block.decode(octets)
            unit = self._transfer.take(block)
            if unit is not None:
                return unit
            if self._channel.monotonic() > last_s:
                raise RemoteProtocolError(f"a unit in blocks is not whole after {MAX_SECONDS:.0f} s")
            if not block.streaming:
                self._answer()

    def _answer(self) -> None:
        (block,) = self._transfer.answer()
        self._channel.send(block)
