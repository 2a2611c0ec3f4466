"""matmul: products of stacks of matrices, either of them stored transposed.

One nest reads both storage orders: which index runs over rows is a constant. Weights that stay the
same are `dense`'s business.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from .layer import Layer, Step
from .op import op
from .window import nonempty, typed


def _nest(total: Scalar) -> Kernel:
    """The nest that sums in `total`."""

    @kernel
    def matmul_nest(
        a, b, out, *, depth=1, rows_a=1, rows_b=1, stacked_a=1, stacked_b=1
    ):  # fmt: skip
        """out[s,m,n] = sum over k<depth of a[s,m,k] * b[s,k,n].

        rows_a     1 for a stored [s,m,k], 0 for [s,k,m]; rows_b likewise
        stacked_a  0 for one matrix that all of the stack share
        """
        for s, m, n in sf.grid(out.shape):
            acc = total(0)
            for k in sf.reduce(depth):
                acc += (
                    a[s * stacked_a, m * rows_a + k * (1 - rows_a), k * rows_a + m * (1 - rows_a)]
                    * b[s * stacked_b, k * rows_b + n * (1 - rows_b), n * rows_b + k * (1 - rows_b)]
                )
            out[s, m, n] = acc

    return matmul_nest


NESTS = {total: _nest(total) for total in (f32, i32)}


def _matmul_shape(
    a: OperandType,
    b: OperandType,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> OperandType:
    for name, x in (("a", a), ("b", b)):
        nonempty("matmul", name, x)
        if len(x.shape) < 2:
            raise OperandError(
                f"matmul: {name}.shape={list(x.shape)} is not a matrix; two axes or more are "
                "needed. Reshape it."
            )
    typed("matmul", "a", a, (f32, u8, i8))
    typed("matmul", "b", b, (f32,) if a.scalar == f32 else (u8, i8))
    m, depth = _rows(a, transpose_a)
    other, n = _rows(b, transpose_b)
    if depth != other:
        raise OperandError(
            f"matmul: a sums over {depth} elements, b over {other}; a {list(a.shape)} and b "
            f"{list(b.shape)} need one length (transpose_a={transpose_a}, "
            f"transpose_b={transpose_b}). Transpose one of them."
        )
    try:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise OperandError(
            f"matmul: the leading axes of a {list(a.shape)} and b {list(b.shape)} do not "
            f"broadcast; "
            "equal sizes or 1 do. Reshape one of them."
        ) from None
    if any(x.shape[:-2] != stack and x.size != m_n for x, m_n in ((a, m * depth), (b, depth * n))):
        raise OperandError(
            f"matmul: a {list(a.shape)} and b {list(b.shape)} repeat a part of a stack; one matrix "
            "for all of the stack, or one for each, is allowed. Use np.broadcast_to first."
        )
    if a.scalar != f32 and depth * 255 * 255 > i32.high:
        raise OperandError(
            f"matmul: sums of {depth} products can leave i32; at most {i32.high // 255**2} are "
            "allowed. Split the matrices."
        )
    return (f32 if a.scalar == f32 else i32)[*stack, m, n]


def _rows(x: OperandType, transposed: bool) -> tuple[int, int]:
    rows, columns = x.shape[-2:]
    return (columns, rows) if transposed else (rows, columns)


@op(_matmul_shape, inputs=2)
def matmul(
    a: OperandType,
    b: OperandType,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[..., m, n] = sum over k of a[..., m, k] * b[..., k, n]: f32, or u8 and i8 to i32.

    With `transpose_a` the operand is stored as a[..., k, m], with `transpose_b` as b[..., n, k].
    Leading axes are equal, or one operand is a single matrix for all. Raises OperandError for sizes
    that do not fit, and integer sums that can leave i32.
    """
    out = _matmul_shape(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    m, n = out.shape[-2:]
    depth = _rows(a, transpose_a)[1]
    seen = {
        "a": (a.size // (m * depth), *a.shape[-2:]),
        "b": (b.size // (depth * n), *b.shape[-2:]),
    }
    view = (max(seen["a"][0], seen["b"][0]), m, n)
    made = NESTS[out.scalar].specialize(
        a=a.scalar[seen["a"]],
        b=b.scalar[seen["b"]],
        out=out.scalar[view],
        depth=depth,
        rows_a=int(not transpose_a),
        rows_b=int(not transpose_b),
        stacked_a=int(seen["a"][0] > 1),
        stacked_b=int(seen["b"][0] > 1),
        target=target,
        dataflow=dataflow,
    )
    return Layer(seen, out, (Step(made, ("a", "b"), "out", view),))
