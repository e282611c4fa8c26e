"""What one table of a site file alone cannot tell: names that must exist, addresses used twice, zones in a circle.

Each rule notes its errors in the source, where they get file and line; nothing is raised here.
"""

from __future__ import annotations

import datetime
import ipaddress
import zoneinfo
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.site.parse import nearest
from agent.site.source import Key, Source

if TYPE_CHECKING:
    from agent.site.tables import Bus, Config, Detection, Meter, Mqtt, Zone


def check(config: Config, source: Source, *, online: bool) -> None:
    """Apply every rule."""
    _unique(source, "bus", [bus.id for bus in config.bus])
    _unique(source, "meter", [meter.id for meter in config.meter])
    _unique(source, "zone", [zone.id for zone in config.zone])
    try:
        zoneinfo.ZoneInfo(config.site.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as "Europe"
        source.error(
            ("site", "timezone"), f'timezone = "{config.site.timezone}": expected a name such as "Europe/Berlin"'
        )
    for n, day in enumerate(config.forecast.holidays):
        try:
            datetime.date.fromisoformat(day if len(day) == 10 else f"2024-{day}")
        except ValueError:
            source.error(
                ("forecast", "holidays", n), f'"{day}" is no day: expected 2026-04-06, or 12-25 for every year'
            )
    if config.meter == [] and source.given(("meter",)):
        source.error((), "no meter: add a [[meter]] table for the main meter and for each sub-meter")
    if config.zone == [] and source.given(("zone",)):
        source.error((), "no zone: add a [[zone]] table that names the main meter and its subs")
    _buses(config.bus, source)
    _meters(config, source, online=online or bool(config.bus))
    _interval(config.detection, source)
    _zones(config, source)
    if config.mqtt is not None:
        _broker(config.mqtt, source)
    if online and not source.given(("bus",)):
        source.error((), "no bus: add a [[bus]] table with an id and a port")


def _unique(source: Source, table: str, ids: list[str]) -> None:
    first: dict[str, int] = {}
    for n, name in enumerate(ids):
        if name and name in first:
            file, line = source.place((table, first[name], "id"))
            source.error((table, n, "id"), f'id "{name}" is already used at {file}:{line}; give each its own')
        first.setdefault(name, n)


def _buses(buses: Iterable[Bus], source: Source) -> None:
    ports: dict[str, str] = {}
    for n, bus in enumerate(buses):
        here: Key = ("bus", n, "port")
        if not bus.port:
            continue
        if bus.port.startswith("tcp://"):
            if not _host_and_port(bus.port):
                source.error(here, f'port = "{bus.port}": expected tcp://host:port')
        elif bus.port.startswith("udp://"):
            if not _host_and_port(bus.port, "udp"):
                source.error(here, f'port = "{bus.port}": expected udp://host:port')
            if bus.protocol != "dlms" or bus.framing != "wrapper":
                source.error(here, 'udp:// is for DLMS meters with framing = "wrapper" alone: give tcp://, or framing')
        elif not bus.port.startswith("/"):
            source.error(here, f'port = "{bus.port}": expected a device such as /dev/ttyUSB0, or tcp://host:port')
        elif bus.framing == "wrapper" and bus.protocol == "dlms":
            source.error(
                ("bus", n, "framing"),
                'framing = "wrapper" needs a TCP link: give port = "tcp://host:port", or use framing = "hdlc"',
            )
        if bus.opening is not None and (bus.protocol != "dlms" or bus.framing == "wrapper"):
            source.error(
                ("bus", n, "opening"), f'opening = "{bus.opening}" is for DLMS over HDLC at an optical head: remove it'
            )
        if bus.listen is not None:
            _listens(bus, ("bus", n, "listen"), source)
        fitting = {"dlms": ("hdlc", "wrapper"), "modbus": ("rtu", "tcp")}.get(bus.protocol, ())
        if bus.framing is not None and bus.framing not in fitting:
            known = f"expected {' or '.join(fitting)}" if fitting else "leave it out"
            source.error(
                ("bus", n, "framing"), f'framing = "{bus.framing}" is none of protocol = "{bus.protocol}": {known}'
            )
        elif bus.framing == "tcp" and not bus.port.startswith("tcp://"):
            source.error(("bus", n, "framing"), 'framing = "tcp" needs a TCP link: give port = "tcp://host:port"')
        if bus.port in ports:
            source.error(here, f'port = "{bus.port}" is already that of bus {ports[bus.port]}; one bus, one port')
        ports.setdefault(bus.port, bus.id)


def _listens(bus: Bus, here: Key, source: Source) -> None:
    """Where a bus takes pushes."""
    if bus.protocol != "dlms":
        source.error(here, f'listen is for DLMS meters, and this bus has protocol = "{bus.protocol}": remove the key')
    listen = bus.listen or ""
    if not (_host_and_port(listen) or _host_and_port(listen, "udp")):
        source.error(
            here, f'listen = "{bus.listen}": expected tcp://address:port or udp://address:port of this gateway'
        )


def _meters(config: Config, source: Source, *, online: bool) -> None:
    buses = {bus.id for bus in config.bus}
    spoken = {bus.id: bus.protocol for bus in config.bus}
    framings = {bus.id: bus.framing for bus in config.bus}
    taken: dict[tuple[str, str, int, str], str] = {}
    for n, meter in enumerate(config.meter):
        if meter.bus is not None and meter.bus not in buses:
            known = nearest(meter.bus, buses) or "; there is no [[bus]] at all: add one"
            source.error(("meter", n, "bus"), f'bus = "{meter.bus}": there is no [[bus]] with this id{known}')
        for key, value in (("bus", meter.bus), ("address", meter.address)):
            if online and value is None and not source.given(("meter", n, key)):
                source.error(("meter", n), f'key "{key}" is missing: without it the meter cannot be read')
        if meter.bus is not None and meter.address is not None:
            protocol = meter.protocol or spoken.get(meter.bus, "dlms")
            place = (meter.bus, protocol, meter.logical_address, str(meter.address))
            if place in taken:
                source.error(
                    ("meter", n, "address"),
                    f"address = {meter.address} on bus {meter.bus} is already that of meter {taken[place]}; "
                    "each meter of a bus needs its own",
                )
            taken.setdefault(place, meter.id)
        if meter.client > HDLC_CLIENTS and meter.bus in framings and framings[meter.bus] != "wrapper":
            source.error(
                ("meter", n, "client"),
                f"client = {meter.client}: over HDLC a client's address is at most {HDLC_CLIENTS}",
            )
        if meter.accuracy_class not in CLASSES:
            source.error(
                ("meter", n, "accuracy_class"),
                f"accuracy_class = {meter.accuracy_class:g}: no meter has it; expected the one on its face plate: "
                f"{', '.join(f'{c:g}' for c in CLASSES)} (A is 2, B is 1, C is 0.5)",
            )
        protocol = meter.protocol or spoken.get(meter.bus or "", "dlms")
        if meter.bus in spoken and protocol != spoken[meter.bus]:
            mixed = {protocol, spoken[meter.bus]} == {"dlms", "dlt645"} and framings[meter.bus] != "wrapper"
            if not mixed:
                source.error(
                    ("meter", n, "protocol"),
                    f'protocol = "{protocol}" cannot share a line with protocol = "{spoken[meter.bus]}" of bus '
                    f"{meter.bus}: only DLMS over HDLC and DL/T 645 can; give it a bus of its own",
                )
        _address(meter, protocol, ("meter", n), source)
        _keys(meter, protocol, ("meter", n), source)


def _address(meter: Meter, protocol: str, here: Key, source: Source) -> None:
    """The form of an address, by protocol."""
    address = meter.address
    if address is None:
        return
    number = isinstance(address, int)
    good, expected = {
        "dlms": (number, "a whole number of at least 0 and of at most 65535; write it without quotes"),
        "dlt645": (number or str(address).isdigit(), 'up to twelve digits in quotes, as on the meter: "123456789012"'),
        "dlt698": (number or str(address).isdigit(), 'up to twelve digits in quotes, as on the meter: "123456789012"'),
        "modbus": (isinstance(address, int) and 1 <= address <= 247, "the Modbus unit, 1 to 247"),
        "mbus": (
            address <= 250 if isinstance(address, int) else len(address) in (8, 16),
            "the primary address, 0 to 250, or the secondary one in quotes: 8 or 16 digits",
        ),
    }[protocol]
    if not good:
        source.error((*here, "address"), f"address = {address!r}: expected {expected}")


QUARTER_S = 21_600  # of a day, which is judged by its quarters: whole rows make one
HDLC_CLIENTS = 16_383  # two octets of seven bits
CLASSES = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)  # IEC 62053-21/-22/-24, EN 50470-3


