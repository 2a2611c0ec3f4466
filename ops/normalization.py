"""batch_norm: each channel shifted and scaled by numbers that are known beforehand.

Turns five arrays for a channel into one factor and one offset, and one nest over the elements.
Normalizations by statistics of the operand itself are in `rows`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, f32
from ..kernel import kernel
from ..operands import PackedOperand
from .layer import Layer, Step
from .op import op
from .window import nonempty, typed


@kernel
def scale_channels(x, factor, offset, out):
    """out[i,c] = x[i,c] * factor[c] + offset[c]."""
    for i, c in sf.grid(out.shape):
        out[i, c] = x[i, c] * factor[c] + offset[c]


def _shape(
    x: OperandType,
    scale: OperandType,
    bias: OperandType,
    mean: OperandType,
    variance: OperandType,
    *,
    epsilon: float = 1e-5,
    **_: Any,
) -> OperandType:
    typed("batch_norm", "x", x, (f32,))
    nonempty("batch_norm", "x", x)
    if not x.shape:
        raise OperandError(
            "batch_norm: x.shape=[] has no channels; one axis or more is needed. Reshape it."
        )
    for name, v in (("scale", scale), ("bias", bias), ("mean", mean), ("variance", variance)):
        typed("batch_norm", name, v, (f32,))
        if v.shape != x.shape[-1:]:
            raise OperandError(
                f"batch_norm: {name}.shape={list(v.shape)} is not [{x.shape[-1]}], one for each "
                "channel. Reshape it."
            )
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise OperandError(
            f"batch_norm: epsilon={epsilon!r} is not a finite number of 0 or more. Correct it."
        )
    return f32[x.shape]


@op(_shape)
def batch_norm(
    x: OperandType,
    scale: PackedOperand,
    bias: PackedOperand,
    mean: PackedOperand,
    variance: PackedOperand,
    *,
    epsilon: float = 1e-5,
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[..., c] = (x[..., c] - mean[c]) / sqrt(variance[c] + epsilon) * scale[c] + bias[c], f32.

    Computed as x * factor[c] + offset[c], both made in f64 and rounded once. Raises OperandError
    for other types and lengths, and a variance that is negative.
    """
    kinds = (p.type for p in (scale, bias, mean, variance))
    out = _shape(x, *kinds, epsilon=epsilon)
    gain, shift, middle, spread = (
        np.asarray(p.array, np.float64) for p in (scale, bias, mean, variance)
    )
    if not (spread >= 0).all():
        raise OperandError(
            f"batch_norm: variance has {spread.min():g}; numbers of 0 or more are variances. Check "
            "the order of the operands."
        )
    with np.errstate(all="ignore"):
        real = gain / np.sqrt(spread + epsilon)
        factor = real.astype(np.float32)
        offset = (shift - middle * real).astype(np.float32)
    c = x.shape[-1]
    view = (x.size // c, c)
    made = scale_channels.specialize(
        x=f32[view], factor=f32[c], offset=f32[c], out=f32[view], target=target, dataflow=dataflow
    )
    return Layer({"x": view}, out, (Step(made, ("x", factor, offset), "out", view),))
