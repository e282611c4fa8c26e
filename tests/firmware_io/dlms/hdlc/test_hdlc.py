"""Frames of IEC 62056-46: literal octets from elsewhere, and the failures that the framer must survive."""

from __future__ import annotations

import pytest

from firmware_io.dlms.hdlc.framer import Address, Frame, Framer, encode_frame, fcs16
from firmware_io.errors import LocalProtocolError, RemoteProtocolError

# The check value that catalogues of CRCs give for CRC-16/X-25 over "123456789" (reveng's catalogue, ITU-T V.41).
CHECK = 0x906E

# gurux-dlms 1.0.203, client 16 to server 1/17: snrmRequest(), and an LLS aarqRequest()[0] with password 12345678.
GURUX_SNRM = bytes.fromhex("7ea00802232193bd647e")
GURUX_AARQ = bytes.fromhex(
    "7ea04502232110786fe6e6006036a1090607608574050801018a0207808b0760857405080201ac0a80083132333435363738"
    "be10040e01000000065f1f0400401e5dffff8b3c7e"
)
FRAME = Frame(b"\x21", b"\x02\x23", 0x30, b"\xe6\xe7\x00\xc4\x01\xc1\x00\x06\x00\x12\xd6\x87")
OCTETS = encode_frame(FRAME)


def frame_ending_in(octet: int) -> bytes:
    """A frame whose last check octet is this one."""
    for number in range(1 << 16):
        octets = encode_frame(FRAME._replace(information=number.to_bytes(3, "big")))
        if octets[-2] == octet:
            return octets
    raise AssertionError("65536 check sequences, and none ends like that")


def test_check_value_of_the_catalogue() -> None:
    assert fcs16(b"123456789") == CHECK


def test_frames_of_another_implementation() -> None:
    [snrm, aarq] = Framer().receive(GURUX_SNRM + GURUX_AARQ)
    assert snrm == Frame(Address.server(1, 17).encode(), Address.client(16).encode(), 0x93)
    assert (aarq.control, aarq.information[:4], len(aarq.information)) == (0x10, b"\xe6\xe6\x00\x60", 59)
    assert encode_frame(snrm) == GURUX_SNRM
    assert encode_frame(aarq) == GURUX_AARQ


class TestAddresses:
    """IEC 62056-46 6.4.2: one octet, one and one, two and two; the lowest bit marks the end."""

    @pytest.mark.parametrize(
        ("address", "octets"),
        [
            (Address.client(16), "21"),
            (Address.server(1, 17, 1), "23"),
            (Address.server(1, 17), "0223"),
            (Address.server(1, 127), "02ff"),
            (Address.server(1, 128), "00020201"),
            (Address.server(1, 17, 4), "00020023"),
            (Address.server(16383, 16383), "fefefeff"),
        ],
    )
    def test_on_the_wire(self, address: Address, octets: str) -> None:
        assert address.encode().hex() == octets
        assert Address.decode(bytes.fromhex(octets)) == address

    @pytest.mark.parametrize("bad", [(1, 16384, 0), (1, 128, 2), (1, 128, 1), (-1, 1, 2), (1, 1, 3)])
    def test_that_do_not_fit_are_our_bug(self, bad: tuple[int, int, int]) -> None:
        with pytest.raises(LocalProtocolError, match="does not fit"):
            Address.server(*bad)

    @pytest.mark.parametrize("octets", ["", "22", "0323", "020323", "0202020203"])
    def test_malformed(self, octets: str) -> None:
        with pytest.raises(RemoteProtocolError, match="is not an HDLC address"):
            Address.decode(bytes.fromhex(octets))


class TestFramer:
    def test_one_octet_at_a_time(self) -> None:
        framer = Framer()
        pieces = [framer.receive(OCTETS[i : i + 1]) for i in range(len(OCTETS))]
        assert pieces == [[]] * (len(OCTETS) - 1) + [[FRAME]]

    def test_flags_inside_and_at_the_end(self) -> None:
        inside = FRAME._replace(information=b"\x7e\xa0\x07\x7e\x7e")
        last = frame_ending_in(0x7E)
        found = Framer().receive(encode_frame(inside) + last + OCTETS)
        assert [found[0], found[2]] == [inside, FRAME]
        assert len(found) == 3

    def test_a_shared_flag_and_many_flags(self) -> None:
        assert Framer().receive(OCTETS[:-1] + OCTETS) == [FRAME, FRAME]
        assert Framer().receive(OCTETS + b"\x7e" * 9 + OCTETS) == [FRAME, FRAME]

    def test_a_torn_frame_in_front_of_a_good_one(self) -> None:
        for cut in range(1, len(OCTETS)):
            framer = Framer()
            found = framer.receive(OCTETS[:cut] + OCTETS) + framer.idle()
            assert found[-1:] == [FRAME]

    def test_a_bad_check_sequence_costs_one_frame_only(self) -> None:
        for at in range(1, len(OCTETS) - 1):
            spoiled = OCTETS[:at] + bytes((OCTETS[at] ^ 0x20,)) + OCTETS[at + 1 :]
            framer = Framer()
            assert framer.receive(spoiled + OCTETS) + framer.idle() == [FRAME]

    def test_corrupt_is_told_from_rubbish(self) -> None:
        framer = Framer()
        framer.receive(OCTETS[:-3] + b"\x00" + OCTETS[-2:])
        assert framer.corrupt == 1
        framer = Framer()
        framer.receive(b"\x00\xff\x55" + OCTETS)
        assert (framer.corrupt, framer.skipped) == (0, 3)

    def test_a_closing_flag_that_noise_has_changed(self) -> None:
        assert Framer().receive(OCTETS[:-1] + b"\x5e") == [FRAME]

    def test_a_closing_flag_that_never_comes(self) -> None:
        framer = Framer()
        assert framer.receive(OCTETS[:-1]) == []
        assert framer.pending
        assert framer.idle() == [FRAME]
        assert not framer.pending

    def test_what_silence_cuts_off_is_corrupt(self) -> None:
        framer = Framer()
        framer.receive(OCTETS[:-4])
        assert framer.idle() == []
        assert framer.corrupt == 1
        assert framer.receive(OCTETS) == [FRAME]

    def test_noise_for_ever_is_not_kept(self) -> None:
        framer = Framer()
        for _ in range(1000):
            framer.receive(b"\x7e\xa7\xff\x03\x21" * 20)
            assert len(framer) < 2060
        promising = encode_frame(FRAME._replace(information=bytes(2000)))[:12]  # its header is right
        for _ in range(1000):
            framer.receive(promising + bytes(300))
            assert len(framer) < 2060
        framer.idle()  # what was promised does not come
        assert framer.receive(OCTETS) == [FRAME]

    def test_a_frame_longer_than_agreed_is_none(self) -> None:
        assert Framer(max_length=len(OCTETS) - 3).receive(OCTETS) == []
