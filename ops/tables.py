"""Quantized activations as tables: the result for each of the 256 values an 8-bit input has.

Turns a rule (one 8-bit value and two quantizations to one integer) into the table that the look-up
kernel reads. Written value by value in Python's integers and single f32 operations, as the rules
are defined; no activation passes through here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..dsl.types import Scalar
from .quantization import Quantization, fixed

Rule = Callable[[int, Quantization, Quantization], int]
"""(x - zero point of x, quantization of x, of y) -> y before the clamp to its type."""


def table(
    kind: Scalar, rule: Rule, x: Quantization, y: Quantization, to: Scalar | None = None
) -> np.ndarray:
    """[256] of the type `to` (by default `kind`): the rule's result for each value of `kind`,
    lowest first, clamped to the type.
    """
    to = to or kind
    low, high = int(to.low), int(to.high)
    values = (rule(q - x.zero_point, x, y) for q in range(int(kind.low), int(kind.high) + 1))
    return np.array([min(max(v, low), high) for v in values], to.dtype)


def _away(value: float) -> int:
    """The nearest integer, halves away from zero."""
    whole = math.floor(abs(value))
    size = whole + (abs(value) - whole >= 0.5)
    return size if value >= 0 else -size


def real(function: Callable[[float], float]) -> Rule:
    """round_half_away(f32(f(f32(s_x * x))) * f32(1 / s_y)) + z_y, products in f32."""

    def rule(centred: int, x: Quantization, y: Quantization) -> int:
        value = np.float32(function(float(x.single * np.float32(centred))))
        return _away(float(value * (np.float32(1) / y.single))) + y.zero_point

    return rule


def logistic(v: float) -> float:
    """1 / (1 + exp(-v)), without overflow."""
    return 1 / (1 + math.exp(-v)) if v > -700 else 0.0


def gelu_erf(v: float) -> float:
    """v/2 * erfc(-v / sqrt(2)), every operation rounded to f32."""
    x = np.float32(v)
    return float(np.float32(0.5) * x * np.float32(math.erfc(float(x * np.float32(-(0.5**0.5))))))


def gelu_tanh(v: float) -> float:
    """v/2 * (1 + tanh(sqrt(2/pi) * (v + 0.044715 v^3))), every operation rounded to f32."""
    x = np.float32(v)
    inner = x + np.float32(0.044715) * x * x * x
    factor = np.float32(math.tanh(float(np.float32(math.sqrt(2 / math.pi)) * inner)))
    return float(np.float32(0.5) * x * (np.float32(1) + factor))


def scaled(value: int, multiplier: tuple[int, int]) -> int:
    """value * q / 2^31 * 2^shift in TensorFlow Lite's two roundings; (q, shift) are `ratio`'s."""
    q, shift = multiplier
    shifted = ((value << max(shift, 0)) + (1 << 31)) % (1 << 32) - (1 << 31)
    high = (shifted * q + (1 << 30)) >> 31
    right = max(-shift, 0)
    return (abs(high) + ((1 << right) >> 1) >> right) * (1 if high >= 0 else -1)


def ratio(value: float) -> tuple[int, int]:
    """(q, shift) of a real multiplier: q / 2^31 * 2^shift."""
    q, left, right = (int(v[0]) for v in fixed(value))
    return q, left - right


def rescaled(low: float, high: float) -> Rule:
    """scaled(x, s_x / s_y) + z_y, clamped to the stored values of the real bounds low and high."""

    def stored(bound: float, y: Quantization) -> int | float:
        if math.isinf(bound):
            return bound
        return y.zero_point + _away(float(np.float32(bound) / y.single))

    def rule(centred: int, x: Quantization, y: Quantization) -> int:
        value = scaled(centred, ratio(float(x.single) / float(y.single))) + y.zero_point
        return int(min(max(value, stored(low, y)), stored(high, y)))

    return rule


def leaky(slope: float) -> Rule:
    """x * s_x / s_y, times `slope` below zero, by `scaled`: TensorFlow Lite's rule."""

    def rule(centred: int, x: Quantization, y: Quantization) -> int:
        value = float(x.single) / float(y.single)
        if centred < 0:
            value = float(x.single) * float(np.float32(slope)) / float(y.single)
        return scaled(centred, ratio(value)) + y.zero_point

    return rule


def hardswish(centred: int, x: Quantization, y: Quantization) -> int:
    """x * relu6(x + 3) / 6 in 16 bits. Source: TensorFlow Lite, reference/hard_swish.h."""
    fine = x.single * np.float32(1 / 128)
    output, down = _short(fine / y.single)
    gate_factor, gate_shift = _short(fine / np.float32(3 / 32768))
    value = centred << 7
    gate = _fit(value << (gate_shift - 1)) if gate_shift > 0 else value
    gate = (gate * gate_factor + (1 << 14)) >> 15
    gate = _fit(gate << 1) if gate_shift > 0 else _shifted_away(gate, -gate_shift)
    gate = (gate + (1 << 15)) >> 1
    product = gate * ((value * output + (1 << 14)) >> 15)
    truncated = (abs(product) >> 15) * (1 if product >= 0 else -1)
    return _shifted_away(truncated, -down) + y.zero_point


def _short(value: np.float32) -> tuple[int, int]:
    q, shift = ratio(float(value))
    return min((q + (1 << 15)) >> 16, 32767), shift


def _fit(value: int) -> int:
    return min(max(value, -32768), 32767)


def _shifted_away(value: int, exponent: int) -> int:
    half = (1 << exponent) >> 1
    return ((abs(value) + half) >> exponent) * (1 if value >= 0 else -1)
