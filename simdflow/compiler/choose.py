"""Choose: the default dataflow of a nest: candidates by its shape, ranked by the cost model.

Output-anchored with the output's contiguous axis over the lanes (YFlows' finding, and the paper's
strongest), the reduction fused where the memory allows; what differs between candidates is the
tile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Load, LoopNest, Reduction
from ..targets import Target
from .complete import bit_axis, compressed_rows, default_lanes, lanes_of
from .cost import LINE, PAGE, cost, late
from .flatten import flatten, fuse_named, fusing_refused, value_operands
from .lower import lower
from .period import period_of
from .plan import RegisterPlan, plan
from .program import Program, Vec
from .tile import tile_keys
from .turn import NEAR, PIECE, contiguous_axis, square
from .weave import TOGETHER, whole

LOWERED = 6  # candidates that are lowered and counted; the rest are ranked by arithmetic alone
# Instructions of one kind in a loop body: enough to hide the loop, few enough for the op cache.
BODY = 96
WINDOW = 40  # groups of a window that is one step because its rows are not whole groups
CROWD = 16  # cache lines in one set of L1


@dataclass(frozen=True)
class Choice:
    """A dataflow with its plan, and its program under a name that is not its own yet: whoever
    compiles it needs not lower it again.
    """

    cycles: float
    flow: Dataflow
    plan: RegisterPlan
    program: Program


def choose(nest: LoopNest, target: Target) -> Choice:
    """The choice of lowest predicted cost among a few tens of candidates."""
    best: Choice | None = None
    ranked = sorted(candidates(nest, target), key=lambda c: c[0])
    counted = 0
    for _, flow in ranked:
        try:
            decided = plan(flatten(nest, flow), flow, target)
        except DataflowError:
            continue
        program = lower(decided, "candidate")
        predicted = cost(decided, program).cycles
        if best is None or predicted < best.cycles:
            best = Choice(predicted, flow, decided, program)
        counted += 1
        if counted == LOWERED:
            break
    if best is None:
        decided = plan(flatten(nest, Dataflow()), Dataflow(), target)
        best = Choice(math.inf, Dataflow(), decided, lower(decided, "candidate"))
    return best


def candidates(nest: LoopNest, target: Target) -> Iterator[tuple[float, Dataflow]]:
    """(rough cycles, dataflow): tiles that fit the registers, for each group of the reduction."""
    flat = flatten(nest, Dataflow())
    lanes_axis = default_lanes(flat)
    grid = [a.name for a in flat.grid]
    r = flat.reduction
    product = r is not None and r.combine == "add" and value_operands(r.value) is not None
    if not product:
        yield from _streams(flat, target, lanes_axis)
        return
    alone = compressed_rows(flat)
    rows = fused_run(flat, [a for a in grid if a != lanes_axis and a not in alone])
    for group in group_options(flat, target, lanes_axis):
        yield from _tiles(flat, target, lanes_axis, rows, group)
    several = repeated(flat, target, lanes_axis)
    if several:
        flat = fuse_named(flat, Dataflow(lanes=several))
        rows = fused_run(flat, [a.name for a in flat.grid if a.name != several])
        for group in group_options(flat, target, several):
            yield from _tiles(flat, target, several, rows, group)


def repeated(flat: LoopNest, target: Target, lanes_axis: str) -> str:
    """Where the lanes are fewer than a block of vectors and both sides run along them: the same
    lanes of several pixels as one axis, or ''.
    """
    n, wide = flat.extents[lanes_axis], TOGETHER * lanes_of(flat, target.width)
    before = [a.name for a in flat.grid if flat.extents[a.name] > 1 and a.name != lanes_axis][-1:]
    both = all(lanes_axis in x.index[-1].axes for x in _product(flat)[1])
    if not both or wide % n or n % 4 or n == wide or not before:
        return ""
    pair = (before[0], lanes_axis)
    return "" if fusing_refused(flat, pair, True) else "__".join(pair)


def _product(flat: LoopNest) -> tuple[Reduction, tuple[Load, Load]]:
    """The reduction and the sides of its product, where `candidates` found one."""
    r = flat.reduction
    pair = value_operands(r.value) if r else None
    assert r is not None and pair is not None
    return r, pair


def fused_run(flat: LoopNest, axes: list[str]) -> list[str]:
    """Axes with the longest fusable run at the end joined into one name."""
    live = [a for a in axes if flat.extents[a] > 1]
    for start in range(len(live)):
        run = live[start:]
        if len(run) > 1 and not fusing_refused(flat, tuple(run)):
            return [*live[:start], "__".join(run)]
    return live


def _extent(flat: LoopNest, name: str) -> int:
    return math.prod(flat.extents[a] for a in name.split("__"))


def group_options(flat: LoopNest, target: Target, lanes_axis: str) -> list[tuple[str, int]]:
    """(group axis, group): what the target's dot products can do with each reduction axis."""
    r, pair = _product(flat)
    a, b = (flat.type_of(x.operand).scalar.name for x in pair)
    acc = r.scalar.name
    groups = sorted({*target.groups(a, b, acc), *target.groups(b, a, acc)})
    axes = [a.name for a in r.axes if a.kind == "reduce" and flat.extents[a.name] > 1]
    last = fused_run(flat, axes)
    found: list[tuple[str, int]] = []
    both = lanes_axis in pair[0].index[-1].axes and lanes_axis in pair[1].index[-1].axes
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
    rows, inner = (_extent(flat, a) for a in last[-2:])
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
    r, pair = _product(flat)
    inside = axis.split("__")
    steps = math.prod(
        extents[a.name] for a in r.axes if a.kind == "reduce" and a.name not in inside
    ) * -(-_extent(flat, axis) // g if axis else 1)
    last = rows[-1] if rows else ""
    before = rows[-2] if len(rows) > 1 else ""
    n_last = _extent(flat, last) if last else 1
    n_before = _extent(flat, before) if before else 1
    others = math.prod(_extent(flat, a) for a in rows[:-2])
    both = all(lanes_axis in x.index[-1].axes for x in pair)
    # The taps of a row alone, where the whole window's weights leave no room for four accumulators.
    window = {a.name: extents[a.name] for a in r.axes if a.kind == "reduce"}
    wholes = (
        not both or _tap_groups(window, axis, g) * _sharing(window, axis, g) + 5 < target.budget,
    )
    seen = set()
    period = period_of(flat, lanes_axis)
    for nr in sorted(
        {n for n in (1, 2, 3, 4, 6, 8, 12, 16) if n <= vectors}
        | ({vectors} if vectors < 16 else set())
    ):
        if period and nr * lanes % period:
            continue
        for outer in sorted({1, 2, 3, 4, 7} & set(range(1, n_before + 1))):
            for mr in range(1, min(n_last, 14) + 1):
                if outer > 1 and mr != n_last and n_last <= 14:
                    continue
                if (
                    outer * mr * nr + min(nr, outer * mr) + 2 > target.budget
                    or (outer, mr, nr) in seen
                ):
                    continue
                if mr not in _sensible(n_last, 14):
                    continue
                seen.add((outer, mr, nr))
                tile = {lanes_axis: nr * lanes}
                tile |= {last: mr} if mr > 1 else {}
                tile |= {before: outer} if outer > 1 else {}
                for all_taps, held in (
                    (wholes[0], h) for h in ((True, False) if both and nr > 1 else (True,))
                ):
                    flow = _flow(
                        flat, target, lanes_axis, axis, g, tile, outer * mr, nr, all_taps, held
                    )
                    if flow is None:
                        continue
                    reads = _window_reads(flat, flow, lanes, g) / (outer * mr * nr) if both else 0.0
                    reads += 0.0 if held else 1.0
                    rough = others * _rough(
                        target, n_before, outer, n_last, mr, vectors, nr, steps, reads
                    )
                    yield rough, flow


def _sensible(n: int, most: int) -> set[int]:
    """Row tiles worth trying: of each number of tiles the smallest, so that they come out even."""
    return {-(-n // k) for k in range(1, n + 1) if -(-n // k) <= most}


def _window_reads(flat: LoopNest, flow: Dataflow, lanes: int, g: int) -> float:
    """Loads of a depthwise product's moving side, for a whole tile and one group."""
    fused = fuse_named(flat, flow)
    r, pair = _product(fused)
    moving = max(pair, key=lambda x: len(x.index[-1].axes))
    unroll = dict(flow.unroll)
    passes = math.prod(-(-fused.extents[a.name] // unroll.get(a.name, 1)) for a in r.axes)
    steps = math.prod(fused.extents[a.name] for a in r.axes) / max(g, 1) / passes
    woven = g == 4 and whole(dict(flow.tile)[flow.lanes], lanes)
    return (
        tile_keys(fused, flow, moving, lanes, g) * (1.5 if woven else 3.0 if g > 1 else 1.0) / steps
    )


def _rough(
    target: Target,
    n_before: int,
    outer: int,
    n_last: int,
    mr: int,
    vectors: int,
    nr: int,
    steps: float,
    reads: float,
) -> float:
    """Cycles of one product nest: each tile at its busiest port, plus what it costs besides."""
    total = 0.0
    for h, th in _pieces(n_before, outer):
        for m, tm in _pieces(n_last, mr):
            for v, tv in _pieces(vectors, nr):
                dots = h * m * v
                loads = v + h * m if not reads else dots * reads
                step = max(dots / target.rate("dot"), loads / target.rate("load"), 4.0)
                # A short reduction is one run with its epilogue, which overlaps with the next.
                short = steps * dots <= BODY
                after = (
                    (0.9 + 0.3 * late(dots * (steps + 5))) * dots + 3 if short else 1.2 * dots + 12
                )
                step = (
                    max(dots / target.rate("dot"), loads / target.rate("load")) if short else step
                )
                total += th * tm * tv * (steps * step + after)
    return total


def _pieces(n: int, size: int) -> list[tuple[int, int]]:
    """(size, how many) of whole tiles and the remainder."""
    return [(size, n // size)] * (n >= size) + ([(n % size, 1)] if n % size else [])


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
    held: bool,
) -> Dataflow | None:
    r, pair = _product(flat)
    wide = [x for x in pair if lanes_axis in x.index[-1].axes]
    narrow = [x for x in pair if x not in wide]
    unroll: dict[str, int] = {}
    if wide and narrow:
        auxiliary = {wide[0].operand: nr, narrow[0].operand: 1}
        if mr < nr:
            auxiliary = {wide[0].operand: 1, narrow[0].operand: mr}
    else:
        # Depthwise: the taps in the body (or those of a row), each pixel read once. Either one
        # vector after the other, its weights in registers (held), or all vectors of a pixel
        # together, the weights read again.
        taps = [a for a in r.axes if whole or a.name == r.axes[-1].name]
        unroll = {a.name: flat.extents[a.name] for a in taps}
        kept = _tap_groups(unroll, axis, g) * _sharing(unroll, axis, g) if held else 1
        if mr * nr + kept + 2 > target.budget:
            return None
        auxiliary = {_weights(flat, pair).operand: kept}
    if r.axes and axis and r.axes[-1].kind == "reduce" and not unroll:
        n = _extent(flat, axis)
        most = max(1, BODY // (mr * nr))
        count = -(-n // g)
        steps = max((k for k in range(1, min(count, most) + 1) if count % k == 0), default=1)
        if steps == 1 and count > most > 3:
            steps = most
        if fusing_refused(flat, tuple(axis.split("__"))):
            steps = count  # an axis that jumps is one step
        unroll = {axis: steps * g}
    return Dataflow(
        auxiliary=auxiliary, tile=tile, lanes=lanes_axis, group=axis if g > 1 else "", unroll=unroll
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


def _streams(flat: LoopNest, target: Target, lanes_axis: str) -> Iterator[tuple[float, Dataflow]]:
    """Nests without a product: as many axes as possible fused into the lanes, few vectors each."""
    grid = [a.name for a in flat.grid]
    reduced = {a.name for a in flat.reduction.axes} if flat.reduction else set()
    fused = fused_run(flat, grid)
    axis = lanes_axis
    if lanes_axis not in reduced and fused and lanes_axis in fused[-1].split("__"):
        axis = fused[-1]
    lanes = lanes_of(flat, target.width)
    n = _extent(flat, axis)
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
        sets = PAGE // math.gcd(load.index[-1].coefficient(lanes_axis) * kind.bits // 8, PAGE)
        width = target.width
        while width > PIECE and (
            lanes_of(flat, width // 2) >= n
            or lanes_of(flat, width) > CROWD * min(sets, PAGE // LINE)
        ):
            width //= 2
        lanes = lanes_of(flat, width)
        whole = square(Vec(kind.name, lanes))
        for columns in sorted({whole, whole // 2} - {0}):
            tile = {lanes_axis: lanes, along: columns}
            order = (lanes_axis, along)
            yield -float(columns), Dataflow(tile=tile, lanes=lanes_axis, order=order, width=width)
