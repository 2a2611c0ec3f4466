"""Plan: a flat nest, a dataflow and a target become lanes, groups, loops, packings and a count of registers.

It decides everything that lowering only writes down, and refuses, with the arithmetic, a dataflow that does not fit
the nest or the register file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Call, Cast, Load, LoopNest
from ..dsl.types import SCALARS
from ..targets import Target
from ..targets.base import Dot
from .flatten import value_operands
from .packing import Packing
from .scalars import scalar_of


@dataclass(frozen=True)
class Level:
    """One loop to write: `axis` in steps of `step`; with `block`, the outer loop over cache blocks of the axis."""

    axis: str
    step: int
    block: bool = False


@dataclass(frozen=True)
class Shift:
    """Neighbouring outputs share one group of a sliding window (depthwise: 4 pixels hold two windows of 3).

    Output `count*i + k` along `axis` reads the group of output `count*i`, with weights that begin `k*stride` later;
    the packed operand has `count` versions of itself.
    """

    axis: str
    count: int
    stride: int


@dataclass(frozen=True)
class RegisterPlan:
    """What lowering needs, decided.

    lanes, group       elements per vector of the accumulator; reduction elements one instruction sums per lane
    dot                the dot-product row when the reduction is a product, else None; `a`, `b` its loads, in row order
    levels             loops, outermost first; `depth` of them are outside the accumulators
    in_memory          the accumulators live in scratch: a grid loop runs inside a reduction loop
    slots              operand -> registers it may hold in the body
    hoisted            operand -> registers it holds across the loops that do not mention it
    registers          vector registers used at the most, and how they add up
    """

    nest: LoopNest
    flow: Dataflow
    target: Target
    lanes: int
    group: int
    dot: Dot | None
    a: Load | None
    b: Load | None
    levels: tuple[Level, ...]
    depth: int
    in_memory: bool
    packings: tuple[Packing, ...]
    shift: Shift | None
    slots: tuple[tuple[str, int], ...]
    hoisted: tuple[tuple[str, int], ...]
    registers: int
    arithmetic: str

    @property
    def lanes_reduced(self) -> bool:
        """The lanes are spread over a reduction axis: a horizontal step follows."""
        return self.flow.lanes not in {a.name for a in self.nest.grid}

    @property
    def whole_window(self) -> bool:
        """The whole reduction of a product is in the body: a pass over the body reads a window and moves on."""
        steps = {x.axis: x.step for x in self.levels if not x.block}
        r = self.nest.reduction
        return (
            self.dot is not None
            and r is not None
            and all(self.nest.extents[a.name] <= steps[a.name] for a in r.axes)
        )

    def tile(self, axis: str) -> int:
        return dict(self.flow.tile).get(axis, 1)

    def packing(self, operand: str) -> Packing | None:
        return next((p for p in self.packings if p.operand == operand), None)

    def __str__(self) -> str:
        loops = " > ".join(f"{x.axis}{'(block)' if x.block else ''}:{x.step}" for x in self.levels)
        lines = [
            f"plan {self.nest.name} on {self.target.name}: lanes {self.flow.lanes} x {self.lanes}, group {self.group}",
            f"  loops {loops}",
            f"  registers {self.registers}: {self.arithmetic}",
        ]
        if self.in_memory:
            lines.append("  accumulators in scratch memory")
        return "\n".join([*lines, *(f"  {p}" for p in self.packings)])


def sections(extent: int, step: int) -> tuple[tuple[int, int, int], ...]:
    """(start, stop, size): whole tiles, then the remainder as one smaller tile."""
    whole = extent - extent % step
    parts = [(0, whole, step)] if whole else []
    return tuple(parts + ([(whole, extent, extent - whole)] if whole < extent else []))


def lanes_of(nest: LoopNest, width: int) -> int:
    """Lanes of one vector: by the accumulator, else by the widest type computed with (at most 32 bits)."""
    if nest.reduction:
        bits = nest.reduction.scalar.bits
    else:
        casts = [e.scalar.bits for e in _parts(nest) if isinstance(e, Cast)]
        loads = [nest.type_of(e.operand).scalar.bits for e in _parts(nest) if isinstance(e, Load)]
        work = [32 if isinstance(e, Call) else 8 for e in _parts(nest)] if _arithmetic(nest) else []
        bits = min(max([8, *casts, *loads, *work]), 32)
    lanes = width // bits
    bits_out = nest.type_of(nest.store.operand).scalar.kind == "b"
    return max(lanes, 8) if bits_out else lanes


def _parts(nest: LoopNest):
    from ..dsl.nest import walk

    for e in nest.expressions():
        yield from walk(e)


def _arithmetic(nest: LoopNest) -> bool:
    """Whether anything but min and max is computed: 8-bit lanes do for those."""
    return any(isinstance(e, Call) and e.op not in ("min", "max") for e in _parts(nest))


def product(nest: LoopNest, target: Target, flow: Dataflow) -> tuple[Dot, Load, Load] | None:
    """The dot-product row for the reduction, and its loads in the row's order; None when it is no plain product."""
    r, group_axis = nest.reduction, flow.group
    if r is None or r.combine != "add":
        return None
    loads = value_operands(r.value)
    if loads is None:
        return None
    a, b = loads
    names = [nest.type_of(x.operand).scalar.name for x in (a, b)]
    if r.scalar.is_float != SCALARS[names[0]].is_float:
        return None
    lanes_reduced = flow.lanes not in {x.name for x in nest.grid}
    for x, y, (s, t) in ((a, b, names), (b, a, names[::-1])):
        for group in target.groups(s, t, r.scalar.name) if group_axis else (1,):
            row = target.dot(s, t, r.scalar.name, group)
            mentioned = all(group_axis in z.index[-1].axes for z in (a, b))
            if (
                row
                and row.flip
                and (lanes_reduced or not _packable(nest, y) or flow.lanes not in y.index[-1].axes)
            ):
                continue
            in_order = flow.lanes != group_axis or all(
                z.index[-1].coefficient(group_axis) == 1 or _packable(nest, z) for z in (a, b)
            )
            if names == ["bit", "bit"] and any(
                z.index[-1].coefficient(group_axis) != 1 for z in (a, b)
            ):
                continue
            if row and group > 1 and mentioned and in_order:
                return row, x, y
    if names == ["bit", "bit"]:
        raise DataflowError(
            f"{nest.name}: group={group_axis!r} cannot sum bits; the group of a product of bits is the axis along "
            f"which both operands are packed (their last one). Give that axis as group."
        )
    order = (b, a) if names[0] == "i8" and names[1] == "u8" else (a, b)
    return Dot(*(nest.type_of(x.operand).scalar.name for x in order), r.scalar.name, 1), *order


