"""Batch norms, factors and offsets for each channel become part of a layer beside them.

Turns `batch_norm(conv2d(x, w, b), ...)`, and `mul`, `div`, `add` or `sub` with one constant a
channel before or after a conv2d, depthwise_conv2d or dense, into that layer with other weights and
another bias. f32 only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...dsl.types import f32
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite
from .fold_pads import padding_of

LAYERS = ("conv2d", "dense", "depthwise_conv2d")
Reals = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """`scale * x + offset`, each one value or one for each entry of the last axis of `x`."""

    x: str
    scale: Reals
    offset: Reals
    activation: str | None

    @property
    def single(self) -> bool:
        """Whether all entries have the same factor and offset."""
        return self.scale.size == self.offset.size == 1


def fold_batch_norm(graph: Graph) -> Graph:
    """The graph with per-channel affine maps folded into weights.

    After a layer, y = s * x + t: w'[..., c] = w[..., c] * s[c], b'[c] = b[c] * s[c] + t[c]; an
    offset alone needs no constant weights. Before it: w'[..., i, c] = s[i] * w[..., i, c] and, if
    it has no padding, b'[c] = b[c] + sum of t[i] * w[..., i, c]. Computed in float64 and rounded
    once to f32.
    """
    with np.errstate(all="ignore"):  # what is not finite stays as it is
        return rewrite(rewrite(graph, _after), _before)


def _after(at: Rewrite, node: Node) -> str | None:
    """Maps of a layer's result; one that is the same for all channels also past moves."""
    found = _affine(at, node)
    if found is None:
        return None
    moves: list[Node] = []
    layer = at.only(found.x, *LAYERS, *(("reshape", "transpose") if found.single else ()))
    while layer is not None and op_of(layer) not in LAYERS:
        moves.append(layer)
        layer = at.only(layer.inputs[0], *LAYERS, "reshape", "transpose")
    if layer is None or not _plain(at, layer):
        return None
    bias, weights = _bias(at, layer), None
    if bias is None:
        return None
    if (found.scale != 1).any():
        array = at.array(layer.inputs[1])
        if array is None:
            return None
        weights = array * found.scale
    folded = _constants(at, layer, weights, bias * found.scale + found.offset)
    if folded is None:
        return None
    options = dict(layer.options) | {"activation": found.activation}
    if not moves:
        return at.replaced(layer.function, layer.inputs[0], *folded, **options)
    value = at.call(layer.function, layer.inputs[0], *folded, **options)
    for move in moves[:0:-1]:
        value = at.call(move.function, value, **move.options)
    return at.replaced(moves[0].function, value, **moves[0].options)


def _before(at: Rewrite, node: Node) -> str | None:
    """Maps of a layer's input, as many as there are."""
    if op_of(node) not in LAYERS or at.values[str(node.inputs[0])].type.scalar != f32:
        return None
    bias, array = _bias(at, node), at.array(node.inputs[1])
    if bias is None or array is None:
        return None
    # The border of an input is 0, which an offset would move.
    bordered = op_of(node) != "dense" and padding_of(at, node) != ((0, 0), (0, 0))
    x, weights = str(node.inputs[0]), array.astype(np.float64)
    while (found := _read(at, x)) is not None and not (bordered and (found.offset != 0).any()):
        channels = at.shape(x)[-1:]
        offset = _spread(node, np.broadcast_to(found.offset, channels), array)
        bias = bias + (weights * offset).sum(axis=tuple(range(weights.ndim - 1)))
        weights = weights * _spread(node, np.broadcast_to(found.scale, channels), array)
        x = found.x
    folded = None if x == node.inputs[0] else _constants(at, node, weights, bias)
    return None if folded is None else at.replaced(node.function, x, *folded, **node.options)


def _read(at: Rewrite, x: str) -> Affine | None:
    """The map that makes `x`, if nothing else reads it."""
    made = at.only(x, "add", "batch_norm", "div", "mul", "sub")
    found = None if made is None else _affine(at, made)
    return found if found is not None and found.activation is None else None


def _spread(node: Node, values: Reals, weights: np.ndarray) -> Reals:
    """One value for each input channel, as it multiplies the weights."""
    if op_of(node) == "dense":
        return values[:, None]
    oc = weights.shape[-1]
    if op_of(node) == "depthwise_conv2d":
        return np.repeat(values, oc // values.size)
    groups = values.size // weights.shape[2]
    return np.repeat(values.reshape(groups, -1), oc // groups, axis=0).T


def _plain(at: Rewrite, layer: Node) -> bool:
    """Whether a layer's result is the f32 sum itself."""
    none = layer.options.get("activation") in (None, "none")
    return none and at.values[layer.output].type.scalar == f32


def _bias(at: Rewrite, layer: Node) -> Reals | None:
    """The bias, 0 if there is none; None if it is no constant."""
    name = layer.inputs[2] if len(layer.inputs) > 2 else None
    if name is None:
        return np.zeros(1)
    array = at.array(name)
    return None if array is None else array.astype(np.float64)


def _constants(
    at: Rewrite, layer: Node, weights: Reals | None, bias: Reals
) -> tuple[str, str | None] | None:
    """New constants for a layer: its weights, if they change, and its bias, if it has or needs one;
    None if a number of them is not finite in f32.
    """
    w, (b, *_) = str(layer.inputs[1]), (*layer.inputs[2:], None)
    changed = None if weights is None else weights.astype(np.float32)
    added = np.broadcast_to(bias, at.shape(w)[-1:]).astype(np.float32)
    if not np.isfinite(added).all() or not (changed is None or np.isfinite(changed).all()):
        return None
    if b is not None or bias.any():
        b = at.constant(b or f"{layer.output}.bias", added)
    return (w if changed is None else at.constant(w, changed)), b


def _affine(at: Rewrite, node: Node) -> Affine | None:
    """A node as the affine map that it is, if it is one."""
    op, one, none = op_of(node), np.ones(1), np.zeros(1)
    activation = node.options.get("activation")
    activation = None if activation == "none" else activation
    if op == "batch_norm":
        arrays = [at.array(i) for i in node.inputs[1:]]
        if len(arrays) != 4 or any(a is None for a in arrays):
            return None
        gain, bias, mean, variance = (np.asarray(a, np.float64) for a in arrays)
        scale = gain / np.sqrt(variance + node.options.get("epsilon", 1e-5))
        return Affine(str(node.inputs[0]), scale, bias - mean * scale, None)
    if op not in ("add", "div", "mul", "sub"):
        return None
    a, b = (str(i) for i in node.inputs)
    for x, other in ((a, b), (b, a)):
        c = channel(at, other, at.shape(x))
        if c is None or x in at.constants:
            continue
        if op == "mul":
            return Affine(x, c, none, activation)
        if op == "div":
            return Affine(x, 1 / c, none, activation) if x == a and (c != 0).all() else None
        if op == "add":
            return Affine(x, one, c, activation)
        return Affine(x, one if x == a else -one, -c if x == a else c, activation)
    return None


def channel(at: Rewrite, name: str, shape: tuple[int, ...]) -> Reals | None:
    """A constant f32 as one value, or one for each entry of the last axis of `shape`, in float64;
    None for other constants.
    """
    array = at.array(name)
    if array is None or array.dtype != np.float32 or array.ndim > len(shape) or not shape:
        return None
    if array.size == 1:
        return array.reshape(1).astype(np.float64)
    if array.shape[-1] == array.size == shape[-1]:
        return array.reshape(-1).astype(np.float64)
    return None
