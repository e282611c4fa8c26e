"""Ciphering of suite 0 and invocation counters: the standard's example, what must be refused, kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from firmware_io.dlms.protection.elliptic import PrivateKey
from firmware_io.dlms.protection.general import AGREED, STATIC, Ciphered, Header, Keyring, content_key
from firmware_io.dlms.protection.security import BROADCAST_KEY, COUNTER_MAX, Ciphering
from firmware_io.dlms.session.counters import CounterUnknown, FileCounters, MemoryCounters, counter_id
from firmware_io.errors import LocalProtocolError, RemoteProtocolError, SecurityError

# Green Book (DLMS UA 1000-2), example of ciphering with suite 0: keys, title, counter, request, result.
EK = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
AK = bytes.fromhex("d0d1d2d3d4d5d6d7d8d9dadbdcdddedf")
TITLE = bytes.fromhex("4d4d4d0000bc614e")
COUNTER = 0x01234567
PLAIN = bytes.fromhex("c0010000080000010000ff0200")
SEALED = bytes.fromhex("c81e3001234567411312ff935a47566827c467bc7d825c3be4a77c3fcc056b6b")
METER = b"CHM\x00\x00\x00\x00\x02"


def ours(counter: int = COUNTER, **changes: object) -> Ciphering:
    counters = iter(range(counter, counter + 1000))
    return Ciphering(EK, AK, TITLE, counters.__next__, METER, **changes)


def meters() -> Ciphering:
    return Ciphering(EK, AK, METER, iter(range(1, 1000)).__next__, TITLE)


def test_the_standards_example() -> None:
    assert ours().protect(PLAIN) == SEALED
    assert meters().open(SEALED) == PLAIN


@pytest.mark.parametrize("form", ["global", "dedicated", "general"])
def test_every_form_is_opened_by_the_other_side(form: str) -> None:
    client, meter = ours(form=form), meters()
    meter.form = client.form
    for side in (client, meter):
        side.use_dedicated_key(b"sixteen octets!!")
    for _ in range(3):
        assert meter.open(client.protect(PLAIN)) == PLAIN
        assert client.open(meter.protect(b"\xc4\x01\xc1\x00\x11\x05")) == b"\xc4\x01\xc1\x00\x11\x05"


def test_no_octet_may_change() -> None:
    sealed = meters().protect(b"\xc4\x01\xc1\x00\x06\x00\x12\xd6\x87")
    for at in range(len(sealed)):
        for bit in (0x01, 0x80):
            spoiled = sealed[:at] + bytes((sealed[at] ^ bit,)) + sealed[at + 1 :]
            with pytest.raises(RemoteProtocolError):
                ours().open(spoiled)


@pytest.mark.parametrize("cut", range(32))
def test_no_octet_may_be_missing(cut: int) -> None:
    with pytest.raises(RemoteProtocolError):
        meters().open(SEALED[:cut])


def test_a_replay_is_refused_and_an_older_unit_too() -> None:
    client, meter = ours(), meters()
    first, second = (meter.protect(b"\xc4\x01\xc1\x00\x11\x05") for _ in range(2))
    client.open(second)
    for old in (second, first):
        with pytest.raises(SecurityError, match="a replay"):
            client.open(old)


def keyed(**changes: object) -> Ciphering:
    """The client, to whom the meter may speak in general-ciphering as well."""
    return ours(keys=Keyring(0, TITLE, AK, EK, broadcast=EK[::-1]), **changes)


def in_general_ciphering(content: bytes, key_id: int = 0, title: bytes = METER) -> bytes:
    """What stands in another envelope, in that one: the envelope is not authenticated."""
    return b"\xdd\x00" + bytes((len(title),)) + title + bytes((0, 0, 0, 1, 0, key_id, len(content))) + content


def test_what_came_in_one_envelope_is_a_replay_in_any_other() -> None:
    meter = meters()
    first, second = (meter.protect(b"\xc4\x01\xc1\x00\x11\x05") for _ in range(2))
    for sent, again in ((second, first), (second, second)):
        client = keyed()
        client.open(sent)
        with pytest.raises(SecurityError, match="replay"):
            client.open(in_general_ciphering(again[2:]))
    client = keyed()
    client.open(in_general_ciphering(second[2:]))
    for again in (first, second):
        with pytest.raises(SecurityError, match="replay"):
            client.open(again)


def test_a_broadcast_is_taken_in_one_envelope_only() -> None:
    meter = Ciphering(EK[::-1], AK, METER, iter(range(1, 9)).__next__, TITLE)
    sealed = meter.protect(b"\x0f\x00", "general", flags=BROADCAST_KEY)
    general = in_general_ciphering(sealed[11:], key_id=1)
    for one, other in ((sealed, general), (general, sealed)):
        client = keyed()
        assert client.open(one) == b"\x0f\x00"
        with pytest.raises(SecurityError, match="replay"):
            client.open(other)
        assert client.peer_counter == -1  # others have that key too: it says nothing of ours


@pytest.mark.parametrize("title", [b"", b"\x01", bytes(9), bytes(127)])
def test_a_title_of_another_length_is_refused_wherever_it_comes(title: bytes) -> None:
    content = meters().protect(PLAIN)[2:]
    broadcast = bytes((0x70,)) + content[1:]
    head = bytes((0xDB, len(title))) + title
    for octets in (
        in_general_ciphering(content, title=title),
        in_general_ciphering(broadcast, key_id=1, title=title),
        head + bytes((len(content),)) + content,
        head + bytes((len(broadcast),)) + broadcast,
    ):
        client = keyed()
        client.peer_title = title
        with pytest.raises(SecurityError):
            client.open(octets)
    client = keyed()
    client.peer_title = title
    with pytest.raises(SecurityError):
        client.verify(bytes((0x10,)) + bytes(16), b"challenge")


def test_suite_0_has_no_key_agreement_whatever_comes() -> None:
    agreement = PrivateKey.generate(1)
    ring = Keyring(0, TITLE, AK, EK, agreement=agreement, peer_agreement=agreement.public)
    with pytest.raises(SecurityError, match="no key here"):
        content_key(ring, Ciphered(Header(b"", METER, TITLE, b"", b""), (AGREED, STATIC, b""), 0x30, 1, b""))


def test_a_plain_unit_is_refused() -> None:
    with pytest.raises(SecurityError, match="plain APDU"):
        ours().open(b"\xc4\x01\xc1\x00\x11\x05")


@pytest.mark.parametrize("control", [0x00, 0x10, 0x20, 0x70, 0xB0, 0x31])
def test_anything_weaker_or_other_than_both_is_refused(control: int) -> None:
    sealed = bytearray(meters().protect(b"\xc4\x01\xc1\x00\x11\x05"))
    sealed[2] = control
    with pytest.raises(SecurityError, match="security control"):
        ours().open(bytes(sealed))


def test_another_systems_title_is_refused() -> None:
    meter = Ciphering(EK, AK, b"CHM\x00\x00\x00\x00\x09", iter(range(1, 9)).__next__, TITLE, "general")
    with pytest.raises(SecurityError, match="system title"):
        ours().open(meter.protect(b"\xc4\x01\xc1\x00\x11\x05"))
    meter.form = "global"  # the title is not sent, and the tag says it
    with pytest.raises(SecurityError, match="wrong authentication tag"):
        ours().open(meter.protect(b"\xc4\x01\xc1\x00\x11\x05"))


def test_a_proof_holds_for_its_challenge_only_and_sets_the_counter() -> None:
    client, meter = ours(), meters()
    proof = meter.prove(b"fresh challenge")
    with pytest.raises(SecurityError, match="does not have our keys"):
        client.verify(proof, b"another challenge")
    client.verify(proof, b"fresh challenge")
    assert client.peer_counter == 1
    with pytest.raises(SecurityError, match="no answer"):
        client.verify(proof[:-1], b"fresh challenge")


def test_counters_used_up_are_not_wrapped() -> None:
    client = ours(COUNTER_MAX)
    client.protect(PLAIN)
    with pytest.raises(SecurityError, match="new key"):
        client.protect(PLAIN)


def test_keys_of_another_length_are_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        Ciphering(EK[:8], AK, TITLE, lambda: 1)
    with pytest.raises(LocalProtocolError):
        Ciphering(EK, AK, TITLE[:4], lambda: 1)


class TestCounters:
    def test_they_go_on_after_a_restart(self, tmp_path: Path) -> None:
        seen = []
        for _ in range(3):
            counters = FileCounters(tmp_path / "counters.json", block=4, first=lambda: 1)
            seen += [counters.next("a") for _ in range(6)]
        assert seen == sorted(set(seen))
        assert seen[0] == 1

    def test_a_lost_file_does_not_begin_where_somebody_began_before(self, tmp_path: Path) -> None:
        path, now = tmp_path / "counters.json", [1_000_000]
        counters = FileCounters(path, first=lambda: now[0])
        used = {counters.next("a") for _ in range(5000)}
        path.unlink()
        now[0] += 6000  # seconds later
        assert FileCounters(path, first=lambda: now[0]).next("a") not in used
        assert FileCounters(tmp_path / "new.json").next("a") > 200_000_000

    def test_keys_have_counters_of_their_own(self, tmp_path: Path) -> None:
        counters = FileCounters(tmp_path / "counters.json", first=lambda: 1)
        assert [counters.next("a"), counters.next("b"), counters.next("a")] == [1, 1, 2]
        assert counter_id(EK, TITLE) != counter_id(EK, METER) != counter_id(AK, METER)

    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_advance_never_goes_back(self, tmp_path: Path, kind: str) -> None:
        counters = (
            FileCounters(tmp_path / "counters.json", block=4, first=lambda: 1) if kind == "file" else MemoryCounters()
        )
        counters.advance("a", 100)
        assert counters.next("a") == 100
        counters.advance("a", 50)
        assert counters.next("a") == 101
        counters.advance("a", 5000)
        assert counters.next("a") == 5000

    def test_two_processes_never_share_one(self, tmp_path: Path) -> None:
        one, two = (FileCounters(tmp_path / "counters.json", block=3) for _ in range(2))
        seen = [side.next("a") for _ in range(10) for side in (one, two)]
        assert len(set(seen)) == len(seen)

    def test_threads_never_share_one(self, tmp_path: Path) -> None:
        counters = FileCounters(tmp_path / "counters.json", block=5)
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.extend(counters.next("a") for _ in range(50))) for _ in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == sorted(set(seen))
        assert len(seen) == 200

    @pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": -1}', '{"a": "7"}', "\x00" * 40])
    def test_after_a_damaged_file_no_counter_is_used_before_the_meter_has_told_its_own(
        self, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "counters.json"
        path.write_text(text)
        counters = FileCounters(path, block=4)
        assert "is damaged" in caplog.text
        for _ in range(2):  # also after a restart
            with pytest.raises(CounterUnknown):
                counters.next("a")
            counters = FileCounters(path, block=4)
        counters.advance("a", 5001)
        assert [counters.next("a") for _ in range(6)] == list(range(5001, 5007))
        assert FileCounters(path).next("a") > 5006
        with pytest.raises(CounterUnknown):
            FileCounters(path).next("b")

    def test_a_full_disk_hands_out_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "counters.new").mkdir()  # what it would write to
        counters = FileCounters(tmp_path / "counters.json")
        with pytest.raises(LocalProtocolError, match="cannot reserve"):
            counters.next("a")

    def test_they_survive_kill_9(self, tmp_path: Path) -> None:
        """Processes that print each counter as they take it, killed anywhere: no counter comes twice."""
        program = textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from firmware_io.dlms.session.counters import FileCounters
            counters = FileCounters(Path(sys.argv[1]), block=2)
            while True:
                print(counters.next("a"), flush=True)
            """
        )
        seen: list[int] = []
        for lines in (1, 7, 30, 3, 55):
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path / "counters.json")], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            taken = [process.stdout.readline() for _ in range(lines)]
            os.kill(process.pid, signal.SIGKILL)
            taken += process.stdout.read().splitlines()
            process.wait()
            process.stdout.close()
            seen += [int(line) for line in taken if line.strip()]
        assert seen == sorted(set(seen))
        assert len(seen) >= 96