def _packable(nest: LoopNest, load: Load) -> bool:
    """An operand is worth bringing into the kernel's order: packed once by the user or read again for some axis of the
    output; and it can be: one axis a term (no window), every element at one place."""
    t = nest.type_of(load.operand)
    if t.storage == "csr" or any(not isinstance(term, str) for term, _ in load.index[-1].terms):
        return False
    if sum(x.operand == load.operand for x in nest.loads()) > 1:
        return False
    extents = nest.extents
    terms = sorted((int(c), extents[a]) for a, c in load.index[-1].terms)  # type: ignore[index,arg-type]
    reach = 1
    for c, n in terms:
        if c < reach:
            return False
        reach = c * (n - 1) + reach
    grid = {a.name for a in nest.grid if extents[a.name] > 1}
    return t.storage == "packed" or not grid <= load.index[-1].axes


def plan(nest: LoopNest, flow: Dataflow, target: Target) -> RegisterPlan:
    """Decide how a flat nest is computed. Raises DataflowError for what does not fit."""
    flow = _complete(nest, flow, target)
    lanes = lanes_of(nest, flow.width)
    r = nest.reduction
    found = product(nest, target, flow)
    dot, a, b = found if found else (None, None, None)
    group = dot.group if dot else 1
    flow = _rounded(nest, flow, lanes, group)
    levels, depth, in_memory = _levels(nest, flow, lanes, group)
    shift = _shift(nest, flow, group, (a, b))
    packings = _packings(nest, flow, lanes, group, levels, dot, b, shift)
    counted = _registers(nest, flow, target, lanes, group, dot, (a, b), levels, in_memory, shift)
    slots, hoisted, registers, arithmetic = counted
    if registers > target.budget:
        raise DataflowError(
            f"{nest.name}: the tile needs {registers} vector registers ({arithmetic}); {target.name} has "
            f"{target.registers} and spills past {target.budget}. Lower a tile size or an auxiliary count."
        )
    if r is None and flow.anchor != nest.out.name:
        raise DataflowError(
            f"{nest.name}: anchor={flow.anchor!r} needs a reduction; this nest has none. Use {nest.out.name!r}."
        )
    return RegisterPlan(
        nest, flow, target, lanes, group, dot, a, b, levels, depth, in_memory, packings, shift, slots, hoisted,
        registers, arithmetic,
    )  # fmt: skip


