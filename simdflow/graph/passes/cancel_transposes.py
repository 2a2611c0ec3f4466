"""Transposes are moved toward the outputs until they meet their inverses.

Turns `op(transpose(x))` into `transpose(op(x))` for every op that works on each element, or on axes
that can be renamed, so that a network written in NCHW, imported with a transpose on either side of
each convolution, is left with those at its ends. Weights of a dense layer after a flattened
transpose are permuted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ... import ops
from ...ops import Quantization
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, over, rewrite
from .regroup import Blocks, gathered, long, regrouped
from .simplify import simplify, stays

Axes = tuple[int, ...]
UNARY = frozenset((
    "abs", "cast", "ceil", "clip", "dequantize", "elu", "erf", "exp", "floor", "gelu",
    "hard_sigmoid", "hardswish", "leaky_relu", "log", "neg", "pow", "quantize", "reciprocal",
    "relu", "relu6", "requantize", "round", "rsqrt", "sigmoid", "silu", "softplus", "sqrt",
    "square", "tanh",
))  # fmt: skip
BROADCAST = frozenset((
    "add", "div", "equal", "greater", "less", "maximum", "minimum", "mul", "prelu", "sub", "where",
))  # fmt: skip
REDUCTIONS = frozenset(("reduce_max", "reduce_mean", "reduce_min", "reduce_sum"))
ROWS = frozenset(("batch_norm", "layer_norm", "softmax"))


def cancel_transposes(graph: Graph) -> Graph:
    """The graph with its transposes moved and cancelled, if that costs less; else as it was.

    Values stay the same bits (a mean sums in another order: f32 rounding).
    """
    found = graph
    for split in (False, True):
        moved = simplify(rewrite(graph, partial(_sunk, split=split)))
        found = moved if cost(moved) < cost(found) else found
    return found


def cost(graph: Graph) -> tuple[int, int]:
    """(bytes that the graph's transposes write, twice where they do not move whole rows; how many
    there are).
    """
    total, count = 0, 0
    for node in graph.nodes:
        if op_of(node) == "transpose":
            count += 1
            shape, axes = graph.values[str(node.inputs[0])].type.shape, node.options["axes"]
            kind = graph.values[node.output].type
            if not stays(shape, axes):
                rows = [a for a in axes if shape[a] != 1][-1] == long(shape)[-1]
                total += kind.size * kind.scalar.dtype.itemsize * (1 if rows else 2)
    return total, count


def inverse(axes: Axes) -> Axes:
    """The transpose that undoes one."""
    return tuple(int(a) for a in np.argsort(axes))


def _sunk(at: Rewrite, node: Node, split: bool) -> str | None:
    """What takes the place of a node; `split`: a transpose may become two at a reshape."""
    op = op_of(node)
    if op == "reshape":
        return _reshaped(at, node, split)
    for names, rule in RULES:
        if op in names:
            return rule(at, node)
    return None


def _turned(at: Rewrite, name: str | None) -> tuple[str, Axes] | None:
    """(source, axes) of a value that is a transpose."""
    made = at.maker(name, "transpose")
    return None if made is None else (str(made.inputs[0]), tuple(made.options["axes"]))


def _put(at: Rewrite, value: str, axes: Axes) -> str:
    """The present node's value as the transpose of `value`."""
    if axes == tuple(range(len(axes))):
        return value
    return at.replaced(ops.transpose, value, axes=axes)


def _back(at: Rewrite, value: str, axes: Axes) -> str:
    """`value` transposed back: a source that `axes` would turn into it."""
    turned = _turned(at, value)
    if turned is not None and turned[1] == axes:
        return turned[0]
    array = at.array(value)
    if array is None:
        return at.call(ops.transpose, value, axes=inverse(axes))
    if array.size == 1:
        return value
    full = array.reshape((1,) * (len(axes) - array.ndim) + array.shape).transpose(inverse(axes))
    short = full.shape
    while len(short) > 1 and short[0] == 1:
        short = short[1:]
    return at.constant(value, full.reshape(short), at.values[value].quantization)


def _transposed(at: Rewrite, node: Node) -> str | None:
    turned = _turned(at, node.inputs[0])
    if turned is None:
        return None
    source, inner = turned
    return _put(at, source, tuple(inner[a] for a in node.options["axes"]))