def _interval(detection: Detection, source: Source) -> None:
    """Boundaries stand at whole multiples since midnight, so that days and load profiles meet them."""
    interval_s = detection.interval_s
    if QUARTER_S % interval_s:
        source.error(
            ("detection", "interval_s"),
            f"interval_s = {interval_s:g} does not divide six hours: take 10, 30, 60, 300, 900 or 1800",
        )
    elif source.given(("detection", "balance_s")) and detection.row_s != detection.balance_s:
        source.error(
            ("detection", "balance_s"),
            f"balance_s = {detection.balance_s:g} is no multiple of interval_s = {interval_s:g} dividing six hours: "
            f"write balance_s = {detection.row_s:g}",
        )


NEEDED = {
    "none": (),
    "lls": ("password",),
    "hls-aes": ("password",),
    "hls-md5": ("password",),
    "hls-sha1": ("password",),
    "hls-sha256": ("password", "system_title"),
    "hls-gmac": ("authentication_key", "encryption_key", "system_title"),
    "hls-ecdsa": ("signing_key", "meter_signing_key", "system_title"),
}
# What a security may have beyond that.
OPTIONAL = {
    "hls-gmac": ("master_key", "broadcast_key", "signing_key", "agreement_key"),
    "hls-ecdsa": ("authentication_key", "encryption_key", "master_key", "broadcast_key", "agreement_key"),
}


