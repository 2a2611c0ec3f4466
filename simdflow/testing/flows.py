"""Turns a bound nest and a target into a Hypothesis strategy for the dataflows that fit both.

It draws every field of Dataflow, with sizes near what a register file holds, and asks the planner;
what is refused is made simpler. Knows nothing of operands' values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from ..compiler.complete import default_lanes, lanes_of
from ..compiler.flatten import flatten, fusing_refused, value_operands
from ..compiler.period import period_of
from ..compiler.plan import plan
from ..dsl.dataflow import Dataflow, Sizes
from ..dsl.errors import DataflowError
from ..dsl.nest import Call, LoopNest
from ..targets import Target

# Steps of a body that are still quick to lower, to run as text and to compile.
MOST_STEPS = 48


def legal(nest: LoopNest, flow: Dataflow, target: Target) -> bool:
    """Whether the planner takes the dataflow for a bound nest on a target."""
    try:
        plan(flatten(nest, flow), flow, target)
    except DataflowError:
        return False
    return True


def dataflows(nest: LoopNest, target: Target) -> st.SearchStrategy[Dataflow]:
    """Legal dataflows of any bound nest: `dataflows(kernel.specialize(...).nest,
    sf.target("avx2"))`.

    Anchors, auxiliary registers, tiles, blocks, lanes, widths, groups, unrolling, loop orders,
    parallel axes and fused axes. Shrinks to `Dataflow()`, as far as that is legal.
    """

    @st.composite
    def drawn(draw: st.DrawFn) -> Dataflow:
        return _drawn(draw, nest, target)

    # A closure: Hypothesis prints a strategy with its arguments, and a target is a page long.
    return drawn()


def _drawn(draw: st.DrawFn, bound: LoopNest, target: Target) -> Dataflow:
    nest = flatten(bound, Dataflow())
    fused, role = _fused(draw, nest)
    repeating = role == "lanes"
    if role:
        nest = flatten(bound, Dataflow(lanes=fused) if repeating else Dataflow(group=fused))
    elif fused:
        nest = flatten(bound, Dataflow(unroll=((fused, 1),)))
    extents = nest.extents
    grid = [a.name for a in nest.grid]
    reduced = (
        [a.name for a in nest.reduction.axes if a.kind != "nonzeros"] if nest.reduction else []
    )
    names = [*grid, *(a.name for a in nest.reduction.axes)] if nest.reduction else grid

    product = value_operands(nest.reduction.value) if nest.reduction else None
    sides = [x.operand for x in product or ()]
    anchor = draw(st.sampled_from(["out", "out", *dict.fromkeys(sides)]))
    others = [s for s in dict.fromkeys(sides) if s != anchor]
    auxiliary = {s: draw(st.integers(0, 4)) for s in others if draw(st.booleans())}

    widths = [0, *(w for w in (128, 256, 512) if w <= target.width)]
    width = draw(st.sampled_from(widths))
    lanes = fused if repeating else draw(st.sampled_from(["", *grid, *reduced]))
    across = lanes or default_lanes(nest)
    group = fused if role == "group" else _group(draw, nest, reduced)
    vector = lanes_of(nest, width or target.width)
    if repeating:
        vector = math.lcm(vector, period_of(nest, fused))

    tile: dict[str, int] = {}
    steps = 1
    for axis in draw(st.lists(st.sampled_from(grid), unique=True, max_size=3)) if grid else []:
        count = draw(st.integers(1, max(1, min(6, extents[axis], MOST_STEPS // steps))))
        steps *= count
        tile[axis] = count * vector if axis == across else count
    unroll: dict[str, int] = {}
    for axis in draw(st.lists(st.sampled_from([*reduced, *grid]), unique=True, max_size=3)):
        most = 3 if axis in grid else 8
        count = draw(st.integers(1, max(1, min(most, extents[axis] + 1, MOST_STEPS // steps))))
        steps *= count
        unroll[axis] = count
    block: dict[str, int] = {}
    for axis in draw(st.lists(st.sampled_from([*grid, *reduced]), unique=True, max_size=2)):
        block[axis] = draw(st.integers(1, max(1, extents[axis])))
    order = tuple(draw(st.permutations(names))) if draw(_seldom()) else ()
    parallel = draw(st.sampled_from(["", *grid])) if draw(_seldom()) else ""
    named = {*tile, *unroll, *block, *order, lanes, group, parallel}
    if role == "group":
        unroll.pop(fused, None)  # an axis that jumps is whole
        block.pop(fused, None)
    elif fused and fused not in named:
        # An axis is fused by being named.
        (tile if fused in grid else unroll)[fused] = 1
    flow = Dataflow(
        anchor=anchor,
        auxiliary=tuple(auxiliary.items()),
        tile=tuple(tile.items()),
        block=tuple(block.items()),
        lanes=lanes,
        width=width,
        group=group,
        unroll=tuple(unroll.items()),
        order=order,
        parallel=parallel,
    )
    # What does not fit is made simpler until it does: too many draws would be lost otherwise.
    fitting = next((f for f in _simpler(flow) if legal(bound, f, target)), None)
    assume(fitting is not None)
    assert fitting is not None
    return fitting


def _simpler(flow: Dataflow) -> Iterator[Dataflow]:
    """The dataflow, then the same with one thing after another left out."""
    yield flow
    halved = replace(flow, tile=_halved(flow.tile, flow.lanes), auxiliary=())
    yield halved
    plain = replace(halved, tile=(), unroll=())
    yield plain
    yield replace(flow, order=())
    yield replace(plain, order=(), parallel="")
    yield replace(plain, order=(), parallel="", block=())
    yield replace(flow, lanes="", tile=())
    yield replace(flow, anchor="out", auxiliary=(), order=())
    yield replace(plain, anchor="out", order=(), parallel="", block=(), lanes="")
    yield Dataflow(anchor=flow.anchor, group=flow.group, unroll=flow.unroll)
    yield Dataflow(lanes=flow.lanes, block=flow.block)
    yield Dataflow(unroll=flow.unroll)


def _halved(sizes: Sizes, lanes: str) -> Sizes:
    return tuple((a, n if a == lanes else max(1, n // 2)) for a, n in sizes)


def _seldom() -> st.SearchStrategy[bool]:
    """True one time in four; False when shrunk."""
    return st.sampled_from([False, False, False, True])


def _group(draw: st.DrawFn, nest: LoopNest, reduced: list[str]) -> str:
    """A reduction axis or none; of a product of bits, the axis along which they are packed."""
    value = nest.reduction.value if nest.reduction else None
    if isinstance(value, Call) and value.op == "xnor_popcount":
        loads = value_operands(value)
        if loads:
            last = [n for n in reduced if all(x.index[-1].coefficient(n) == 1 for x in loads)]
            return draw(st.sampled_from(last)) if last else ""
    return draw(st.sampled_from(["", *reduced]))


def _fused(draw: st.DrawFn, nest: LoopNest) -> tuple[str, str]:
    """The name of axes fused into one, where the memory allows it, or ''; and what it can only be:
    the "lanes" where some operand repeats along it, the "group" where some operand jumps.
    """
    if not draw(_seldom()):
        return "", ""
    grid = [a.name for a in nest.grid]
    reduced = [a.name for a in nest.reduction.axes] if nest.reduction else []
    pairs = [*itertools.pairwise(grid), *itertools.pairwise(reduced)]
    allowed = [("__".join(p), "") for p in pairs if not fusing_refused(nest, p)]
    last = pairs[len(grid) - 2 : len(grid) - 1] if len(grid) > 1 else []
    allowed += [
        ("__".join(p), "lanes")
        for p in last
        if fusing_refused(nest, p) and not fusing_refused(nest, p, repeating=True)
    ]
    allowed += [
        ("__".join(p), "group")
        for p in (*itertools.pairwise(reduced), tuple(reduced))
        if len(p) > 1 and fusing_refused(nest, p) and not fusing_refused(nest, p, jumping=True)
    ]
    return draw(st.sampled_from(allowed)) if allowed else ("", "")
