"""Numbers: what the values of a product mean, and which type its result has.

Turns the options that conv2d, depthwise_conv2d and dense share into one value, or into a typed
error that names the one that does not go with the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from .quantization import (
    Quantization,
    checked_activation,
    checked_rounding,
    checked_zero_point,
)
from .window import typed


@dataclass(frozen=True)
class Numbers:
    """The options that all products have: what values mean, and how the kernel is made."""

    activation: str | None = None
    x_q: Quantization | None = None
    w_q: Quantization | None = None
    y_q: Quantization | None = None
    y_type: Scalar | None = None
    rounding: str = "float"
    target: Any = None
    dataflow: Any = None

    @property
    def all(self) -> tuple[Quantization, Quantization, Quantization] | None:
        """The quantizations of x, w and y, or None."""
        if self.x_q is None or self.w_q is None or self.y_q is None:
            return None
        return self.x_q, self.w_q, self.y_q


def result_type(
    name: str, x: OperandType, w: OperandType, bias: OperandType | None, channels: int, n: Numbers
) -> Scalar:
    """The element type of a product's result; OperandError for numbers that do not go together."""
    activation = checked_activation(name, n.activation)
    checked_rounding(name, n.rounding)
    typed(name, "x", x, (f32, u8, i8))
    typed(name, "w", w, (f32,) if x.scalar == f32 else (i8,))
    if bias is not None:
        typed(name, "bias", bias, (f32,) if x.scalar == f32 else (i32,))
        if bias.shape != (channels,):
            raise OperandError(
                f"{name}: bias.shape={list(bias.shape)} is not [{channels}], one for each output "
                "channel. Reshape it."
            )
    for key, given in (("x_q", n.x_q), ("w_q", n.w_q), ("y_q", n.y_q)):
        if given is not None and not isinstance(given, Quantization):
            raise OperandError(
                f"{name}: {key}={given!r} is not a Quantization; Quantization(scale, zero_point) "
                "is. Make one."
            )
        if (given is None) != (n.x_q is None) or (given is not None and x.scalar == f32):
            raise OperandError(
                f"{name}: {key}={given!r} does not go with x={x.scalar} and x_q={n.x_q!r}; x_q, "
                "w_q and y_q are given together, for u8 and i8. Give all of them or none."
            )
    if n.all is None:
        if x.scalar == f32:
            return f32
        if activation is not None:
            raise OperandError(
                f"{name}: activation={activation!r} of i32 sums is not defined; it is for f32 and "
                "quantized results. Give quantizations, or None."
            )
        return i32
    x_q, w_q, y_q = n.all
    to = n.y_type or x.scalar
    if to not in (u8, i8):
        raise OperandError(f"{name}: y_type={to} is not u8 or i8, which a quantized result is.")
    if w_q.zero_point != 0:
        raise OperandError(
            f"{name}: w_q.zero_point={w_q.zero_point} is not 0; weights are symmetric. Quantize "
            "them without a zero point."
        )
    if w_q.scales.size not in (1, channels):
        raise OperandError(
            f"{name}: w_q.scale has {w_q.scales.size} values; 1 or {channels}, one for each output "
            "channel, are allowed. Correct it."
        )
    checked_zero_point(name, "x_q", x_q, x.scalar)
    checked_zero_point(name, "y_q", y_q, to)
    for key, given in (("x_q", x_q), ("y_q", y_q)):
        if given.scales.size != 1:
            raise OperandError(
                f"{name}: {key}.scale has {given.scales.size} values; activations have one for the "
                "whole tensor. Give one number."
            )
    return to
