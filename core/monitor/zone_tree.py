"""A tree of zones: a loss belongs to the smallest zone that explains it.

Where a riser's main meter is a sub of the building's zone, the tree places a loss by itself: what is lost behind the
riser is metered by it. Where both zones list the same flats, the outer one sees the inner one's loss again, and stays
silent about it.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.evidence import Evidence, LossKind

SAME = 0.7  # share of the outer loss that inner zones have to explain


def nesting(parts: Mapping[str, tuple[str, frozenset[str]]]) -> dict[str, tuple[str, ...]]:
    """For each zone (main, subs), the zones whose subs all are its own subs too, and are fewer."""
    return {
        outer: tuple(inner for inner, (_, fewer) in parts.items() if inner != outer and fewer < subs)
        for outer, (_, subs) in parts.items()
    }


def smallest(evidence: Evidence, tree: Mapping[str, tuple[str, ...]], last: dict[str, float]) -> bool:
    """Whether `evidence` is to be told; `last` keeps the open losses in W, and is brought up to date.

    An outer zone whose loss is explained by its inner zones' is not told, unless it was before.
    """
    if evidence.kind is LossKind.BALANCE_SURPLUS:
        return True
    inner = sum(last[z] for z in tree.get(evidence.zone, ()) if z in last)
    if evidence.zone not in last and (not evidence.active or inner >= SAME * evidence.loss_w):
        return False
    if evidence.active:
        last[evidence.zone] = evidence.loss_w
    else:
        last.pop(evidence.zone, None)
    return True
