"""ONNX matrix products: Gemm, MatMul and the integer products whose result is int32.

Weights that are known become `dense`, which packs them once; other products are `matmul`. Integer
products with zero points are computed in f32 where every sum is provably exact there, else refused.
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..dsl.types import i32
from ..ops import Quantization
from .onnx_call import Call, Operator, Table
from .onnx_elements import add, mul, number, sub
from .onnx_scope import Tensor, Unsupported, known
from .onnx_windows import convolve

# Integers up to this are exact in f32, and so is every sum on the way to one.
EXACT = 2**24


def product(n: Call, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b by numpy's rules, plus a bias of the last axis; f32."""
    if not a.rank or not b.rank:
        raise Unsupported(f"{a.rank} and {b.rank} axes")
    left, right = a, b
    if a.rank == 1:
        left = n.reshape(a, (1, *a.shape))
    if b.rank == 1:
        right = n.reshape(b, (*b.shape, 1))
    if left.shape[-1] != right.shape[-2]:
        raise Unsupported(f"{list(a.shape)} by {list(b.shape)}")
    if right.rank == 2 and (right.array is not None or right.stored is not None):
        made = n.emit(ops.dense, left, right, bias)
        bias = None
    else:
        made = _stacked(n, left, right)
    shape = made.shape
    if b.rank == 1:
        shape = shape[:-1]
    if a.rank == 1:
        shape = (*shape[: made.rank - 2], *shape[made.rank - 1 :])
    made = n.reshape(made, shape)
    return made if bias is None else add(n, made, bias)


def _stacked(n: Call, a: Tensor, b: Tensor) -> Tensor:
    """A product of stacks of matrices; a stack that repeats in part is expanded."""
    try:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise Unsupported(f"{list(a.shape)} by {list(b.shape)}") from None
    single = [all(d == 1 for d in t.shape[:-2]) for t in (a, b)]
    for i, t in enumerate((a, b)):
        if t.shape[:-2] != stack and not single[i]:
            t = n.expand(t, (*stack, *t.shape[-2:]))
            a, b = (t, b) if i == 0 else (a, t)
    return n.emit(ops.matmul, a, b)


def _matmul(n: Call) -> Tensor:
    return product(n, n.floats(0), n.floats(1))


def _gemm(n: Call) -> Tensor:
    a, b, c = n.floats(0), n.floats(1), n.given(2)
    alpha, beta = n.real("alpha", 1.0), n.real("beta", 1.0)
    turned = [n.integer(name, 0) for name in ("transA", "transB")]
    if a.rank != 2 or b.rank != 2:
        raise Unsupported(f"{a.rank} and {b.rank} axes")
    if turned[0]:
        a = n.transpose(a, (1, 0))
    if b.array is None and b.stored is None:
        made = n.emit(ops.matmul, a, b, transpose_b=bool(turned[1]))
    else:
        if turned[1]:
            b = n.transpose(b, (1, 0))
        if alpha != 1 and b.array is not None:
            n.scope.charge(b.array.nbytes)
            b, alpha = known((b.array * np.float32(alpha)).astype(np.float32)), 1.0
        columns = b.shape[1]
        plain = c is not None and c.shape in ((columns,), (1, columns)) and beta == 1 == alpha
        bias = n.reshape(c, (columns,)) if c is not None and plain else None
        made = n.emit(ops.dense, a, b, bias)
        c = None if plain else c
    if alpha != 1:
        made = mul(n, made, number(alpha))
    if c is None or beta == 0:
        return made
    if c.array is not None and beta != 1:
        c = known((c.array * np.float32(beta)).astype(np.float32))
    elif beta != 1:
        c = mul(n, c, number(beta))
    return add(n, made, c)


def as_integers(n: Call, x: Tensor, zero_point: Tensor | None, axis: int = 0) -> Tensor:
    """x - zero_point in f32, exactly; one zero point, or one for each place of `axis`."""
    if zero_point is None:
        zero_point = known(np.zeros((), x.dtype))
    size = math.prod(zero_point.shape)
    if size > 1:
        if zero_point.rank != 1 or x.shape[axis : axis + 1] != (size,):
            raise Unsupported(f"zero points {list(zero_point.shape)} of {list(x.shape)}")
        zero_point = n.reshape(zero_point, (size, *(1,) * (x.rank - 1 - axis)))
    zero = zero_point.array
    if x.array is not None and zero is not None:
        n.scope.charge(x.array.size * 8)
        return known(x.array.astype(np.float32) - zero.astype(np.float32))
    if zero is not None and size == 1:
        at = int(zero.reshape(-1)[0])
        return n.emit(ops.dequantize, x, x_q=Quantization(1.0, at))
    return sub(n, n.cast(x, np.float32), n.cast(zero_point, np.float32))


def exact(x: Tensor, w: Tensor, axes: tuple[int, ...]) -> None:
    """Raises Unsupported unless a sum of products of 8-bit values over `axes` of w fits f32."""
    if w.array is not None:
        largest = 255.0 * float(np.abs(w.array).sum(axis=axes, dtype=np.float64).max(initial=0))
    else:
        largest = 255.0 * 255.0 * float(np.prod([w.shape[a] for a in axes]))
    if largest >= EXACT:
        raise Unsupported(f"integer sums of up to {largest:.0f}, beyond {EXACT}")


def _eight(n: Call, *at: int) -> None:
    for i in at:
        if n.need(i).dtype not in (np.int8, np.uint8):
            raise Unsupported(f"input {i} is {n.need(i).dtype}; 8 bits are supported")


def _conv_integer(n: Call) -> Tensor:
    _eight(n, 0, 1)
    x, w = as_integers(n, n.need(0), n.given(2)), as_integers(n, n.need(1), n.given(3))
    exact(x, w, tuple(range(1, w.rank)))
    return n.emit(ops.cast, convolve(n, x, w, None), to=i32)


def _matmul_integer(n: Call) -> Tensor:
    _eight(n, 0, 1)
    a, b = n.need(0), n.need(1)
    left = as_integers(n, a, n.given(2), max(a.rank - 2, 0))
    right = as_integers(n, b, n.given(3), max(b.rank - 1, 0))
    exact(left, right, (max(right.rank - 2, 0),))
    return n.emit(ops.cast, product(n, left, right), to=i32)


_SUMS = "8-bit inputs whose sums stay below 2^24"
PRODUCTS: Table = {
    "ConvInteger": Operator(_conv_integer, note=_SUMS),
    "Gemm": Operator(_gemm, note="f32 only"),
    "MatMul": Operator(_matmul, note="f32 only"),
    "MatMulInteger": Operator(_matmul_integer, note=_SUMS),
}
