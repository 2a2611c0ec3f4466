"""Operands that are more than an array: packed weights, packed bits, compressed rows.

Each is immutable and knows its operand type; a kernel takes from it the native arrays it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiler.packing import Packing
from .compiler.packing import pack as pack_array
from .dsl.bits import pack_bits as pack_words
from .dsl.bits import unpack_bits as unpack_words
from .dsl.errors import OperandError
from .dsl.types import BY_DTYPE, SCALARS, OperandType, RangedScalar, Scalar, bit


class Bits:
    """An array of +1/-1, stored as bits, 1 for +1.

    `words` u8[..., ceil(C/8)], little-endian; `shape` is [..., C].
    """

    def __init__(self, words: np.ndarray, shape: tuple[int, ...]) -> None:
        words = np.ascontiguousarray(words)
        stored = (*shape[:-1], -(-shape[-1] // 8)) if shape else ()
        if words.dtype != np.uint8 or words.shape != stored:
            raise OperandError(
                f"Bits: words={words.dtype}{list(words.shape)} do not hold shape {list(shape)}; "
                f"uint8{list(stored)} does. Use sf.pack_bits(values)."
            )
        self.words, self.shape = words, tuple(shape)
        self.type = bit[self.shape]

    def values(self) -> np.ndarray:
        """int8 array of +1 and -1."""
        return unpack_words(self.words, self.shape[-1])

    def __repr__(self) -> str:
        return f"Bits{list(self.shape)}"


def pack_bits(values: np.ndarray) -> Bits:
    """`(..., C)` values, positive for +1, as Bits. Raises OperandError for a scalar."""
    values = np.asarray(values)
    return Bits(pack_words(values), values.shape)


class PackedOperand:
    """An immutable operand: a copy of an array, brought into each kernel's own order once.

    `type` is its operand type (storage 'packed' or 'csr'), `array` the read-only copy (None for
    CSR).
    """

    def __init__(
        self, kind: OperandType, array: np.ndarray | None, csr: dict[str, np.ndarray] | None
    ) -> None:
        self.type, self.array, self.csr = kind, array, csr
        self._parts: dict[Packing, tuple[np.ndarray, ...]] = {}
        # By identity first: hashing a Packing takes 2 us, as long as a small kernel.
        self._quick: dict[int, tuple[Packing, tuple[np.ndarray, ...]]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what was packed."""
        return self.type.shape

    def parts(self, packing: Packing) -> tuple[np.ndarray, ...]:
        """The array in a kernel's order: the elements, and the sums if the packing has them.

        Made once.
        """
        known = self._quick.get(id(packing))
        if known is not None and known[0] is packing:
            return known[1]
        found = self._parts.get(packing)
        if found is None:
            assert self.array is not None
            found = self._parts[packing] = packed_parts(self.array, packing)
        self._quick[id(packing)] = (packing, found)
        return found

    def __repr__(self) -> str:
        return f"PackedOperand({self.type})"


def packed_parts(array: np.ndarray, packing: Packing) -> tuple[np.ndarray, ...]:
    """(elements,) or (elements, sums) of a dense array in a kernel's order."""
    raw = pack_array(np.ascontiguousarray(array), packing)
    item = SCALARS[packing.stored].dtype
    elements = raw[: packing.elements * item.itemsize].view(item)
    elements.flags.writeable = False
    if not packing.sums:
        return (elements,)
    sums = raw[packing.sums_at :].view(np.int32)
    sums.flags.writeable = False
    return (elements, sums)


def pack(operand: Any, scalar: Scalar | RangedScalar | None = None) -> PackedOperand:
    """An immutable copy of an array, Bits or SciPy CSR matrix, packed once for each kernel that
    uses it.

    `scalar` may promise a value range: `sf.pack(w, sf.i8.range(-7, 7))`; it is checked here, once.
    Raises OperandError for an element type that is not supported, values outside the range, and CSR
    indices that are not sorted, not unique or out of range.
    """
    if isinstance(operand, PackedOperand):
        return operand
    if isinstance(operand, Bits):
        return PackedOperand(_stored(operand.type), _frozen(operand.words), None)
    if hasattr(operand, "indptr"):
        return _pack_csr(operand, scalar)
    array = _frozen(np.asarray(operand))
    kind = type_of(array, scalar)
    check_range("pack", "w", array, kind)
    return PackedOperand(_stored(kind), array, None)


