"""The files of a case inside its page: a SHA-256 manifest of them, and the manifest's Ed25519 signature.

Who gets the page can take the files out with a browser. What the page shows besides them is sealed because it follows
from them: `agent.offline.case.verify` renders it again. It knows nothing of what the figures mean.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape, unescape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.keys.signing import key_id

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

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: one number that stands for all files, and for the page made of them."""
        return hashlib.sha256(self.manifest.encode()).hexdigest()


def seal(files: dict[str, bytes], key: Ed25519PrivateKey | None) -> Sealed:
    """List the hashes of `files`, and sign the list where there is a key."""
    manifest = "".join(f"{hashlib.sha256(octets).hexdigest()}  {name}\n" for name, octets in files.items())
    if key is None:
        return Sealed(files, manifest)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    return Sealed(files, manifest, public, key.sign(manifest.encode()).hex())


def as_html(sealed: Sealed, say: Callable[..., str]) -> str:
    """The files as links that a browser saves, the manifest and the signature; `say` gives a text in a language."""
    links = "".join(_link(name, octets, say) for name, octets in sealed.files.items())
    whole = escape(say("Digest of this manifest, which stands for the whole page:"))
    parts = [
        f"<ul>{links}</ul><p>{escape(say('SHA-256 manifest:'))}</p>",
        f'<pre id="manifest">{escape(sealed.manifest)}</pre>',
        f"<p>{whole} <code>{sealed.digest}</code></p>",
    ]
    if sealed.signature is None or sealed.public_key is None:
        parts.append(
            f"<p><strong>{escape(say('This page is not signed: no key was given when it was made.'))}</strong></p>"
        )
    else:
        parts.append(
            f"<p>{escape(say('Signed by this key:'))} <code>{id_of_hex(sealed.public_key)}</code>. "
            f"{escape(say('Ed25519 public key and signature of the manifest (hexadecimal):'))}</p>"
            f'<pre id="signature">{sealed.public_key} {sealed.signature}</pre>'
        )
    return "".join(parts)


def _link(name: str, octets: bytes, say: Callable[..., str]) -> str:
    kind = "text/csv" if name.endswith(".csv") else "application/json"
    label = escape(say("save {name}", name=name), quote=True)
    return (
        f"<li>{escape(name)} ({escape(say('{count:,} octets', count=len(octets)))}) "
        f'<a class="raw" download="{escape(name, quote=True)}" href="data:{kind};base64,'
        f'{base64.b64encode(octets).decode()}" aria-label="{label}">{escape(say("save"))}</a></li>'
    )


def open_page(page: str) -> Sealed | None:
    """What is sealed inside a page; None if it is no evidence page."""
    manifest = _MANIFEST.search(page)
    if manifest is None:
        return None
    files = {}
    for name, octets in _FILE.findall(page):
        try:
            files[name] = base64.b64decode(octets, validate=True)
        except binascii.Error:
            files[name] = b""
    signature = _SIGNATURE.search(page)
    public, octets = signature.groups() if signature else (None, None)
    return Sealed(files, unescape(manifest.group(1)), public, octets)


def faults(sealed: Sealed, trusted_key: Ed25519PublicKey | str | None = None) -> list[str]:
    """What is wrong with files, manifest and signature: empty when they fit each other.

    `trusted_key` is the signer's public key or its id; without it a signature says only that nothing was changed by
    someone who has not that key, and an unsigned page only that nothing was changed by accident.
    """
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in sealed.manifest.splitlines())}
    found = [
        f"{name}: {'not in the manifest' if name in sealed.files else 'listed, but missing'}"
        for name in sorted(sealed.files.keys() ^ listed.keys())
    ]
    found += [
        f"{name}: its SHA-256 is not that of the manifest; the figures were changed"
        for name in sorted(sealed.files.keys() & listed.keys())
        if hashlib.sha256(sealed.files[name]).hexdigest() != listed[name]
    ]
    if sealed.public_key is None or sealed.signature is None:
        return found if trusted_key is None else [*found, "the page is not signed"]
    if isinstance(trusted_key, str):
        same, wanted = trusted_key == id_of_hex(sealed.public_key), trusted_key
    elif trusted_key is not None:
        same = trusted_key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex() == sealed.public_key
        wanted = key_id(trusted_key)
    else:
        same, wanted = True, ""
    if not same:
        found.append(f"signed by another key: {id_of_hex(sealed.public_key)}, expected {wanted}")
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(sealed.public_key))
        public.verify(bytes.fromhex(sealed.signature), sealed.manifest.encode())
    except (InvalidSignature, ValueError):
        found.append("the signature is not that of the manifest")
    return found


def id_of_hex(public_hex: str) -> str:
    """The id of the key with these 64 hexadecimal digits, as `checkmeter keys` shows it."""
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:16]
