"""Pools: the largest or the mean element of a window, or of a whole channel.

f32, u8 and i8, NHWC. The border of a maximum holds the smallest value of the type, that of a mean
holds 0 and is counted or not by a table of the numbers of elements in each window.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, i64, u8
from ..kernel import Kernel, kernel
from .border import source
from .layer import Layer, Step
from .op import described, op
from .quantization import (
    ACTIVATIONS,
    Quantization,
    bounds,
    checked_activation,
    checked_rounding,
    checked_zero_point,
    fixed,
    spread,
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
    """out[n,oh,ow,c] = (sum over kh,kw of the window's elements) / count[oh,ow], clipped."""
    for n, oh, ow, c in sf.grid(out.shape):
        acc = f32(0)
        for kh, kw in sf.reduce(kernel_h, kernel_w):
            row = oh * stride_h + kh * dilation_h
            column = ow * stride_w + kw * dilation_w
            acc += x[n, row, column, c]
        v = acc / count[oh, ow]
        out[n, oh, ow, c] = sf.clip(v, lowest, highest) if clipped else v


def _mean_8_bits(to: Scalar) -> tuple[Kernel, Kernel, Kernel]:
    """The integer means that store `to`: of windows, and of channels by either rule."""

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

    return avg_pool, mean_float, mean_fixed


MAX = {to: _largest(to) for to in TYPES}
MEAN = {to: _mean_8_bits(to) for to in (u8, i8)}


@kernel
def mean_f32(x, out):
    """out[n,c] = sum over h,w of x[n,h,w,c] / (h * w)."""
    for n, c in sf.grid(x.shape[0], x.shape[3]):
        acc = f32(0)
        for h, w in sf.reduce(x.shape[1:3]):
            acc += x[n, h, w, c]
        out[n, c] = acc / (x.shape[1] * x.shape[2])


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
    if checked_activation(name, activation) is not None and x.scalar != f32:
        if not isinstance(y_q, Quantization):
            raise OperandError(
                f"{name}: activation={activation!r} of {x.scalar} needs y_q, the quantization of x "
                "and the result. Give it, or no activation."
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

    `kernel` is the window, `stride` by default the same. Numbers win over NaN. Integers keep scale
    and zero point; an `activation` of theirs needs them as `y_q`. Raises OperandError for other
    ranks and types, and a window that can lie outside the input.
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
    if x.scalar != f32 and count_include_pad:
        raise OperandError(
            "avg_pool2d: count_include_pad=True is for f32; a quantized mean counts what lies "
            "inside the input. Pad x with its zero point instead."
        )
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
    stay). With `count_include_pad` (f32) the border counts too. Options and errors are those of
    `max_pool2d`.
    """
    options: dict[str, Any] = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "activation": activation,
    }
    out = _avg_shape(x, **options, count_include_pad=count_include_pad, y_q=y_q)
    at = _pooled("avg_pool2d", x, kernel, stride, padding, 1, activation, y_q)
    border = source("avg_pool2d", "x", x, at.pads, 0, target)
    down = _counts(x.shape[1], at, 0, count_include_pad)
    count = np.outer(down, _counts(x.shape[2], at, 1, count_include_pad)).astype(np.float32)
    tables = {"count": count}
    limits = _limits(x.scalar, activation, y_q)
    nest = avg_pool_f32
    if x.scalar != f32:
        nest = MEAN[x.scalar][0]
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
    typed(name, "x", x, TYPES)
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
        nest = MEAN[x.scalar][1]
        limits = {k: float(v) for k, v in limits.items()}
        scale = x_q.single / y_q.single * (np.float32(1) / np.float32(count))
        offset = np.float32(y_q.zero_point) - np.float32(x_q.zero_point * count) * scale
        tables = {"scale": spread(scale, channels), "offset": spread(offset, channels)}
    else:
        nest = MEAN[x.scalar][2]
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
