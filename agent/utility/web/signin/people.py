"""Who asks, and what they may do.

Three ways in. Nobody says who they are: everyone is a viewer, which is meant for loopback. Or an OpenID Connect
provider signs them in (agent.utility.web.signin.oidc). Or a reverse proxy does (oauth2-proxy, Authelia) and names the
person and the groups in headers: such headers count only from the proxy's own address. This module knows headers and
roles, not pages.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


class Role(enum.IntEnum):
    """What somebody may do; each may also what those before may."""

    VIEWER = 0  # read
    INSPECTOR = 1  # record what was found, and confirm what another recorded
    OPERATOR = 2  # read the audit log


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `name` is empty for somebody who has not signed in."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Proxy:
    """The reverse proxy that signs people in. `roles` maps its groups to ours; a person in none of them is a viewer."""

    addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    user_header: str = "x-forwarded-user"
    groups_header: str = "x-forwarded-groups"
    roles: Mapping[str, Role] = field(default_factory=dict)


class NotSignedIn(Exception):
    """The proxy names nobody, or somebody has come past it."""


ANYBODY = Person("", Role.VIEWER)
# Nor what turns the direction of writing: who did something stands in the audit log, and must read as it is.
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,64}")


def who(proxy: Proxy | None, client: str, headers: Mapping[str, str]) -> Person:
    """The person behind a request from address `client`; header names in lower case.

    Raises:
        NotSignedIn: a proxy is expected, and this is not it or it names nobody.
    """
    if proxy is None:
        return ANYBODY
    if not any(_same(client, address) for address in proxy.addresses):
        raise NotSignedIn(f"{client} is not the proxy that signs people in")
    name = headers.get(proxy.user_header, "").strip()
    if not NAME.fullmatch(name):
        raise NotSignedIn(f"the proxy names nobody in {proxy.user_header}")
    groups = {group.strip() for group in headers.get(proxy.groups_header, "").split(",")}
    return Person(name, max((proxy.roles[g] for g in groups & proxy.roles.keys()), default=Role.VIEWER))


def _same(client: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(client) in ipaddress.ip_network(address)
    except ValueError:
        return client == address
