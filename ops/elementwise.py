"""Activations that have an 8-bit form: relu, clip, leaky_relu, hardswish, sigmoid, tanh, gelu.

Each is one nest over all elements in a row; the 8-bit form is a look-up in a table of all 256
results, which `tables` makes, but for leaky_relu by XNNPACK's rule. Activations of f32 alone are in
`activations`, row-wise layers in `rows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from . import tables
from .layer import Layer, Step
from .op import described, op
from .quantization import Quantization, checked_rounding, checked_zero_point
from .window import nonempty, typed

TYPES = (f32, u8, i8)


@kernel
def clip_f32(x, out, *, lowest=-math.inf, highest=math.inf):
    """out[i] = x[i] inside [lowest, highest], else the nearer end; NaN stays NaN."""
    for i in sf.grid(out.shape):
        v = x[i]
        out[i] = lowest if v < lowest else (highest if v > highest else v)


def _clip_integers(to: Scalar) -> Kernel:
    """The integer clip that stores `to`."""

    @kernel
    def clip_integers(x, out, *, lowest=0, highest=0):
        """out[i] = min(max(x[i], lowest), highest)."""
        for i in sf.grid(out.shape):
            out[i] = to(sf.clip(i32(x[i]), lowest, highest), saturate=True)

    return clip_integers


CLIP = {f32: clip_f32} | {to: _clip_integers(to) for to in (u8, i8, i32)}


@kernel
def leaky_relu_f32(x, out, *, slope=0.01):
    """out[i] = x[i] if x[i] >= 0 else slope * x[i]."""
    for i in sf.grid(out.shape):
        v = x[i]
        out[i] = v if v >= 0.0 else v * slope


@cache
def _leaky_relu_8_bits(to: Scalar) -> Kernel:
    """The leaky_relu that stores `to`, by XNNPACK's rule."""

    @kernel
    def leaky_relu_float(x, out, *, zero_x=0, factor=256, factor_below=0, zero_point=0):
        """out[i] = saturate((((x[i] - zero_x) * m + 128) >> 8) + zero_point) with m =
        factor_below where x[i] < zero_x, else factor: XNNPACK, qs8-vlrelu.
        """
        for i in sf.grid(out.shape):
            centred = i32(x[i]) - zero_x
            v = (centred * (factor_below if centred < 0 else factor) + 128) >> 8
            out[i] = to(v + zero_point, saturate=True)

    return leaky_relu_float


@kernel
def hardswish_f32(x, out):
    """out[i] = x[i] * min(max(x[i] + 3, 0), 6) / 6."""
    for i in sf.grid(out.shape):
        v = x[i]
        out[i] = v * sf.clip(v + 3.0, 0.0, 6.0) / 6.0


@kernel
def sigmoid_f32(x, out):
    """out[i] = 1 / (1 + exp(-x[i]))."""
    for i in sf.grid(out.shape):
        out[i] = sf.sigmoid(x[i])


@kernel
def tanh_f32(x, out):
    """out[i] = tanh(x[i])."""
    for i in sf.grid(out.shape):
        out[i] = sf.tanh(x[i])


@kernel
def gelu_f32(x, out, *, approximate=0):
    """out[i] = x/2 * (1 + erf(x / sqrt(2))); approximate: x/2 * (1 + tanh(sqrt(2/pi) *
    (x + 0.044715 x^3))).
    """
    for i in sf.grid(out.shape):
        v = x[i]
        inner = (v + v * v * v * 0.044715) * 0.7978845608028654
        out[i] = (
            v * 0.5 * (1.0 + (sf.tanh(inner) if approximate else sf.erf(v * 0.7071067811865476)))
        )


@kernel
def look_up(x, table, out, *, lowest=0):
    """out[i] = table[x[i] - lowest]."""
    for i in sf.grid(out.shape):
        out[i] = table[i32(x[i]) - lowest]


def flat(
    kind: OperandType, nest: Kernel, x: OperandType, constants: Mapping[str, Any], target: Any,
    dataflow: Any, table: np.ndarray | None = None
) -> Layer:  # fmt: skip
    """The layer of a nest over all elements in a row, with the table it looks up if it does."""
    n = x.size
    types = {} if table is None else {"table": described(table)}
    made = nest.specialize(
        x=x.scalar[n],
        out=kind.scalar[n],
        **types,
        **constants,
        target=target,
        dataflow=dataflow,
    )
    operands = ("x",) if table is None else ("x", table)
    return Layer({"x": (n,)}, kind, (Step(made, operands, "out", (n,)),))


def _unary_shape(name: str, integers: tuple[Scalar, ...] = ()) -> Any:
    """The shape rule of an activation: 8 bits come with quantizations, other integers without."""

    def rule(
        x: OperandType,
        *,
        x_q: Quantization | None = None,
        y_q: Quantization | None = None,
        rounding: str = "float",
        **_: Any,
    ) -> OperandType:
        nonempty(name, "x", x)
        checked_rounding(name, rounding)
        if x_q is None and y_q is None:
            typed(name, "x", x, (f32, *integers))
        else:
            quantized(name, x, x_q=x_q, y_q=y_q)
            if rounding == "onnx":
                raise OperandError(
                    f"{name}: rounding='onnx' has no definition here; 'float' and 'tflite' do. "
                    "Use one."
                )
        return x.scalar[x.shape]

    return rule


def quantized(name: str, x: OperandType, **given: Quantization | None) -> None:
    """OperandError unless `x` is u8 or i8 and every quantization given, with one scale."""
    typed(name, "x", x, (u8, i8))
    for key, q in given.items():
        if not isinstance(q, Quantization) or q.scales.size != 1:
            raise OperandError(
                f"{name}: {key}={q!r} is not a Quantization with one scale; for {x.scalar} "
                f"{' and '.join(given)} are needed. Give Quantization(scale, zero_point)."
            )
        checked_zero_point(name, key, q, x.scalar)