# Secrets and other keys that one protocol alone has.
OWN_KEYS = {
    "dlms": (),
    "dlt645": ("password", "edition", "rates"),
    "dlt698": ("password",),
    "modbus": ("profile", "proven"),
    "mbus": ("encryption_key", "interval_s"),
}


def _keys(meter: Meter, protocol: str, here: Key, source: Source) -> None:
    if protocol == "modbus" and not meter.profile and not source.given((*here, "profile")):
        source.error(
            here, 'key "profile" is missing: a Modbus meter needs its device profile; checkmeter scan finds it'
        )
    for other, keys in OWN_KEYS.items():
        for key in keys:
            if other != protocol and key not in ("password", "encryption_key") and source.given((*here, key)):
                source.error((*here, key), f'{key} is a key of protocol = "{other}"; this meter speaks {protocol}')
    if protocol != "dlms":
        for key in ("security", "authentication_key", "password", "encryption_key", "system_title"):
            if key not in OWN_KEYS[protocol] and source.given((*here, key)):
                source.error((*here, key), f"{key} is not used with {protocol}: remove the key")
        return
    secrets = ("password", "authentication_key", "encryption_key", "signing_key", "master_key", "broadcast_key")
    for key in NEEDED[meter.security]:
        if not source.given((*here, key)):
            source.error(here, f'key "{key}" is missing: security = "{meter.security}" needs it')
    for key in secrets:
        if getattr(meter, key) is not None and key not in (
            *NEEDED[meter.security],
            *OPTIONAL.get(meter.security, ()),
        ):
            source.error(
                (*here, key), f'{key} is not used with security = "{meter.security}": set security, or remove the key'
            )


def _zones(config: Config, source: Source) -> None:
    meters = {meter.id for meter in config.meter}
    media = {meter.id: meter.medium for meter in config.meter}
    listed = [set(zone.subs) for zone in config.zone]
    heads: dict[str, str] = {}
    for n, zone in enumerate(config.zone):
        if source.full:
            return
        here: Key = ("zone", n)
        if zone.main and zone.main not in meters:
            source.error(
                (*here, "main"),
                f'main = "{zone.main}": there is no [[meter]] with this id{nearest(zone.main, meters)}',
            )
        elif zone.main in heads:
            source.error(
                (*here, "main"),
                f"{zone.main} is already the main meter of zone {heads[zone.main]}: each zone would miss what the "
                "other's subs take; make one zone of the two, or name its own main meter",
            )
        heads.setdefault(zone.main, zone.id)
        if not zone.subs and source.given((*here, "subs")):
            source.error((*here, "subs"), "subs is empty: expected the ids of the sub-meters behind the main meter")
        for key in ("subs", "export", "minus"):
            _names(zone, key, meters, here, source)
        for key, names in (("main", [zone.main]), ("subs", zone.subs)):
            for other_medium in (m for m in names if media.get(m, "electricity") != "electricity"):
                source.error(
                    (*here, key),
                    f"{other_medium} measures {media[other_medium]}: a balance takes electricity meters only",
                )
        if zone.main in zone.subs:
            source.error((*here, "subs"), f"subs holds the main meter {zone.main}; take it out")
        mine = listed[n]
        for other, theirs in zip(config.zone[:n], listed, strict=False):
            if mine.isdisjoint(theirs):
                continue
            if mine < theirs or theirs < mine:
                continue  # one within the other (a riser's flats, listed in the building's zone too) is a tree
            for sub in sorted(mine & theirs):
                source.error(
                    (*here, "subs"),
                    f"{sub} is already a sub of zone {other.id}; leave it in one, or let one zone hold the other",
                )
        for key, named, allowed, words in (
            ("export", zone.export, {zone.main, *zone.subs}, "main or subs"),
            ("minus", zone.minus, set(zone.subs), "subs"),
        ):
            for meter in named:
                if meter not in allowed and meter in meters:
                    source.error((*here, key), f"{meter} is not among the zone's {words}; {key} names some of them")
    _circles(config.zone, source)
    _in_no_zone(config, source)


