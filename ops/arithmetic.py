"""add, sub, mul, div, maximum and minimum: two operands element by element, broadcast.

Turns two operand types and their quantizations into one nest over at most four axes. The nests of
8-bit results are in `scaled_arithmetic`, conditions and choices in `comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from .broadcast import broadcast, broadcast_layer
from .elementwise import quantized
from .layer import Layer
from .op import op
from .quantization import ACTIVATIONS, Quantization, checked_activation, checked_rounding
from .scaled_arithmetic import scaled_product, scaled_sum
from .window import typed


@kernel
def add_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(a + b), broadcast; NaN stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p + q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def sub_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(a - b), broadcast; NaN stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p - q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def mul_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(a * b), broadcast; NaN stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p * q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def div_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(a / b), broadcast; NaN stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p / q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def maximum_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(max(a, b)), broadcast; NaN on either side stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p if p > q or p != p else q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def minimum_f32(a, b, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out = clip(min(a, b)), broadcast; NaN on either side stays NaN."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        v = p if p < q or p != p else q
        least = lowest if v < lowest else v
        out[i, j, k, m] = (highest if least > highest else least) if clipped else v


@kernel
def add_integers(a, b, out):
    """out = a + b in i32, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = i32(p + q)


@kernel
def sub_integers(a, b, out):
    """out = a - b in i32, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = i32(p - q)


@kernel
def mul_integers(a, b, out):
    """out = a * b in i32, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = i32(p * q)


@kernel
def maximum_integers(a, b, out):
    """out = max(a, b) of one type, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = sf.max(p, q)


@kernel
def minimum_integers(a, b, out):
    """out = min(a, b) of one type, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = sf.min(p, q)


REAL: dict[str, Kernel] = {
    "add": add_f32,
    "sub": sub_f32,
    "mul": mul_f32,
    "div": div_f32,
    "maximum": maximum_f32,
    "minimum": minimum_f32,
}
INTEGER: dict[str, Kernel] = {
    "add": add_integers,
    "sub": sub_integers,
    "mul": mul_integers,
    "maximum": maximum_integers,
    "minimum": minimum_integers,
}
WIDENING = ("add", "sub", "mul")


def _plain(
    name: str, a: OperandType, b: OperandType, activation: str | None, types: tuple[Scalar, ...]
) -> OperandType:
    """The result of an operation without quantizations."""
    typed(name, "a", a, types)
    typed(name, "b", b, (a.scalar,))
    shape = broadcast(name, a=a, b=b)
    if checked_activation(name, activation) is not None and a.scalar != f32:
        raise OperandError(
            f"{name}: activation={activation!r} of integers is not defined; it is for f32 and "
            "quantized results. Give quantizations, or None."
        )
    return (i32 if name in WIDENING and a.scalar != f32 else a.scalar)[shape]


def _plain_layer(
    name: str,
    a: OperandType,
    b: OperandType,
    out: OperandType,
    activation: str | None,
    target: Any,
    dataflow: Any,
) -> Layer:
    nest = (REAL if a.scalar == f32 else INTEGER)[name]
    low, high = ACTIVATIONS[checked_activation(name, activation)]
    limits: dict[str, Any] = {}
    if low is not None:
        limits = {"lowest": low, "highest": math.inf if high is None else high, "clipped": 1}
    return broadcast_layer(nest, {"a": a, "b": b}, out, limits, target, dataflow)


def _scaled_shape(name: str) -> Callable[..., OperandType]:
    """The shape rule of an operation that has a quantized form."""

    def rule(
        a: OperandType,
        b: OperandType,
        *,
        activation: str | None = None,
        a_q: Quantization | None = None,
        b_q: Quantization | None = None,
        y_q: Quantization | None = None,
        rounding: str = "float",
        **_: Any,
    ) -> OperandType:
        if checked_rounding(name, rounding) == "onnx":
            raise OperandError(
                f"{name}: rounding='onnx' has no definition here; 'float' and 'tflite' do. Use one."
            )
        if a_q is None and b_q is None and y_q is None:
            return _plain(name, a, b, activation, (f32, u8, i8))
        typed(name, "a", a, (f32, u8, i8))
        typed(name, "b", b, (a.scalar,))
        checked_activation(name, activation)
        quantized(name, a, a_q=a_q, b_q=b_q, y_q=y_q)
        return a.scalar[broadcast(name, a=a, b=b)]

    return rule


