"""Layers over the last axis: softmax and layer_norm, a few nests each.

Turns an operand of any rank into rows and runs one kernel for each statistic of a row and one for
the result; the statistics lie in buffers between them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.dataflow import Dataflow
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from ..operands import PackedOperand
from .elementwise import quantized
from .layer import Buffer, Layer, Step
from .op import described, op
from .quantization import Quantization
from .window import nonempty, typed


def _largest(to: Scalar) -> Kernel:
    """The row maximum nest of a type."""

    @kernel
    def row_max(x, out, *, lowest=0.0):
        """out[row] = max over i of x[row, i]."""
        for row in sf.grid(x.shape[0]):
            acc = to(lowest)
            for i in sf.reduce(x.shape[1]):
                acc = sf.max(acc, x[row, i])
            out[row] = acc

    return row_max


ROW_MAX = {to: _largest(to) for to in (f32, u8, i8)}


@kernel
def row_sum(x, out):
    """out[row] = sum over i of x[row, i]."""
    for row in sf.grid(x.shape[0]):
        acc = f32(0)
        for i in sf.reduce(x.shape[1]):
            acc += x[row, i]
        out[row] = acc


@kernel
def exponentials(x, largest, out, *, beta=1.0):
    """out[row, i] = exp((x[row, i] - largest[row]) * beta)."""
    for row, i in sf.grid(x.shape):
        out[row, i] = sf.exp((x[row, i] - largest[row]) * beta)


@kernel
def shares(e, total, out):
    """out[row, i] = e[row, i] / total[row]."""
    for row, i in sf.grid(e.shape):
        out[row, i] = e[row, i] / total[row]


@kernel
def table_exponentials(x, largest, table, out):
    """out[row, i] = table[largest[row] - x[row, i]]."""
    for row, i in sf.grid(x.shape):
        out[row, i] = table[sf.clip(i32(largest[row]) - i32(x[row, i]), 0, 255)]


def _shares_8_bits(to: Scalar) -> Kernel:
    """The quantized shares nest that stores `to`."""

    @kernel
    def quantized_shares(e, total, out, *, zero_point=0):
        """out[row,i] = floor(e[row,i] * (1 / (total[row] / 256)) + 0.5) + zero_point, saturated."""
        for row, i in sf.grid(e.shape):
            v = sf.floor(e[row, i] * (1.0 / (total[row] * 0.00390625)) + 0.5)
            out[row, i] = to(i32(sf.clip(v, 0.0, 256.0)) + zero_point, saturate=True)

    return quantized_shares


SHARES = {to: _shares_8_bits(to) for to in (u8, i8)}


@kernel
def row_mean(x, out):
    """out[row] = sum over i of x[row, i] / n."""
    for row in sf.grid(x.shape[0]):
        acc = f32(0)
        for i in sf.reduce(x.shape[1]):
            acc += x[row, i]
        out[row] = acc / x.shape[1]


@kernel
def row_deviation(x, mean, out, *, epsilon=1e-5):
    """out[row] = 1 / sqrt(sum over i of (x[row, i] - mean[row])^2 / n + epsilon)."""
    for row in sf.grid(x.shape[0]):
        acc = f32(0)
        for i in sf.reduce(x.shape[1]):
            d = x[row, i] - mean[row]
            acc += d * d
        out[row] = 1.0 / sf.sqrt(acc / x.shape[1] + epsilon)


@kernel
def normalized(x, mean, inverse, gain, bias, out):
    """out[row, i] = (x[row, i] - mean[row]) * inverse[row] * gain[i] + bias[i]."""
    for row, i in sf.grid(x.shape):
        out[row, i] = (x[row, i] - mean[row]) * inverse[row] * gain[i] + bias[i]


# From this length on a row is read along itself, by vectors whose lanes are combined at the end;
# shorter ones by a vector of rows. 1536 rows of 384: 23 us against 84 us for a sum.
LANES = 16


def _along(n: int) -> Dataflow | None:
    """The dataflow of a statistic of rows of `n`."""
    return Dataflow(lanes="i") if n >= LANES else None


def _rows(x: OperandType) -> tuple[int, int]:
    return x.size // x.shape[-1], x.shape[-1]


def _softmax_shape(
    x: OperandType,
    *,
    beta: float = 1.0,
    x_q: Quantization | None = None,
    target: Any = None,
) -> OperandType:
    if not x.shape:
        raise OperandError("softmax: x.shape=[] has no axis; one or more are needed. Reshape it.")
    nonempty("softmax", "x", x)
    if not (math.isfinite(beta) and beta > 0):
        raise OperandError(
            f"softmax: beta={beta!r} is not positive and finite, which it must be. Correct it."
        )
    if x_q is None:
        typed("softmax", "x", x, (f32,))
    else:
        quantized("softmax", x, x_q=x_q)
    return x.scalar[x.shape]


@op(_softmax_shape)
def softmax(
    x: OperandType,
    *,
    beta: float = 1.0,
    x_q: Quantization | None = None,
    target: Any = None,
) -> Layer:
    """out[..., i] = exp(beta * (x[..., i] - max)) / sum over j of exp(beta * (x[..., j] - max)).

    f32, or u8 and i8 with `x_q`: then the result has the scale 1/256 and the smallest value of the
    type as its zero point, and is that of TensorFlow Lite (a table of exponentials, summed from
    first to last). Raises OperandError for other types.
    """
    out = _softmax_shape(x, beta=beta, x_q=x_q)
    rows, n = _rows(x)
    seen, kind = x.scalar[rows, n], f32[rows, n]
    each = f32[rows]
    lowest = float(x.scalar.low)
    largest = ROW_MAX[x.scalar].specialize(x=seen, lowest=lowest, target=target, dataflow=_along(n))
    buffers = (
        Buffer("largest", (rows,), x.scalar.dtype),
        Buffer("exponentials", (rows, n), f32.dtype),
        Buffer("total", (rows,), f32.dtype),
    )
    first = Step(largest, ("x",), "largest")
    if x_q is None:
        e = exponentials.specialize(x=seen, largest=each, beta=float(beta), target=target)
        total = row_sum.specialize(x=kind, target=target, dataflow=_along(n))
        last = shares.specialize(e=kind, total=each, target=target)
        second = Step(e, ("x", "largest"), "exponentials")
    else:
        table = _exponential_table(x_q, beta)
        e = table_exponentials.specialize(
            x=seen, largest=x.scalar[rows], table=described(table), target=target
        )
        # The rule says in which order to add, so each row has a lane of its own.
        in_order = Dataflow(lanes="row")
        total = row_sum.specialize(x=kind, target=target, dataflow=in_order)
        last = SHARES[x.scalar].specialize(
            e=kind, total=each, zero_point=int(x.scalar.low), target=target
        )
        second = Step(e, ("x", "largest", table), "exponentials")
    steps = (
        first,
        second,
        Step(total, ("exponentials",), "total"),
        Step(last, ("exponentials", "total"), "out", (rows, n)),
    )
    return Layer({"x": (rows, n)}, out, steps, buffers)


def _exponential_table(x_q: Quantization, beta: float) -> np.ndarray:
    """[256] f32: exp(-(s_x * beta) * d), the exponential rounded once."""
    factor = -(x_q.single * np.float32(beta))
    return np.array([math.exp(float(factor * np.float32(d))) for d in range(256)], np.float32)


def _layer_norm_shape(
    x: OperandType,
    gain: OperandType | None = None,
    bias: OperandType | None = None,
    *,
    epsilon: float = 1e-5,
    target: Any = None,
) -> OperandType:
    typed("layer_norm", "x", x, (f32,))
    if not x.shape:
        raise OperandError(
            "layer_norm: x.shape=[] has no axis; one or more are needed. Reshape it."
        )
    nonempty("layer_norm", "x", x)
    for name, v in (("gain", gain), ("bias", bias)):
        if v is None:
            continue
        typed("layer_norm", name, v, (f32,))
        if v.shape != x.shape[-1:]:
            raise OperandError(
                f"layer_norm: {name}.shape={list(v.shape)} is not [{x.shape[-1]}], one for each "
                "element of a row. Reshape it."
            )
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise OperandError(
            f"layer_norm: epsilon={epsilon!r} is not a finite number of 0 or more. Correct it."
        )
    return x.scalar[x.shape]


@op(_layer_norm_shape)
def layer_norm(
    x: OperandType,
    gain: PackedOperand | None = None,
    bias: PackedOperand | None = None,
    *,
    epsilon: float = 1e-5,
    target: Any = None,
) -> Layer:
    """out[..., i] = (x[..., i] - mean) / sqrt(variance + epsilon) * gain[i] + bias[i], f32.

    Mean and variance (of squared differences, divided by n) are those of the last axis. Raises
    OperandError for other types, and a gain or bias of another length.
    """
    kinds = (None if p is None else p.type for p in (gain, bias))
    out = _layer_norm_shape(x, *kinds, epsilon=epsilon)
    rows, n = _rows(x)
    seen, each = f32[rows, n], f32[rows]
    factors = np.ones(n, np.float32) if gain is None else gain.array
    offsets = np.zeros(n, np.float32) if bias is None else bias.array
    along = _along(n)
    mean = row_mean.specialize(x=seen, target=target, dataflow=along)
    inverse = row_deviation.specialize(
        x=seen, mean=each, epsilon=float(epsilon), target=target, dataflow=along
    )
    last = normalized.specialize(
        x=seen, mean=each, inverse=each, gain=f32[n], bias=f32[n], target=target
    )
    steps = (
        Step(mean, ("x",), "mean"),
        Step(inverse, ("x", "mean"), "inverse"),
        Step(last, ("x", "mean", "inverse", factors, offsets), "out", (rows, n)),
    )
    buffers = (Buffer("mean", (rows,), f32.dtype), Buffer("inverse", (rows,), f32.dtype))
    return Layer({"x": (rows, n)}, out, steps, buffers)
