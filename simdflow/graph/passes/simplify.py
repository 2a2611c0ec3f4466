"""Simplification: nodes that change nothing, or that another node does already.

Removes moves to the same place and arithmetic with 0 and 1, merges chains of reshapes and of
transposes, and computes equal nodes once. `still_transposes` also turns transposes that move only
axes of one element into reshapes. Values stay the same bits (x + 0 loses the sign of -0).
"""

from __future__ import annotations

import math
from typing import Any

from ... import ops
from ...dsl.types import f32
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite, settled

# x + 0, x - 0, x * 1, x / 1
NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "div": 1}


def simplify(graph: Graph) -> Graph:
    """The graph without nodes that only copy, and with equal nodes joined."""
    return _joined(settled(graph, _simpler))


def still_transposes(graph: Graph) -> Graph:
    """`simplify`, with transposes that move no element as reshapes: no pass after it looks for
    their inverses.
    """
    return simplify(rewrite(graph, _still))


def _still(at: Rewrite, node: Node) -> str | None:
    x = node.inputs[0] if op_of(node) == "transpose" else None
    if x is None or not stays(at.shape(x), tuple(node.options["axes"])):
        return None
    return at.replaced(ops.reshape, x, shape=_shape(at, node))


def _simpler(at: Rewrite, node: Node) -> str | None:
    op, x = op_of(node), node.inputs[0] if node.inputs else None
    if x is None:
        return None
    if _copies(at, node, op, x):
        return x
    if op == "reshape":
        before = at.maker(x, "reshape")
        if before is not None:
            return at.again(node, {0: str(before.inputs[0])}, shape=_shape(at, node))
        return _unwrapped(at, node, x)
    if op in NEUTRAL:
        return _neutral(at, node, op)
    if op == "transpose":
        before = at.maker(x, "transpose")
        axes = tuple(node.options["axes"])
        if before is not None:
            inner = tuple(before.options["axes"])
            axes = tuple(inner[a] for a in axes)
            return at.replaced(ops.transpose, before.inputs[0], axes=axes)
    return None


def _unwrapped(at: Rewrite, node: Node, x: str) -> str | None:
    """reshape(softmax(reshape(x))) as softmax(x), where only the axes before the rows differ."""
    rows = at.only(x, "layer_norm", "softmax")
    before = None if rows is None else at.maker(rows.inputs[0], "reshape")
    if rows is None or before is None:
        return None
    source = str(before.inputs[0])
    if at.shape(source) != _shape(at, node) or at.shape(x)[-1] != at.shape(source)[-1]:
        return None
    return at.replaced(rows.function, source, *rows.inputs[1:], **rows.options)


def _neutral(at: Rewrite, node: Node, op: str) -> str | None:
    """The operand of f32 arithmetic with 0 or 1 that changes nothing."""
    a, b = (str(i) for i in node.inputs)
    kind = at.old.values[node.output].type
    if kind.scalar != f32 or node.options.get("activation") not in (None, "none"):
        return None
    for x, c in ((a, b), (b, a)) if op in ("add", "mul") else ((a, b),):
        array = at.array(c)
        if array is not None and at.shape(x) == kind.shape and (array == NEUTRAL[op]).all():
            return x
    return None


def _shape(at: Rewrite, node: Node) -> tuple[int, ...]:
    return at.old.values[node.output].type.shape


def stays(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    """Whether a transpose moves no element: its axes of more than one keep their order."""
    long = [a for a in axes if shape[a] != 1]
    return long == sorted(long)


def _copies(at: Rewrite, node: Node, op: str, x: str) -> bool:
    """Whether a node gives back its first input as it is."""
    before, after = at.values[x].type, at.old.values[node.output].type
    if (before.scalar, before.shape) != (after.scalar, after.shape):
        return False
    options = node.options
    if op == "transpose":
        return tuple(options["axes"]) == tuple(range(len(before.shape)))
    if op == "slice":
        return all(step == 1 for step in options["steps"])
    if op == "concat":
        return len(node.inputs) == 1
    if op == "requantize":
        return bool(options["x_q"] == options["y_q"])
    if op == "clip":
        unbounded = (options["low"], options["high"]) == (-math.inf, math.inf)
        return unbounded and before.scalar == f32
    return op in ("reshape", "expand", "cast", "pad")


def _joined(graph: Graph) -> Graph:
    """Nodes of one function, one set of inputs and equal options, made once."""
    seen: dict[Any, str] = {}

    def rule(at: Rewrite, node: Node) -> str | None:
        key = (node.function, node.inputs, tuple(sorted(_comparable(node))))
        try:
            first = seen.setdefault(key, node.output)
        except TypeError:
            return None  # an option that cannot be compared
        return None if first == node.output else first

    return rewrite(graph, rule)


def _comparable(node: Node) -> list[tuple[str, Any]]:
    """Options as pairs, lists as tuples."""
    return [(k, tuple(v) if isinstance(v, list) else v) for k, v in node.options.items()]
