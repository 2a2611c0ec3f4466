"""Turns two or three broadcast arrays into one, one array into its elementary functions, and arrays
into their reductions; float64 or exact int64.

These are the real-valued definitions; quantized ones are in `quantized`, activations in
`elementwise`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from .windows import Array, widen

_erf = np.vectorize(math.erf, otypes=[np.float64])


def add(a: ArrayLike, b: ArrayLike) -> Array:
    """out = a + b, broadcast as numpy does; int64 or float64."""
    return _quiet(np.add, widen(a), widen(b))


def sub(a: ArrayLike, b: ArrayLike) -> Array:
    """out = a - b, broadcast as numpy does; int64 or float64."""
    return _quiet(np.subtract, widen(a), widen(b))


def mul(a: ArrayLike, b: ArrayLike) -> Array:
    """out = a * b, broadcast as numpy does; int64 or float64."""
    return _quiet(np.multiply, widen(a), widen(b))


def div(a: ArrayLike, b: ArrayLike) -> Array:
    """out = a / b, broadcast as numpy does, IEEE 754 at zero; float64."""
    return _quiet(np.divide, np.asarray(a, np.float64), np.asarray(b, np.float64))


def maximum(a: ArrayLike, b: ArrayLike) -> Array:
    """out = max(a, b), broadcast as numpy does, NaN wins; int64 or float64."""
    return np.asarray(np.maximum(widen(a), widen(b)))


def minimum(a: ArrayLike, b: ArrayLike) -> Array:
    """out = min(a, b), broadcast as numpy does, NaN wins; int64 or float64."""
    return np.asarray(np.minimum(widen(a), widen(b)))


def less(a: ArrayLike, b: ArrayLike) -> Array:
    """out = 1 where a < b, else 0, broadcast as numpy does; uint8."""
    return np.asarray(np.less(a, b)).astype(np.uint8)


def greater(a: ArrayLike, b: ArrayLike) -> Array:
    """out = 1 where a > b, else 0, broadcast as numpy does; uint8."""
    return np.asarray(np.greater(a, b)).astype(np.uint8)


def equal(a: ArrayLike, b: ArrayLike) -> Array:
    """out = 1 where a == b, else 0, broadcast as numpy does; uint8."""
    return np.asarray(np.equal(a, b)).astype(np.uint8)


def where(condition: ArrayLike, a: ArrayLike, b: ArrayLike) -> Array:
    """out = a where condition is not 0, else b, broadcast as numpy does; the dtype of both."""
    return np.asarray(np.where(np.asarray(condition) != 0, a, b))


def _quiet(function: np.ufunc, *operands: Array | float) -> Array:
    """The function, with infinities and NaN as results and no warning."""
    with np.errstate(all="ignore"):
        return np.asarray(function(*operands))


def _real(x: ArrayLike) -> Array:
    return np.asarray(x, np.float64)


def neg(x: ArrayLike) -> Array:
    """out = -x; float64."""
    return np.asarray(-_real(x))


def abs(x: ArrayLike) -> Array:
    """out = |x|; float64."""
    return np.asarray(np.abs(_real(x)))


def exp(x: ArrayLike) -> Array:
    """out = e^x; float64."""
    return _quiet(np.exp, _real(x))


def log(x: ArrayLike) -> Array:
    """out = the natural logarithm, -inf at 0, NaN below; float64."""
    return _quiet(np.log, _real(x))


def sqrt(x: ArrayLike) -> Array:
    """out = the square root, NaN below 0; float64."""
    return _quiet(np.sqrt, _real(x))


def rsqrt(x: ArrayLike) -> Array:
    """out = 1 / sqrt(x), inf at 0, NaN below; float64."""
    return _quiet(np.divide, 1.0, sqrt(x))


def reciprocal(x: ArrayLike) -> Array:
    """out = 1 / x, infinite at 0; float64."""
    return _quiet(np.divide, 1.0, _real(x))


def erf(x: ArrayLike) -> Array:
    """out = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to x; float64."""
    xs = _real(x)
    return np.asarray(_erf(xs) if xs.size else xs)


def square(x: ArrayLike) -> Array:
    """out = x * x; float64."""
    return _quiet(np.square, _real(x))


def floor(x: ArrayLike) -> Array:
    """out = the largest whole number not above x; float64."""
    return np.asarray(np.floor(_real(x)))


def ceil(x: ArrayLike) -> Array:
    """out = the smallest whole number not below x; float64."""
    return np.asarray(np.ceil(_real(x)))


def round(x: ArrayLike) -> Array:
    """out = the nearest whole number, halves to even; float64."""
    return np.asarray(np.rint(_real(x)))


def pow(x: ArrayLike, exponent: float) -> Array:
    """out = x^exponent, the exponent rounded to f32; NaN below 0 (also at -inf) unless the exponent
    is whole; float64.
    """
    xs, power = _real(x), np.float64(np.float32(exponent))
    defined = (xs >= 0) | np.isnan(xs) | (power == np.floor(power))
    return np.where(defined, _quiet(np.power, xs, float(power)), np.nan)


Axes = tuple[int, ...] | None


def reduce_sum(x: ArrayLike, axes: Axes = None, keepdims: bool = False) -> Array:
    """out = the sum over `axes` (None: over all); int64 or float64."""
    return np.asarray(widen(x).sum(axis=axes, keepdims=keepdims))


def reduce_mean(x: ArrayLike, axes: Axes = None, keepdims: bool = False) -> Array:
    """out = the sum over `axes` divided by how many elements it has; float64."""
    return np.asarray(_real(x).mean(axis=axes, keepdims=keepdims))


def reduce_max(x: ArrayLike, axes: Axes = None, keepdims: bool = False) -> Array:
    """out = the largest element along `axes`, numbers before NaN, -inf if all are NaN; dtype
    kept.
    """
    xs = np.asarray(x)
    if xs.dtype.kind == "f":
        xs = np.where(np.isnan(xs), -np.inf, xs).astype(xs.dtype)
    return np.asarray(xs.max(axis=axes, keepdims=keepdims))


def reduce_min(x: ArrayLike, axes: Axes = None, keepdims: bool = False) -> Array:
    """out = the smallest element along `axes`, numbers before NaN, inf if all are NaN; dtype
    kept.
    """
    xs = np.asarray(x)
    if xs.dtype.kind == "f":
        xs = np.where(np.isnan(xs), np.inf, xs).astype(xs.dtype)
    return np.asarray(xs.min(axis=axes, keepdims=keepdims))
