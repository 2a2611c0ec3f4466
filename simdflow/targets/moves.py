"""Instructions that only move values: copy, tail, weaving and its undoing, a strided store."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiler.program import Vec
from ..dsl.types import SCALARS
from .base import Instruction
from .emission import Pointer, Value, at, concatenate, element, llvm_type, shuffle, zeros


def _tail(vec: Vec, x: np.ndarray, y: np.ndarray, valid: int) -> np.ndarray:
    return np.where(np.arange(vec.lanes) < valid, x, y)


def emit_tail(b: Any, vec: Vec, x: Value, y: Value, valid: int) -> Any:
    """The first `valid` lanes of x, the others of y."""
    lanes = [i if i < valid else vec.lanes + i for i in range(vec.lanes)]
    return shuffle(b, x.llvm, y.llvm, lanes)


def _zip(vec: Vec, x: np.ndarray, y: np.ndarray, half: int, size: int) -> np.ndarray:
    n = 8 // x.dtype.itemsize
    pieces = [a.reshape(-1, 2, n // size, size)[:, half] for a in (x, y)]
    return np.stack(pieces, axis=2).reshape(vec.lanes)


def emit_zip(b: Any, vec: Vec, x: Value, y: Value, half: int, size: int) -> Any:
    """Of every 16 bytes the lower (half=0) or upper 8 of x and of y, `size` elements by turns."""
    n = 64 // SCALARS[vec.scalar].bits
    lanes = [
        2 * n * piece + n * half + size * i + k + side * vec.lanes
        for piece in range(vec.lanes // (2 * n))
        for i in range(n // size)
        for side in range(2)
        for k in range(size)
    ]
    return shuffle(b, x.llvm, y.llvm, lanes)


def _unweave(vec: Vec, x: np.ndarray) -> np.ndarray:
    return x.reshape(4, -1, 4).swapaxes(0, 1).reshape(vec.lanes)


def emit_unweave(b: Any, vec: Vec, x: Value) -> Any:
    """Four parts of words of 4 bytes to the first word of each part, the second of each, ..."""
    n = vec.lanes // 16
    words = b.bitcast(x.llvm, llvm_type(Vec("i32", 4 * n)))
    order = [n * part + word for word in range(n) for part in range(4)]
    return b.bitcast(shuffle(b, words, words, order), x.llvm.type)


def _join(vec: Vec, x: np.ndarray, lanes: int, *valid: int) -> np.ndarray:
    kept = np.concatenate([x[i * lanes : i * lanes + n] for i, n in enumerate(valid)])
    return np.concatenate([kept, np.zeros(vec.lanes - len(kept), x.dtype)])


def emit_join(b: Any, vec: Vec, x: Value, lanes: int, *valid: int) -> Any:
    """Of each `lanes` lanes as many as are valid, end to end; zeros after them."""
    kept = [i * lanes + k for i, n in enumerate(valid) for k in range(n)]
    beyond = [vec.lanes] * (vec.lanes - len(kept))
    return shuffle(b, x.llvm, zeros(x.llvm.type), [*kept, *beyond])


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


def _interleave(vec: Vec, *parts: np.ndarray) -> np.ndarray:
    return np.stack(parts, axis=1).reshape(vec.lanes)


def emit_interleave(b: Any, vec: Vec, *parts: Value) -> Any:
    """The first lane of every part, the second of every part, ..."""
    n, k = parts[0].lanes, len(parts)
    done = []
    for begin in range(0, vec.lanes, n):
        # One shuffle of two registers for each part but the first.
        whole = parts[0].llvm
        for p in range(1, k):
            wanted = [divmod(begin + i, k) for i in range(n)]
            first = [lane if p == 1 else i for i, (lane, _) in enumerate(wanted)]
            lanes = [n + lane if part == p else first[i] for i, (lane, part) in enumerate(wanted)]
            whole = shuffle(b, whole, parts[p].llvm, lanes)
        done.append(whole)
    return concatenate(b, done)


ROWS = (
    Instruction("copy", lambda vec, x: x.copy(), lambda b, vec, x: x.llvm),
    Instruction("tail", _tail, emit_tail),
    Instruction("zip", _zip, emit_zip),
    Instruction("unweave", _unweave, emit_unweave),
    Instruction("join", _join, emit_join),
    Instruction("interleave", _interleave, emit_interleave),
    Instruction("scatter", _scatter, emit_scatter),
)
