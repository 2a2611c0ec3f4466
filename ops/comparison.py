"""less, greater, equal and where: conditions as u8 and choices by them, broadcast.

Turns operand types into one nest over at most four axes. A condition is 1 or 0; any other value
chooses as 1 does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dsl import loops as sf
from ..dsl.types import OperandType, f32, i8, i32, i64, u8
from ..kernel import kernel
from .broadcast import broadcast, broadcast_layer
from .layer import Layer
from .op import op
from .window import typed

TYPES = (f32, u8, i8, i32, i64)


@kernel
def less_nest(a, b, out):
    """out = 1 where a < b, else 0."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = u8(1 if p < q else 0)


@kernel
def greater_nest(a, b, out):
    """out = 1 where a > b, else 0."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = u8(1 if p > q else 0)


@kernel
def equal_nest(a, b, out):
    """out = 1 where a == b, else 0."""
    for i, j, k, m in sf.grid(out.shape):
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = u8(1 if p == q else 0)


@kernel
def where_nest(condition, a, b, out):
    """out = a where condition is not 0, else b."""
    for i, j, k, m in sf.grid(out.shape):
        c = condition[
            i % condition.shape[0],
            j % condition.shape[1],
            k % condition.shape[2],
            m % condition.shape[3],
        ]
        p = a[i % a.shape[0], j % a.shape[1], k % a.shape[2], m % a.shape[3]]
        q = b[i % b.shape[0], j % b.shape[1], k % b.shape[2], m % b.shape[3]]
        out[i, j, k, m] = p if c != 0 else q


def _compared(name: str) -> Callable[..., OperandType]:
    """The shape rule of a comparison."""

    def rule(a: OperandType, b: OperandType, **_: Any) -> OperandType:
        typed(name, "a", a, TYPES)
        typed(name, "b", b, (a.scalar,))
        return u8[broadcast(name, a=a, b=b)]

    return rule


@op(_compared("less"), inputs=2)
def less(a: OperandType, b: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = 1 where a < b, else 0 (also where one is NaN); u8, broadcast as numpy does.

    `a` and `b` are of one type: f32, u8, i8, i32 or i64. Raises OperandError for types and shapes
    that do not go together.
    """
    out = _compared("less")(a, b)
    return broadcast_layer(less_nest, {"a": a, "b": b}, out, {}, target, dataflow)


@op(_compared("greater"), inputs=2)
def greater(a: OperandType, b: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = 1 where a > b, else 0; types and errors are those of `less`."""
    out = _compared("greater")(a, b)
    return broadcast_layer(greater_nest, {"a": a, "b": b}, out, {}, target, dataflow)


@op(_compared("equal"), inputs=2)
def equal(a: OperandType, b: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = 1 where a == b, else 0 (also where one is NaN); types and errors are those of
    `less`.
    """
    out = _compared("equal")(a, b)
    return broadcast_layer(equal_nest, {"a": a, "b": b}, out, {}, target, dataflow)


def _where_shape(condition: OperandType, a: OperandType, b: OperandType, **_: Any) -> OperandType:
    typed("where", "condition", condition, (u8,))
    typed("where", "a", a, TYPES)
    typed("where", "b", b, (a.scalar,))
    return a.scalar[broadcast("where", condition=condition, a=a, b=b)]


@op(_where_shape, inputs=3)
def where(
    condition: OperandType,
    a: OperandType,
    b: OperandType,
    *,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = a where condition is not 0, else b; broadcast as numpy does.

    `condition` is u8, `a` and `b` are of one type: f32, u8, i8, i32 or i64. Raises OperandError for
    types and shapes that do not go together.
    """
    out = _where_shape(condition, a, b)
    operands = {"condition": condition, "a": a, "b": b}
    return broadcast_layer(where_nest, operands, out, {}, target, dataflow)
