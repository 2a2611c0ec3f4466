"""reduce_sum, reduce_mean, reduce_max and reduce_min over any axes.

Turns an operand of any rank into three axes that stay and three that go, in turn, and runs one
nest over them. Pools over windows are in `pooling`, the quantized mean of height and width in
`global_pooling`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..dsl import loops as sf
from ..dsl.dataflow import Dataflow
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from .layer import Layer, Step
from .op import op
from .window import nonempty, typed

Axes = tuple[int, ...] | None
# The nests have this many axes that stay, and as many that are reduced.
GROUPS = 3
ORDERED = (f32, u8, i8, i32)
# From this length on, the elements next to each other share a vector also when they are reduced:
# rows of 64 f32 are summed in 6 us that way, and in 28 us with a vector of rows (3136 rows, L2).
LANES = 16


@kernel
def sum_f32(x, out, *, count=1):
    """out[a,b,c] = (sum over p,q,r of x[a,p,b,q,c,r]) / count."""
    for a, b, c in sf.grid(out.shape):
        acc = f32(0)
        for p, q, r in sf.reduce(x.shape[1], x.shape[3], x.shape[5]):
            acc += x[a, p, b, q, c, r]
        out[a, b, c] = acc / count if count > 1 else acc


@kernel
def sum_integers(x, out):
    """out[a,b,c] = sum over p,q,r of x[a,p,b,q,c,r], in i32."""
    for a, b, c in sf.grid(out.shape):
        acc = i32(0)
        for p, q, r in sf.reduce(x.shape[1], x.shape[3], x.shape[5]):
            acc += x[a, p, b, q, c, r]
        out[a, b, c] = acc


@cache
def _extremes(to: Scalar) -> dict[str, Kernel]:
    """The nests of the largest and the smallest element of a type, which begin at its ends."""
    low, high = (to.low, to.high) if to.is_float else (int(to.low), int(to.high))

    @kernel
    def largest(x, out, *, start=low):
        """out[a,b,c] = max over p,q,r of x[a,p,b,q,c,r] and start, the type's lowest."""
        for a, b, c in sf.grid(out.shape):
            acc = to(start)
            for p, q, r in sf.reduce(x.shape[1], x.shape[3], x.shape[5]):
                acc = sf.max(acc, x[a, p, b, q, c, r])
            out[a, b, c] = acc

    @kernel
    def smallest(x, out, *, start=high):
        """out[a,b,c] = min over p,q,r of x[a,p,b,q,c,r] and start, the type's highest."""
        for a, b, c in sf.grid(out.shape):
            acc = to(start)
            for p, q, r in sf.reduce(x.shape[1], x.shape[3], x.shape[5]):
                acc = sf.min(acc, x[a, p, b, q, c, r])
            out[a, b, c] = acc

    return {"reduce_max": largest, "reduce_min": smallest}


def _reduced(name: str, x: OperandType, axes: Axes) -> frozenset[int]:
    """The axes as numbers of 0 or more; OperandError for others, and for one given twice."""
    rank = len(x.shape)
    if axes is None:
        return frozenset(range(rank))
    if not isinstance(axes, (tuple, list)) or not all(
        isinstance(a, int) and not isinstance(a, bool) and -rank <= a < rank for a in axes
    ):
        raise OperandError(
            f"{name}: axes={axes!r} are not axes of x {list(x.shape)}; a tuple of {-rank} to "
            f"{rank - 1} is allowed, or None for all. Correct them."
        )
    found = frozenset(a % rank for a in axes)
    if len(found) != len(axes):
        raise OperandError(
            f"{name}: axes={axes!r} name an axis twice; each is reduced once. Remove one."
        )
    return found


def _grouped(shape: tuple[int, ...], reduced: frozenset[int]) -> list[int]:
    """Sizes of axes that stay and go in turn, beginning with one that stays."""
    sizes, goes = [1], False
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        if (axis in reduced) == goes:
            sizes[-1] *= n
        else:
            sizes.append(n)
            goes = not goes
    return sizes


