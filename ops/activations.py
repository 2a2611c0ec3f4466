"""elu, softplus, hard_sigmoid, silu and prelu: activations of f32.

Each is one nest over all elements in a row, that of prelu one with a broadcast slope. Activations
that have an 8-bit form are in `elementwise`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..dsl import loops as sf
from ..dsl.types import OperandType, f32
from ..kernel import kernel
from .broadcast import broadcast, broadcast_layer
from .elementwise import flat
from .layer import Layer
from .op import op
from .window import nonempty, typed


@kernel
def elu_f32(x, out, *, alpha=1.0):
    """out[i] = x if x >= 0 else alpha * (exp(x) - 1)."""
    for i in sf.grid(out.shape):
        v = x[i]
        # exp(v) - 1 = 2t / (1 - t) with t = tanh(v / 2), which keeps its digits next to 0.
        t = sf.tanh(v * 0.5)
        out[i] = v if v >= 0.0 else alpha * (2.0 * t / (1.0 - t))


@kernel
def softplus_f32(x, out):
    """out[i] = max(x, 0) + log(1 + exp(-|x|)) = log(1 + exp(x))."""
    for i in sf.grid(out.shape):
        v = x[i]
        e = sf.exp(-sf.abs(v))
        u = 1.0 + e
        # log(u) * e / (u - 1): what rounding took from u is put back, so that small e stay exact.
        tail = e if u == 1.0 else sf.log(u) * e / (u - 1.0)
        out[i] = (v if v > 0.0 else 0.0) + tail


@kernel
def hard_sigmoid_f32(x, out, *, alpha=0.2, beta=0.5):
    """out[i] = min(max(alpha * x + beta, 0), 1); NaN stays NaN."""
    for i in sf.grid(out.shape):
        v = x[i] * alpha + beta
        least = 0.0 if v < 0.0 else v
        out[i] = 1.0 if least > 1.0 else least


@kernel
def silu_f32(x, out):
    """out[i] = x * sigmoid(x)."""
    for i in sf.grid(out.shape):
        out[i] = x[i] * sf.sigmoid(x[i])


@kernel
def prelu_f32(x, slope, out):
    """out = x if x >= 0 else slope * x, broadcast."""
    for i, j, k, m in sf.grid(out.shape):
        p = x[i % x.shape[0], j % x.shape[1], k % x.shape[2], m % x.shape[3]]
        q = slope[i % slope.shape[0], j % slope.shape[1], k % slope.shape[2], m % slope.shape[3]]
        out[i, j, k, m] = p if p >= 0.0 else p * q


def _shape(name: str) -> Callable[..., OperandType]:
    """The shape rule of an activation of f32."""

    def rule(x: OperandType, **_: Any) -> OperandType:
        typed(name, "x", x, (f32,))
        nonempty(name, "x", x)
        return f32[x.shape]

    return rule


@op(_shape("elu"))
def elu(x: OperandType, *, alpha: float = 1.0, target: Any = None, dataflow: Any = None) -> Layer:
    """out = x if x >= 0 else alpha * (exp(x) - 1), f32 of any shape.

    Raises OperandError for other types.
    """
    return flat(f32[x.shape], elu_f32, x, {"alpha": float(alpha)}, target, dataflow)


@op(_shape("softplus"))
def softplus(x: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = log(1 + exp(x)), f32 of any shape. Raises OperandError for other types."""
    return flat(f32[x.shape], softplus_f32, x, {}, target, dataflow)


@op(_shape("hard_sigmoid"))
def hard_sigmoid(
    x: OperandType,
    *,
    alpha: float = 0.2,
    beta: float = 0.5,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out = min(max(alpha * x + beta, 0), 1), NaN stays NaN; f32 of any shape.

    Raises OperandError for other types.
    """
    constants = {"alpha": float(alpha), "beta": float(beta)}
    return flat(f32[x.shape], hard_sigmoid_f32, x, constants, target, dataflow)


@op(_shape("silu"))
def silu(x: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = x / (1 + exp(-x)), f32 of any shape. Raises OperandError for other types."""
    return flat(f32[x.shape], silu_f32, x, {}, target, dataflow)


def _prelu_shape(x: OperandType, slope: OperandType, **_: Any) -> OperandType:
    for name, kind in (("x", x), ("slope", slope)):
        typed("prelu", name, kind, (f32,))
    return f32[broadcast("prelu", x=x, slope=slope)]


@op(_prelu_shape, inputs=2)
def prelu(x: OperandType, slope: OperandType, *, target: Any = None, dataflow: Any = None) -> Layer:
    """out = x if x >= 0 else slope * x, f32; `slope` is broadcast from the last axes: [c] has one
    for each channel.

    Raises OperandError for other types, and shapes that do not broadcast.
    """
    out = _prelu_shape(x, slope)
    return broadcast_layer(prelu_f32, {"x": x, "slope": slope}, out, {}, target, dataflow)
