"""Broadcasting: operands of several shapes seen in few axes, along each of which one runs or stays.

Turns the operand types of an op and one nest into a layer. A nest of these reads
`a[i % a.shape[0], j % a.shape[1], ...]`: the same index where the operand is as long as the result,
0 where it has length 1, which `bind` settles. What is computed is each op's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dsl.errors import OperandError
from ..dsl.types import OperandType
from ..kernel import Kernel
from .layer import Layer, Step
from .window import nonempty

MAX_AXES = 4
Shape = tuple[int, ...]


def broadcast(name: str, **operands: OperandType) -> Shape:
    """The shape of operands broadcast as numpy does.

    Raises OperandError for shapes that do not go together, that have no elements, or that change
    sides more often than a nest has axes.
    """
    for key, x in operands.items():
        nonempty(name, key, x)
    shown = " and ".join(f"{key} {list(x.shape)}" for key, x in operands.items())
    shapes = [x.shape for x in operands.values()]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise OperandError(
            f"{name}: {shown} do not broadcast; sizes that are equal or 1, counted from the last "
            "axis, do. Reshape one."
        ) from None
    if len(merged(shapes, shape)[0]) > MAX_AXES:
        raise OperandError(
            f"{name}: {shown} change sides of the broadcast more than {MAX_AXES - 1} times; fewer "
            "are allowed. Use np.broadcast_to first."
        )
    return shape


def merged(shapes: list[Shape], out: Shape) -> tuple[Shape, list[Shape]]:
    """(sizes of the result, of each operand), neighbouring axes that are alike joined.

    before   [2, 3, 5, 7] and [5, 1]
    after    [6, 5, 7] and [1, 5, 1]
    """
    sizes: list[int] = []
    runs: list[tuple[bool, ...]] = []
    full = [(1,) * (len(out) - len(s)) + s for s in shapes]
    for n, *own in zip(out, *full, strict=True):
        if n == 1:
            continue
        kind = tuple(size == n for size in own)
        if runs and runs[-1] == kind:
            sizes[-1] *= n
        else:
            sizes.append(n)
            runs.append(kind)
    seen = [
        tuple(n if run[i] else 1 for n, run in zip(sizes, runs, strict=True))
        for i in range(len(shapes))
    ]
    return tuple(sizes), seen


def broadcast_layer(
    nest: Kernel,
    operands: Mapping[str, OperandType],
    out: OperandType,
    constants: Mapping[str, Any],
    target: Any,
    dataflow: Any,
) -> Layer:
    """The layer of a nest over four axes that reads `operands`, all of them inputs of the op."""
    sizes, seen = merged([x.shape for x in operands.values()], out.shape)
    ahead = (1,) * (MAX_AXES - len(sizes))
    view = ahead + sizes
    inputs = {name: ahead + shape for name, shape in zip(operands, seen, strict=True)}
    made = nest.specialize(
        **{name: x.scalar[inputs[name]] for name, x in operands.items()},
        out=out.scalar[view],
        target=target,
        dataflow=dataflow,
        **constants,
    )
    return Layer(inputs, out, (Step(made, tuple(operands), "out", view),))
