"""ECDSA, ECDH and key derivation against the Green Book (DLMS UA 1000-2), and what they refuse."""

from __future__ import annotations

import base64

import pytest

from firmware_io.dlms.protection.elliptic import PrivateKey, PublicKey, derive, unwrap, wrap
from firmware_io.errors import LocalProtocolError, SecurityError

# Green Book, table C.2 (one-pass Diffie-Hellman, suite 1).
EPHEMERAL = b"47DAB03842E5B6E74828EF4F449B378D7DD1A5DAE1FFCA5AE0B0BE0AD18EC57E"
STATIC = b"AE55414FFE079F9FC95649536BD1C2B5653D200813727E07D501A8B550C69207"
SHARED = "0D4385BA0DD756CBCAB9887EB538396EE8F090A14C1079B4359F115B977F4615"
CLIENT, SERVER = bytes.fromhex("4D4D4D0000BC614E"), bytes.fromhex("4D4D4D0000000001")


def test_the_key_that_a_shared_secret_makes() -> None:
    assert derive(1, bytes.fromhex(SHARED), CLIENT, SERVER).hex().upper() == "59A71FD81C929A86A99438DA17A66C05"


def test_both_sides_agree() -> None:
    ephemeral, static = PrivateKey.load(EPHEMERAL), PrivateKey.load(STATIC)
    assert ephemeral.agree(static.public) == static.agree(PublicKey.of_point(ephemeral.public.point))
    with pytest.raises(SecurityError, match="between suites"):
        ephemeral.agree(PrivateKey.generate(2).public)


def test_the_way_back_of_the_green_book() -> None:
    shared = bytes.fromhex("2B4302DC49790E2E78D990CFB52ED6E2F273DECE441A2D95E4301B93812A9FAC")
    assert derive(1, shared, SERVER, CLIENT).hex().upper() == "F0184BDA9466BFA4601A64A7EF46504A"


@pytest.mark.parametrize("suite", [1, 2])
def test_signatures_are_of_one_key_over_one_message(suite: int) -> None:
    ours, other = PrivateKey.generate(suite), PrivateKey.generate(suite)
    signature = ours.sign(b"message")
    assert len(signature) == (64, 96)[suite - 1]
    ours.public.verify(signature, b"message")
    for key, octets, message in (
        (other.public, signature, b"message"),
        (ours.public, signature, b"massage"),
        (ours.public, signature[:-1], b"message"),
        (ours.public, bytes(len(signature)), b"message"),
        (PrivateKey.generate(3 - suite).public, signature, b"message"),
    ):
        with pytest.raises(SecurityError):
            key.verify(octets, message)


def test_keys_in_every_form_that_a_maker_gives() -> None:
    from cryptography.hazmat.primitives import serialization as s

    private = PrivateKey.load(STATIC)
    pem = private._key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    sec1 = private._key.private_bytes(s.Encoding.PEM, s.PrivateFormat.TraditionalOpenSSL, s.NoEncryption())
    point = private.public.point
    public = private.public.key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    assert {PrivateKey.load(form).public.point for form in (pem, sec1, STATIC.lower())} == {point}
    assert {PublicKey.load(form).point for form in (public, point.hex().encode(), b"04" + point.hex().encode())} == {
        point
    }
    for rubbish in (b"", b"zz", b"00" * 31, b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", b"00" * 32):
        with pytest.raises(LocalProtocolError):
            PrivateKey.load(rubbish)
        with pytest.raises(LocalProtocolError):
            PublicKey.load(rubbish)
    with pytest.raises(SecurityError, match="no point"):
        PublicKey.of_point(bytes(64))


def test_a_key_on_a_curve_that_nobody_has_is_refused_as_any_other() -> None:
    from cryptography.hazmat.primitives import serialization as s

    private = PrivateKey.load(STATIC)
    p256, prime239 = bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030104")
    for load, octets, what in (
        (
            PublicKey.load,
            private.public.key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo),
            "PUBLIC",
        ),
        (
            PrivateKey.load,
            private._key.private_bytes(s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption()),
            "PRIVATE",
        ),
    ):
        text = base64.encodebytes(octets.replace(p256, prime239)).decode()
        with pytest.raises(LocalProtocolError, match="P-256 or P-384"):
            load(f"-----BEGIN {what} KEY-----\n{text}-----END {what} KEY-----\n".encode())


def test_a_certificate_brings_its_key() -> None:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    private = PrivateKey.load(STATIC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERVER.hex().upper())])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public.key, 1, now, now + datetime.timedelta(days=3650))
        .sign(private._key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    assert PublicKey.load(certificate).point == private.public.point


def test_a_wrapped_key_of_rfc_3394_and_its_forgeries() -> None:
    # RFC 3394, 4.1.
    master = bytes.fromhex("000102030405060708090A0B0C0D0E0F")
    key = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    wrapped = wrap(master, key)
    assert wrapped.hex().upper() == "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"
    assert unwrap(master, wrapped) == key
    for spoiled in (wrapped[:-1] + b"\x00", wrapped[:-8], b"", b"x" * 23):
        with pytest.raises(SecurityError):
            unwrap(master, spoiled)
