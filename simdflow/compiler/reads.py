"""Reads: what the tiles of a depthwise product load, and bring from beyond L1.

Both sides of the product run along the lanes, so that a tile loads a window of pixels, which its
neighbours share with it. By arithmetic on the tile alone, for rough.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..dsl.dataflow import Dataflow
from ..dsl.nest import Load, LoopNest, integer
from ..targets import Target
from .complete import lanes_of
from .flatten import fuse_named, value_operands
from .tile import tile_keys
from .traffic import KEPT, LINE, SCATTERED, crowding
from .weave import whole


@dataclass(frozen=True)
class Reads:
    """What a tile of a product reads besides one vector of each side.

    loads   for each sum and step; 0 where a side does not run along the lanes
    moves   cycles from L2 for each sum
    """

    loads: float = 0.0
    moves: float = 0.0


def window_reads(
    flat: LoopNest,
    flow: Dataflow,
    target: Target,
    last: str,
    nr: int,
    g: int,
    known: dict[object, int],
) -> Reads:
    """What a tile of `nr` vectors of lanes reads.

    last    the output's axis before the lanes
    g       elements that one instruction sums
    known   registers that tiles of this nest need, filled in here
    """
    nest = fuse_named(flat, flow)
    r = nest.reduction
    pair = value_operands(r.value) if r else None
    assert r is not None and pair is not None
    pixel, weight = sorted(pair, key=lambda x: -len(x.index[-1].axes))
    tile, unroll, lanes = dict(flow.tile), dict(flow.unroll), lanes_of(flat, target.width)
    sums = math.prod(n for a, n in tile.items() if a != flow.lanes) * nr
    passes = math.prod(-(-nest.extents[a.name] // unroll.get(a.name, 1)) for a in r.axes)
    taps = math.prod(nest.extents[a.name] for a in r.axes)
    woven = g == 4 and whole(tile[flow.lanes], lanes)
    keys = _keys(nest, flow, pixel, lanes, g, known)
    each = 1.5 if woven else {1: 1.0, 2: 2.0}.get(max(g, 1), 3.0)  # rows are put together
    loads = keys * each / (taps / max(g, 1) / passes) / sums
    if all(n == 1 for _, n in flow.auxiliary):  # weights read again, as far as registers run out
        needed = nr * math.prod(
            nest.extents[a] if a != flow.group else -(-nest.extents[a] // g) for a in unroll
        )
        loads += max(0.0, 1 - (target.registers - sums - 2) / needed)
    core, caches = target.core, target.core.caches
    sides = [nest.type_of(name) for name in (pixel.operand, weight.operand, nest.out.name)]
    per_pixel, per_weight, per_sum = (max(t.scalar.bits, 8) // 8 for t in sides)
    total = sum(t.size * max(t.scalar.bits, 8) // 8 for t in sides)
    if total <= caches.l1:
        return Reads(loads)
    window = keys / nr * (g if g > 1 else 1) * passes  # pixels of the tile
    vector = nr * lanes
    # A pass over the lanes reads its lines whole, in the end; one over the pixels each time.
    lanes_inside = not flow.order and not woven
    line = 1 if lanes_inside else LINE
    read = window * (-(-per_pixel * vector // line) * line)
    beside = taps * per_weight * vector, sums / nr * (-(-per_sum * vector // line) * line)
    terms = pixel.index[-1].terms
    steps = [integer(c) * per_pixel for t, c in terms if t != flow.lanes]
    apart = min((n for n in steps if n >= LINE), default=LINE)  # neighbouring pixels
    way = caches.l1 // caches.ways
    sets = -(-per_pixel * vector // LINE) * min(window, way / math.gcd(apart, way))
    if lanes_inside:  # a pass over the lanes, then the next pixels
        times = -(-nest.extents[flow.lanes] // vector)
        kept = (read + sum(beside)) * times <= caches.l1
        again = last if kept else ""
        moved = beside[1] + (0.0 if kept else beside[0])
    else:
        again, moved = flow.order[-1] if flow.order else last, beside[1]
    n = tile.get(again, 1)
    if again and n < nest.extents[again]:  # the next tile finds a part of the window
        twice = replace(flow, tile=tuple({**tile, again: min(2 * n, nest.extents[again])}.items()))
        fresh = _keys(nest, twice, pixel, lanes, g, known) / keys - 1
        between = 1 - fresh if flow.order else 1.0  # of the window, from a line to itself
        room = read * between <= KEPT * sets * caches.ways * LINE
        if lanes_inside or (room and read + sum(beside) <= caches.l1):
            read *= fresh
    moved += read
    moves = moved * crowding(sets) / core.l2_bytes / sums
    if total > caches.l2:  # once from L3
        share = min(1.0, total / caches.l2 - 1) * total / (sides[2].size / lanes)
        moves += share * ((1.0 if lanes_inside else SCATTERED) / core.l3_bytes - 1 / core.l2_bytes)
    return Reads(loads, moves)


def _keys(
    nest: LoopNest, flow: Dataflow, load: Load, lanes: int, g: int, known: dict[object, int]
) -> int:
    place = flow.tile, flow.unroll, flow.group
    if place not in known:
        known[place] = tile_keys(nest, flow, load, lanes, g)
    return known[place]
