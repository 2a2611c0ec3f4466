"""ONNX's quantized operators: QuantizeLinear, DequantizeLinear, and layers that compute on 8 bits.

Constants that are dequantized stay integers until a node reads them, so that a pass finds them
under the layer they belong to. A quantized layer becomes the 8-bit op where its weights are
symmetric, else the float layer between dequantize and quantize.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..dsl.types import i8, u8
from ..ops import Quantization
from .onnx_call import Call, Importer, Operator, Table
from .onnx_elements import add, div, maximum, minimum, mul, number, sub
from .onnx_products import as_integers, product
from .onnx_scope import Stored, Tensor, Unsupported, counted, known, quantization
from .onnx_tensor import dtype_of
from .onnx_windows import average, convolve, to_nhwc

_TYPES = {np.dtype(np.uint8): u8, np.dtype(np.int8): i8}


def _axis_last(n: Call, x: Tensor, axis: int, do: Callable[[Tensor], Tensor]) -> Tensor:
    """`do` on the tensor with one axis moved to the end, moved back."""
    order = (*(i for i in range(x.rank) if i != axis), axis)
    back = tuple(int(i) for i in np.argsort(order))
    return n.transpose(do(n.transpose(x, order)), back)


def dequantized(
    n: Call, x: Tensor, scale: np.ndarray, zero_point: np.ndarray | None, axis: int = 0
) -> Tensor:
    """scale * (x - zero_point) in f32, with a scale for all or for each place of `axis`."""
    if _apart(zero_point):
        shift, factor = (_along(n, v, x, axis) for v in (zero_point, scale))
        return mul(n, sub(n, n.cast(x, np.float32), shift), factor)
    scales, zero = quantization(scale, zero_point)
    if scales.ndim and scales.shape != (x.shape[axis : axis + 1]):
        raise Unsupported(f"{scales.size} scales for axis {axis} of {list(x.shape)}")
    if x.dtype not in (np.uint8, np.int8, np.int32):
        raise Unsupported(f"{x.dtype} dequantized; uint8, int8 and int32 are supported")
    if x.array is not None:
        stored = Stored(x.array, scales, zero, axis if scales.ndim else 0)
        return Tensor(x.shape, np.dtype(np.float32), x.name, None, stored)
    q = Quantization(scales, zero)
    if not scales.ndim:
        return n.emit(ops.dequantize, x, x_q=q)
    return _axis_last(n, x, axis, lambda t: n.emit(ops.dequantize, t, x_q=q))


def quantized(
    n: Call, x: Tensor, scale: np.ndarray, zero_point: np.ndarray | None, to: Any, axis: int = 0
) -> Tensor:
    """round_half_even(x / scale) + zero_point, saturated, in uint8 or int8."""
    if np.dtype(to) not in _TYPES:
        raise Unsupported(f"quantized to {np.dtype(to)}; uint8 and int8 are supported")
    if _apart(zero_point):
        shift, factor = (_along(n, v, x, axis) for v in (zero_point, scale))
        return _stepped(n, div(n, x, factor), shift, to)
    scales, zero = quantization(scale, zero_point)
    q, kind = Quantization(scales, zero), _TYPES[np.dtype(to)]
    if not scales.ndim:
        return n.emit(ops.quantize, x, y_q=q, y_type=kind)
    if scales.shape != x.shape[axis : axis + 1]:
        raise Unsupported(f"{scales.size} scales for axis {axis} of {list(x.shape)}")
    return _axis_last(n, x, axis, lambda t: n.emit(ops.quantize, t, y_q=q, y_type=kind))


def _apart(zero_point: np.ndarray | None) -> bool:
    """Whether channels have different zero points, which no `Quantization` has."""
    return zero_point is not None and bool((zero_point != zero_point.reshape(-1)[:1]).any())


def _along(n: Call, values: np.ndarray | None, x: Tensor, axis: int) -> Tensor:
    """A value for each place of an axis, as f32 in the rank of `x`."""
    assert values is not None
    if values.size not in (1, x.shape[axis]):
        raise Unsupported(f"{values.size} values for axis {axis} of {list(x.shape)}")
    return known(values.astype(np.float32).reshape(-1, *(1,) * (x.rank - 1 - axis)))


def _stepped(n: Call, steps: Tensor, zero: Tensor | None, to: Any) -> Tensor:
    """round(steps) + zero point, saturated, as integers: a quantize op of f32 ops."""
    whole = n.emit(ops.round, steps)
    moved = whole if zero is None else add(n, whole, zero)
    kind = _TYPES[np.dtype(to)]
    bounded = n.emit(ops.clip, moved, low=float(kind.low), high=float(kind.high))
    return n.emit(ops.cast, bounded, to=kind)


def _by_computed_scale(n: Call, x: Tensor, scale: Tensor, zero: Tensor | None, to: Any) -> Tensor:
    """`quantized` with a scale that is known only when the model runs."""
    if scale.shape not in ((), (1,)) or (zero is not None and zero.shape not in ((), (1,))):
        raise Unsupported("scales of channels that are computed")
    shift = None if zero is None else n.reshape(n.cast(zero, np.float32), ())
    return _stepped(n, div(n, x, n.reshape(scale, ())), shift, to)


def _quantize_linear(n: Call) -> Tensor:
    x = n.need(0)
    scale, zero = n.need(1), n.given(2)
    n.one("block_size", (0,), 0)
    n.integer("saturate", 1)
    n.one("precision", (0, 1), 0)
    to = np.dtype(np.uint8) if zero is None else zero.dtype
    code = n.integer("output_dtype", 0)
    to = dtype_of(code, n.node.label) if code else to
    if to not in _TYPES:
        raise Unsupported(f"quantized to {to}; uint8 and int8 are supported")
    axis = n.integer("axis", 1)
    axis = counted(axis, x.rank) if -x.rank <= axis < x.rank else 0
    floats = n.cast(x, np.float32)
    if scale.array is None or (zero is not None and zero.array is None):
        return _by_computed_scale(n, floats, scale, zero, to)
    return quantized(n, floats, scale.array, None if zero is None else zero.array, to, axis)


def _dequantize_linear(n: Call) -> Tensor:
    x = n.need(0)
    scale, zero = n.need(1), n.given(2)
    n.one("block_size", (0,), 0)
    n.one("output_dtype", (0, 1), 0)
    axis = n.integer("axis", 1)
    axis = counted(axis, x.rank) if -x.rank <= axis < x.rank else 0
    if scale.array is None or (zero is not None and zero.array is None):
        if scale.shape not in ((), (1,)):
            raise Unsupported("scales of channels that are computed")
        return mul(n, as_integers(n, x, zero), n.reshape(scale, ()))
    return dequantized(n, x, scale.array, None if zero is None else zero.array, axis)


def _dynamic(n: Call) -> tuple[Tensor, ...]:
    """scale = (max(0, x) - min(0, x)) / 255, and the zero point that makes 0 exact. Where all of x
    is 0 the scale is the smallest normal number, not 0.
    """
    x = n.floats(0)
    axes = tuple(range(x.rank))
    if not axes:
        raise Unsupported("a single number")
    top = maximum(n, n.emit(ops.reduce_max, x, axes=axes, keepdims=False), number(0))
    low = minimum(n, n.emit(ops.reduce_min, x, axes=axes, keepdims=False), number(0))
    width = div(n, sub(n, top, low), number(255))
    scale = maximum(n, width, number(float(np.finfo(np.float32).tiny)))
    place = n.emit(ops.neg, div(n, low, scale))
    zero = n.emit(ops.round, n.emit(ops.clip, place, low=0.0, high=255.0))
    steps = add(n, n.emit(ops.round, div(n, x, scale)), zero)
    y = n.emit(ops.cast, n.emit(ops.clip, steps, low=0.0, high=255.0), to=u8)
    return y, scale, n.emit(ops.cast, zero, to=u8)


def _symmetric(n: Call, w: np.ndarray, zero: np.ndarray) -> np.ndarray | None:
    """Weights less their zero points as int8, or None where they do not fit."""
    n.scope.charge(w.size * 4)
    shift = zero.reshape(-1, *(1,) * (w.ndim - 1)) if zero.size > 1 else zero.reshape(-1)[:1]
    moved = w.astype(np.int32) - shift.astype(np.int32)
    fits = -128 <= moved.min(initial=0) <= moved.max(initial=0) <= 127
    return moved.astype(np.int8) if fits else None


def _qlinear_conv(n: Call) -> Tensor:
    x, w, bias = n.need(0), n.need(3), n.given(8)
    x_scale, w_scale, y_scale = n.constant(1), n.constant(4), n.constant(6)
    x_zero, w_zero, y_zero = n.constant(2), n.constant(5), n.constant(7)
    if x_scale.size != 1 or y_scale.size != 1 or y_zero.dtype not in _TYPES:
        raise Unsupported("activations with a scale for each channel, or results of other types")
    plain = None if w.array is None else _symmetric(n, w.array, w_zero)
    if plain is not None and x.array is None:
        numbers = {
            "x_q": Quantization(*quantization(x_scale, x_zero)),
            "w_q": Quantization(*quantization(w_scale, None)),
            "y_q": Quantization(*quantization(y_scale, y_zero)),
            "y_type": _TYPES[y_zero.dtype],
            "rounding": "onnx",
        }
        return convolve(n, x, known(plain), bias, **numbers)
    floats = dequantized(n, x, x_scale, x_zero), dequantized(n, w, w_scale, w_zero)
    wide = None
    if bias is not None:
        wide = dequantized(n, bias, np.asarray(x_scale.reshape(-1)[0] * w_scale), None)
    return quantized(n, convolve(n, *floats, wide), y_scale, y_zero, y_zero.dtype)


def _qlinear_matmul(n: Call) -> Tensor:
    a, b = n.need(0), n.need(3)
    (a_scale, a_zero), (b_scale, b_zero), (y_scale, y_zero) = (
        (n.constant(i), n.constant(i + 1)) for i in (1, 4, 6)
    )
    plain = None
    if b.array is not None and b.rank == 2 and a.rank >= 2 and a_scale.size == 1 == y_scale.size:
        columns = known(b.array.T) if b_zero.size > 1 else known(b.array)
        assert columns.array is not None
        plain = _symmetric(n, columns.array, b_zero)
    if plain is not None and a.array is None and y_zero.dtype in _TYPES:
        numbers = {
            "x_q": Quantization(*quantization(a_scale, a_zero)),
            "w_q": Quantization(*quantization(b_scale, None)),
            "y_q": Quantization(*quantization(y_scale, y_zero)),
            "y_type": _TYPES[y_zero.dtype],
            "rounding": "onnx",
        }
        weights = plain.T if b_zero.size > 1 else plain
        return n.emit(ops.dense, a, known(np.ascontiguousarray(weights)), **numbers)
    left = dequantized(n, a, a_scale, a_zero, max(a.rank - 2, 0))
    right = dequantized(n, b, b_scale, b_zero, max(b.rank - 1, 0))
    return quantized(n, product(n, left, right), y_scale, y_zero, y_zero.dtype)


def _between(do: Callable[..., Tensor], operands: int) -> Importer:
    """An operator of onnxruntime on 8 bits: x, scale, zero point for each operand and the result;
    the float operator between dequantize and quantize.
    """

    def imported(n: Call) -> Tensor:
        floats = []
        for i in range(0, 3 * operands, 3):
            floats.append(dequantized(n, n.need(i), n.constant(i + 1), n.optional(i + 2)))
        zero = n.optional(3 * operands + 1)
        to = n.need(0).dtype if zero is None else zero.dtype
        return quantized(n, do(n, *floats), n.constant(3 * operands), zero, to)

    return imported


def _global_average(n: Call, x: Tensor) -> Tensor:
    if n.one("channels_last", (0, 1), 0):
        return n.emit(ops.reduce_mean, x, axes=tuple(range(1, x.rank - 1)), keepdims=True)
    y = n.emit(ops.global_avg_pool2d, to_nhwc(n, x))
    return n.reshape(y, (*x.shape[:2], *(1,) * (x.rank - 2)))


def _average(n: Call, x: Tensor) -> Tensor:
    if not n.one("channels_last", (0, 1), 0):
        return average(n, x)
    if x.rank < 3:
        raise Unsupported(f"{x.rank} axes")
    last = (0, x.rank - 1, *range(1, x.rank - 1))
    back = (0, *range(2, x.rank), 1)
    return n.transpose(average(n, n.transpose(x, last)), back)


def _qgemm(n: Call) -> Tensor:
    """alpha * a @ b + c with c in i32 of the scale of the products; f32 without a result scale."""
    a, b, c = n.need(0), n.need(3), n.given(6)
    a_scale, b_scale = n.constant(1), n.constant(4)
    turned = [n.integer(name, 0) for name in ("transA", "transB")]
    alpha = np.float32(n.real("alpha", 1.0))
    if a.rank != 2 or b.rank != 2 or a_scale.size != 1 or alpha <= 0:
        raise Unsupported(f"{a.rank} and {b.rank} axes, {a_scale.size} scales, alpha {alpha}")
    left = dequantized(n, a, a_scale, n.constant(2))
    right = dequantized(n, b, b_scale * alpha, n.constant(5), 0 if turned[1] else 1)
    left = n.transpose(left, (1, 0)) if turned[0] else left
    right = n.transpose(right, (1, 0)) if turned[1] else right
    bias = None
    if c is not None:
        columns = right.shape[1]
        scale = np.asarray(a_scale.reshape(-1)[0] * b_scale.reshape(-1) * alpha)
        bias = dequantized(n, n.reshape(c, (columns,)), scale, None)
    made = product(n, left, right, bias)
    y_scale, y_zero = n.optional(7), n.optional(8)
    if y_scale is None:
        return made
    return quantized(n, made, y_scale, y_zero, a.dtype if y_zero is None else y_zero.dtype)


def _leaky(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.leaky_relu, x, slope=n.real("alpha", 0.01))


def _sigmoid(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.sigmoid, x)


def _concat(n: Call) -> Tensor:
    scale, zero = n.constant(0), n.constant(1)
    parts = tuple(
        dequantized(n, n.need(i), n.constant(i + 1), n.constant(i + 2))
        for i in range(2, len(n.inputs), 3)
    )
    joined = n.concat(parts, counted(n.integer("axis"), parts[0].rank))
    return quantized(n, joined, scale, zero, zero.dtype)


QUANTIZED: Table = {
    "DequantizeLinear": Operator(_dequantize_linear, note="uint8, int8, int32; no blocks"),
    "DynamicQuantizeLinear": Operator(_dynamic),
    "QLinearConv": Operator(_qlinear_conv, (1, 2, 4, 5, 6, 7), note="one or two spatial axes"),
    "QLinearMatMul": Operator(_qlinear_matmul, (1, 2, 4, 5, 6, 7)),
    "QuantizeLinear": Operator(_quantize_linear, note="to uint8, int8; no blocks"),
}
MICROSOFT: Table = {
    "QGemm": Operator(_qgemm, (1, 2, 4, 5, 7, 8)),
    "QLinearAdd": Operator(_between(add, 2), (1, 2, 4, 5, 6, 7)),
    "QLinearAveragePool": Operator(_between(_average, 1), (1, 2, 3, 4)),
    "QLinearConcat": Operator(_concat, note="all scales and zero points known"),
    "QLinearGlobalAveragePool": Operator(_between(_global_average, 1), (1, 2, 3, 4)),
    "QLinearLeakyRelu": Operator(_between(_leaky, 1), (1, 2, 3, 4)),
    "QLinearMul": Operator(_between(mul, 2), (1, 2, 4, 5, 6, 7)),
    "QLinearSigmoid": Operator(_between(_sigmoid, 1), (1, 2, 3, 4)),
}
