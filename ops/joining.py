"""concat: arrays one after the other along an axis.

Turns it into one copy for each operand, each into its part of the result. Values are copied as they
are: quantized operands must share one quantization.
"""

from __future__ import annotations

import math
from typing import Any

from ..dsl.errors import OperandError
from ..dsl.types import OperandType
from .border import copied
from .layer import Layer
from .op import op
from .shaping import movable


def _shape(*xs: OperandType, axis: int, **_: Any) -> OperandType:
    if not xs:
        raise OperandError("concat: xs=() has no operands; one or more are needed. Pass arrays.")
    first = xs[0]
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < len(first.shape):
        raise OperandError(
            f"concat: axis={axis!r} is not an axis of {list(first.shape)}; 0 to "
            f"{len(first.shape) - 1} are allowed. Correct the axis."
        )
    for i, x in enumerate(xs):
        movable("concat", f"xs[{i}]", x)
        others = x.shape[:axis] + x.shape[axis + 1 :]
        if x.scalar != first.scalar or (
            len(x.shape) != len(first.shape)
            or others != first.shape[:axis] + first.shape[axis + 1 :]
        ):
            raise OperandError(
                f"concat: xs[{i}]={x} does not join xs[0]={first} along axis {axis}; the same type "
                "and the same sizes of all other axes are needed. Convert or reshape it."
            )
    total = sum(x.shape[axis] for x in xs)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return first.scalar[shape]


@op(_shape)
def concat(*xs: OperandType, axis: int, target: Any = None) -> Layer:
    """out[a..., n_0 + ... + n_(k-1) + i, b...] = xs[k][a..., i, b...], n being the sizes of `axis`.

    f32, u8, i8, i32 or i64, all operands of one type. Raises OperandError for operands that do not
    fit together.
    """
    kind = _shape(*xs, axis=axis)
    outer, inner = math.prod(kind.shape[:axis]), math.prod(kind.shape[axis + 1 :])
    total = kind.shape[axis]
    steps, inputs, done = [], {}, 0
    for i, x in enumerate(xs):
        rows = x.shape[axis]
        border = (0, 0), (done * inner, (total - done - rows) * inner)
        seen, step = copied(
            "concat", x.scalar[outer, rows * inner], border, f"xs{i}", "out", target
        )
        inputs[f"xs{i}"] = seen
        steps.append(step)
        done += rows
    return Layer(inputs, kind, tuple(steps))
