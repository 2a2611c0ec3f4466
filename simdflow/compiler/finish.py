"""Finish: what a tile does before and after its reduction.

Start values, horizontal sums, epilogue, stores. The reduction itself is in `body`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..dsl.nest import Affine, Call, Cast, Const, Expr, Ref, integer
from .body import neutral
from .express import express
from .packing import scaled
from .place import Place, substitute
from .program import Address, Vec
from .scalars import scalar_of
from .writer import Writer

if TYPE_CHECKING:
    from .lower import Tile
    from .plan import RegisterPlan


def start(w: Writer, tile: Tile) -> None:
    """acc_i_j = init, with the correction of an instruction that takes one side as unsigned."""
    plan = tile.plan
    r = plan.nest.reduction
    assert r is not None
    vec = Vec(r.scalar.name, tile.lanes)
    for i, spot in enumerate(tile.spots):
        for j in range(tile.vectors):
            if starts_later(tile):
                value = neutral(w, tile)
            else:
                place = tile.place(spot, j)
                value = express(w, plan, r.init, place, {})
                if w.vecs[value].scalar != r.scalar.name:
                    value = w.op("convert", vec, value)
                if plan.dot and plan.dot.flip:
                    sums = w.op("load", vec, _sums(tile, place))
                    zero = isinstance(r.init, Const) and r.init.value == 0
                    value = sums if zero else w.op("add", vec, value, sums)
            w.assign(f"acc_{i}_{j}", "copy", vec, value)


def starts_later(tile: Tile) -> bool:
    """The accumulator starts empty: lanes are partial sums, or count differing bits."""
    plan = tile.plan
    return plan.lanes_reduced or (plan.dot is not None and plan.dot.a == "bit")


def _sums(tile: Tile, place: Place) -> Address:
    plan = tile.plan
    assert plan.b is not None
    packing = plan.packing(plan.b.operand)
    assert packing is not None and packing.sums
    offset = place.at[packing.lane].plus(Affine((), place.vector * place.lanes))
    stride = packing.padded_lanes
    for axis, n in reversed(packing.sum_axes):
        offset = offset.plus(place.at[axis].times(stride))
        stride *= n
    return Address(f"{packing.operand}_sums", offset)


def finish(w: Writer, tile: Tile) -> None:
    """Horizontal step, epilogue and store of every accumulator of the tile."""
    chunk = _chunk(tile)
    for i, spot in enumerate(tile.spots):
        j = 0
        while j < tile.vectors:
            n = min(chunk, tile.vectors - j)
            values = [_value(w, tile, i, spot, j + k) for k in range(n)]
            _store(w, tile, spot, j, values)
            j += n


def _chunk(tile: Tile) -> int:
    """How many vectors are narrowed and stored together: a full register of 8-bit elements."""
    plan = tile.plan
    out = plan.nest.type_of(plan.nest.store.operand).scalar
    if plan.nest.store.index[-1].coefficient(plan.flow.lanes) != 1 or plan.lanes_reduced:
        return 1
    return 4 if _narrowed(tile) is not None and out.bits == 8 else 1


def _narrowed(tile: Tile) -> Expr | None:
    """What is narrowed to 8 bits last, when the stored value is an i32 made 8 bits."""
    plan, value = tile.plan, tile.plan.nest.store.value
    if isinstance(value, Ref):
        named = [x.value for x in plan.nest.epilogue if x.name == value.name]
        value = named[0] if named else value
    if isinstance(value, Cast) and value.scalar.name in ("u8", "i8") and value.mode != "wrap":
        arg = value.arg
        if isinstance(arg, Const):
            return None
        if scalar_of(arg, plan.nest).name == "i32" or _added_constant(plan, arg):
            return arg
    return None


def _value(w: Writer, tile: Tile, i: int, spot: Mapping[str, int], j: int) -> tuple[str, Place]:
    """The register to be stored (before narrowing, if the store narrows) and where it stands."""
    plan = tile.plan
    nest, r = plan.nest, plan.nest.reduction
    place = tile.place(spot, j)
    known: dict[str, str] = {}
    if plan.lanes_reduced:
        place = Place(place.at, 0, 1, 1, section=place.section)
    if r:
        known[r.name] = _reduced(w, tile, place, f"acc_{i}_{j}")
    final = _narrowed(tile)
    stored = nest.store.value
    for let in nest.epilogue:
        if final is not None and isinstance(stored, Ref) and let.name == stored.name:
            continue
        known[let.name] = express(w, plan, let.value, place, known)
    if final is not None:
        zero_point = _added_constant(plan, final)
        if zero_point is not None:
            final = zero_point[0]
        return express(w, plan, final, place, known), place
    return express(w, plan, stored, place, known), place


def _reduced(w: Writer, tile: Tile, place: Place, acc: str) -> str:
    plan = tile.plan
    r = plan.nest.reduction
    assert r is not None
    vec = Vec(r.scalar.name, place.lanes)
    if plan.lanes_reduced:
        acc = w.op(
            {"add": "hadd", "max": "hmax", "min": "hmin"}[r.combine],
            vec,
            w.op("copy", w.vecs[acc], acc),
        )
    if plan.dot and plan.dot.a == "bit":
        total = math.prod(plan.nest.extents[a.name] for a in r.axes)
        twice = w.op("add", vec, acc, acc)
        acc = w.op("sub", vec, w.op("const", vec, total), twice)
    if starts_later(tile):
        if isinstance(r.init, Const) and r.combine == "add" and r.init.value == 0:
            return acc
        first = express(w, plan, r.init, place, {})
        if w.vecs[first].scalar != r.scalar.name:
            first = w.op("convert", vec, first)
        acc = w.op({"add": "add", "max": "max_into", "min": "min_into"}[r.combine], vec, acc, first)
    return acc


def _added_constant(plan: RegisterPlan, expr: Expr) -> tuple[Expr, int] | None:
    """(v, c) of `v + c` with a small constant c and v a saturated i32.

    The sum saturates the same in 16 bits.
    """
    if isinstance(expr, Call) and expr.op == "add":
        a, b = expr.args
        if isinstance(a, Const):
            a, b = b, a
        if (
            isinstance(b, Const)
            and abs(integer(b.value)) <= 32767
            and scalar_of(a, plan.nest).name == "i32"
        ):
            return a, integer(b.value)
    return None


def _store(
    w: Writer, tile: Tile, spot: Mapping[str, int], j: int, values: list[tuple[str, Place]]
) -> None:
    plan = tile.plan
    nest = plan.nest
    out = nest.type_of(nest.store.operand).scalar
    place = values[0][1]
    index = nest.store.index[-1]
    step = index.coefficient(plan.flow.lanes) if not plan.lanes_reduced else 1
    offset = substitute(index, place.at)
    offset = offset.plus(Affine((), place.vector * place.lanes * step))
    valid = sum(p.valid for _, p in values)
    registers = [v for v, _ in values]
    final = _narrowed(tile)
    if final is not None:
        vec = Vec(out.name, place.lanes * len(registers))
        constant = _added_constant(plan, final)
        if constant is not None:
            value = w.op("narrow_add", vec, *registers, constant[1])
        else:
            value = w.op("narrow", vec, *registers)
    else:
        (value,) = registers
        vec = Vec(out.name, place.lanes)
    if out.kind == "b":
        where = Address(nest.store.operand, scaled(offset, 1, 8))
        w.store("store_bits", w.vecs[value], where, value, valid)
        return
    if w.vecs[value].scalar != out.name:
        value = w.op("convert", vec, value)
    where = Address(nest.store.operand, offset)
    if step != 1:
        w.store("scatter", vec, where, value, step, valid)
    elif valid == vec.lanes:
        w.store("store", vec, where, value)
    else:
        w.store("store", vec, where, value, valid)
