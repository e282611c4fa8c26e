"""Site file to Bus and drivers: the only place that knows which protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.keys.credentials import read_key, read_secret
from agent.site.tables import Bus as BusConfig
from agent.site.tables import Config, Meter, Registers
from firmware_io.bus import Bus, BusMeter
from firmware_io.clock import Clock
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import FileCounters, InvocationCounters, MemoryCounters
from firmware_io.dlms.session.trace import Tracer
from firmware_io.dlms.sources import COMPANIONS, Sources
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.obis import ENERGY_EXPORT, ENERGY_IMPORT, POWER_EXPORT, POWER_IMPORT, ObisCode
from firmware_io.spec import BusSpec
from firmware_io.transport import Transport, open_transport


def bus_spec(bus: BusConfig) -> BusSpec:
    """What the wire has to know of a bus."""
    return BusSpec(
        id=bus.id,
        port=bus.port,
        baud=bus.baud,
        parity=bus.parity,
        timeout_s=bus.timeout_s,
        inter_octet_s=bus.inter_octet_s,
    )


def dlms_spec(meter: Meter, bus: BusConfig, timezone: str | None = None) -> DlmsSpec:
    """What is to be known of a DLMS meter before it is asked, with its secrets.

    Raises:
        ConfigError: a secret cannot be read.
    """
    assert meter.address is not None, meter.id  # config_rules: online needs an address
    return DlmsSpec(
        id=meter.id,
        address=meter.address,
        logical_address=meter.logical_address,
        address_octets=meter.address_octets,
        client=meter.client,
        framing=bus.framing,
        serial=meter.serial,
        security=meter.security,
        password=None if meter.password is None else read_secret(meter.password),
        authentication_key=None if meter.authentication_key is None else read_key(meter.authentication_key),
        encryption_key=None if meter.encryption_key is None else read_key(meter.encryption_key),
        system_title=None if meter.system_title is None else bytes.fromhex(meter.system_title),
        ciphering=meter.ciphering,
        policy=meter.policy,
        min_gap_s=meter.min_gap_s,
        single_association=meter.single_association,
        with_list=meter.with_list,
        max_pdu=meter.max_pdu,
        max_frame=meter.max_frame,
        window=meter.window,
        inactivity_s=meter.inactivity_s,
        sources=sources_of(meter),
        timezone=None if timezone == "UTC" else timezone,  # the default: then the zone is not known
    )


def sources_of(meter: Meter) -> Sources:
    """From which of a DLMS meter's objects its quantities come: its companion profile, and what is named beyond it."""
    base = COMPANIONS[meter.companion] if meter.companion else Sources()
    named = meter.registers or Registers()
    quantities = {
        ENERGY_IMPORT: named.energy_import,
        ENERGY_EXPORT: named.energy_export,
        POWER_IMPORT: named.power_import and [named.power_import],
        POWER_EXPORT: named.power_export and [named.power_export],
    }
    registers = {quantity: tuple(map(ObisCode.parse, codes)) for quantity, codes in quantities.items() if codes}
    return Sources(
        {**base.registers, **registers},
        base.load_profile if named.load_profile is None else ObisCode.parse(named.load_profile),
        base.event_logs if named.event_logs is None else tuple(map(ObisCode.parse, named.event_logs)),
        base.counter if named.counter is None else ObisCode.parse(named.counter),
    )


def counters_of(config: Config) -> InvocationCounters:
    """Where invocation counters are kept: on disk as soon as a meter needs them.

    Raises:
        LocalProtocolError: the counters' file is damaged.
    """
    if any(meter.security == "hls-gmac" for meter in config.meter):
        return FileCounters(Path(config.store.path).with_name("counters.json"))
    return MemoryCounters()


def open_buses(config: Config, clock: Clock, opener: Callable[[BusSpec], Transport] = open_transport) -> dict[str, Bus]:
    """A `Bus` for each that has meters; the line is opened at the first exchange.

    Raises:
        ConfigError: a secret cannot be read.
    """
    mains = {zone.main for zone in config.zone}
    counters = counters_of(config)
    buses: dict[str, Bus] = {}
    for table in config.bus:
        spec = bus_spec(table)
        meters = [
            BusMeter(
                meter.id,
                DlmsDriver(dlms_spec(meter, table, config.site.timezone), spec, clock, counters),
                meter.id in mains,
            )
            for meter in config.meter
            if meter.bus == table.id
        ]
        if meters:
            buses[table.id] = Bus(spec, meters, opener, clock)
    return buses


def open_bus(config: Config, meter: str, clock: Clock, trace: Callable[[str], None] | None = None) -> Bus:
    """A `Bus` with that one meter on it; `trace` gets what passes, in lines of text without secrets.

    Raises:
        ConfigError: a secret cannot be read.
    """
    table = next(m for m in config.meter if m.id == meter)
    bus_table = next(b for b in config.bus if b.id == table.bus)
    spec, line = dlms_spec(table, bus_table, config.site.timezone), bus_spec(bus_table)
    secrets = (spec.password, spec.authentication_key, spec.encryption_key)
    tracer = Tracer(trace, secrets, spec.framing) if trace else None
    driver = DlmsDriver(spec, line, clock, counters_of(config))
    return Bus(line, [BusMeter(meter, driver)], open_transport, clock, trace=tracer)
