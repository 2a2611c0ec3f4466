"""Scales and zero points of 8-bit operands, and what the three rounding rules make of them.

Turns `Quantization` values into the arrays and constants that requantizing nests take: factors,
fixed-point multipliers with their shifts, clamps of fused activations. Computes nothing on
activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..dsl.errors import OperandError
from ..dsl.types import Scalar

ROUNDINGS = ("float", "tflite", "onnx")
ACTIVATIONS: dict[str | None, tuple[float | None, float | None]] = {
    None: (None, None),
    "relu": (0.0, None),
    "relu6": (0.0, 6.0),
    "relu_n1_to_1": (-1.0, 1.0),
}

Multipliers = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Quantization:
    """`real = scale * (q - zero_point)`.

    scale       one number, or one for each output channel (weights); kept as a read-only f32 array
                of no or one axis
    zero_point  one integer

    Raises OperandError for a scale that is not positive and finite, or has more axes.
    """

    scale: ArrayLike
    zero_point: int = 0
    _key: tuple[bytes, tuple[int, ...], int] = field(init=False, repr=False)
    _hash: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scale = np.array(self.scale, np.float32)
        if scale.ndim > 1 or not scale.size or not (np.isfinite(scale) & (scale > 0)).all():
            raise OperandError(
                f"Quantization: scale={self.scale!r} is not positive and finite numbers; one, or "
                "one for each output channel, is allowed. Give such a scale."
            )
        zero_point = self.zero_point
        if isinstance(zero_point, bool) or not isinstance(zero_point, (int, np.integer)):
            raise OperandError(
                f"Quantization: zero_point={zero_point!r} is not an integer; one integer is "
                "allowed. Give int(zero_point)."
            )
        scale.flags.writeable = False
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", int(zero_point))
        key = (scale.tobytes(), scale.shape, int(zero_point))
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))  # quantizations are looked up in every call

    @property
    def scales(self) -> NDArray[np.float32]:
        """The scale as an f32 array, of no axis for a single one."""
        return np.asarray(self.scale, np.float32)

    @property
    def single(self) -> np.float32:
        """The scale of a per-tensor quantization; OperandError if there is one per channel."""
        if self.scales.size != 1:
            raise OperandError(
                f"Quantization: scale has {self.scales.size} values; activations have one for the "
                "whole tensor. Give one number."
            )
        return np.float32(self.scales.reshape(-1)[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantization) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash


def checked_activation(op: str, activation: str | None) -> str | None:
    """The activation, with "none" as None; OperandError for one that is not known."""
    found = None if activation == "none" else activation
    if found not in ACTIVATIONS:
        names = ", ".join(repr(a) for a in ACTIVATIONS)
        raise OperandError(
            f"{op}: activation={activation!r} is not known; {names} are. Use one, or apply another "
            "op to the result."
        )
    return found


def checked_rounding(op: str, rounding: str) -> str:
    """The rounding; OperandError for one that is not known."""
    if rounding not in ROUNDINGS:
        raise OperandError(
            f"{op}: rounding={rounding!r} is not known; {', '.join(map(repr, ROUNDINGS))} are. "
            "Use one of them."
        )
    return rounding


def checked_zero_point(op: str, name: str, quantization: Quantization, to: Scalar) -> None:
    """OperandError unless the zero point is a value of the type."""
    if not to.low <= quantization.zero_point <= to.high:
        raise OperandError(
            f"{op}: {name}.zero_point={quantization.zero_point} is not a value of {to.name}; "
            f"{to.low} to {to.high} is allowed. Give the zero point of the stored type."
        )


def bounds(
    activation: str | None, y: Quantization, to: Scalar, rounding: str = "float"
) -> tuple[int, int]:
    """(low, high): the values of `to` that a fused activation leaves.

    A real bound b becomes rint(f32(b / scale) + zero_point) for "float" and "onnx", with the sum in
    f32 (XNNPACK), and zero_point + round_half_away(b / scale) for "tflite".
    """

    def stored(b: float | None, otherwise: float) -> int:
        if b is None:
            return int(otherwise)
        value = np.float32(b) / y.single
        if rounding == "tflite":
            away = math.floor(abs(float(value)) + 0.5)
            return y.zero_point + (away if value >= 0 else -away)
        return int(np.rint(value + np.float32(y.zero_point)))

    low, high = ACTIVATIONS[activation]
    return (
        min(max(stored(low, to.low), int(to.low)), int(to.high)),
        max(min(stored(high, to.high), int(to.high)), int(to.low)),
    )


def spread(values: ArrayLike, channels: int) -> NDArray[np.generic]:
    """One value, or one for each channel, as an array [channels] of the same type."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values).reshape(-1), (channels,)))


def factors(x: Quantization, w: Quantization, y: Quantization) -> NDArray[np.float32]:
    """f32(f32(s_x * s_w) / s_y), each operation rounded to f32; the shape of w's scale."""
    return np.asarray(x.single * w.scales / y.single, np.float32)


def fixed(real: ArrayLike) -> Multipliers:
    """(q, left, right) in i32 with real ~ q / 2^31 * 2^(left - right), one of the shifts being 0.

    The mantissa is rounded half away from zero to 31 bits; what is below 2^-32 becomes q = 0.
    Source: TensorFlow Lite, kernels/internal/quantization_util.cc, QuantizeMultiplier.
    """
    found = [_fixed(float(r)) for r in np.asarray(real, np.float64).reshape(-1)]
    q, left, right = (np.array(column, np.int32) for column in zip(*found, strict=True))
    return q, left, right


def _fixed(real: float) -> tuple[int, int, int]:
    mantissa, exponent = math.frexp(real)
    q = math.floor(math.ldexp(mantissa, 31) + 0.5)
    if q == 1 << 31:
        q, exponent = q >> 1, exponent + 1
    if exponent < -31:
        return 0, 0, 0
    if exponent > 30:
        raise OperandError(
            f"requantize: multiplier={real:g} is not below 2^30, the largest of fixed-point "
            "rounding. Check the scales."
        )
    return q, max(exponent, 0), max(-exponent, 0)
