"""The small ops of a layer norm, as PyTorch and TensorFlow write them.

Turns (x - mean) / sqrt(variance + epsilon) and what multiplies and shifts it into one layer_norm.
"""

from __future__ import annotations

import numpy as np

from ... import ops
from ..graph import Node
from ..rewrite import Rewrite, op_of, over
from .factors import addend, product


def normalized(at: Rewrite, node: Node) -> str | None:
    """A div or mul that divides by a deviation; a mul or add of a layer_norm by a row of constants.

    One node a time: first layer_norm(x), then with its gain, then with its bias.
    """
    if node.options.get("activation") not in (None, "none"):
        return None
    a, b = (str(i) for i in node.inputs)
    if op_of(node) == "div":
        return _whitened(at, a, b, inverse=False)
    if op_of(node) == "mul":
        whitened = _whitened(at, a, b, inverse=True) or _whitened(at, b, a, inverse=True)
        if whitened is not None:
            return whitened
    for x, other in ((a, b), (b, a)):
        made, row = at.only(x, "layer_norm"), _row(at, other, at.shape(x))
        if made is None or row is None:
            continue
        gain, bias = (*made.inputs[1:], None, None)[:2]
        if op_of(node) == "mul" and gain is None and bias is None:
            return at.replaced(ops.layer_norm, made.inputs[0], row, None, **made.options)
        if op_of(node) == "add" and bias is None:
            return at.replaced(ops.layer_norm, made.inputs[0], gain, row, **made.options)
    return None


def _row(at: Rewrite, name: str, shape: tuple[int, ...]) -> str | None:
    """A constant row [n] for the last axis of `shape`."""
    array = at.array(name)
    if array is None or not shape or array.dtype != np.float32 or array.ndim > len(shape):
        return None
    if array.shape[-1:] != shape[-1:] or array.size != shape[-1]:
        return None
    return at.constant(name, array.reshape(-1))


def _whitened(at: Rewrite, centred: str, divisor: str, inverse: bool) -> str | None:
    """layer_norm(x) of x - mean and its deviation, or one over it."""
    less = at.maker(centred, "sub")
    if less is None:
        return None
    x, mean = (str(i) for i in less.inputs)
    if _mean_of(at, mean) != x:
        return None
    root = at.maker(divisor, "rsqrt" if inverse else "sqrt")
    if root is None and inverse:
        upside = at.maker(divisor, "reciprocal")
        root = None if upside is None else at.maker(upside.inputs[0], "sqrt")
    plus = None if root is None else addend(at, root.inputs[0])
    if plus is None or plus[1] < 0:
        return None
    variance = _mean_of(at, plus[0])
    square = None if variance is None else product(at, variance)
    if square is None or (square.constant, square.factors) != (1, (centred, centred)):
        return None
    return at.replaced(ops.layer_norm, x, epsilon=plus[1])


def _mean_of(at: Rewrite, name: str) -> str | None:
    """x, if `name` is its mean along the last axis, which stays with one element."""
    made = at.maker(name, "reduce_mean")
    if made is None or not made.options.get("keepdims"):
        return None
    x = str(made.inputs[0])
    rank = len(at.shape(x))
    return x if over(made, rank) == (rank - 1,) else None
