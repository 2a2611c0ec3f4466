"""Finish: what a tile does before and after its reduction.

Start values, horizontal sums, epilogue, stores. The reduction itself is in `body`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..dsl.nest import Affine, Const
from .body import neutral
from .express import express
from .narrowing import added_constant, narrowed
from .packing import scaled
from .place import Place, pieces_load, substitute
from .program import Address, Vec
from .turn import NEAR
from .writer import Writer

if TYPE_CHECKING:
    from .lower import Tile


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
                    sums = pieces_load(w, vec, _sums(tile, place), place)
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
    offset = Affine() if packing.period else place.at[packing.lane]
    stride = packing.padded_lanes
    for axis, n in reversed(packing.sum_axes):
        offset = offset.plus(place.at[axis].times(stride))
        stride *= n
    return Address(f"{packing.operand}_sums", offset)


def finish(w: Writer, tile: Tile) -> None:
    """Horizontal step, epilogue and store of every accumulator of the tile."""
    accumulators = [(i, s, j) for i, s in enumerate(tile.spots) for j in range(tile.vectors)]
    chunk = _chunk(tile)
    for at in range(0, len(accumulators), chunk):
        _store(w, tile, [_value(w, tile, *one) for one in accumulators[at : at + chunk]])


def _chunk(tile: Tile) -> int:
    """How many vectors are stored together: narrowed to a full register of 8-bit elements, or
    interleaved to be one piece of memory.
    """
    plan = tile.plan
    out = plan.nest.type_of(plan.nest.store.operand).scalar
    if _interleaved(tile):
        return abs(plan.nest.store.index[-1].coefficient(plan.flow.lanes))
    if plan.nest.store.index[-1].coefficient(plan.flow.lanes) != 1 or plan.lanes_reduced:
        return 1
    return 4 if narrowed(tile.plan.nest) is not None and out.bits == 8 else 1


def _interleaved(tile: Tile) -> bool:
    """Whether the lanes lie a few elements apart in the output, and the tile has all that lies
    between: the points of the last axis of its spots.
    """
    plan = tile.plan
    index, lanes = plan.nest.store.index[-1], plan.flow.lanes
    step = index.coefficient(lanes)
    axes = [a for a in plan.nest.grid if a.name != lanes and tile.sizes[a.name] > 1]
    if plan.lanes_reduced or tile.vectors > 1 or not axes or not 1 < step <= NEAR:
        return False
    last = axes[-1].name
    return index.coefficient(last) == 1 and tile.sizes[last] == step


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
    final = narrowed(tile.plan.nest)
    stored = nest.store.value
    for let in nest.epilogue:
        if final is not None and let.name in final.lets:
            continue
        known[let.name] = express(w, plan, let.value, place, known)
    if final is not None:
        zero_point = added_constant(nest, final.wide)
        wide = final.wide if zero_point is None else zero_point[0]
        return express(w, plan, wide, place, known), place
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


def _store(w: Writer, tile: Tile, values: list[tuple[str, Place]]) -> None:
    """Store vectors of the result, narrowed together where the store narrows.

    Neighbours in memory take one store.
    """
    plan = tile.plan
    nest = plan.nest
    out = nest.type_of(nest.store.operand).scalar
    index = nest.store.index[-1]
    step = index.coefficient(plan.flow.lanes) if not plan.lanes_reduced else 1
    registers = [v for v, _ in values]
    lanes, valid = values[0][1].lanes, values[0][1].valid
    vec = Vec(out.name, lanes * len(registers))
    starts = [substitute(index, p.at).moved(p.vector * lanes * step) for _, p in values]
    where = Address(nest.store.operand, starts[0])
    if step != 1 and len(registers) > 1:
        ended = [_ended(w, tile, Vec(out.name, lanes), [r], False) for r in registers]
        value = w.op("interleave", vec, *ended)
        some = () if valid == lanes else (valid * len(registers),)
        w.store("store", vec, where, value, *some)
        return
    value = _ended(w, tile, vec, registers, values[0][1].woven)
    if out.kind == "b":
        where = Address(nest.store.operand, scaled(starts[0], 1, 8))
        w.store("store_bits", w.vecs[value], where, value, valid)
        return
    if step != 1:
        w.store("scatter", vec, where, value, step, valid)
        return
    value, parts = _joined(w, value, starts, [p.valid for _, p in values], lanes)
    for begin, first, count in parts:
        part = () if count == vec.lanes else (count, first) if first else (count,)
        w.store("store", vec, Address(nest.store.operand, begin), value, *part)


def _ended(w: Writer, tile: Tile, vec: Vec, registers: list[str], woven: bool) -> str:
    """What is stored: the registers as one of the output's type, narrowed where the store narrows.

    Bits are stored as the truth values that they are.
    """
    nest = tile.plan.nest
    final = narrowed(nest)
    if final is None:
        (value,) = registers
    elif (constant := added_constant(nest, final.wide)) is not None:
        value = w.op("narrow_add", vec, *registers, constant[1])
    else:
        value = w.op("narrow", vec, *registers)
    if woven:
        value = w.op("unweave", vec, value)
    for op, bound in final.bounds if final is not None else ():
        value = w.op(op, vec, value, w.op("const", vec, bound))
    bits = nest.type_of(nest.store.operand).scalar.kind == "b"
    return value if bits or w.vecs[value].scalar == vec.scalar else w.op("convert", vec, value)


def _joined(
    w: Writer, value: str, starts: list[Affine], valid: list[int], lanes: int
) -> tuple[str, list[tuple[Affine, int, int]]]:
    """The register with what is one piece of memory side by side, and (place, first lane, lanes) of
    each piece.

    starts   where each of its vectors of `lanes` belongs, of which `valid` exist
    """
    pieces: list[tuple[Affine, int]] = []
    for start, n in zip(starts, valid, strict=True):
        if pieces and pieces[-1][0].moved(pieces[-1][1]) == start:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + n)
        else:
            pieces.append((start, n))
    if len(pieces) == len(starts) or sum(valid[:-1]) == lanes * (len(valid) - 1):
        # Nothing meets, or what meets does so already: every vector but the last is full.
        firsts = [starts.index(start) * lanes for start, _ in pieces]
    else:
        value = w.op("join", w.vecs[value], value, lanes, *valid)
        firsts = [sum(n for _, n in pieces[:k]) for k in range(len(pieces))]
    return value, [(start, first, n) for (start, n), first in zip(pieces, firsts, strict=True)]