def _table_layer(
    x: OperandType,
    rule: tables.Rule,
    x_q: Quantization,
    y_q: Quantization,
    target: Any,
    dataflow: Any,
) -> Layer:
    table = tables.table(x.scalar, rule, x_q, y_q)
    lowest = {"lowest": int(x.scalar.low)}
    return flat(x.scalar[x.shape], look_up, x, lowest, target, dataflow, table)


def _clipped(
    name: str,
    x: OperandType,
    low: float,
    high: float,
    x_q: Quantization | None,
    y_q: Quantization | None,
    target: Any,
    dataflow: Any,
) -> Layer:
    if x_q is not None and y_q is not None:
        return _table_layer(x, tables.rescaled(low, high), x_q, y_q, target, dataflow)
    if x.scalar == f32:
        limits: dict[str, Any] = {"lowest": float(low), "highest": float(high)}
    else:
        kind = x.scalar
        limits = {
            "lowest": math.ceil(min(max(low, kind.low), kind.high)),
            "highest": math.floor(min(max(high, kind.low), kind.high)),
        }
    return flat(x.scalar[x.shape], CLIP[x.scalar], x, limits, target, dataflow)


@op(_unary_shape("relu", (u8, i8, i32)))
def relu(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = max(x, 0), NaN stays NaN; any shape, f32, u8, i8, i32.

    With `x_q` and `y_q` (u8, i8) also rescaled from one to the other, by TensorFlow Lite's rule
    (which LiteRT's default kernels use too). Raises OperandError for other types.
    """
    return _clipped("relu", x, 0.0, math.inf, x_q, y_q, target, dataflow)


@op(_unary_shape("relu6", (u8, i8, i32)))
def relu6(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = min(max(x, 0), 6); types, quantization and errors are those of `relu`."""
    return _clipped("relu6", x, 0.0, 6.0, x_q, y_q, target, dataflow)


def _clip_shape(x: OperandType, *, low: float, high: float, **options: Any) -> OperandType:
    if not low <= high:
        raise OperandError(
            f"clip: low={low!r} is not at most high={high!r}, which it must be. Swap them."
        )
    return _unary_shape("clip", (u8, i8, i32))(x, **options)


@op(_clip_shape)
def clip(
    x: OperandType,
    *,
    low: float,
    high: float,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = min(max(x, low), high), NaN stays NaN; types, quantization and errors are those of
    `relu`. With quantizations `low` and `high` are real values.
    """
    return _clipped("clip", x, low, high, x_q, y_q, target, dataflow)


@op(_unary_shape("leaky_relu"))
def leaky_relu(
    x: OperandType,
    *,
    slope: float = 0.01,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = x if x >= 0 else slope * x; f32, or u8 and i8 with quantizations.

    "float" is XNNPACK's rule, "tflite" that of TensorFlow Lite's reference kernels (see
    `ops.reference.quantized_leaky_relu`).
    """
    if x_q is not None and y_q is not None:
        if rounding == "tflite":
            return _table_layer(x, tables.leaky(slope), x_q, y_q, target, dataflow)
        ratio = x_q.single / y_q.single
        constants = {
            "zero_x": x_q.zero_point,
            "factor": round(float(ratio) * 256),
            "factor_below": round(float(ratio * np.float32(slope)) * 256),
            "zero_point": y_q.zero_point,
        }
        nest = _leaky_relu_8_bits(x.scalar)
        return flat(x.scalar[x.shape], nest, x, constants, target, dataflow)
    return flat(x.scalar[x.shape], leaky_relu_f32, x, {"slope": float(slope)}, target, dataflow)


@op(_unary_shape("hardswish"))
def hardswish(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = x * min(max(x + 3, 0), 6) / 6; f32, or u8 and i8 with quantizations (TensorFlow Lite's
    16-bit rule).
    """
    if x_q is not None and y_q is not None:
        return _table_layer(x, tables.hardswish, x_q, y_q, target, dataflow)
    return flat(x.scalar[x.shape], hardswish_f32, x, {}, target, dataflow)


@op(_unary_shape("sigmoid"))
def sigmoid(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = 1 / (1 + exp(-x)); f32, or u8 and i8 with quantizations (exact, rounded half away)."""
    if x_q is not None and y_q is not None:
        return _table_layer(x, tables.real(tables.logistic), x_q, y_q, target, dataflow)
    return flat(x.scalar[x.shape], sigmoid_f32, x, {}, target, dataflow)


@op(_unary_shape("tanh"))
def tanh(
    x: OperandType,
    *,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = tanh(x); f32, or u8 and i8 with quantizations (exact, rounded half away)."""
    if x_q is not None and y_q is not None:
        return _table_layer(x, tables.real(math.tanh), x_q, y_q, target, dataflow)
    return flat(x.scalar[x.shape], tanh_f32, x, {}, target, dataflow)


@op(_unary_shape("gelu"))
def gelu(
    x: OperandType,
    *,
    approximate: bool = False,
    x_q: Quantization | None = None,
    y_q: Quantization | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = x/2 * (1 + erf(x / sqrt(2))), or with `approximate` x/2 * (1 + tanh(sqrt(2/pi) *
    (x + 0.044715 x^3))); f32, or u8 and i8 with quantizations.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016; TensorFlow Lite,
    reference/gelu.h.
    """
    if x_q is not None and y_q is not None:
        rule = tables.real(tables.gelu_tanh if approximate else tables.gelu_erf)
        return _table_layer(x, rule, x_q, y_q, target, dataflow)
    constants = {"approximate": int(approximate)}
    return flat(x.scalar[x.shape], gelu_f32, x, constants, target, dataflow)
