"""Patterns that exporters write out in small ops become the one op they are.

Turns mean, difference, square, mean, root and quotient into layer_norm; exp and its share into
softmax; products with erf, tanh and sigmoid into gelu and silu; x * relu6(x + 3) / 6 into
hardswish; means over height and width into global_avg_pool2d; matmul by a constant into dense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ... import ops
from ...dsl.types import f32
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, over, rewrite
from .factors import addend, product, scalar
from .layer_norm import normalized

# Exporters write square roots of constants in f32, with more or fewer digits.
CLOSE = 1e-4


def recognize(graph: Graph) -> Graph:
    """The graph with the ops that its small ones spell out; f32 results within rounding.

    Each rule looks at the last node of a pattern, so the small ones stay where others read them.
    """
    return rewrite(graph, _known)


def _known(at: Rewrite, node: Node) -> str | None:
    rules = RULES.get(op_of(node), ())
    if at.old.values[node.output].type.scalar != f32:
        return None
    return next((found for rule in rules if (found := rule(at, node)) is not None), None)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=CLOSE)


def _gated(at: Rewrite, node: Node) -> str | None:
    """c * x * g(x): gelu, silu or hardswish."""
    found = product(at, node.output, node)
    if len(found.factors) != 2:
        return None
    for x, gate in (found.factors, found.factors[::-1]):
        made = at.maker(gate)
        if made is None:
            continue
        for rule in (_silu, _hardswish, _gelu):
            done = rule(at, x, made, found.constant)
            if done is not None:
                return done
    return None


def _silu(at: Rewrite, x: str, gate: Node, constant: float) -> str | None:
    if op_of(gate) == "sigmoid" and gate.inputs[0] == x and constant == 1:
        return at.replaced(ops.silu, x)
    return None


def _hardswish(at: Rewrite, x: str, gate: Node, constant: float) -> str | None:
    if op_of(gate) == "hard_sigmoid":
        alpha, beta = float(gate.options.get("alpha", 0)), float(gate.options.get("beta", 0))
        right = gate.inputs[0] == x and _close(alpha, 1 / 6) and _close(beta, 0.5)
        return at.replaced(ops.hardswish, x) if right and constant == 1 else None
    six = op_of(gate) == "relu6" or (
        op_of(gate) == "clip" and (gate.options["low"], gate.options["high"]) == (0, 6)
    )
    if six and _close(constant, 1 / 6) and addend(at, gate.inputs[0]) == (x, 3.0):
        return at.replaced(ops.hardswish, x)
    return None


def _gelu(at: Rewrite, x: str, gate: Node, constant: float) -> str | None:
    """0.5 * x * (1 + erf(x / sqrt(2))), or with tanh of a cubic."""
    plus = addend(at, gate.output)
    inner = None if plus is None or plus[1] != 1 else at.maker(plus[0], "erf", "tanh")
    if inner is None or not _close(constant, 0.5):
        return None
    argument = product(at, str(inner.inputs[0]))
    if len(argument.factors) != 1:
        return None
    (value,) = argument.factors
    if op_of(inner) == "erf":
        right = value == x and _close(argument.constant, math.sqrt(0.5))
        return at.replaced(ops.gelu, x) if right else None
    right = _close(argument.constant, math.sqrt(2 / math.pi)) and _cubic(at, value, x)
    return at.replaced(ops.gelu, x, approximate=True) if right else None


def _cubic(at: Rewrite, value: str, x: str) -> bool:
    """Whether `value` is x + 0.044715 * x^3."""
    made = at.maker(value, "add")
    if made is None:
        return False
    for a, b in (made.inputs, made.inputs[::-1]):
        cube = product(at, str(b))
        if a == x and _close(cube.constant, 0.044715):
            return cube.factors == (x, x, x)
    return False


def _scaled_softmax(at: Rewrite, node: Node) -> str | None:
    """softmax(c * x) with c > 0."""
    found = product(at, str(node.inputs[0]))
    if len(found.factors) != 1 or found.constant <= 0:
        return None
    beta = float(node.options.get("beta", 1.0)) * found.constant
    if found.factors[0] == node.inputs[0] or not (math.isfinite(beta) and beta > 0):
        return None
    return at.again(node, {0: found.factors[0]}, beta=beta)


def _softmax(at: Rewrite, node: Node) -> str | None:
    """exp(x - max x) / sum of it, along the last axis."""
    e, total = (at.maker(i) for i in node.inputs)
    if e is None or total is None or (op_of(e), op_of(total)) != ("exp", "reduce_sum"):
        return None
    last = len(at.shape(e.output)) - 1
    if total.inputs[0] != e.output or not along(total, last):
        return None
    less = at.maker(e.inputs[0], "sub")
    most = None if less is None else at.maker(less.inputs[1], "reduce_max")
    if less is None or most is None or most.inputs[0] != less.inputs[0] or not along(most, last):
        return None
    return at.replaced(ops.softmax, less.inputs[0])


def along(node: Node, last: int) -> bool:
    """Whether a reduction is along the last axis, and keeps it."""
    return over(node, last + 1) == (last,) and bool(node.options.get("keepdims"))


def _mean(at: Rewrite, node: Node) -> str | None:
    """The mean over height and width of [n, h, w, c]."""
    x = str(node.inputs[0])
    shape = at.shape(x)
    if len(shape) != 4 or over(node, 4) != (1, 2):
        return None
    if not node.options.get("keepdims"):
        return at.replaced(ops.global_avg_pool2d, x)
    value = at.call(ops.global_avg_pool2d, x)
    return at.replaced(ops.reshape, value, shape=(shape[0], 1, 1, shape[3]))


def _dense(at: Rewrite, node: Node) -> str | None:
    """matmul(x, w) with one constant matrix w, dequantized or not."""
    if node.options.get("transpose_a"):
        return None
    x, w = (str(i) for i in node.inputs)
    made = at.maker(w, "dequantize")
    constant = w in at.constants or (made is not None and made.inputs[0] in at.constants)
    if not constant or len(at.shape(w)) != 2 or x in at.constants:
        return None
    if node.options.get("transpose_b"):
        array = at.array(w)
        if array is None:
            return None
        w = at.constant(w, np.ascontiguousarray(array.T))
    return at.replaced(ops.dense, x, w)


def _chosen(at: Rewrite, node: Node) -> str | None:
    """where(not c, a, b) as where(c, b, a), "not" being 1 - c between casts."""
    condition, a, b = node.inputs
    back = at.maker(condition, "cast")
    less = None if back is None else at.maker(back.inputs[0], "sub")
    if less is None or scalar(at, less) != (less.inputs[1], 1.0):
        return None
    cast = at.maker(less.inputs[1], "cast")
    compared = None if cast is None else at.maker(cast.inputs[0], "equal", "greater", "less")
    return None if compared is None else at.again(node, {0: compared.output, 1: str(b), 2: str(a)})


def _bound(at: Rewrite, node: Node) -> str | None:
    """max(x, 0) and min(relu(x), 6)."""
    if node.options.get("activation") not in (None, "none"):
        return None
    found = scalar(at, node)
    if found is None:
        return None
    x, c = found
    if op_of(node) == "maximum" and c == 0:
        return at.replaced(ops.relu, x)
    made = at.maker(x, "relu")
    if op_of(node) == "minimum" and c == 6 and made is not None:
        return at.replaced(ops.relu6, made.inputs[0])
    return None


Rule = Callable[[Rewrite, Node], str | None]
RULES: Mapping[str, tuple[Rule, ...]] = {
    "add": (normalized,),
    "div": (_softmax, _gated, normalized),
    "matmul": (_dense,),
    "maximum": (_bound,),
    "minimum": (_bound,),
    "mul": (_gated, normalized),
    "reduce_mean": (_mean,),
    "softmax": (_scaled_softmax,),
    "where": (_chosen,),
}
