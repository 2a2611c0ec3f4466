"""The words of a nest as ordinary Python: loops over sizes, and operations on exact scalars.

A kernel's body calls these when it runs as Python; `parse` recognizes the same functions by
identity and never calls them. Nothing here knows of loop nests or vectors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .types import Exact, bit

Extents = int | tuple[int, ...]


def grid(*extents: Extents) -> Iterator[Any]:
    """Every point of the output's axes, the last fastest: `for n, oc in sf.grid(out.shape)`.

    Takes a shape, an integer, or several of them. One axis gives integers, more give tuples.
    """
    return _points(extents)


def reduce(*extents: Extents) -> Iterator[Any]:
    """Every point of the axes that are summed over: `for kh, kw, ic in sf.reduce(w.shape[:3])`."""
    return _points(extents)


def _points(extents: tuple[Extents, ...]) -> Iterator[Any]:
    flat: list[int] = []
    for e in extents:
        flat += [int(n) for n in e] if isinstance(e, tuple) else [int(e)]
    axes = [range(n) for n in flat]
    if len(axes) == 1:
        return iter(axes[0])
    return itertools.product(*axes)


def nonzeros(w: Any, row: int) -> Iterable[int]:
    """The columns that row `row` of the CSR operand `w` stores: `for ic in sf.nonzeros(w, oc)`."""
    return w.nonzeros(row)


def xnor_popcount(a: Any, b: Any) -> Exact:
    """The product of two `bit` values, +1 or -1; compiled, a popcount over words of channels."""
    x, y = Exact.of(a), Exact.of(b)
    if x.scalar != bit or y.scalar != bit:
        raise TypeError(f"xnor_popcount({x}, {y}): both values are of type bit")
    return Exact(x.value * y.value)


def max(a: Any, b: Any) -> Exact:
    """The larger value; the other one where one is NaN (IEEE 754 maxNum)."""
    return Exact.of(a).apply(b, lambda x, y: y if x != x or y > x else x, "max")


def min(a: Any, b: Any) -> Exact:
    """The smaller value; the other one where one is NaN (IEEE 754 minNum)."""
    return Exact.of(a).apply(b, lambda x, y: y if x != x or y < x else x, "min")


def clip(value: Any, low: Any, high: Any) -> Exact:
    """`min(max(value, low), high)`; NaN becomes `low`."""
    return min(max(value, low), high)


def select(condition: bool, a: Any, b: Any) -> Exact:
    """`a` where the condition holds, else `b`; the same as `a if condition else b`."""
    return Exact.of(a).apply(b, lambda x, y: x if condition else y, "select")


def abs(value: Any) -> Exact:
    """`|value|`; 128 for the i8 value -128."""
    x = Exact.of(value)
    return Exact(math.fabs(x.value) if x.is_float else x.value.__abs__(), x.scalar)


def _unary(value: Any, name: str, function: Callable[[float], float]) -> Exact:
    """`function` in float64, rounded to the value's own float type."""
    x = Exact.of(value)
    if x.scalar and not x.is_float:
        raise TypeError(f"{name}({x}): takes a float; cast it with f32")
    with np.errstate(all="ignore"):
        result = Exact(float(function(float(x.value))))
    return result.cast(x.scalar) if x.scalar else result


def round(value: Any) -> Exact:
    """The nearest whole number, halves to even; still a float."""
    return _unary(value, "round", np.rint)


def floor(value: Any) -> Exact:
    """The largest whole number not above; still a float."""
    return _unary(value, "floor", np.floor)


def ceil(value: Any) -> Exact:
    """The smallest whole number not below; still a float."""
    return _unary(value, "ceil", np.ceil)


def exp(value: Any) -> Exact:
    """`e ** value`."""
    return _unary(value, "exp", np.exp)


def log(value: Any) -> Exact:
    """The natural logarithm; -inf at 0, NaN below."""
    return _unary(value, "log", np.log)


def tanh(value: Any) -> Exact:
    """The hyperbolic tangent."""
    return _unary(value, "tanh", np.tanh)


def erf(value: Any) -> Exact:
    """The error function, `2/sqrt(pi) * integral of exp(-t*t) from 0 to value`."""
    return _unary(value, "erf", math.erf)


def sigmoid(value: Any) -> Exact:
    """`1 / (1 + exp(-value))`."""
    return _unary(value, "sigmoid", lambda v: 1.0 / (1.0 + np.exp(-v)))


def sqrt(value: Any) -> Exact:
    """The square root; NaN below 0."""
    return _unary(value, "sqrt", np.sqrt)


def rsqrt(value: Any) -> Exact:
    """`1 / sqrt(value)`."""
    return _unary(value, "rsqrt", lambda v: np.float64(1.0) / np.sqrt(v))


LOOPS = {grid: "grid", reduce: "reduce", nonzeros: "nonzeros"}
BINARY = {max: "max", min: "min", xnor_popcount: "xnor_popcount"}
UNARY = {
    f: f.__name__ for f in (abs, round, floor, ceil, exp, log, tanh, erf, sigmoid, sqrt, rsqrt)
}