def _complete(nest: LoopNest, flow: Dataflow, target: Target) -> Dataflow:
    """Names checked, defaults that follow from others filled in."""
    extents = nest.extents
    operands = [o.name for o in nest.operands]
    anchor = nest.out.name if flow.anchor == "out" else flow.anchor
    for what, names, known in (
        ("anchor", [anchor], operands),
        ("auxiliary", [k for k, _ in flow.auxiliary], operands),
        *(
            (f, [k for k, _ in getattr(flow, f)], list(extents))
            for f in ("tile", "block", "unroll")
        ),
        *((f, [getattr(flow, f)], [*extents, ""]) for f in ("lanes", "group", "parallel")),
        ("order", list(flow.order), list(extents)),
    ):
        for name in names:
            if name not in known:
                kind = "an operand" if what in ("anchor", "auxiliary") else "an axis"
                raise DataflowError(
                    f"{nest.name}: {what}={name!r} is not {kind}; they are {', '.join(k for k in known if k)}. "
                    f"Use one of them."
                )
    if anchor != nest.out.name and compressed_rows(nest):
        raise DataflowError(
            f"{nest.name}: anchor={flow.anchor!r} on a nest with a compressed axis; its rows are walked once for each "
            f"output tile. Use anchor='out'."
        )
    if dict(flow.auxiliary).get(anchor):
        raise DataflowError(
            f"{nest.name}: auxiliary names {anchor!r}, which is the anchor; it is in registers already. Remove it."
        )
    width = flow.width or target.width
    if width not in (64, 128, 256, 512) or width > target.width:
        raise DataflowError(
            f"{nest.name}: width={width} is not a vector of {target.name}; 64 to {target.width} bits in powers "
            f"of two are. Lower it."
        )
    reduced = [a.name for a in nest.reduction.axes] if nest.reduction else []
    if flow.group and flow.group not in reduced:
        raise DataflowError(
            f"{nest.name}: group={flow.group!r} is not a reduction axis; they are {', '.join(reduced)}. Use one."
        )
    if not flow.group and nest.reduction:
        flow = replace(flow, group=bit_axis(nest))
    lanes = flow.lanes or default_lanes(nest)
    kinds = {a.name: a.kind for a in nest.axes}
    if kinds[lanes] == "nonzeros" or kinds.get(flow.group) == "nonzeros":
        raise DataflowError(
            f"{nest.name}: lanes or group is the compressed axis; its elements are not next to each other. "
            f"Use another axis."
        )
    for axis in (lanes, *(a for a, n in (*flow.tile, *flow.unroll) if n > 1)):
        if axis in compressed_rows(nest):
            raise DataflowError(
                f"{nest.name}: {axis!r} is tiled or spread over lanes, but each of its rows has nonzeros of its own; "
                f"a compressed row is walked alone. Tile another axis."
            )
    if lanes in quotient_axes(nest):
        raise DataflowError(
            f"{nest.name}: lanes={lanes!r} is divided in an index by a number that does not divide its extent "
            f"{extents[lanes]}; lanes step evenly. Use another axis."
        )
    return replace(flow, anchor=anchor, width=width, lanes=lanes)


