"""The `[simulation]` table of a site file: what the simulated building is like, who steals, and what goes wrong.

Plain frozen values and the checks that need no site: how they come out of TOML is the agent's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from firmware_io.simulator.building.thefts import TheftKind

FaultKind = Literal[
    # the link: what the line and the meter's modem do
    "silence",  # no answer at all
    "late",  # the whole answer comes `amount` seconds late
    "late_tail",  # the answer's second half comes `amount` seconds late
    "truncated",  # the last `amount` octets are missing
    "extra",  # `amount` octets of noise behind the answer
    "noise",  # each bit flips with probability `amount`
    "bad_hcs",
    "bad_fcs",
    "fcs_7e",  # answers are padded until their check sequence ends in 0x7E
    "shared_flag",  # an answer and an unasked frame share one flag
    "echo",  # the adapter hears what it sends
    "foreign_frame",  # another meter's frame ahead of the answer
    "wrong_source",  # the answer's source address is not the meter's
    "duplicate",  # the answer comes twice
    "dm",  # disconnected mode instead of the answer
    "frmr",
    "rnr",
    "inactivity",  # the link is dropped after `amount` seconds without a frame
    # limits of the meter
    "min_gap",  # reboots when asked again within `amount` seconds
    "single_association",  # another client or meter's association ends this one's
    "small_pdu",  # the server's largest APDU is `amount` octets
    "no_list",  # GET with list is refused
    "no_access",  # ACCESS is refused
    "no_blocks",  # general block transfer is not offered
    "lost_block",  # a general block of the answer does not come
    "list_partial",  # one of the listed attributes fails
    "push",  # a DataNotification ahead of the answer
    "exception",  # exception-response
    "service_error",  # confirmed-service-error
    "wrong_invoke_id",
    "endless_blocks",  # a GET is answered in blocks of one octet, without end
    "one_frame",  # a request in more than one HDLC frame is answered with FRMR
    "malformed",  # an APDU whose data make no sense; with `obis`, only those of that register
    "odd_type",  # an octet string in the place of the number of the register `obis`
    "nan",  # not-a-number in the place of the number of the register `obis`
    "compact_template",  # compact data do not fit their template
    "no_range",  # selective access by range is refused with an exception-response
    "no_selection",  # selective access is refused, all of it
    "lifo",  # profiles give their newest row first
    "undefined_object",  # object-undefined for the register `obis`, or for all
    # security
    "refusal",  # the association is refused: authentication failed
    "undeciphered",  # the AARQ is answered with an exception-response: deciphering error
    "counter_zero",
    "counter_lost",  # the invocation counter restarts, as after a power cut
    "counter_low",
    "wrong_key",
    "wrong_title",
    "flipped_tag",
    "replay",
    "plaintext",
    # time
    "clock_drift",  # `amount` seconds a day
    "clock_jump",  # `amount` seconds at the onset
    "clock_invalid",
    "deviation_reversed",
    "deviation_undefined",  # 0x8000
    "dst_doubled",
    "dst_missing",
    "profile_gap",  # no rows while it lasts
    # values
    "scaler_changed",
    "scaler_absent",
    "int32",
    "uint64",
    "rollover",  # the register has `amount` digits of kWh
    "frozen",  # the energy register stands still while it lasts, then catches up
    "decrease",  # the register falls by `amount` kWh
    "twin",  # a second meter at the same address answers: other serial number, register `amount` Wh higher
    "replaced",  # a new meter: other serial number, register at zero
    "ct_ratio",  # shows `amount` times the energy
    # tamper
    "cover",
    "terminal_cover",
    "magnet",
    "reverse",
    "neutral_current",  # neutral and phase current differ
    "phase_loss",
    "log_overflow",
]
FAULTS: tuple[str, ...] = get_args(FaultKind)

PushForm = Literal[
    "plain", "general", "unicast", "broadcast", "wrapped", "agreed", "static", "signed", "ciphered-signed", "event"
]

_RELATIVE = re.compile(r"([+-])\s*(\d+(?:\.\d+)?)\s*([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment_s(text: str, start_s: float) -> float:
    """UTC seconds of an RFC 3339 time, or of one relative to the simulation's start: `+2d`, `+36h`, `-90m`.

    Raises:
        ValueError: neither of the two.
    """
    relative = _RELATIVE.fullmatch(text.strip())
    if relative:
        sign, number, unit = relative.groups()
        return start_s + (1 if sign == "+" else -1) * float(number) * _UNIT_S[unit]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f'"{text}" is not a time; expected 2026-03-01T18:00:00Z, or +2d, +36h after the start'
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Theft:
    """[[simulation.theft]]: somebody takes energy past a meter, or ahead of all of them ("tap").

    `share` is what the meter still shows: of the load (scale), of its earlier mean (mean). `power_w` is the limit
    (clip), what is taken in the evening (evening), or the tap's.
    """

    kind: TheftKind
    meter: str | None = None  # for a tap: the zone's main meter, None is the first zone's
    onset: str = "+0s"
    until: str | None = None
    share: float | None = None
    power_w: float | None = None
    half_day: bool = False  # the tap runs from 20 h to 8 h only, at twice the power
    neutral_too: bool = False  # both conductors are bypassed, so that phase and neutral current agree
    cover_event: bool = False  # the meter's cover was opened for it, and its log says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """[[simulation.fault]]: one thing that a meter or its line does wrong; `FaultKind` says what `amount` is."""

    kind: FaultKind
    meter: str | None = None  # None: all of them
    onset: str = "-1000w"
    until: str | None = None
    probability: float = 1.0  # of each answer, for faults of link, limits and security
    amount: float | None = None
    obis: str | None = None
    form: PushForm = "general"  # of pushes, where the meter ciphers


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """[simulation]: the building behind the site file's meters. Every key has a default that makes sense."""

    seed: int = 1
    start: str | None = None  # simulated time at the start; the wall's by default
    installed: str | None = None  # when the meters were installed: registers count from there
    speed: float = 1.0
    history_days: float = 65.0  # of load profile in each meter
    loads: str | None = None  # a CSV instead of the household model
    pace: bool = True  # octets take their time at the bus's baud rate
    push_s: float = 0.0  # each DLMS meter pushes so often by itself, host seconds; 0 is never
    push_form: PushForm = "general"  # how it protects that, where it ciphers
    turnaround_s: float = 0.02  # between the end of a question and the start of its answer
    burden_w: float = 0.7  # each sub-meter's own consumption
    common_w: float = 0.0  # unmetered lights and pumps of the house, two thirds of it at night
    copper: float = 0.012  # copper loss of the riser, as a share of the mean load
    solar_w: float = 2500.0  # peak of the panels at meters that the zone lists under `export`
    compress: bool = True  # null-compressed time stamps in load profiles
    theft: list[Theft] = field(default_factory=list)
    fault: list[Fault] = field(default_factory=list)

    def problems(self, meters: list[str], mains: list[str], start_s: float) -> list[tuple[tuple[str | int, ...], str]]:
        """What is wrong with it for a site of these meters: (key under [simulation], message) for each."""
        wrong: list[tuple[tuple[str | int, ...], str]] = []

        def need(ok: bool, key: tuple[str | int, ...], message: str) -> None:
            if not ok:
                wrong.append((key, f"{key[-1]}: {message}"))

        def time(text: str | None, key: tuple[str | int, ...]) -> None:
            try:
                if text is not None:
                    moment_s(text, start_s)
            except ValueError as error:
                wrong.append((key, f"{key[-1]} = {error}"))

        need(self.seed >= 0, ("seed",), f"expected 0 or more, got {self.seed}")
        need(self.speed > 0, ("speed",), f"expected a number above 0, got {self.speed:g}")
        need(1 <= self.history_days <= 400, ("history_days",), f"expected 1 to 400, got {self.history_days:g}")
        need(0 <= self.copper <= 0.1, ("copper",), f"expected 0 to 0.1, a share of the load, got {self.copper:g}")
        need(0 <= self.turnaround_s <= 10, ("turnaround_s",), f"expected 0 to 10, got {self.turnaround_s:g}")
        for name in ("burden_w", "common_w", "solar_w", "push_s"):
            need(getattr(self, name) >= 0, (name,), f"expected 0 or more, got {getattr(self, name):g}")
        time(self.start, ("start",))
        time(self.installed, ("installed",))
        for n, theft in enumerate(self.theft):
            time(theft.onset, ("theft", n, "onset"))
            time(theft.until, ("theft", n, "until"))
            names = mains if theft.kind == "tap" else [m for m in meters if m not in mains]
            known = theft.meter in names or (theft.kind == "tap" and theft.meter is None)
            what = "main meters" if theft.kind == "tap" else "sub-meters"
            need(known, ("theft", n, "meter"), f'"{theft.meter}" is none of the {what}: {_some(names)}')
            share = 0.0 if theft.share is None else theft.share
            need(0 <= share <= 1, ("theft", n, "share"), f"expected 0 to 1, got {share:g}")
            need((theft.power_w or 0) >= 0, ("theft", n, "power_w"), f"expected 0 or more, got {theft.power_w}")
        for n, fault in enumerate(self.fault):
            time(fault.onset, ("fault", n, "onset"))
            time(fault.until, ("fault", n, "until"))
            known = fault.meter is None or fault.meter in meters
            need(known, ("fault", n, "meter"), f'"{fault.meter}" is no meter of the site: {_some(meters)}')
            chance = fault.probability
            need(0 < chance <= 1, ("fault", n, "probability"), f"expected above 0, up to 1, got {chance:g}")
        return wrong


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
