"""Every form of security between our client and the simulated meter; gurux's client is a peer of most of them."""

from __future__ import annotations

import pytest

from firmware_io import obis
from firmware_io.dlms.protection.elliptic import PrivateKey
from firmware_io.errors import AccessDenied, RemoteProtocolError, SecurityError

FLAT = "flat-1"
HASHED = ["hls-aes", "hls-md5", "hls-sha1", "hls-sha256"]
CIPHERED = ["gmac-authenticated", "gmac-encrypted", "gmac-256", "gmac-suite1", "ecdsa-1", "ecdsa-2"]
WRONG_KEY = {"encryption_key": bytes(16)}


def poll(bench):
    return {p.meter: p for p in bench.bus.poll_cycle()}[FLAT]


@pytest.mark.parametrize(
    ("kind", "ciphering"),
    [
        *[(kind, "global") for kind in (*HASHED, "ecdsa-plain")],
        *[(k, c) for k in CIPHERED for c in ("global", "dedicated", "general")],
    ],
)
def test_it_is_read(kind, ciphering, make_bench, secured):
    bench = make_bench(meter=secured(kind) | {"ciphering": ciphering})
    for _ in range(2):
        answer = poll(bench)
        assert answer.error is None
        assert obis.ENERGY_IMPORT in {r.obis for r in answer.readings}
    assert bench.drivers[FLAT].associations == 1


@pytest.mark.parametrize("kind", HASHED)
def test_another_secret_is_refused_and_left_alone(kind, make_bench, secured):
    bench = make_bench(meter=secured(kind), client={"password": b"guess"})
    assert isinstance(poll(bench).error, AccessDenied)
    assert FLAT not in {p.meter for p in bench.bus.poll_cycle()}


@pytest.mark.parametrize("kind", CIPHERED)
def test_another_key_is_no_way_in(kind, make_bench, secured):
    key = bytes(len(secured(kind)["encryption_key"]))
    bench = make_bench(meter=secured(kind), client={"encryption_key": key[:-1] + b"\x99"})
    assert isinstance(poll(bench).error, AccessDenied | RemoteProtocolError)


@pytest.mark.parametrize("kind", ["gmac-authenticated", "gmac-encrypted"])
def test_a_weaker_policy_is_taken_only_where_it_is_configured(kind, make_bench, secured):
    bench = make_bench(meter=secured(kind), client={"policy": "both"})
    assert poll(bench).error is not None
    bench = make_bench(meter=secured("hls-gmac"), client={"policy": secured(kind)["policy"]})
    assert poll(bench).error is not None


@pytest.mark.parametrize("kind", ["ecdsa-1", "ecdsa-2", "ecdsa-plain"])
def test_a_meter_or_a_client_with_another_signing_key_is_refused(kind, make_bench, secured):
    plan = secured(kind)
    stranger = PrivateKey.generate(2 if kind == "ecdsa-2" else 1).public.point.hex().encode()
    bench = make_bench(meter=plan, client={"meter_signing_key": stranger})
    assert isinstance(poll(bench).error, SecurityError)
    other = b"22" * (48 if kind == "ecdsa-2" else 32)
    bench = make_bench(meter=plan, client={"signing_key": other})
    assert isinstance(poll(bench).error, AccessDenied)
    assert FLAT not in {p.meter for p in bench.bus.poll_cycle()}


def test_another_suite_with_the_same_keys_is_no_way_in(make_bench, secured):
    bench = make_bench(meter=secured("gmac-suite1"), client={"suite": 0})
    assert poll(bench).error is not None
