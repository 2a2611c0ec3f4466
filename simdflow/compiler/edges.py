"""Edges: where a window reads rows that are zero, and the products that are left out there.

before   for oh: for kh: acc += x[oh + kh, ...] * w[kh, ...]      (x: a row of zeros on each side)
after    oh = 0: for kh in 1, 2: ...;  for oh in 1..5: for kh: ...;  oh = 6: for kh in 0, 1: ...

One of three rows, twice: of a 3x3 layer of 7x7 pixels a tenth is left out. Knows nothing of
registers, and writes no code.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

from ..dsl.nest import LoopNest, Run, integer

# The part of all products that must fall away: each run of rows has code of its own, and takes its
# time to compile. Of 3 rows, images of up to 22 reach it.
WORTH = 0.03


def edges(nest: LoopNest) -> tuple[tuple[str, tuple[Run, ...]], ...]:
    """(grid axis, its runs) of a product nest with indices in axes, where something is gained."""
    found = ((a.name, _runs_of(nest, a.name)) for a in nest.grid)
    return tuple((axis, runs) for axis, runs in found if runs)


def _runs_of(nest: LoopNest, axis: str) -> tuple[Run, ...]:
    r, extents = nest.reduction, nest.extents
    assert r is not None
    reduced = {a.name for a in r.axes if a.kind == "reduce"}
    for load in nest.loads():
        kind = nest.type_of(load.operand)
        for index, n, (before, after) in zip(load.index, kind.shape, kind.zeros, strict=False):
            names = [t for t, _ in index.terms if isinstance(t, str)]
            if len(names) != 2 or len(index.terms) != 2 or axis not in names:
                continue
            (other,) = set(names) - {axis}
            if other in reduced and (before or after):
                c, k = integer(index.coefficient(axis)), integer(index.coefficient(other))
                inside = before - integer(index.const), n - after - integer(index.const)
                found = _runs(c, k, extents[axis], extents[other], inside)
                if found:
                    return tuple(Run(a, b, other, first, count) for a, b, first, count in found)
    return ()


@lru_cache(maxsize=256)
def _runs(
    c: int, k: int, extent: int, steps: int, inside: tuple[int, int]
) -> tuple[tuple[int, int, int, int], ...]:
    """(start, stop, first, count): neighbours i with the same steps j for which c*i + k*j lies
    inside; () where too little lies outside, or nothing inside.
    """

    def live(i: int) -> tuple[int, int]:
        found = [j for j in range(steps) if inside[0] <= c * i + k * j < inside[1]]
        return (found[0], len(found)) if found else (0, 0)

    found, start = [], 0
    for (first, count), group in itertools.groupby(map(live, range(extent))):
        stop = start + len(list(group))
        found.append((start, stop, first, count))
        start = stop
    kept = sum((stop - start) * count for start, stop, _, count in found)
    enough = extent * steps - kept >= WORTH * extent * steps
    return tuple(found) if enough and all(count for *_, count in found) else ()
