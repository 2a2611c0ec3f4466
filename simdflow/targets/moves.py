"""Instructions that only move values: copy, the tail of a vector, and a strided store."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiler.program import Vec
from .base import Instruction
from .emission import Pointer, Value, at, element, shuffle


def _tail(vec: Vec, x: np.ndarray, y: np.ndarray, valid: int) -> np.ndarray:
    return np.where(np.arange(vec.lanes) < valid, x, y)


def emit_tail(b: Any, vec: Vec, x: Value, y: Value, valid: int) -> Any:
    """The first `valid` lanes of x, the others of y."""
    lanes = [i if i < valid else vec.lanes + i for i in range(vec.lanes)]
    return shuffle(b, x.llvm, y.llvm, lanes)


def _scatter(
    vec: Vec, memory: np.ndarray, offset: int, value: np.ndarray, stride: int, valid: int
) -> None:
    assert offset >= 0 and offset + (valid - 1) * stride < len(memory), "scatter outside"
    memory[offset : offset + (valid - 1) * stride + 1 : stride] = value[:valid]


def emit_scatter(b: Any, vec: Vec, p: Pointer, value: Value, stride: int, valid: int) -> None:
    """Lane i to element i*stride."""
    from llvmlite import ir

    for i in range(valid):
        one = b.extract_element(value.llvm, ir.IntType(32)(i))
        b.store(one, at(b, p, i * stride, element(vec.scalar)), align=p.bytes)


ROWS = (
    Instruction("copy", lambda vec, x: x.copy(), lambda b, vec, x: x.llvm),
    Instruction("tail", _tail, emit_tail),
    Instruction("scatter", _scatter, emit_scatter),
)
