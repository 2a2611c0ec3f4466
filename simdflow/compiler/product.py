"""Product: the reduction as a product: its instruction, and the order of its operands.

Finds the dot-product row of the target, which operands are worth packing, and whether neighbouring
outputs share a group. Writes no code and moves no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Load, LoopNest, integer
from ..dsl.types import SCALARS
from ..targets import Target
from ..targets.base import Dot
from .flatten import value_operands
from .levels import Level
from .narrowing import narrowed
from .packing import Packing
from .period import straight
from .weave import whole

WORD_LANES = (4, 8)  # lanes of i32 whose products `dot_words` sums


@dataclass(frozen=True)
class Shift:
    """Neighbouring outputs share one group of a sliding window (depthwise: 4 pixels hold two
    windows of 3).

    Output `count*i + k` along `axis` reads the group of output `count*i`, with weights that begin
    `k*stride` later; the packed operand has `count` versions of itself.
    """

    axis: str
    count: int
    stride: int


def product(nest: LoopNest, target: Target, flow: Dataflow) -> tuple[Dot, Load, Load] | None:
    """The dot-product row for the reduction, and its loads in the row's order.

    None when the reduction is no plain product.
    """
    r, group_axis = nest.reduction, flow.group
    if r is None or r.combine != "add":
        return None
    loads = value_operands(r.value)
    if loads is None:
        return None
    a, b = loads
    names = [nest.type_of(x.operand).scalar.name for x in (a, b)]
    if a.operand == b.operand:
        # Registers are kept by what they were loaded from; here one place may be in two forms.
        if names[0] == "bit":
            raise DataflowError(
                f"{nest.name}: both sides of xnor_popcount are {a.operand}; two operands are "
                f"allowed. Give the kernel a second parameter, and pass the same bits for it."
            )
        return None
    if r.scalar.is_float != SCALARS[names[0]].is_float:
        return None
    lanes_reduced = flow.lanes not in {x.name for x in nest.grid}
    # Where both sides run along the lanes, no register is widened for more than one product:
    # depthwise 3x3 of 14x14x512 u8 takes 31 us by widened fours and 28 by pairs (AVX2, Zen 4).
    both = all(flow.lanes in x.index[-1].axes for x in (a, b))
    for x, y, (s, t) in ((a, b, names), (b, a, names[::-1])):
        options = target.groups(s, t, r.scalar.name, widened=not both) if group_axis else (1,)
        for group in options:
            row = target.dot(s, t, r.scalar.name, group)
            mentioned = all(group_axis in z.index[-1].axes for z in (a, b))
            if (
                row
                and row.flip
                and (lanes_reduced or not packable(nest, y) or flow.lanes not in y.index[-1].axes)
            ):
                continue
            in_order = flow.lanes != group_axis or all(
                z.index[-1].coefficient(group_axis) == 1 or packable(nest, z) for z in (a, b)
            )
            if names == ["bit", "bit"] and any(
                z.index[-1].coefficient(group_axis) != 1 for z in (a, b)
            ):
                continue
            if row and group > 1 and mentioned and in_order:
                return row, x, y
    if names == ["bit", "bit"]:
        raise DataflowError(
            f"{nest.name}: group={group_axis!r} cannot sum bits; the group of a product of bits is "
            f"the axis along "
            f"which both operands are packed (their last one). Give that axis as group."
        )
    order = (b, a) if names[0] == "i8" and names[1] == "u8" else (a, b)
    x, y = order
    s, t = (nest.type_of(z.operand).scalar.name for z in order)
    return target.dot(s, t, r.scalar.name, 1) or Dot(s, t, r.scalar.name, 1), x, y


def packable(nest: LoopNest, load: Load) -> bool:
    """An operand is worth bringing into the kernel's order, and can be.

    Worth it: packed once by the user, or read again for some axis of the output. It can be: one
    axis a term (no window), every element at one place.
    """
    t = nest.type_of(load.operand)
    index, periods = straight(nest, load.index[-1])
    if t.storage in ("csr", "computed") or any(
        not isinstance(term, str) for term, _ in index.terms
    ):
        return False
    if sum(x.operand == load.operand for x in nest.loads()) > 1:
        return False
    extents = nest.extents
    terms = sorted((index.coefficient(a), periods.get(a, extents[a])) for a in index.axes)
    reach = 1
    for c, n in terms:
        if c < reach:
            return False
        reach = c * (n - 1) + reach
    grid = {a.name for a in nest.grid if extents[a.name] > 1}
    return t.storage == "packed" or bool(periods) or not grid <= index.axes


def shift_of(
    nest: LoopNest, flow: Dataflow, group: int, loads: tuple[Load | None, Load | None]
) -> Shift | None:
    """The axis along which outputs can share a group.

    The window slides along the group axis, inside one group.
    """
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
            or not packable(nest, still)
            or packable(nest, moving)
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


def packings_of(
    nest: LoopNest,
    flow: Dataflow,
    lanes: int,
    group: int,
    levels: Sequence[Level],
    dot: Dot | None,
    b: Load | None,
    shift: Shift | None,
    woven: bool,
) -> tuple[Packing, ...]:
    """Operands of the product that are worth, or need, the kernel's own order."""
    r = nest.reduction
    sides = value_operands(r.value) if r else None
    if dot is None or r is None or sides is None:
        return ()
    found = []
    order = [x.axis for x in levels if not x.block]
    for load in sides:
        index, periods = straight(nest, load.index[-1])
        if not packable(nest, load):
            continue
        needs = flow.lanes in index.axes or (group > 1 and index.coefficient(flow.group) != 1)
        needs |= shift is not None  # the versions of the side that stands still
        reduced = flow.lanes in {a.name for a in r.axes}
        in_order = index.coefficient(flow.lanes) == 1 and (group == 1 or flow.lanes == flow.group)
        if not needs or (reduced and in_order):
            continue
        axes = [a for a in order if a in index.axes and a != flow.lanes]
        vector = lanes * (group if flow.lanes == flow.group else 1)
        tile = vector if reduced else dict(flow.tile)[flow.lanes]
        period = periods.get(flow.lanes, 0)
        lane_extent = tile if period else nest.extents[flow.lanes]
        found.append(
            Packing(
                operand=load.operand,
                scalar=nest.type_of(load.operand).scalar.name,
                lane=flow.lanes if flow.lanes in index.axes else "",
                lane_extent=lane_extent if flow.lanes in index.axes else 1,
                lanes=lanes,
                tile=tile,
                group=group,
                group_axis=flow.group if group > 1 else "",
                axes=tuple((a, nest.extents[a]) for a in axes),
                coefficients=tuple((a, index.coefficient(a)) for a in sorted(index.axes)),
                start=integer(index.const),
                reduced=tuple(a.name for a in r.axes),
                sums=dot.flip and b is not None and b.operand == load.operand,
                shifts=shift.count if shift else 1,
                shift_stride=shift.stride if shift else 0,
                period=period,
                woven=woven,
                words=in_words(dot, lanes, flow, load),
            )
        )
    return tuple(found)


