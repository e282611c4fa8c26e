"""What has been learned of one meter and holds over its associations: scalers, what it means by its time, whose it is.

Every list of values that is believed carries the meter's name plate (its serial number, or its logical device name),
so that one answer is either all ours or not ours at all. With HLS the key and the system title bind each answer to the
meter that associated; there the plate is read once in each association.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from firmware_io import obis
from firmware_io.clock import Clock
from firmware_io.dlms.apdu.axdr import Data
from firmware_io.dlms.apdu.decode import Attribute, DataAccessResult
from firmware_io.dlms.cosem.meter_time import Convention, MeterTime
from firmware_io.dlms.cosem.registers import DATA, VALUE, Scale
from firmware_io.dlms.session.session import Session
from firmware_io.dlms.spec import DlmsSpec
from firmware_io.errors import IdentityMismatch, RegisterUnavailable, RemoteProtocolError
from firmware_io.identity import ExpectedMeter, Serials, Whose
from firmware_io.obis import ObisCode

PLATES = (Attribute(DATA, obis.SERIAL_NUMBER, VALUE), Attribute(DATA, obis.LOGICAL_DEVICE_NAME, VALUE))


class Exchanged(Exception):
    """Another meter hangs here for good: what was learned of the one before holds no more."""


class Known:
    """One meter as far as it is known; `session` is the one over the line that is open now."""

    def __init__(
        self, spec: DlmsSpec, session: Session, clock: Clock, serials: Serials | None = None, place: str = ""
    ) -> None:
        self.spec = spec
        self.session = session
        self.clock = clock
        self.sums: dict[ObisCode, tuple[ObisCode, ...]] = dict(spec.sources.registers)
        self.scales: dict[tuple[int, ObisCode], Scale] = {}
        self.convention = Convention()
        self.clock_offset_s: float | None = None
        self._expected = ExpectedMeter(spec.serial, serials, place)
        self._plate: Attribute | None = None

    @property
    def serial(self) -> str | None:
        """The serial number that stands on the plate; None where the meter has no plate."""
        return None if self._plate is None else self._expected.serial

    def utc_s(self, time: MeterTime) -> float:
        """The UTC seconds that the meter means by a time, without the error of its clock."""
        return self.convention.utc_s(time) - (self.clock_offset_s or 0.0)

    def forget(self) -> None:
        """Another meter: only what the site file says still holds."""
        self.scales.clear()
        self.sums = dict(self.spec.sources.registers)
        self.convention, self.clock_offset_s, self._plate = Convention(), None, None

    def read(self, attributes: Iterable[Attribute]) -> list[Data | DataAccessResult]:
        """Several attributes of this very meter, as few requests as it takes.

        Raises:
            IdentityMismatch: another meter answered.
            Exchanged: another meter has been answering for a long while.
            MeterError: it does not answer, or not as it should.
        """
        if self._plate is None:
            self._find_plate()
        plate = None if self._plate is None or self._vouched() else self._plate
        if plate is None:
            return self.session.get_list(list(attributes))
        wanted = list(attributes)
        results: list[Data | DataAccessResult] = []
        size = self.session.list_size - 1
        for start in range(0, len(wanted), size if size > 0 else len(wanted)):
            part = wanted[start : start + size] if size > 0 else wanted
            *values, plate_now = self.session.get_list([*part, plate])
            self.judge(plate_now)
            results += values
        return results

    def read_with_plate(
        self, attribute: Attribute, holds: Iterable[Attribute]
    ) -> tuple[Data | DataAccessResult, Attribute | None]:
        """One attribute that holds others, and which of these is the plate that is yet to be judged.

        Where the plate is not in it and the security does not vouch for the answer, it is asked for beside it.
        """
        if self._plate is None:
            self._find_plate()
        if self._plate is None or self._vouched():
            return self.session.get_list([attribute])[0], None
        if self._plate in holds:
            return self.session.get_list([attribute])[0], self._plate
        value, plate = self.session.get_list([attribute, self._plate])
        self.judge(plate)
        return value, None

    def names_us(self, values: Mapping[Attribute, Data]) -> bool | None:
        """Whether the name plate among values that nobody asked for is our meter's; None where there is none.

        It is no answer, so that it is neither a conflict nor an exchange.
        """
        plates = [plate for plate in PLATES if plate in values]
        expected = self._expected.serial
        if not plates or expected is None:
            return None
        return any(text_of(values[plate]) == expected for plate in plates)

    def vouch(self) -> None:
        """Ask the meter who it is, around a question that does not fit into a list. Raises: as `read`."""
        if self._plate is None:
            self._find_plate()
        elif not self._vouched():
            self.judge(self.session.get_list([self._plate])[0])

    def _vouched(self) -> bool:
        """Whether the security of this association says whose every answer is."""
        return self.session.authenticated and self.session.identified

    def _find_plate(self) -> None:
        """By which of its names this meter is known: the one in the site file, or the first that it has."""
        found = [(plate, result) for plate, result in zip(PLATES, self.session.get_list(PLATES), strict=True)]
        named = [(plate, result) for plate, result in found if text_of(result)]
        if named:
            named.sort(key=lambda one: text_of(one[1]) != self.spec.serial)  # stable: the serial number comes first
            self._plate, result = named[0]
            self.judge(result)

    def judge(self, result: Data | DataAccessResult) -> None:
        """Whether this name plate is that of our meter. Raises: as `read`."""
        why = self.session.malformed.pop(self._plate, None) if self._plate else None
        if why:
            raise RemoteProtocolError(f"its name plate cannot be understood: {why}", meter=self.spec.id)
        serial = text_of(result)
        if not serial:
            raise RegisterUnavailable("it does not say who it is, so its values are not taken", meter=self.spec.id)
        expected = self._expected.serial
        whose = self._expected.heard(serial)
        if whose is Whose.EXCHANGED:
            raise Exchanged
        if whose is Whose.FOREIGN:
            raise IdentityMismatch(
                f"meter {serial} answered, expected {expected}: two meters at one address, or it was exchanged "
                "(then give its serial number in the site file); nothing of it is taken",
                meter=self.spec.id,
            )
        self.session.identified = True


def text_of(result: Data | DataAccessResult) -> str | None:
    """A serial number or version as text, however the meter stores it."""
    if not isinstance(result, Data) or result.value is None:
        return None
    if isinstance(result.value, bytes):
        octets = result.value.rstrip(b"\x00 ")
        return octets.decode("ascii") if octets.isascii() and octets.decode("ascii").isprintable() else octets.hex()
    return str(result.value).strip()
