"""The nests that add, subtract and multiply 8-bit operands with scales, and the constants of each.

Turns three quantizations, a rounding and a clamp into a nest and its numbers. Shapes are
`broadcast`'s business, the ops are in `arithmetic`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from ..dsl import loops as sf
from ..dsl.types import Scalar, f32, i32, i64
from ..kernel import Kernel, kernel
from .quantization import Quantization, bounds, factors, fixed

# XNNPACK's sum takes scale ratios in this range; LiteRT computes others by TensorFlow Lite's rule.
RATIOS = (2.0**-10, 2.0**8)


@cache
def _sums(to: Scalar) -> dict[str, Kernel]:
    """The nests of sums that store `to`, by rounding."""

    @kernel
    def add_float(
        a, b, out, *, factor_a=1, factor_b=1, offset=0, right=0, zero_point=0, lowest=0,
        highest=255, clipped=1
    ):  # fmt: skip
        """out = clip((a * factor_a + b * factor_b + offset) >> right + zero_point): XNNPACK,
        qs8-vadd. The offset is half a unit, less what the zero points add; bounds that are the
        type's own need no clip.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
            q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
            total = i32(p) * factor_a + i32(q) * factor_b
            v = ((total + offset) >> right) + zero_point
            out[i, j, k, m] = to(sf.clip(v, lowest, highest) if clipped else v, saturate=True)

    @kernel
    def add_fixed(
        a, b, out, *, zero_a=0, zero_b=0, factor_a=1, half_a=0, down_a=0, right_a=0, factor_b=1,
        half_b=0, down_b=0, right_b=0, factor=1, left=0, half=0, down=0, right=0, zero_point=0,
        lowest=0, highest=255
    ):  # fmt: skip
        """out = clip(s(s(a - zero_a) + s(b - zero_b)) + zero_point), s being TensorFlow Lite's
        fixed-point product in its two roundings, of values with 20 fraction bits.
        """
        for i, j, k, m in sf.grid(out.shape):
            wide_a = i64(a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]) - zero_a
            p = ((wide_a << 20) * factor_a + (1 << 30)) >> 31
            p = (p + (down_a if p < 0 else half_a)) >> right_a
            wide_b = i64(b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]) - zero_b
            q = ((wide_b << 20) * factor_b + (1 << 30)) >> 31
            q = (q + (down_b if q < 0 else half_b)) >> right_b
            total = i64(i32((p + q) << left, wrap=True))
            v = (total * factor + (1 << 30)) >> 31
            v = (v + (down if v < 0 else half)) >> right
            out[i, j, k, m] = to(sf.clip(v + zero_point, lowest, highest), saturate=True)

    return {"float": add_float, "tflite": add_fixed}


@cache
def _products(to: Scalar) -> dict[str, Kernel]:
    """The nests of products that store `to`, by rounding."""

    @kernel
    def mul_float(
        a, b, out, *, zero_a=0, zero_b=0, scale=1.0, zero_point=0, lowest=0.0, highest=255.0
    ):  # fmt: skip
        """out = clip(round(f32((a - zero_a) * (b - zero_b)) * scale)) + zero_point: XNNPACK,
        qs8-vmul.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
            q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
            v = f32((i32(p) - zero_a) * (i32(q) - zero_b)) * scale
            v = sf.clip(v, lowest, highest)
            out[i, j, k, m] = to(i32(sf.round(v), saturate=True) + zero_point, saturate=True)

    @kernel
    def mul_fixed(
        a, b, out, *, zero_a=0, zero_b=0, factor=1, left=0, half=0, down=0, right=0, zero_point=0,
        lowest=0, highest=255
    ):  # fmt: skip
        """out = clip((a - zero_a) * (b - zero_b) * 2^left * factor / 2^31 / 2^right + zero_point)
        in TensorFlow Lite's two roundings.
        """
        for i, j, k, m in sf.grid(out.shape):
            p = i64(a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]) - zero_a
            q = i64(b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]) - zero_b
            total = i64(i32((p * q) << left, wrap=True))
            v = (total * factor + (1 << 30)) >> 31
            v = (v + (down if v < 0 else half)) >> right
            out[i, j, k, m] = to(sf.clip(v + zero_point, lowest, highest), saturate=True)

    return {"float": mul_float, "tflite": mul_fixed}


def scaled_sum(
    a: Quantization,
    b: Quantization,
    y: Quantization,
    to: Scalar,
    activation: str | None,
    rounding: str,
    sign: int = 1,
) -> tuple[Kernel, dict[str, Any]]:
    """The nest of a + sign * b and its constants.

    A difference is the sum with the factor of b negated, in LiteRT as here.
    """
    ratios = a.single / y.single, b.single / y.single
    rule = rounding if all(RATIOS[0] <= r < RATIOS[1] for r in ratios) else "tflite"
    low, high = bounds(activation, y, to, rounding)
    constants = {"zero_point": y.zero_point, "lowest": low, "highest": high}
    if rule == "float":
        right = 21 - math.frexp(float(max(ratios)))[1]
        first, second = (round(math.ldexp(float(r), right)) for r in ratios)
        second *= sign
        offset = (1 << (right - 1)) - a.zero_point * first - b.zero_point * second
        constants |= {"factor_a": first, "factor_b": second, "offset": offset, "right": right}
        constants["clipped"] = int(low > to.low or high < to.high)
    else:
        constants |= {"zero_a": a.zero_point, "zero_b": b.zero_point}
        twice = 2 * max(float(a.single), float(b.single))
        for side, q in (("a", a), ("b", b)):
            found = _fixed(float(q.single) / twice)
            assert found.pop("left") == 0, "a ratio of at most one half"
            constants |= {f"{k}_{side}": v for k, v in found.items()}
        constants["factor_b"] *= sign
        constants |= _fixed(twice / (2**20 * float(y.single)))
    return _sums(to)[rule], constants


def scaled_product(
    a: Quantization,
    b: Quantization,
    y: Quantization,
    to: Scalar,
    activation: str | None,
    rounding: str,
) -> tuple[Kernel, dict[str, Any]]:
    """The nest of a * b and its constants."""
    low, high = bounds(activation, y, to, rounding)
    zero, scale = y.zero_point, float(factors(a, b, y))
    constants: dict[str, Any] = {
        "zero_a": a.zero_point,
        "zero_b": b.zero_point,
        "zero_point": zero,
    }
    if rounding == "float":
        constants |= {"scale": scale, "lowest": float(low - zero), "highest": float(high - zero)}
    else:
        constants |= _fixed(scale) | {"lowest": low, "highest": high}
    return _products(to)[rounding], constants


def _fixed(real: float) -> dict[str, int]:
    """A multiplier as constants: halves are rounded up by `half`, below zero by `down`."""
    factor, left, right = (int(v[0]) for v in fixed(real))
    half = (1 << right) >> 1
    return {
        "factor": factor,
        "left": left,
        "half": half,
        "down": max(half - 1, 0),
        "right": right,
    }
