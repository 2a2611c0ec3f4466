"""The nests of all layers that sum products over a window: convolution, depthwise, dense.

One index covers them: output channel `oc` reads the `w.shape[2]` input channels of its group. They
differ in what happens to the sum before it is stored; `finishing` picks the nest and makes the
arrays and constants it takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import Scalar, f32, f64, i32, i64
from ..kernel import Kernel, kernel
from .quantization import (
    ACTIVATIONS,
    Quantization,
    bounds,
    factors,
    fixed,
    spread,
)


@kernel
def product_f32(
    x, w, start, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, group=1,
    lowest=-math.inf, highest=math.inf, clipped=0
):  # fmt: skip
    """out[n,oh,ow,oc] = clip(start[oc] + sum over kh,kw,ic of
    x[n, oh*stride_h + kh*dilation_h, ow*stride_w + kw*dilation_w, oc // group * c + ic] *
    w[kh,kw,ic,oc], lowest, highest), c = w.shape[2]; all f32, NaN stays NaN.
    """
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = f32(start[oc])
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            row = oh * stride_h + kh * dilation_h
            column = ow * stride_w + kw * dilation_w
            acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
        least = lowest if acc < lowest else acc
        out[n, oh, ow, oc] = (highest if least > highest else least) if clipped else acc


@kernel
def product_i32(
    x, w, start, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, group=1
):  # fmt: skip
    """The sum itself in i32. It may wrap: the op has proven from the weights that it does not."""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = i32(start[oc], wrap=True)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            row = oh * stride_h + kh * dilation_h
            column = ow * stride_w + kw * dilation_w
            acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
        out[n, oh, ow, oc] = acc


@cache
def requantizing(to: Scalar) -> dict[str, Kernel]:
    """The requantizing nests that store `to`, by the name of their rule."""

    @kernel
    def product_float(
        x, w, start, scale, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, group=1,
        zero_point=0, lowest=0, highest=255, clipped=0, capped=0
    ):  # fmt: skip
        """out = clip(round(f32(acc) * scale[oc]) + zero_point, lowest, highest): XNNPACK.

        The bounds are whole, so that clipping after the rounding is clipping before it, and takes
        one instruction for four vectors. A scale known to be below 1 spares the check that the
        rounded value fits i32.
        """
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = i32(start[oc], wrap=True)
            for kh, kw, ic in sf.reduce(w.shape[:3]):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
            q = i32(sf.round(f32(acc) * scale[oc]), saturate=True)
            y = to(q + zero_point, saturate=True)
            y = sf.max(y, lowest) if clipped else y
            out[n, oh, ow, oc] = sf.min(y, highest) if capped else y

    @kernel
    def product_onnx(
        x, w, start, scale, step, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1,
        group=1, zero_point=0, lowest=0, highest=255, clipped=0, capped=0
    ):  # fmt: skip
        """out = clip(round(f32(acc) * scale[oc] / step[oc]) + zero_point, lowest, highest)."""
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = i32(start[oc], wrap=True)
            for kh, kw, ic in sf.reduce(w.shape[:3]):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
            q = i32(sf.round(f32(acc) * scale[oc] / step[oc]), saturate=True)
            y = to(q + zero_point, saturate=True)
            y = sf.max(y, lowest) if clipped else y
            out[n, oh, ow, oc] = sf.min(y, highest) if capped else y

    @kernel
    def product_fixed(
        x, w, start, factor, left, right, out, *, stride_h=1, stride_w=1, dilation_h=1,
        dilation_w=1, group=1, zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out = clip(acc * 2^left * factor / 2^31 / 2^right + zero_point, lowest, highest) with
        TensorFlow Lite's two roundings, in i64.
        """
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = i32(start[oc], wrap=True)
            for kh, kw, ic in sf.reduce(w.shape[:3]):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
            shifted = i32(i64(acc) << (left[oc] & 31), wrap=True)
            # SaturatingRoundingDoublingHighMul: its two nudges and truncation are one floor.
            high = (i64(shifted) * i64(factor[oc]) + (1 << 30)) >> 31
            # RoundingDivideByPOT: halves away from zero.
            half = (i64(1) << (right[oc] & 31)) >> 1
            nudge = sf.max(half - 1, 0) if high < 0 else half
            v = ((high + nudge) >> (right[oc] & 31)) + zero_point
            out[n, oh, ow, oc] = to(sf.clip(v, lowest, highest), saturate=True)

    @kernel
    def product_double(
        x, w, start, scale, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, group=1,
        zero_point=0, lowest=0, highest=255
    ):  # fmt: skip
        """out = clip(round_half_away(f64(acc) * scale[oc]) + zero_point, lowest, highest)."""
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = i32(start[oc], wrap=True)
            for kh, kw, ic in sf.reduce(w.shape[:3]):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc += x[n, row, column, oc // group * w.shape[2] + ic] * w[kh, kw, ic, oc]
            v = f64(acc) * scale[oc]
            size = sf.min(sf.abs(v), 1024.0)
            whole = sf.floor(size)
            away = whole + 1.0 if size - whole >= 0.5 else whole
            q = i32(-away if v < 0.0 else away, saturate=True) + zero_point
            out[n, oh, ow, oc] = to(sf.clip(q, lowest, highest), saturate=True)

    return {
        "float": product_float,
        "onnx": product_onnx,
        "tflite": product_fixed,
        "double": product_double,
    }


@dataclass(frozen=True)
class Finish:
    """The nest for a sum, the arrays it takes after `start`, its constants."""

    nest: Kernel
    arrays: tuple[np.ndarray, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of `start` and of the arrays."""
        return tuple(o.name for o in self.nest.nest.operands if o.name not in ("x", "w", "out"))


def finishing(
    channels: int,
    to: Scalar,
    rounding: str,
    activation: str | None,
    quantizations: tuple[Quantization, Quantization, Quantization] | None,
) -> Finish:
    """What is done with sums that are stored as `to`: nothing, a clip (f32), or requantization.

    `rounding` is "float", "onnx", "tflite" or "double" (TensorFlow Lite's FULLY_CONNECTED).
    `quantizations` are those of x, w and y.
    """
    if to == f32:
        low, high = ACTIVATIONS[activation]
        if low is None:
            return Finish(product_f32)
        limits: dict[str, Any] = {
            "lowest": low,
            "highest": math.inf if high is None else high,
            "clipped": 1,
        }
        return Finish(product_f32, (), limits)
    if quantizations is None:
        return Finish(product_i32)
    x, w, y = quantizations
    nest, zero_point = requantizing(to)[rounding], y.zero_point
    low, high = bounds(activation, y, to, "tflite" if rounding == "double" else rounding)
    limits = {"zero_point": zero_point, "lowest": low, "highest": high}
    if rounding in ("tflite", "double"):
        real = np.float64(x.single) * w.scales.astype(np.float64) / np.float64(y.single)
        if rounding == "double":
            return Finish(nest, (spread(real, channels),), limits)
        arrays = tuple(spread(a, channels) for a in fixed(real))
        return Finish(nest, arrays, limits)
    limits |= {"clipped": int(low > to.low), "capped": int(high < to.high)}
    if rounding == "float":
        return Finish(nest, (spread(factors(x, w, y), channels),), limits)
    scale = spread(x.single * w.scales, channels)
    return Finish(nest, (scale, spread(y.single, channels)), limits)


def starts(
    op: str,
    w: np.ndarray,
    bias: np.ndarray | None,
    zero_point: int,
    x: Scalar,
) -> np.ndarray:
    """start[oc] = bias[oc] - zero_point * sum of w[..., oc], in i32: sums of x * w from there are
    those of (x - zero_point) * w and the bias.

    Raises OperandError when a sum can leave i32 for values of the type of `x`.
    """
    channels = w.shape[-1]
    taps = w.reshape(-1, channels)
    above = np.maximum(taps, 0).sum(axis=0, dtype=np.int64)
    below = np.minimum(taps, 0).sum(axis=0, dtype=np.int64)
    start = -zero_point * (above + below)
    if bias is not None:
        start = start + bias.astype(np.int64)
    low = start + above * int(x.low) + below * int(x.high)
    high = start + above * int(x.high) + below * int(x.low)
    if low.min(initial=0) < i32.low or high.max(initial=0) > i32.high:
        raise OperandError(
            f"{op}: the sums reach {low.min()} to {high.max()} for {x} inputs; i32 holds "
            f"{i32.low} to {i32.high}. Use fewer input channels, or a smaller bias."
        )
    return start.astype(np.int32)
