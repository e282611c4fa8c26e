"""Units over a channel in general blocks, where both sides have agreed on that."""

from __future__ import annotations

from firmware_io.dlms.apdu.blocks import HEAD_OCTETS, TAG, Block, BlockTransfer
from firmware_io.dlms.session.channel import Channel
from firmware_io.errors import RemoteProtocolError, ResponseTimeout

MAX_SECONDS = 90.0  # one unit in blocks: bounds how long it can hold the line


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
        self._transfer = BlockTransfer(self._window, stream=False)  # a channel has one unit of ours at a time
        (block,) = self._transfer.load(unit, self._limit - HEAD_OCTETS)
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
