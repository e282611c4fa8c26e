"""General block transfer (IEC 62056-5-3, 9.4.6.13): any APDU in numbered blocks, a window of them at a time.

Sans IO, and the same in both directions: `load` cuts an APDU of ours, `take` joins the other side's, `answer` says what
is due. A block has a number of its own and acknowledges all blocks of the other side up to another number;
who finds a gap acknowledges what is in front of it, and the rest is sent again. The window in a block is how many its
sender can take at once. The APDU inside is a ciphered one where the association is ciphered.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_io.dlms.apdu.axdr import counted
from firmware_io.dlms.apdu.reader import Reader
from firmware_io.errors import RemoteProtocolError

TAG = 0xE0
LAST, STREAMING, WINDOW = 0x80, 0x40, 0x3F
HEAD_OCTETS = 6 + 3
MAX_APDU = 1 << 20  # bounds what the other side can make us keep
MAX_RESENT = 3  # answers that bring nothing new, before the transfer is given up
MAX_NUMBER = 0xFFFF


class Block(NamedTuple):
    """general-block-transfer: flags and window, number, acknowledged number, octets."""

    last: bool
    streaming: bool  # more of this window follow, no answer is due
    window: int
    number: int
    acknowledged: int
    payload: bytes

    def encode(self) -> bytes:
        control = LAST * self.last | STREAMING * self.streaming | self.window
        head = bytes((TAG, control)) + self.number.to_bytes(2, "big") + self.acknowledged.to_bytes(2, "big")
        return head + counted(self.payload)

    @classmethod
    def decode(cls, octets: bytes) -> Block:
        """Raises: RemoteProtocolError: malformed."""
        r = Reader(octets)
        if r.octet("general-block-transfer") != TAG:
            raise RemoteProtocolError(f"APDU {octets[:1].hex()}: expected a block")
        control = r.octet("block control")
        block = cls(
            bool(control & LAST),
            bool(control & STREAMING),
            control & WINDOW,
            r.number(2, "block number"),
            r.number(2, "acknowledged block number"),
            r.counted("block"),
        )
        r.finish()
        return block


class BlockTransfer:
    """One side of one exchange. `window` is ours: how many blocks we take at once.

    `begun` says that this side has sent the exchange's first APDU whole: it counts as its block 1. A side that does not
    `stream` sends one block at a time, whatever the other could take.
    """

    def __init__(self, window: int, *, begun: bool = False, stream: bool = True) -> None:
        self._window = window
        self._stream = stream
        self._peer_window = 1
        self._number = 2 if begun else 1  # of our next block that is not acknowledged
        self._sent = self._number - 1  # of the last block that we have sent
        self._expected = 1  # of the other side's blocks
        self._gathered = bytearray()
        self._cut: list[bytes] = []
        self._first = 1  # number of the first of `_cut`
        self._moved = True  # since our last answer
        self._stuck = 0  # answers in a row without anything new between them

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send, and nothing half received."""
        return not self._cut and not self._gathered

    def load(self, apdu: bytes, size: int) -> list[bytes]:
        """Have an APDU cut into blocks of at most `size` octets: those to send now."""
        self._cut = [apdu[at : at + size] for at in range(0, len(apdu), size)]
        self._first = self._number
        return self._due()

    def take(self, block: Block) -> bytes | None:
        """A block from the other side: the APDU when it is whole.

        Raises:
            RemoteProtocolError: it acknowledges what was never sent, or never ends.
        """
        self._peer_window = block.window or 1
        if self._cut:
            self._acknowledged(block.acknowledged)
        if not block.payload and not (block.last and self._gathered):
            if not self._gathered:
                self._expected = block.number + 1  # an acknowledgement has a number as well
            return None
        if block.number != self._expected:
            return None  # behind a gap, or again
        self._expected += 1
        self._gathered += block.payload
        self._moved = True
        if len(self._gathered) > MAX_APDU or self._expected > MAX_NUMBER:
            raise RemoteProtocolError(f"more than {len(self._gathered)} octets in blocks: it will not end")
        if not block.last:
            return None
        apdu = bytes(self._gathered)
        self._gathered.clear()
        return apdu

    def answer(self) -> list[bytes]:
        """What is due when the turn is ours, or nothing came: our next blocks, or what we have of the other side's.

        Raises:
            RemoteProtocolError: nothing has moved for several answers.
        """
        self._stuck = 0 if self._moved else self._stuck + 1
        self._moved = False
        if self._stuck > MAX_RESENT:
            raise RemoteProtocolError("blocks are lost again and again: the transfer is given up")
        if self._cut:
            return self._due()
        if self._number > MAX_NUMBER:
            raise RemoteProtocolError(f"more than {MAX_NUMBER} blocks: it will not end")
        self._sent = self._number
        self._number += 1
        return [Block(True, False, self._window, self._sent, self._expected - 1, b"").encode()]

    def _due(self) -> list[bytes]:
        """The blocks of the next window, from the first that is not acknowledged on."""
        done = self._number - self._first
        window = self._cut[done : done + (self._peer_window if self._stream else 1)]
        blocks = []
        for n, payload in enumerate(window):
            number = self._number + n
            last = number - self._first == len(self._cut) - 1
            streaming = n < len(window) - 1
            blocks.append(Block(last, streaming, self._window, number, self._expected - 1, payload).encode())
        self._sent = max(self._sent, self._number + len(window) - 1)
        return blocks

    def _acknowledged(self, number: int) -> None:
        if not self._number - 1 <= number <= self._sent:
            raise RemoteProtocolError(f"block {number} is acknowledged; {self._sent} is the last that was sent")
        self._moved |= number >= self._number
        self._number = number + 1
        if self._number == self._first + len(self._cut):
            self._cut = []
