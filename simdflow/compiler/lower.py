"""Lower: a register plan becomes a Program, loops over vector instructions.

before   for oc, ow: for kh, ic: out[ow, oc] += x[ow + kh, ic] * w[kh, ic, oc]
after    for oc: for ow: acc_0_0.. = start
                         for kh: for ic: w_0 = load w; x_0 = broadcast x; acc_0_0 = dot(acc_0_0,
                         x_0, w_0) ... epilogue of acc_0_0..; store

A load is hoisted out of every loop that its index does not mention, for as many registers as the
plan gives it; the output's load and store likewise: where a grid loop runs inside a reduction loop,
the accumulators live in scratch, are started by a pass before and finished by a pass after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ..dsl.errors import KernelError
from ..dsl.nest import Affine, Axis, Load, Run
from .body import accumulate, hoist, load_side, reduction_points
from .finish import finish, start
from .levels import Level, passes, sections
from .memories import SCRATCH, memories_of
from .place import Place, substitute
from .plan import RegisterPlan, hoist_level
from .program import Address, Program, Vec
from .tile import points
from .weave import whole
from .window import pass_on, slide, step_on
from .writer import Writer

# Two threads share 7 steps as 4 and 3: an eighth is lost. More steps are cut more evenly.
EVEN = 8

# What is written inside the loops, given where they stand, how large their steps are, and how many
# steps of each axis there are at the place.
Inner = Callable[[Mapping[str, Affine], Mapping[str, int], Mapping[str, int]], None]
# Levels outside -> the loads that are hoisted there, and how many registers each holds.
Hoists = Mapping[int, list[tuple[Load, int]]]


@dataclass(frozen=True)
class Tile:
    """One instance of the register tile: where it starts, how large it is, and its accumulators.

    spots   grid points but for the lanes' axis, in loop order
    vectors along the lanes; `valid(j)` lanes of vector j exist
    known   load -> which register each point of it is, as far as asked for (body.py)
    """

    plan: RegisterPlan
    base: Mapping[str, Affine]
    sizes: Mapping[str, int]
    known: dict[Load, dict[object, Address]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def lanes(self) -> int:
        """Elements of one accumulator."""
        return self.plan.lanes

    @property
    def spots(self) -> list[dict[str, int]]:
        """The tile's grid points but for the lanes' axis, in loop order."""
        mine = {
            a.name: self.sizes[a.name]
            for a in self.plan.nest.grid
            if a.name != self.plan.flow.lanes
        }
        return list(points(mine, {}))

    @property
    def vectors(self) -> int:
        """Accumulators along the lanes."""
        if self.plan.lanes_reduced:
            return 1
        return -(-self.sizes[self.plan.flow.lanes] // self.lanes)

    @property
    def woven(self) -> bool:
        """Whether the lanes of four vectors are interwoven."""
        return self.plan.woven and whole(self.sizes[self.plan.flow.lanes], self.lanes)

    def valid(self, j: int) -> int:
        """How many lanes of vector `j` exist."""
        if self.plan.lanes_reduced:
            return self.lanes
        return min(self.lanes, self.sizes[self.plan.flow.lanes] - j * self.lanes)

    def place(
        self, spot: Mapping[str, int], j: int, point: Mapping[str, int] | None = None
    ) -> Place:
        """The place of vector j at a spot; `point` adds the reduction's coordinates."""
        plan = self.plan
        beside = point or {}
        at = {a: v.moved(spot.get(a, 0) + beside.get(a, 0)) for a, v in self.base.items()}
        left, valid = 1 << 30, self.valid(j)
        group, lanes_axis = plan.flow.group, plan.flow.lanes
        if point is not None and group and plan.group > 1:
            left = self.sizes[group] - point.get(group, 0)
        if point is not None and plan.lanes_reduced:
            remaining = self.sizes[lanes_axis] - point.get(lanes_axis, 0)
            per = plan.group if lanes_axis == group else 1
            valid = max(0, min(self.lanes, -(-remaining // per)))
        step = self.lanes * (plan.group if lanes_axis == group else 1)
        section = step if plan.lanes_reduced else -(-self.sizes[lanes_axis] // step) * step
        shift, sharing = 0, 1
        if plan.shift and point is not None:
            at_axis, count = spot.get(plan.shift.axis, 0), plan.shift.count
            shift = at_axis % count
            sharing = min(count, self.sizes[plan.shift.axis] - (at_axis - shift))
        return Place(
            at, j, self.lanes, valid, left, section, shift, sharing, self.woven, spot, self.sizes
        )


def lower(plan: RegisterPlan, name: str) -> Program:
    """The program of a plan; `name` becomes the native function's name."""
    w = Writer()
    nest = plan.nest
    base = {a.name: Affine() for a in nest.axes}
    parallel = _parallel(plan)
    if plan.in_memory:
        depth, grid = plan.sums_depth, {a.name for a in nest.grid}
        levels = plan.levels[depth:]
        ahead = tuple(x for x in levels if x.axis in grid and not x.block)
        hoists = _hoists(plan)
        inside = {at - depth: loads for at, loads in hoists.items() if at >= depth}

        def sums(
            b: Mapping[str, Affine], sizes: Mapping[str, int], extent: Mapping[str, int]
        ) -> None:
            _walk(w, plan, ahead, b, "", _each_scratch(w, plan, begin=True), sizes)
            _walk(w, plan, levels, b, "", _body(w, plan, memory=True), sizes, hoists=inside)
            _walk(w, plan, ahead, b, "", _each_scratch(w, plan, begin=False), sizes)

        before = {at: loads for at, loads in hoists.items() if at < depth}
        _walk(w, plan, plan.levels[:depth], base, "", sums, hoists=before)
        parallel = ("", 1, 1)
    else:
        outer, inner = plan.levels[: plan.depth], plan.levels[plan.depth :]
        hoists = _hoists(plan)
        within = {at - plan.depth: loads for at, loads in hoists.items() if at >= plan.depth}

        def tile(
            b: Mapping[str, Affine], sizes: Mapping[str, int], extent: Mapping[str, int]
        ) -> None:
            at = Tile(plan, b, _all(plan, sizes, extent))
            if nest.reduction:
                start(w, at)
                body = _body(w, plan, memory=False)
                _walk(w, plan, inner, b, "", body, sizes, extent, hoists=within)
            finish(w, at)

        without = {at: loads for at, loads in hoists.items() if at < plan.depth}
        _walk(w, plan, outer, base, parallel[0], tile, hoists=without)
    scratch = _scratch_size(plan) if plan.in_memory else 0
    memories = memories_of(plan, scratch)
    _check_names(plan, w, {m.name for m in memories})
    return Program(name, memories, w.statements, plan.registers, parallel)


def _check_names(plan: RegisterPlan, w: Writer, memories: set[str]) -> None:
    """Registers, loop variables and memories are names of one text: none may stand for two."""
    variables = set(w.ranges)
    taken = (set(w.vecs) & (variables | memories)) | (variables & memories)
    if taken:
        raise KernelError(
            f"{plan.nest.name}: {min(taken)} is also a name of the emitted text; any other name is "
            f"allowed. Rename the axis or operand."
        )


def _all(plan: RegisterPlan, sizes: Mapping[str, int], extent: Mapping[str, int]) -> dict[str, int]:
    """Tile sizes of every axis: the levels' own where walked, else the whole tile."""
    steps = {x.axis: x.step for x in plan.levels if not x.block}
    return {a: sizes.get(a, min(steps[a], n)) for a, n in extent.items()}


def _parallel(plan: RegisterPlan) -> tuple[str, int, int]:
    """(axis, extent, step) of the loop threads may cut: the plan's, or the outermost of at least
    EVEN steps, else the one of most, which is cut most evenly.
    """
    extents = plan.nest.extents
    blocked = dict(plan.flow.block)
    free = [
        x
        for x in plan.levels[: plan.depth]
        if not x.block and x.axis not in blocked and extents[x.axis] > x.step
    ]
    wanted = [x for x in free if plan.flow.parallel in ("", x.axis)]
    if not wanted:
        return "", 1, 1
    # Threads' ranges end anywhere, so that the steps of a cut axis are not taken several at a time.
    best = max(wanted, key=lambda x: (x.repeat == 1, min(-(-extents[x.axis] // x.step), EVEN)))
    return best.axis, extents[best.axis], best.step


def _hoists(plan: RegisterPlan) -> dict[int, list[tuple[Load, int]]]:
    """Levels outside -> the loads that are hoisted there, and how many registers each holds."""
    found: dict[int, list[tuple[Load, int]]] = {}
    for load in (plan.a, plan.b):
        count = dict(plan.hoisted).get(load.operand, 0) if load else 0
        if load and count:
            found.setdefault(hoist_level(plan, load), []).append((load, count))
    return found


def _walk(
    w: Writer,
    plan: RegisterPlan,
    levels: tuple[Level, ...],
    base: Mapping[str, Affine],
    parallel: str,
    inner: Inner,
    sizes: Mapping[str, int] | None = None,
    extent: Mapping[str, int] | None = None,
    hoists: Hoists | None = None,
) -> None:
    """Write the loops of `levels` around `inner(base, sizes, extent)`.

    A remainder is a second, smaller instance.
    """
    sizes, extent, hoists = dict(sizes or {}), dict(extent or plan.nest.extents), hoists or {}
    if 0 in hoists:
        outside = dict(w.held)
        for load, count in hoists[0]:
            hoist(w, Tile(plan, base, _all(plan, sizes, extent)), load, count)
        further = {at: loads for at, loads in hoists.items() if at}
        _walk(w, plan, levels, base, parallel, inner, sizes, extent, further)
        w.held = outside
        return
    if not levels:
        inner(base, sizes, extent)
        return
    hoists = {at - 1: loads for at, loads in hoists.items()}
    level, rest = levels[0], levels[1:]
    axis = level.axis
    kind = next(a for a in plan.nest.axes if a.name == axis)
    if kind.kind == "nonzeros":
        _walk_nonzeros(w, plan, kind, rest, base, inner, sizes, extent, hoists)
        return
    var = f"{axis}_b" if level.block else axis
    for first, stop, size, begun, inside in _parts(plan, level, base, extent):
        mine = sizes if level.block else {**sizes, axis: size}
        if stop - first == size and axis != parallel:
            moved = {**begun, axis: base[axis].moved(first)}
            _walk(w, plan, rest, moved, parallel, inner, mine, inside, hoists)
            continue
        moved = {**begun, axis: base[axis].plus(Affine.axis(var))}
        innermost = all(x.step >= inside[x.axis] and not x.block for x in rest)
        if plan.whole_window and not plan.in_memory and innermost and axis != parallel:
            tile = Tile(plan, moved, _all(plan, mine, inside))
            slide(w, tile, reduction_points(tile), var, first, size, load_side)
        carried = dict(w.carried)
        # The ranges of threads end anywhere: what they cut is not repeated.
        repeat = 1 if axis == parallel else level.repeat
        for begin, end, steps in passes(first, stop, size, repeat):
            with w.loop(var, begin, end, steps * size, axis == parallel, end - steps * size):
                for at in range(steps):
                    later = {**moved, axis: moved[axis].moved(at * size)}
                    _walk(w, plan, rest, later, parallel, inner, mine, inside, hoists)
                    if carried:
                        step_on(w, var, size)
                if carried:
                    pass_on(w, carried)
        w.carried = {}
    w.forget()


def _parts(
    plan: RegisterPlan, level: Level, base: Mapping[str, Affine], extent: Mapping[str, int]
) -> Iterator[tuple[int, int, int, Mapping[str, Affine], dict[str, int]]]:
    """(start, stop, size) of whole tiles and of the remainder, for each run of rows, with the place
    and the extents of the other axes there.
    """
    for run in plan.runs(level) or (Run(0, extent[level.axis]),):
        begun, inside = dict(base), dict(extent)
        if run.reduced:
            begun[run.reduced], inside[run.reduced] = Affine((), run.first), run.count
        for first, stop, size in sections(run.stop - run.start, level.step):
            if level.block:
                inside = {**inside, level.axis: size}
            yield run.start + first, run.start + stop, size, begun, inside


def _walk_nonzeros(
    w: Writer,
    plan: RegisterPlan,
    axis: Axis,
    rest: tuple[Level, ...],
    base: Mapping[str, Affine],
    inner: Inner,
    sizes: Mapping[str, int],
    extent: Mapping[str, int],
    hoists: Hoists,
) -> None:
    """`for p in range(indptr[row], indptr[row + 1]): ic = indices[p]`."""
    row = substitute(axis.row, base)
    count = plan.nest.type_of(axis.of).nonzeros
    at, first, last = f"{axis.name}_at", f"{axis.name}_first", f"{axis.name}_last"
    w.fetch(first, f"{axis.of}_indptr", row, count)
    w.fetch(last, f"{axis.of}_indptr", row.moved(1), count)
    with w.loop(at, first, last, 1, False, max(count - 1, 0)):
        w.fetch(
            axis.name,
            f"{axis.of}_indices",
            Affine.axis(at),
            max(plan.nest.extents[axis.name] - 1, 0),
        )
        moved = {**base, axis.name: Affine.axis(axis.name)}
        _walk(w, plan, rest, moved, "", inner, {**sizes, axis.name: 1}, extent, hoists)
    w.forget()


def _body(w: Writer, plan: RegisterPlan, memory: bool) -> Inner:
    def body(
        base: Mapping[str, Affine], sizes: Mapping[str, int], extent: Mapping[str, int]
    ) -> None:
        tile = Tile(plan, base, _all(plan, sizes, extent))
        accumulate(w, tile, memory, scratch_address if memory else None)

    return body


# Accumulators in memory.


def scratch_address(tile: Tile, spot: Mapping[str, int], j: int) -> tuple[Vec, Address]:
    """Where an accumulator lives: [grid axes but the lanes'][lanes, padded to whole vectors].

    Of an axis whose loop is outside the sums, one step: the next takes the same memory.
    """
    plan = tile.plan
    nest, lane_axis = plan.nest, plan.flow.lanes
    r = nest.reduction
    assert r is not None
    lanes, sizes = tile.lanes, _scratch_sizes(plan)
    stride = lanes
    offset = Affine((), j * lanes)
    if not plan.lanes_reduced:
        stride = sizes[lane_axis]
        if lane_axis not in plan.outside_sums:
            offset = offset.plus(tile.base[lane_axis])
    for a in reversed(nest.grid):
        if a.name == lane_axis:
            continue
        value = Affine((), spot.get(a.name, 0))
        if a.name not in plan.outside_sums:
            value = value.plus(tile.base[a.name])
        offset = offset.plus(value.times(stride))
        stride *= sizes[a.name]
    return Vec(r.scalar.name, lanes), Address(SCRATCH, offset)


def _scratch_sizes(plan: RegisterPlan) -> dict[str, int]:
    """Points of each grid axis that scratch holds, the lanes' as whole vectors."""
    steps = {x.axis: x.step for x in plan.levels if not x.block}
    lanes, found = plan.lanes, dict[str, int]()
    for a in plan.nest.grid:
        n = plan.nest.extents[a.name]
        found[a.name] = min(n, steps[a.name]) if a.name in plan.outside_sums else n
        if a.name == plan.flow.lanes:
            found[a.name] = -(-found[a.name] // lanes) * lanes
    return found


def _scratch_size(plan: RegisterPlan) -> int:
    return math.prod(_scratch_sizes(plan).values()) * (plan.lanes if plan.lanes_reduced else 1)


def _each_scratch(w: Writer, plan: RegisterPlan, begin: bool) -> Inner:
    """The pass before (store the start values) or after (load the sums, run the epilogue)."""

    def each(
        base: Mapping[str, Affine], sizes: Mapping[str, int], extent: Mapping[str, int]
    ) -> None:
        tile = Tile(plan, base, _all(plan, sizes, extent))
        if begin:
            start(w, tile)
        for i, spot in enumerate(tile.spots):
            for j in range(tile.vectors):
                vec, where = scratch_address(tile, spot, j)
                if begin:
                    w.store("store", vec, where, f"acc_{i}_{j}")
                else:
                    w.assign(f"acc_{i}_{j}", "load", vec, where)
        if not begin:
            finish(w, tile)

    return each
