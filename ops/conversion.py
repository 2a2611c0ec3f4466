"""quantize, dequantize, requantize and cast: the same numbers in another element type.

Turns operand types and quantizations into one nest over all elements; 8 bits to 8 bits by
TensorFlow Lite's rule is a look-up in a table of all 256 results.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, i64, u8
from ..kernel import Kernel, kernel
from . import tables
from .elementwise import flat, look_up, quantized
from .layer import Layer, Step
from .op import described, op
from .quantization import Quantization, checked_rounding, checked_zero_point
from .window import nonempty, typed

CASTS = (f32, u8, i8, i32, i64)
# XNNPACK converts for ratios in this range; LiteRT computes others by TensorFlow Lite's rule.
RATIOS = (2.0**-8, 2.0**7)


@cache
def _quantizing(to: Scalar) -> Kernel:
    """The nest that stores real values as 8 bits."""

    @kernel
    def quantize_nest(
        x, scale, out, *, zero_point=0, lowest=0.0, highest=255.0, inverted=0, away=0
    ):  # fmt: skip
        """out[i,c] = round(clip(x[i,c] / scale[c], lowest, highest)) + zero_point; NaN becomes the
        zero point. Halves go to even, or away from 0; an inverted scale is multiplied.
        """
        for i, c in sf.grid(out.shape):
            step = scale[c % scale.shape[0]]
            v = x[i, c] * step if inverted else x[i, c] / step
            number = sf.clip(v if v == v else 0.0, lowest, highest)
            size = sf.floor(sf.abs(number))
            more = size + 1.0 if sf.abs(number) - size >= 0.5 else size
            whole = (-more if number < 0.0 else more) if away else sf.round(number)
            out[i, c] = to(i32(whole, saturate=True) + zero_point, saturate=True)

    return quantize_nest


@kernel
def dequantize_nest(x, scale, out, *, zero_point=0):
    """out[i,c] = f32(x[i,c] - zero_point) * scale[c]."""
    for i, c in sf.grid(out.shape):
        out[i, c] = f32(i32(x[i, c]) - zero_point) * scale[c % scale.shape[0]]


@cache
def _requantizing(to: Scalar) -> dict[str, Kernel]:
    """The nests from 8 bits of one scale to 8 bits of another, stored as `to`, by rounding.

    They take a tenth and a quarter of the time of a look-up in a table (200,000 elements: 5 and 13
    us against 48 with AVX-512), in which TensorFlow Lite's rule is left.
    """

    @kernel
    def requantize_float(x, out, *, zero_x=0, factor=256, zero_point=0):
        """out[i] = saturate((((x[i] - zero_x) * factor + 128) >> 8) + zero_point): XNNPACK,
        qs8-vcvt.
        """
        for i in sf.grid(out.shape):
            v = ((i32(x[i]) - zero_x) * factor + 128) >> 8
            out[i] = to(v + zero_point, saturate=True)

    @kernel
    def requantize_onnx(
        x, out, *, zero_x=0, scale_x=1.0, scale=1.0, zero_point=0, lowest=0.0, highest=255.0
    ):  # fmt: skip
        """out[i] = round_half_even(clip(f32(x[i] - zero_x) * scale_x / scale, lowest, highest)) +
        zero_point: DequantizeLinear, then QuantizeLinear.
        """
        for i in sf.grid(out.shape):
            v = f32(i32(x[i]) - zero_x) * scale_x / scale
            q = i32(sf.round(sf.clip(v, lowest, highest)), saturate=True)
            out[i] = to(q + zero_point, saturate=True)

    return {"float": requantize_float, "onnx": requantize_onnx}


@cache
def _casting(to: Scalar, kind: str) -> Kernel:
    """The nest that stores `to`; kind "f": from floats, or to them."""

    @kernel
    def cast_saturated(x, out):
        """out[i] = x[i], truncated toward zero and saturated; NaN becomes 0."""
        for i in sf.grid(out.shape):
            out[i] = to(x[i], saturate=True)

    @kernel
    def cast_wrapped(x, out):
        """out[i] = the low bits of x[i]."""
        for i in sf.grid(out.shape):
            out[i] = to(x[i], wrap=True)

    @kernel
    def cast_rounded(x, out):
        """out[i] = the nearest float to x[i]."""
        for i in sf.grid(out.shape):
            out[i] = to(x[i])

    return {"saturated": cast_saturated, "wrapped": cast_wrapped, "rounded": cast_rounded}[kind]


def _scaled(
    nest: Kernel,
    x: OperandType,
    out: OperandType,
    scales: np.ndarray,
    constants: dict[str, Any],
    target: Any,
    dataflow: Any,
) -> Layer:
    """The layer of a nest over elements [i, c] with one scale, or one for each c."""
    scale = np.ascontiguousarray(scales.reshape(-1))
    view = (x.size // scale.size, scale.size)
    if scale.size == 1:
        view = (1, x.size)
    made = nest.specialize(
        x=x.scalar[view],
        scale=described(scale),
        out=out.scalar[view],
        **constants,
        target=target,
        dataflow=dataflow,
    )
    return Layer({"x": view}, out, (Step(made, ("x", scale), "out", view),))


def _meaning(name: str, key: str, q: object, x: OperandType, to: Scalar) -> None:
    """OperandError unless `q` is a quantization of integers `to` in the shape of `x`."""
    if not isinstance(q, Quantization):
        raise OperandError(
            f"{name}: {key}={q!r} is not a Quantization; Quantization(scale, zero_point) is. Make "
            "one."
        )
    if q.scales.size not in (1, *x.shape[-1:]):
        raise OperandError(
            f"{name}: {key}.scale has {q.scales.size} values for x {list(x.shape)}; 1, or one for "
            "each element of the last axis, are allowed. Correct it."
        )
    checked_zero_point(name, key, q, to)


def _byte(name: str, y_type: object) -> Scalar:
    for kind in (u8, i8):
        if y_type == kind:
            return kind
    raise OperandError(f"{name}: y_type={y_type!r} is not u8 or i8, which the result is. Give one.")


def _quantize_shape(
    x: OperandType, *, y_q: Quantization, y_type: Scalar, rounding: str = "onnx", **_: Any
) -> OperandType:
    typed("quantize", "x", x, (f32,))
    checked_rounding("quantize", rounding)
    nonempty("quantize", "x", x)
    to = _byte("quantize", y_type)
    _meaning("quantize", "y_q", y_q, x, to)
    return to[x.shape]


@op(_quantize_shape)
def quantize(
    x: OperandType,
    *,
    y_q: Quantization,
    y_type: Scalar,
    rounding: str = "onnx",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = saturate(round(x / scale) + zero_point): f32 of any shape to `y_type`, u8 or i8.

    `y_q` has one scale, or one for each element of the last axis. "onnx" divides and rounds halves
    to even (QuantizeLinear), "float" multiplies with 1 / scale and rounds halves to even (XNNPACK,
    the QUANTIZE of LiteRT's default kernels), "tflite" divides and rounds halves away from zero
    (that of its reference kernels). NaN becomes the zero point. Raises OperandError for other
    types, and a scale or zero point that does not go with them.
    """
    out = _quantize_shape(x, y_q=y_q, y_type=y_type, rounding=rounding)
    zero, inverted = y_q.zero_point, rounding == "float"
    constants = {
        "zero_point": zero,
        "lowest": float(out.scalar.low - zero),
        "highest": float(out.scalar.high - zero),
        "inverted": int(inverted),
        "away": int(rounding == "tflite"),
    }
    scales = np.asarray(np.float32(1) / y_q.scales) if inverted else y_q.scales
    return _scaled(_quantizing(out.scalar), x, out, scales, constants, target, dataflow)


