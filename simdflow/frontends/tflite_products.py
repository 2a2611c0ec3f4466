"""Turns .tflite operators with weights into nodes: convolutions, dense layers, matrix products.

Weights come into HWIO order here, once. Int8 weights of an f32 layer are dequantized (see
`tflite_graph`); u8 weights become i8 where their values allow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..ops import Op, Quantization
from .tflite import Tensor
from .tflite_layer import Layer, Unsupported, dequantized, meaning, scalar_type


def conv2d(layer: Layer) -> None:
    """CONV_2D: weights are OHWI; groups follow from the channels."""
    shape = _rank(layer.x(1), 4).shape
    depth = _rank(layer.x(0), 4).shape[3]
    if not shape[3] or depth % shape[3]:
        raise Unsupported(f"{depth} channels with weights of {shape[3]}")
    w, w_q = _weights(layer, (1, 2, 3, 0), 0)
    _product(layer, ops.conv2d, w, w_q, groups=depth // shape[3], **_window(layer))


def depthwise_conv2d(layer: Layer) -> None:
    """DEPTHWISE_CONV_2D: weights are [1, h, w, channels * multiplier]."""
    if _rank(layer.x(1), 4).shape[0] != 1:
        raise Unsupported(f"weights {list(layer.x(1).shape)}, whose first size is not 1")
    w, w_q = _weights(layer, (0, 1, 2, 3), 3)
    _product(layer, ops.depthwise_conv2d, w[0], w_q, **_window(layer))


def transpose_conv(layer: Layer) -> None:
    """TRANSPOSE_CONV: out[n, h*s - top + i, w*s - left + j, oc] += x[n,h,w,ic] * w[oc,i,j,ic].

    It is the convolution, with weights turned around, of x with s - 1 zeros after every value.
    """
    x, result, stride = _rank(layer.x(2), 4), _rank(layer.y(), 4), layer.pair("stride")
    w, w_q = _weights(layer, (1, 2, 3, 0), 0, x=2)
    n, h, ww, c = x.shape
    if w.shape[2] != c:
        raise Unsupported(f"{c} channels with weights of {w.shape[2]}")
    zero = 0 if w_q is None else meaning(x).zero_point
    apart = h * stride[0], ww * stride[1]
    sides: list[tuple[int, int]] = []
    extra: list[int] = []
    for size, full, s, k in zip((h, ww), apart, stride, w.shape[:2], strict=True):
        out = result.shape[1 + len(sides)]
        before = k - 1 - max((size - 1) * s + k - out, 0) // 2
        after = out - full + k - 1 - before
        if before < 0 or after < 1 - s:
            raise Unsupported(f"a window of {k} and a stride of {s} from {size} to {out}")
        sides.append((before, max(after, 0)))
        extra.append(full + min(after, 0))
    value = layer.value(2)
    if stride != (1, 1):
        value = layer.call(ops.reshape, value, shape=(n, h, 1, ww, 1, c))
        pads = ((0, 0), (0, 0), (0, stride[0] - 1), (0, 0), (0, stride[1] - 1), (0, 0))
        value = layer.call(ops.pad, value, pads=pads, value=zero)
        value = layer.call(ops.reshape, value, shape=(n, *apart, c))
    if tuple(extra) != apart:
        stops = (n, *extra, c)
        value = layer.call(ops.slice, value, starts=(0,) * 4, stops=stops, steps=(1,) * 4)
    turned = np.ascontiguousarray(w[::-1, ::-1])
    _product(layer, ops.conv2d, turned, w_q, x=value, first=2, padding=tuple(sides))


def dense(layer: Layer) -> None:
    """FULLY_CONNECTED: y = x w^T + bias, x seen as rows of the weights' length."""
    if layer.options["weights_format"] != "default":
        raise Unsupported("shuffled weights")
    n, depth = _rank(layer.x(1), 2).shape
    x = layer.x(0)
    if not layer.is_known(1):
        _computed_weights(layer)
        return
    w, w_q = _weights(layer, (1, 0), 0)
    value = layer.value(0)
    if x.shape[-1:] != (depth,):
        size = int(np.prod(x.shape, dtype=object))
        if not depth or size % depth:
            raise Unsupported(f"inputs {list(x.shape)} with rows of {depth}")
        value = layer.call(ops.reshape, value, shape=(size // depth, depth))
        rows: tuple[int, ...] = (size // depth, n)
    else:
        rows = (*x.shape[:-1], n)
    _product(layer, ops.dense, w, w_q, x=value, shape=rows)


def batch_matmul(layer: Layer) -> None:
    """BATCH_MATMUL in f32; 8-bit ones between dequantize and quantize."""
    flags = {f"transpose_{side}": bool(layer.options[f"transpose_{side}"]) for side in "ab"}
    layer.give_real(ops.matmul, layer.real(0), layer.real(1), **flags)


def _computed_weights(layer: Layer) -> None:
    """A dense layer whose weights are the result of other layers."""
    if len(layer.x(0).shape) < 2:
        raise Unsupported(f"computed weights with inputs {list(layer.x(0).shape)}")
    activation = layer.activation
    product = layer.call(ops.matmul, layer.real(0), layer.real(1), transpose_b=True)
    if layer.has(2):
        bias = layer.x(2)
        array = dequantized(bias, layer.array(2, "bias"))
        product = layer.call(ops.add, product, layer.constant(array, "bias"), activation=activation)
    elif activation is not None:
        low = -1.0 if activation == "relu_n1_to_1" else 0.0
        high = {"relu": float("inf"), "relu6": 6.0, "relu_n1_to_1": 1.0}[activation]
        product = layer.call(ops.clip, product, low=low, high=high)
    if layer.is_quantized:
        layer.give_quantized(product)
    else:
        layer.give_shaped(product)


def _product(
    layer: Layer,
    function: Op,
    w: np.ndarray,
    w_q: Quantization | None,
    *,
    x: str = "",
    first: int = 0,
    shape: tuple[int, ...] = (),
    **options: Any,
) -> None:
    """The node of a layer with weights.

    `x` is the value it reads if that is not input `first` itself; the bias comes after both.
    `shape` is what the op gives, if the file may differ.
    """
    tensor, result = layer.x(first), layer.y()
    bias = None
    if layer.has(last := max(first, 1) + 1):
        array = layer.array(last, "bias").reshape(-1)
        bias = layer.constant(_bias(layer.x(last), array, w_q is not None), "bias")
    if w_q is not None:
        options |= {"x_q": meaning(tensor), "w_q": w_q, "y_q": meaning(result)} | layer.rounded
        if result.dtype != tensor.dtype:
            options["y_type"] = scalar_type(result)
    inputs = (x or layer.value(0), layer.constant(w, "w", w_q), bias)
    options["activation"] = layer.activation
    if shape and shape != result.shape:
        layer.give_shaped(layer.call(function, *inputs, **options))
    else:
        layer.give(function, *inputs, **options)


def _weights(
    layer: Layer, order: tuple[int, ...], channels: int, x: int = 0
) -> tuple[np.ndarray, Quantization | None]:
    """(constant weights with their axes in `order`, what their integers mean), for input `x`.

    For f32 layers None and f32 weights. Raises Unsupported for weights that are not symmetric.
    """
    tensor, array = layer.x(1), layer.array(1, "weights")
    kind = layer.x(x).dtype
    if kind.kind == "f":
        return np.ascontiguousarray(dequantized(tensor, array).transpose(order)), None
    if tensor.dtype.itemsize != 1 or tensor.scale is None or tensor.zero_point is None:
        raise Unsupported(f"{kind} inputs with {tensor.dtype} weights")
    if len(tensor.scale) > 1 and tensor.axis != channels:
        raise Unsupported(f"weights with a scale for each element of axis {tensor.axis}")
    scale = tensor.scale if len(tensor.scale) > 1 else tensor.scale[0]
    if tensor.dtype == np.int8 and not tensor.zero_point.any():
        return np.ascontiguousarray(array.transpose(order)), Quantization(scale)
    along = [1] * array.ndim
    along[channels] = -1
    centred = array.astype(np.int16) - tensor.zero_point.astype(np.int16).reshape(along)
    if centred.size and (centred.min() < -128 or centred.max() > 127):
        raise Unsupported(
            f"{tensor.dtype} weights from {centred.min()} to {centred.max()} round their zero "
            "point; -128 to 127 are supported"
        )
    return np.ascontiguousarray(centred.astype(np.int8).transpose(order)), Quantization(scale)


def _bias(tensor: Tensor, array: np.ndarray, integer: bool) -> np.ndarray:
    """The bias as f32, or as it is for a quantized layer."""
    if not integer:
        return dequantized(tensor, array)
    if array.dtype != np.int32:
        raise Unsupported(f"a bias of {array.dtype} in a quantized layer; int32 is supported")
    return array


def _window(layer: Layer) -> dict[str, Any]:
    return {
        "stride": layer.pair("stride"),
        "padding": layer.options["padding"],
        "dilation": layer.pair("dilation"),
    }


def _rank(tensor: Tensor, rank: int) -> Tensor:
    if len(tensor.shape) != rank:
        raise Unsupported(f"an operand {list(tensor.shape)}; {rank} axes are supported")
    return tensor