def _scaled(name: str, make: Callable[..., Any]) -> Callable[..., Layer]:
    """The layer of an operation that has a quantized form; `make` finds its nest and constants."""
    shape = _scaled_shape(name)

    def layer(
        a: OperandType,
        b: OperandType,
        activation: str | None,
        quantizations: tuple[Quantization | None, Quantization | None, Quantization | None],
        rounding: str,
        target: Any,
        dataflow: Any,
    ) -> Layer:
        a_q, b_q, y_q = quantizations
        out = shape(a, b, activation=activation, a_q=a_q, b_q=b_q, y_q=y_q, rounding=rounding)
        if a_q is None or b_q is None or y_q is None:
            return _plain_layer(name, a, b, out, activation, target, dataflow)
        activation = checked_activation(name, activation)
        nest, constants = make(a_q, b_q, y_q, out.scalar, activation, rounding)
        return broadcast_layer(nest, {"a": a, "b": b}, out, constants, target, dataflow)

    return layer


_SUM = _scaled("add", scaled_sum)
_DIFFERENCE = _scaled("sub", partial(scaled_sum, sign=-1))
_PRODUCT = _scaled("mul", scaled_product)


@op(_scaled_shape("add"), inputs=2)
def add(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    a_q: Quantization | None = None,
    b_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a + b), broadcast as numpy does: f32; u8 or i8 to i32; or 8 bits with `a_q`,
    `b_q` and `y_q`.

    "float" is XNNPACK's sum of 20-bit products (outside its range of scales TensorFlow Lite's, as
    in LiteRT), "tflite" that of TensorFlow Lite's reference kernels; see
    `ops.reference.quantized_add`. Raises OperandError for types and shapes that do not go together.
    """
    return _SUM(a, b, activation, (a_q, b_q, y_q), rounding, target, dataflow)


@op(_scaled_shape("sub"), inputs=2)
def sub(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    a_q: Quantization | None = None,
    b_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a - b), broadcast as numpy does; types, options, rules and errors are those
    of `add`.
    """
    return _DIFFERENCE(a, b, activation, (a_q, b_q, y_q), rounding, target, dataflow)


@op(_scaled_shape("mul"), inputs=2)
def mul(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    a_q: Quantization | None = None,
    b_q: Quantization | None = None,
    y_q: Quantization | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a * b), broadcast as numpy does: f32; u8 or i8 to i32; or 8 bits with `a_q`,
    `b_q` and `y_q`.

    Rules as in `ops.reference.quantized_mul`; options and errors are those of `add`.
    """
    return _PRODUCT(a, b, activation, (a_q, b_q, y_q), rounding, target, dataflow)


def _plain_shape(name: str, types: tuple[Scalar, ...]) -> Callable[..., OperandType]:
    """The shape rule of an operation without a quantized form."""

    def rule(
        a: OperandType, b: OperandType, *, activation: str | None = None, **_: Any
    ) -> OperandType:
        return _plain(name, a, b, activation, types)

    return rule


@op(_plain_shape("div", (f32,)), inputs=2)
def div(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(a / b), f32, broadcast as numpy does; a zero divides as IEEE 754 says."""
    out = _plain("div", a, b, activation, (f32,))
    return _plain_layer("div", a, b, out, activation, target, dataflow)


ORDERED = (f32, u8, i8, i32)


@op(_plain_shape("maximum", ORDERED), inputs=2)
def maximum(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(max(a, b)), broadcast as numpy does; f32, where NaN wins, u8, i8 or i32.

    Integers are compared as they are (8-bit values of one scale and zero point); they have no
    activation. Raises OperandError for types and shapes that do not go together.
    """
    out = _plain("maximum", a, b, activation, ORDERED)
    return _plain_layer("maximum", a, b, out, activation, target, dataflow)


@op(_plain_shape("minimum", ORDERED), inputs=2)
def minimum(
    a: OperandType,
    b: OperandType,
    *,
    activation: str | None = None,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = activation(min(a, b)); types, NaN and errors are those of `maximum`."""
    out = _plain("minimum", a, b, activation, ORDERED)
    return _plain_layer("minimum", a, b, out, activation, target, dataflow)
