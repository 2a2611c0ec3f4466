"""Pools: the largest or the mean element of a window.

f32, u8 and i8, NHWC. The border of a maximum holds the smallest value of the type, that of a mean
holds 0 and is counted or not by a table of the numbers of elements in each window.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from .border import source
from .layer import Layer, Step
from .op import described, op
from .quantization import (
    ACTIVATIONS,
    Quantization,
    bounds,
    checked_activation,
    checked_zero_point,
)
from .window import Padding, Pair, Window, nonempty, rank, typed, window, window_size

TYPES = (f32, u8, i8)
# Sums and quotients of integers below 2^24 are exact in f32: 255 * 65535 + 65535 is.
LARGEST_WINDOW = 65535


def _largest(to: Scalar) -> Kernel:
    """The maximum nest that stores `to`."""

    @kernel
    def max_pool(
        x, out, *, kernel_h=2, kernel_w=2, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1,
        lowest=0.0, highest=0.0, clipped=0
    ):  # fmt: skip
        """out[n,oh,ow,c] = min(max over kh,kw of x[n, oh*stride_h + kh*dilation_h,
        ow*stride_w + kw*dilation_w, c] and lowest, highest).
        """
        for n, oh, ow, c in sf.grid(out.shape):
            acc = to(lowest)
            for kh, kw in sf.reduce(kernel_h, kernel_w):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc = sf.max(acc, x[n, row, column, c])
            out[n, oh, ow, c] = sf.min(acc, to(highest)) if clipped else acc

    return max_pool


@kernel
def avg_pool_f32(
    x, count, out, *, kernel_h=2, kernel_w=2, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1,
    lowest=0.0, highest=0.0, clipped=0
):  # fmt: skip
    """out[n,oh,ow,c] = (sum over kh,kw of the window's elements) / count[oh,ow], clipped; NaN stays
    NaN.
    """
    for n, oh, ow, c in sf.grid(out.shape):
        acc = f32(0)
        for kh, kw in sf.reduce(kernel_h, kernel_w):
            row = oh * stride_h + kh * dilation_h
            column = ow * stride_w + kw * dilation_w
            acc += x[n, row, column, c]
        v = acc / count[oh, ow]
        least = lowest if v < lowest else v
        out[n, oh, ow, c] = (highest if least > highest else least) if clipped else v


def _mean_8_bits(to: Scalar) -> Kernel:
    """The integer mean nest that stores `to`."""

    @kernel
    def avg_pool(
        x, count, half, out, *, kernel_h=2, kernel_w=2, stride_h=1, stride_w=1, dilation_h=1,
        dilation_w=1, lowest=0, highest=0
    ):  # fmt: skip
        """out[n,oh,ow,c] = clip(round_half_away(sum / count[oh,ow]), lowest, highest).

        (|sum| + count // 2) // count in f32: exact, since all numbers are below 2^24.
        """
        for n, oh, ow, c in sf.grid(out.shape):
            acc = i32(0)
            for kh, kw in sf.reduce(kernel_h, kernel_w):
                row = oh * stride_h + kh * dilation_h
                column = ow * stride_w + kw * dilation_w
                acc += x[n, row, column, c]
            size = sf.floor((f32(sf.abs(acc)) + half[oh, ow]) / count[oh, ow])
            v = i32(-size if acc < 0 else size, saturate=True)
            out[n, oh, ow, c] = to(sf.clip(v, lowest, highest), saturate=True)

    return avg_pool


MAX = {to: _largest(to) for to in TYPES}
MEAN = {to: _mean_8_bits(to) for to in (u8, i8)}


def _pooled(
    name: str,
    x: OperandType,
    kernel: Pair,
    stride: Pair | None,
    padding: Padding,
    dilation: Pair,
    activation: str | None,
    y_q: Quantization | None,
) -> Window:
    """The window of a pool, after its arguments are checked."""
    rank(name, "x", x, "n, h, w, c")
    typed(name, "x", x, TYPES)
    nonempty(name, "x", x)
    activated = checked_activation(name, activation) is not None
    if x.scalar == f32 and y_q is not None:
        raise OperandError(
            f"{name}: y_q={y_q!r} does not go with x=f32, which has no quantization. Remove it."
        )
    if x.scalar != f32 and (activated or y_q is not None):
        if not isinstance(y_q, Quantization):
            raise OperandError(
                f"{name}: y_q={y_q!r} is not a Quantization; activation={activation!r} of "
                f"{x.scalar} needs that of x and the result. Give it, or no activation."
            )
        checked_zero_point(name, "y_q", y_q, x.scalar)
    size = window_size(name, kernel)
    at = window(name, x, size, size if stride is None else stride, padding, dilation)
    for reach, pads in zip(at.kernel, at.pads, strict=True):
        if max(pads) >= reach and dilation == 1:
            raise OperandError(
                f"{name}: padding={at.pads} is not smaller than kernel={at.kernel}, so a window "
                "would hold nothing but border; less padding is allowed. Reduce it."
            )
    return at


def _limits(kind: Scalar, activation: str | None, y_q: Quantization | None) -> dict[str, Any]:
    """The constants lowest, highest and clipped of a pool's nest."""
    low, high = ACTIVATIONS[checked_activation("pool", activation)]
    if kind == f32:
        above = math.inf if high is None else high
        return {
            "lowest": -math.inf if low is None else low,
            "highest": above,
            "clipped": int(low is not None),
        }
    lowest, highest = int(kind.low), int(kind.high)
    if activation is not None and y_q is not None:
        lowest, highest = bounds(checked_activation("pool", activation), y_q, kind, "tflite")
    return {"lowest": lowest, "highest": highest, "clipped": int(highest < kind.high)}


def _max_shape(
    x: OperandType,
    *,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    activation: str | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> OperandType:
    at = _pooled("max_pool2d", x, kernel, stride, padding, dilation, activation, y_q)
    return x.scalar[x.shape[0], *at.out, x.shape[3]]


@op(_max_shape)
def max_pool2d(
    x: OperandType,
    *,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    activation: str | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[n,oh,ow,c] = max of the window's elements that lie inside `x` [n, h, w, c], f32, u8 or
    i8.

    `kernel` is the window, `stride` by default the same. Numbers win over NaN, as in TensorFlow
    Lite's and onnxruntime's pools; a window of NaN alone gives -inf. Integers keep scale and zero
    point; an `activation` of theirs needs them as `y_q`. Raises OperandError for other ranks and
    types, and a window that can lie outside the input.
    """
    at = _pooled("max_pool2d", x, kernel, stride, padding, dilation, activation, y_q)
    border = source("max_pool2d", "x", x, at.pads, x.scalar.low, target)
    out = x.scalar[x.shape[0], *at.out, x.shape[3]]
    limits = _limits(x.scalar, activation, y_q)
    made = MAX[x.scalar].specialize(
        x=border.kind,
        out=out,
        kernel_h=at.kernel[0],
        kernel_w=at.kernel[1],
        **at.constants,
        lowest=float(limits["lowest"]),
        highest=float(limits["highest"]),
        clipped=limits["clipped"],
        target=target,
        dataflow=dataflow,
    )
    return Layer(
        {"x": border.shape}, out, (*border.steps, Step(made, (border.name,))), border.buffers
    )


def _avg_shape(
    x: OperandType,
    *,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    count_include_pad: bool = False,
    activation: str | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> OperandType:
    at = _pooled("avg_pool2d", x, kernel, stride, padding, 1, activation, y_q)
    if at.kernel[0] * at.kernel[1] > LARGEST_WINDOW:
        raise OperandError(
            f"avg_pool2d: kernel={at.kernel} has more than {LARGEST_WINDOW} elements, the most "
            "whose mean is exact. Use global_avg_pool2d."
        )
    return x.scalar[x.shape[0], *at.out, x.shape[3]]


@op(_avg_shape)
def avg_pool2d(
    x: OperandType,
    *,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    count_include_pad: bool = False,
    activation: str | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[n,oh,ow,c] = sum of the window's elements inside `x` [n, h, w, c] / how many they are.

    f32, or u8 and i8 rounded half away from zero (TensorFlow Lite's rule; scale and zero point
    stay). With `count_include_pad` the border counts too, as zeros: of integers it holds the zero
    point of `y_q`, or 0 without one. Options and errors are those of `max_pool2d`.
    """
    options: dict[str, Any] = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "activation": activation,
    }
    out = _avg_shape(x, **options, count_include_pad=count_include_pad, y_q=y_q)
    at = _pooled("avg_pool2d", x, kernel, stride, padding, 1, activation, y_q)
    zero = y_q.zero_point if count_include_pad and y_q is not None else 0
    border = source("avg_pool2d", "x", x, at.pads, zero, target)
    down = _counts(x.shape[1], at, 0, count_include_pad)
    count = np.outer(down, _counts(x.shape[2], at, 1, count_include_pad)).astype(np.float32)
    tables = {"count": count}
    limits = _limits(x.scalar, activation, y_q)
    nest = avg_pool_f32
    if x.scalar != f32:
        nest = MEAN[x.scalar]
        tables["half"] = np.floor(count / 2)
        del limits["clipped"]
    made = nest.specialize(
        x=border.kind,
        out=out,
        **{k: described(v) for k, v in tables.items()},
        kernel_h=at.kernel[0],
        kernel_w=at.kernel[1],
        **at.constants,
        **limits,
        target=target,
        dataflow=dataflow,
    )
    step = Step(made, (border.name, *tables.values()))
    return Layer({"x": border.shape}, out, (*border.steps, step), border.buffers)


def _counts(size: int, at: Window, axis: int, border: bool) -> np.ndarray:
    """How many elements each place of the window has along one axis."""
    first = np.arange(at.out[axis]) * at.stride[axis] - at.pads[axis][0]
    last = first + at.kernel[axis]
    if border:
        return last - first
    return np.minimum(last, size) - np.maximum(first, 0)