def _dequantize_shape(x: OperandType, *, x_q: Quantization, **_: Any) -> OperandType:
    typed("dequantize", "x", x, (u8, i8, i32))
    nonempty("dequantize", "x", x)
    _meaning("dequantize", "x_q", x_q, x, x.scalar)
    if x.scalar == i32 and x_q.zero_point != 0:
        raise OperandError(
            f"dequantize: x_q.zero_point={x_q.zero_point} of i32 is not 0; sums have none. Take it "
            "off first."
        )
    return f32[x.shape]


@op(_dequantize_shape)
def dequantize(
    x: OperandType, *, x_q: Quantization, target: Any = None, dataflow: Any = None
) -> Layer:
    """out = f32(x - zero_point) * scale: u8, i8, or i32 with the zero point 0, of any shape, to
    f32.

    `x_q` has one scale, or one for each element of the last axis. Raises OperandError for other
    types, and a scale or zero point that does not go with them.
    """
    out = _dequantize_shape(x, x_q=x_q)
    constants = {"zero_point": x_q.zero_point}
    return _scaled(dequantize_nest, x, out, x_q.scales, constants, target, dataflow)


def _requantize_shape(
    x: OperandType,
    *,
    x_q: Quantization,
    y_q: Quantization,
    y_type: Scalar | None = None,
    rounding: str = "float",
    **_: Any,
) -> OperandType:
    nonempty("requantize", "x", x)
    checked_rounding("requantize", rounding)
    quantized("requantize", x, x_q=x_q)
    to = x.scalar if y_type is None else _byte("requantize", y_type)
    quantized("requantize", to[x.shape], y_q=y_q)
    return to[x.shape]


