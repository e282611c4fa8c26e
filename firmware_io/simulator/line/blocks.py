"""General block transfer from the meter's end: units in, units out, around a `Server` that knows only whole ones."""

from __future__ import annotations

from firmware_io.dlms.apdu.blocks import TAG, Block, BlockTransfer
from firmware_io.errors import RemoteProtocolError
from firmware_io.simulator.line.server import Server


class Blocks:
    """One association's blocks; a unit that is whole begins a new exchange."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._transfer: BlockTransfer | None = None
        self._window = 1  # of the client, as it last said

    def answer(self, unit: bytes) -> list[bytes]:
        """The units that answer one of the client's."""
        if unit[:1] != bytes((TAG,)) or not self.server.block_octets:
            self._transfer = None
            return self._out(self.server.handle(unit), blocked=False)
        try:
            block = Block.decode(unit)
            self._window = block.window
            if self._transfer is None or (block.payload and block.number == 1):
                self._transfer = BlockTransfer(self.server.meter.identity.gbt_window)
            request = self._transfer.take(block)
            if request is not None:
                return self._out(self.server.handle(request), blocked=True)
            return [] if block.streaming or self._transfer.idle else self._lost(self._transfer.answer())
        except RemoteProtocolError:
            self._transfer = None
            return []

    def _out(self, reply: bytes, *, blocked: bool) -> list[bytes]:
        size = self.server.block_octets
        if not size or (len(reply) <= size and not blocked):
            return [reply]
        if self._transfer is None:
            self._transfer = BlockTransfer(self.server.meter.identity.gbt_window)
            self._transfer.take(Block(False, False, self._window, 1, 0, b""))
        return self._lost(self._transfer.load(reply, size))

    def _lost(self, blocks: list[bytes]) -> list[bytes]:
        meter = self.server.meter
        return [block for block in blocks if meter.faults.strikes("lost_block", meter.now()) is None]
