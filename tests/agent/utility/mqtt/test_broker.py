"""TLS with client certificates, and passwords, against a real Mosquitto."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from agent.process.clock import SystemClock
from agent.utility.mqtt import packets
from agent.utility.mqtt.connection import Broker, Connection

pytestmark = pytest.mark.mosquitto


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._write("ca", self._sign("test authority", self._key, authority=True), self._key)[0]

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for `name` on this machine, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, self._sign(name, key, authority=False), key)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return paths


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(mosquitto: Any, authority: Authority) -> Iterator[Any]:
    """The broker again, with TLS and client certificates."""
    certificate, key = authority.issue("server")
    mosquitto.stop()
    mosquitto.configure(
        f"cafile {authority.certificate}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
        "use_identity_as_username true\n"
    )
    mosquitto.start()
    return mosquitto


def round_trip(broker: Broker) -> bytes:
    """Send a large message to ourselves."""
    connection = Connection(broker, SystemClock(), "client", clean_start=True)
    try:
        connection.subscribe([packets.Subscription("a/b")])
        connection.send(packets.publish("a/b", b"x" * 200_000, packet_id=1))
        while True:
            for event in connection.receive(10.0):
                if isinstance(event, packets.Publish):
                    return event.payload
    finally:
        connection.close()


def test_tls_with_a_client_certificate(secured: Any, authority: Authority) -> None:
    certificate, key = authority.issue("client")
    url = f"mqtts://127.0.0.1:{secured.port}"
    assert len(round_trip(Broker(url, ca=authority.certificate, certificate=certificate, key=key))) == 200_000


def test_a_broker_of_another_authority_is_not_trusted(secured: Any) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        round_trip(Broker(f"mqtts://127.0.0.1:{secured.port}"))


def test_without_our_certificate_the_broker_hangs_up(secured: Any, authority: Authority) -> None:
    with pytest.raises((OSError, packets.MqttError)):
        round_trip(Broker(f"mqtts://127.0.0.1:{secured.port}", ca=authority.certificate))


def test_user_and_password(mosquitto: Any, tmp_path: Path) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "ingest", "s3cret"], check=True, timeout=20)
    mosquitto.stop()
    mosquitto.configure(f"allow_anonymous false\npassword_file {passwords}\n", anonymous=False)
    mosquitto.start()
    url = f"mqtt://ingest@127.0.0.1:{mosquitto.port}"
    secret.write_text("s3cret\n")
    assert round_trip(Broker(url, secret))
    secret.write_text("wrong\n")
    with pytest.raises(packets.Refused, match=r"not authorised|bad user name"):
        round_trip(Broker(url, secret))


@pytest.mark.parametrize("url", ["http://x", "mqtt://", "mqtt://u:password@host", "mqtt://host/path", "host:1883"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="a broker is mqtt://"):
        Broker(url)
