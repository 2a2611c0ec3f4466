"""Turns arrays of one element type into arrays of another: plain casts, and 8-bit values of one
scale into those of another.

Real values from and into 8 bits are in `rounding`.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .quantized import Quant, rescale
from .rounding import Int, requantize_onnx
from .windows import Array

# XNNPACK converts for ratios in this range; LiteRT computes others by TensorFlow Lite's rule.
RATIOS = (2.0**-8, 2.0**7)


def cast(x: ArrayLike, to: Any) -> Array:
    """out = x as the element type `to` (its `dtype` is read).

    Integers keep their low bits, as in C; floats become integers by truncation toward zero,
    saturated at the ends of the type, NaN becoming 0; integers become the nearest f32.
    """
    xs, dtype = np.asarray(x), np.dtype(to.dtype)
    if xs.dtype.kind != "f" or dtype.kind == "f":
        return xs.astype(dtype)
    info = np.iinfo(dtype)
    whole = np.trunc(np.nan_to_num(xs.astype(np.float64), nan=0.0))
    # The largest i64 is no float64: what reaches 2^63 is set apart.
    inside = np.clip(whole, float(info.min), np.nextafter(float(info.max) + 1, 0))
    stored = inside.astype(np.int64)
    return np.asarray(np.where(whole >= float(info.max), info.max, stored)).astype(dtype)


def flip_sign(x: ArrayLike) -> Array:
    """out = x + 128 as u8 for i8, x - 128 as i8 for u8: the same steps from the lowest value."""
    xs = np.asarray(x)
    moved = xs.astype(np.int64) + (128 if xs.dtype == np.int8 else -128)
    return moved.astype(np.uint8 if xs.dtype == np.int8 else np.int8)


def requantize(
    x: ArrayLike,
    x_quant: Quant,
    y_quant: Quant,
    low: int = -128,
    high: int = 127,
    rounding: str = "float",
) -> Int:
    """y = clamp(round(s_x / s_y * (x - z_x)) + z_y, low, high): QUANTIZE from 8 bits to 8 bits.

    float: `rescale` by XNNPACK's rule for 2^-8 <= s_x / s_y <= 2^7, else by "tflite", as LiteRT
    does. tflite: `rescale` by TensorFlow Lite's rule. onnx: DequantizeLinear, then QuantizeLinear,
    every operation in f32.
    """
    if rounding == "onnx":
        centred = np.asarray(x, np.int64) - x_quant[1]
        return requantize_onnx(centred, x_quant[0], 1.0, y_quant[0], y_quant[1], low, high)
    ratio = np.float32(x_quant[0]) / np.float32(y_quant[0])
    rule = rounding if RATIOS[0] <= ratio <= RATIOS[1] else "tflite"
    return rescale(x, x_quant, y_quant, low, high, rule)
