"""ONNX operators that normalize or sum along axes: softmax, the norms, the reductions.

Each importer brings the axes to where an op wants them, and composes what has no op of its own by
its definition. f32 only.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .. import ops
from .onnx_call import Call, Importer, Operator, Table
from .onnx_elements import add, div, maximum, mul, number, sub
from .onnx_scope import Tensor, Unsupported, counted


def _last(x: Tensor, axis: int) -> tuple[int, ...]:
    """The order of axes with one moved to the end."""
    return (*(i for i in range(x.rank) if i != axis), axis)


def _back(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(order))


def _along(do: Callable[[Call, Tensor], Tensor]) -> Importer:
    """A softmax-like operator: over one axis, before opset 13 over all axes from one on."""

    def imported(n: Call) -> Tensor:
        x = n.floats(0)
        if n.opset < 13:
            axis = n.integer("axis", 1)
            axis = axis if axis == x.rank else counted(axis, x.rank)
            flat = n.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
            return n.reshape(do(n, flat), x.shape)
        order = _last(x, n.axis(x.rank, -1))
        return n.transpose(do(n, n.transpose(x, order)), _back(order))

    return imported


def _softmax(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.softmax, x)


def _log_softmax(n: Call, x: Tensor) -> Tensor:
    """x - max - log(sum(exp(x - max))): finite where a softmax would be 0."""
    axes = (x.rank - 1,)
    shifted = sub(n, x, n.emit(ops.reduce_max, x, axes=axes, keepdims=True))
    total = n.emit(ops.reduce_sum, n.emit(ops.exp, shifted), axes=axes, keepdims=True)
    return sub(n, shifted, n.emit(ops.log, total))


def _layer_norm(n: Call) -> tuple[Tensor, ...]:
    x, scale, bias = n.floats(0), n.floats(1), n.given(2)
    axis, epsilon = n.axis(x.rank, -1), n.real("epsilon", 1e-5)
    n.one("stash_type", (1,), 1)
    inner, outer = x.shape[axis:], x.shape[:axis]
    flat = n.reshape(x, (*outer, math.prod(inner)))
    sides = [None if t is None else _flat(n, t, inner) for t in (scale, bias)]
    y = n.reshape(n.emit(ops.layer_norm, flat, *sides, epsilon=epsilon), x.shape)
    if not any(n.node.outputs[1:]):
        return (y,)
    last = (len(outer),)
    mean = n.emit(ops.reduce_mean, flat, axes=last, keepdims=True)
    square = n.emit(ops.square, sub(n, flat, mean))
    variance = n.emit(ops.reduce_mean, square, axes=last, keepdims=True)
    deviation = n.emit(ops.rsqrt, add(n, variance, number(epsilon)))
    ones = (*outer, *(1 for _ in inner))
    return y, n.reshape(mean, ones), n.reshape(deviation, ones)


def _flat(n: Call, t: Tensor, inner: tuple[int, ...]) -> Tensor:
    """A scale or bias over the normalized axes, as a vector."""
    if len(t.shape) > len(inner):
        raise Unsupported(f"a scale of {list(t.shape)} for the axes {list(inner)}")
    return n.reshape(n.expand(t, inner), (math.prod(inner),))


def _channels(n: Call, t: Tensor, rank: int) -> Tensor:
    """[c] as [c, 1, 1...], to go with [n, c, ...]."""
    return n.reshape(t, (*t.shape, *(1,) * (rank - 2)))


def _instance_norm(n: Call) -> Tensor:
    x, scale, bias = n.floats(0), n.floats(1), n.floats(2)
    if x.rank < 3:
        raise Unsupported(f"{x.rank} axes; [n, c, ...] is supported")
    flat = n.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
    normal = n.emit(ops.layer_norm, flat, epsilon=n.real("epsilon", 1e-5))
    y = mul(n, n.reshape(normal, x.shape), _channels(n, scale, x.rank))
    return add(n, y, _channels(n, bias, x.rank))


def _group_norm(n: Call) -> Tensor:
    x, scale, bias = n.floats(0), n.floats(1), n.floats(2)
    groups, epsilon = n.integer("num_groups"), n.real("epsilon", 1e-5)
    n.one("stash_type", (1,), 1)
    if x.rank < 3 or groups < 1 or x.shape[1] % groups:
        raise Unsupported(f"{groups} groups of {list(x.shape)}")
    flat = n.reshape(x, (x.shape[0], groups, math.prod(x.shape[1:]) // groups))
    normal = n.emit(ops.layer_norm, flat, epsilon=epsilon)
    if scale.shape == (groups,) and n.opset < 21 and groups != x.shape[1]:
        # Before opset 21 scale and bias belong to groups.
        y = mul(n, normal, _channels(n, scale, 3))
        return n.reshape(add(n, y, _channels(n, bias, 3)), x.shape)
    y = mul(n, n.reshape(normal, x.shape), _channels(n, scale, x.rank))
    return add(n, y, _channels(n, bias, x.rank))


def _mean_variance(n: Call) -> Tensor:
    x = n.floats(0)
    axes = tuple(sorted(counted(a, x.rank) for a in n.ints("axes", (0, 2, 3))))
    shifted = sub(n, x, n.emit(ops.reduce_mean, x, axes=axes, keepdims=True))
    variance = n.emit(ops.reduce_mean, n.emit(ops.square, shifted), axes=axes, keepdims=True)
    return div(n, shifted, add(n, n.emit(ops.sqrt, variance), number(1e-9)))


def _lp_norm(n: Call) -> Tensor:
    x = n.floats(0)
    axis, p = n.axis(x.rank, -1), n.one("p", (1, 2), 2)
    sizes = n.emit(ops.abs if p == 1 else ops.square, x)
    total = n.emit(ops.reduce_sum, sizes, axes=(axis,), keepdims=True)
    length = total if p == 1 else n.emit(ops.sqrt, total)
    # A vector of zeros stays one.
    return div(n, x, maximum(n, length, number(float(np.finfo(np.float32).tiny))))


def _batch_norm(n: Call) -> Tensor:
    x, epsilon = n.floats(0), n.real("epsilon", 1e-5)
    n.real("momentum", 0.9)
    n.one("spatial", (1,), 1)
    if n.integer("training_mode", 0) or any(n.node.outputs[1:]):
        raise Unsupported("training")
    if x.rank < 2:
        raise Unsupported(f"{x.rank} axes; [n, c, ...] is supported")
    order = _last(x, 1)
    inner = n.transpose(x, order)
    made = n.emit(ops.batch_norm, inner, *(n.floats(i) for i in range(1, 5)), epsilon=epsilon)
    return n.transpose(made, _back(order))


def _reduced(name: str, n: Call, x: Tensor) -> Tensor:
    axes, keep = n.whole(1, "axes"), bool(n.integer("keepdims", 1))
    idle = n.integer("noop_with_empty_axes", 0)
    if not axes and idle:
        return x
    at = tuple(sorted({counted(a, x.rank) for a in axes or range(x.rank)}))
    return n.emit(getattr(ops, name), x, axes=at, keepdims=keep) if at else x


def _reduction(
    name: str,
    before: Callable[[Call, Tensor], Tensor] | None = None,
    after: Callable[[Call, Tensor], Tensor] | None = None,
) -> Importer:
    def imported(n: Call) -> Tensor:
        x = n.floats(0)
        found = _reduced(name, n, before(n, x) if before else x)
        return after(n, found) if after else found

    return imported


def _log_sum_exp(n: Call) -> Tensor:
    """log(sum(exp(x))) as max + log(sum(exp(x - max))), which cannot overflow."""
    x = n.floats(0)
    axes = n.whole(1, "axes")
    if not axes and n.integer("noop_with_empty_axes", 0):
        return x
    at = tuple(sorted({counted(a, x.rank) for a in axes or range(x.rank)}))
    # All -inf would give -inf - -inf; the least finite number as maximum does not.
    least = number(float(np.finfo(np.float32).min))
    top = maximum(n, n.emit(ops.reduce_max, x, axes=at, keepdims=True), least)
    total = n.emit(ops.reduce_sum, n.emit(ops.exp, sub(n, x, top)), axes=at, keepdims=True)
    found = add(n, n.emit(ops.log, total), top)
    if n.integer("keepdims", 1):
        return found
    return n.reshape(found, tuple(d for i, d in enumerate(x.shape) if i not in at))


def _absolute(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.abs, x)


def _square(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.square, x)


def _root(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.sqrt, x)


def _log(n: Call, x: Tensor) -> Tensor:
    return n.emit(ops.log, x)


_FLOAT = "f32 only"
ROWS: Table = {
    "BatchNormalization": Operator(_batch_norm, note="inference only, f32"),
    "GroupNormalization": Operator(_group_norm, note=_FLOAT),
    "InstanceNormalization": Operator(_instance_norm, note=_FLOAT),
    "LayerNormalization": Operator(_layer_norm, note=_FLOAT),
    "LogSoftmax": Operator(_along(_log_softmax), note=_FLOAT),
    "LpNormalization": Operator(_lp_norm, note=_FLOAT),
    "MeanVarianceNormalization": Operator(_mean_variance, note=_FLOAT),
    "ReduceL1": Operator(_reduction("reduce_sum", _absolute), (1,), note=_FLOAT),
    "ReduceL2": Operator(_reduction("reduce_sum", _square, _root), (1,), note=_FLOAT),
    "ReduceLogSum": Operator(_reduction("reduce_sum", None, _log), (1,), note=_FLOAT),
    "ReduceLogSumExp": Operator(_log_sum_exp, (1,), note=_FLOAT),
    "ReduceMax": Operator(_reduction("reduce_max"), (1,), note=_FLOAT),
    "ReduceMean": Operator(_reduction("reduce_mean"), (1,), note=_FLOAT),
    "ReduceMin": Operator(_reduction("reduce_min"), (1,), note=_FLOAT),
    "ReduceSum": Operator(_reduction("reduce_sum"), (1,), note=_FLOAT),
    "ReduceSumSquare": Operator(_reduction("reduce_sum", _square), (1,), note=_FLOAT),
    "Softmax": Operator(_along(_softmax), note=_FLOAT),
}