@op(_requantize_shape)
def requantize(
    x: OperandType,
    *,
    x_q: Quantization,
    y_q: Quantization,
    y_type: Scalar | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = saturate(round(s_x / s_y * (x - z_x)) + z_y): u8 or i8 of any shape to `y_type`, by
    default the type of x.

    "float" is XNNPACK's rule (for 2^-8 <= s_x / s_y <= 2^7, else TensorFlow Lite's, as in LiteRT),
    "tflite" that of TensorFlow Lite's reference kernels, "onnx" DequantizeLinear and
    QuantizeLinear; see `ops.reference.requantize`. Raises OperandError for other types.
    """
    out = _requantize_shape(x, x_q=x_q, y_q=y_q, y_type=y_type, rounding=rounding)
    ratio, zero = x_q.single / y_q.single, y_q.zero_point
    if rounding == "tflite" or (rounding == "float" and not RATIOS[0] <= ratio <= RATIOS[1]):
        rule = tables.rescaled(-np.inf, np.inf)
        table = tables.table(x.scalar, rule, x_q, y_q, out.scalar)
        lowest = {"lowest": int(x.scalar.low)}
        return flat(out, look_up, x, lowest, target, dataflow, table)
    constants: dict[str, Any] = {"zero_x": x_q.zero_point, "zero_point": zero}
    if rounding == "float":
        constants["factor"] = round(float(ratio) * 256)
    else:
        constants |= {"scale_x": float(x_q.single), "scale": float(y_q.single)}
        constants["lowest"] = float(out.scalar.low - zero)
        constants["highest"] = float(out.scalar.high - zero)
    return flat(out, _requantizing(out.scalar)[rounding], x, constants, target, dataflow)


def _cast_shape(x: OperandType, *, to: Scalar, **_: Any) -> OperandType:
    typed("cast", "x", x, CASTS)
    nonempty("cast", "x", x)
    if to not in CASTS:
        raise OperandError(
            f"cast: to={to!r} is not a type of a result; {', '.join(s.name for s in CASTS)} are. "
            "Use one of them."
        )
    return to[x.shape]


@op(_cast_shape)
def cast(x: OperandType, *, to: Scalar, target: Any = None, dataflow: Any = None) -> Layer:
    """out = x as the element type `to`: f32, u8, i8, i32 or i64, of any shape.

    Integers keep their low bits, as in C; floats become integers by truncation toward zero,
    saturated at the ends of the type, NaN becoming 0; integers become the nearest f32. Raises
    OperandError for other types.
    """
    out = _cast_shape(x, to=to)
    kind = "rounded" if to.is_float else "saturated" if x.scalar.is_float else "wrapped"
    return flat(out, _casting(to, kind), x, {}, target, dataflow)