def bit_axis(nest: LoopNest) -> str:
    """The axis along which both sides of a product of bits are packed: it has to be the group. '' for other nests."""
    r = nest.reduction
    sides = value_operands(r.value) if r else None
    if r is None or sides is None or any(nest.type_of(x.operand).scalar.kind != "b" for x in sides):
        return ""
    last = [a.name for a in r.axes if all(x.index[-1].coefficient(a.name) == 1 for x in sides)]
    return last[-1] if last else ""


def default_lanes(nest: LoopNest) -> str:
    """The grid axis along which the output is contiguous, or the last one that is longer than 1."""
    extents = nest.extents
    index = nest.store.index[-1]
    barred = quotient_axes(nest) | compressed_rows(nest)
    free = [a.name for a in nest.grid if a.name not in barred] or [a.name for a in nest.grid]
    for name in free:
        if index.coefficient(name) == 1 and extents[name] > 1:
            return name
    plain = [a for a in nest.axes if a.kind == "reduce"]
    if plain and all(extents[a.name] == 1 for a in nest.grid):
        return max(plain, key=lambda x: extents[x.name]).name
    return max(reversed(free), key=lambda name: extents[name] > 1)


def quotient_axes(nest: LoopNest) -> set[str]:
    """Axes inside a quotient that did not become axes: their index does not grow evenly from lane to lane."""
    accesses = (*nest.loads(), nest.store)
    terms = [t for x in accesses for i in x.index for t, _ in i.terms]
    return set().union(*(t.inner.axes for t in terms if not isinstance(t, str)))


def compressed_rows(nest: LoopNest) -> set[str]:
    """Axes that choose a row of a compressed operand: each row has nonzeros of its own, so one at a time."""
    return set().union(*(a.row.axes for a in nest.axes if a.kind == "nonzeros"))


