"""Activation fusion: relu, relu6 and clip become the `activation` of the layer before.

Turns `relu(conv2d(x, w, b))` into `conv2d(x, w, b, activation="relu")`, for every op that has the
option, f32 and quantized. A layer that something else reads too keeps its result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...dsl.types import Scalar, f32
from ...ops.quantization import ACTIVATIONS, Quantization, bounds
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite

LAYERS = (
    "add",
    "avg_pool2d",
    "conv2d",
    "dense",
    "depthwise_conv2d",
    "div",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "sub",
)
NAMES = {
    (low, math.inf if high is None else high): name
    for name, (low, high) in ACTIVATIONS.items()
    if low is not None
}


def fuse_activation(graph: Graph) -> Graph:
    """The graph with clamps moved into the layers before them.

    Values stay the same, NaN with them. A quantized clamp is fused where its bounds are those that
    the layer's own rule gives.
    """
    return rewrite(graph, _fused)


def limits(node: Node) -> tuple[float, float] | None:
    """(low, high) of a relu, relu6 or clip; None for others."""
    if op_of(node) == "clip":
        return float(node.options["low"]), float(node.options["high"])
    return {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}.get(op_of(node))


def _fused(at: Rewrite, node: Node) -> str | None:
    clamp = limits(node)
    if clamp is None:
        return None
    layer = at.only(node.inputs[0], *LAYERS)
    if layer is None or layer.options.get("activation") not in (None, "none"):
        return None
    activation = NAMES.get(clamp)
    kind = at.old.values[node.output].type.scalar
    if activation is None or not _same(kind, node.options, layer.options, activation):
        return None
    return at.replaced(
        layer.function, *layer.inputs, **(dict(layer.options) | {"activation": activation})
    )


def _same(
    kind: Scalar, clamp: Mapping[str, Any], layer: Mapping[str, Any], activation: str
) -> bool:
    """Whether the layer's own activation clamps as the node does."""
    if kind == f32:
        return True
    y, before, after = layer.get("y_q"), clamp.get("x_q"), clamp.get("y_q")
    if not (isinstance(y, Quantization) and y == before == after):
        return False
    own = bounds(activation, y, kind, layer.get("rounding", "tflite"))
    return own == bounds(activation, y, kind, "tflite")
