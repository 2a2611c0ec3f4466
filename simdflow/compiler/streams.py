"""Streams: candidate dataflows of nests without a product: elementwise layers, pools, moves.

As many axes as possible are one, spread over the lanes; where memory is read across, a square of
registers is turned. Sizes are compared by choose.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..targets import Target
from .complete import lanes_of
from .flatten import extent_of, fused_run
from .program import Vec
from .traffic import LINE
from .turn import NEAR, PIECE, contiguous_axis, square

CROWD = 16  # cache lines in one set of L1


def streams(flat: LoopNest, target: Target, lanes_axis: str) -> Iterator[tuple[float, Dataflow]]:
    """Nests without a product: as many axes as possible fused into the lanes, few vectors each."""
    grid = [a.name for a in flat.grid]
    reduced = {a.name for a in flat.reduction.axes} if flat.reduction else set()
    fused = fused_run(flat, grid)
    axis = lanes_axis
    if lanes_axis not in reduced and fused and lanes_axis in fused[-1].split("__"):
        axis = fused[-1]
    lanes = lanes_of(flat, target.width)
    n = extent_of(flat, axis)
    inner = [a.name for a in flat.reduction.axes] if flat.reduction else []
    if flat.reduction is None:
        yield from _turned(flat, target, lanes_axis)
    for vectors in (1, 2, 4):
        if vectors > 1 and vectors * lanes > n + lanes - 1:
            continue
        tile = {axis: vectors * lanes} if axis not in reduced else {}
        unroll = {axis: vectors * lanes} if axis in reduced else {}
        for a in inner:
            if a != axis and flat.extents[a] <= 4:
                unroll[a] = flat.extents[a]
        yield float(-vectors), Dataflow(tile=tile, unroll=unroll, lanes=axis)


def _turned(flat: LoopNest, target: Target, lanes_axis: str) -> Iterator[tuple[float, Dataflow]]:
    """Elementwise nests that read an operand along another axis than they write: in squares that
    are turned round (turn.py), or along the operand's axis with the few elements between in one
    tile, which are interleaved when stored.

    The loop along the operand's axis is the innermost: its cache lines are used up before others
    come. Where the lines lie in few sets of L1, a square has fewer rows: u8 [256, 4096] takes 94 us
    with 16 and 176 us with 64, [64, 3136] 10 us and 6 us (one Zen 4 core).
    """
    extents, store = flat.extents, flat.store.index[-1]
    for load in flat.loads():
        along = contiguous_axis(flat, load, lanes_axis)
        if not along:
            continue
        n, kind = extents[lanes_axis], flat.type_of(load.operand).scalar
        if n <= NEAR and store.coefficient(along) == n:
            tile = {lanes_axis: n, along: lanes_of(flat, target.width)}
            yield -100.0, Dataflow(tile=tile, lanes=along)
        way = target.core.caches.l1 // target.core.caches.ways
        sets = way // math.gcd(load.index[-1].coefficient(lanes_axis) * kind.bits // 8, way)
        width = target.width
        while width > PIECE and (
            lanes_of(flat, width // 2) >= n
            or lanes_of(flat, width) > CROWD * min(sets, way // LINE)
        ):
            width //= 2
        lanes = lanes_of(flat, width)
        whole = square(Vec(kind.name, lanes))
        for columns in sorted({whole, whole // 2} - {0}):
            tile = {lanes_axis: lanes, along: columns}
            order = (lanes_axis, along)
            yield -float(columns), Dataflow(tile=tile, lanes=lanes_axis, order=order, width=width)