def _rounded(nest: LoopNest, flow: Dataflow, lanes: int, group: int) -> Dataflow:
    """Tile and unroll made whole: the lanes' tile is a number of vectors, the group's unroll a number of groups."""
    extents = nest.extents
    grid = {a.name for a in nest.grid}
    tile, unroll, block = dict(flow.tile), dict(flow.unroll), dict(flow.block)
    for axis in [t for t in tile if t not in grid]:
        unroll[axis] = max(unroll.get(axis, 1), tile.pop(axis))
    step = lanes if flow.lanes in grid else lanes * group
    table = tile if flow.lanes in grid else unroll
    given = table.get(flow.lanes, step)
    if given % step:
        if flow.lanes in dict(flow.tile) and given < extents[flow.lanes]:
            raise DataflowError(
                f"{nest.name}: tile[{flow.lanes!r}]={given} is not a multiple of the {step} lanes of a "
                f"{flow.width}-bit vector. Use a multiple."
            )
        given = -(-given // step) * step
    table[flow.lanes] = given
    if flow.group and group > 1 and flow.group != flow.lanes:
        unroll[flow.group] = -(-unroll.get(flow.group, group) // group) * group
    for axis in tile:
        if axis != flow.lanes:
            tile[axis] = min(tile[axis], extents[axis])
    for axis, n in block.items():
        whole = unroll.get(axis, 1) if axis not in grid else tile.get(axis, 1)
        block[axis] = -(-n // whole) * whole
    return replace(
        flow,
        tile=tuple(sorted(tile.items())),
        unroll=tuple(sorted(unroll.items())),
        block=tuple(sorted((a, n) for a, n in block.items() if n < extents[a])),
    )


def _levels(
    nest: LoopNest, flow: Dataflow, lanes: int, group: int
) -> tuple[tuple[Level, ...], int, bool]:
    """Loops outermost first; how many are outside the accumulators; whether those live in memory."""
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
            order.insert(_lanes_place(nest, flow), flow.lanes)
    else:
        loads = [x for x in nest.loads() if x.operand == flow.anchor]
        mine = set().union(*(i.axes for x in loads for i in x.index)) if loads else set()
        order = [a for a in (*grid, *reduced) if a in mine]
        order += [a for a in (*grid, *reduced) if a not in mine]
    _check_rows_outside(nest, order)
    steps = dict(flow.tile) | dict(flow.unroll)
    blocks = dict(flow.block)
    compressed = {a.name for a in nest.axes if a.kind == "nonzeros"}
    levels = [Level(a, blocks[a], True) for a in order if a in blocks and a not in reduced]
    levels = [Level(a, blocks[a], True) for a in order if a in blocks and a in reduced] + levels
    levels += [Level(a, steps.get(a, 1)) for a in order]
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
                f"{nest.name}: order puts {a.name!r} outside {late[0]!r}, but it runs over the nonzeros of row "
                f"{a.row}. Put {late[0]!r} first."
            )


def _lanes_place(nest: LoopNest, flow: Dataflow) -> int:
    """Where the lanes' loop goes in the default order.

    Outermost, so that one panel of weights serves all pixels; but innermost where both sides of the product (or no
    product) run along the lanes: pixels are then read whole. A depthwise f32 layer of 14x14x512 took 32 us the first
    way, its pixels 2 KB apart and in two sets of L1.
    """
    r = nest.reduction
    sides = value_operands(r.value) if r else None
    shared = sides is None or all(
        flow.lanes in x.index[-1].axes for x in sides if len(x.index) == 1
    )
    return len(nest.grid) - 1 if shared else 0


def _shift(
    nest: LoopNest, flow: Dataflow, group: int, loads: tuple[Load | None, Load | None]
) -> Shift | None:
    """The axis along which outputs can share a group: the window slides along the group axis, inside one group."""
    a, b = loads
    n = nest.extents.get(flow.group, 0)
    if (
        a is None
        or b is None
        or group < 3
        or not 1 < n < group
        or dict(flow.unroll).get(flow.group, group) > group
    ):
        return None
    for moving, still in ((a, b), (b, a)):
        index = moving.index[-1]
        one = index.coefficient(flow.group)
        if (
            one <= 1
            or not _packable(nest, still)
            or _packable(nest, moving)
            or flow.lanes not in index.axes
        ):
            continue
        for axis, size in flow.tile:
            along = index.coefficient(axis)
            if axis == flow.lanes or along <= 0 or along % one or axis in still.index[-1].axes:
                continue
            count = (group - n) // (along // one) + 1
            if (
                count > 1
                and size % count == 0
                and nest.extents[axis] >= count
                and axis not in dict(flow.block)
            ):
                return Shift(axis, count, along // one)
    return None


def _packings(nest, flow, lanes, group, levels, dot, b, shift) -> tuple[Packing, ...]:
    """Operands of the product that are worth, or need, the kernel's own order."""
    if dot is None:
        return ()
    found = []
    r = nest.reduction
    loads = value_operands(r.value)
    order = [x.axis for x in levels if not x.block]
    for load in loads:
        index = load.index[-1]
        if not _packable(nest, load):
            continue
        needs = flow.lanes in index.axes or (group > 1 and index.coefficient(flow.group) != 1)
        reduced = flow.lanes in {a.name for a in r.axes}
        in_order = index.coefficient(flow.lanes) == 1 and (group == 1 or flow.lanes == flow.group)
        if not needs or (reduced and in_order):
            continue
        axes = [a for a in order if a in index.axes and a != flow.lanes]
        vector = lanes * (group if flow.lanes == flow.group else 1)
        tile = vector if reduced else dict(flow.tile)[flow.lanes]
        found.append(
            Packing(
                operand=load.operand,
                scalar=nest.type_of(load.operand).scalar.name,
                lane=flow.lanes if flow.lanes in index.axes else "",
                lane_extent=nest.extents[flow.lanes] if flow.lanes in index.axes else 1,
                lanes=lanes,
                tile=tile,
                group=group,
                group_axis=flow.group if group > 1 else "",
                axes=tuple((a, nest.extents[a]) for a in axes),
                coefficients=tuple((a, index.coefficient(a)) for a in sorted(index.axes)),
                start=int(index.const),
                reduced=tuple(a.name for a in r.axes),
                sums=bool(dot.flip and b is not None and b.operand == load.operand),
                shifts=shift.count if shift else 1,
                shift_stride=shift.stride if shift else 0,
            )
        )
    return tuple(found)


def _registers(nest, flow, target, lanes, group, dot, loads, levels, in_memory, shift):
    """(slots, hoisted, count, how it adds up) of the largest tile."""
    from .tile import tile_keys  # the same walk over the tile that lowering does

    tile = dict(flow.tile)
    points = math.prod(n for a, n in tile.items() if a != flow.lanes)
    vectors = max(1, -(-min(tile.get(flow.lanes, 1), nest.extents[flow.lanes]) // lanes))
    wide = max(1, lanes * _result_bits(nest) // target.width)
    aux = dict(flow.auxiliary)
    if dot is None:
        count = points * vectors * wide if nest.reduction else wide
        extra = 2 * wide
        return (), (), count + extra, f"{nest.out.name} {count}, working {extra}"
    accumulators = points * vectors
    if in_memory:
        accumulators = min(accumulators, max(aux.get(nest.out.name, 1), 1))
    slots, hoisted, parts = [], [], [f"{nest.out.name} {accumulators}"]
    total = accumulators
    lengths = {x.axis: x.step for x in levels if not x.block}
    for load in loads:
        keys = tile_keys(nest, flow, load, lanes, group)
        if shift and shift.axis not in load.index[-1].axes:
            keys *= shift.count
        stays = _stays(nest, load, levels, lengths)
        anchored = flow.anchor == load.operand
        default = (
            keys if anchored and stays else vectors if flow.lanes in load.index[-1].axes else 1
        )
        count = min(keys, max(1, aux.get(load.operand, default)))
        held = 0
        if stays and (anchored or load.operand in aux):
            held = keys if count == keys else count - 1
        free = count - held
        slots.append((load.operand, free))
        hoisted.append((load.operand, held))
        total += free + held
        parts.append(f"{load.operand} {free + held}")
    if dot.flip:
        total += 1
        parts.append("sign 1")
    return tuple(slots), tuple(hoisted), total, ", ".join(parts)


def hoist_level(plan: RegisterPlan, load: Load) -> int:
    """How many levels are outside the load's registers: it is hoisted out of every loop that it does not mention."""
    return _outside(plan.nest, plan.levels, load)


def _outside(nest: LoopNest, levels: tuple[Level, ...], load: Load) -> int:
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


def _stays(nest, load, levels, lengths) -> bool:
    """Whether some loop that really runs is inside every loop the load mentions."""
    last = _outside(nest, levels, load)
    return any(x.block or nest.extents[x.axis] > lengths[x.axis] for x in levels[last:])


def _result_bits(nest: LoopNest) -> int:
    if nest.reduction:
        return nest.reduction.scalar.bits
    return scalar_of(nest.store.value, nest).bits