def _unary(at: Rewrite, node: Node) -> str | None:
    turned = _turned(at, node.inputs[0])
    if turned is None:
        return None
    source, axes = turned
    by_channel = any(
        isinstance(q, Quantization) and q.scales.size > 1 for q in node.options.values()
    )
    if by_channel and axes[-1] != len(axes) - 1:
        return None
    return _put(at, at.call(node.function, source, **node.options), axes)


def _rows(at: Rewrite, node: Node) -> str | None:
    """Ops along the last axis, which stays the last."""
    turned = _turned(at, node.inputs[0])
    if turned is None or turned[1][-1] != len(turned[1]) - 1:
        return None
    source, axes = turned
    return _put(at, at.call(node.function, source, *node.inputs[1:], **node.options), axes)


def _together(at: Rewrite, node: Node) -> Axes | None:
    """How the operands of a node are transposed, if that is more bytes than are not."""
    rank = len(at.old.values[node.output].type.shape)
    bytes_of: dict[Axes, int] = {}
    others: list[tuple[str, int]] = []
    for name in node.reads:
        kind = at.values[name].type
        size = kind.size * kind.scalar.dtype.itemsize
        turned = _turned(at, name)
        if turned is not None and len(turned[1]) == rank:
            bytes_of[turned[1]] = bytes_of.get(turned[1], 0) + size
        elif kind.size > 1 and name not in at.constants:
            if len(kind.shape) != rank:
                return None
            others.append((name, size))
    if not bytes_of:
        return None
    best = max(bytes_of, key=lambda axes: bytes_of[axes])
    total = sum(bytes_of.values())
    total += sum(size for name, size in others if not _known(at, name, best))
    return best if 2 * bytes_of[best] > total else None


def _known(at: Rewrite, name: str, axes: Axes) -> bool:
    """Whether the transpose back of a value has been made already."""
    return any(
        op_of(n) == "transpose" and tuple(n.options["axes"]) == inverse(axes)
        for n in at.readers(name)
    )


def _broadcast(at: Rewrite, node: Node) -> str | None:
    axes = _together(at, node)
    if axes is None:
        return None
    sources = [
        i if i is None or at.values[i].type.size == 1 else _back(at, i, axes) for i in node.inputs
    ]
    return _put(at, at.call(node.function, *sources, **node.options), axes)


def _concat(at: Rewrite, node: Node) -> str | None:
    axes = _together(at, node)
    if axes is None:
        return None
    sources = [
        at.constant(str(i), at.constants[str(i)].transpose(inverse(axes)))
        if i in at.constants
        else _back(at, str(i), axes)
        for i in node.inputs
    ]
    axis = axes[node.options["axis"]]
    return _put(at, at.call(node.function, *sources, **(dict(node.options) | {"axis": axis})), axes)


def _by_axis(*names: str) -> Callable[[Rewrite, Node], str | None]:
    """The rule of an op whose options `names` hold one entry for each axis."""

    def rule(at: Rewrite, node: Node) -> str | None:
        turned = _turned(at, node.inputs[0])
        if turned is None or any(len(node.options[n]) != len(turned[1]) for n in names):
            return None
        source, axes = turned
        back = inverse(axes)
        options = {n: tuple(node.options[n][a] for a in back) for n in names}
        return _put(at, at.call(node.function, source, **(dict(node.options) | options)), axes)

    return rule


def _reduction(at: Rewrite, node: Node) -> str | None:
    turned = _turned(at, node.inputs[0])
    if turned is None:
        return None
    source, axes = turned
    rank = len(axes)
    gone = {axes[a] for a in over(node, rank)}
    options = dict(node.options) | {"axes": tuple(sorted(gone))}
    value = at.call(node.function, source, **options)
    if node.options.get("keepdims"):
        return _put(at, value, axes)
    left = sorted(set(range(rank)) - gone)
    return _put(at, value, tuple(left.index(a) for a in axes if a not in gone))


