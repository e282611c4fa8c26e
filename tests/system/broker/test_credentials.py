"""TLS, client certificates and passwords: what is wrong sends nothing, and once it is right everything arrives."""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

pytestmark = pytest.mark.mosquitto
Check = Callable[..., None]


class Certificates:
    """A CA and what it signs, in PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authorities: dict[str, tuple[ec.EllipticCurvePrivateKey, x509.Name]] = {}

    def authority(self, name: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(subject, subject, key, 365).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.authorities[name] = (key, subject)
        return self._write(name, certificate.sign(key, hashes.SHA256()), key)[0]

    def issue(self, authority: str, name: str, days: float = 30.0) -> tuple[Path, Path]:
        """Certificate and key; a negative number of days is one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer, issuer = self.authorities[authority]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        certificate = self._builder(subject, issuer, key, days).add_extension(names, critical=False)
        return self._write(f"{name}-{days}", certificate.sign(signer, hashes.SHA256()), key)

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> tuple[Path, Path]:
        pem, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pem, secret


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def tls(stage: Any, certificates: Certificates, server_days: float = 30.0) -> tuple[Any, Path, str]:
    ca = certificates.authority("ca")
    certificate, key = certificates.issue("ca", "localhost", server_days)
    extra = (
        f"cafile {ca}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\nuse_identity_as_username true\n"
        f"allow_anonymous false\n"
    )
    return stage.broker(extra), ca, extra


def backend_tls(certificates: Certificates, ca: Path) -> dict[str, Any]:
    certificate, key = certificates.issue("ca", "backend")
    return {"tls_set": (str(ca), str(certificate), str(key)), "tls_insecure_set": (True,)}


def test_tls_with_a_client_certificate_and_alpn(
    stage: Any, certificates: Certificates, everything_arrived: Check
) -> None:
    broker, ca, _ = tls(stage, certificates)
    listener = stage.listener(broker.port, **backend_tls(certificates, ca))
    certificate, key = certificates.issue("ca", "gw-0012")
    gateway = stage.gateway(
        broker.port,
        url=f"mqtts://localhost:{broker.port}",
        ca=str(ca),
        certificate=str(certificate),
        key=str(key),
        alpn=["mqtt"],
    )
    gateway.alerts(50)
    everything_arrived(gateway, listener)


@pytest.mark.parametrize("fault", ["server expired", "wrong CA", "client expired", "wrong host"])
def test_a_certificate_that_is_wrong_sends_nothing_and_once_right_everything(
    stage: Any,
    certificates: Certificates,
    wait: Check,
    everything_arrived: Check,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, ca, extra = tls(stage, certificates, -1.0 if fault == "server expired" else 30.0)
    certificates.authority("other-ca")
    certificate, key = certificates.issue("ca", "gw-0012")
    theirs = stage.folder / "gateway-ca.pem"
    theirs.write_bytes((stage.folder / "other-ca.pem").read_bytes() if fault == "wrong CA" else ca.read_bytes())
    mine = stage.folder / "mine.pem"
    mine.write_bytes(certificate.read_bytes())
    my_key = stage.folder / "mine.key"
    my_key.write_bytes(key.read_bytes())
    if fault == "client expired":
        old, old_key = certificates.issue("ca", "gw-0012", -1.0)
        mine.write_bytes(old.read_bytes())
        my_key.write_bytes(old_key.read_bytes())
    host = "127.0.0.1" if fault == "wrong host" else "localhost"
    gateway = stage.gateway(
        broker.port, url=f"mqtts://{host}:{broker.port}", ca=str(theirs), certificate=str(mine), key=str(my_key)
    )
    gateway.alerts(3)
    wait(lambda: sum("broker mqtts" in r.message for r in caplog.records) >= 2, what="trying again")
    assert not gateway.publisher.connected
    assert gateway.store.counters.messages == 3
    if fault in ("server expired", "wrong CA", "wrong host"):
        assert any("its certificate is not accepted" in r.message for r in caplog.records)
    if fault == "wrong host":
        return
    # Renewed on disk, without a restart of the gateway.
    theirs.write_bytes(ca.read_bytes())
    mine.write_bytes(certificate.read_bytes())
    my_key.write_bytes(key.read_bytes())
    if fault == "server expired":
        good, good_key = certificates.issue("ca", "localhost", 31.0)
        broker.stop()
        broker.extra = extra.replace(extra.split("certfile ")[1].split("\n")[0], str(good)).replace(
            extra.split("keyfile ")[1].split("\n")[0], str(good_key)
        )
        broker.start()
    listener = stage.listener(broker.port, **backend_tls(certificates, ca))
    everything_arrived(gateway, listener)


def test_user_and_password_from_a_file(stage: Any, wait: Check, everything_arrived: Check) -> None:
    users = stage.folder / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "gw-0012", "right"], check=True, capture_output=True)
    subprocess.run(["mosquitto_passwd", "-b", users, "backend", "b"], check=True, capture_output=True)
    broker = stage.broker(f"password_file {users}\nallow_anonymous false\n")
    listener = stage.listener(broker.port, username_pw_set=("backend", "b"))
    secret = stage.folder / "password"
    gateway = stage.gateway(broker.port, username="gw-0012", password=str(secret))  # not there yet
    gateway.alerts(3)
    time.sleep(0.2)
    secret.write_text("wrong\n")
    time.sleep(0.4)
    assert not listener.events
    secret.write_text("right\n")
    everything_arrived(gateway, listener)
