"""Proves that a bound nest's store writes every element of its output once, borders aside.

An index is read as a number in mixed radix: `oc_block*16 + c` with c<16. Indices that are a
bijection in another way are refused too, because no kernel needs them.
"""

from __future__ import annotations

import math

from ..dsl.index import Term
from ..dsl.nest import Affine, LoopNest, Quotient
from .scalars import fault


def check_store(nest: LoopNest) -> None:
    """KernelError unless every element of the output is shown to be written exactly once."""
    store = nest.store
    shape = _inside(nest)
    points = math.prod(a.extent for a in nest.grid if isinstance(a.extent, int))
    shown = f"{store.operand}[{', '.join(map(str, store.index))}]"
    reduced = {a.name for a in nest.axes if a.kind != "grid"}
    used: set[str] = set()
    for index in store.index:
        used |= index.axes
    assert not used & reduced, "parse lets no reduction axis into the output's index"
    for a in nest.grid:
        if a.name not in used and a.extent != 1:
            raise fault(
                nest,
                store.line,
                f"{shown} does not mention axis {a.name}<{a.extent}>, so every element is written "
                f"{a.extent} times; once is allowed. Index with {a.name}, or reduce over it.",
            )
    if points != math.prod(shape):
        size = math.prod(shape)
        which = "some are written more than once" if points > size else "some are never written"
        raise fault(
            nest,
            store.line,
            f"{shown}: {points} points for {size} elements of {store.operand}, so {which}; every "
            "element is written exactly once. Correct the grid or the index.",
        )
    if points and not _mixed_radix(nest, shape):
        raise fault(
            nest,
            store.line,
            f"{shown} is not shown to write every element of {store.operand} exactly once; axes, "
            "and sums such as block*16 + c with c<16, are allowed. Rewrite the index.",
        )


def _border(nest: LoopNest) -> tuple[tuple[int, int], ...]:
    """The output's border, which its owner has filled and the nest leaves alone."""
    kind = nest.type_of(nest.store.operand)
    return kind.border or ((0, 0),) * len(kind.shape)


def _inside(nest: LoopNest) -> tuple[int, ...]:
    """The sizes that are to be written: those of the output without its border."""
    sizes = nest.type_of(nest.store.operand).shape
    return tuple(n - a - b for n, (a, b) in zip(sizes, _border(nest), strict=True))


def _mixed_radix(nest: LoopNest, shape: tuple[int, ...]) -> bool:
    """Whether each position counts through its size, and each digit is used in one position."""
    digits: list[tuple[str, int, int]] = []
    for index, n, (before, _) in zip(nest.store.index, shape, _border(nest), strict=True):
        if index.const != before:
            return False
        radix = []
        for term, c in index.terms:
            digit = _digit(nest, term)
            if digit is None or not isinstance(c, int):
                return False
            digits.append(digit)
            radix.append((c, digit[2]))
        weight = 1
        for c, extent in sorted(radix):
            if c < 0:
                return False
            if extent != 1:
                if c != weight:
                    return False
                weight *= extent
        if weight != n:
            return False
    return all(_whole(a.name, a.extent, digits) for a in nest.grid)


def _digit(nest: LoopNest, term: Term) -> tuple[str, int, int] | None:
    """(axis, what one step of the digit is worth in the axis, how many values it has), or None."""
    if isinstance(term, str):
        return term, 1, nest.extents[term]
    if not isinstance(term, Quotient):
        return None
    inner, divisor = term.inner, term.divisor
    assert isinstance(divisor, int)
    axis = next(iter(inner.axes))
    extent = nest.extents[axis]
    if inner != Affine.axis(axis) or extent % divisor:
        return None
    return (axis, divisor, extent // divisor) if term.op == "//" else (axis, 1, divisor)


def _whole(axis: str, extent: object, digits: list[tuple[str, int, int]]) -> bool:
    """Whether the digits of an axis are the whole axis, once: oc, or oc // 4 and oc % 4."""
    weight = 1
    for _, worth, count in sorted(d for d in digits if d[0] == axis):
        if count != 1:
            if worth != weight:
                return False
            weight *= count
    return weight == extent
