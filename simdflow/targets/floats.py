"""How a CPU multiplies, adds and rounds floats: by its own instructions, or by plain steps.

Turns x * y + z, round, floor and ceil into LLVM vectors without a call of the C library. `GENERIC`
is for any CPU; `NATIVE` for those with FMA and rounding instructions, where LLVM's intrinsics are
one instruction each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .emission import call_like

Unary = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Floats:
    """Emissions on LLVM vectors: x * y + z, nearest even integer, next below and above."""

    multiply_add: Callable[[Any, Any, Any, Any], Any]
    round: Unary
    floor: Unary
    ceil: Unary


def _lanes(like: Any, value: float) -> Any:
    from llvmlite import ir

    t = like.type
    return ir.Constant(t, [ir.Constant(t.element, value)] * t.count)


def _multiply_then_add(b: Any, x: Any, y: Any, z: Any) -> Any:
    return b.fadd(b.fmul(x, y), z)


def _round(b: Any, x: Any) -> Any:
    """From 2^23 on (f64: 2^52) floats are integers, so adding that rounds what is smaller."""
    whole = _lanes(x, 2.0**23 if str(x.type.element) == "float" else 2.0**52)
    size = call_like(b, "fabs", x)
    rounded = call_like(b, "copysign", b.fsub(b.fadd(size, whole), whole), x)
    return b.select(b.fcmp_ordered("<", size, whole), rounded, x)


def _floor(b: Any, x: Any) -> Any:
    near = _round(b, x)
    below = b.select(b.fcmp_ordered(">", near, x), b.fsub(near, _lanes(x, 1.0)), near)
    return call_like(b, "copysign", below, x)


def _ceil(b: Any, x: Any) -> Any:
    near = _round(b, x)
    above = b.select(b.fcmp_ordered("<", near, x), b.fadd(near, _lanes(x, 1.0)), near)
    return call_like(b, "copysign", above, x)


GENERIC = Floats(_multiply_then_add, _round, _floor, _ceil)
NATIVE = Floats(
    lambda b, x, y, z: call_like(b, "fma", x, y, z),
    lambda b, x: call_like(b, "roundeven", x),
    lambda b, x: call_like(b, "floor", x),
    lambda b, x: call_like(b, "ceil", x),
)
