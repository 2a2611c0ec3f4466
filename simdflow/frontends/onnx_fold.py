"""Evaluates nodes whose inputs are all known, with numpy: the arithmetic on shapes that exporters
leave in a model, and on weights.

Exact in the types of the model (int64, bool, f32, f64); every result is counted before it is
computed. Kinds that are not in the table become nodes of the graph like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .onnx_call import Call
from .onnx_scope import Tensor, Unsupported, counted, known

Fold = Callable[..., np.ndarray]


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX's Div: integers are cut off towards zero."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if (b == 0).any():
        raise Unsupported("an integer divided by 0")
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f" and (b < 0).any():
        raise Unsupported("an integer to a negative power")
    return np.asarray(np.power(a, b)).astype(a.dtype)


# Kinds of broadcast operands; each result has the type that numpy gives operands of one type.
BROADCAST: dict[str, Fold] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": _power,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Where": np.where,
    "Max": lambda *a: np.asarray(_reduced(np.maximum, a)),
    "Min": lambda *a: np.asarray(_reduced(np.minimum, a)),
    "Sum": lambda *a: np.asarray(_reduced(np.add, a)),
    "Not": np.logical_not,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Reciprocal": np.reciprocal,
    "Sin": np.sin,
    "Cos": np.cos,
    "Sign": np.sign,
}
_REDUCTIONS: dict[str, Fold] = {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceMean": np.mean,
}
_INTEGER_ROUNDING = {"Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Reciprocal", "Sin", "Cos"}


def _reduced(function: Any, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    found = arrays[0]
    for a in arrays[1:]:
        found = function(found, a)
    return found


def folded(n: Call) -> tuple[Tensor, ...] | None:
    """The results of a node whose inputs are known, or None if the node is not evaluated here.

    Raises Unsupported for operands that do not go together, and when the budget is spent.
    """
    arrays = [t.array for t in n.inputs if t is not None and t.array is not None]
    if len(arrays) != len(n.inputs) or not arrays:
        return None
    kind = n.node.kind
    n.scope.charge(sum(a.nbytes for a in arrays))
    try:
        with np.errstate(all="ignore"):
            if kind in BROADCAST:
                return (known(_elementwise(n, kind, arrays)),)
            if kind in _REDUCTIONS:
                return (known(_reduction(n, kind, arrays)),)
            if kind in SPECIAL:
                return (known(SPECIAL[kind](n, *arrays)),)
    except (ValueError, TypeError, IndexError) as error:
        raise Unsupported(f"constants of {[list(a.shape) for a in arrays]}: {error}") from error
    return None


def _elementwise(n: Call, kind: str, arrays: list[np.ndarray]) -> np.ndarray:
    first = arrays[1] if kind == "Where" and len(arrays) > 1 else arrays[0]
    if kind in _INTEGER_ROUNDING and first.dtype.kind != "f":
        raise Unsupported(f"{kind} of {first.dtype}")
    if kind != "Pow" and any(a.dtype != first.dtype for a in arrays[1:]):
        raise Unsupported(f"types {[str(a.dtype) for a in arrays]}; one type is allowed")
    n.scope.charge(math.prod(np.broadcast_shapes(*(a.shape for a in arrays))) * 8)
    found = np.asarray(BROADCAST[kind](*arrays))
    return found if found.dtype == np.bool_ else found.astype(first.dtype, copy=False)


def _reduction(n: Call, kind: str, arrays: list[np.ndarray]) -> np.ndarray:
    axes = n.whole(1, "axes")
    keep = bool(n.integer("keepdims", 1))
    if not axes and n.integer("noop_with_empty_axes", 0):
        return arrays[0]
    found = _REDUCTIONS[kind](arrays[0], axis=axes or None, keepdims=keep)
    return np.asarray(found).astype(arrays[0].dtype)


def _range(n: Call, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    if any(a.size != 1 for a in (start, limit, delta)) or not delta.reshape(-1)[0]:
        raise Unsupported("a range of other than three numbers, or with a step of 0")
    first, last, step = (a.reshape(-1)[0].item() for a in (start, limit, delta))
    count = math.ceil((last - first) / step)
    if count > 0:
        n.scope.charge(count * 8)
    places = np.arange(max(count, 0))
    return np.asarray(first + places * step).astype(start.dtype)


def _filled(n: Call, shape: np.ndarray) -> np.ndarray:
    value = n.array("value", np.zeros(1, np.float32))
    sizes = tuple(int(d) for d in shape.reshape(-1))
    if value.size != 1 or any(d < 0 for d in sizes) or len(sizes) > 8:
        raise Unsupported(f"shape {list(sizes[:8])} or {value.size} values")
    n.scope.charge(math.prod(sizes) * value.itemsize)
    return np.full(sizes, value.reshape(-1)[0])


def _nonzero(n: Call, x: np.ndarray) -> np.ndarray:
    n.scope.charge(x.size * x.ndim * 8)
    return np.array(np.nonzero(x), np.int64)


def _cumulated(n: Call, x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    at = counted(int(axis.reshape(-1)[0]), x.ndim)
    reverse, exclusive = n.integer("reverse", 0), n.integer("exclusive", 0)
    n.scope.charge(2 * x.nbytes)
    terms = np.flip(x, at) if reverse else x
    total = np.cumsum(terms, at, x.dtype)
    total = total - terms if exclusive else total
    return np.flip(total, at) if reverse else total


def _modulo(n: Call, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The remainder with the sign of the divisor, with `fmod` that of the dividend."""
    if a.dtype.kind != "f" and (b == 0).any():
        raise Unsupported("an integer divided by 0")
    n.scope.charge(math.prod(np.broadcast_shapes(a.shape, b.shape)) * 8)
    return np.asarray(np.fmod(a, b) if n.integer("fmod", 0) else np.mod(a, b))


def _triangle(n: Call, x: np.ndarray, k: np.ndarray | None = None) -> np.ndarray:
    diagonal = 0 if k is None else int(k.reshape(-1)[0])
    if x.ndim < 2:
        raise Unsupported(f"{x.ndim} axes")
    n.scope.charge(3 * x.nbytes)
    diagonal = max(min(diagonal, x.shape[-1] + 1), -x.shape[-2] - 1)
    return np.triu(x, diagonal) if n.integer("upper", 1) else np.tril(x, diagonal)


SPECIAL: dict[str, Callable[..., np.ndarray]] = {
    "ConstantOfShape": _filled,
    "CumSum": _cumulated,
    "Mod": _modulo,
    "NonZero": _nonzero,
    "Range": _range,
    "Trilu": _triangle,
}
