"""A simulated M-Bus meter on a shared line: link layer, selection, and telegrams of what its meter shows.

Meters of water and heat have a toy behind them: a volume and a heat in proportion to the energy that the building
knows of the flat.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from firmware_io.asking.exchange import Framer
from firmware_io.mbus import frame as wire
from firmware_io.mbus import registers
from firmware_io.mbus.frame import Frame, SecondaryAddress
from firmware_io.simulator.line.shared import Modem
from firmware_io.simulator.line.station import Piece
from firmware_io.simulator.meter.meter import MANUFACTURER, SimulatedMeter

M3_AN_WH = 0.4e-4  # a flat that uses 2 MWh a year uses 80 m³ of water
HEAT_A_WH = 3.0


class MbusStation:
    """See `shared.Listener`. With `telegrams` over 1 the records come one by one; with a key they are ciphered."""

    def __init__(
        self,
        meter: SimulatedMeter,
        address: int,
        *,
        digits: str | None = None,
        medium: int = registers.ELECTRICITY,
        key: bytes | None = None,
        telegrams: int = 1,
        parity: bool = True,
    ) -> None:
        self.meter = meter
        self.address = address
        self._digits = digits
        self.medium = medium
        self._key = key
        self._telegrams = telegrams
        self._framer: Framer[Frame] = Framer(wire.parse, 2 * wire.LONGEST)
        self._modem = Modem(meter.faults, meter.now, parity=parity)
        self._selected = False
        self._fcb: int | None = None  # of the latest request
        self._place = 0
        self._access = 0
        self._sent = b""

    def secondary(self) -> SecondaryAddress:
        """Its secondary address; another one after a replacement."""
        serial = self.meter.serial_number()
        digits = self._digits or f"{int(''.join(c for c in serial if c.isdigit())) % 10**8:08d}"
        return SecondaryAddress(digits, MANUFACTURER, 1, self.medium)

    def hear(self, octets: bytes, *, torn: bool) -> bytes:
        if torn:
            self._framer.idle()
        reply = b""
        for frame in self._framer.receive(octets):
            if frame.control & wire.DIRECTION and frame.control != wire.ACK:
                reply = self._answer(frame) or reply
        return reply

    def modem(self, answer: bytes, question_end_s: float) -> list[Piece]:
        body = SecondaryAddress("66666666", "LIE", 1, self.medium).encode() + bytes((1, 0, 0, 0))
        lie = Frame(wire.RSP_UD, self.address ^ 1, wire.RESPONSE_VARIABLE, body + bytes.fromhex("0c0366666666"))
        return self._modem.pieces(answer, lie.encode(), question_end_s)

    def _answer(self, frame: Frame) -> bytes:
        if frame.ci == wire.SELECT and frame.address == wire.SELECTED:
            self._selected = self._matches(frame.data)
            self._fcb = None
            return Frame(wire.ACK).encode() if self._selected else b""
        if frame.control == wire.SND_NKE:
            ours = frame.address in (self.address, wire.BROADCAST_ANSWERED)
            if frame.address == wire.SELECTED:
                ours, self._selected = self._selected, False
            if ours or frame.address == wire.BROADCAST:
                self._fcb = None
            return Frame(wire.ACK).encode() if ours else b""
        if frame.control & ~wire.FCB != wire.REQ_UD2:
            return b""
        if frame.address not in (self.address, wire.BROADCAST_ANSWERED) and not (
            frame.address == wire.SELECTED and self._selected
        ):
            return b""
        fcb = frame.control & wire.FCB
        if fcb != self._fcb:
            self._place = 0 if self._fcb is None else (self._place + 1) % self._telegrams
            self._fcb = fcb
            self._access = (self._access + 1) & 0xFF
            self._sent = self._telegram().encode()
        return self._sent  # the same request brings the same telegram

    def _matches(self, selection: bytes) -> bool:
        own = self.secondary()
        if len(selection) != 8:
            return False
        digits = selection[3::-1].hex().upper()
        rest = zip(selection[4:], own.encode()[4:], strict=True)
        return all(w in ("F", d) for w, d in zip(digits, own.digits, strict=True)) and all(
            w in (0xFF, o) for w, o in rest
        )

    def _telegram(self) -> Frame:
        every = self._records()
        share = -(-len(every) // self._telegrams)
        body = b"".join(every[self._place * share : (self._place + 1) * share])
        if self._place < self._telegrams - 1:
            body += b"\x1f"
        who = self.secondary().encode()
        word = bytes(2)
        if self._key is not None:
            body = b"\x2f\x2f" + body
            body += b"\x2f" * (-len(body) % 16)
            vector = who[4:6] + who[:4] + who[6:8] + bytes((self._access,)) * 8
            encryptor = Cipher(algorithms.AES(self._key), modes.CBC(vector)).encryptor()
            body = encryptor.update(body) + encryptor.finalize()
            word = (0x0500 | len(body) // 16 << 4).to_bytes(2, "little")
        return Frame(wire.RSP_UD, self.address, wire.RESPONSE_VARIABLE, who + bytes((self._access, 0)) + word + body)

    def _records(self) -> list[bytes]:
        imported, exported = self.meter.energy_wh(self.meter.now())
        if self.medium == registers.ELECTRICITY:
            live = self.meter.live()
            found = [b"\x07\x03" + int(imported).to_bytes(8, "little")]
            if self.meter.identity.exports:
                found.append(b"\x07\x83\x3c" + int(exported).to_bytes(8, "little"))
            found.append(b"\x04\x2a" + round(live.power_w * 10).to_bytes(4, "little", signed=True))
            found += [b"\x02\xfd\x48" + round(volt * 10).to_bytes(2, "little") for volt in live.voltages_v]
            found += [b"\x04\xfd\x59" + round(a * 1000).to_bytes(4, "little") for a in live.currents_a]
            return found
        if self.medium in registers.HEAT:
            heat_wh, volume_l = int(imported * HEAT_A_WH), int(imported * M3_AN_WH * 1000)
            temperatures = b"\x02\x5a" + (605).to_bytes(2, "little") + b"\x02\x5e" + (421).to_bytes(2, "little")
            return [b"\x0c\x05" + _bcd(heat_wh // 100, 4), b"\x0c\x13" + _bcd(volume_l, 4), temperatures]
        return [b"\x0c\x13" + _bcd(int(imported * M3_AN_WH * 1000), 4), b"\x42\x6c\xff\xff"]


def _bcd(number: int, octets: int) -> bytes:
    return bytes.fromhex(f"{number % 10 ** (2 * octets):0{2 * octets}d}")[::-1]
