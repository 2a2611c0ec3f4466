"""Oracle: what a kernel's body says about a problem, and whether another result agrees with it.

It runs the body once and compares arrays: exactly where the nest is exact, else within the error
that floats may have. It runs no stage of the compiler but bind and check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dsl.nest import LoopNest
from ..dsl.types import OperandType, bit
from ..kernel import Kernel
from ..operands import Bits, PackedOperand
from .bounds import Near, bounds, is_exact, masked, within
from .problem import Problem, dense


@dataclass
class Oracle:
    """What the body says about a problem: its result, and how far a float may be from it."""

    kernel: Kernel
    problem: Problem

    def __post_init__(self) -> None:
        self.nest: LoopNest = self.problem.nest(self.kernel)
        self.operands = self.problem.operands(self.kernel)
        self.inputs = {k: dense(v) for k, v in self.operands.items()}
        kind = self.nest.type_of(self.nest.out.name)
        # Given, because its type may follow from value ranges, which arrays do not carry.
        out = poisoned(kind, 0x55)
        self.kernel.interpret(*self.operands.values(), out=out, **dict(self.problem.constants))
        self.result = plain(out)
        self._limits: Near | None = None

    def limits(self) -> Near:
        if self._limits is None:
            arrays = {
                k: masked(self.inputs[k], _pattern(v)) if _is_csr(v) else self.inputs[k]
                for k, v in self.operands.items()
            }
            self._limits = bounds(self.nest, arrays)
        return self._limits

    def difference(self, got: np.ndarray, near_only: bool = False) -> str:
        """What is wrong with a result, or ''."""
        want = self.result
        if got.shape != want.shape:
            return f"shape {got.shape}, expected {want.shape}"
        if not near_only and got.dtype != want.dtype:
            return f"dtype {got.dtype}, expected {want.dtype}"
        floats = want.dtype.kind == "f"
        if is_exact(self.nest) and not (near_only and floats):
            wrong = ~((got == want) | ((got != got) & (want != want)))
            allowed: Any = np.zeros(want.shape)
        else:
            allowed = 2 * self.limits().error
            wrong = ~within(got, want, allowed)
        if not wrong.any():
            return ""
        spot = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
        extra = f" (within {np.asarray(allowed)[spot]:.3g})" if np.asarray(allowed)[spot] else ""
        return (
            f"{int(wrong.sum())} of {wrong.size} elements differ; at {list(spot)} it is "
            f"{got[spot]}, "
            f"expected {want[spot]}{extra}"
        )


def plain(result: Any) -> np.ndarray:
    """A kernel's output as an array: bits as i8 of +1 and -1."""
    return result.values() if isinstance(result, Bits) else np.asarray(result)


def _is_csr(given: Any) -> bool:
    return isinstance(given, PackedOperand) and given.csr is not None


def _pattern(given: PackedOperand) -> np.ndarray:
    """Where a compressed operand stores something."""
    assert given.csr is not None
    stored = np.zeros(given.shape, bool)
    rows = np.repeat(np.arange(given.shape[0]), np.diff(given.csr["indptr"]))
    stored[rows, given.csr["indices"]] = True
    return stored


def poisoned(kind: OperandType, poison: int) -> Any:
    """An output whose every byte is `poison`."""
    bits = kind.scalar == bit
    shape = (*kind.shape[:-1], -(-kind.shape[-1] // 8)) if bits and kind.shape else kind.shape
    words = np.empty(shape, kind.scalar.dtype)
    words.reshape(-1).view(np.uint8)[:] = poison
    return Bits(words, kind.shape) if bits else words
