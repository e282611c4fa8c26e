"""The raw figures of a case as files, their SHA-256 manifest, and its Ed25519 signature, inside the page itself.

Who gets the page can take the files out with a browser, or check everything with `checkmeter report --verify`.
It knows nothing of what the figures mean.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape, unescape

import msgspec
import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.offline.case.case import Case

_FILE = re.compile(r'<a class="raw" download="([^"]+)" href="data:[a-z/]+;base64,([A-Za-z0-9+/=]*)"')
_MANIFEST = re.compile(r'<pre id="manifest">([^<]*)</pre>')
_SIGNATURE = re.compile(r'<pre id="signature">([0-9a-f]{64}) ([0-9a-f]{128})</pre>')


@dataclass(frozen=True, slots=True)
class Sealed:
    """`files` name -> octets; `manifest` one line each: SHA-256, two blanks, name (as sha256sum -c reads it)."""

    files: dict[str, bytes]
    manifest: str
    public_key: str | None = None
    signature: str | None = None


def seal(case: Case, key: Ed25519PrivateKey | None) -> Sealed:
    """Write the raw figures of `case` as files, list their hashes, and sign the list where there is a key."""
    files = {
        "readings.csv": _readings(case),
        "alert.json": b"\n".join(msgspec.json.encode(r) for r in case.revisions) + b"\n",
    }
    if case.info is not None:
        files["info.json"] = msgspec.json.encode(case.info) + b"\n"
    if case.tampers:
        files["tamper.json"] = b"\n".join(msgspec.json.encode(t) for t in case.tampers) + b"\n"
    manifest = "".join(f"{hashlib.sha256(octets).hexdigest()}  {name}\n" for name, octets in files.items())
    if key is None:
        return Sealed(files, manifest)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    return Sealed(files, manifest, public, key.sign(manifest.encode()).hex())


def as_html(sealed: Sealed) -> str:
    """The files as links that a browser saves, the manifest and the signature."""
    links = "".join(
        f'<li><a class="raw" download="{escape(name, quote=True)}" '
        f'href="data:{"text/csv" if name.endswith(".csv") else "application/json"};base64,'
        f'{base64.b64encode(octets).decode()}">{escape(name)}</a> ({len(octets):,} octets)</li>'
        for name, octets in sealed.files.items()
    )
    parts = [f'<ul>{links}</ul><p>SHA-256 manifest:</p><pre id="manifest">{escape(sealed.manifest)}</pre>']
    if sealed.signature is None:
        parts.append("<p>This page is <strong>not signed</strong>: no key was given when it was made.</p>")
    else:
        parts.append(
            "<p>Ed25519 public key and signature of the manifest (hexadecimal):</p>"
            f'<pre id="signature">{sealed.public_key} {sealed.signature}</pre>'
        )
    return "".join(parts)


def verify(page: str, trusted_key: str | None = None) -> list[str]:
    """What is wrong with a page: empty when the files are those of the manifest and the signature is right.

    `trusted_key` is the signer's public key in hexadecimal; without it a signature says only that nothing was
    changed by someone who has not that key, and an unsigned page only that nothing was changed by accident.
    """
    manifest = _MANIFEST.search(page)
    if manifest is None:
        return ["this is no evidence page of checkmeter: it has no manifest"]
    text = unescape(manifest.group(1))
    files = {name: base64.b64decode(octets) for name, octets in _FILE.findall(page)}
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    faults = [
        f"{name}: {'not in the manifest' if name in files else 'listed, but missing'}"
        for name in sorted(files.keys() ^ listed.keys())
    ]
    faults += [
        f"{name}: its SHA-256 is not that of the manifest; the figures were changed"
        for name in sorted(files.keys() & listed.keys())
        if hashlib.sha256(files[name]).hexdigest() != listed[name]
    ]
    signature = _SIGNATURE.search(page)
    if signature is None:
        if trusted_key is not None:
            faults.append("the page is not signed")
        return faults
    public, octets = signature.groups()
    if trusted_key is not None and public != trusted_key.lower():
        faults.append(f"signed by another key: {public}")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(octets), text.encode())
    except InvalidSignature:
        faults.append("the signature is not that of the manifest")
    return faults


def _readings(case: Case) -> bytes:
    """`time,<meter>,...`: start of each interval in UTC, kWh per interval, empty where not read."""
    e = case.energies
    lines = [",".join(["time", e.main, *e.subs])]
    for time_s, main, row in zip(e.times_s.tolist(), e.main_kwh.tolist(), e.subs_kwh.tolist(), strict=True):
        stamp = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(",".join([stamp, *("" if np.isnan(v) else f"{v:.4f}" for v in (main, *row))]))
    return ("\n".join(lines) + "\n").encode()
