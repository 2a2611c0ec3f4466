"""The shape of an output that was not given, and indices made simple by known extents.

Works on integer indices only; says nothing about whether the other indices stay inside their
operands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..dsl.errors import OperandError
from ..dsl.nest import (
    Affine,
    Axis,
    Dim,
    Expr,
    Fetched,
    Load,
    LoopNest,
    Pick,
    Quotient,
    Size,
    walk,
)
from .scalars import fault

# An extent that every constraint still allows at this length is not constrained at all.
UNBOUNDED = 1 << 48


def inferred(nest: LoopNest, loads: tuple[Load, ...]) -> LoopNest:
    """The nest with integer grid extents, where some were dimensions of the unknown output.

    Each such axis is as long as every index that mentions it stays inside its operand:
    `x[oh*2 + kh]` with kh<3 and x.shape[0] = 58 gives oh<28. Indices that share two unknown axes
    wait until one is known. Operands indexed by the bare axis must agree on its length.
    """
    extents = {a.name: a.extent for a in nest.axes if isinstance(a.extent, int)}
    unknown = [a for a in nest.grid if a.name not in extents]
    while unknown:
        found = {a.name: _longest(nest, a.name, extents, loads) for a in unknown}
        new = {name: n for name, n in found.items() if n is not None}
        if not new:
            names = ", ".join(a.name for a in unknown)
            raise fault(
                nest,
                0,
                f"axis={names} is not bounded by an index of an input, so {nest.out.name}'s shape "
                f"cannot be inferred; an index such as x[{unknown[0].name}] would bound it. "
                f"Pass {nest.out.name}.",
            )
        extents |= new
        unknown = [a for a in unknown if a.name not in new]
    return replace(nest, grid=tuple(replace(a, extent=extents[a.name]) for a in nest.grid))


def _longest(
    nest: LoopNest, axis: str, extents: Mapping[str, int], loads: tuple[Load, ...]
) -> int | None:
    """The largest extent of an axis for which no index leaves its range; None for no such.

    Of the indices that no other unknown axis is in.
    """
    best: int | None = None
    bare: dict[str, int] = {}
    for what, index, n in _indices(nest, loads):
        others = index.axes - {axis}
        # What is fetched bounds no axis: its own load, which is among `loads`, does.
        own = Affine(tuple(x for x in index.terms if not isinstance(x[0], Fetched)))
        if axis not in own.axes or not others <= extents.keys():
            continue
        if 0 in (extents[o] for o in others):
            continue  # the load never happens
        length = _fitting(index, axis, {o: extents[o] for o in others}, n)
        if length == UNBOUNDED:
            continue
        if length == 0 and n > 0:
            raise OperandError(
                f"{nest.name}: {what}={n} is too small for index {index}, which reaches "
                f"{_reach(index, axis, extents)[1]} at {axis}=0. Pass a larger "
                f"{what.partition('.')[0]}."
            )
        if index == Affine.axis(axis):
            bare[what] = n
        best = length if best is None else min(best, length)
    if len(set(bare.values())) > 1:
        sizes = ", ".join(f"{k}={n}" for k, n in bare.items())
        raise OperandError(
            f"{nest.name}: {sizes} disagree on the length of axis {axis}; they are equal, or "
            f"{nest.out.name} is given. Pass operands of one length."
        )
    return best


def _indices(nest: LoopNest, loads: tuple[Load, ...]) -> Iterator[tuple[str, Affine, int]]:
    """(what it goes into, an index, how many elements there are) of each dimension of the loads,
    and of the values that an axis picks from.
    """
    for x in loads:
        for d, (index, n) in enumerate(zip(x.index, nest.type_of(x.operand).shape, strict=True)):
            yield f"{x.operand}.shape[{d}]", index, n
    for e in (e for x in nest.expressions() for e in walk(x)):
        if isinstance(e, Pick):
            yield f"the values picked by {e.index}", e.index, len(e.values)


def _reach(
    index: Affine, axis: str, extents: Mapping[str, int], length: int = 1
) -> tuple[int, int]:
    return index.bounds({**extents, axis: length})


def _fitting(index: Affine, axis: str, extents: Mapping[str, int], n: int) -> int:
    """The largest extent with indices from 0 to n-1, by bisection: bounds only widen with it."""

    def fits(length: int) -> bool:
        low, high = _reach(index, axis, extents, length)
        return low >= 0 and high < n

    if not fits(1):
        return 0
    if fits(UNBOUNDED):
        return UNBOUNDED
    low, high = 1, UNBOUNDED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def output_shape(nest: LoopNest, grid: tuple[Axis, ...]) -> tuple[int, ...]:
    """The shape that the store's indices span; `grid` are the axes before inference."""
    empty = 0 in (a.extent for a in nest.grid)
    sizes = {a.name: int(a.extent) for a in nest.grid if isinstance(a.extent, int)}
    shape = []
    for index in nest.store.index:
        lone = index == Affine.axis(next(iter(index.axes), ""))
        spanned = 0 if empty else index.bounds(sizes)[1] + 1
        shape.append(sizes[next(iter(index.axes))] if lone else spanned)
    for before in grid:
        d = before.extent
        if isinstance(d, Dim) and shape[d.axis] != sizes[before.name]:
            raise fault(
                nest,
                nest.store.line,
                f"axis={before.name} runs over {d}={shape[d.axis]}, but the inputs allow "
                f"{sizes[before.name]}. Pass {nest.out.name}, or correct the store's index.",
            )
    return tuple(shape)


def simplified(expr: Expr, extents: Mapping[str, int]) -> Expr:
    """A load with the quotients in its index replaced, where the extents allow.

    before   x[n, (oc) // 64*32 + ic]   with oc<64
    after    x[n, ic]
    """
    if not isinstance(expr, Load):
        return expr
    return replace(expr, index=tuple(simple_index(i, extents) for i in expr.index))


def simple_index(index: Affine, extents: Mapping[str, int]) -> Affine:
    """The index without those quotients that are constant or equal to their inner index."""
    total = Affine((), index.const)
    for term, c in index.terms:
        part = _quotient(term, extents) if isinstance(term, Quotient) else Affine(((term, 1),))
        total = total.plus(part.times(c))
    return total


def _quotient(q: Quotient, extents: Mapping[str, int]) -> Affine:
    inner, d = simple_index(q.inner, extents), q.divisor
    assert isinstance(d, int)
    low, high = inner.bounds({k: max(n, 1) for k, n in extents.items()})
    if low // d == high // d:
        whole = low // d
        return Affine((), whole) if q.op == "//" else inner.moved(-whole * d)
    # Multiples of the divisor leave the quotient: (oc*8 + c) // 8 is oc + c//8, and (oc*8 + c) % 8
    # is c % 8.
    outside = Affine(tuple((t, c) for t, c in inner.terms if _multiple(c, d)))
    if outside.terms:
        rest = _quotient(Quotient(q.op, inner.plus(outside, -1), d), extents)
        if q.op == "%":
            return rest
        return Affine(tuple((t, int(str(c)) // d) for t, c in outside.terms)).plus(rest)
    return Affine(((Quotient(q.op, inner, d), 1),))


def _multiple(coefficient: Size, divisor: int) -> bool:
    return isinstance(coefficient, int) and coefficient % divisor == 0
