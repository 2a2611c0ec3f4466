"""QDQ lowering: f32 layers between dequantize and quantize become 8-bit layers.

Turns `quantize(relu(conv2d(dequantize(x), dequantize(w), b)))` into one conv2d with `x_q`, `w_q`,
`y_q` and the rounding of ONNX, and sums, products, means and activations likewise where the op has
a quantized form. What has none, or has weights with a zero point, stays float.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dsl.types import Scalar, i32
from ...ops import Op, Quantization
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite
from .carry_integers import stored
from .fuse_activation import NAMES, limits

PRODUCTS = ("conv2d", "dense", "depthwise_conv2d")
SUMS = ("add", "mul", "sub")
# One operand, the quantizations x_q and y_q.
TABLES = (
    "clip",
    "gelu",
    "global_avg_pool2d",
    "hardswish",
    "leaky_relu",
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
)


def lower_quantization(graph: Graph) -> Graph:
    """The graph with 8-bit layers in the place of float ones between integers.

    A product keeps its definition: the exact i32 sum, dequantized and quantized in f32
    (`requantize_onnx`), where the float layer rounds each product; so results differ by at most one
    step where a value lies at a half. Sums and products of two activations follow XNNPACK's fixed
    point, means and tables TensorFlow Lite's rule: one step too. A bias is rounded to i32 at the
    scale of the products.
    """
    return rewrite(graph, _lowered)


def _lowered(at: Rewrite, node: Node) -> str | None:
    if op_of(node) != "quantize" or node.options["y_q"].scales.size != 1:
        return None
    y_q: Quantization = node.options["y_q"]
    kind = at.old.values[node.output].type.scalar
    layer, activation = at.only(node.inputs[0]), None
    clamp = None if layer is None else limits(layer)
    if layer is not None and clamp in NAMES:
        before = at.only(layer.inputs[0], *PRODUCTS, *SUMS)
        if before is not None and before.options.get("activation") in (None, "none"):
            layer, activation = before, NAMES[clamp]
    if layer is None or not isinstance(layer.function, Op):
        return None
    options = {k: v for k, v in layer.options.items() if k != "algorithm"}  # one of f32
    if activation is not None:
        options["activation"] = activation
    for names, rule in (
        (PRODUCTS, _product),
        (SUMS, _sum),
        (TABLES, _table),
        (("avg_pool2d", "max_pool2d", "resize_bilinear"), _mean),
        (("softmax",), _softmax),
    ):
        if op_of(layer) in names:
            return rule(at, layer, options, y_q, kind)
    return None


def _product(
    at: Rewrite, layer: Node, options: dict[str, Any], y_q: Quantization, kind: Scalar
) -> str | None:
    x = stored(at, layer.inputs[0])
    w = _weights(at, str(layer.inputs[1]))
    if x is None or w is None:
        return None
    array, w_q = w
    if w_q.scales.size not in (1, array.shape[-1]):
        return None
    name = layer.inputs[2] if len(layer.inputs) > 2 else None
    bias = _bias(at, name, x[1], w_q, array)
    if bias is None:
        return None
    inputs = [x[0], at.constant(str(layer.inputs[1]), array, w_q)]
    if name is not None:
        inputs.append(at.constant(name, bias))
    return at.replaced(
        layer.function,
        *inputs,
        **options | {"x_q": x[1], "w_q": w_q, "y_q": y_q, "y_type": kind, "rounding": "onnx"},
    )


def _weights(at: Rewrite, name: str) -> tuple[np.ndarray, Quantization] | None:
    """i8 weights without a zero point, and their scales; u8 around 128 are those."""
    made = at.maker(name, "dequantize")
    array = None if made is None else at.array(made.inputs[0])
    if made is None or array is None:
        return None
    q: Quantization = made.options["x_q"]
    if array.dtype == np.int8 and q.zero_point == 0:
        return array, q
    if array.dtype == np.uint8 and q.zero_point == 128:
        return (array ^ 128).view(np.int8), Quantization(q.scales)
    return None


def _bias(
    at: Rewrite, name: str | None, x_q: Quantization, w_q: Quantization, w: np.ndarray
) -> np.ndarray | None:
    """The bias in i32, at the scale of the products; None if it is not constant, or a sum with it
    can leave i32. Zeros without a bias.
    """
    scale = x_q.scales.astype(np.float64) * w_q.scales
    made = at.maker(name, "dequantize")
    real: Any = np.zeros(1)
    if made is not None:
        array, q = at.array(made.inputs[0]), made.options["x_q"]
        if array is None:
            return None
        real = (array.astype(np.float64) - q.zero_point) * q.scales
    elif name is not None:
        real = at.array(name)
        if real is None:
            return None
    found = np.rint(real / scale)
    depth = w.size // w.shape[-1]
    if not np.isfinite(found).all() or abs(found).max() + depth * 255 * 128 > i32.high:
        return None
    return np.asarray(found, np.int32)


def _sum(
    at: Rewrite, layer: Node, options: dict[str, Any], y_q: Quantization, kind: Scalar
) -> str | None:
    a, b = (stored(at, i) for i in layer.inputs)
    if a is None or b is None or any(at.values[i].type.scalar != kind for i, _ in (a, b)):
        return None
    return at.replaced(
        layer.function, a[0], b[0], **options | {"a_q": a[1], "b_q": b[1], "y_q": y_q}
    )


def _table(
    at: Rewrite, layer: Node, options: dict[str, Any], y_q: Quantization, kind: Scalar
) -> str | None:
    x = stored(at, layer.inputs[0])
    if x is None or at.values[x[0]].type.scalar != kind:
        return None
    return at.replaced(layer.function, x[0], **options | {"x_q": x[1], "y_q": y_q})


def _mean(
    at: Rewrite, layer: Node, options: dict[str, Any], y_q: Quantization, kind: Scalar
) -> str | None:
    """Means and maxima of neighbours keep the scale of the input, so it must be the result's."""
    x = stored(at, layer.inputs[0])
    if x is None or x[1] != y_q or at.values[x[0]].type.scalar != kind:
        return None
    if layer.op != "resize_bilinear":
        options["y_q"] = y_q
    return at.replaced(layer.function, x[0], **options)


def _softmax(
    at: Rewrite, layer: Node, options: dict[str, Any], y_q: Quantization, kind: Scalar
) -> str | None:
    """The quantized softmax has one scale, 1/256, and the least value as its zero point."""
    x = stored(at, layer.inputs[0])
    if x is None or at.values[x[0]].type.scalar != kind:
        return None
    if y_q != Quantization(1 / 256, int(kind.low)):
        return None
    return at.replaced(layer.function, x[0], **options | {"x_q": x[1]})
