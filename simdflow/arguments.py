"""Arguments: what a call gives, checked, as the arrays that a kernel's machine code reads.

It knows operand types, stored shapes and packings, and copies only what is not as the kernel reads
it; it calls nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .compiler.artifact import stored_dtype
from .compiler.packing import Packing
from .compiler.program import Memory
from .dsl.errors import OperandError
from .dsl.types import OperandType
from .operands import Bits, PackedOperand, check_range, pack, pack_bits, packed_parts, type_of

Operand = Any  # an array, Bits, PackedOperand, or a SciPy CSR matrix


def operand_type(a: Operand) -> OperandType:
    """The operand type of anything a kernel takes. Raises OperandError for what it does not."""
    if isinstance(a, (PackedOperand, Bits)):
        return a.type
    if hasattr(a, "indptr"):
        return pack(a).type
    return type_of(np.asarray(a))


class _Csr:
    """A CSR operand as the interpreter reads it."""

    def __init__(self, parts: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> None:
        self.indptr, self.indices, self.data = parts["indptr"], parts["indices"], parts["data"]
        self.shape = shape


def plain(a: Operand) -> Any:
    """What is inside an operand: the words of Bits, the copy of a PackedOperand, else itself."""
    if isinstance(a, Bits):
        return a.words
    if isinstance(a, PackedOperand):
        if a.csr is not None:
            return _Csr(a.csr, a.type.shape)
        return a.array
    return a


def check_count(kernel: str, inputs: tuple[str, ...], operands: tuple[Operand, ...]) -> None:
    """Raise OperandError unless there is one operand for each input."""
    if len(operands) != len(inputs):
        raise OperandError(
            f"{kernel}: {len(operands)} operands given; it takes {len(inputs)}: "
            f"{', '.join(inputs)}. Give them in this order."
        )


def checked_inputs(
    kernel: str,
    inputs: tuple[str, ...],
    types: Mapping[str, OperandType],
    operands: tuple[Operand, ...],
) -> dict[str, Operand]:
    """Input name -> operand. Raises OperandError for a wrong count, type, shape or value."""
    check_count(kernel, inputs, operands)
    named = dict(zip(inputs, operands, strict=True))
    for n, a in named.items():
        want, have = types[n], operand_type(a)
        if want.border and (have.scalar, have.shape) == (want.scalar, inside(want)):
            named[n] = a = _bordered(a, want)
            have = operand_type(a)
        if (have.scalar, have.shape) != (want.scalar, want.memory):
            raise OperandError(
                f"{kernel}: {n} is {have.scalar}[{', '.join(map(str, have.shape))}]; compiled for "
                f"{want.scalar}[{', '.join(map(str, want.memory))}]. Specialize the kernel for it."
            )
        values = a.array if isinstance(a, PackedOperand) else a
        if isinstance(a, PackedOperand) and want.low <= have.low and have.high <= want.high:
            continue  # checked when it was packed
        if isinstance(values, np.ndarray):
            check_range(kernel, n, values[want.inside] if want.frame else values, want)
        elif isinstance(a, PackedOperand) and a.csr is not None:
            check_range(kernel, n, a.csr["data"], want)
    return named


def inside(kind: OperandType) -> tuple[int, ...]:
    """The shape of a bordered operand without its border."""
    return tuple(n - a - b for n, (a, b) in zip(kind.shape, kind.border, strict=True))


def _bordered(a: Operand, kind: OperandType) -> Operand:
    """A copy of an array (or Bits) with the border of its type around it."""
    values = a.values() if isinstance(a, Bits) else np.asarray(plain(a))
    padded = np.pad(values, kind.border, constant_values=kind.border_value)
    return pack_bits(padded) if isinstance(a, Bits) else padded


def checked_out(
    kernel: str, label: str, out: Operand, kind: OperandType, named: Mapping[str, Operand]
) -> Operand:
    """`out` itself.

    Raises OperandError if it is no writeable array of the type, or shares memory with an input.
    """
    have = out.words if isinstance(out, Bits) else out
    dtype, shape = stored_dtype(kind), kind.stored
    if not isinstance(have, np.ndarray) or have.dtype != dtype or have.shape != shape:
        shown = (
            f"{have.dtype}{list(have.shape)}"
            if isinstance(have, np.ndarray)
            else type(have).__name__
        )
        raise OperandError(
            f"{kernel}: {label} is {shown}; {dtype}{list(shape)} is needed. "
            f"Pass such an array, or none."
        )
    if not have.flags.writeable:
        raise OperandError(
            f"{kernel}: {label} is read-only; an output is written. Pass a writeable array."
        )
    for n, a in named.items():
        if isinstance(a, np.ndarray) and np.may_share_memory(a, have):
            raise OperandError(
                f"{kernel}: {label} overlaps {n}; an output must be memory of its own. "
                f"Pass another array."
            )
    return out


def native_arrays(
    memories: Sequence[Memory],
    packings: Mapping[str, Packing],
    named: Mapping[str, Operand],
    out: np.ndarray,
    scratch: Callable[[Memory], np.ndarray],
) -> dict[str, np.ndarray]:
    """Memory name -> array, in the form the kernel reads.

    Operands are packed here if they were not before.
    """
    arrays: dict[str, np.ndarray] = {}
    for m in memories:
        if m.role == "scratch":
            arrays[m.name] = scratch(m)
            continue
        if m.role == "out":
            arrays[m.name] = out
            continue
        if m.name in arrays:
            continue
        a = named[m.operand]
        if m.role in ("indptr", "indices", "data"):
            csr = (a if isinstance(a, PackedOperand) else pack(a)).csr
            assert csr is not None
            arrays[m.name] = csr[m.role]
            continue
        packing = packings.get(m.operand)
        if packing is None:
            stored = plain(a)
            arrays[m.name] = stored if type(stored) is np.ndarray else np.asarray(stored)
            continue
        if isinstance(a, PackedOperand):
            parts = a.parts(packing)
        else:
            parts = packed_parts(np.asarray(plain(a)), packing)
        for suffix, part in zip(("", "_sums"), parts, strict=False):
            arrays[f"{m.operand}{suffix}"] = part
    return arrays