def in_words(dot: Dot, lanes: int, flow: Dataflow, load: Load) -> bool:
    """Whether a packed side of bytes is stored as the words that the instruction multiplies: the
    one with the lanes, in registers of 128 or 256 bits, if each of them serves several products.
    1x1 of 28x28x128-256 takes 301 us so and 348 otherwise; dense 2048-1000, held up by the bytes
    of its weights, 41 and 37 (AVX2, Zen 4).
    """
    apart = flow.lanes in load.index[-1].axes and flow.lanes != flow.group
    several = any(n > 1 for axis, n in flow.tile if axis not in load.index[-1].axes)
    return dot.widened and apart and several and lanes in WORD_LANES


def weaves(
    nest: LoopNest, flow: Dataflow, lanes: int, found: tuple[Dot, Load, Load] | None
) -> bool:
    """Whether the tiles of a plan are woven: rows of bytes are summed by fours along another axis
    than the lanes', and the result is made bytes again.
    """
    grid = {a.name for a in nest.grid}
    tile = dict(flow.tile).get(flow.lanes, lanes)
    if found is None or flow.lanes not in grid or lanes % 4 or not whole(tile, lanes):
        return False
    dot, *sides = found
    packed = [packable(nest, x) for x in sides]
    if dot.group != 4 or sorted(packed) != [False, True] or narrowed(nest) is None:
        return False
    moving, still = (sides[i].index[-1] for i in (packed.index(False), packed.index(True)))
    if any(SCALARS[nest.type_of(x.operand).scalar.name].bits != 8 for x in sides):
        return False
    in_rows = moving.coefficient(flow.lanes) == 1 and moving.coefficient(flow.group) > 1
    if not in_rows or flow.lanes not in still.axes:
        return False
    rest = nest.extents[flow.lanes] % tile
    if straight(nest, still)[1] and not whole(rest, lanes):
        return False
    others = [x for x in nest.accesses if x not in sides]
    return all(
        straight(nest, i)[0].coefficient(flow.lanes) in (0, 1) for x in others for i in x.index
    )
