"""What detection and attribution say of one zone at one instant: the only thing that leaves the core.

Times are UTC seconds since the epoch, powers W, energies kWh. It knows nothing of alerts, ids or wire forms.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class LossKind(enum.StrEnum):
    """What kind of imbalance the evidence speaks of; the values are those of the alert on the wire."""

    NON_TECHNICAL_LOSS = "non_technical_loss"  # energy is missing, by whatever way
    UNDER_REGISTRATION = "under_registration"  # a named meter shows less than flows through it
    BYPASS = "bypass"  # a named meter is bypassed: it shows next to nothing
    UPSTREAM_TAP = "upstream_tap"  # taken ahead of all sub-meters: none of them
    BALANCE_SURPLUS = "balance_surplus"  # the sub-meters show more than the main meter


@dataclass(frozen=True, slots=True)
class Suspect:
    """One sub-meter and the posterior probability that the missing energy passes it by."""

    meter: str
    probability: float
    mechanism: str = ""


@dataclass(frozen=True, slots=True)
class Residual:
    """The balance over the window the evidence speaks of."""

    energy_kwh: float
    percent: float
    uncertainty_kwh: float
    technical_loss_kwh: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """State of one zone's alarm. `active` is latched: true from the alarm until the loss is gone.

    `episode` counts the zone's losses of this sign since the detector was made: it is part of what makes an alert's
    identity stable while `onset_s` is still being refined. A loss that has ended and is back keeps its episode.
    `loss_w_interval` and `onset_window_s` are 95 % intervals. `suspects` are in order of decreasing probability; with
    `upstream_probability` (a load ahead of the sub-meters) and `unexplained_probability` (none of these: a clock, a
    roof, a main meter, or what nobody has thought of) all flats' probabilities sum to 1 (suspects below 0.5 % may be
    left out). Whoever names a flat compares with the set confidence first: below it, the loss is "not attributed".
    """

    zone: str
    time_s: float
    active: bool
    episode: int
    kind: LossKind
    onset_s: float
    onset_window_s: tuple[float, float]
    loss_w: float
    loss_w_interval: tuple[float, float]
    loss_kwh: float
    suspects: tuple[Suspect, ...]
    upstream_probability: float
    residual: Residual
    coverage: float
    question: bool = False  # a common load that nobody meters would explain it: to be asked for before anyone is named
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    model_score: float | None = None
    unexplained_probability: float = 0.0
    merged_into: int | None = None  # it ends because it is one with the loss of this episode, which goes on
    returned: bool = False  # it ends because all that was missing is back
    main_meter: bool = False  # it follows the loads of many flats: the main meter errs, and nobody is suspected
