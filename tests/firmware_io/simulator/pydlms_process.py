"""pydlms-client in a process of its own (GPL: it is never imported where our code runs). JSON in, JSON out.

python pydlms_process.py serve '{...}'   a simulated meter; prints {"port": n}, lives until stdin is closed
python pydlms_process.py ask '{...}'     a client: does `steps` one after the other, prints their results
python pydlms_process.py open '{...}'    opens ciphered or signed APDUs, prints what is in them
python pydlms_process.py make '{...}'    makes one
"""

from __future__ import annotations

import json
import sys
from typing import Any


def _key(text: str | None, suite: int) -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    if text is None:
        return None
    curve = ec.SECP384R1() if suite == 2 else ec.SECP256R1()
    return ec.derive_private_key(int(text, 16), curve)


def _point(text: str | None, suite: int) -> Any:
    from pydlms.security import ec

    return None if text is None else ec.load_public_key(suite, bytes.fromhex(text))


def _context(a: dict[str, Any]) -> Any:
    from pydlms.security.context import SecurityContext

    octets = {
        k: bytes.fromhex(a[k])
        for k in ("encryption_key", "authentication_key", "broadcast_key", "master_key")
        if k in a
    }
    suite = a.get("suite", 0)
    title = a.get("server_title")
    return SecurityContext(
        **octets,
        client_system_title=bytes.fromhex(a["title"]),
        server_system_title=None if title is None else bytes.fromhex(title),
        suite=suite,
        invocation_counter=a.get("counter", 1),
        signing_key=_key(a.get("signing_key"), suite),
        peer_signing_key=_point(a.get("peer_signing_key"), suite),
        key_agreement_key=_key(a.get("agreement_key"), suite),
        peer_key_agreement_key=_point(a.get("peer_agreement_key"), suite),
    )


def serve(a: dict[str, Any]) -> None:
    from pydlms.security.hls import Mechanism
    from pydlms.simulator import ClientProfile, example_meter
    from pydlms.simulator import serve as start

    title = bytes.fromhex(a.get("server_title", "5059440000000001"))
    keys = {k: bytes.fromhex(a[k]) for k in ("encryption_key", "authentication_key") if k in a}
    sim = example_meter(system_title=title)
    if keys:
        sim.encryption_key, sim.authentication_key = keys["encryption_key"], keys["authentication_key"]
        sim.security = _context({**a, "title": title.hex(), "server_title": None, "signing_key": None})
    suite = a.get("suite", 0) or 1
    sim.signing_key = _key(a.get("meter_key"), suite)
    sim.clients[a.get("client", 1)] = ClientProfile(
        Mechanism(a.get("mechanism", 0)),
        None if "secret" not in a else bytes.fromhex(a["secret"]),
        ciphered=bool(keys),
        client_public_key=_point(a.get("client_point"), suite),
    )
    if a.get("gbt"):
        from pydlms.apdu.xdlms import Conformance

        sim.conformance |= Conformance.GENERAL_BLOCK_TRANSFER
        sim.gbt_window = a.get("window", 1)
        sim.drop_gbt_blocks = set(a.get("lose", ()))
    if "max_pdu" in a:
        sim.max_pdu = a["max_pdu"]
    server = start(sim, hdlc=a.get("hdlc", False), hdlc_window=a.get("hdlc_window", 1))
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    sys.stdin.read()
    server.shutdown()


def ask(a: dict[str, Any]) -> None:
    from pydlms.client import AccessGet, DlmsClient

    suite = a.get("suite", 0)
    settings: dict[str, Any] = {"mechanism": a.get("mechanism", 0)}
    if "secret" in a:
        settings["password"] = bytes.fromhex(a["secret"])
    if "encryption_key" in a:
        settings["security"] = _context(a)
    elif "title" in a:
        settings["client_system_title"] = bytes.fromhex(a["title"])
    if "signing_key" in a:
        settings |= {"signing_key": _key(a["signing_key"], suite or 1)}
        settings |= {"server_public_key": _point(a["peer_signing_key"], suite or 1)}
    for name in ("logical_names", "propose_gbt", "propose_access", "gbt_window", "use_dedicated_key", "protection"):
        if name in a:
            settings[name] = a[name]
    make = DlmsClient.udp if a.get("udp") else DlmsClient.tcp
    client = make(
        "127.0.0.1", a["port"], client_sap=a["client"], server_logical=a.get("server", 17), timeout=5, **settings
    )
    results: list[Any] = []
    with client:
        for step in a["steps"]:
            match step:
                case ["get", int(class_id), str(name), int(number)]:
                    results.append(_plain(client.get(name, class_id, number)))
                case ["list", *items]:
                    results.append([_plain(value) for value in client.get_many([(n, c, k) for c, n, k in items])])
                case ["access", *items]:
                    outcomes = client.access([AccessGet(n, c, k) for c, n, k in items])
                    results.append([_plain(outcome.data) if outcome.ok else None for outcome in outcomes])
                case ["transfer", int(key_id), str(key)]:
                    client.transfer_keys({key_id: bytes.fromhex(key)})
                    results.append("transferred")
                case ["agree", int(key_id)]:
                    results.append(client.agree_keys([key_id])[key_id].hex())
                case ["compact", str(name)]:
                    results.append([_plain(cell) for cell in client.read_compact_data(name).cells])
                case _:
                    raise SystemExit(f"unknown step {step}")
    print(json.dumps(results))


def _plain(value: Any) -> Any:
    value = getattr(value, "value", value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (
        value.hex()
        if isinstance(value, bytes | bytearray)
        else value
        if isinstance(value, int | float | str)
        else str(value)
    )


def make(a: dict[str, Any]) -> None:
    from pydlms.security.general import KeyInfo, wrap_general_ciphering, wrap_general_signing

    context, recipient, plain = _context(a), bytes.fromhex(a["recipient"]), bytes.fromhex(a["plain"])
    made = []
    for form in a["forms"]:
        if form == "signed":
            made.append(wrap_general_signing(context, plain, recipient, transaction_id=b"\x01").hex())
            continue
        info = {
            "unicast": KeyInfo("identified", 0),
            "broadcast": KeyInfo("identified", 1),
            "wrapped": KeyInfo("wrapped"),
            "agreed": KeyInfo("agreed", scheme=1),
            "static": KeyInfo("agreed", scheme=2),
        }[form]
        made.append(wrap_general_ciphering(context, plain, recipient, info, transaction_id=b"\x01").hex())
    print(json.dumps(made))


def open_them(a: dict[str, Any]) -> None:
    from pydlms.security import general

    context = _context(a)
    opened = []
    for octets in map(bytes.fromhex, a["apdus"]):
        if octets[0] == 0xDF:
            opened.append(general.verify_general_signing(context, octets)[1].hex())
        else:
            opened.append(_octets(general.unwrap_general_ciphering(context, octets)))
    print(json.dumps(opened))


def _octets(result: Any) -> str:
    for name in ("plaintext", "content", "apdu"):
        result = getattr(result, name, result)
    result = result[0] if isinstance(result, tuple) else result
    return bytes(result).hex()


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "make": make, "open": open_them}[sys.argv[1]](json.loads(sys.argv[2]))