def _stored(kind: OperandType) -> OperandType:
    from dataclasses import replace

    return replace(kind, storage="packed")


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy


def type_of(array: np.ndarray, scalar: Scalar | RangedScalar | None = None) -> OperandType:
    """The dense operand type of a numpy array. Raises OperandError for other element types."""
    found = BY_DTYPE.get(array.dtype.newbyteorder("="))
    if found is None:
        raise OperandError(
            f"operand: dtype={array.dtype} is not an element type; "
            f"{', '.join(s.name for s in BY_DTYPE.values())} are. Convert the array."
        )
    wanted = scalar.scalar if isinstance(scalar, RangedScalar) else scalar
    if wanted is not None and wanted != found:
        raise OperandError(
            f"operand: dtype={array.dtype} is not {wanted}; give {wanted} or convert the array."
        )
    return (scalar or found)[array.shape]


def check_range(kernel: str, name: str, array: np.ndarray, kind: OperandType) -> None:
    """Raise OperandError when a value breaks the promise of a ranged type."""
    full = (kind.low, kind.high) == (kind.scalar.low, kind.scalar.high)
    if full or kind.scalar.kind == "b" or array.size == 0:
        return
    low, high = array.min(), array.max()
    if not (kind.low <= low and high <= kind.high):
        raise OperandError(
            f"{kernel}: {name} has values from {low} to {high}; its type promises {kind.low:g} to "
            f"{kind.high:g}. Widen the range or clip the values."
        )


def _pack_csr(matrix: Any, scalar: Scalar | RangedScalar | None) -> PackedOperand:
    rows, cols = (int(n) for n in matrix.shape)
    indptr, indices = np.asarray(matrix.indptr), np.asarray(matrix.indices)
    data = _frozen(np.asarray(matrix.data))
    kind = type_of(data, scalar)
    check_range("pack", "w", data, kind)
    problem = _csr_problem(indptr, indices, data, rows, cols)
    if problem:
        raise OperandError(f"pack: CSR {problem}")
    kind = OperandType(
        kind.scalar, (rows, cols), kind.low, kind.high, storage="csr", nonzeros=len(data)
    )
    arrays = {"indptr": indptr.astype(np.int32), "indices": indices.astype(np.int32), "data": data}
    return PackedOperand(kind, None, arrays)


def _csr_problem(
    indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, rows: int, cols: int
) -> str:
    if (
        len(indptr) != rows + 1
        or indptr[0] != 0
        or indptr[-1] != len(data)
        or len(indices) != len(data)
    ):
        return (
            f"indptr has {len(indptr)} entries ending in "
            f"{indptr[-1] if len(indptr) else 'nothing'} for {rows} rows "
            f"and {len(data)} values; rows + 1 entries from 0 to the number of values are needed."
        )
    if np.any(np.diff(indptr) < 0):
        return f"indptr falls at row {int(np.argmax(np.diff(indptr) < 0))}; it must not fall."
    if len(indices) and (indices.min() < 0 or indices.max() >= cols):
        return f"indices run from {indices.min()} to {indices.max()}; 0 to {cols - 1} is allowed."
    if len(indices) > 1:
        rises = np.diff(indices) > 0
        starts = np.unique(indptr[1:-1])
        starts = starts[(starts > 0) & (starts < len(indices))]
        rises[starts - 1] = True
        if not rises.all():
            at = int(np.argmin(rises))
            row = int(np.searchsorted(indptr, at, side="right")) - 1
            what = "duplicate" if indices[at] == indices[at + 1] else "unsorted"
            return (
                f"indices are {what} in row {row}: {indices[at]} then {indices[at + 1]}; each "
                f"row's must rise. Call sum_duplicates() on the matrix."
            )
    return ""
