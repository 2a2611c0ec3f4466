"""exp, log, tanh, erf, sigmoid and rsqrt of f32 vectors: no branch, no table, no C library.

Turns one register into another, whatever its lanes, over the whole range of f32: infinities and
denormals have their limits, NaN stays NaN. The meaning is float64 rounded once; the emission is
within MAX_ULP of it.

Each function is brought to a short interval, where a polynomial stands for it. The coefficients are
minimax fits of the relative error (Lawson's reweighted least squares at Chebyshev points), rounded
to f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.program import Vec
from .base import Instruction
from .emission import Value, call_like, constant, llvm_type
from .floats import Floats

# The largest error in units in the last place, with FMA or without (tests/test_vectormath.py
# tries them all).
MAX_ULP = {"exp": 1, "log": 1, "tanh": 1, "erf": 1, "sigmoid": 2, "rsqrt": 0}

LOG2_E = 1.44269504
# ln 2 in two parts: the first has 10 bits, so that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
INTEGER = 12582912.0
MANTISSA_BITS, EXPONENT_BIAS = 23, 127
SQRT_HALF_BITS = 0x3F3504F3
SMALLEST_NORMAL = 2.0**-126

# exp(x) = 1 + x + x^2 P(x) on |x| <= ln(2)/2, to 3e-9
EXP = (0.49999994, 0.1666652, 0.041668393, 0.008368781, 0.0013814467)
# log(1 + x) = x - x^2/2 + x^3 P(x) on sqrt(1/2) <= 1 + x <= sqrt(2), to 8e-10
LOG = (
    0.33333313,
    -0.25000009,
    0.20002119,
    -0.16667996,
    0.14219552,
    -0.12405589,
    0.11888163,
    -0.11675651,
    0.067466386,
)
# tanh(x) = x + x^3 P(x^2) on |x| <= 0.625, to 5e-9
TANH = (-0.3333328, 0.13331442, -0.053739715, 0.020639088, -0.0057049873)
TANH_SMALL = 0.625
# erf(x) = x + x P(x^2) on |x| <= 0.95, to 7e-10
ERF = (
    0.12837917,
    -0.37612632,
    0.11283664,
    -0.026857706,
    0.005196953,
    -0.0008097713,
    8.1851264e-05,
)
ERF_SMALL = 0.95
# erf(x) = 1 - exp(-P(x)) on 0.9 <= x <= 4, to 6e-11; beyond 4 it is 1
ERFC = (
    -0.00017055082,
    1.1294951,
    0.63338667,
    0.1082366,
    -0.025091486,
    0.0041605225,
    -0.00043230204,
    2.0909467e-05,
)
ERF_ONE = 4.0


@dataclass(frozen=True)
class _Lanes:
    """The operations the formulas below are made of, on f32 vectors of one width."""

    b: Any
    vec: Vec
    floats: Floats

    def f32(self, value: float) -> Any:
        return constant(self.vec, value)

    def i32(self, value: int) -> Any:
        return constant(Vec("i32", self.vec.lanes), value)

    def bits(self, x: Any) -> Any:
        return self.b.bitcast(x, llvm_type(Vec("i32", self.vec.lanes)))

    def from_bits(self, x: Any) -> Any:
        return self.b.bitcast(x, llvm_type(self.vec))

    def mul_add(self, x: Any, y: Any, z: Any) -> Any:
        return self.floats.multiply_add(self.b, x, y, z)

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """c0 + c1 x + c2 x^2 ..., from the inside out."""
        result = self.f32(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            result = self.mul_add(result, x, self.f32(c))
        return result

    def clamp(self, x: Any, low: float, high: float) -> Any:
        """x between the two; NaN stays NaN."""
        for op, bound in (("<", low), (">", high)):
            limit = self.f32(bound)
            x = self.b.select(self.b.fcmp_ordered(op, x, limit), limit, x)
        return x

    def select(self, op: str, x: Any, bound: float, then: Any, otherwise: Any) -> Any:
        return self.b.select(self.b.fcmp_ordered(op, x, self.f32(bound)), then, otherwise)

    def abs(self, x: Any) -> Any:
        return call_like(self.b, "fabs", x)

    def copysign(self, x: Any, sign: Any) -> Any:
        return call_like(self.b, "copysign", x, sign)

    def power_of_two(self, n: Any) -> Any:
        biased = self.b.add(n, self.i32(EXPONENT_BIAS))
        return self.from_bits(self.b.shl(biased, self.i32(MANTISSA_BITS)))


def _exp(v: _Lanes, x: Any) -> Any:
    """exp(x) = 2^n exp(r), n the integer nearest to x / ln 2.

    2^n is two factors, so that a denormal result is rounded once.
    """
    b = v.b
    # Beyond these the result is 0 or infinity, which the two factors give.
    x = v.clamp(x, -104.0, 89.0)
    shifted = v.mul_add(x, v.f32(LOG2_E), v.f32(INTEGER))
    n = b.fsub(shifted, v.f32(INTEGER))
    r = v.mul_add(n, v.f32(-LN2_HIGH), x)
    r = v.mul_add(n, v.f32(-LN2_LOW), r)
    tail = v.mul_add(v.polynomial(r, EXP), b.fmul(r, r), r)
    power = b.fadd(tail, v.f32(1.0))
    whole = b.sub(v.bits(shifted), v.bits(v.f32(INTEGER)))
    half = b.ashr(whole, v.i32(1))
    scaled = b.fmul(power, v.power_of_two(half))
    return b.fmul(scaled, v.power_of_two(b.sub(whole, half)))


def _log(v: _Lanes, x: Any) -> Any:
    """log(x) = e ln 2 + log(m), with sqrt(1/2) <= m < sqrt(2)."""
    b = v.b
    tiny = b.fcmp_ordered("<", x, v.f32(SMALLEST_NORMAL))
    normal = b.select(tiny, b.fmul(x, v.f32(2.0**MANTISSA_BITS)), x)
    bits = v.bits(normal)
    e = b.ashr(b.sub(bits, v.i32(SQRT_HALF_BITS)), v.i32(MANTISSA_BITS))
    f = b.fsub(v.from_bits(b.sub(bits, b.shl(e, v.i32(MANTISSA_BITS)))), v.f32(1.0))
    # From sqrt(1/2) the mantissa of 1 is one exponent up: e is already the exponent of m in
    # that interval.
    exponent = b.sitofp(e, llvm_type(v.vec))
    exponent = b.select(tiny, b.fsub(exponent, v.f32(MANTISSA_BITS)), exponent)
    square = b.fmul(f, f)
    y = b.fmul(b.fmul(v.polynomial(f, LOG), f), square)
    y = v.mul_add(exponent, v.f32(LN2_LOW), y)
    y = v.mul_add(square, v.f32(-0.5), y)
    result = v.mul_add(exponent, v.f32(LN2_HIGH), b.fadd(f, y))
    result = v.select("==", x, math.inf, x, result)
    result = v.select("==", x, 0.0, v.f32(-math.inf), result)
    # Written so that NaN fails it too.
    return v.select(">=", x, 0.0, result, v.f32(math.nan))


def _tanh(v: _Lanes, x: Any) -> Any:
    """An odd polynomial near 0, 1 - 2 / (exp(2|x|) + 1) beyond."""
    b = v.b
    size = v.abs(x)
    square = b.fmul(x, x)
    near = v.mul_add(b.fmul(v.polynomial(square, TANH), square), x, x)
    grown = b.fadd(_exp(v, b.fadd(size, size)), v.f32(1.0))
    far = v.copysign(b.fsub(v.f32(1.0), b.fdiv(v.f32(2.0), grown)), x)
    return v.select("<", size, TANH_SMALL, near, far)


def _sigmoid(v: _Lanes, x: Any) -> Any:
    """1 / (1 + exp(-|x|)), times exp(-|x|) for negative x: small results keep their digits."""
    b = v.b
    z = _exp(v, b.fneg(v.abs(x)))
    numerator = v.select("<", x, 0.0, z, v.f32(1.0))
    return b.fdiv(numerator, b.fadd(z, v.f32(1.0)))


def _erf(v: _Lanes, x: Any) -> Any:
    """An odd polynomial near 0, 1 - exp(-P(|x|)) beyond."""
    b = v.b
    near = v.mul_add(v.polynomial(b.fmul(x, x), ERF), x, x)
    size = v.clamp(v.abs(x), 0.0, ERF_ONE)
    left = _exp(v, b.fneg(v.polynomial(size, ERFC)))
    far = v.copysign(b.fsub(v.f32(1.0), left), x)
    return v.select("<", v.abs(x), ERF_SMALL, near, far)


def _rsqrt(v: _Lanes, x: Any) -> Any:
    """A division after a square root, each rounded."""
    return v.b.fdiv(v.f32(1.0), call_like(v.b, "sqrt", x))


def _erf_meaning(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(float(value)) for value in x])


def _sigmoid_meaning(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _rsqrt_meaning(vec: Vec, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.float32(1) / np.sqrt(x)


def _rounded(function: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    """The function in float64, rounded once to f32."""

    def meaning(vec: Vec, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return function(x.astype(np.float64)).astype(np.float32)

    return meaning


def rows(floats: Floats) -> tuple[Instruction, ...]:
    """The six rows, as this CPU multiplies and adds floats."""

    def row(
        name: str, meaning: Callable[..., np.ndarray], formula: Callable[..., Any]
    ) -> Instruction:
        def emit(b: Any, vec: Vec, x: Value) -> Any:
            return formula(_Lanes(b, vec, floats), x.llvm)

        return Instruction(name, meaning, emit)

    return (
        row("exp", _rounded(np.exp), _exp),
        row("log", _rounded(np.log), _log),
        row("tanh", _rounded(np.tanh), _tanh),
        row("erf", _rounded(_erf_meaning), _erf),
        row("sigmoid", _rounded(_sigmoid_meaning), _sigmoid),
        row("rsqrt", _rsqrt_meaning, _rsqrt),
    )
