"""Place: where in the iteration space an instruction stands, and what a load there is.

Turns an access at a place into an address and the kind of load that brings it into a register:
vector, broadcast, or gather. The only code that knows both dense and packed storage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..dsl.index import Term
from ..dsl.nest import Affine, Fetched, Load, Quotient, integer
from .packing import scaled
from .period import straight
from .plan import RegisterPlan
from .program import Address, Vec
from .turn import contiguous_axis, square, turned, turns
from .weave import TOGETHER, places
from .writer import Writer


@dataclass(frozen=True)
class Place:
    """One point of a tile.

    at       axis -> value, affine in the loop variables (the lanes' axis: of lane 0 of its vector
             0)
    vector   which vector along the lanes, `lanes` wide, of which `valid` lanes exist
    left     group elements that exist from here on (the last group of a row may be short)
    section  padded size of the lane tile (the packed operand's panel)
    shift    which output of those that share a group (plan.Shift), of `sharing` in this tile
    woven    the lanes are interwoven with those of three more vectors (see weave.py)
    spot     axis -> which point of the tile, of `sizes` along it; 0 where it is not named
    """

    at: Mapping[str, Affine]
    vector: int
    lanes: int
    valid: int
    left: int = 1 << 30
    section: int = 1
    shift: int = 0
    sharing: int = 1
    woven: bool = False
    spot: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


def substitute(index: Affine, at: Mapping[str, Affine]) -> Affine:
    """An index over axes as one over loop variables (bound sizes only)."""
    terms: dict[Term, int] = {}
    const = integer(index.const)
    for term, size in index.terms:
        c = integer(size)
        if isinstance(term, str):
            moved = at[term]
            const += c * integer(moved.const)
            for t, k in moved.terms:
                terms[t] = terms.get(t, 0) + c * integer(k)
            continue
        if isinstance(term, Fetched):
            found: Term = replace(term, index=tuple(substitute(i, at) for i in term.index))
        else:
            inner, d = substitute(term.inner, at), integer(term.divisor)
            if not inner.terms:
                v = integer(inner.const)
                const += c * (v // d if term.op == "//" else v % d)
                continue
            found = Quotient(term.op, inner, d)
        terms[found] = terms.get(found, 0) + c
    return Affine(tuple([t for t in terms.items() if t[1]]), const)


def address(plan: RegisterPlan, load: Load, place: Place) -> Address:
    """Where the load's lane 0, group element 0 is."""
    axis, nest = plan.flow.lanes, plan.nest
    packing = plan.packing(load.operand)
    is_product = plan.dot is not None and load in (plan.a, plan.b)
    if packing and is_product:
        width = place.lanes * packing.inner_group // packing.unit
        whole = place.section == packing.tile
        start = 0 if whole else packing.sections[-1][0]
        offset = packing.offset(dict(place.at), start, place.section, place.shift)
        if packing.lane:
            offset = offset.moved(place.vector * width)
        return Address(load.operand, offset)
    t = nest.type_of(load.operand)
    if t.storage == "csr":
        return Address(f"{load.operand}_data", Affine.axis(_position(plan)))
    index, periods = straight(nest, load.index[-1])
    at = place.at
    if axis in periods:
        at = {**at, axis: Affine()}  # a tile begins where a period does
    if plan.shift and is_product:
        along = plan.shift.axis
        at = {**at, along: at[along].moved(-place.shift)}
    offset = substitute(index, at)
    step = _lane_step(plan, index)
    offset = offset.moved(place.vector * place.lanes * step)
    if t.scalar.kind == "b":
        offset = scaled(offset, 1, 8)
    return Address(load.operand, offset)


def identity(plan: RegisterPlan, load: Load, place: Place) -> Address:
    """What tells one register of a product's side from others: its address, where it is not one of
    four that are woven from the same rows, where groups that begin there do not end elsewhere, and
    are all as long: a short one (the end of a kernel row) is loaded without what lies behind it.
    """
    if plan.packing(load.operand):
        return address(plan, load, place)
    if place.woven:
        k = place.vector % TOGETHER
        where = address(plan, load, replace(place, vector=place.vector - k))
        where = replace(where, offset=where.offset.times(TOGETHER).moved(k))
    else:
        where, steps = address(plan, load, place), group_steps(plan, load, place)
        if steps:
            jump = next((g for g, step in enumerate(steps) if step != g), 0)
            where = replace(where, offset=where.offset.times(plan.group).moved(jump))
    left = place.left + (plan.shift.stride * (place.sharing - 1) if plan.shift else 0)
    missing = max(0, plan.group - left)
    return replace(where, offset=where.offset.times(plan.group).moved(missing))


def group_steps(plan: RegisterPlan, load: Load, place: Place) -> tuple[int, ...]:
    """Where the group elements that exist lie, from the first, on an axis along which the index
    jumps (kernel rows in one group); () on an even one.
    """
    axis, index = plan.flow.group, load.index[-1]
    if not axis or not any(isinstance(t, Quotient) and axis in t.axes for t, _ in index.terms):
        return ()
    first = substitute(index, place.at)
    found = []
    for g in range(min(plan.group, place.left)):
        at = {**place.at, axis: place.at[axis].moved(g)}
        found.append(integer(substitute(index, at).plus(first, -1).const))
    return tuple(found)


def _position(plan: RegisterPlan) -> str:
    return next(f"{a.name}_at" for a in plan.nest.axes if a.kind == "nonzeros")


def _lane_step(plan: RegisterPlan, index: Affine) -> int:
    c = index.coefficient(plan.flow.lanes)
    return c * plan.group if plan.flow.lanes == plan.flow.group else c


def product_load(w: Writer, plan: RegisterPlan, load: Load, place: Place, dst: str) -> str:
    """Bring one side of a product into register `dst`: [lane][group element]."""
    nest, lanes = plan.nest, place.lanes
    scalar = nest.type_of(load.operand).scalar
    group = plan.group // 8 if scalar.kind == "b" else plan.group
    name = "u8" if scalar.kind == "b" else scalar.name
    vec = Vec(name, lanes * group)
    where = address(plan, load, place)
    packing = plan.packing(load.operand)
    left = -(-place.left // 8) if scalar.kind == "b" else place.left
    if plan.shift:
        left += plan.shift.stride * (place.sharing - 1)
    if place.woven and not packing:
        return _woven_load(w, plan, load, place, dst, min(left, group))
    if packing:
        if packing.lane:
            return w.assign(dst, "load", replace(vec, scalar=packing.stored), where)
        return w.assign(dst, "broadcast", vec, where, group)
    index = load.index[-1]
    cl = index.coefficient(plan.flow.lanes) if nest.type_of(load.operand).storage != "csr" else 0
    cg = index.coefficient(plan.flow.group) if plan.group > 1 else 1
    unit = 8 if scalar.kind == "b" else 1
    if plan.flow.lanes == plan.flow.group and plan.group > 1 and cl == 1:
        valid = _short(w, plan, where, lanes * group, min(left, place.valid * group, lanes * group))
        return w.assign(dst, "load", vec, where, *valid)
    steps = group_steps(plan, load, place)
    if steps != tuple(range(len(steps))):
        return w.assign(dst, "collect", vec, where, group, *steps)
    if cl == 0 and (cg == 1 or group == 1):
        valid = _short(w, plan, where, group, min(left, group))
        return w.assign(dst, "broadcast", vec, where, group, *valid)
    if cl == 1 and group == 1:
        valid = _short(w, plan, where, lanes, place.valid)
        return w.assign(dst, "load", vec, where, *valid)
    return w.assign(
        dst,
        "gather",
        vec,
        where,
        group,
        cl // unit,
        1 if cg == 1 else cg,
        place.valid,
        min(left, group),
    )


def _short(
    w: Writer, plan: RegisterPlan, where: Address, whole: int, valid: int
) -> tuple[int, ...]:
    """(valid,) when a whole load could leave the operand, else ().

    Then what is read beyond the valid lanes meets zeros.
    """
    if valid >= whole:
        return ()
    other = plan.b if plan.a and plan.a.operand == where.operand else plan.a
    zeros = other is not None and plan.packing(other.operand) is not None
    t = plan.nest.type_of(where.operand)
    size = math.prod(t.memory) * t.scalar.bits // 8 if t.scalar.kind != "b" else 0
    item = max(t.scalar.bits // 8, 1)
    inside = (w.highest(where) + whole) * item <= size + t.slack
    return () if zeros and inside and not t.scalar.is_float else (valid,)


def _woven_load(
    w: Writer, plan: RegisterPlan, load: Load, place: Place, dst: str, rows: int
) -> str:
    """One of four vectors of [lane][row] out of `rows` rows, which all four read."""
    scalar = plan.nest.type_of(load.operand).scalar.name
    block = Vec(scalar, TOGETHER * place.lanes)
    k = place.vector % TOGETHER
    where = address(plan, load, replace(place, vector=place.vector - k))
    step = load.index[-1].coefficient(plan.flow.group)
    row = [
        w.op("load", block, replace(where, offset=where.offset.moved(g * step)))
        if g < rows
        else w.op("const", block, 0)
        for g in range(TOGETHER)
    ]
    pairs = [w.op("zip", block, row[g], row[g + 1], k // 2, 1) for g in (0, 2)]
    return w.assign(dst, "zip", block, *pairs, k % 2, 2)


def value_load(w: Writer, plan: RegisterPlan, load: Load, place: Place) -> str:
    """Bring an operand of an expression into a register: one element a lane."""
    scalar = plan.nest.type_of(load.operand).scalar
    index, periods = straight(plan.nest, load.index[-1])
    period = periods.get(plan.flow.lanes, 0)
    where = address(plan, load, place)
    where = replace(where, offset=where.offset.mapped(w.fetched))
    vec = Vec(scalar.name, place.lanes)
    c = index.coefficient(plan.flow.lanes) if place.lanes > 1 else 0
    if place.lanes == 1:
        return w.op("load", vec, where)
    if c == 0:
        return w.op("broadcast", vec, where, 1)
    if (place.woven or period) and c == 1:
        first = replace(where, offset=where.offset.moved(-place.vector * place.lanes))
        return pieces_load(w, vec, first, place, period)
    if c == 1:
        return w.op("load", vec, where, *(() if place.valid == place.lanes else (place.valid,)))
    along = contiguous_axis(plan.nest, load, plan.flow.lanes)
    size = place.sizes.get(along, 1)
    if size > 1 and turns(vec):
        column = place.spot.get(along, 0) % square(vec)
        start = place.spot.get(along, 0) - column
        corner = replace(where, offset=where.offset.moved(-column))
        return turned(w, vec, corner, c, place.valid, min(size - start, square(vec)), column)
    return w.op("gather", vec, where, 1, c, 1, place.valid, 1)


def pieces_load(w: Writer, vec: Vec, first: Address, place: Place, period: int = 0) -> str:
    """The vector's lanes from a tile whose lane 0 is at `first`, repeating after `period`."""
    starts = places(place.vector, place.lanes, place.woven)
    starts = [p % period for p in starts] if period else starts
    if starts != list(range(starts[0], starts[0] + place.lanes, 4)):
        return w.op("pieces", vec, first, *starts)
    where = replace(first, offset=first.offset.moved(starts[0]))
    return w.op("load", vec, where, *(() if place.valid == place.lanes else (place.valid,)))
