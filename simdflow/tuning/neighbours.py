"""Neighbours: the dataflows one step away from a good one, for the local search.

Turns a legal dataflow into others that differ in one size, one auxiliary count, a cache block or
the place of one loop, and are legal. Ranks and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..compiler.plan import RegisterPlan
from ..dsl.dataflow import Dataflow, Sizes
from ..dsl.errors import DataflowError
from .space import Space

TILES_IN_BLOCK = (4, 16)


def neighbours(space: Space, flow: Dataflow) -> Iterator[Dataflow]:
    """Legal dataflows one step from a legal one, each once, without itself."""
    seen = {flow}
    for near in _steps(space, flow):
        if near in seen:
            continue
        seen.add(near)
        try:
            space.plan(near)
        except DataflowError:
            continue
        yield near


def _steps(space: Space, flow: Dataflow) -> Iterator[Dataflow]:
    decided = space.plan(flow)
    nest, grid = decided.nest, [a.name for a in decided.nest.grid]
    for axis in grid:
        unit = decided.lanes if axis == decided.flow.lanes else 1
        now = dict(decided.flow.tile).get(axis, unit)
        for n in _sizes(now, unit, nest.extents[axis]):
            yield replace(flow, tile=_changed(flow.tile, axis, n))
    for a in nest.reduction.axes if nest.reduction else ():
        unit = _unit(decided, a.name)
        now = dict(decided.flow.unroll).get(a.name, unit)
        for n in _sizes(now, unit, nest.extents[a.name]):
            yield replace(flow, unroll=_changed(flow.unroll, a.name, n))
    held = dict(decided.slots)
    for name, n in decided.hoisted:
        held[name] += n
    for name, n in held.items():
        if name != flow.anchor:
            for count in (n - 1, n + 1, 2 * n, n + space.target.budget - decided.registers):
                yield replace(flow, auxiliary=_changed(flow.auxiliary, name, max(0, count)))
    for level in decided.levels:
        if level.block:
            yield replace(flow, block=_changed(flow.block, level.axis, 0))
        else:
            for tiles in TILES_IN_BLOCK:
                if tiles * level.step < nest.extents[level.axis]:
                    yield replace(flow, block=_changed(flow.block, level.axis, tiles * level.step))
    order = [x.axis for x in decided.levels if not x.block and nest.extents[x.axis] > x.step]
    for i in range(len(order) - 1):
        swapped = [*order[:i], order[i + 1], order[i], *order[i + 2 :]]
        yield replace(flow, order=tuple(swapped))


def _unit(decided: RegisterPlan, axis: str) -> int:
    """The steps of a reduction axis that one instruction takes."""
    group = decided.group if axis == decided.flow.group else 1
    return group * (decided.lanes if axis == decided.flow.lanes else 1)


def _sizes(now: int, unit: int, extent: int) -> list[int]:
    """Sizes next to the present one, as multiples of a unit; the whole extent too if it is near."""
    steps = now // unit
    near = {steps - 1, steps + 1, 2 * steps, steps // 2}
    most = -(-extent // unit)
    return sorted(n * unit for n in near if 1 <= n <= most and n != steps)


def _changed(sizes: Sizes, name: str, n: int) -> Sizes:
    """The sizes with another count for a name, or without it for 0."""
    rest = {k: v for k, v in sizes if k != name}
    return tuple(sorted((rest | {name: n} if n else rest).items()))