def _reshaped(at: Rewrite, node: Node, split: bool) -> str | None:
    turned = _turned(at, node.inputs[0])
    if turned is None:
        return None
    source, axes = turned
    wanted = at.old.values[node.output].type.shape
    found = regrouped(at.shape(source), axes, wanted)
    if found is None and split:
        first = gathered(at.shape(source), axes, wanted)
        if first is not None:
            source = at.call(ops.transpose, source, axes=first)
            found = regrouped(at.shape(source), tuple(first.index(a) for a in axes), wanted)
    if found is None:
        return None
    shape, after = found
    if after == tuple(range(len(after))):
        return at.replaced(ops.reshape, source, shape=shape)
    return _put(at, at.call(ops.reshape, source, shape=shape), after)


def _product(at: Rewrite, node: Node) -> str | None:
    """A matmul reads a matrix that is stored transposed, if only its last two axes are."""
    inputs, options = list(node.inputs), dict(node.options)
    for k, flag in enumerate(("transpose_a", "transpose_b")):
        turned = _turned(at, inputs[k])
        if turned is None:
            continue
        source, axes = turned
        last = len(axes) - 1
        swapped = (*axes[:-2], axes[-1], axes[-2])
        if swapped == tuple(range(len(axes))):
            inputs[k] = source
        elif swapped[-1] == last != axes[-1]:
            inputs[k] = at.call(ops.transpose, source, axes=swapped)  # whole rows move
        else:
            continue
        options[flag] = not options.get(flag, False)
    return None if inputs == list(node.inputs) else at.replaced(ops.matmul, *inputs, **options)


def _flattened(at: Rewrite, node: Node) -> str | None:
    """dense(flatten(transpose(x)), w) as dense(flatten(x), w'), the rows of w in the order of x."""
    chain: list[Node] = []
    made = at.maker(node.inputs[0])
    while made is not None and op_of(made) in UNARY and len(made.reads) == 1:
        chain.append(made)
        made = at.maker(made.inputs[0])
    if made is None or op_of(made) != "reshape":
        return None
    turned = _turned(at, made.inputs[0])
    if turned is None:
        return None
    source, axes = turned
    flat = at.shape(made.output)
    order = _rows_of(at.shape(source), axes, flat)
    w = None if order is None else _permuted(at, str(node.inputs[1]), order)
    if w is None:
        return None
    value = at.call(ops.reshape, source, shape=flat)
    for link in reversed(chain):
        value = at.call(link.function, value, **link.options)
    return at.replaced(ops.dense, value, w, *node.inputs[2:], **node.options)


def _rows_of(shape: Axes, axes: Axes, flat: Axes) -> np.ndarray | None:
    """Which rows of the weights come in turn, if the last axis of `flat` holds all axes that
    move.
    """
    blocks = Blocks.of(tuple(shape[a] for a in axes), flat)
    if blocks is None or len(blocks.outer[-1]) != 1:
        return None
    first = min(blocks.inner[-1], default=0)
    if axes[:first] != tuple(range(first)):
        return None
    inside = tuple(shape[a] for a in axes[first:])
    places = np.arange(flat[-1]).reshape(inside)
    return places.transpose(inverse(tuple(a - first for a in axes[first:]))).reshape(-1)


def _permuted(at: Rewrite, w: str, order: np.ndarray) -> str | None:
    """Constant weights with their rows in another order, dequantized or not."""
    if w in at.constants:
        return at.constant(w, at.constants[w][order], at.values[w].quantization)
    made = at.maker(w, "dequantize")
    stored = None if made is None else at.array(made.inputs[0])
    if made is None or stored is None:
        return None
    rows = at.constant(str(made.inputs[0]), stored[order])
    return at.call(ops.dequantize, rows, **made.options)


Rule = Callable[[Rewrite, Node], str | None]
RULES: Sequence[tuple[frozenset[str], Rule]] = (
    (frozenset({"transpose"}), _transposed),
    (UNARY, _unary),
    (BROADCAST, _broadcast),
    (ROWS, _rows),
    (REDUCTIONS, _reduction),
    (frozenset({"concat"}), _concat),
    (frozenset({"slice"}), _by_axis("starts", "stops", "steps")),
    (frozenset({"pad"}), _by_axis("pads")),
    (frozenset({"expand"}), _by_axis("shape")),
    (frozenset({"matmul"}), _product),
    (frozenset({"dense"}), _flattened),
)
