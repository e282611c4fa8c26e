"""Does a device profile fit the meter? A profile is believed when the meter's own figures confirm it. Sans IO.

A wrong profile may read a plausible, rising number: at the address of one device's total import another of the same
vendor has the energy of phase 2, and a balance would accuse an innocent flat. So:

- voltage and frequency are in range, and P = sum of U I pf within 5 %, at every poll with a load to tell by;
- over an hour at least, the energy register rises as the integral of P, within 5 %, two counts of the register and
  what sampling a changing power leaves open: each step of the power lies anywhere in its interval, and in one interval
  of ten a kettle comes and goes unseen. What is out of that for an hour is refuted; a moment is not.

Little energy proves little: a register that shows a tenth looks right for as long as nobody is at home. So a meter is
held to be consistent only while a wrong third would have shown, or while so little flows that no error weighs; and it
is watched anew every few hours, so that no long idle past covers what comes after it. What no meter tells about itself
is a ratio by which all its figures are wrong, as that of current transformers: `checkmeter commission` looks for that
in the balance.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_io import obis
from firmware_io.asking.sampling import Value
from firmware_io.modbus.profile import FREQUENCY, QUANTITIES
from firmware_io.obis import ObisCode

VOLTAGE_V = (80.0, 280.0)  # phase to neutral; an absent phase may show next to nothing
ABSENT_V = 30.0
FREQUENCY_HZ = (45.0, 65.0)
SHARE = 0.05
SLACK_W = 15.0
TELLING_W = 100.0  # below that power factor and resolution say nothing
NEEDED_S = 3_600.0
LONGEST_GAP_S = 900.0  # between two polls; over a longer one the integral says nothing
PRECISE = 0.2  # of the integral: with a wider tolerance nothing is proven yet
TELLING = 1 / 3  # of it: with a wider one nothing has been seen
SMALL_W = 50.0  # on average: what a wrong register hides of that is of no weight
SMALL_WINDOW_S, WINDOW_S, LONGEST_WINDOW_S = 4 * 3600.0, 86_400.0, 7 * 86_400.0
NO_NUMBER = 1e-20  # a float that is less and not zero is two halves of other numbers
UNSEEN_W, UNSEEN_SHARE = 3_000.0, 0.1  # a load that no poll has seen, and in how many intervals there is one
SIGMAS = 4.0
FAILURES = 3  # in a row: a load that changes between two registers makes one


class State(enum.Enum):
    """What is known of a profile."""

    PENDING = "not yet proven"
    CONSISTENT = "nothing speaks against it; too little has flowed to prove it"
    PROVEN = "proven"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """State, and the reasons in figures."""

    state: State
    reasons: tuple[str, ...]


def instant_faults(values: dict[ObisCode, float]) -> list[str]:
    """What is wrong with the values of one poll; empty where nothing is, or nothing can be said."""
    faults = [
        f"{name.label or name} is {value:g}: no meter shows that; word order or address is another one"
        for name, value in values.items()
        if value and abs(value) < NO_NUMBER
    ]
    volts = [values.get(name) for name in obis.VOLTAGE]
    for phase, volt in enumerate(volts, 1):
        if volt is not None and not VOLTAGE_V[0] <= volt <= VOLTAGE_V[1] and not (phase > 1 and 0 <= volt < ABSENT_V):
            faults.append(f"voltage L{phase} is {volt:g} V, expected {VOLTAGE_V[0]:g} to {VOLTAGE_V[1]:g} V")
    hertz = values.get(FREQUENCY)
    if hertz is not None and not FREQUENCY_HZ[0] <= hertz <= FREQUENCY_HZ[1]:
        faults.append(f"frequency is {hertz:g} Hz, expected {FREQUENCY_HZ[0]:g} to {FREQUENCY_HZ[1]:g} Hz")
    power = values.get(obis.POWER_IMPORT)
    if power is None or faults:
        return faults
    apparent = [
        (abs(volt * amperes), values.get(QUANTITIES[f"power_factor_l{phase}"][0]))
        for phase, (volt, name) in enumerate(zip(volts, obis.CURRENT, strict=True), 1)
        if volt is not None and (amperes := values.get(name)) is not None
    ]
    factor = values.get(obis.POWER_FACTOR)
    total = sum(one for one, _ in apparent)
    if not apparent or max(abs(power), total) < TELLING_W:
        return faults
    expected: float | None = None
    if all(one is not None for _, one in apparent):
        expected = sum(one * abs(own) for one, own in apparent if own is not None)
    elif factor is not None:
        expected = total * abs(factor)
    if expected is not None and abs(abs(power) - expected) > SHARE * max(abs(power), expected) + SLACK_W:
        faults.append(f"power is {power:g} W, but voltage times current times power factor is {expected:.0f} W")
    elif expected is None and abs(power) > (1 + SHARE) * total + SLACK_W:
        faults.append(f"power is {power:g} W, but voltage times current is only {total:.0f} VA")
    return faults


class Proof:
    """Gathers what one meter's polls say about its profile."""

    def __init__(self, resolution_wh: float, *, identified: bool = False) -> None:
        self._resolution_wh = resolution_wh
        self.identified = identified  # the meter has said by its own register what it is
        self._failures: list[str] = []
        self._failed_in_a_row = 0
        self._first_wh: float | None = None  # import at the start of the integral
        self._last: tuple[float, float] | None = None  # time, power
        self._out_since_s: float | None = None
        self._passed_s = 0.0
        self._integral_wh = self._variance = 0.0
        self._energy: tuple[State, str] = (State.PENDING, "energy has not been watched yet")

    @property
    def verdict(self) -> Verdict:
        """What is known now."""
        if self._failed_in_a_row >= FAILURES:
            return Verdict(State.REFUTED, tuple(self._failures))
        state, reason = self._energy
        if state is State.REFUTED:
            return Verdict(state, (reason,))
        if self.identified and state is State.PENDING:
            return Verdict(State.CONSISTENT, ("the meter's own identification is of this profile", reason))
        return Verdict(state, (reason,))

    def add(self, values: Sequence[Value]) -> None:
        """The values of one poll."""
        known = {value.obis: value.value for value in values}
        times = [value.heard_s for value in values]
        faults = instant_faults(known)
        self._failed_in_a_row = self._failed_in_a_row + 1 if faults else 0
        if faults:
            self._failures = faults
        power, imported = known.get(obis.POWER_IMPORT), known.get(obis.ENERGY_IMPORT)
        if power is None or imported is None or not times:
            return
        self._integrate(max(times), power, imported)

    def _integrate(self, time_s: float, power_w: float, imported_wh: float) -> None:
        last, self._last = self._last, (time_s, power_w)
        if last is None or self._first_wh is None or not 0 < time_s - last[0] <= LONGEST_GAP_S:
            self._first_wh = imported_wh
            self._passed_s = self._integral_wh = self._variance = 0.0
            self._out_since_s = None
            return
        hours = (time_s - last[0]) / 3600
        self._passed_s += time_s - last[0]
        self._integral_wh += (max(power_w, 0.0) + max(last[1], 0.0)) / 2 * hours
        unseen = UNSEEN_SHARE * UNSEEN_W**2 / 12
        self._variance += ((power_w - last[1]) ** 2 / 12 + (0.1 * power_w) ** 2 + unseen) * hours**2
        if self._passed_s >= NEEDED_S:
            self._judge(imported_wh - self._first_wh, time_s)

    def _judge(self, rose_wh: float, time_s: float) -> None:
        expected = self._integral_wh
        tolerance = SHARE * expected + 2 * self._resolution_wh + SIGMAS * math.sqrt(self._variance)
        said = (
            f"energy rose by {rose_wh:.0f} Wh in {self._passed_s / 3600:.1f} h, the integral of power is "
            f"{expected:.0f} Wh (tolerance {tolerance:.0f} Wh)"
        )
        small = expected <= SMALL_W * self._passed_s / 3600
        if abs(rose_wh - expected) > tolerance:
            self._out_since_s = time_s if self._out_since_s is None else self._out_since_s
            if time_s - self._out_since_s >= NEEDED_S:
                self._energy = (State.REFUTED, said)
            elif self._energy[0] is not State.PROVEN:
                self._energy = (State.PENDING, said)
            return
        self._out_since_s = None
        if expected > 0 and tolerance <= PRECISE * expected:
            self._energy = (State.PROVEN, said)
        elif self._energy[0] is not State.PROVEN:
            telling = small or tolerance <= TELLING * expected
            self._energy = (State.CONSISTENT if telling else State.PENDING, said)
        window_s = WINDOW_S if self._energy[0] is State.PROVEN else LONGEST_WINDOW_S
        if self._passed_s >= (SMALL_WINDOW_S if small else window_s):
            self._first_wh = None  # the next poll begins another window
