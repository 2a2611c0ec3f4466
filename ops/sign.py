"""flip_sign: 8-bit integers moved by 128, from signed to unsigned and back.

It changes how a quantized value is stored, not what it means: its zero point moves with it.
"""

from __future__ import annotations

from typing import Any

from ..dsl import loops as sf
from ..dsl.types import OperandType, i8, u8
from ..kernel import kernel
from .layer import Layer, Step
from .op import op
from .window import nonempty, typed


@kernel
def to_unsigned(x, out):
    """out[i] = x[i] + 128."""
    for i in sf.grid(out.shape):
        out[i] = u8(x[i] ^ -128, wrap=True)


@kernel
def to_signed(x, out):
    """out[i] = x[i] - 128."""
    for i in sf.grid(out.shape):
        out[i] = i8(x[i] ^ 128, wrap=True)


def _flip_shape(x: OperandType, *, target: Any = None) -> OperandType:
    typed("flip_sign", "x", x, (i8, u8))
    nonempty("flip_sign", "x", x)
    return (u8 if x.scalar == i8 else i8)[x.shape]


@op(_flip_shape)
def flip_sign(x: OperandType, *, target: Any = None) -> Layer:
    """out[i] = x[i] + 128 in u8 for an i8 `x`, x[i] - 128 in i8 for a u8 one; the same bits with
    the highest inverted.

    Raises OperandError for other types.
    """
    kind = _flip_shape(x)
    nest = to_unsigned if x.scalar == i8 else to_signed
    made = nest.specialize(x=x.scalar[x.size], out=kind.scalar[x.size], target=target)
    return Layer({"x": (x.size,)}, kind, (Step(made, ("x",), "out", (x.size,)),))
