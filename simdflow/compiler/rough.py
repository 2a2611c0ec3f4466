"""Rough: the cycles of a product nest by arithmetic on its tile alone, before anything is planned.

Ranks hundreds of tiles, of which the best few are planned, lowered and counted (cost.py).
"""

from __future__ import annotations

from ..dsl.nest import Load, LoopNest, Reduction
from ..targets import Dot, Target
from .cost import OVERLAP, UNEVEN, late
from .flatten import value_operands
from .reads import Reads

# Instructions of one kind in a loop body: enough to hide the loop, few enough for the op cache.
BODY = 96
# Instructions that a sum ends with: scaled, rounded, narrowed, stored; or stored after one more.
NARROWED, STORED = 4.8, 2.0


def rough(
    target: Target,
    n_before: int,
    outer: int,
    n_last: int,
    mr: int,
    vectors: int,
    nr: int,
    steps: float,
    dot: Dot,
    sides: tuple[str, str],
    ends: float,
    reads: Reads,
) -> float:
    """Cycles of one product nest: each tile at its busiest port, plus what it costs besides.

    dot    the product; sides: the types of what has the lanes and of what has not
    ends   instructions that a sum ends with
    reads  what a tile reads besides
    """
    total = 0.0
    wide, narrow = (sum(dot.widening(s).values()) for s in sides)
    for h, th in _pieces(n_before, outer):
        for m, tm in _pieces(n_last, mr):
            for v, tv in _pieces(vectors, nr):
                dots = h * m * v
                loads = (2 * v if dot.widened else v) / target.rate("load")
                loads += h * m / target.rate("broadcast")
                loads = dots * reads.loads / target.rate("load") if reads.loads else loads
                step = max(dots * dot.uops / target.rate("dot"), loads)
                if dot.widened:
                    more = dots * (dot.uops + dot.adds) + v * wide + h * m * narrow
                    step = max(step, more / target.rate("other"))
                # A short reduction is one run with its epilogue, which overlaps with the next.
                # An accumulator alone is narrowed without a pack.
                short = steps * dots <= BODY
                part = 0.75 + 0.25 * late(dots * (steps + 5)) if short else 1.0
                end = (ends + (2 if v == 1 and ends > STORED else 0)) / target.rate("other")
                after = part * end * dots + (3 if short else 12)
                cycles = steps * (step if short else max(step, 4.0)) + after
                far = dots * reads.moves
                total += th * tm * tv * (max(cycles, far) + OVERLAP * min(cycles, far))
    return total * UNEVEN ** ((n_before % outer > 0) + (n_last % mr > 0) + (vectors % nr > 0))


def _pieces(n: int, size: int) -> list[tuple[int, int]]:
    """(size, how many) of whole tiles and the remainder."""
    return [(size, n // size)] * (n >= size) + ([(n % size, 1)] if n % size else [])


def product_sides(flat: LoopNest) -> tuple[Reduction, tuple[Load, Load]]:
    """The reduction and the sides of its product, where `candidates` found one."""
    r = flat.reduction
    pair = value_operands(r.value) if r else None
    assert r is not None and pair is not None
    return r, pair


def dot_of(target: Target, a: str, b: str, acc: str, g: int) -> Dot:
    """The product of these types, whichever side comes first."""
    return target.dot(a, b, acc, g) or target.dot(b, a, acc, g) or Dot(a, b, acc, g)


def sensible(n: int, most: int) -> set[int]:
    """Row tiles worth trying: of each number of tiles the smallest, so that they come out even."""
    return {size for size in range(1, min(n, most) + 1) if -(-n // -(-n // size)) == size}
