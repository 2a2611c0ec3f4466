"""The portable rows that reduce: dot products into lanes, sums over lanes, narrowing.

Turns several registers, or several neighbouring lanes of one, into fewer. Written for any CPU; the
rows of a CPU that has instructions for it are in its own file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compiler.program import Vec
from ..dsl.types import SCALARS
from .arithmetic import ROWS as ARITHMETIC
from .arithmetic import emit_saturate, saturated
from .base import Instruction
from .emission import (
    Value,
    call_like,
    concatenate,
    constant,
    convert,
    dtype,
    is_float,
    shuffle,
)
from .floats import Floats

# A sum of 16 bits that saturates first changes no 8-bit result if what is added is at most this.
MAX_PACKED_ADD = 32767 - 255


def _dot(vec: Vec, acc: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    group, t = len(x) // vec.lanes, dtype(vec.scalar)
    with np.errstate(over="ignore", invalid="ignore"):
        product = x.astype(t) * y.astype(t)
        return acc + product.reshape(vec.lanes, group).sum(axis=1, dtype=t)


def dot(floats: Floats) -> Instruction:
    """The row `dot`, as this CPU multiplies and adds floats.

    acc[i] + sum over g of x[i*group + g] * y[i*group + g], all widened to the accumulator's type.
    """

    def emit(b: Any, vec: Vec, acc: Value, x: Value, y: Value) -> Any:
        group, result = x.lanes // vec.lanes, acc.llvm
        for g in range(group):
            lanes = range(g, x.lanes, group)
            u, v = (
                convert(
                    b,
                    vec,
                    Value(
                        shuffle(b, s.llvm, s.llvm, lanes) if group > 1 else s.llvm,
                        s.scalar,
                        vec.lanes,
                    ),
                )
                for s in (x, y)
            )
            if is_float(vec.scalar):
                result = floats.multiply_add(b, u, v, result)
            else:
                result = b.add(result, b.mul(u, v))
        return result

    return Instruction("dot", _dot, emit)


def _dot_words(vec: Vec, acc: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x bytes [lane][4]; y words [even, odd elements of the group][lane][2]."""
    t = dtype(vec.scalar)
    pairs = np.moveaxis(x.reshape(vec.lanes, 2, 2), -1, 0).astype(t)
    products = pairs * y.reshape(2, vec.lanes, 2).astype(t)
    return acc + products.sum(axis=(0, 2), dtype=t)


def emit_dot_words(b: Any, vec: Vec, acc: Value, x: Value, y: Value) -> Any:
    """acc[i] + sum over g < 4 of x[4i + g] * the word of y that stands for it."""
    result, n = acc.llvm, 2 * vec.lanes
    for g in range(4):
        start = g % 2 * n + g // 2
        places = range(g, x.lanes, 4), range(start, start + n, 2)
        u, v = (
            convert(b, vec, Value(shuffle(b, s.llvm, s.llvm, lanes), s.scalar, vec.lanes))
            for s, lanes in zip((x, y), places, strict=True)
        )
        result = b.add(result, b.mul(u, v))
    return result


def _dotbits(vec: Vec, acc: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = np.bitwise_count(x ^ y).reshape(vec.lanes, -1).sum(axis=1, dtype=np.int64)
    return (acc + bits).astype(dtype(vec.scalar))


def emit_dotbits(b: Any, vec: Vec, acc: Value, x: Value, y: Value) -> Any:
    """acc + popcount(x ^ y): how many bits differ, in words as wide as an accumulator."""
    t = acc.llvm.type
    differing = b.xor(b.bitcast(x.llvm, t), b.bitcast(y.llvm, t))
    return b.add(acc.llvm, call_like(b, "ctpop", differing))


def _narrow(vec: Vec, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate([saturated(Vec(vec.scalar, len(p)), p) for p in parts])


def emit_narrow(b: Any, vec: Vec, *parts: Value) -> Any:
    """Several i32 vectors saturated to 8 or 16 bits, one after another in one register."""
    return concatenate(b, [emit_saturate(b, Vec(vec.scalar, p.lanes), p) for p in parts])


def _narrow_add(vec: Vec, *args: Any) -> np.ndarray:
    *parts, zero_point = args
    return _narrow(vec, *(p.astype(np.int64) + int(zero_point) for p in parts))


def emit_narrow_add(b: Any, vec: Vec, *args: Any) -> Any:
    """saturate(v + zero_point) of several i32 vectors in one register, exact for every v.

    The last argument is the number to add. A sum beyond i32 saturates, as it would in 8 or 16 bits.
    """
    *parts, zero_point = args
    if SCALARS[vec.scalar].bits == 8 and abs(zero_point) <= MAX_PACKED_ADD:
        half = Vec("i16", vec.lanes)
        sums = call_like(b, "sadd.sat", emit_narrow(b, half, *parts), constant(half, zero_point))
        return emit_saturate(b, vec, Value(sums, "i16", vec.lanes))
    moved = []
    for p in parts:
        offset = constant(Vec("i32", p.lanes), zero_point)
        moved.append(Value(call_like(b, "sadd.sat", p.llvm, offset), "i32", p.lanes))
    return emit_narrow(b, vec, *moved)


def _horizontal(name: str, row: Instruction, function: Callable[..., Any]) -> Instruction:
    """Halves folded onto each other: the order of the sum is fixed by the number of lanes."""

    def meaning(vec: Vec, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            while len(x) > 1:
                x = function(x[: len(x) // 2], x[len(x) // 2 :])
        return x

    def emit(b: Any, vec: Vec, x: Value) -> Any:
        value, n = x.llvm, x.lanes
        while n > 1:
            n //= 2
            low = Value(shuffle(b, value, value, range(n)), vec.scalar, n)
            high = Value(shuffle(b, value, value, range(n, 2 * n)), vec.scalar, n)
            value = row.emit(b, Vec(vec.scalar, n), low, high)
        return value

    return Instruction(name, meaning, emit)


_BY_NAME = {row.name: row for row in ARITHMETIC}

ROWS = (
    Instruction("dotbits", _dotbits, emit_dotbits),
    Instruction("dot_words", _dot_words, emit_dot_words),
    Instruction("narrow", _narrow, emit_narrow),
    Instruction("narrow_add", _narrow_add, emit_narrow_add),
    _horizontal("hadd", _BY_NAME["add"], np.add),
    _horizontal("hmax", _BY_NAME["max"], np.fmax),
    _horizontal("hmin", _BY_NAME["min"], np.fmin),
)