def _in_no_zone(config: Config, source: Source) -> None:
    """A meter that no zone counts is energy that is missing for ever: the cheapest false accusation there is."""
    counted = {name for zone in config.zone for name in (zone.main, *zone.subs)}
    for n, meter in enumerate(config.meter):
        if meter.id and config.zone and meter.id not in counted and meter.medium == "electricity":
            source.doubt(
                ("meter", n),
                "it is in no zone: what flows through it is missing in every balance; add it to the subs of its zone",
            )


def _names(zone: Zone, key: str, meters: set[str], here: Key, source: Source) -> None:
    names: list[str] = getattr(zone, key)
    seen: set[str] = set()
    for name in names:
        if source.full:
            return
        if name not in meters:
            source.error((*here, key), f'{key}: there is no [[meter]] with the id "{name}"{nearest(name, meters)}')
        elif name in seen:
            source.error((*here, key), f"{key} names {name} twice; its energy would count twice")
        seen.add(name)


def _circles(zones: list[Zone], source: Source) -> None:
    """A zone must not lie below itself: follow each main meter down through the zones it heads."""
    below = {zone.main: zone.subs for zone in zones}
    for n, zone in enumerate(zones):
        seen: set[str] = set()
        ahead = [sub for sub in zone.subs if sub != zone.main]
        while ahead:
            meter = ahead.pop()
            if meter == zone.main:
                source.error(("zone", n, "subs"), f"zone {zone.id} lies below itself: {zone.main} is reached again")
                break
            if meter not in seen:
                seen.add(meter)
                ahead.extend(below.get(meter, ()))


def _broker(mqtt: Mqtt, source: Source) -> None:
    if not mqtt.url:
        return
    try:
        parts = urlsplit(mqtt.url)
    except ValueError:  # half an IPv6 address
        source.error(("mqtt", "url"), f'url = "{mqtt.url}": expected mqtt://host:port or mqtts://host:port')
        return
    if parts.scheme not in ("mqtt", "mqtts") or not _host(mqtt.url):
        source.error(("mqtt", "url"), f'url = "{mqtt.url}": expected mqtt://host:port or mqtts://host:port')
    if parts.username or parts.password:
        source.error(("mqtt", "url"), "url holds a user or password: use the keys username and password")
    if parts.scheme == "mqtt":
        for key in ("ca", "certificate", "key"):
            if getattr(mqtt, key) is not None:
                source.error(("mqtt", key), f"{key} is not used without TLS: write mqtts:// in url, or remove the key")
        if not mqtt.insecure and not is_loopback(parts.hostname or ""):
            source.error(
                ("mqtt", "url"),
                f'url = "{mqtt.url}" is not encrypted and leaves this gateway: write mqtts://, or set insecure = true',
            )
    elif mqtt.insecure:
        source.error(("mqtt", "insecure"), "insecure is not used with mqtts://: remove the key")
    if (mqtt.certificate is None) != (mqtt.key is None):
        source.error(("mqtt",), "certificate and key go together: give both, or neither")
    if mqtt.password is not None and mqtt.username is None:
        source.error(("mqtt", "password"), "password without username: give both")


def is_loopback(host: str) -> bool:
    """Whether `host` is this gateway itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _host_and_port(url: str, scheme: str = "tcp") -> bool:
    return url.startswith(f"{scheme}://") and _host(url) and urlsplit(url).port is not None
