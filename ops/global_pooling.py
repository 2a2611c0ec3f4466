"""global_avg_pool2d: the mean of each channel, f32 and by both quantized rules.

Turns an operand type and its quantizations into one kernel, with the factors that its rule takes.
Means of windows are in `pooling`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, i64, u8
from ..kernel import Kernel, kernel
from .layer import Layer, Step
from .op import described, op
from .quantization import (
    Quantization,
    checked_rounding,
    checked_zero_point,
    fixed,
    spread,
)
from .window import nonempty, rank, typed


@kernel
def mean_f32(x, out):
    """out[n,c] = sum over h,w of x[n,h,w,c] / (h * w)."""
    for n, c in sf.grid(x.shape[0], x.shape[3]):
        acc = f32(0)
        for h, w in sf.reduce(x.shape[1:3]):
            acc += x[n, h, w, c]
        out[n, c] = acc / (x.shape[1] * x.shape[2])


def _to_8_bits(to: Scalar) -> dict[str, Kernel]:
    """The quantized nests that store `to`, by rounding."""

    @kernel
    def mean_float(x, scale, offset, out, *, lowest=0.0, highest=255.0):
        """out[n,c] = clip(round(f32(sum over h,w of x[n,h,w,c]) * scale[c] + offset[c]), lowest,
        highest), every operation rounded to f32.
        """
        for n, c in sf.grid(x.shape[0], x.shape[3]):
            acc = i32(0)
            for h, w in sf.reduce(x.shape[1:3]):
                acc += x[n, h, w, c]
            v = sf.clip(f32(acc) * scale[c] + offset[c], lowest, highest)
            out[n, c] = to(i32(sf.round(v), saturate=True), saturate=True)

    @kernel
    def mean_fixed(
        x, factor, left, right, out, *, start=0, zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out[n,c] = clip((start + sum) * 2^left * factor / 2^31 / 2^right + zero_point, lowest,
        highest), rounded as `product_fixed` does.
        """
        for n, c in sf.grid(x.shape[0], x.shape[3]):
            acc = i32(start)
            for h, w in sf.reduce(x.shape[1:3]):
                acc += x[n, h, w, c]
            shifted = i32(i64(acc) << (left[c] & 31), wrap=True)
            high = (i64(shifted) * i64(factor[c]) + (1 << 30)) >> 31
            half = (i64(1) << (right[c] & 31)) >> 1
            nudge = sf.max(half - 1, 0) if high < 0 else half
            v = ((high + nudge) >> (right[c] & 31)) + zero_point
            out[n, c] = to(sf.clip(v, lowest, highest), saturate=True)

    return {"float": mean_float, "tflite": mean_fixed}


MEAN = {to: _to_8_bits(to) for to in (u8, i8)}


def _global_shape(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> OperandType:
    name = "global_avg_pool2d"
    rank(name, "x", x, "n, h, w, c")
    typed(name, "x", x, (f32, u8, i8))
    nonempty(name, "x", x)
    checked_rounding(name, rounding)
    given = isinstance(x_q, Quantization), isinstance(y_q, Quantization)
    if given != ((x.scalar != f32,) * 2):
        raise OperandError(
            f"{name}: x_q={x_q!r} and y_q={y_q!r} for {x.scalar}; both are given for u8 and i8, "
            "none for f32. Correct them."
        )
    if rounding == "onnx":
        raise OperandError(
            f"{name}: rounding='onnx' has no definition here; 'float' and 'tflite' do. Use one."
        )
    if x_q is not None and y_q is not None:
        checked_zero_point(name, "x_q", x_q, x.scalar)
        checked_zero_point(name, "y_q", y_q, x.scalar)
    return x.scalar[x.shape[0], x.shape[3]]


@op(_global_shape)
def global_avg_pool2d(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[n,c] = mean over h,w of x[n,h,w,c]: f32, or u8 and i8 with `x_q` and `y_q`.

    "float" is XNNPACK's mean, "tflite" that of TensorFlow Lite's reference kernels; both as in
    `ops.reference.quantized_global_avg_pool2d`. Raises OperandError for other ranks and types, and
    sums that can leave i32.
    """
    out = _global_shape(x, x_q=x_q, y_q=y_q, rounding=rounding)
    channels, count = x.shape[3], x.shape[1] * x.shape[2]
    chosen = {"x": x, "out": out, "target": target, "dataflow": dataflow}
    if x_q is None or y_q is None:
        return Layer({"x": x.shape}, out, (Step(mean_f32.specialize(**chosen), ("x",)),))
    if count * 255 > i32.high:
        raise OperandError(
            f"global_avg_pool2d: x has {count} elements a channel, whose sum can leave i32; at "
            f"most {i32.high // 255} are allowed. Pool in two calls."
        )
    limits: dict[str, Any] = {"lowest": int(x.scalar.low), "highest": int(x.scalar.high)}
    if rounding == "float":
        nest = MEAN[x.scalar]["float"]
        limits = {k: float(v) for k, v in limits.items()}
        scale = x_q.single / y_q.single * (np.float32(1) / np.float32(count))
        offset = np.float32(y_q.zero_point) - np.float32(x_q.zero_point * count) * scale
        tables = {"scale": spread(scale, channels), "offset": spread(offset, channels)}
    else:
        nest = MEAN[x.scalar]["tflite"]
        limits |= {"start": -x_q.zero_point * count, "zero_point": y_q.zero_point}
        q, left, right = (int(v[0]) for v in fixed(float(x_q.single) / float(y_q.single)))
        # Dividing by the count is part of the multiplier: as many of its bits as fit are shifted up
        # first.
        k = min(count.bit_length() - 1, 31 + left - right)
        shift = left - right - k
        numbers = ((q << k) // count, max(shift, 0), max(-shift, 0))
        names = ("factor", "left", "right")
        tables = {n: spread(np.int32(v), channels) for n, v in zip(names, numbers, strict=True)}
    kinds: dict[str, Any] = {k: described(v) for k, v in tables.items()}
    made = nest.specialize(**chosen, **limits, **kinds)
    return Layer({"x": x.shape}, out, (Step(made, ("x", *tables.values())),))
