"""Why the paper's claims hold or fail on this CPU, computed from what was counted and timed.

Turns cells into lines: what a variant moves and multiplies in a cycle beside what a core can do,
what horizontal sums take, and which variants are the same machine code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import simdflow as sf
from simdflow.peaks import Peaks

from .study_claims import PAPER, TIE, Layer, by_layer, fastest, named, ratios
from .study_measure import Cell
from .study_variants import BOTH, LEFT, NAIVE, OWN

NEAR = 0.7  # of what L1 gives: the loads are the limit


def reasons(cells: Sequence[Cell], limits: Mapping[str, Peaks]) -> list[str]:
    """A few lines for each type and target."""
    found = []
    for (dtype, target), layers in by_layer(cells).items():
        dense = [x for x in layers if next(iter(x.values())).case.op == "conv2d"]
        if dense:
            found += _of(dtype, target, dense, limits[target])
    return found


def _of(dtype: str, target: str, layers: Sequence[Layer], limit: Peaks) -> list[str]:
    head = f"{dtype} {target}"
    basic = [x[f"OS {NAIVE}"] for x in layers if f"OS {NAIVE}" in x]
    both = [c for x in layers if (c := fastest(x, "OS", BOTH))]
    weight = [x[f"WS {NAIVE}"] for x in layers if f"WS {NAIVE}" in x]
    if not basic or not both or not weight:
        return []
    reads = limit.bandwidth[0].gb_per_s / limit.clock_ghz / (sf.target(target).width / 8)
    busy, naive = (median(_products(c) / _peak(c, limit) for c in x) for x in (both, basic))
    moving, left = median(map(_moved, basic)), max(100 * (1 - busy), 0)
    lines = [
        f"{head}: memory operations a product: OS basic {_per_product(basic):.2f}, OS with both "
        f"{_per_product(both):.2f}, WS basic {_per_product(weight):.2f}; a cycle: {moving:.2f}, "
        f"{median(map(_moved, both)):.2f}, {median(map(_moved, weight)):.2f}, and L1 gives "
        f"{reads:.1f} vectors: loads "
        + ("limit the basic program" if moving >= NEAR * reads else "are not its limit"),
        f"{head}: products at this core's peak rate would take {100 * naive:.0f} % of the time of "
        f"OS basic, {100 * busy:.0f} % of OS with both: more reuse could save {left:.0f} % at most",
    ]
    sums = [c.horizontal / c.products for c in both if c.products]
    own = [x[OWN] for x in layers if OWN in x]
    if own:
        lines.append(
            f"{head}: horizontal sums: one for {1 / median(sums):.0f} products with OS; simdflow's "
            f"default has {sum(c.horizontal > 0 for c in own)} layers with any, and "
            f"{median(c.broadcasts / c.products for c in own if c.products):.2f} broadcasts a "
            f"product"
        )
    lines += _losses(head, layers)
    return lines


def _losses(head: str, layers: Sequence[Layer]) -> list[str]:
    """Where OS with both is not the best: who is, and what it has fewer of."""
    beaten = []
    for layer in layers:
        mine, best = fastest(layer, "OS", BOTH), fastest(layer)
        if mine and best and mine.us and best.us and best.us * TIE < mine.us:
            beaten.append((best.name, mine.us / best.us, best.operations / mine.operations))
    if not beaten:
        return []
    names = Counter(name for name, _, _ in beaten).most_common(3)
    shown = ", ".join(f"{name} {n}" for name, n in names)
    return [
        f"{head}: OS with both is beaten on {len(beaten)} of {len(layers)} layers ({shown}), by "
        f"{median(t for _, t, _ in beaten):.2f}x; the winner has "
        f"{median(o for _, _, o in beaten):.2f} times its memory operations"
    ]


def _peak(c: Cell, limit: Peaks) -> float:
    """Products (instructions) a cycle of one core that does nothing else."""
    rate = limit.bit_gop / 2 if c.case.dtype == "bit" else limit.i8_gmac
    return rate / limit.clock_ghz / (c.case.macs / c.products)


def _cycles(c: Cell) -> float:
    assert c.us is not None
    return c.us * c.clock_ghz * 1e3


def _products(c: Cell) -> float:
    return c.products / _cycles(c)


def _moved(c: Cell) -> float:
    return c.operations / _cycles(c)


def _per_product(cells: Sequence[Cell]) -> float:
    return median(c.operations / c.products for c in cells if c.products)


def same_code(cells: Sequence[Cell]) -> list[str]:
    """Pairs of variants that are the same machine code, and in how many layers."""
    found = []
    for (dtype, target), layers in by_layer(cells).items():
        pairs: Counter[tuple[str, str]] = Counter()
        for layer in layers:
            mine = [c for c in layer.values() if c.anchor in PAPER]
            for i, a in enumerate(mine):
                pairs.update((a.name, b.name) for b in mine[i + 1 :] if a.code == b.code)
        found += [
            f"same machine code, {dtype} {target}: {a} = {b} in {n} of {len(layers)} layers"
            for (a, b), n in sorted(pairs.items())
        ]
    return found or ["same machine code: no two variants of any layer"]


def by_itself(cells: Sequence[Cell]) -> list[str]:
    """What LLVM makes of the naive OS program when nothing holds it."""
    found = []
    for (dtype, target), layers in by_layer(cells).items():
        values = ratios(layers, named(f"OS {NAIVE}"), named(f"OS {LEFT}"))
        if values:
            found.append(
                f"without barriers LLVM keeps weights by itself, {dtype} {target}: OS basic "
                f"becomes {median(values):.2f}x as fast ({min(values):.2f} to {max(values):.2f})"
            )
    return found
