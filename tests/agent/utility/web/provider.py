"""A small OpenID Connect provider on loopback, strict where the standards are: a process of its own, for tests.

`python provider.py CLIENT SECRET REDIRECT_URI` prints its issuer. Whoever is at /authorize signs in as `login_hint`
says: in a test that is what a browser was told beforehand with /next. Faults are told with /next, too.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey


class Provider(ThreadingHTTPServer):
    """What it knows: its client, its keys, who signs in next, and codes that wait to be redeemed."""

    daemon_threads = True

    def __init__(self, client: str, secret: str, redirect_uri: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.client, self.secret, self.redirect_uri = client, secret, redirect_uri
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})]
        self.stranger = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.next: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.ends = False  # whether it advertises where its sessions end
        self.signed_out = 0

    def id_token(self, asked: dict[str, str], access: str) -> str:
        """The token of a sign-in, with the fault that was told."""
        now_s, fault = int(time.time()), self.next.get("fault", "")
        half = hashlib.sha256(access.encode()).digest()[:16]
        claims: dict[str, Any] = {
            "iss": self.issuer, "aud": self.client, "sub": "subject-1", "iat": now_s, "exp": now_s + 300,
            "nonce": asked["nonce"], "at_hash": base64.urlsafe_b64encode(half).rstrip(b"=").decode(),
            **self.next.get("claims", {}),
        }  # fmt: skip
        wrong: dict[str, dict[str, Any]] = {
            "nonce": {"nonce": "another"}, "audience": {"aud": "somebody-else"}, "issuer": {"iss": "http://127.0.0.1:1"},
            "expired": {"iat": now_s - 900, "exp": now_s - 600}, "at_hash": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
            "party": {"aud": [self.client, "x"], "azp": "x"},
        }  # fmt: skip
        claims |= wrong.get(fault, {})
        if fault == "no nonce":
            del claims["nonce"]
        if fault == "unsigned":
            parts = [{"alg": "none"}, claims]
            return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."
        if fault == "secret":
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(self.secret), algorithms=["HS256"])
        key = self.stranger if fault == "stranger" else self.keys[-1]
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])


class Handler(BaseHTTPRequestHandler):
    """Its addresses."""

    server: Provider

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        provider, url = self.server, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/.well-known/openid-configuration":
                self.json(
                    {
                        "issuer": provider.issuer, "authorization_endpoint": provider.issuer + "/authorize",
                        "token_endpoint": provider.issuer + "/token", "jwks_uri": provider.issuer + "/keys",
                        "userinfo_endpoint": provider.issuer + "/userinfo", "response_types_supported": ["code"],
                        **({"end_session_endpoint": provider.issuer + "/end"} if provider.ends else {}),
                        "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
                    }
                )  # fmt: skip
            case "/keys":
                self.json({"keys": [key.as_dict(private=False) for key in provider.keys]})
            case "/end":
                self.end(query)
            case "/drip/.well-known/openid-configuration":
                self.drip(query)
            case "/huge/.well-known/openid-configuration":
                self.json({"issuer": provider.issuer + "/huge", "x": "x" * (3 << 20)})
            case "/authorize":
                self.authorize(query)
            case "/userinfo":
                token = self.headers.get("authorization", "").removeprefix("Bearer ")
                known = provider.tokens.get(token)
                self.json(known if known is not None else {"error": "invalid_token"}, 200 if known is not None else 401)
            case _:
                self.json({}, 404)

    def end(self, query: dict[str, str]) -> None:
        """RP-Initiated Logout 1.0: whoever brings an ID token of ours is signed out, and sent back."""
        provider = self.server
        registered = provider.redirect_uri.replace("/login/back", "/signed-out")
        try:
            jwt.decode(query.get("id_token_hint", ""), provider.keys[-1], algorithms=["RS256", "ES256"])
        except (JoseError, ValueError):
            self.json({"error": "no ID token of ours"}, 400)
            return
        if query.get("client_id") != provider.client or query.get("post_logout_redirect_uri") != registered:
            self.json({"error": "unknown client or post_logout_redirect_uri"}, 400)
            return
        provider.signed_out += 1
        self.send_response(302)
        self.send_header("location", f"{registered}?{urlencode({'state': query.get('state', '')})}")
        self.end_headers()

    def drip(self, query: dict[str, str]) -> None:
        """An octet now and then, for ever: of the headers, or of a body without a length."""
        text = b"HTTP/1.0 200 OK\r\nX-Long: " if "body" not in self.server.next else b"HTTP/1.0 200 OK\r\n\r\n{"
        with contextlib.suppress(OSError):
            self.wfile.write(text)
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.05)

    def authorize(self, query: dict[str, str]) -> None:
        provider = self.server
        told = query.get("redirect_uri") == provider.redirect_uri and query.get("client_id") == provider.client
        if not told:
            self.json({"error": "unknown client or redirect_uri"}, 400)
            return
        back: dict[str, str] = {"state": query.get("state", ""), "iss": provider.issuer}
        whole = query.get("response_type") == "code" and "openid" in query.get("scope", "").split()
        if provider.next.get("fault") == "denied":
            back["error"] = "access_denied"
        elif not whole or query.get("code_challenge_method") != "S256" or not query.get("nonce"):
            back["error"] = "invalid_request"
        else:
            back["code"] = secrets.token_urlsafe(24)
            provider.codes[back["code"]] = query
        if provider.next.get("fault") == "mixed up":
            back["iss"] = "https://other.example"
        self.send_response(302)
        self.send_header("location", f"{provider.redirect_uri}?{urlencode(back)}")
        self.end_headers()

    def do_POST(self) -> None:
        provider = self.server
        body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
        if self.path == "/next":
            provider.next = json.loads(body)
            provider.ends = provider.next.get("ends", False)
            if provider.next.get("fault") == "new keys":
                provider.keys.append(ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig"}))
                del provider.keys[0]
            self.json({"signed_out": provider.signed_out})
            return
        form = {name: values[0] for name, values in parse_qs(body).items()}
        basic = base64.b64encode(f"{provider.client}:{provider.secret}".encode()).decode()
        if not hmac.compare_digest(self.headers.get("authorization", ""), f"Basic {basic}"):
            self.json({"error": "invalid_client"}, 401)
            return
        asked = provider.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            self.json({"error": "invalid_grant"}, 400)
            return
        access = secrets.token_urlsafe(24)
        provider.tokens[access] = {"sub": "subject-1"} | provider.next.get("userinfo", {})
        answer: dict[str, Any] = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        if provider.next.get("fault") != "no token":
            answer["id_token"] = provider.id_token(asked, access)
        self.json(answer)

    def json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = Provider(*sys.argv[1:4])
    print(server.issuer, flush=True)
    server.serve_forever()
