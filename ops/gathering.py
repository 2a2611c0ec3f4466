"""gather: rows of a table by an array of indices (an embedding).

Turns it into a nest that reads an index for every row of the result and copies that row. An index
is checked when the array is passed: it is inside the table, or the call is refused.
"""

from __future__ import annotations

import math
from typing import Any

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, i32, i64
from ..kernel import kernel
from .layer import Layer, Step
from .op import op
from .shaping import movable
from .window import nonempty, typed


@kernel
def gather_rows(x, indices, out):
    """out[a, i, b] = x[a, indices[i], b]."""
    for a, i, b in sf.grid(out.shape):
        out[a, i, b] = x[a, indices[i], b]


def _shape(x: OperandType, indices: OperandType, *, axis: int, **_: Any) -> OperandType:
    movable("gather", "x", x)
    typed("gather", "indices", indices, (i32, i64))
    nonempty("gather", "indices", indices)
    if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < len(x.shape):
        raise OperandError(
            f"gather: axis={axis!r} is not an axis of x {list(x.shape)}; 0 to {len(x.shape) - 1} "
            "are allowed. Correct the axis."
        )
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    movable("gather", "out", x.scalar[shape])
    return x.scalar[shape]


@op(_shape, inputs=2)
def gather(x: OperandType, indices: OperandType, *, axis: int, target: Any = None) -> Layer:
    """out[a..., i..., b...] = x[a..., indices[i...], b...], `axis` being the first after a...

    `x` f32, u8, i8, i32 or i64; `indices` i32 or i64 of any shape, from 0 to the size of the axis
    minus 1, which is checked on every call: OperandError for an index outside. A bound call checks
    the indices it is bound to, and reads the nearest element inside for one that changed since, as
    a network does for an index that it computes itself.
    """
    kind = _shape(x, indices, axis=axis)
    rows = x.shape[axis]
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    made = gather_rows.specialize(
        x=x.scalar[outer, rows, inner],
        indices=indices.scalar.range(0, rows - 1)[indices.size],
        out=x.scalar[outer, indices.size, inner],
        target=target,
    )
    inputs = {"x": (outer, rows, inner), "indices": (indices.size,)}
    view = outer, indices.size, inner
    return Layer(inputs, kind, (Step(made, ("x", "indices"), "out", view),))
