"""The codec against the octets of the standard (OASIS MQTT Version 5.0), in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.utility.mqtt import packets
from agent.utility.mqtt.packets import Connack, MqttError, Parser, Pingresp, Puback, Publish, Refused, Suback

CONNACK = bytes.fromhex("20 09 01 00 06 21 000a 13 003c".replace(" ", ""))
PUBLISH = bytes.fromhex("32 0a 0003 612f62 1234 00 7b7d".replace(" ", ""))  # topic a/b, id 0x1234, {}


class TestSection153to155:
    """Data representation."""

    @pytest.mark.parametrize(
        ("value", "octets"),
        [(0, "00"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (268_435_455, "ffffff7f")],
    )
    def test_variable_byte_integers_of_table_1_1(self, value: int, octets: str) -> None:
        assert packets.varint(value) == bytes.fromhex(octets)

    def test_a_length_of_five_octets_is_malformed(self) -> None:
        with pytest.raises(MqttError, match="four octets"):
            Parser().feed(bytes.fromhex("30ffffffff7f"))

    def test_what_is_longer_than_we_allowed_is_refused_before_it_is_buffered(self) -> None:
        with pytest.raises(MqttError, match="more than"):
            Parser().feed(b"\x30" + packets.varint(packets.MAX_PACKET + 1))


class TestSection31Connect:
    def test_the_whole_packet(self) -> None:
        packet = packets.connect(
            "c", keepalive_s=60, session_expiry_s=3600, receive_maximum=2000, username="u", password=b"p",
            will=packets.Will("t", b"w", retain=True, delay_s=30),
        )  # fmt: skip
        expected = (
            "10 2d 0004 4d515454 05 ec 003c"  # flags: user, password, will retained at QoS 1; no clean start
            "0d 11 00000e10 21 07d0 27 00100000"
            "0001 63"
            "05 18 0000001e 0001 74 0001 77"
            "0001 75 0001 70"
        )
        assert packet == bytes.fromhex(expected.replace(" ", ""))

    def test_clean_start_is_its_flag_alone(self) -> None:
        assert packets.connect("c", keepalive_s=1, clean_start=True)[9] == 0x02


class TestSection32Connack:
    def test_session_receive_maximum_and_keep_alive(self) -> None:
        assert Parser().feed(CONNACK) == [Connack(True, 10, 60)]

    def test_without_properties_the_defaults_hold(self) -> None:
        assert Parser().feed(bytes.fromhex("2003000000")) == [Connack(False, 65535, None)]

    def test_a_refusal_says_why(self) -> None:
        reason = b"\x1f\x00\x04nope"
        body = b"\x00\x87" + bytes([len(reason)]) + reason
        with pytest.raises(Refused, match=r"not authorised .*nope"):
            Parser().feed(b"\x20" + bytes([len(body)]) + body)

    def test_a_broker_without_shared_subscriptions_is_refused(self) -> None:
        with pytest.raises(Refused, match="shared"):
            Parser().feed(bytes.fromhex("20050000022a00"))


class TestSection33Publish:
    def test_qos_1(self) -> None:
        assert Parser().feed(PUBLISH) == [Publish(b"a/b", 0x1234, b"{}", False, b"")]

    def test_qos_0_has_no_id(self) -> None:
        assert Parser().feed(bytes.fromhex("3108000361 2f62 00 7b7d".replace(" ", ""))) == [
            Publish(b"a/b", 0, b"{}", True, b"")
        ]

    def test_properties_are_kept_and_read_on_demand(self) -> None:
        packet = packets.publish(
            "a/b", b"{}", packet_id=1, expiry_s=604_800, content_type="application/json",
            user_properties=[("schema", "checkmeter.balance.v1"), ("note", "é")],
        )  # fmt: skip
        (message,) = Parser().feed(packet)
        assert isinstance(message, Publish)
        assert message.payload == b"{}"
        assert packets.user_property(message.properties, "schema") == "checkmeter.balance.v1"
        assert packets.user_property(message.properties, "note") == "é"
        assert packets.user_property(message.properties, "absent") is None

    def test_more_than_127_octets_of_properties(self) -> None:
        (message,) = Parser().feed(packets.publish("t", b"x", packet_id=1, user_properties=[("k", "v" * 300)]))
        assert isinstance(message, Publish)
        assert packets.user_property(message.properties, "k") == "v" * 300

    @pytest.mark.parametrize(
        "octets",
        ["3600", "340a0003612f621234007b7d", "320a0003612f620000007b7d", "32020009", "32080003612f62123409"],
        ids=["qos 3", "qos 2", "packet id 0", "topic past the end", "properties past the end"],
    )
    def test_what_breaks_the_rules_is_no_message(self, octets: str) -> None:
        with pytest.raises(MqttError):
            Parser().feed(bytes.fromhex(octets))


class TestSections34to314:
    def test_puback_with_and_without_reason(self) -> None:
        assert Parser().feed(bytes.fromhex("40021234 4003123410".replace(" ", ""))) == [
            Puback(0x1234, 0),
            Puback(0x1234, packets.NO_MATCHING_SUBSCRIBERS),
        ]

    def test_our_pubacks_are_in_the_order_of_arrival_and_none_for_qos_0(self) -> None:
        assert packets.pubacks([2, 0, 1]) == bytes.fromhex("4002000240020001")

    def test_subscribe_and_its_answer(self) -> None:
        packet = packets.subscribe(1, [packets.Subscription("a"), packets.Subscription("b", send_retained=1)])
        assert packet == bytes.fromhex("820b 0001 00 0001 61 01 0001 62 11".replace(" ", ""))
        assert Parser().feed(bytes.fromhex("900500010001 87".replace(" ", ""))) == [Suback(1, b"\x01\x87")]

    def test_unsubscribe_and_its_answer(self) -> None:
        assert packets.unsubscribe(2, ["a", "b"]) == bytes.fromhex("a209 0002 00 0001 61 0001 62".replace(" ", ""))
        assert Parser().feed(bytes.fromhex("b00500020000 11".replace(" ", ""))) == [Suback(2, b"\x00\x11")]

    def test_disconnect_that_ends_the_session(self) -> None:
        """Section 3.14.2.2.2: Session Expiry Interval 0."""
        assert bytes.fromhex("e007 00 05 11 00000000".replace(" ", "")) == packets.DISCONNECT_AND_FORGET

    def test_pingresp(self) -> None:
        assert Parser().feed(bytes.fromhex("d000")) == [Pingresp()]

    def test_disconnect_tells_of_a_second_client_with_our_id(self) -> None:
        with pytest.raises(MqttError, match="replica number used twice"):
            Parser().feed(bytes.fromhex("e0018e"))

    def test_a_packet_that_only_servers_get(self) -> None:
        with pytest.raises(MqttError, match="none that a client gets"):
            Parser().feed(bytes.fromhex("c000"))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 60))
def test_events_do_not_depend_on_how_the_octets_are_split(payloads: list[bytes], size: int) -> None:
    stream = CONNACK + b"".join(packets.publish("a/b", p, packet_id=n) for n, p in enumerate(payloads, 1)) + b"\xd0\x00"
    whole = Parser().feed(stream)
    parser = Parser()
    pieces = [event for at in range(0, len(stream), size) for event in parser.feed(stream[at : at + size])]
    assert pieces == whole
    assert [event.payload for event in whole if isinstance(event, Publish)] == payloads


@given(st.binary(max_size=200))
def test_any_octets_give_events_or_an_mqtt_error(octets: bytes) -> None:
    parser = Parser()
    try:
        for at in range(0, len(octets), 7):
            parser.feed(octets[at : at + 7])
    except MqttError:
        pass


class TestSection221MalformedProperties:
    """Found by a fuzzer: properties that end inside a subscription identifier were walked for ever."""

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("properties", ["0b", "0b80", "0bffffff", "26000161", "2600", "ff", "0b8001 0b", "01"])
    def test_a_publish_whose_properties_end_early(self, properties: str) -> None:
        octets = bytes.fromhex(properties.replace(" ", ""))
        body = b"\0\3a/b\x12\x34" + packets.varint(len(octets)) + octets + b"{}"
        (event,) = Parser().feed(b"\x32" + packets.varint(len(body)) + body)
        assert isinstance(event, Publish)
        assert packets.user_property(event.properties, "schema") is None

    @pytest.mark.timeout(5)
    @pytest.mark.parametrize("packet", ["9003000180", "9002 0001", "2003 0000 80", "e003 00 02 80", "2003000001"])
    def test_other_packets_whose_properties_end_early(self, packet: str) -> None:
        with pytest.raises(MqttError):
            Parser().feed(bytes.fromhex(packet.replace(" ", "")))
