"""Turns 32-bit accumulators into 8-bit values by each of the three rules in use, exactly as their
definitions say.

`requantize_float` is XNNPACK's (the default of LiteRT and of simdflow), `requantize_fixed` is the
one of TensorFlow Lite's reference kernels, `requantize_onnx` is DequantizeLinear followed by
QuantizeLinear. All return int64 values.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]


def round_half_away(x: ArrayLike) -> NDArray[np.floating]:
    """Nearest integer, ties away from zero (C's round); float of the precision of `x`."""
    xs = np.asarray(x)
    # x + 0.5 in the precision of x would carry the largest number below one half up to one.
    whole = np.trunc(xs)
    return np.asarray(whole + np.where(np.abs(xs - whole) >= 0.5, np.sign(xs), 0).astype(xs.dtype))


def float_multiplier(
    x_scale: ArrayLike, w_scale: ArrayLike, y_scale: ArrayLike
) -> NDArray[np.float32]:
    """f32(f32(x_scale) * f32(w_scale) / f32(y_scale)), each operation rounded to f32; shape of
    `w_scale`.
    """
    product = np.asarray(x_scale, np.float32) * np.asarray(w_scale, np.float32)
    return np.asarray(product / np.asarray(y_scale, np.float32), np.float32)


def requantize_float(
    acc: ArrayLike, multiplier: ArrayLike, zero_point: int = 0, low: int = -128, high: int = 127
) -> Int:
    """clamp(round_half_even(f32(acc) * multiplier) + zero_point, low, high): XNNPACK's rule for
    int8 products.

    `acc` int32 values [..., c], `multiplier` f32, one or [c] (see `float_multiplier`). The
    conversion of `acc` to f32 rounds to nearest even above 2^24, the product is rounded once to
    f32. Bit-exact with LiteRT's default kernels for CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED and
    MUL. Source: XNNPACK, src/qs8-requantization.
    """
    scaled = np.asarray(acc).astype(np.float32) * np.asarray(multiplier, np.float32)
    return (np.clip(np.rint(scaled), low - zero_point, high - zero_point) + zero_point).astype(
        np.int64
    )


def quantize_multiplier(real: ArrayLike) -> tuple[Int, Int]:
    """(q, shift) with real = q / 2^31 * 2^shift and 2^30 <= q < 2^31; the mantissa is rounded half
    away from zero.

    `real` float64 >= 0, any shape. A multiplier below 2^-32 becomes (0, 0). Source: TensorFlow
    Lite, kernels/internal/quantization_util.cc.
    """
    mantissa, shift = np.frexp(np.asarray(real, np.float64))
    q = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)
    shift = np.asarray(shift, np.int64) + (q == 1 << 31)
    q = np.where(q == 1 << 31, 1 << 30, q)
    tiny = shift < -31
    return np.where(tiny, 0, q), np.where(tiny, 0, shift)


def _doubling_high_product(a: Int, b: Int) -> Int:
    """a*b / 2^31 rounded to nearest, ties up, saturated at 2^31 - 1 (gemmlowp's SQRDMULH)."""
    product = a * b
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    quotient = np.where(nudged >= 0, nudged >> 31, -((-nudged) >> 31))
    return np.minimum(quotient, (1 << 31) - 1)


def _rounding_shift(x: Int, exponent: Int) -> Int:
    """x / 2^exponent rounded to nearest, ties away from zero."""
    mask = (1 << exponent) - 1
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0))


def multiply_by_quantized_multiplier(x: ArrayLike, multiplier: ArrayLike, shift: ArrayLike) -> Int:
    """x * multiplier / 2^31 * 2^shift in the two roundings of TensorFlow Lite; int64 values that
    fit 32 bits.

    left = max(shift, 0); y = SaturatingRoundingDoublingHighMul(x * 2^left, multiplier);
    RoundingDivideByPOT(y, max(-shift, 0)). x * 2^left wraps to 32 bits, as there.
    """
    xs, q, s = (np.asarray(v, np.int64) for v in (x, multiplier, shift))
    shifted = (xs << np.maximum(s, 0)).astype(np.int32).astype(np.int64)
    return _rounding_shift(_doubling_high_product(shifted, q), np.maximum(-s, 0))


def requantize_fixed(
    acc: ArrayLike,
    multiplier: ArrayLike,
    shift: ArrayLike,
    zero_point: int = 0,
    low: int = -128,
    high: int = 127,
) -> Int:
    """clamp(multiply_by_quantized_multiplier(acc, multiplier, shift) + zero_point, low, high).

    The rule of TensorFlow Lite's reference kernels for CONV_2D and DEPTHWISE_CONV_2D, bit-exact
    with LiteRT's; for FULLY_CONNECTED see `requantize_double`. `multiplier` and `shift` int32, one
    or [c], come from `fixed_multiplier`.
    """
    scaled = multiply_by_quantized_multiplier(acc, multiplier, shift)
    return np.clip(scaled + zero_point, low, high)


