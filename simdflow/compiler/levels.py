"""Levels: the loops of a plan, outermost first, and how many of them are outside the accumulators.

Turns a nest and a completed dataflow into an order of loops with steps; what is inside one step is
the tile's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Load, LoopNest
from .flatten import value_operands


@dataclass(frozen=True)
class Level:
    """One loop to write: `axis` in steps of `step`; with `block`, over its cache blocks.

    repeat   steps that one pass of the loop takes, one after the other (an unrolled grid axis)
    """

    axis: str
    step: int
    block: bool = False
    repeat: int = 1


def sections(extent: int, step: int) -> tuple[tuple[int, int, int], ...]:
    """(start, stop, size): whole tiles, then the remainder as one smaller tile."""
    whole = extent - extent % step
    parts = [(0, whole, step)] if whole else []
    return tuple(parts + ([(whole, extent, extent - whole)] if whole < extent else []))


def passes(start: int, stop: int, step: int, repeat: int) -> tuple[tuple[int, int, int], ...]:
    """(start, stop, steps of a pass): passes of `repeat` steps, then what is left as one pass."""
    count = (stop - start) // step
    middle = start + count // repeat * repeat * step
    parts = [(start, middle, repeat)] if middle > start else []
    return tuple(parts + ([(middle, stop, count % repeat)] if middle < stop else []))


def levels_of(nest: LoopNest, flow: Dataflow, woven: bool) -> tuple[tuple[Level, ...], int, bool]:
    """Loops, outermost first; how many are outside the accumulators; if those are in memory."""
    grid = [a.name for a in nest.grid]
    reduced = [a.name for a in nest.reduction.axes] if nest.reduction else []
    r = nest.reduction
    if flow.order:
        rest = [a for a in (*grid, *reduced) if a not in flow.order]
        kinds = {a.name: a.kind for a in nest.axes}
        rest_grid = [a for a in rest if kinds[a] == "grid"]
        order = [*rest_grid, *flow.order, *(a for a in rest if kinds[a] != "grid")]
    elif flow.anchor == nest.out.name or r is None:
        order = [*(a for a in grid if a != flow.lanes), *reduced]
        if flow.lanes in grid:
            order.insert(0 if woven else _lanes_place(nest, flow), flow.lanes)
    else:
        loads = [x for x in nest.loads() if x.operand == flow.anchor]
        mine = set().union(*(i.axes for x in loads for i in x.index)) if loads else set()
        order = [a for a in (*grid, *reduced) if a in mine]
        order += [a for a in (*grid, *reduced) if a not in mine]
    _check_rows_outside(nest, order)
    steps = dict(flow.tile) | {a: n for a, n in flow.unroll if a in reduced}
    repeats = {a: n for a, n in flow.unroll if a in grid}
    blocks = dict(flow.block)
    compressed = {a.name for a in nest.axes if a.kind == "nonzeros"}
    levels = [Level(a, blocks[a], True) for a in order if a in blocks and a not in reduced]
    levels = [Level(a, blocks[a], True) for a in order if a in blocks and a in reduced] + levels
    levels += [Level(a, steps.get(a, 1), repeat=repeats.get(a, 1)) for a in order]
    extents = nest.extents
    live = [
        i
        for i, x in enumerate(levels)
        if x.axis in grid and (x.axis in blocks or extents[x.axis] > x.step)
    ]
    depth = max(live, default=-1) + 1
    # A compressed row may be empty, so that a loop over it never stands for "once".
    in_memory = any(
        x.axis in compressed
        or (x.axis in reduced and (blocks[x.axis] if x.block else x.step) < extents[x.axis])
        for x in levels[:depth]
    )
    return tuple(levels), depth, in_memory


def _check_rows_outside(nest: LoopNest, order: list[str]) -> None:
    """The nonzeros of a row are known only once the row is."""
    for a in nest.axes:
        late = [
            r for r in a.row.axes if a.kind == "nonzeros" and order.index(r) > order.index(a.name)
        ]
        if late:
            raise DataflowError(
                f"{nest.name}: order puts {a.name!r} outside {late[0]!r}, but it runs over the "
                f"nonzeros of row {a.row}. Put {late[0]!r} first."
            )


def _lanes_place(nest: LoopNest, flow: Dataflow) -> int:
    """Where the lanes' loop goes in the default order.

    Outermost, so that one panel of weights serves all pixels; but innermost where both sides of the
    product (or no product) run along the lanes: pixels are then read whole. A depthwise f32 layer
    of 14x14x512 took 32 us the first way, row by row, its pixels 2 KB apart and in two sets of L1
    (column by column is a candidate of its own). Woven tiles
    read whole lines, and gain by keeping a panel: 14x14x384 u8 took 3.9 us against 4.4.
    """
    r = nest.reduction
    sides = value_operands(r.value) if r else None
    shared = sides is None or all(
        flow.lanes in x.index[-1].axes for x in sides if len(x.index) == 1
    )
    return len(nest.grid) - 1 if shared else 0


def outside(nest: LoopNest, levels: tuple[Level, ...], load: Load) -> int:
    """How many levels are outside a load's registers: those of the axes that it mentions."""
    lengths = {x.axis: x.step for x in levels if not x.block}
    csr = nest.type_of(load.operand).storage == "csr"
    mine = {a for i in load.index for a in i.axes}
    last = 0
    for i, x in enumerate(levels, 1):
        runs = x.block or nest.extents[x.axis] > lengths[x.axis]
        if (runs and x.axis in mine) or (
            csr and next(a for a in nest.axes if a.name == x.axis).kind == "nonzeros"
        ):
            last = i
    return last
