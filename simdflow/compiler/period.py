"""Period: indices that come round again along a fused axis: `oc` of `ow__oc` is `ow__oc % 32`.

A layer with few channels is so read and written over the lanes of several pixels at once, while its
weights and scales repeat. Tells such terms from other quotients, and writes no code.
"""

from __future__ import annotations

from ..dsl.nest import Affine, LoopNest, Quotient, integer


def straight(nest: LoopNest, index: Affine) -> tuple[Affine, dict[str, int]]:
    """The index with `axis % p` written as `axis`, and p of each such axis, its extent a multiple
    of p.
    """
    periods: dict[str, int] = {}
    for term, c in index.terms:
        if isinstance(term, Quotient) and term.op == "%" and len(term.inner.axes) == 1:
            (axis,) = term.inner.axes
            p = integer(term.divisor)
            if term.inner == Affine.axis(axis) and nest.extents[axis] % p == 0:
                index = index.plus(Affine(((term, c),)), -1).plus(Affine.axis(axis).times(c))
                periods[axis] = p
    return index, periods


def period_of(nest: LoopNest, axis: str) -> int:
    """The longest period of any index along the axis, of which the others are divisors; or 0."""
    found = {straight(nest, i)[1].get(axis, 0) for access in nest.accesses for i in access.index}
    return max(found, default=0)
