"""What one poll of one meter costs on the line, by protocol: exchanges and octets, as the drivers send and get them.

It owns the arithmetic of a half-duplex line; the octets are held against the drivers by a test. It opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

TURNAROUND_S = 0.02  # from the end of a request to the first octet of the answer: what quick meters take
TCP_EXCHANGE_S = 0.002  # a request and its answer over a local network, and the work at both ends


@dataclass(frozen=True, slots=True)
class PollCost:
    """Of one poll: requests that wait for an answer, octets in both directions."""

    exchanges: int
    octets: int

    def least_s(self, baud: int, parity: str, *, tcp: bool) -> float:
        """The shortest time it takes, seconds; over TCP octets cost nothing that counts."""
        if tcp:
            return self.exchanges * TCP_EXCHANGE_S
        bits = 10 if parity == "N" else 11
        return self.exchanges * TURNAROUND_S + self.octets * bits / baud


# (protocol, with live values) -> cost of a single-phase sub-meter's poll.
_COSTS = {
    ("dlms", True): PollCost(1, 200),
    ("dlms", False): PollCost(1, 200),
    ("dlt645", True): PollCost(8, 343),
    ("dlt645", False): PollCost(2, 88),
    ("dlt698", True): PollCost(1, 216),
    ("dlt698", False): PollCost(1, 125),
    ("modbus", True): PollCost(4, 152),
    ("modbus", False): PollCost(1, 21),
    ("mbus", True): PollCost(2, 60),
    ("mbus", False): PollCost(2, 60),
}
_DLMS_ONE_BY_ONE = PollCost(10, 522)  # a meter that takes no list of registers


def poll_cost(protocol: str, *, live: bool = True, with_list: bool = True) -> PollCost:
    """What a poll costs; `live`: power, voltages and currents too, `with_list`: a DLMS meter that takes lists."""
    return _DLMS_ONE_BY_ONE if protocol == "dlms" and not with_list else _COSTS[protocol, live]