def _shape(name: str, types: tuple[Scalar, ...]) -> Callable[..., OperandType]:
    """The shape rule of a reduction."""

    def rule(x: OperandType, *, axes: Axes = None, keepdims: bool = False, **_: Any) -> OperandType:
        typed(name, "x", x, types)
        nonempty(name, "x", x)
        reduced = _reduced(name, x, axes)
        groups = _grouped(x.shape, reduced)
        if len(groups) > 2 * GROUPS:
            raise OperandError(
                f"{name}: axes={axes!r} of x {list(x.shape)} are {len(groups) // 2} groups with "
                f"others between them; at most {GROUPS} are allowed. Reduce in two calls."
            )
        gone = x.size
        for axis, n in enumerate(x.shape):
            gone //= 1 if axis in reduced else n
        if name == "reduce_sum" and x.scalar != f32 and gone * 255 > i32.high:
            raise OperandError(
                f"{name}: sums of {gone} elements can leave i32; at most {i32.high // 255} are "
                "allowed. Reduce in two calls."
            )
        kept = [n for axis, n in enumerate(x.shape) if axis not in reduced]
        if keepdims:
            kept = [1 if axis in reduced else n for axis, n in enumerate(x.shape)]
        widened = name == "reduce_sum" and x.scalar != f32
        return (i32 if widened else x.scalar)[tuple(kept)]

    return rule


def _layer(
    nest: Kernel,
    x: OperandType,
    out: OperandType,
    axes: Axes,
    constants: dict[str, Any],
    target: Any,
    dataflow: Any,
) -> Layer:
    groups = _grouped(x.shape, _reduced(nest.name, x, axes))
    seen = (*groups, *(1,) * (2 * GROUPS - len(groups)))
    view = seen[::2]
    if dataflow is None:
        dataflow = _along_rows(seen)
    made = nest.specialize(
        x=x.scalar[seen], out=out.scalar[view], **constants, target=target, dataflow=dataflow
    )
    return Layer({"x": seen}, out, (Step(made, ("x",), "out", view),))


def _along_rows(seen: tuple[int, ...]) -> Dataflow | None:
    """The dataflow whose vectors lie along the last axis, where that is reduced and long."""
    last = max((axis for axis, n in enumerate(seen) if n > 1), default=0)
    if last % 2 == 0 or seen[last] < LANES:
        return None
    return Dataflow(lanes="apbqcr"[last])


@op(_shape("reduce_sum", (f32, u8, i8)))
def reduce_sum(
    x: OperandType,
    *,
    axes: Axes = None,
    keepdims: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = the sum over `axes` (negative ones count from the end; None: all): f32, or u8 and i8 to
    i32.

    With `keepdims` the axes stay with length 1. Raises OperandError for other types, for axes that
    x does not have, that come in more than three groups, and sums that can leave i32.
    """
    out = _shape("reduce_sum", (f32, u8, i8))(x, axes=axes, keepdims=keepdims)
    nest = sum_f32 if x.scalar == f32 else sum_integers
    return _layer(nest, x, out, axes, {}, target, dataflow)


@op(_shape("reduce_mean", (f32,)))
def reduce_mean(
    x: OperandType,
    *,
    axes: Axes = None,
    keepdims: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = the mean over `axes`, f32; options and errors are those of `reduce_sum`."""
    out = _shape("reduce_mean", (f32,))(x, axes=axes, keepdims=keepdims)
    return _layer(sum_f32, x, out, axes, {"count": x.size // out.size}, target, dataflow)


@op(_shape("reduce_max", ORDERED))
def reduce_max(
    x: OperandType,
    *,
    axes: Axes = None,
    keepdims: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = the largest element along `axes`; f32, u8, i8 or i32.

    Numbers win over NaN; where all are NaN the result is -inf. Options and errors are those of
    `reduce_sum`.
    """
    out = _shape("reduce_max", ORDERED)(x, axes=axes, keepdims=keepdims)
    return _layer(_extremes(x.scalar)["reduce_max"], x, out, axes, {}, target, dataflow)


@op(_shape("reduce_min", ORDERED))
def reduce_min(
    x: OperandType,
    *,
    axes: Axes = None,
    keepdims: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = the smallest element along `axes`; types, NaN (inf where all are), options and errors
    are those of `reduce_max`.
    """
    out = _shape("reduce_min", ORDERED)(x, axes=axes, keepdims=keepdims)
    return _layer(_extremes(x.scalar)["reduce_min"], x, out, axes, {}, target, dataflow)
