"""Operands to measure with: random arrays over the whole range of their types, as a real call has
them: borders of their value, weights packed, bits packed, compressed rows with sorted columns.

Floating point operands are small whole numbers: sums of their products are exact in any order, so
that a wrong dataflow shows as a difference and not as rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import inside
from ..compiler.packing import aligned
from ..dsl.nest import LoopNest
from ..dsl.types import OperandType
from ..operands import Bits, PackedOperand, pack, pack_bits

WHOLE = 8  # floating point values are -8 to 8
SEED = 2310


def operands(nest: LoopNest, seed: int = SEED) -> dict[str, Any]:
    """Input name -> operand of a bound nest."""
    random = np.random.default_rng(seed)
    return {o.name: _operand(nest.type_of(o.name), random) for o in nest.operands if o.role == "in"}


def _operand(kind: OperandType, random: np.random.Generator) -> Any:
    if kind.storage == "csr":
        return PackedOperand(kind, None, _rows(kind, random))
    shape = inside(kind) if kind.border else kind.memory
    values = _values(kind, shape, random)
    if kind.border:
        values = np.pad(values, kind.border, constant_values=kind.border_value)
    found: np.ndarray | Bits = pack_bits(values) if kind.scalar.kind == "b" else values
    if kind.storage != "packed":
        return found if isinstance(found, Bits) else roomy(found, kind.slack)
    packed = pack(found)
    packed.type = kind  # the range that the type promises, which the values keep
    return packed


def roomy(values: np.ndarray, slack: int) -> np.ndarray:
    """A copy on a cache line of its own, with so many bytes behind it that may be read."""
    memory = aligned(values.nbytes + slack)[: values.nbytes].view(values.dtype)
    copy = memory.reshape(values.shape)
    copy[...] = values
    return copy


def _values(kind: OperandType, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = kind.scalar.dtype
    if kind.scalar.kind == "b":
        return (2 * random.integers(0, 2, shape) - 1).astype(np.int8)
    if kind.scalar.is_float:
        low, high = max(kind.low, -WHOLE), min(kind.high, WHOLE)
        if high - low < 1:
            return random.uniform(kind.low, kind.high, shape).astype(dtype)
        return random.integers(int(np.ceil(low)), int(high), shape, endpoint=True).astype(dtype)
    low, high = int(kind.low), int(kind.high)
    return random.integers(low, high, shape, dtype=dtype, endpoint=True)


def _rows(kind: OperandType, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Nonzeros at random places of a matrix, the columns of each row sorted."""
    rows, columns = kind.shape
    places = np.sort(random.choice(rows * columns, kind.nonzeros, replace=False))
    counts = np.bincount(places // columns, minlength=rows)
    return {
        "indptr": np.concatenate(([0], np.cumsum(counts))).astype(np.int32),
        "indices": (places % columns).astype(np.int32),
        "data": _values(kind, (kind.nonzeros,), random),
    }
