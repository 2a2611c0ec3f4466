"""Complete: a given dataflow with every choice made that follows from nest and target.

Names are checked, defaults filled in, tile sizes rounded to whole vectors and groups. It does not
choose sizes; the cost model does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Call, Cast, Expr, Load, LoopNest, Quotient, integer, walk
from ..targets import Target
from .flatten import value_operands
from .period import period_of, straight

# What is computed in the type of its operands, 8 bits included, if they have one type.
NARROW = ("min", "max", "and", "or", "xor")


def lanes_of(nest: LoopNest, width: int) -> int:
    """Lanes of one vector.

    By the accumulator, else by the widest type computed with (at most 32 bits).
    """
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


def _parts(nest: LoopNest) -> Iterator[Expr]:
    for e in nest.expressions():
        yield from walk(e)


def _arithmetic(nest: LoopNest) -> bool:
    """Whether anything is computed that 8-bit lanes do not do for."""
    return any(isinstance(e, Call) and e.op not in NARROW for e in _parts(nest))


def complete(nest: LoopNest, flow: Dataflow, target: Target) -> Dataflow:
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
                    f"{nest.name}: {what}={name!r} is not {kind}; they are "
                    f"{', '.join(k for k in known if k)}. Use one of them."
                )
    if anchor != nest.out.name and compressed_rows(nest):
        raise DataflowError(
            f"{nest.name}: anchor={flow.anchor!r} on a nest with a compressed axis; its rows are "
            f"walked once for each output tile. Use anchor='out'."
        )
    if dict(flow.auxiliary).get(anchor):
        raise DataflowError(
            f"{nest.name}: auxiliary names {anchor!r}, which is the anchor; it is in registers "
            f"already. Remove it."
        )
    width = flow.width or target.width
    if width not in (64, 128, 256, 512) or width > target.width:
        raise DataflowError(
            f"{nest.name}: width={width} is not a vector of {target.name}; 64 to {target.width} "
            f"bits in powers of two are. Lower it."
        )
    reduced = [a.name for a in nest.reduction.axes] if nest.reduction else []
    if flow.group and flow.group not in reduced:
        raise DataflowError(
            f"{nest.name}: group={flow.group!r} is not a reduction axis; they are "
            f"{', '.join(reduced)}. Use one."
        )
    if not flow.group and nest.reduction:
        flow = replace(flow, group=bit_axis(nest))
    lanes = flow.lanes or default_lanes(nest)
    kinds = {a.name: a.kind for a in nest.axes}
    if kinds[lanes] == "nonzeros" or kinds.get(flow.group) == "nonzeros":
        raise DataflowError(
            f"{nest.name}: lanes or group is the compressed axis; its elements are not next to "
            f"each other. Use another axis."
        )
    for axis in (lanes, *(a for a, n in (*flow.tile, *flow.unroll) if n > 1)):
        if axis in compressed_rows(nest):
            raise DataflowError(
                f"{nest.name}: {axis!r} is tiled or spread over lanes, but each of its rows has "
                f"nonzeros of its own; a compressed row is walked alone. Tile another axis."
            )
    if lanes in nest.picking or set(dict(flow.block)) & nest.picking:
        raise DataflowError(
            f"{nest.name}: {', '.join(sorted(nest.picking))} picks one of several values, all in "
            f"one tile; neither lanes nor blocks run along it. Use another axis."
        )
    if lanes in quotient_axes(nest):
        raise DataflowError(
            f"{nest.name}: lanes={lanes!r} is divided in an index by a number that does not divide "
            f"its extent {extents[lanes]}, or chooses an integer of an index; lanes step evenly. "
            f"Use another axis; one of extent 1 in the grid will do."
        )
    if not _whole_bytes(nest, lanes):
        raise DataflowError(
            f"{nest.name}: lanes={lanes!r} is not the axis along which the bits of {nest.out.name} "
            f"are packed, so that a vector would store parts of bytes. Use {default_lanes(nest)!r}."
        )
    return replace(flow, anchor=anchor, width=width, lanes=lanes)


def _whole_bytes(nest: LoopNest, lanes: str) -> bool:
    """Whether a vector of an output of bits is whole bytes: only it runs along the packed axis."""
    if nest.type_of(nest.out.name).scalar.kind != "b":
        return True
    index = nest.store.index[-1]
    others = (c for term, c in index.terms if term != lanes)
    return index.coefficient(lanes) == 1 and all(isinstance(c, int) and c % 8 == 0 for c in others)


def bit_axis(nest: LoopNest) -> str:
    """The axis along which both sides of a product of bits are packed, or '' for other nests.

    It has to be the group.
    """
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
    barred = quotient_axes(nest) | compressed_rows(nest) | nest.picking
    free = [a.name for a in nest.grid if a.name not in barred] or [a.name for a in nest.grid]
    bits = nest.type_of(nest.out.name).scalar.kind == "b"
    for name in free:
        if index.coefficient(name) == 1 and (extents[name] > 1 or bits):
            return name
    plain = [a for a in nest.axes if a.kind == "reduce" and a.name not in barred]
    if plain and all(extents[a.name] == 1 for a in nest.grid):
        return max(plain, key=lambda x: extents[x.name]).name
    return max(reversed(free), key=lambda name: extents[name] > 1)


def quotient_axes(nest: LoopNest) -> set[str]:
    """Axes inside a quotient that stayed one, or that choose an integer of an index: the index
    grows unevenly from lane to lane. An index that repeats evenly is none of them.
    """
    terms = [t for x in nest.accesses for i in x.index for t, _ in straight(nest, i)[0].terms]
    return set().union(*(t.axes for t in terms if not isinstance(t, str)))


def compressed_rows(nest: LoopNest) -> set[str]:
    """Axes that choose a row of a compressed operand.

    Each row has nonzeros of its own, so one at a time.
    """
    return set().union(*(a.row.axes for a in nest.axes if a.kind == "nonzeros"))


def _whole_group(nest: LoopNest, flow: Dataflow, group: int) -> int:
    """The least unrolling of the group's axis: a group; all of the axis where an index jumps along
    it, so that it is known which groups lie across a jump, and no group lies across two.
    """
    jumping = [
        (x, t)
        for x in nest.accesses
        for t, _ in x.index[-1].terms
        if isinstance(t, Quotient) and flow.group in t.axes
    ]
    if not jumping:
        return group
    extent, run = nest.extents[flow.group], min(integer(t.divisor) for _, t in jumping)
    given = min(dict(size).get(flow.group, extent) for size in (flow.unroll, flow.block))
    why = ""
    if run < group or len({t for _, t in jumping}) > 1:
        why = f"an instruction sums {group}; at least so many in a row are allowed"
    elif given < extent:
        why = f"the body has {given} of its {extent} steps; all of them are allowed"
    elif any(flow.lanes in x.index[-1].axes for x, _ in jumping):
        why = f"{flow.lanes!r}, the lanes, run along the same operand; other lanes are allowed"
    if why:
        raise DataflowError(
            f"{nest.name}: group={flow.group!r} jumps in memory every {run} elements, and {why}. "
            f"Use an inner axis."
        )
    return extent


def rounded(nest: LoopNest, flow: Dataflow, lanes: int, group: int) -> Dataflow:
    """Tile and unroll made whole.

    The lanes' tile is a number of vectors, the group's unroll a number of groups.
    """
    extents = nest.extents
    grid = {a.name for a in nest.grid}
    tile, unroll, block = dict(flow.tile), dict(flow.unroll), dict(flow.block)
    tile |= {axis: extents[axis] for axis in nest.picking}
    for axis in [t for t in tile if t not in grid]:
        unroll[axis] = max(unroll.get(axis, 1), tile.pop(axis))
    step = lanes if flow.lanes in grid else lanes * group
    table = tile if flow.lanes in grid else unroll
    period = period_of(nest, flow.lanes)
    given = table.get(flow.lanes, math.lcm(step, period) if period else step)
    if period and (given % period or period % 4 or lanes % 4):
        raise DataflowError(
            f"{nest.name}: tile[{flow.lanes!r}]={given} with {lanes} lanes; some operand repeats "
            f"every {period} elements, so that multiples of it are allowed, where 4 divides both. "
            f"Use a multiple, or other lanes."
        )
    if given % step:
        if flow.lanes in dict(flow.tile) and given < extents[flow.lanes]:
            raise DataflowError(
                f"{nest.name}: tile[{flow.lanes!r}]={given} is not a multiple of the {step} lanes "
                f"of a {flow.width}-bit vector. Use a multiple."
            )
        given = -(-given // step) * step
    table[flow.lanes] = given
    if flow.group and group > 1 and flow.group != flow.lanes:
        least = _whole_group(nest, flow, group)
        unroll[flow.group] = -(-unroll.get(flow.group, least) // group) * group
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
