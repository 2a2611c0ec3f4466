"""Layer: what an op runs, as data: kernels, the operands of each, and the buffers between them.

An op's function makes one for shapes, options and weights; `ready` runs it. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiled import CompiledKernel
from ..compiler.packing import aligned
from ..dsl.types import OperandType

SLACK = 64


@dataclass(frozen=True)
class Buffer:
    """An array between two kernels: zero or `fill` everywhere at first, 64 bytes of slack after.

    of, border  where it is nothing but an input with a border of `fill`: that input, and (before,
                after) of each axis. Whoever owns the memory may let the input lie in it from the
                start, and leave out the step that copies it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fill: float = 0
    of: str = ""
    border: tuple[tuple[int, int], ...] = ()

    def make(self) -> np.ndarray:
        return filled(self.shape, self.dtype, self.fill)


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel of a layer.

    operands  names of inputs and buffers, or constants
    out       the buffer it writes; `view` is the shape in which it does, if it is another one
    """

    kernel: CompiledKernel
    operands: tuple[Any, ...]
    out: str = "out"
    view: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """What a layer runs, as data.

    inputs    name -> the shape in which the kernels read the array (a reshape, no copy)
    out       the operand type of the result
    """

    inputs: Mapping[str, tuple[int, ...]]
    out: OperandType
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...] = ()

    @property
    def cycles(self) -> float:
        """What the cost model predicts for its kernels, one after the other."""
        return sum(float(step.kernel.cost.cycles) for step in self.steps)


def filled(shape: tuple[int, ...], dtype: np.dtype, value: float = 0) -> np.ndarray:
    """A C-ordered array of `value` on a 64-byte boundary, with 64 readable bytes after it."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array = aligned(size + SLACK)[:size].view(dtype).reshape(shape)
    if value:
        array.fill(value)
    return array
