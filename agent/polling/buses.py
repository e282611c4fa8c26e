"""Site file to Bus and drivers: the only place that knows which protocol. A protocol is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.keys.credentials import read_key, read_secret
from agent.polling.hex_trace import HexTrace
from agent.site.errors import ConfigError
from agent.site.source import Source
from agent.site.tables import Bus as BusConfig
from agent.site.tables import Config, Meter, Registers
from firmware_io.asking.exchange import Timing
from firmware_io.bus import Bus, BusMeter
from firmware_io.clock import Clock
from firmware_io.dlms.meter.driver import DlmsDriver
from firmware_io.dlms.session.counters import FileCounters, InvocationCounters, MemoryCounters
from firmware_io.dlms.session.trace import Tracer
from firmware_io.dlms.sources import COMPANIONS, Sources
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.driver import MeterDriver, Trace
from firmware_io.identity import FileSerials, Serials
from firmware_io.obis import ENERGY_EXPORT, ENERGY_IMPORT, POWER_EXPORT, POWER_IMPORT, ObisCode
from firmware_io.pushes import IdleLine, PushListener, PushSource
from firmware_io.spec import BusSpec
from firmware_io.transport import Transport, open_transport

if TYPE_CHECKING:
    from firmware_io.dlt645.driver import Dlt645Spec
    from firmware_io.dlt698.driver import Dlt698Spec
    from firmware_io.mbus.driver import MbusSpec
    from firmware_io.modbus.driver import ModbusSpec

    MeterSpec = DlmsSpec | Dlt645Spec | Dlt698Spec | ModbusSpec | MbusSpec


def bus_spec(bus: BusConfig) -> BusSpec:
    """What the wire has to know of a bus."""
    return BusSpec(
        id=bus.id,
        port=bus.port,
        baud=bus.baud,
        parity=bus.parity,
        timeout_s=bus.timeout_s,
        inter_octet_s=bus.inter_octet_s,
        opening=bus.opening,
        listen=bus.listen,
        rs485=bus.rs485,
    )


def dlms_spec(meter: Meter, bus: BusConfig, timezone: str | None = None) -> DlmsSpec:
    """What is to be known of a DLMS meter before it is asked, with its secrets.

    Raises:
        ConfigError: a secret cannot be read.
    """
    assert isinstance(meter.address, int), meter.id  # agent.site.rules: online needs an address, and a number here
    return DlmsSpec(
        id=meter.id,
        address=meter.address,
        logical_address=meter.logical_address,
        address_octets=meter.address_octets,
        client=meter.client,
        framing="wrapper" if bus.framing == "wrapper" else "hdlc",
        serial=meter.serial,
        security=meter.security,
        password=None if meter.password is None else read_secret(meter.password),
        authentication_key=None if meter.authentication_key is None else read_key(meter.authentication_key),
        encryption_key=None if meter.encryption_key is None else read_key(meter.encryption_key),
        system_title=None if meter.system_title is None else bytes.fromhex(meter.system_title),
        ciphering=meter.ciphering,
        policy=meter.policy,
        suite=meter.suite,
        signing_key=None if meter.signing_key is None else read_secret(meter.signing_key),
        meter_signing_key=_public_key(meter.meter_signing_key),
        agreement_key=None if meter.agreement_key is None else read_secret(meter.agreement_key),
        meter_agreement_key=_public_key(meter.meter_agreement_key),
        master_key=None if meter.master_key is None else read_key(meter.master_key),
        broadcast_key=None if meter.broadcast_key is None else read_key(meter.broadcast_key),
        min_gap_s=meter.min_gap_s,
        single_association=meter.single_association,
        with_list=meter.with_list,
        access=meter.access,
        naming=meter.naming,
        push=meter.push,
        gbt_window=meter.gbt_window,
        max_pdu=meter.max_pdu,
        max_frame=meter.max_frame,
        window=meter.window,
        inactivity_s=meter.inactivity_s,
        sources=sources_of(meter),
        timezone=None if timezone == "UTC" else timezone,  # the default: then the zone is not known
    )


def _public_key(path: str | None) -> bytes | None:
    """What stands in the file of a public key. Raises: ConfigError: it cannot be read."""
    if path is None:
        return None
    try:
        return Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigError([f"{path}: the meter's public key cannot be read: {error.strerror}"]) from error


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
        base.push_setup if named.push_setup is None else ObisCode.parse(named.push_setup),
        None if named.push_objects is None else tuple(map(ObisCode.parse, named.push_objects)),
        None if named.compact is None else ObisCode.parse(named.compact),
    )


def meter_spec(meter: Meter, bus: BusConfig, timezone: str = "UTC") -> MeterSpec:
    """What is to be known of a meter before it is asked, whatever it speaks. `timezone`: what its clock shows.

    Raises:
        ConfigError: a secret, an address or a device profile cannot be read.
    """
    try:
        match meter.protocol or bus.protocol:
            case "dlt645":
                return _dlt645_spec(meter, timezone)
            case "dlt698":
                return _dlt698_spec(meter, timezone)
            case "modbus":
                return _modbus_spec(meter, bus)
            case "mbus":
                return _mbus_spec(meter)
        return dlms_spec(meter, bus, timezone)
    except ValueError as error:
        raise ConfigError([f"meter {meter.id}: {str(error).removeprefix(f'meter {meter.id}: ')}"]) from error


def _dlt645_spec(meter: Meter, timezone: str) -> Dlt645Spec:
    from firmware_io.dlt645.driver import Dlt645Spec

    password = None if meter.password is None else read_secret(meter.password)
    return Dlt645Spec(
        id=meter.id,
        address=str(meter.address),
        edition=meter.edition,
        live=meter.live,
        rates=meter.rates,
        timezone=timezone,
        password=None if password is None else bytes.fromhex(password.decode("ascii")),
        min_gap_s=meter.min_gap_s,
    )


def _dlt698_spec(meter: Meter, timezone: str) -> Dlt698Spec:
    from firmware_io.dlt698.driver import Dlt698Spec

    password = None if meter.password is None else read_secret(meter.password)
    return Dlt698Spec(meter.id, str(meter.address), meter.live, timezone, password, min_gap_s=meter.min_gap_s)


def _modbus_spec(meter: Meter, bus: BusConfig) -> ModbusSpec:
    from firmware_io.modbus.driver import ModbusSpec
    from firmware_io.modbus.profile_file import load

    assert isinstance(meter.address, int), meter.id  # agent.site.rules
    tcp = bus.framing == "tcp" or (bus.framing is None and bus.port.startswith("tcp://"))
    return ModbusSpec(
        id=meter.id,
        unit=meter.address,
        profile=load(meter.profile or ""),
        framing="tcp" if tcp else "rtu",
        proven=meter.proven,
        live=meter.live,
        min_gap_s=meter.min_gap_s,
    )


def check_profiles(config: Config, source: Source) -> None:
    """Whether every device profile that the site file names can be used.

    Raises:
        ConfigError: with all that cannot, each with the line of the site file and the meter.
    """
    from firmware_io.modbus.profile_file import ProfileError, load

    wrong: dict[str, str] = {}
    for n, meter in enumerate(config.meter):
        if not meter.profile:
            continue
        if meter.profile not in wrong:
            try:
                load(meter.profile)
                wrong[meter.profile] = ""
            except ProfileError as error:
                wrong[meter.profile] = str(error)
        if wrong[meter.profile]:
            source.error(("meter", n, "profile"), wrong[meter.profile])
    source.check()


def _mbus_spec(meter: Meter) -> MbusSpec:
    from firmware_io.mbus.driver import MbusSpec
    from firmware_io.mbus.frame import SecondaryAddress

    primary = meter.address if isinstance(meter.address, int) else None
    return MbusSpec(
        id=meter.id,
        address=primary,
        secondary=None if primary is not None else SecondaryAddress.parse(str(meter.address)),
        key=None if meter.encryption_key is None else read_key(meter.encryption_key),
        interval_s=meter.interval_s,
        min_gap_s=meter.min_gap_s,
    )


def driver_of(
    spec: MeterSpec, line: BusSpec, clock: Clock, counters: InvocationCounters, serials: Serials | None = None
) -> MeterDriver:
    """The driver of a meter."""
    if isinstance(spec, DlmsSpec):
        return DlmsDriver(spec, line, clock, counters, serials=serials)
    timing = Timing.of(line)
    match type(spec).__name__:
        case "Dlt645Spec":
            from firmware_io.dlt645.driver import Dlt645Driver

            return Dlt645Driver(spec, timing, clock)  # type: ignore[arg-type]  # its class is known by its name
        case "Dlt698Spec":
            from firmware_io.dlt698.driver import Dlt698Driver

            return Dlt698Driver(spec, timing, clock)  # type: ignore[arg-type]
        case "ModbusSpec":
            from firmware_io.modbus.driver import ModbusDriver

            return ModbusDriver(spec, timing, clock)  # type: ignore[arg-type]
    from firmware_io.mbus.driver import MbusDriver

    return MbusDriver(spec, timing, clock)  # type: ignore[arg-type]


def counters_of(config: Config) -> InvocationCounters:
    """Where invocation counters are kept: on disk as soon as a meter needs them."""
    if any(meter.security in ("hls-gmac", "hls-ecdsa") for meter in config.meter):
        return FileCounters(Path(config.store.path).with_name("counters.json"))
    return MemoryCounters()


def serials_of(config: Config) -> Serials:
    """Where it is kept which meter was believed first, where the site file does not say whose it is."""
    return FileSerials(Path(config.store.path).with_name("meters.json"))


def open_buses(
    config: Config,
    clock: Clock,
    opener: Callable[[BusSpec], Transport] = open_transport,
    serials: Serials | None = None,
) -> dict[str, Bus]:
    """A `Bus` for each that has meters; the line is opened at the first exchange. `serials` outlives the process.

    Raises:
        ConfigError: a secret or a device profile cannot be read.
    """
    mains = {zone.main for zone in config.zone}
    counters = counters_of(config)
    buses: dict[str, Bus] = {}
    for table in config.bus:
        line = bus_spec(table)
        specs = [meter_spec(meter, table, config.site.timezone) for meter in config.meter if meter.bus == table.id]
        meters = [
            BusMeter(spec.id, driver_of(spec, line, clock, counters, serials), spec.id in mains) for spec in specs
        ]
        if meters:
            buses[table.id] = Bus(line, meters, opener, clock, sources=push_sources(table, specs, clock))
    return buses


def push_sources(table: BusConfig, specs: Sequence[MeterSpec], clock: Clock) -> list[PushSource]:
    """Where the pushes of a bus come in: on its line, and where it listens; nowhere if none of its meters pushes."""
    if not any(isinstance(spec, DlmsSpec) and spec.push for spec in specs):
        return []
    from firmware_io.dlms.meter.push import FrameCutter, UnitCutter

    cutter = UnitCutter if table.framing == "wrapper" else FrameCutter
    sources: list[PushSource] = [IdleLine(cutter(), clock.now)]
    if table.listen is not None:
        sources.append(PushListener(table.listen, cutter, clock.now))
    return sources


def open_bus(config: Config, meter: str, clock: Clock, trace: Callable[[str], None] | None = None) -> Bus:
    """A `Bus` with that one meter on it; `trace` gets what passes, in lines of text without secrets.

    Raises:
        ConfigError: a secret or a device profile cannot be read.
    """
    table = next(m for m in config.meter if m.id == meter)
    bus_table = next(b for b in config.bus if b.id == table.bus)
    spec, line = meter_spec(table, bus_table, config.site.timezone), bus_spec(bus_table)
    tracer: Trace | None = None
    if trace and isinstance(spec, DlmsSpec):
        tracer = Tracer(trace, (spec.password, spec.authentication_key, spec.encryption_key), spec.framing)
    elif trace:
        tracer = HexTrace(trace, getattr(spec, "password", None))
    driver = driver_of(spec, line, clock, counters_of(config))
    return Bus(line, [BusMeter(meter, driver)], open_transport, clock, trace=tracer)
