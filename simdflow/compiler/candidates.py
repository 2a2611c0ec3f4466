"""Candidates: the dataflows that a nest's default is chosen from, with their rough cycles.

Output-anchored with the output's contiguous axis over the lanes (YFlows' finding, and the paper's
strongest), the reduction fused where the memory allows; what differs between candidates is the
tile. Nothing is planned here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ..dsl.dataflow import Dataflow
from ..dsl.nest import Load, LoopNest
from ..targets import Target
from .complete import bit_axis, compressed_rows, default_lanes, lanes_of
from .flatten import extent_of, flatten, fuse_named, fused_run, fusing_refused, value_operands
from .kept import kept
from .period import period_of
from .reads import Reads, window_reads
from .rough import BODY, NARROWED, STORED, dot_of, product_sides, rough, sensible
from .streams import streams
from .turn import PIECE
from .weave import TOGETHER

STRAIGHT = 400  # products of a window whose taps are all in the body, its weights read each time
WINDOW = 40  # groups of a window that is one step because its rows are not whole groups


def candidates(nest: LoopNest, target: Target) -> Iterator[tuple[float, Dataflow]]:
    """(rough cycles, dataflow): tiles that fit the registers, for each group of the reduction."""
    flat = flatten(nest, Dataflow())
    lanes_axis = default_lanes(flat)
    grid = [a.name for a in flat.grid]
    r = flat.reduction
    product = r is not None and r.combine == "add" and value_operands(r.value) is not None
    if not product:
        yield from streams(flat, target, lanes_axis)
        return
    alone = compressed_rows(flat)
    rows = fused_run(flat, [a for a in grid if a != lanes_axis and a not in alone])
    for narrow in _widths(flat, target, lanes_axis):
        width = narrow.width if narrow.width < target.width else 0
        for group in group_options(flat, target, lanes_axis):
            for cycles, flow in _tiles(flat, narrow, lanes_axis, rows, group):
                yield cycles, replace(flow, width=width)
        options = group_options(flat, target, lanes_axis)
        for cycles, flow in kept(flat, narrow, lanes_axis, rows, options):
            yield cycles, replace(flow, width=width)
    if not rows or 2 * flat.extents[lanes_axis] <= lanes_of(flat, target.width):
        yield from _dots(flat, target, lanes_axis, rows[-1:])
    several = repeated(flat, target, lanes_axis)
    if several:
        flat = fuse_named(flat, Dataflow(lanes=several))
        rows = fused_run(flat, [a.name for a in flat.grid if a.name != several])
        for group in group_options(flat, target, several):
            yield from _tiles(flat, target, several, rows, group)


def _widths(flat: LoopNest, target: Target, lanes_axis: str) -> Iterator[Target]:
    """The target with vectors as wide as the lanes, and with half of that where it leaves fewer of
    them empty: 3x3 of 96x96x3-8 u8 takes 6.2 us in 512 bits, 3.7 in 256 (one Zen 4 core).
    """
    n, width = flat.extents[lanes_axis], target.width
    while width > PIECE and n <= lanes_of(flat, width // 2):
        width //= 2
    yield replace(target, width=width)
    if width > PIECE and -n % lanes_of(flat, width) >= lanes_of(flat, width // 2):
        yield replace(target, width=width // 2)


def _dots(
    flat: LoopNest, target: Target, lanes_axis: str, rows: list[str]
) -> Iterator[tuple[float, Dataflow]]:
    """Each output a dot product along the reduction, where outputs do not fill a vector, or there
    is one row of them and the weights fill L2: dense 1024-1000 u8 takes 9.5 us so, 10.5 with the
    outputs as lanes. From beyond L2 they come slower in several streams, 2048-1000 in 23 us against
    21, and small ones lose by the sums at the end (one Zen 4 core).
    """
    most = flat.extents[lanes_axis]
    types = (flat.type_of(x.operand) for x in product_sides(flat)[1])
    size, l2 = max(t.size * t.scalar.bits // 8 for t in types), target.core.caches.l2
    if size > l2 or (not rows and size < l2 // 2):
        return
    r, pair = product_sides(flat)
    a, b = (flat.type_of(x.operand).scalar.name for x in pair)
    options = group_options(flat, target, lanes_axis)
    most_summed = max(g for _, g in options)
    for axis, g in dict.fromkeys((name.split("__")[-1], g) for name, g in options):
        if g < most_summed or dot_of(target, a, b, r.scalar.name, g).widened:
            continue  # not where both sides run along the lanes
        wide = lanes_of(flat, target.width) * g
        if axis and extent_of(flat, axis) >= wide:
            for n in (min(most, 8), min(most, 4)) if rows else (2, 3):
                tile = {lanes_axis: n} | {a: min(2, extent_of(flat, a)) for a in rows}
                yield 0.0, Dataflow(tile=tile, lanes=axis, group=axis if g > 1 else "")


def repeated(flat: LoopNest, target: Target, lanes_axis: str) -> str:
    """Where the lanes are fewer than a block of vectors and both sides run along them: the same
    lanes of several pixels as one axis, or ''.
    """
    n, wide = flat.extents[lanes_axis], TOGETHER * lanes_of(flat, target.width)
    before = [a.name for a in flat.grid if flat.extents[a.name] > 1 and a.name != lanes_axis][-1:]
    both = all(lanes_axis in x.index[-1].axes for x in product_sides(flat)[1])
    if not both or wide % n or n % 4 or n == wide or not before:
        return ""
    pair = (before[0], lanes_axis)
    return "" if fusing_refused(flat, pair, True) else "__".join(pair)


def group_options(flat: LoopNest, target: Target, lanes_axis: str) -> list[tuple[str, int]]:
    """(group axis, group): what the target's dot products can do with each reduction axis."""
    r, pair = product_sides(flat)
    a, b = (flat.type_of(x.operand).scalar.name for x in pair)
    acc = r.scalar.name
    both = lanes_axis in pair[0].index[-1].axes and lanes_axis in pair[1].index[-1].axes
    kinds = ((a, b), (b, a))
    groups = sorted({g for s, t in kinds for g in target.groups(s, t, acc, widened=not both)})
    axes = [a.name for a in r.axes if a.kind == "reduce" and flat.extents[a.name] > 1]
    last = fused_run(flat, axes)
    found: list[tuple[str, int]] = []
    if groups[-1] > 1:
        # Depthwise: both sides run along the lanes, any reduction axis may be the group.
        options = list(reversed(axes)) if both else [*last[-1:], *_across(flat, last, groups[-1])]
        found = [(axis, g) for axis in options for g in groups if g > 1]
    if not found or groups[-1] <= 4:
        found.append((last[-1] if last and not both else "", 1))
    if a == b == "bit":
        found = [(bit_axis(flat), 32)]
    return found