def fixed_multiplier(x_scale: float, w_scale: ArrayLike, y_scale: float) -> tuple[Int, Int]:
    """`quantize_multiplier` of float64(x_scale) * float64(w_scale) / float64(y_scale), the scales
    being f32 values.
    """
    sx, sw, sy = (np.float64(np.asarray(s, np.float32)) for s in (x_scale, w_scale, y_scale))
    return quantize_multiplier(sx * sw / sy)


def requantize_double(
    acc: ArrayLike,
    x_scale: float,
    w_scale: ArrayLike,
    y_scale: float,
    zero_point: int = 0,
    low: int = -128,
    high: int = 127,
) -> Int:
    """clamp(round_half_away(acc * (f64(x_scale) * f64(w_scale) / f64(y_scale))) + zero_point, low,
    high) in float64.

    The rule of LiteRT's reference FULLY_CONNECTED, per tensor and per channel (found by comparison
    with version 2.3.0).
    """
    sx, sw, sy = (np.float64(np.asarray(s, np.float32)) for s in (x_scale, w_scale, y_scale))
    scaled = round_half_away(np.asarray(acc, np.int64) * (sx * sw / sy))
    return np.clip(scaled + zero_point, low, high).astype(np.int64)


def requantize_onnx(
    acc: ArrayLike,
    x_scale: ArrayLike,
    w_scale: ArrayLike,
    y_scale: ArrayLike,
    zero_point: int = 0,
    low: int = -128,
    high: int = 127,
) -> Int:
    """saturate(round_half_even(f32(f32(acc) * f32(x_scale * w_scale)) / f32(y_scale)) +
    zero_point).

    DequantizeLinear of the 32-bit accumulator with scale x_scale * w_scale, then QuantizeLinear
    with y_scale, every operation in f32. It differs from `requantize_float` by dividing after the
    product. Source: the ONNX operator definitions, QuantizeLinear-21.
    """
    scale = np.asarray(x_scale, np.float32) * np.asarray(w_scale, np.float32)
    real = np.asarray(acc).astype(np.float32) * scale / np.asarray(y_scale, np.float32)
    return (np.clip(np.rint(real), low - zero_point, high - zero_point) + zero_point).astype(
        np.int64
    )


def quantize(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: int = 0,
    low: int = -128,
    high: int = 127,
    rounding: str = "onnx",
) -> Int:
    """clamp(round(f32(x) / f32(scale)) + zero_point, low, high); int64 values, NaN gives the zero
    point.

    onnx: the quotient in f32, halves to even. Source: the ONNX operator definitions,
    QuantizeLinear-21. float: the product with f32(1 / scale), halves to even. Source: XNNPACK,
    f32-qs8-vcvt. tflite: the quotient in f32, halves away from zero. Source: TensorFlow Lite,
    kernels/internal/reference/quantize.h. The last two were compared with ai-edge-litert 2.3.0
    (what NaN gives is not defined there).
    """
    real, step = np.asarray(x, np.float32), np.asarray(scale, np.float32)
    with np.errstate(over="ignore"):
        real = real * (np.float32(1) / step) if rounding == "float" else real / step
    inside = np.clip(np.nan_to_num(real, nan=0.0), low - zero_point, high - zero_point)
    whole = round_half_away(inside) if rounding == "tflite" else np.rint(inside)
    return (whole + zero_point).astype(np.int64)


def dequantize(q: ArrayLike, scale: ArrayLike, zero_point: ArrayLike = 0) -> NDArray[np.float32]:
    """(q - zero_point) * scale, the product in f32; shape of `q`."""
    centred = np.asarray(q, np.int64) - np.asarray(zero_point, np.int64)
    return centred.astype(np.float32) * np.asarray(scale, np.float32)


def activation_bounds(
    activation: str,
    scale: float,
    zero_point: int,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> tuple[int, int]:
    """The 8-bit clamp of a fused "none", "relu", "relu6" or "relu_n1_to_1".

    Each real bound b becomes, within [low, high]: for "float" round_half_even(f32(f32(b) /
    f32(scale) + zero_point)) (XNNPACK: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, ADD, MUL); for
    "tflite" zero_point + round_half_away(f32(b) / f32(scale)) (also in the kernels that XNNPACK
    does not have: AVERAGE_POOL_2D, RELU, RELU6).
    """
    real = {
        "none": (None, None),
        "relu": (0.0, None),
        "relu6": (0.0, 6.0),
        "relu_n1_to_1": (-1.0, 1.0),
    }
    if activation not in real:
        raise ValueError(f"activation={activation!r} is not known; {', '.join(real)} are")

    def bound(b: float | None, otherwise: int) -> int:
        if b is None:
            return otherwise
        value = np.float32(b) / np.float32(scale)
        if rounding == "float":
            return int(np.rint(value + np.float32(zero_point)))
        return zero_point + int(round_half_away(value))

    below, above = real[activation]
    return max(low, bound(below, low)), min(high, bound(above, high))
