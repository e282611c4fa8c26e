"""The object model of a simulated meter's logical device: which objects there are, and what they say.

Built once a meter; every attribute is computed when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_io import obis
from firmware_io.dlms.apdu import axdr
from firmware_io.dlms.apdu.axdr import Data, Tag
from firmware_io.dlms.apdu.decode import ActionResult, Attribute, DataAccessResult
from firmware_io.dlms.cosem.profile import Column
from firmware_io.obis import ObisCode
from firmware_io.reading import Unit
from firmware_io.simulator.meter.cosem import CosemObject, compact_data, constant, data, plain, register, scaler_unit
from firmware_io.simulator.meter.events import LOG_ENTRIES
from firmware_io.simulator.meter.keys import security_setup
from firmware_io.simulator.meter.meter import FIRMWARE, PERIOD_S, LogRows, SimulatedMeter
from firmware_io.simulator.meter.profile import profile_generic

RATES = (ObisCode(1, 0, 1, 8, 1), ObisCode(1, 0, 1, 8, 2))
DEMAND = ObisCode(1, 0, 1, 4, 0)
MAXIMUM_DEMAND = ObisCode(1, 0, 1, 6, 0)
UNITS_OF_LIVE = (("voltages_v", obis.VOLTAGE, -1, Unit.VOLT), ("currents_a", obis.CURRENT, -2, Unit.AMPERE))
PROFILE_STATUS = ObisCode(0, 0, 96, 10, 1)
EVENT_CODES = (ObisCode(0, 0, 96, 11, 0), ObisCode(0, 0, 96, 11, 1))
COMPACT_DATA = ObisCode(0, 0, 66, 0, 1)
PUSHED = ((1, obis.SERIAL_NUMBER), (3, obis.ENERGY_IMPORT))  # what a push of this meter holds
SAP_ASSIGNMENT = ObisCode(0, 0, 41, 0, 0)
IMAGE_TRANSFER = ObisCode(0, 0, 44, 0, 0)


def objects_of(meter: SimulatedMeter, counter: Callable[[], int]) -> list[CosemObject]:
    """All objects; `counter` is the invocation counter that the meter expects its client to exceed."""
    exports = [_column(3, obis.ENERGY_EXPORT)] if meter.identity.exports else []
    columns = [_column(8, obis.CLOCK), _column(1, PROFILE_STATUS), _column(3, obis.ENERGY_IMPORT), *exports]
    capacity = int(meter.identity.history_s // PERIOD_S)
    objects: list[CosemObject] = [
        data(obis.LOGICAL_DEVICE_NAME, lambda: axdr.octet_string(meter.logical_device_name()), public=True),
        data(obis.SERIAL_NUMBER, lambda: axdr.octet_string(meter.serial_number().encode()), public=True),
        data(obis.FIRMWARE_VERSION, lambda: axdr.octet_string(FIRMWARE.encode()), public=True),
        data(obis.INVOCATION_COUNTER, lambda: axdr.uint32(counter()), public=True),
        data(obis.ERROR_REGISTER, lambda: axdr.uint32(meter.error_register())),
        data(PROFILE_STATUS, lambda: axdr.uint8(0)),
        data(EVENT_CODES[0], lambda: _last_code(meter, fraud=False)),
        data(EVENT_CODES[1], lambda: _last_code(meter, fraud=True)),
        _clock(meter),
        *_energies(meter),
        *_live(meter),
        profile_generic(
            obis.LOAD_PROFILE,
            columns,
            meter,
            period_s=lambda: meter.period_s,
            capacity=capacity,
            read_time=meter.clock.from_date_time,
            compress=meter.identity.compress,
            reset=meter.reset_profile,
            set_period=meter.set_period,
            newest_first=lambda: meter.faults.at("lifo", meter.now()) is not None,
        ),
        *(
            profile_generic(
                name,
                [_column(8, obis.CLOCK), _column(1, EVENT_CODES[fraud])],
                LogRows(meter, fraud=bool(fraud)),
                period_s=lambda: 0,
                capacity=LOG_ENTRIES,
                read_time=meter.clock.from_date_time,
                compress=False,
                reset=lambda: None,
            )
            for fraud, name in enumerate((obis.EVENT_LOG_STANDARD, obis.EVENT_LOG_FRAUD))
        ),
        CosemObject(
            70,
            obis.DISCONNECT_CONTROL,
            {
                2: constant(axdr.boolean(True)),
                3: constant(axdr.enumeration(1)),
                4: constant(axdr.enumeration(0)),  # mode 0: nobody may disconnect
            },
            methods={n: lambda _: (ActionResult.READ_WRITE_DENIED, None) for n in (1, 2)},
        ),
        compact_data(
            COMPACT_DATA,
            [
                (Attribute(1, obis.SERIAL_NUMBER, 2), lambda: axdr.octet_string(meter.serial_number().encode())),
                *(
                    (Attribute(3, name, 2), lambda n=n: meter.energy_data(meter.energy_wh(meter.now())[n], meter.now()))
                    for n, name in enumerate((obis.ENERGY_IMPORT, obis.ENERGY_EXPORT))
                ),
                (Attribute(3, obis.POWER_IMPORT, 2), lambda: axdr.uint32(round(max(meter.live().power_w, 0.0)))),
            ],
            spoiled=lambda: meter.faults.at("compact_template", meter.now()) is not None,
        ),
        CosemObject(
            40,
            obis.PUSH_SETUP,
            {2: constant(axdr.array(_column(*captured).encode() for captured in PUSHED))},
        ),
        CosemObject(17, SAP_ASSIGNMENT, {2: plain(lambda: _sap(meter))}, public=True),
        CosemObject(
            18,
            IMAGE_TRANSFER,
            {
                2: constant(axdr.uint32(128)),
                3: constant(Data(Tag.BIT_STRING, "")),
                4: constant(axdr.uint32(0)),
                5: constant(axdr.boolean(False)),
                6: constant(axdr.enumeration(0)),
                7: constant(axdr.array([axdr.structure(axdr.uint32(0), *[axdr.octet_string(FIRMWARE.encode())] * 2)])),
            },
        ),
    ]
    identity = meter.identity
    if identity.encryption_key:
        setup = security_setup(
            meter.keys,
            suite=identity.suite or (2 if len(identity.encryption_key) == 32 else 0),
            number=identity.number,
            title=identity.system_title,
            client_title=identity.client_title,
            client_key=identity.client_signing_key,
        )
        objects.append(setup)
    return objects


def _column(class_id: int, name: ObisCode) -> Column:
    return Column(Attribute(class_id, name, 2))


def _last_code(meter: SimulatedMeter, *, fraud: bool) -> Data:
    entries = meter.log.entries(fraud, meter.now())
    return axdr.uint8(entries[-1].code if entries else 0)


def _sap(meter: SimulatedMeter) -> Data:
    identity = meter.identity
    entry = axdr.structure(axdr.uint16(identity.logical_address), axdr.octet_string(identity.logical_device_name))
    return axdr.array([entry])


def _clock(meter: SimulatedMeter) -> CosemObject:
    clock = meter.clock

    def write(value: Data) -> DataAccessResult:
        shown_s = clock.from_date_time(value.value) if value.tag in (Tag.OCTET_STRING, Tag.DATE_TIME) else None
        if shown_s is None:
            return DataAccessResult.TYPE_UNMATCHED
        meter.set_clock(shown_s)
        return DataAccessResult.SUCCESS

    def nearest(period_s: int) -> Callable[[Data | None], tuple[ActionResult, Data | None]]:
        def adjust(_: Data | None) -> tuple[ActionResult, Data | None]:
            shown_s = clock.shown_s(meter.now())
            meter.set_clock((shown_s + period_s / 2) // period_s * period_s)
            return ActionResult.SUCCESS, None

        return adjust

    def shift(value: Data | None) -> tuple[ActionResult, Data | None]:
        if value is None or value.tag != Tag.INT16 or abs(value.value) > 900:  # IEC 62056-62, shift_time
            return ActionResult.TYPE_UNMATCHED, None
        meter.set_clock(clock.shown_s(meter.now()) + value.value)
        return ActionResult.SUCCESS, None

    never = axdr.octet_string(bytes.fromhex("ffffffffffffffffff800000"))
    return CosemObject(
        8,
        obis.CLOCK,
        {
            2: plain(lambda: axdr.octet_string(clock.date_time(meter.now()))),
            3: plain(lambda: axdr.int16(clock.deviation_min(meter.now()))),
            4: plain(lambda: axdr.uint8(clock.status(meter.now()))),
            5: constant(never),
            6: constant(never),
            7: constant(axdr.int8(60)),
            8: constant(axdr.boolean(True)),
            9: constant(axdr.enumeration(1)),
        },
        writable={2: write},
        methods={1: nearest(900), 2: nearest(PERIOD_S), 3: nearest(60), 6: shift},
        public=True,
    )


def _energies(meter: SimulatedMeter) -> list[CosemObject]:
    def scaler() -> Data:
        now = meter.now()
        return (
            axdr.NULL
            if meter.faults.at("scaler_absent", now)
            else scaler_unit(meter.energy_scaler(now), Unit.WATT_HOUR)
        )

    def energy(read: Callable[[], float]) -> Callable[[], Data]:
        return lambda: meter.energy_data(read(), meter.now())

    totals = [
        register(obis.ENERGY_IMPORT, energy(lambda: meter.energy_wh(meter.now())[0]), scaler),
        register(obis.ENERGY_EXPORT, energy(lambda: meter.energy_wh(meter.now())[1]), scaler),
    ]
    rates = [
        register(name, energy(lambda n=n: meter.rates_wh()[n]), scaler)  # type: ignore[misc]  # the default binds n
        for n, name in enumerate(RATES)
    ]
    return totals + rates


def _live(meter: SimulatedMeter) -> list[CosemObject]:
    def watts(value: float) -> Data:
        return axdr.uint32(round(max(value, 0.0)))

    def at_time() -> Data:
        return axdr.octet_string(meter.clock.date_time(meter.now() // PERIOD_S * PERIOD_S))

    watt = scaler_unit(0, Unit.WATT)
    objects: list[CosemObject] = [
        register(obis.POWER_IMPORT, lambda: watts(meter.live().power_w), lambda: watt),
        register(obis.POWER_EXPORT, lambda: watts(-meter.live().power_w), lambda: watt),
        register(
            obis.NEUTRAL_CURRENT,
            lambda: axdr.uint32(round(100 * meter.live().neutral_a)),
            lambda: scaler_unit(-2, Unit.AMPERE),
        ),
        register(
            obis.POWER_FACTOR,
            lambda: axdr.uint16(round(1000 * meter.live().power_factor)),
            lambda: scaler_unit(-3, Unit.COUNT),
        ),
        CosemObject(
            5,
            DEMAND,
            {
                2: plain(lambda: watts(meter.live().power_w)),
                3: plain(lambda: watts(meter.demand_w(meter.now()))),
                4: constant(watt),
                5: constant(axdr.uint8(0)),
                6: plain(at_time),
                7: plain(at_time),
                8: constant(axdr.uint32(PERIOD_S)),
                9: constant(axdr.uint16(1)),
            },
        ),
        CosemObject(
            4,
            MAXIMUM_DEMAND,
            {
                2: plain(lambda: watts(max(meter.demand_w(meter.now() - k * PERIOD_S) for k in range(96)))),
                3: constant(watt),
                4: constant(axdr.uint8(0)),
                5: plain(at_time),
            },
        ),
    ]
    phases = 3 if meter.identity.main else 1
    for attribute, names, scaler, unit in UNITS_OF_LIVE:
        for phase in range(phases):

            def read(attribute: str = attribute, phase: int = phase, scaler: int = scaler) -> Data:
                return axdr.uint16(round(getattr(meter.live(), attribute)[phase] * 10**-scaler) & 0xFFFF)

            def scale(scaler: int = scaler, unit: Unit = unit) -> Data:
                return scaler_unit(scaler, unit)

            objects.append(register(names[phase], read, scale))
    return objects
