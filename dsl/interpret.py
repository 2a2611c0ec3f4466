"""A kernel's body run as Python: the oracle that everything compiled is compared with.

Operands become views whose elements are exact scalars and whose every index is checked; a stored
value must fit the output's type. Slow on purpose, and shares no code with the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bits import pack_bits, unpack_bits
from .errors import OperandError
from .types import BY_DTYPE, Exact, OperandType, Scalar, bit


class View:
    """A dense operand as the body sees it: `shape`, `x[i, j]` and `out[i, j] = value`."""

    def __init__(self, name: str, values: np.ndarray, scalar: Scalar) -> None:
        self.name, self.values, self.scalar = name, values, scalar
        self.shape: tuple[int, ...] = values.shape

    def __getitem__(self, index: Any) -> Exact:
        element = self.values[self._checked(index)]
        return Exact(float(element) if self.scalar.is_float else int(element), self.scalar)

    def __setitem__(self, index: Any, value: Any) -> None:
        at = self._checked(index)
        stored = Exact.of(value)
        if stored.scalar and stored.is_float != self.scalar.is_float:
            raise TypeError(f"{self.name}[{_shown(at)}] = {stored}: cast it to {self.scalar.name}")
        if not stored.scalar and stored.is_float and not self.scalar.is_float:
            raise TypeError(f"{self.name}[{_shown(at)}] = {stored}: cast it to {self.scalar.name}")
        self.values[at] = stored.cast(self.scalar).value

    def _checked(self, index: Any) -> tuple[int, ...]:
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) != len(self.shape):
            raise IndexError(
                f"{self.name}[{_shown(parts)}]: {self.name} has {len(self.shape)} axes"
            )
        at = tuple(p.__index__() for p in parts)
        for axis, (i, n) in enumerate(zip(at, self.shape, strict=True)):
            if not 0 <= i < n:
                raise IndexError(
                    f"{self.name}[{_shown(at)}]: index {i} of axis {axis} is outside its size {n}"
                )
        return at


class CsrView:
    """A CSR operand as the body sees it: `sf.nonzeros(w, row)`, `w[row, column]` if stored."""

    def __init__(self, name: str, matrix: Any) -> None:
        self.name, self.shape = name, tuple(int(n) for n in matrix.shape)
        self.indptr, self.indices = np.asarray(matrix.indptr), np.asarray(matrix.indices)
        self.values = np.asarray(matrix.data)
        self.scalar = _scalar(name, self.values)

    def nonzeros(self, row: int) -> list[int]:
        """The columns of a row's stored elements, in order."""
        self._checked(row, 0)
        return [int(c) for c in self.indices[self.indptr[row] : self.indptr[row + 1]]]

    def __getitem__(self, index: tuple[int, int]) -> Exact:
        row, column = index
        self._checked(row, 1)
        stored = self.nonzeros(row)
        if column not in stored:
            raise IndexError(f"{self.name}[{row}, {column}]: not a stored element of row {row}")
        element = self.values[self.indptr[row] + stored.index(column)]
        return Exact(float(element) if self.scalar.is_float else int(element), self.scalar)

    def _checked(self, row: int, columns: int) -> None:
        if not 0 <= row < self.shape[0]:
            raise IndexError(
                f"{self.name}: index {row} of axis 0 is outside its size {self.shape[0]}"
            )


def interpret(
    function: Any,
    arrays: Mapping[str, Any],
    constants: Mapping[str, int | float] | None = None,
    types: Mapping[str, OperandType] | None = None,
) -> None:
    """Run the undecorated `function` on the arrays, writing the output array in place.

    arrays      operand -> array, the output's too; a scipy CSR matrix (or anything with indptr,
                indices, data, shape) for a compressed operand. Borders are part of the array,
                unless its type in `types` has one that the array lacks.
    types       needed for `bit` operands: int8 arrays of +1/-1, or uint8 words as `pack_bits`
                makes them

    Raises IndexError for an index outside an operand, OverflowError for a value that does not fit
    where it is kept, TypeError where an integer meets a float, OperandError for an array that is
    not what its type says.
    """
    views: dict[str, Any] = {}
    packed: list[tuple[np.ndarray, np.ndarray]] = []
    for name, array in arrays.items():
        kind = (types or {}).get(name)
        if hasattr(array, "indptr"):
            views[name] = CsrView(name, array)
            continue
        values = np.asanyarray(array)
        scalar = kind.scalar if kind else _scalar(name, values)
        if scalar == bit and values.dtype == np.uint8:
            words = values
            values = unpack_bits(words, _unbordered(kind)[-1] if kind else 0)
            packed.append((words, values))
        if kind is not None:
            values = _fitted(name, values, kind)
        views[name] = View(name, values, scalar)
    function(**views, **(constants or {}))
    for words, values in packed:
        if words.flags.writeable:
            words[...] = pack_bits(values)


def _unbordered(kind: OperandType) -> tuple[int, ...]:
    if not kind.border:
        return kind.shape
    return tuple(n - a - b for n, (a, b) in zip(kind.shape, kind.border, strict=True))


def _fitted(name: str, values: np.ndarray, kind: OperandType) -> np.ndarray:
    """The array in its type's shape, with the border added where it has none."""
    dtype = np.dtype(np.int8) if kind.scalar == bit else kind.scalar.dtype
    if values.dtype == dtype and values.shape == kind.shape:
        return values
    if values.dtype == dtype and kind.border and values.shape == _unbordered(kind):
        return np.pad(values, kind.border, constant_values=kind.border_value)
    raise OperandError(
        f"interpret: {name}={values.dtype}{list(values.shape)} is not {kind}; "
        f"allowed is {dtype}{list(kind.shape)}. Pass such an array."
    )


def _scalar(name: str, values: np.ndarray) -> Scalar:
    if values.dtype not in BY_DTYPE:
        raise OperandError(
            f"interpret: {name}={values.dtype} is not an element type; allowed are "
            f"{', '.join(str(d) for d in BY_DTYPE)}. Convert the array."
        )
    return BY_DTYPE[values.dtype]


def _shown(index: tuple[Any, ...]) -> str:
    return ", ".join(str(i) for i in index)
