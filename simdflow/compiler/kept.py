"""Kept: candidate dataflows whose registers stay through a window, or from one pixel to the next.

    weights of a window stay, each pixel is loaded once for all of them     few output channels
    columns of a window stay while it slides along a row                    depthwise, in bytes

Sizes are compared by choose.py. These are YFlows' auxiliary registers, where they pay on this core.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..targets import Target
from .complete import lanes_of
from .flatten import extent_of, fuse_named
from .reads import Reads, window_reads
from .rough import NARROWED, STORED, dot_of, product_sides, rough, sensible
from .tile import tile_keys
from .weave import TOGETHER

SUMS = 10  # of a window's weights: 4x4 of 56x56x64-8 takes 31.9 us with 8 sums, 28.4 with 14


def kept(
    flat: LoopNest,
    target: Target,
    lanes_axis: str,
    rows: list[str],
    groups: list[tuple[str, int]],
) -> Iterator[tuple[float, Dataflow]]:
    """(rough cycles, dataflow) of both kinds.

    rows    the output's other axes, those that memory allows joined
    groups  (axis, how many of its elements an instruction sums)
    """
    pair = product_sides(flat)[1]
    wide = [x for x in pair if lanes_axis in x.index[-1].axes]
    if not rows:
        return
    if len(wide) == 1:
        yield from _weights(flat, target, lanes_axis, rows, groups)
    elif len(wide) == 2:
        yield from _columns(flat, target, lanes_axis, rows, groups)


def _weights(
    flat: LoopNest,
    target: Target,
    lanes_axis: str,
    rows: list[str],
    groups: list[tuple[str, int]],
) -> Iterator[tuple[float, Dataflow]]:
    """Where one vector has all lanes, a load serves one product unless the weights of a window, or
    of a row of it, stay in registers, and each pixel is read once for all of them: 3x3 of
    56x56x64-8 u8 takes 61.2 us so, all that its products need, and 68 without; of 56x56x512-8 bits
    96.7 and 177 (one Zen 4 core). Bits that are counted by one instruction gain with more lanes
    too, 14x14x256-256 93.9 of 101.7; what multiplies is at its peak there.
    """
    r, pair = product_sides(flat)
    extents, lanes = flat.extents, lanes_of(flat, target.width)
    weight, pixel = sorted(pair, key=lambda x: lanes_axis not in x.index[-1].axes)
    a, b = (flat.type_of(x.operand).scalar.name for x in (pixel, weight))
    vectors = -(-extents[lanes_axis] // lanes)
    last, before = rows[-1], rows[-2] if len(rows) > 1 else ""
    n_last, n_before = extent_of(flat, last), extent_of(flat, before) if before else 1
    others = math.prod(extent_of(flat, x) for x in rows[:-2])
    reduced = [x.name for x in r.axes if x.kind == "reduce" and extents[x.name] > 1]
    for axis, g in dict.fromkeys((name.split("__")[-1], g) for name, g in groups):
        dot = dot_of(target, a, b, r.scalar.name, g)
        taps = [x for x in reduced if x != axis]
        several = vectors == 1 or (a == "bit" and dot.uops < 2)
        if not taps or dot.widened or not several:
            continue
        steps = math.prod(extents[x] for x in taps) * (-(-extents[axis] // g) if axis else 1)
        bodies = dict.fromkeys((tuple(taps), tuple(taps[-1:])))
        for body, nr, outer, mr in itertools.product(
            bodies, range(1, min(vectors, 4) + 1), (1, 2, 4), sorted(sensible(n_last, 14))
        ):
            sums, held = outer * mr * nr, nr * math.prod(extents[x] for x in body)
            if outer > min(mr, n_before) and outer > 1:
                continue  # the longer side along the memory
            if sums + held + 2 > target.budget or sums < min(SUMS, n_before * n_last):
                continue
            flow = Dataflow(
                auxiliary={weight.operand: held, pixel.operand: 1},
                tile={lanes_axis: nr * lanes, last: mr} | ({before: outer} if outer > 1 else {}),
                lanes=lanes_axis,
                group=axis if g > 1 else "",
                unroll={x: extents[x] for x in body},
            )
            pixels = tile_keys(fuse_named(flat, flow), flow, pixel, lanes, g)
            loads = held + pixels * target.rate("load") / target.rate("broadcast")
            reads = Reads(loads / (sums * held / nr))
            sizes = n_before, outer, n_last, mr, vectors, nr
            yield others * rough(target, *sizes, steps, dot, (b, a), STORED, reads), flow


def _columns(
    flat: LoopNest,
    target: Target,
    lanes_axis: str,
    rows: list[str],
    groups: list[tuple[str, int]],
) -> Iterator[tuple[float, Dataflow]]:
    """Rows of bytes that are woven into groups cost eight instructions a column: one pixel at a
    time, the columns that the next one reads too stay, and as many pixels are one body as the
    window has columns. 28x28x256 u8 takes 16.4 us so and 18.2 in tiles of 2 x 2 (one Zen 4 core).
    """
    r, pair = product_sides(flat)
    extents, lanes = flat.extents, lanes_of(flat, target.width)
    pixel, weight = sorted(pair, key=lambda x: -len(x.index[-1].axes))
    a, b = (flat.type_of(x.operand).scalar.name for x in (pixel, weight))
    last, nr = rows[-1], TOGETHER
    vectors = -(-extents[lanes_axis] // lanes)
    window = {x.name: n for x in r.axes if x.kind == "reduce" and (n := extents[x.name]) > 1}
    if "__" in last or extents[lanes_axis] % (nr * lanes) or not window:
        return
    sliding = list(window)[-1]
    for axis, g in groups:
        held = nr * math.prod(-(-n // g) if x == axis else n for x, n in window.items())
        room = target.budget - nr - held - TOGETHER
        if g != 4 or axis == sliding or axis not in window or room < 2 * nr:
            continue
        flow = Dataflow(
            auxiliary={weight.operand: held, pixel.operand: min(room, held)},
            tile={lanes_axis: nr * lanes},
            lanes=lanes_axis,
            group=axis,
            unroll={**window, last: min(window[sliding], extents[last])},
        )
        nest = fuse_named(flat, flow)
        alone = replace(flow, unroll=tuple(sorted(window.items())))
        two = replace(alone, tile=tuple(sorted({**dict(alone.tile), last: 2}.items())))
        new = tile_keys(nest, two, pixel, lanes, g) / tile_keys(nest, alone, pixel, lanes, g) - 1
        found = window_reads(flat, alone, target, last, nr, g, {})
        ends = NARROWED if flat.type_of(flat.out.name).scalar.bits < r.scalar.bits else STORED
        dot = dot_of(target, a, b, r.scalar.name, g)
        before = math.prod(extent_of(flat, x) for x in rows[:-1])
        reads = replace(found, loads=found.loads * min(new, 1.0))
        sizes = 1, 1, extent_of(flat, last), 1, vectors, nr
        yield before * rough(target, *sizes, held / nr, dot, (a, b), ends, reads), flow
