"""Turns .tflite operators on elements, windows, rows and quantizations into nodes.

8-bit operators that have integer rules in `simdflow.ops` keep them; the others are computed in f32
between dequantize and quantize, which is within one step of LiteRT's tables. Integer tensors
without a scale (shapes, indices) are computed here, at import, when they are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..ops import Op, Quantization
from .tflite_layer import Layer, Unsupported, dequantized, meaning, operand_type, scalar_type

Importer = Callable[[Layer], None]


def binary(name: str, *, integer: bool = False) -> Importer:
    """ADD, SUB, MUL (`integer`: with 8-bit rules), DIV, MAXIMUM, MINIMUM."""
    on_known = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum}
    on_known |= {"minimum": np.minimum}

    def importer(layer: Layer) -> None:
        function: Op = getattr(ops, name)
        given: dict[str, Any] = {}
        if layer.activation is not None:
            given["activation"] = layer.activation
        if _plain_integers(layer) and name in on_known:
            with np.errstate(all="ignore"):
                _know(layer, on_known[name](layer.array(0, "input"), layer.array(1, "input")))
        elif integer and layer.is_quantized:
            quantizations = layer.quantizations("a_q", "b_q", "y_q")
            inputs = layer.value(0), layer.value(1)
            layer.give(function, *inputs, **given, **layer.rounded, **quantizations)
        else:
            layer.give_real(function, layer.real(0), layer.real(1), **given)

    return importer


def floor_div(layer: Layer) -> None:
    """FLOOR_DIV of known integers."""
    if not _plain_integers(layer):
        raise Unsupported("a quotient of values that are not integers known at import")
    divisor = layer.array(1, "input")
    if not divisor.all():
        raise Unsupported("a division by zero")
    _know(layer, np.floor_divide(layer.array(0, "input"), divisor))


def compared(name: str) -> Importer:
    """LESS, GREATER, EQUAL: a bool is a u8 of 0 or 1."""

    def importer(layer: Layer) -> None:
        layer.give(getattr(ops, name), layer.real(0), layer.real(1))

    return importer


def select(layer: Layer) -> None:
    """SELECT, SELECT_V2: 8-bit values between dequantize and quantize."""
    condition = layer.x(0)
    if condition.dtype != np.bool_:
        raise Unsupported(f"a condition of {condition.dtype}")
    layer.give_real(ops.where, layer.value(0), layer.real(1), layer.real(2))


def unary(name: str, **fixed: Any) -> Importer:
    """An operator of one input in f32, `fixed` being options of the op."""

    def importer(layer: Layer) -> None:
        layer.give_real(getattr(ops, name), layer.real(), **fixed)

    return importer


def tabled(name: str, *, two_rules: bool = False, **names: str) -> Importer:
    """An operator of one input with an 8-bit rule; `names` are options of the op and what the file
    calls them. `two_rules`: its default and its reference kernel round differently.
    """

    def importer(layer: Layer) -> None:
        given: dict[str, Any] = {option: layer.options[key] for option, key in names.items()}
        given |= layer.quantizations("x_q", "y_q")
        layer.give(
            getattr(ops, name), layer.value(), **given, **(layer.rounded if two_rules else {})
        )

    return importer


def clipped(low: float, high: float) -> Importer:
    """RELU_N1_TO_1, RELU_0_TO_1."""

    def importer(layer: Layer) -> None:
        layer.give(ops.clip, layer.value(), low=low, high=high, **layer.quantizations("x_q", "y_q"))

    return importer


def prelu(layer: Layer) -> None:
    """PRELU: the slope is constant, for the last axes."""
    slope = dequantized(layer.x(1), layer.array(1, "slope"))
    layer.give_real(ops.prelu, layer.real(), layer.constant(slope, "slope"))


def power(layer: Layer) -> None:
    """POW with one constant exponent."""
    exponent = dequantized(layer.x(1), layer.array(1, "exponent"))
    if exponent.size != 1:
        raise Unsupported(f"{exponent.size} exponents; one is supported")
    layer.give_real(ops.pow, layer.real(), exponent=float(exponent.reshape(-1)[0]))


def squared_difference(layer: Layer) -> None:
    """SQUARED_DIFFERENCE: (a - b)^2."""
    layer.give_real(ops.square, layer.call(ops.sub, layer.real(0), layer.real(1)))


def softmax(layer: Layer) -> None:
    """SOFTMAX: 8-bit results of another scale than 1/256 are rescaled."""
    beta = float(layer.options["beta"])
    if not layer.is_quantized:
        layer.give(ops.softmax, layer.value(), beta=beta)
        return
    low = int(operand_type(layer.y()).scalar.low)
    usual, wanted = Quantization(1 / 256, low), meaning(layer.y())
    x_q = meaning(layer.x())
    if wanted == usual and layer.y().dtype == layer.x().dtype:
        layer.give(ops.softmax, layer.value(), beta=beta, x_q=x_q)
        return
    found = layer.call(ops.softmax, layer.value(), beta=beta, x_q=x_q)
    _requantized(layer, found, Quantization(1 / 256, int(operand_type(layer.x()).scalar.low)))


def pool(name: str) -> Importer:
    """AVERAGE_POOL_2D, MAX_POOL_2D: scale and zero point stay."""

    def importer(layer: Layer) -> None:
        if layer.is_quantized and meaning(layer.x()) != meaning(layer.y()):
            raise Unsupported("a pool whose input and output have different scales")
        layer.give(
            getattr(ops, name),
            layer.value(),
            kernel=layer.pair("kernel"),
            stride=layer.pair("stride"),
            padding=layer.options["padding"],
            activation=layer.activation,
            **layer.quantizations("y_q"),
        )

    return importer


def reduction(name: str) -> Importer:
    """MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD. The mean over height and width has an 8-bit
    rule.
    """
    on_known: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.max, "min": np.min}
    on_known["prod"] = np.prod

    def importer(layer: Layer) -> None:
        x, keep = layer.x(), bool(layer.options["keep_dims"])
        given = layer.integers(1, "axes")
        axes = tuple(sorted({layer.axis(a, len(x.shape)) for a in given}))
        if _plain_integers(layer) and name in on_known:
            reduced = on_known[name](layer.array(0, "input"), axis=axes, keepdims=keep)
            _know(layer, np.asarray(reduced, layer.y().dtype))
        elif name == "prod":
            raise Unsupported("a product of values that are not known at import")
        elif name == "mean" and axes == (1, 2) and len(x.shape) == 4:
            options = layer.quantizations("x_q", "y_q") | layer.rounded
            if keep:
                layer.give_shaped(layer.call(ops.global_avg_pool2d, layer.value(), **options))
            else:
                layer.give(ops.global_avg_pool2d, layer.value(), **options)
        else:
            function = getattr(ops, f"reduce_{name}")
            layer.give_real(function, layer.real(), axes=axes, keepdims=keep)

    return importer


def l2_normalization(layer: Layer) -> None:
    """L2_NORMALIZATION: x / sqrt(max(sum of x^2 along the last axis, 1e-6))."""
    if layer.activation is not None:
        raise Unsupported(f"activation {layer.activation}")
    x = layer.real()
    axis = layer.axis(-1, len(layer.x().shape))
    total = layer.call(ops.reduce_sum, layer.call(ops.square, x), axes=(axis,), keepdims=True)
    least = layer.call(ops.maximum, total, layer.constant(np.full(1, 1e-6, np.float32), "least"))
    layer.give_real(ops.mul, x, layer.call(ops.rsqrt, least))


def quantize(layer: Layer) -> None:
    """QUANTIZE: f32 to 8 bits, or 8 bits of one scale to those of another."""
    if layer.x().dtype.kind == "f":
        layer.give_quantized(layer.value())
    else:
        _requantized(layer, layer.value(), meaning(layer.x()))


def dequantize(layer: Layer) -> None:
    """DEQUANTIZE: of a constant (f16, int8) at import, else a node."""
    if layer.is_known(0):
        _know(layer, dequantized(layer.x(), layer.array(0, "input")))
    else:
        layer.give(ops.dequantize, layer.value(), x_q=meaning(layer.x()))


def cast(layer: Layer) -> None:
    """CAST between f32 and integers; of a constant at import."""
    if layer.is_known(0):
        with np.errstate(all="ignore"):
            _know(layer, layer.array(0, "input").astype(layer.y().dtype))
    else:
        layer.give(ops.cast, layer.value(), to=scalar_type(layer.y()))


def add_n(layer: Layer) -> None:
    """ADD_N: a sum of two or more f32 inputs, from first to last."""
    if layer.count < 2:
        raise Unsupported(f"{layer.count} inputs; 2 or more are supported")
    total = layer.real(0)
    for i in range(1, layer.count - 1):
        total = layer.call(ops.add, total, layer.real(i))
    layer.give_real(ops.add, total, layer.real(layer.count - 1))


def _requantized(layer: Layer, value: str, found: Quantization) -> None:
    """Give 8-bit `value`, which means `found`, with the scale that the file says."""
    to = scalar_type(layer.y())
    y_q = meaning(layer.y())
    layer.give(ops.requantize, value, x_q=found, y_q=y_q, y_type=to, **layer.rounded)


def _plain_integers(layer: Layer) -> bool:
    """Whether the layer computes with integers that mean themselves, all of them known."""
    y = layer.y()
    known = all(layer.is_known(i) for i in range(layer.count))
    return y.dtype.kind in "iu" and y.scale is None and known


def _know(layer: Layer, array: np.ndarray) -> None:
    layer.network.know(layer.operator.outputs[0], array)
