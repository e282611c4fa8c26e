"""Live: what a zone draws now, for somebody who looks."""

from __future__ import annotations

from typing import Literal

from agent.wire.values import Body, Time


class Live(Body, frozen=True, kw_only=True):
    """`live/{zone}`, at most once a second and only for as long as a signed command asks: the balance of the moment.

    Powers in W, `null` where a meter was not read. `by` says what they are made of: the meters' own power registers
    ("power"), or how far the energy registers moved in the last `span_s` seconds ("energy"). `difference_w` is main
    minus sum, technical loss included; it is known to `uncertainty_w` (standard): registers have steps, and are read
    one after the other, `skew_s` apart at most. It is `null` by "power": how far a load moves within `skew_s`, nobody
    knows. `meters` is filled only where the command asked for it.
    """

    zone: str
    time: Time
    by: Literal["power", "energy"]
    span_s: float
    skew_s: float
    main_w: float | None
    sum_w: float | None
    difference_w: float | None
    uncertainty_w: float | None
    meters: dict[str, float | None] = {}
