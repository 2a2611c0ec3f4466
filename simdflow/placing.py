"""Placing: memory for an output, where stores to it do not hold up the loads of an input.

A load waits for an earlier store whose address has the same last twelve bits, until the CPU knows
that they differ. Rows of a power of two of bytes meet that at every pixel: depthwise 3x3 of
14x14x512 f32 in tiles of 2 x 2 pixels, down the columns, takes 16 us where its output lies well,
38 us where it lies whole pages from the input (one Zen 4 core). It makes arrays; it runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .compiler.artifact import stored_dtype
from .dsl.types import OperandType
from .operands import Bits

PAGE = 4096
# Past the input, modulo pages: 128 bytes or more from every multiple of a row of 256, 512, 1024,
# 2048 and 4096 bytes.
APART = 1408
LARGE = 1 << 18  # bytes of an output from which placing (3 us) is worth it unasked


def empty(kind: OperandType, *, beside: np.ndarray | None = None) -> Any:
    """An uninitialized output of an operand type, for `out=` and `bind`: an array, or Bits.

    Args:
        kind: such as `sf.f32[1, 14, 14, 512]`.
        beside: the input that it is computed from, if there is one: the output then starts 1408
            bytes past it, modulo 4096, so that no load of the input waits for a store of the output
            that it has nothing to do with.
    """
    stored = placed(kind.stored, stored_dtype(kind), beside, kind.slack)
    return Bits(stored, kind.shape) if kind.scalar.kind == "b" else stored


def placed(
    shape: tuple[int, ...], dtype: np.dtype, beside: np.ndarray | None, slack: int = 0
) -> np.ndarray:
    """An uninitialized array at a multiple of 64 bytes, APART from `beside`, so many bytes behind
    which may be read.
    """
    raw = np.empty(math.prod(shape) * dtype.itemsize + PAGE + slack, np.uint8)
    other = beside.__array_interface__["data"][0] // 64 * 64 if beside is not None else -APART
    start = (other + APART - raw.__array_interface__["data"][0]) % PAGE
    return np.ndarray(shape, dtype, raw, start)


def large(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether a result is worth placing."""
    return math.prod(shape) * dtype.itemsize >= LARGE


def new(shape: tuple[int, ...], dtype: np.dtype, operands: Sequence[Any]) -> np.ndarray:
    """An uninitialized array for a result of operands, placed if it is large."""
    if not large(shape, dtype):
        return np.empty(shape, dtype)
    return placed(shape, dtype, next((a for a in operands if type(a) is np.ndarray), None))
