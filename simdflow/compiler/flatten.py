"""Flatten: one offset in memory per access, axes for quotients, one axis for fused ones.

before   x[n, oh*2 + kh, ow*2 + kw, ic]                      x: u8[1, 58, 58, 64]
after    x[n*215296 + oh*7424 + kh*3712 + ow*128 + kw*64 + ic]

Knows nothing of registers. A compressed operand keeps its (row, column) index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import (
    Affine,
    Axis,
    Call,
    Cast,
    Expr,
    Fetched,
    Load,
    LoopNest,
    Pick,
    Quotient,
    integer,
    rewrite,
)
from .edges import edges

Change = Callable[[str, tuple[Affine, ...]], tuple[Affine, ...]]


def flatten(nest: LoopNest, dataflow: Dataflow) -> LoopNest:
    """A bound nest with linear offsets, and its axes fused as the dataflow names them.

    Quotients are gone where the divisor divides the extent.
    """
    nest, r = _split_quotients(nest), nest.reduction
    product = r is not None and r.combine == "add" and value_operands(r.value) is not None
    zeros = edges(nest) if product else ()
    return fuse_named(replace(_linearized(nest), edges=zeros), dataflow)


def fuse_named(nest: LoopNest, dataflow: Dataflow) -> LoopNest:
    """A linearized nest with the axes fused that the dataflow names with `__`."""
    for name in dataflow.axes():
        if "__" in name and name not in nest.extents:
            names = tuple(name.split("__"))
            nest = _fused(nest, names, name, name == dataflow.lanes, name == dataflow.group)
    return nest


def map_accesses(nest: LoopNest, change: Change) -> LoopNest:
    """The nest with `change(operand, index) -> index` applied to every load and to the store; to
    an index into no memory with "" as operand.
    """

    def fetched(t: Fetched) -> Fetched:
        return replace(t, index=change(t.operand, t.index))

    def on(expr: Expr) -> Expr:
        if isinstance(expr, Load):
            index = tuple(i.mapped(fetched) for i in expr.index)
            return replace(expr, index=change(expr.operand, index))
        if isinstance(expr, Pick):
            return replace(expr, index=change("", (expr.index,))[0])
        return expr

    r = nest.reduction
    if r:
        axes = tuple(replace(a, row=change("", (a.row,))[0]) for a in r.axes)
        r = replace(r, init=rewrite(r.init, on), value=rewrite(r.value, on), axes=axes)
    lets = tuple(replace(x, value=rewrite(x.value, on)) for x in nest.epilogue)
    s = nest.store
    store = replace(s, index=change(s.operand, s.index), value=rewrite(s.value, on))
    return replace(nest, reduction=r, epilogue=lets, store=store)


def _split_quotients(nest: LoopNest) -> LoopNest:
    """`oc // 4` and `oc % 4` with 4 dividing the extent: oc becomes the plain axes oc_o*4 + oc."""
    while (found := _divisible(nest)) is not None:
        axis, d = found
        outer = f"{axis}_o"
        nest = map_accesses(nest, partial(_split_index, axis=axis, divisor=d, outer=outer))
        nest = _with_axes(nest, axis, (Axis(outer, nest.extents[axis] // d), Axis(axis, d)))
    return nest


def _split_index(
    _: str, index: tuple[Affine, ...], axis: str, divisor: int, outer: str
) -> tuple[Affine, ...]:
    return tuple(_split(a, axis, divisor, outer) for a in index)


def _split(index: Affine, axis: str, divisor: int, outer: str) -> Affine:
    """An index with `axis` written as `outer*divisor + axis`."""
    parts = Affine(((outer, divisor), (axis, 1)))
    total = Affine((), index.const)
    for term, c in index.terms:
        if term == axis:
            total = total.plus(parts.times(c))
        elif isinstance(term, Quotient) and axis in term.inner.axes:
            if term.inner == Affine.axis(axis) and term.divisor == divisor:
                total = total.plus(Affine.axis(outer if term.op == "//" else axis).times(c))
            else:
                inner = replace(term, inner=_split(term.inner, axis, divisor, outer))
                total = total.plus(Affine(((inner, c),)))
        else:
            total = total.plus(Affine(((term, c),)))
    return total


def _divisible(nest: LoopNest) -> tuple[str, int] | None:
    """An axis and a divisor to split it by, from some access."""
    extents = nest.extents
    reduced = nest.reduction.axes if nest.reduction else ()
    fixed = {a.name for a in reduced if a.kind == "nonzeros"}
    for access in nest.accesses:
        for a in access.index:
            for term, _ in a.terms:
                if isinstance(term, Quotient) and len(term.inner.axes) == 1:
                    (axis,) = term.inner.axes
                    d = integer(term.divisor)
                    if (
                        term.inner == Affine.axis(axis)
                        and axis not in fixed
                        and extents[axis] % d == 0
                    ):
                        return axis, d
    return None


def _with_axes(nest: LoopNest, name: str, parts: tuple[Axis, ...]) -> LoopNest:
    """The nest with one axis replaced by others of the same kind."""

    def spread(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        out: list[Axis] = []
        for a in axes:
            out += (
                [replace(a, name=p.name, extent=p.extent) for p in parts] if a.name == name else [a]
            )
        return tuple(out)

    r = nest.reduction
    r = replace(r, axes=spread(r.axes)) if r else None
    return replace(nest, grid=spread(nest.grid), reduction=r)


def _linearized(nest: LoopNest) -> LoopNest:
    def linear(operand: str, index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        if not operand or nest.type_of(operand).storage == "csr":
            return index
        kind = nest.type_of(operand)
        total = Affine((), kind.origin)
        for a, stride in zip(index, kind.strides, strict=True):
            total = total.plus(a.times(stride))
        return (total,)

    return map_accesses(nest, linear)


def _fused(
    nest: LoopNest, names: tuple[str, ...], fused: str, repeating: bool, jumping: bool
) -> LoopNest:
    extents = nest.extents
    missing = [n for n in names if n not in extents]
    if missing:
        raise DataflowError(
            f"{nest.name}: fused axis {fused!r} names {missing[0]!r}, which is no axis; axes are "
            f"{', '.join(extents)}. Name axes of the nest, outermost first."
        )
    why = fusing_refused(nest, names, repeating, jumping)
    if why:
        raise DataflowError(f"{nest.name}: axes {' and '.join(names)} cannot be fused: {why}")
    total = 1
    for n in names:
        total *= extents[n]
    inner = next((n for n in reversed(names) if extents[n] > 1), names[-1])

    def swap(_: str, index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        out = []
        for a in index:
            kept = tuple(t for t in a.terms if t[0] not in names)
            c = a.coefficient(inner)
            period = math.prod(extents[n] for n in names if a.coefficient(n))
            whole = all(a.coefficient(n) for n in names if extents[n] > 1)
            term = fused if whole else Quotient("%", Affine.axis(fused), period)
            terms = (*kept, (term, c)) if c else kept
            out.append(Affine((*terms, *_jumps(extents, a, names, fused)), a.const))
        return tuple(out)

    nest = map_accesses(nest, swap)
    apart = tuple(
        (axis, runs) for axis, runs in nest.edges if not {axis, runs[0].reduced} & set(names)
    )

    def merged(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        out = []
        for a in axes:
            if a.name == names[-1]:
                out.append(replace(a, name=fused, extent=total))
            elif a.name not in names:
                out.append(a)
        return tuple(out)

    r = nest.reduction
    r = replace(r, axes=merged(r.axes)) if r else None
    return replace(nest, grid=merged(nest.grid), reduction=r, edges=apart)


def _jumps(
    extents: Mapping[str, int], index: Affine, names: tuple[str, ...], fused: str
) -> Iterator[tuple[Quotient, int]]:
    """What a step of an outer axis is more than all steps of the inner one: `(k // 9) * 669` for
    kernel rows of 9 elements, 678 apart.
    """
    size = 1
    for outer, inner in reversed(list(pairwise([n for n in names if extents[n] > 1]))):
        size *= extents[inner]
        more = index.coefficient(outer) - index.coefficient(inner) * extents[inner]
        if index.coefficient(outer) and more:
            yield Quotient("//", Affine.axis(fused), size), integer(more)


def fusing_refused(
    nest: LoopNest, names: tuple[str, ...], repeating: bool = False, jumping: bool = False
) -> str:
    """Why axes of a linearized nest cannot be one axis, or ''.

    With `repeating`, an access may leave out the outer ones: it comes round again (see period.py).
    With `jumping`, it may be longer from the end of the inner ones to the next step of the first.
    """
    grid = {a.name for a in nest.grid}
    if any((n in grid) != (names[0] in grid) for n in names):
        return "one is reduced, the other is not. Fuse axes of one kind."
    if any(
        a.kind == "nonzeros" or a.row.axes & set(names)
        for a in nest.axes
        if a.kind == "nonzeros" or a.name in names
    ):
        return "the nonzeros of a row are not an axis of the memory. Leave it alone."
    extents = nest.extents
    used = [n for n in names if extents[n] > 1]
    if nest.picking & set(used):
        return "one of them picks a value, the tile has it whole. Leave it alone."
    for access in nest.accesses:
        for a in access.index:
            if any(not isinstance(t, str) and t.axes & set(names) for t, _ in a.terms):
                return f"{access} divides one of them, or loads an index by it."
            together = used
            if repeating:
                mentioned = [n for n in used if a.coefficient(n)]
                together = used[len(used) - len(mentioned) :]
                if mentioned != together:
                    return f"{access} mentions an outer one without all inner ones."
            for outer, inner in pairwise(together):
                want = a.coefficient(inner) * extents[inner]
                first = jumping and outer == used[0] and a.coefficient(outer) > want > 0
                if a.coefficient(outer) != want and not first:
                    return (
                        f"a step of {outer} is {a.coefficient(outer)} elements of "
                        f"{access.operand}, "
                        f"{extents[inner]} steps of {inner} are {want}; they must be equal."
                    )
    return ""


def fused_run(flat: LoopNest, axes: list[str]) -> list[str]:
    """Axes with the longest fusable run at the end joined into one name."""
    live = [a for a in axes if flat.extents[a] > 1]
    for start in range(len(live)):
        run = live[start:]
        if len(run) > 1 and not fusing_refused(flat, tuple(run)):
            return [*live[:start], "__".join(run)]
    return live


def extent_of(flat: LoopNest, name: str) -> int:
    """The extent of an axis, or of axes named as one."""
    return math.prod(flat.extents[a] for a in name.split("__"))


def value_operands(expr: Expr) -> tuple[Load, Load] | None:
    """The two loads of a plain product, or None. Casts are looked through: the product is exact."""
    if not isinstance(expr, Call) or expr.op not in ("mul", "xnor_popcount"):
        return None
    sides = []
    for a in expr.args:
        while isinstance(a, Cast) and a.mode == "exact":
            a = a.arg
        sides.append(a)
    a, b = sides
    if not isinstance(a, Load) or not isinstance(b, Load):
        return None
    # A register of a product is kept by its address, which a fetched index does not tell.
    return None if any(i.fetched for x in (a, b) for i in x.index) else (a, b)
