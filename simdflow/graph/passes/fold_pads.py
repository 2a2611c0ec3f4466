"""Pads become the padding of the convolution or pool that reads them.

Turns `conv2d(pad(x), w, padding=0)` into `conv2d(x, w, padding=pads)` where the pad's value is what
the layer's own border holds: 0, the zero point of the input, or less than every element for a
maximum.
"""

from __future__ import annotations

import math
from typing import Any

from ...dsl.types import OperandType, f32
from ...ops.window import Pads, window
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


def fold_pads(graph: Graph) -> Graph:
    """The graph with pads of height and width moved into the layers after them; same values."""
    return rewrite(graph, _folded)


def _folded(at: Rewrite, node: Node) -> str | None:
    op = op_of(node)
    if op not in (*CONVOLUTIONS, "avg_pool2d", "max_pool2d"):
        return None
    pad = at.maker(node.inputs[0], "pad")
    if pad is None:
        return None
    pads = tuple((int(a), int(b)) for a, b in pad.options["pads"])
    x, padded = str(pad.inputs[0]), at.values[str(node.inputs[0])].type
    own = padding_of(at, node)
    if pads[0] != (0, 0) or pads[3] != (0, 0):
        return None
    if not _is_border(op, node, padded, float(pad.options.get("value", 0)), own):
        return None
    both = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads[1:3], own, strict=True))
    options: dict[str, Any] = {"padding": both}
    if op == "avg_pool2d":
        options["count_include_pad"] = True
    if op.endswith("pool2d") and any(max(p) >= k for p, k in zip(both, _kernel(node), strict=True)):
        return None  # a window of a pool holds an element
    return at.again(node, {0: x}, **options)


def _kernel(node: Node) -> tuple[int, int]:
    kernel = node.options["kernel"]
    return (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)


def padding_of(at: Rewrite, node: Node) -> Pads:
    """The padding of a convolution or pool, as numbers of elements."""
    padded = at.values[str(node.inputs[0])].type
    options = node.options
    if "kernel" in options:
        kernel = _kernel(node)
        stride = options.get("stride")
        stride = kernel if stride is None else stride
    else:
        kernel = at.shape(str(node.inputs[1]))[0], at.shape(str(node.inputs[1]))[1]
        stride = options.get("stride", 1)
    found = window(
        node.op, padded, kernel, stride, options.get("padding", 0), options.get("dilation", 1)
    )
    return found.pads


def _is_border(op: str, node: Node, x: OperandType, value: float, own: Pads) -> bool:
    """Whether a pad of `value` is what the layer's border of `x` stands for."""
    if op == "max_pool2d":
        return value == x.scalar.low
    if op == "avg_pool2d":
        # Elements of the pad count; so must those of the layer's own padding, if there are any.
        counted = own == ((0, 0), (0, 0)) or bool(node.options.get("count_include_pad"))
        return x.scalar == f32 and value == 0 and counted and not math.isnan(value)
    q = node.options.get("x_q")
    return value == (0 if q is None else q.zero_point)
