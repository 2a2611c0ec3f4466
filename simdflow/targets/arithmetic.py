"""The portable rows that work lane by lane: arithmetic, comparison, selection and conversion.

Turns registers into a register of the same lanes. Integers keep the low bits of what overflows;
that nothing does is proven before, or asked for. Nothing here reads memory or mixes lanes, except
`splat`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..compiler.program import Vec
from ..dsl.types import SCALARS
from .base import Instruction
from .emission import (
    Value,
    call,
    call_like,
    constant,
    convert,
    dtype,
    is_float,
    is_signed,
    llvm_type,
    shuffle,
    suffix,
    zeros,
)
from .floats import Floats

Emission = Callable[..., Any]
Meaning = Callable[..., np.ndarray]


def _exact(function: Callable[..., Any]) -> Meaning:
    def meaning(vec: Vec, *args: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(function(*args)).astype(dtype(vec.scalar))

    return meaning


def _binary(for_float: str, for_signed: str, for_unsigned: str) -> Emission:
    def emit(b: Any, vec: Vec, x: Value, y: Value) -> Any:
        for_integer = for_signed if is_signed(vec.scalar) else for_unsigned
        return getattr(b, for_float if is_float(vec.scalar) else for_integer)(x.llvm, y.llvm)

    return emit


def _integer_compare(b: Any, op: str, x: Value, y: Any) -> Any:
    return (b.icmp_signed if is_signed(x.scalar) else b.icmp_unsigned)(op, x.llvm, y)


def _compare(op: str) -> Emission:
    def emit(b: Any, vec: Vec, x: Value, y: Value) -> Any:
        if is_float(x.scalar):
            compare = b.fcmp_unordered if op == "!=" else b.fcmp_ordered
            return compare(op, x.llvm, y.llvm)
        return _integer_compare(b, op, x, y.llvm)

    return emit


def _extreme(name: str, op: str) -> Instruction:
    """max or min; of a float and a NaN it is the other one."""
    of_floats, of_integers = (np.fmax, np.maximum) if name == "max" else (np.fmin, np.minimum)

    def meaning(vec: Vec, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (of_floats if is_float(vec.scalar) else of_integers)(x, y)

    def emit(b: Any, vec: Vec, x: Value, y: Value) -> Any:
        from llvmlite import ir

        if not is_float(vec.scalar):
            return b.select(_integer_compare(b, op, x, y.llvm), x.llvm, y.llvm)
        if isinstance(y.llvm, ir.Constant):
            # A constant is never NaN: one maxps, which gives its second side for a NaN.
            return b.select(b.fcmp_ordered(op, x.llvm, y.llvm), x.llvm, y.llvm)
        return call_like(b, f"{name}num", x.llvm, y.llvm)

    return Instruction(name, meaning, emit)


def _extreme_into(name: str, op: str) -> Instruction:
    """acc = max(acc, x) where acc is never NaN and a NaN x is passed over: one instruction."""
    wins = np.greater if op == ">" else np.less

    def meaning(vec: Vec, acc: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.where(wins(x, acc), x, acc)

    def emit(b: Any, vec: Vec, acc: Value, x: Value) -> Any:
        if is_float(vec.scalar):
            return b.select(b.fcmp_ordered(op, x.llvm, acc.llvm), x.llvm, acc.llvm)
        return b.select(_integer_compare(b, op, x, acc.llvm), x.llvm, acc.llvm)

    return Instruction(name, meaning, emit)


def _neg(b: Any, vec: Vec, x: Value) -> Any:
    return b.fneg(x.llvm) if is_float(vec.scalar) else b.sub(zeros(x.llvm.type), x.llvm)


def _abs(b: Any, vec: Vec, x: Value) -> Any:
    if is_float(vec.scalar):
        return call_like(b, "fabs", x.llvm)
    if not is_signed(vec.scalar):
        return x.llvm
    negative = _neg(b, vec, x)
    return b.select(b.icmp_signed("<", x.llvm, zeros(x.llvm.type)), negative, x.llvm)


def _floor_quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.floor(x / y) if x.dtype.kind == "f" else x // y


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x - np.floor(x / y) * y if x.dtype.kind == "f" else x % y


def _floor_division(b: Any, vec: Vec, x: Value, y: Value, floats: Floats) -> Any:
    """Toward minus infinity, as in Python; of floats the quotient is rounded before."""
    if is_float(vec.scalar):
        return floats.floor(b, b.fdiv(x.llvm, y.llvm))
    if not is_signed(vec.scalar):
        return b.udiv(x.llvm, y.llvm)
    q, r = b.sdiv(x.llvm, y.llvm), b.srem(x.llvm, y.llvm)
    zero = zeros(x.llvm.type)
    unlike = b.icmp_signed("<", b.xor(r, y.llvm), zero)
    return b.sub(q, b.zext(b.and_(b.icmp_signed("!=", r, zero), unlike), x.llvm.type))


def _modulo(b: Any, vec: Vec, x: Value, y: Value, floats: Floats) -> Any:
    """x - floor(x / y) * y: the sign of y, as in Python."""
    quotient = _floor_division(b, vec, x, y, floats)
    if is_float(vec.scalar):
        return b.fsub(x.llvm, b.fmul(quotient, y.llvm))
    return b.sub(x.llvm, b.mul(quotient, y.llvm))


def _convert(vec: Vec, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(dtype(vec.scalar))


def saturated(vec: Vec, x: np.ndarray) -> np.ndarray:
    """The nearest value of the type; floats are truncated toward zero first, and NaN is 0."""
    s = SCALARS[vec.scalar]
    low, high = int(s.low), int(s.high)
    if x.dtype.kind != "f":
        return np.clip(x.astype(np.int64), low, high).astype(s.dtype)
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), posinf=2.0**64, neginf=-(2.0**64)))
    # 2^63 - 1 is no float64: what is beyond must not pass through the conversion.
    inside = np.where(np.abs(whole) < 2.0**63, whole, 0.0).astype(np.int64)
    inside = np.where(whole >= 2.0**63, high, np.where(whole <= -(2.0**63), low, inside))
    return np.clip(inside, low, high).astype(s.dtype)


def emit_saturate(b: Any, vec: Vec, x: Value) -> Any:
    """Clamp to what both types hold, then change the width."""
    if is_float(x.scalar):
        return _truncated(b, vec, x)
    wanted, have = SCALARS[vec.scalar], SCALARS[x.scalar]
    here, value = Vec(x.scalar, x.lanes), x
    for op, bound, needed in (
        ("<", int(wanted.low), wanted.low > have.low),
        (">", int(wanted.high), wanted.high < have.high),
    ):
        if needed:
            limit = constant(here, bound)
            beyond = _integer_compare(b, op, value, limit)
            value = Value(b.select(beyond, limit, value.llvm), x.scalar, x.lanes)
    return convert(b, vec, value)


def _truncated(b: Any, vec: Vec, x: Value) -> Any:
    """A float toward zero into an integer that saturates; NaN is 0."""
    t, wanted = llvm_type(vec), SCALARS[vec.scalar]
    if wanted.bits == 64 or vec.scalar == "u32":
        kind = "si" if is_signed(vec.scalar) else "ui"
        return call(b, f"llvm.fpto{kind}.sat.{suffix(t)}.{suffix(x.llvm.type)}", t, x.llvm)
    # LLVM takes that intrinsic apart lane by lane on x86, so it is spelled out for the others.
    here = Vec(x.scalar, x.lanes)
    edges = Vec("i32", x.lanes)
    below_limit = 2.0**31 - (128 if x.scalar == "f32" else 1)  # the largest float under 2^31
    low, high = float(wanted.low), min(float(wanted.high), below_limit)
    number = b.select(b.fcmp_ordered("ord", x.llvm, x.llvm), x.llvm, zeros(x.llvm.type))
    for op, limit in (("<", constant(here, low)), (">", constant(here, high))):
        number = b.select(b.fcmp_ordered(op, number, limit), limit, number)
    whole = b.fptosi(number, llvm_type(edges))
    if high < wanted.high:
        over = b.fcmp_ordered(">", x.llvm, constant(here, high))
        whole = b.select(over, constant(edges, int(wanted.high)), whole)
    return convert(b, vec, Value(whole, "i32", vec.lanes))


def _flip(vec: Vec, x: np.ndarray) -> np.ndarray:
    return x.view(np.uint8) ^ np.uint8(0x80)


def emit_flip(b: Any, vec: Vec, x: Value) -> Any:
    """i8 to u8 by adding 128."""
    return b.xor(x.llvm, constant(Vec("u8", x.lanes), 0x80))


def _splat(vec: Vec, x: np.ndarray) -> np.ndarray:
    return np.repeat(x[:1], vec.lanes)


def emit_splat(b: Any, vec: Vec, x: Value) -> Any:
    """The first lane everywhere."""
    return shuffle(b, x.llvm, x.llvm, [0] * vec.lanes)


def _round_saturate(vec: Vec, x: np.ndarray) -> np.ndarray:
    return saturated(vec, np.rint(x))


def _emit_round_saturate(b: Any, vec: Vec, x: Value, floats: Floats) -> Any:
    """saturate(round(x)): the last step of a requantization, one instruction on some CPUs."""
    return emit_saturate(b, vec, Value(floats.round(b, x.llvm), x.scalar, x.lanes))


def rounding(floats: Floats) -> tuple[Instruction, ...]:
    """The rows that round: round (to even), floor, ceil, floordiv and mod, as this CPU does it."""
    return (
        Instruction("floordiv", _exact(_floor_quotient), partial(_floor_division, floats=floats)),
        Instruction("mod", _exact(_remainder), partial(_modulo, floats=floats)),
        Instruction("round", _exact(np.rint), lambda b, vec, x: floats.round(b, x.llvm)),
        Instruction(
            "round_saturate", _round_saturate, partial(_emit_round_saturate, floats=floats)
        ),
        # The same for values known to be below 2^31 and not NaN: x86 then needs no fix-up.
        Instruction("round_bounded", _round_saturate, partial(_emit_round_saturate, floats=floats)),
        Instruction("floor", _exact(np.floor), lambda b, vec, x: floats.floor(b, x.llvm)),
        Instruction("ceil", _exact(np.ceil), lambda b, vec, x: floats.ceil(b, x.llvm)),
    )


ROWS = (
    Instruction(
        "const",
        lambda vec, v: np.full(vec.lanes, v, dtype(vec.scalar)),
        lambda b, vec, v: constant(vec, v),
    ),
    Instruction("splat", _splat, emit_splat),
    Instruction("add", _exact(np.add), _binary("fadd", "add", "add")),
    Instruction("sub", _exact(np.subtract), _binary("fsub", "sub", "sub")),
    Instruction("mul", _exact(np.multiply), _binary("fmul", "mul", "mul")),
    Instruction("div", _exact(np.divide), _binary("fdiv", "sdiv", "udiv")),
    Instruction("shl", _exact(np.left_shift), _binary("shl", "shl", "shl")),
    Instruction("shr", _exact(np.right_shift), _binary("ashr", "ashr", "lshr")),
    Instruction("and", _exact(np.bitwise_and), _binary("and_", "and_", "and_")),
    Instruction("or", _exact(np.bitwise_or), _binary("or_", "or_", "or_")),
    Instruction("xor", _exact(np.bitwise_xor), _binary("xor", "xor", "xor")),
    Instruction("not", _exact(np.invert), lambda b, vec, x: b.not_(x.llvm)),
    _extreme("max", ">"),
    _extreme("min", "<"),
    _extreme_into("max_into", ">"),
    _extreme_into("min_into", "<"),
    Instruction("eq", _exact(np.equal), _compare("==")),
    Instruction("ne", _exact(np.not_equal), _compare("!=")),
    Instruction("lt", _exact(np.less), _compare("<")),
    Instruction("le", _exact(np.less_equal), _compare("<=")),
    Instruction("gt", _exact(np.greater), _compare(">")),
    Instruction("ge", _exact(np.greater_equal), _compare(">=")),
    Instruction(
        "select", _exact(np.where), lambda b, vec, c, x, y: b.select(c.llvm, x.llvm, y.llvm)
    ),
    Instruction("neg", _exact(np.negative), _neg),
    Instruction("abs", _exact(np.abs), _abs),
    Instruction("sqrt", _exact(np.sqrt), lambda b, vec, x: call_like(b, "sqrt", x.llvm)),
    Instruction("convert", _convert, convert),
    Instruction("wrap", _convert, convert),
    Instruction("saturate", saturated, emit_saturate),
    Instruction("flip", _flip, emit_flip),
)
