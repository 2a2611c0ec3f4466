"""Integers are carried through moves: a dequantize goes after them, a quantize before.

Turns `transpose(dequantize(x))` into `dequantize(transpose(x))` and `quantize(reshape(x))` into
`reshape(quantize(x))`, for every op that only moves or compares elements, so that the two meet, or
stand next to the layers that `lower_quantization` is to find. Values stay the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ... import ops
from ...dsl.types import f32
from ...ops import Quantization
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite
from .simplify import simplify

MOVES = (
    "depth_to_space",
    "expand",
    "gather",
    "max_pool2d",
    "pad",
    "reshape",
    "resize_nearest",
    "slice",
    "space_to_depth",
    "transpose",
)
# How many moves in a row a quantize is carried over: files may have any number.
DEPTH = 32


def carry_integers(graph: Graph) -> Graph:
    """The graph with moves done on 8-bit values instead of their f32 meanings.

    A quantize of a dequantize becomes a requantize, or nothing where both say the same.
    """
    return simplify(rewrite(simplify(rewrite(graph, _after)), _before))


def stored(at: Rewrite, name: str | None) -> tuple[str, Quantization] | None:
    """(8-bit value, what it means) of a value that is a dequantize with one scale."""
    made = at.maker(name, "dequantize")
    if made is None:
        return None
    q: Quantization = made.options["x_q"]
    return (str(made.inputs[0]), q) if q.scales.size == 1 else None


def _after(at: Rewrite, node: Node) -> str | None:
    """Moves of dequantized values, the dequantize after them."""
    op = op_of(node)
    if op == "concat":
        return _concatenated(at, node)
    if op not in MOVES:
        return None
    found = stored(at, node.inputs[0])
    if found is None:
        return None
    x, q = found
    options = _stored_options(at, node, x, q)
    if options is None:
        return None
    value = at.call(node.function, x, *node.inputs[1:], quantization=q, **options)
    return at.replaced(ops.dequantize, value, x_q=q)


def _concatenated(at: Rewrite, node: Node) -> str | None:
    found = [stored(at, i) for i in node.inputs]
    parts = [f for f in found if f is not None]
    if len(parts) != len(found) or any(q != parts[0][1] for _, q in parts):
        return None
    if len({at.values[x].type.scalar for x, _ in parts}) != 1:
        return None
    q = parts[0][1]
    value = at.call(node.function, *(x for x, _ in parts), quantization=q, **node.options)
    return at.replaced(ops.dequantize, value, x_q=q)


def _before(at: Rewrite, node: Node) -> str | None:
    """Quantized moves, the quantize before them."""
    if op_of(node) != "quantize":
        return None
    q: Quantization = node.options["y_q"]
    if q.scales.size != 1:
        return None
    return _raised(at, node, str(node.inputs[0]), q)


def _raised(at: Rewrite, node: Node, x: str, q: Quantization, depth: int = DEPTH) -> str | None:
    """`x` quantized as `node` does it, by quantizing what it is made of; None if it is no move."""
    kind = at.old.values[node.output].type.scalar
    found = stored(at, x)
    if found is not None:
        value, before = found
        if before == q and at.values[value].type.scalar == kind:
            return value
        if node.options.get("rounding", "onnx") != "onnx":
            return None  # a rule of its own, which no requantize has
        rule: dict[str, Any] = {"x_q": before, "y_q": q, "y_type": kind, "rounding": "onnx"}
        return at.call(ops.requantize, value, quantization=q, **rule)
    made = at.only(x, "concat", *MOVES)
    if made is None or op_of(made) == "gather" or not depth:
        return None
    parts = [str(i) for i in (made.inputs if op_of(made) == "concat" else made.inputs[:1])]
    values = [
        _raised(at, node, part, q, depth - 1)
        or at.call(ops.quantize, part, quantization=q, **dict(node.options))
        for part in parts
    ]
    options = _stored_options(at, made, values[0], q)
    if options is None:
        return None
    return at.call(made.function, *values, quantization=q, **options)


def _stored_options(at: Rewrite, node: Node, x: str, q: Quantization) -> Mapping[str, Any] | None:
    """The options of a move when it is done on 8-bit values; None if they have none."""
    op, kind = op_of(node), at.values[x].type.scalar
    if op == "pad":
        real = np.float32(node.options.get("value", 0)) / q.single
        if not np.isfinite(real):
            return None
        value = int(np.rint(real)) + q.zero_point
        if np.float32(value - q.zero_point) != real or not kind.low <= value <= kind.high:
            return None
        return dict(node.options) | {"value": value}
    if op == "max_pool2d" and node.options.get("activation") not in (None, "none"):
        return None
    if kind == f32:
        return None
    return node.options
