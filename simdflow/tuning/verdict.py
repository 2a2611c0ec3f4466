"""Verdict: which dataflow wins and why, in words, from the parts of the cost model.

Turns predicted counts and measured times into sentences; where the cost model sees no reason for a
measured difference, the sentence says so. It predicts and measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..compiler.cost import Cost
from ..dsl.dataflow import Dataflow
from ..targets import Target

if TYPE_CHECKING:
    from .explore import Variant

# What a kernel can wait for, in the words of the reports.
BOUNDS = {
    "products": "products",
    "arithmetic": "shuffles, conversions and other arithmetic",
    "loads": "loads",
    "stores": "stores",
    "waiting": "sums that wait for one another, and ends of loops",
    "caches": "caches",
}
WAITING = 0.3  # share of the issue cycles from which on it is what binds
ALIKE = 1.05  # parts within 5 % of each other are no reason


@dataclass(frozen=True)
class Parts:
    """Cycles of a call by what takes them, each as if it were alone.

    products    multiplications and dot products
    arithmetic  all arithmetic together, or the shuffles in it
    waiting     cycles in which no kind of instruction is what holds the others up
    """

    products: float
    arithmetic: float
    loads: float
    stores: float
    waiting: float
    caches: float

    @property
    def bound(self) -> str:
        """The part that decides: a key of BOUNDS."""
        kinds = ("products", "arithmetic", "loads", "stores")
        busy = max(getattr(self, name) for name in kinds)
        if self.caches > busy + self.waiting:
            return "caches"
        if self.waiting > WAITING * (busy + self.waiting):
            return "waiting"
        return max(kinds, key=lambda name: getattr(self, name))


def parts(target: Target, cost: Cost) -> Parts:
    """The cycles of a cost: instructions by port over the target's rates."""
    taken = {kind: n / target.rate(kind) for kind, n in cost.ports}
    every = cost.arithmetic / target.rate("other")
    products = taken.get("dot", 0.0)
    other = max(every, taken.get("shuffle", 0.0))
    loads = taken.get("load", 0.0) + taken.get("broadcast", 0.0)
    stores = taken.get("store", 0.0)
    waiting = max(0.0, cost.issue - max(products, other, loads, stores))
    return Parts(products, other, loads, stores, waiting, cost.traffic)


def short(flow: Dataflow) -> str:
    """A dataflow in as few words as tell it from others: `out +w6,x6 | oc*48 ow*3 | kw__ic/4`."""
    kept = "".join(f"{',' if i else ' +'}{a}{n}" for i, (a, n) in enumerate(flow.auxiliary))
    words = [f"{flow.anchor}{kept}", f"lanes {flow.lanes or 'default'}"]
    for name in ("tile", "block", "unroll"):
        sizes: Sequence[tuple[str, int]] = getattr(flow, name)
        if sizes:
            words.append(f"{name} {' '.join(f'{a}:{n}' for a, n in sizes)}")
    words += [f"{n} {v}" for n, v in (("group", flow.group), ("width", flow.width)) if v]
    if flow.order:
        words.append(f"order {'>'.join(flow.order)}")
    return "; ".join(words)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: the correlation of the ranks, equal values sharing theirs; None where one side
    has no order, or there are fewer than three pairs.
    """
    if len(a) < 3:
        return None
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    x, y = (r - r.mean() for r in ranks)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else None


def verdict(ranked: Sequence[Variant], measured: bool) -> tuple[str, ...]:
    """Sentences about the first of `ranked`, its runner-up, each other anchor's best, and what
    auxiliary registers gain. All are measured, or none is.
    """
    if not ranked:
        return ()
    best = ranked[0]
    verb = "measured" if measured else "predicted"
    bound = best.parts.bound
    said = [
        f"Fastest ({verb}): {short(best.flow)}, {best.time_us:.2f} us. By the cost model it is "
        f"bound by {BOUNDS[bound]}: {_cycles(best.parts)}."
    ]
    if len(ranked) > 1:
        said.append(f"Runner-up: {_against(best, ranked[1])}")
    firsts: dict[str, Variant] = {}
    for v in ranked:
        firsts.setdefault(v.flow.anchor, v)
    for anchor, v in firsts.items():
        if v not in ranked[:2]:
            said.append(f"Best with anchor {anchor}: {_against(best, v)}")
    said += _auxiliary([v for v in ranked if v.flow.anchor == best.flow.anchor])
    return tuple(said)


def _cycles(p: Parts) -> str:
    shown: Mapping[str, float] = vars(p)
    return ", ".join(f"{name} {n / 1e3:.1f}k" for name, n in shown.items()) + " cycles"


def _against(best: Variant, other: Variant) -> str:
    """How much longer another takes, and the part of its cost that grows the most."""
    factor = other.time_us / best.time_us
    if 0 < factor - 1 < max(_spread(best), _spread(other)):
        return f"{short(other.flow)}, as fast within the spread of the calls."
    longer = f"{factor:.2f} times the time" if factor >= 1.1 else f"{100 * (factor - 1):.1f} % more"
    return f"{short(other.flow)}, {longer}; {_reason(best, other)}."


def _spread(v: Variant) -> float:
    return (v.measurement.spread or 0.0) if v.measurement else 0.0


def _reason(best: Variant, other: Variant) -> str:
    if other.cycles < best.cycles * (1 + (ALIKE - 1) / 2):
        return (
            f"the cost model sees no reason, it predicts {other.cycles / best.cycles:.2f} times "
            "the cycles"
        )
    before, after = vars(best.parts), vars(other.parts)
    grown = max(after, key=lambda name: after[name] - before[name])
    many = after[grown] / before[grown] if before[grown] >= 1 else 0.0
    times = f"{many:.2g} times the" if many else "new"
    if grown == "waiting":
        return f"it waits longer ({after[grown] / 1e3:.1f}k cycles) for {BOUNDS['waiting']}"
    if grown == "caches":
        return (
            f"it moves {other.cost.far_bytes / max(best.cost.far_bytes, 1):.2g} times the bytes "
            "from beyond L1"
        )
    where = (
        ", as its sums live in memory" if other.plan.in_memory and not best.plan.in_memory else ""
    )
    bound = f"; it is bound by {BOUNDS[other.parts.bound]}" if other.parts.bound != grown else ""
    return f"it issues {times} {BOUNDS[grown]}{where}{bound}"


def _auxiliary(same: Sequence[Variant]) -> list[str]:
    """What auxiliary registers gain over the same anchor without them."""
    kept = next((v for v in same if any(n for _, n in v.flow.auxiliary)), None)
    bare = next((v for v in same if not any(n for _, n in v.flow.auxiliary)), None)
    if kept is None or bare is None:
        return []
    gain = 100 * (bare.time_us / kept.time_us - 1)
    if abs(gain) < 100 * max(0.01, _spread(kept), _spread(bare)):
        how = f"make no difference ({gain:+.1f} %)"
    else:
        how = f"gain {gain:.1f} %" if gain > 0 else f"cost {-gain:.1f} %"
    return [
        f"Auxiliary registers {how}: best with, against best without, anchor {kept.flow.anchor}."
    ]
