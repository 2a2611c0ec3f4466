"""neg, abs, exp, log, sqrt, rsqrt, reciprocal, erf, square, floor, ceil, round and pow: elementary
functions of f32.

Each is one nest over all elements in a row. Activations, and what is quantized, are in
`elementwise` and `activations`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, f32
from ..kernel import Kernel, kernel
from .elementwise import flat
from .layer import Layer
from .op import Op, op
from .window import nonempty, typed

# Powers up to this exponent are products of squares; beyond, the error of exp and log is no larger.
LARGEST_PRODUCT = 15


@kernel
def neg_f32(x, out):
    """out = -x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = -x[i]


@kernel
def abs_f32(x, out):
    """out = |x|, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.abs(x[i])


@kernel
def exp_f32(x, out):
    """out = e^x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.exp(x[i])


@kernel
def log_f32(x, out):
    """out = the natural logarithm of x, -inf at 0, NaN below; f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.log(x[i])


@kernel
def sqrt_f32(x, out):
    """out = the square root of x, NaN below 0; f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.sqrt(x[i])


@kernel
def rsqrt_f32(x, out):
    """out = 1 / sqrt(x), infinite at 0, NaN below; f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.rsqrt(x[i])


@kernel
def reciprocal_f32(x, out):
    """out = 1 / x, infinite at 0; f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = 1.0 / x[i]


@kernel
def erf_f32(x, out):
    """out = the error function of x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.erf(x[i])


@kernel
def square_f32(x, out):
    """out = x * x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = x[i] * x[i]


@kernel
def floor_f32(x, out):
    """out = the largest whole number not above x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.floor(x[i])


@kernel
def ceil_f32(x, out):
    """out = the smallest whole number not below x, f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.ceil(x[i])


@kernel
def round_f32(x, out):
    """out = the nearest whole number to x, halves to even; f32 of any shape."""
    for i in sf.grid(out.shape):
        out[i] = sf.round(x[i])


@kernel
def power_by_squares(x, out, *, one=0, two=0, four=0, eight=0, root=0, inverted=0):
    """out = x^(one + 2*two + 4*four + 8*eight + root/2), of which the inverse if `inverted`."""
    for i in sf.grid(out.shape):
        v = x[i]
        v2 = v * v
        v4 = v2 * v2
        p = (v if one else 1.0) * (v2 if two else 1.0)
        q = (v4 if four else 1.0) * (v4 * v4 if eight else 1.0)
        # The square root of -0 is -0, and that of -inf is NaN; powers are 0 and infinite there.
        s = sf.sqrt(v + 0.0) if root else 1.0
        whole = p * q * s
        out[i] = 1.0 / whole if inverted else whole


@kernel
def power_by_logarithm(x, out, *, exponent=1.0, odd=0, whole=0):
    """out = x^exponent = exp(exponent * log(|x|)); below 0 its negative for odd exponents, NaN for
    those that are not whole.
    """
    for i in sf.grid(out.shape):
        v = x[i]
        size = sf.exp(sf.log(sf.abs(v)) * exponent)
        below = -size if odd else (size if whole else sf.log(v))
        out[i] = below if v < 0.0 else size


def _unary(nest: Kernel) -> Op:
    """The op of a nest of one f32 operand; it has the nest's name without the type, and text."""
    name = nest.name.removesuffix("_f32")

    def shape(x: OperandType, **_: Any) -> OperandType:
        typed(name, "x", x, (f32,))
        nonempty(name, "x", x)
        return f32[x.shape]

    def layer(x: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
        return flat(shape(x), nest, x, {}, target, dataflow)

    layer.__name__ = layer.__qualname__ = name
    layer.__doc__ = f"{nest.__doc__}\n\nRaises OperandError for other types."
    return op(shape)(layer)


neg = _unary(neg_f32)
abs = _unary(abs_f32)
exp = _unary(exp_f32)
log = _unary(log_f32)
sqrt = _unary(sqrt_f32)
rsqrt = _unary(rsqrt_f32)
reciprocal = _unary(reciprocal_f32)
erf = _unary(erf_f32)
square = _unary(square_f32)
floor = _unary(floor_f32)
ceil = _unary(ceil_f32)
round = _unary(round_f32)


def _pow_shape(x: OperandType, *, exponent: float, **_: Any) -> OperandType:
    typed("pow", "x", x, (f32,))
    nonempty("pow", "x", x)
    if not math.isfinite(exponent):
        raise OperandError(
            f"pow: exponent={exponent!r} is not a finite number, which it must be. Correct it."
        )
    return f32[x.shape]


@op(_pow_shape)
def pow(x: OperandType, *, exponent: float, target: Any = None, dataflow: Any = None) -> Layer:
    """out = x^exponent, f32 of any shape, with one exponent for all, rounded to f32.

    Whole exponents and halves up to 15.5 in size are products of squares and a square root, within
    a few units in the last place; others are exp(exponent * log(x)), whose relative error grows
    with the logarithm of the result (and for which -0 is 0). NaN below 0 for exponents that are not
    whole. Raises OperandError for other types, and an exponent that is not finite.
    """
    out = _pow_shape(x, exponent=exponent)
    value = float(np.float32(exponent))
    halves = 2 * math.fabs(value)
    if halves == math.floor(halves) and halves <= 2 * LARGEST_PRODUCT + 1:
        whole = int(halves) // 2
        bits = {n: whole >> i & 1 for i, n in enumerate(("one", "two", "four", "eight"))}
        constants: dict[str, Any] = {**bits, "root": int(halves) % 2, "inverted": int(value < 0)}
        return flat(out, power_by_squares, x, constants, target, dataflow)
    constants = {
        "exponent": value,
        "odd": int(value % 2 == 1),
        "whole": int(value == math.floor(value)),
    }
    return flat(out, power_by_logarithm, x, constants, target, dataflow)
