"""Dataflows: the legal ones of a kernel for given operand types, in a stable order.

The space is anchors x lanes x groups x register tiles x unrolling x auxiliary allocations; what the
planner refuses is left out. Nothing is compiled and nothing is measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .compiler.choose import fused_run, group_options
from .compiler.complete import compressed_rows, default_lanes, lanes_of, quotient_axes
from .compiler.flatten import flatten, value_operands
from .compiler.plan import plan
from .compiler.tile import tile_keys
from .dsl.dataflow import Dataflow
from .dsl.errors import DataflowError
from .dsl.nest import LoopNest
from .targets import Target
from .targets import target as choose_target

ROWS = (1, 2, 3, 4, 6, 8, 12, 14)
VECTORS = (1, 2, 3, 4, 6, 8)


def dataflows(
    kernel: Any, *, target: str | Target | None = None, **given: Any
) -> Iterator[Dataflow]:
    """Every legal dataflow of a kernel: `sf.dataflows(conv2d, x=sf.u8[1, 58, 58, 64], w=sf.i8[3, 3,
    64, 64], stride=1)`.

    Lazy, without repetition, in the same order every time. Anchors: output, weights, input;
    auxiliary allocations: none, weights first, inputs first (YFlows). Raises what `specialize`
    raises for operands that do not fit.
    """
    chosen = choose_target(target)
    nest = kernel.specialize(target=chosen, **given).nest
    seen = set()
    for flow in space(nest, chosen):
        try:
            plan(flatten(nest, flow), flow, chosen)
        except DataflowError:
            continue
        if flow not in seen:
            seen.add(flow)
            yield flow


def space(nest: LoopNest, target: Target) -> Iterator[Dataflow]:
    """Candidates, legal or not."""
    flat = flatten(nest, Dataflow())
    r = flat.reduction
    sides = value_operands(r.value) if r and r.combine == "add" else None
    anchors = [flat.out.name] + ([x.operand for x in sides] if sides else [])
    for lanes, anchor in itertools.product(_lanes(flat), anchors):
        groups = group_options(flat, target, lanes) if sides else [("", 1)]
        for (axis, group), tile, unroll in itertools.product(
            groups, _tiles(flat, target, lanes), _unrolls(flat)
        ):
            if axis:
                unroll = {**unroll, axis: max(unroll.get(axis, 1), group)}
            base = Dataflow(
                anchor=anchor,
                tile=tile,
                lanes=lanes,
                group=axis if group > 1 else "",
                unroll=unroll,
            )
            yield base
            if sides:
                yield from _allocations(nest, base, target, anchor, group)


def _lanes(flat: LoopNest) -> list[str]:
    """Axes that can be lanes: the output's contiguous one, pixels, reduced channels.

    The last is the paper's choice.
    """
    barred = quotient_axes(flat) | compressed_rows(flat)
    first = default_lanes(flat)
    grid = [a.name for a in flat.grid if flat.extents[a.name] > 1]
    reduced = [a.name for a in flat.reduction.axes if a.kind == "reduce"] if flat.reduction else []
    others = [*grid[::-1][:2], *reduced[-1:]]
    return [a for a in dict.fromkeys([first, *others]) if a not in barred]


def _tiles(flat: LoopNest, target: Target, lanes: str) -> Iterator[dict[str, int]]:
    """Rows of the last other grid axes (fused where they can be) by vectors along the lanes."""
    wide = lanes_of(flat, target.width)
    grid = [a.name for a in flat.grid]
    alone = compressed_rows(flat)
    rest = [a for a in grid if a != lanes and a not in alone and flat.extents[a] > 1]
    options = [rest[-1:], fused_run(flat, rest)[-1:]] if rest else [[]]
    vectors = [v for v in VECTORS if (v - 1) * wide < flat.extents[lanes]] if lanes in grid else [1]
    for axes in {tuple(o): o for o in options}.values():
        for v, rows in itertools.product(vectors, ROWS if axes else (1,)):
            tile = {lanes: v * wide} if lanes in grid else {}
            if axes and rows > 1:
                tile[axes[0]] = rows
            yield tile


def _unrolls(flat: LoopNest) -> list[dict[str, int]]:
    """Nothing, all taps of a window, a few steps of the innermost reduction axis."""
    r = flat.reduction
    if r is None:
        return [{}]
    plain = [a.name for a in r.axes if a.kind == "reduce" and flat.extents[a.name] > 1]
    small = {a: flat.extents[a] for a in plain if flat.extents[a] <= 7}
    options: list[dict[str, int]] = [{}]
    if small:
        options.append(small)
    if plain and plain[-1] not in small:
        options.append({plain[-1]: min(16, flat.extents[plain[-1]])})
    return options


def _allocations(
    nest: LoopNest, base: Dataflow, target: Target, anchor: str, group: int
) -> Iterator[Dataflow]:
    """The registers that are left: all to one operand first, then to the other (both ways)."""
    try:
        decided = plan(flatten(nest, base), base, target)
    except DataflowError:
        return
    free = target.budget - decided.registers
    others = [x.operand for x in (decided.a, decided.b) if x is not None and x.operand != anchor]
    if free <= 0 or not others:
        return
    loads = {x.operand: x for x in (decided.a, decided.b) if x is not None}
    most = {
        n: tile_keys(decided.nest, decided.flow, loads[n], decided.lanes, group) for n in others
    }
    for order in itertools.permutations(others):
        left = free
        counts: dict[str, int] = {}
        for name in order:
            counts[name] = max(1, min(most[name], left))
            left -= counts[name]
        yield replace(base, auxiliary=tuple(sorted(counts.items())))
