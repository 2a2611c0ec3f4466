"""Turns 8-bit values with scales and zero points into 8-bit values, by XNNPACK's rules and by
TensorFlow Lite's.

`rounding="float"` is what LiteRT's default kernels compute (XNNPACK, or TensorFlow Lite's own
kernel where XNNPACK has none), `rounding="tflite"` is what its reference kernels compute; a
function without that argument has one rule for both. Values come in and go out as integers (int64),
scales are rounded to f32 first, as they are stored. Every rule was compared with ai-edge-litert
2.3.0 on the x86-64 CPU, tens of thousands of values and more each, without a difference.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .rounding import (
    Int,
    float_multiplier,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    requantize_fixed,
    requantize_float,
    round_half_away,
)
from .windows import Padding, Pair, window_sums

Quant = tuple[float, int]
"""(scale, zero_point): real = scale * (q - zero_point)."""

_Reals = NDArray[np.float64]


def _f32(quant: Quant) -> np.float32:
    return np.float32(quant[0])


def _centred(q: ArrayLike, quant: Quant) -> Int:
    return np.asarray(q, np.int64) - quant[1]


def quantized_add(
    a: ArrayLike,
    b: ArrayLike,
    a_quant: Quant,
    b_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
    sign: int = 1,
) -> Int:
    """y = clamp(round((s_a * (a - z_a) + sign * s_b * (b - z_b)) / s_y) + z_y, low, high) in fixed
    point, broadcast.

    float: r_i = f32(s_i / s_y); shift = 20 - floor(log2(max r)); m_i = round_half_even(r_i *
    2^shift) < 2^21; y = ((m_a * (a - z_a) + m_b * (b - z_b) + 2^(shift-1)) >> shift) + z_y, so ties
    go up. For 2^-10 <= r_i < 2^8 (outside, LiteRT falls back to its own kernel). Source: XNNPACK,
    qs8-vadd.
    tflite: with t = 2 * max(s_a, s_b), each (q - z) * 2^20 is multiplied by s_i / t, the sum by t /
    (2^20 * s_y), each by `multiply_by_quantized_multiplier`. Source: TensorFlow Lite,
    reference/integer_ops/add.h.
    """
    ca, cb = _centred(a, a_quant), _centred(b, b_quant)
    if rounding == "tflite":
        twice = 2 * max(float(_f32(a_quant)), float(_f32(b_quant)))
        factors = (quantize_multiplier(float(_f32(q)) / twice) for q in (a_quant, b_quant))
        parts = [
            multiply_by_quantized_multiplier(c << 20, q * s, shift)
            for c, s, (q, shift) in zip((ca, cb), (1, sign), factors, strict=True)
        ]
        last = quantize_multiplier(twice / (2**20 * float(_f32(y_quant))))
        return requantize_fixed(parts[0] + parts[1], *last, y_quant[1], low, high)
    ratios = _f32(a_quant) / _f32(y_quant), _f32(b_quant) / _f32(y_quant)
    shift = 21 - int(np.frexp(max(ratios))[1])
    ma, mb = (int(np.rint(np.ldexp(r, shift))) for r in ratios)
    total = (ma * ca + sign * mb * cb + (1 << (shift - 1))) >> shift
    return np.clip(total + y_quant[1], low, high)


def quantized_sub(
    a: ArrayLike,
    b: ArrayLike,
    a_quant: Quant,
    b_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """`quantized_add` with the multiplier of b negated, before anything is rounded: SUB."""
    return quantized_add(a, b, a_quant, b_quant, y_quant, low, high, rounding, sign=-1)


def quantized_mul(
    a: ArrayLike,
    b: ArrayLike,
    a_quant: Quant,
    b_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """y = clamp(round((a - z_a) * (b - z_b) * s_a * s_b / s_y) + z_y, low, high), broadcast.

    float: `requantize_float` of the product with f32(f32(s_a * s_b) / s_y). Source: XNNPACK,
    qs8-vmul.
    tflite: `requantize_fixed` of the product with f64(f32(f32(s_a * s_b) / s_y)). Source:
    TensorFlow Lite, kernels/mul.cc.
    """
    product = _centred(a, a_quant) * _centred(b, b_quant)
    multiplier = float_multiplier(a_quant[0], b_quant[0], y_quant[0])
    if rounding == "tflite":
        return requantize_fixed(product, *quantize_multiplier(multiplier), y_quant[1], low, high)
    return requantize_float(product, multiplier, y_quant[1], low, high)


def quantized_avg_pool2d(
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    low: int = -128,
    high: int = 127,
    border: int | None = None,
) -> Int:
    """y[n,oh,ow,c] = clamp(round_half_away(sum / count), low, high) of the raw values.

    Input and output have one scale and zero point; `count` is the number of elements inside the
    input, so that padding is not counted; in integers: (|sum| + count // 2) // count with the
    sign of the sum. One rule for both. Source: TensorFlow Lite, reference/integer_ops/pooling.h
    (XNNPACK has no int8 average pool). With a `border` value, padded elements have it and count.
    """
    sums, counts = window_sums(x, kernel, stride, padding, border is not None)
    if border is not None:
        sums = sums + border * (counts - window_sums(x, kernel, stride, padding)[1])
    rounded = (np.abs(sums) + counts // 2) // counts * np.sign(sums)
    return np.clip(rounded, low, high).astype(np.int64)


def quantized_global_avg_pool2d(
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """y[n,c] = clamp(round(s_x / s_y * (mean over h,w of x - z_x)) + z_y, low, high): MEAN over
    axes 1 and 2.

    float, every operation rounded to f32: m = (s_x / s_y) * (1 / count); b = z_y - f32(z_x * count)
    * m; y = round_half_even(sum * m + b), the product rounded before the sum (no fused
    multiply-add). The sum is that of the raw values. Source: XNNPACK, reduce-nd (qs8 mean).
    tflite: `requantize_fixed` of the centred sum, (q, shift) being those of s_x / s_y with q
    replaced by q * 2^k // count and shift by shift - k, k = min(floor(log2 count), 31 + shift).
    Source: TensorFlow Lite, kernels/reduce.cc.
    """
    xs = np.asarray(x, np.int64)
    count, total = xs.shape[1] * xs.shape[2], xs.sum(axis=(1, 2))
    if rounding == "tflite":
        q, shift = (
            int(v) for v in quantize_multiplier(float(_f32(x_quant)) / float(_f32(y_quant)))
        )
        k = min(count.bit_length() - 1, 31 + shift)
        centred = total - count * x_quant[1]
        return requantize_fixed(centred, (q << k) // count, shift - k, y_quant[1], low, high)
    m = _f32(x_quant) / _f32(y_quant) * (np.float32(1) / np.float32(count))
    b = np.float32(y_quant[1]) - np.float32(x_quant[1] * count) * m
    return np.clip(np.rint(total.astype(np.float32) * m + b), low, high).astype(np.int64)


def quantized_softmax(
    x: ArrayLike,
    x_scale: float,
    beta: float = 1.0,
    zero_point: int = -128,
    low: int = -128,
    high: int = 127,
) -> Int:
    """y = clamp(floor(p * 256 + 1/2) + zero_point, low, high) with p the softmax along the last
    axis; y's scale is 1/256.

    In f32: t[d] = exp(-(s_x * beta) * d) for d = 0..255; e_i = t[max x - x_i]; sum of e_i from
    first to last; y_i = floor(e_i * (1 / (sum * (1/256))) + 0.5) + zero_point. The exponential is
    the correctly rounded one. One rule for both. Source: TensorFlow Lite, kernels/activations.cc
    and internal/optimized/optimized_ops.h.
    """
    xs = np.asarray(x, np.int64)
    factor = -(np.float32(x_scale) * np.float32(beta))
    exponents = (factor * np.arange(256, dtype=np.float32)).astype(np.float64)
    e = np.exp(exponents).astype(np.float32)[xs.max(axis=-1, keepdims=True) - xs]
    total = np.add.accumulate(e, axis=-1, dtype=np.float32)[..., -1:]
    scaled = e * (np.float32(1) / (total * np.float32(1 / 256)))
    return np.clip(np.floor(scaled + np.float32(0.5)) + zero_point, low, high).astype(np.int64)


def rescale(
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """y = clamp(round(s_x / s_y * (x - z_x)) + z_y, low, high): QUANTIZE from 8 bits to 8 bits, and
    RELU, RELU6.

    float: m = round_half_even(256 * f32(s_x / s_y)); y = (((x - z_x) * m + 128) >> 8) + z_y, for
    2^-8 <= s_x / s_y <= 2^7. Source: XNNPACK, qs8-vcvt. It is the rule of QUANTIZE; RELU and RELU6
    follow "tflite" in LiteRT's default kernels too.
    tflite: `requantize_fixed` with f64(s_x) / f64(s_y). Source: TensorFlow Lite,
    kernels/quantize.cc and activations.cc.
    """
    if rounding == "tflite":
        multiplier = quantize_multiplier(float(_f32(x_quant)) / float(_f32(y_quant)))
        return requantize_fixed(_centred(x, x_quant), *multiplier, y_quant[1], low, high)
    m = int(np.rint(_f32(x_quant) / _f32(y_quant) * 256))
    return np.clip(((_centred(x, x_quant) * m + 128) >> 8) + y_quant[1], low, high)


def quantized_leaky_relu(
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    slope: float = 0.01,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """y = clamp(round(r * (x - z_x)) + z_y, low, high) with r = s_x / s_y, times `slope` where x <
    z_x.

    float: m = round_half_even(256 * f32(r)), negative side f32(f32(r) * f32(slope)); y = (((x -
    z_x) * m + 128) >> 8) + z_y. For 2^-8 <= r, r*slope <= 2^7. Source: XNNPACK, qs8-vlrelu.
    tflite: `requantize_fixed` with f64(s_x) / f64(s_y), and f64(s_x) * f64(slope) / f64(s_y).
    Source: TensorFlow Lite, kernels/activations.cc.
    """
    centred = _centred(x, x_quant)
    if rounding == "tflite":
        sx, sy = float(_f32(x_quant)), float(_f32(y_quant))
        up, down = (
            requantize_fixed(centred, *quantize_multiplier(real), y_quant[1], low, high)
            for real in (sx / sy, sx * float(np.float32(slope)) / sy)
        )
        return np.where(centred >= 0, up, down)
    ratio = _f32(x_quant) / _f32(y_quant)
    m = [int(np.rint(r * 256)) for r in (ratio, ratio * np.float32(slope))]
    total = (centred * np.where(centred >= 0, m[0], m[1]) + 128) >> 8
    return np.clip(total + y_quant[1], low, high)


def quantized_hardswish(
    x: ArrayLike, x_quant: Quant, y_quant: Quant, low: int = -128, high: int = 127
) -> Int:
    """y = clamp(x * relu6(x + 3) / 6, low, high) in 16-bit fixed point; needs s_x / s_y < 128. One
    rule for both.

    h = (x - z_x) * 128. Output side: p = h * m_y / 2^15 rounded, m_y the top 16 bits of f32(f32(s_x
    / 128) / s_y), kept with a shift of e_y <= 0. Gate: g = h times f32(f32(s_x / 128) / f32(3 /
    32768)) in the same form, saturated to 16 bits, is x / 3 in units of 2^-15; g = (g + 2^15) >> 1.
    y = round_half_away(trunc(g * p / 2^15) * 2^e_y) + z_y. Source: TensorFlow Lite,
    reference/hard_swish.h (XNNPACK has no int8 hard swish).
    """
    hires = _f32(x_quant) * np.float32(1 / 128)
    my, ey = _short_multiplier(hires / _f32(y_quant))
    mg, eg = _short_multiplier(hires / np.float32(3 / 32768))
    h = _centred(x, x_quant) << 7
    gate = _saturate16(h << (eg - 1)) if eg > 0 else h
    gate = _short_product(gate, mg)
    gate = _saturate16(gate << 1) if eg > 0 else _shift_away(gate, -eg)
    gate = (gate + (1 << 15)) >> 1
    product = gate * _short_product(h, my)
    truncated = np.sign(product) * (np.abs(product) >> 15)
    return np.clip(_shift_away(truncated, -ey) + y_quant[1], low, high)


def _short_multiplier(real: np.float32) -> tuple[int, int]:
    q, shift = quantize_multiplier(float(real))
    return min((int(q) + (1 << 15)) >> 16, 32767), int(shift)


def _short_product(a: Int, b: int) -> Int:
    """a*b / 2^15 rounded to nearest, negative ties up (the 16-bit SQRDMULH)."""
    return ((a * b) + (1 << 14)) >> 15


def _saturate16(a: Int) -> Int:
    return np.clip(a, -32768, 32767)


def _shift_away(a: Int, exponent: int) -> Int:
    """a / 2^exponent, rounded half away from zero."""
    return np.sign(a) * ((np.abs(a) + ((1 << exponent) >> 1)) >> exponent)


def _by_table(
    function: Callable[[_Reals], _Reals],
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    low: int,
    high: int,
) -> Int:
    """clamp(round_half_away(f32(f(f32(s_x * (x - z_x)))) * f32(1 / s_y)) + z_y): one value for each
    of 256 inputs.
    """
    real = _f32(x_quant) * _centred(x, x_quant).astype(np.float32)
    value = function(real.astype(np.float64)).astype(np.float32)
    scaled = value * (np.float32(1) / _f32(y_quant))
    return np.clip(round_half_away(scaled) + y_quant[1], low, high).astype(np.int64)


def quantized_sigmoid(
    x: ArrayLike, x_quant: Quant, y_quant: Quant = (1 / 256, -128), low: int = -128, high: int = 127
) -> Int:
    """y = clamp(round_half_away(sigmoid(s_x * (x - z_x)) / s_y) + z_y), a table of 256; LOGISTIC,
    one rule for both.
    """
    return _by_table(lambda v: 1 / (1 + np.exp(-v)), x, x_quant, y_quant, low, high)


def quantized_tanh(
    x: ArrayLike, x_quant: Quant, y_quant: Quant = (1 / 128, 0), low: int = -128, high: int = 127
) -> Int:
    """y = clamp(round_half_away(tanh(s_x * (x - z_x)) / s_y) + z_y), a table of 256; TANH, one rule
    for both.
    """
    return _by_table(np.tanh, x, x_quant, y_quant, low, high)


def quantized_gelu(
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    approximate: bool = False,
    low: int = -128,
    high: int = 127,
) -> Int:
    """y = clamp(round_half_away(gelu(s_x * (x - z_x)) / s_y) + z_y), a table of 256; GELU, one rule
    for both.

    Every operation of the table is in f32: v/2 * erfc(-v * sqrt(1/2)), or with `approximate` v/2 *
    (1 + tanh(sqrt(2/pi) * (v + 0.044715 * v * v * v))). Source: TensorFlow Lite, reference/gelu.h.
    """
    erfc = np.vectorize(math.erfc, otypes=[np.float64])

    def gelu(v: _Reals) -> _Reals:
        x32, half = v.astype(np.float32), np.float32(0.5)
        if approximate:
            inner = x32 + np.float32(0.044715) * x32 * x32 * x32
            factor = np.float32(1) + _rounded(np.tanh, np.float32(math.sqrt(2 / math.pi)) * inner)
        else:
            factor = _rounded(erfc, x32 * np.float32(-math.sqrt(0.5)))
        return np.asarray(half * x32 * factor, np.float64)

    return _by_table(gelu, x, x_quant, y_quant, low, high)


def _rounded(function: Callable[[_Reals], _Reals], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The correctly rounded f32 value of a function, for nearly every argument: computed in
    float64, then rounded.
    """
    return function(x.astype(np.float64)).astype(np.float32)