def _across(flat: LoopNest, last: list[str], g: int) -> list[str]:
    """The reduction's last two axes as one along which the input jumps, where rows of it are no
    whole groups: 3 kernel rows of 9 are 9 groups of 4, and 27 elements are 7.
    """
    if len(last) < 2:
        return []
    rows, inner = (extent_of(flat, a) for a in last[-2:])
    fewer = rows * -(-inner // g) > -(-rows * inner // g)
    names = (*last[-2].split("__"), *last[-1].split("__"))
    possible = inner >= g and -(-rows * inner // g) <= WINDOW
    refused = not fewer or not possible or fusing_refused(flat, names, jumping=True)
    return [] if refused else ["__".join(names)]


def _tiles(
    flat: LoopNest, target: Target, lanes_axis: str, rows: list[str], group: tuple[str, int]
) -> Iterator[tuple[float, Dataflow]]:
    axis, g = group
    extents = flat.extents
    lanes = lanes_of(flat, target.width)
    vectors = -(-extents[lanes_axis] // lanes)
    r, pair = product_sides(flat)
    inside = axis.split("__")
    steps = math.prod(
        extents[a.name] for a in r.axes if a.kind == "reduce" and a.name not in inside
    ) * (-(-extent_of(flat, axis) // g) if axis else 1)
    a, b = (flat.type_of(x.operand).scalar.name for x in pair)
    dot = dot_of(target, a, b, r.scalar.name, g)
    sides = (b, a) if lanes_axis in pair[1].index[-1].axes else (a, b)
    sides = ("i16", sides[1]) if dot.widened else sides  # packed as words
    ends = NARROWED if flat.type_of(flat.out.name).scalar.bits < r.scalar.bits else STORED
    last = rows[-1] if rows else ""
    before = rows[-2] if len(rows) > 1 else ""
    n_last = extent_of(flat, last) if last else 1
    n_before = extent_of(flat, before) if before else 1
    others = math.prod(extent_of(flat, a) for a in rows[:-2])
    both = all(lanes_axis in x.index[-1].axes for x in pair)
    # The taps of a row alone, where the whole window's weights leave no room for four accumulators.
    window = {a.name: extents[a.name] for a in r.axes if a.kind == "reduce"}
    taps = _tap_groups(window, axis, g) * _sharing(window, axis, g)
    wholes = not both or taps + 5 < target.budget
    # A window without groups is held up by what comes from L2. It reads its pixels whole, or keeps
    # a few channels and walks down the columns, and in any shape: 3x3 of 14x14x512 f32 takes 16 us
    # so and 23 us with whole pixels, 112x112x64, stride 2, 52 and 44 (one Zen 4 core).
    upright = both and g == 1
    orders: list[tuple[str, ...]] = [()]
    if upright and n_before > 1 and vectors > 1:
        orders.append((lanes_axis, last, before))
    # Where a group lies in two kernel rows, its words are also those of the tile's next row: LLVM
    # then goes through general registers for both, 3x3 of 96x96x3-8 takes 4.1 us in 2 x 4 pixels
    # and 3.8 in 1 x 8 (one Zen 4 core).
    jumping = bool(axis) and bool(fusing_refused(flat, tuple(inside)))
    above = {1} if jumping else {1, 2, 3, 4, 7} & set(range(1, n_before + 1))
    seen = set()
    known: dict[object, int] = {}
    period = period_of(flat, lanes_axis)
    for nr in sorted(
        {n for n in (1, 2, 3, 4, 6, 8, 12, 16) if n <= vectors}
        | ({vectors} if vectors < 16 else set())
    ):
        if period and nr * lanes % period:
            continue
        for outer in sorted(above):
            for mr in range(1, min(n_last, 14) + 1):
                short = mr < min(outer, n_last) or (mr != n_last and n_last <= 14 and not both)
                if outer > 1 and short and not upright:
                    continue  # the longer side along the memory
                if (
                    outer * mr * nr + min(nr, outer * mr) + 2 > target.budget
                    or (outer, mr, nr) in seen
                ):
                    continue
                if mr not in sensible(n_last, 14):
                    continue
                if upright and (nr > 4 or (outer * mr == 1 and n_before * n_last > 1)):
                    continue  # each pixel is read for few products
                seen.add((outer, mr, nr))
                tile = {lanes_axis: nr * lanes}
                tile |= {last: mr} if mr > 1 else {}
                tile |= {before: outer} if outer > 1 else {}
                sums = outer * mr * nr
                straight = wholes or (upright and taps * sums <= STRAIGHT)
                for order in orders:
                    flow = _flow(
                        flat, target, lanes_axis, axis, g, tile, outer * mr, nr, straight, order
                    )
                    if flow is None:
                        continue
                    reads = Reads()
                    if both:
                        reads = window_reads(flat, flow, target, last, nr, g, known)
                    cycles = others * rough(
                        target,
                        n_before,
                        outer,
                        n_last,
                        mr,
                        vectors,
                        nr,
                        steps,
                        dot,
                        sides,
                        ends,
                        reads,
                    )
                    yield cycles, flow


def _flow(
    flat: LoopNest,
    target: Target,
    lanes_axis: str,
    axis: str,
    g: int,
    tile: dict[str, int],
    mr: int,
    nr: int,
    whole: bool,
    order: tuple[str, ...],
) -> Dataflow | None:
    r, pair = product_sides(flat)
    wide = [x for x in pair if lanes_axis in x.index[-1].axes]
    narrow = [x for x in pair if x not in wide]
    unroll: dict[str, int] = {}
    if wide and narrow:
        auxiliary = {wide[0].operand: nr, narrow[0].operand: 1}
        if mr < nr:
            auxiliary = {wide[0].operand: 1, narrow[0].operand: mr}
    else:
        # Depthwise: the taps in the body (or those of a row), each pixel read once. Either one
        # vector after the other, its weights in registers, or all vectors of a pixel together, the
        # weights read again: where there is no room, or nothing to gain (several vectors of f32).
        last = [a for a in r.axes if flat.extents[a.name] > 1][-1:]
        unroll = {a.name: flat.extents[a.name] for a in (r.axes if whole else last)}
        kept = _tap_groups(unroll, axis, g) * _sharing(unroll, axis, g)
        if (g == 1 and nr > 1) or ((g == 1 or nr > 1) and mr * nr + kept + 2 > target.budget):
            kept = 1
        if mr * nr + kept + 2 > target.budget:
            return None
        auxiliary = {_weights(flat, pair).operand: kept}
    if r.axes and axis and r.axes[-1].kind == "reduce" and not unroll:
        n = extent_of(flat, axis)
        most = max(1, BODY // (mr * nr))
        count = -(-n // g)
        steps = max((k for k in range(1, min(count, most) + 1) if count % k == 0), default=1)
        if steps == 1 and count > most > 3:
            steps = most
        if fusing_refused(flat, tuple(axis.split("__"))):
            steps = count  # an axis that jumps is one step
        unroll = {axis: steps * g}
    group = axis if g > 1 else ""
    return Dataflow(
        auxiliary=auxiliary, tile=tile, lanes=lanes_axis, group=group, unroll=unroll, order=order
    )


def _tap_groups(unroll: dict[str, int], axis: str, g: int) -> int:
    return math.prod(-(-n // g) if a == axis else n for a, n in unroll.items())


def _sharing(unroll: dict[str, int], axis: str, g: int) -> int:
    """Versions of the weights when neighbouring outputs share a group of a stride-1 window."""
    n = unroll.get(axis, g)
    return g - n + 1 if 1 < n < g else 1


def _weights(flat: LoopNest, pair: tuple[Load, Load]) -> Load:
    """The side of a product that is read again for more points of the output."""
    grid = {a.name for a in flat.grid}
    return min(pair, key=lambda x: len(x.index[-1].axes & grid))
