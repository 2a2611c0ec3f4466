"""The vocabulary of an emission: registers and addresses as LLVM values, and how to build on them.

Turns element names and lanes into LLVM types, constants, shuffles, conversions and intrinsic calls,
for every target alike. Holds no instruction itself and checks nothing; llvmlite is imported only
when something is emitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..compiler.program import Vec
from ..dsl.types import SCALARS


@dataclass(frozen=True)
class Value:
    """A register while emitting: the LLVM value, its element name and lanes."""

    llvm: Any
    scalar: str
    lanes: int


@dataclass(frozen=True)
class Pointer:
    """An address while emitting: an i8 pointer to the first byte, and the memory's element name."""

    llvm: Any
    scalar: str

    @property
    def bytes(self) -> int:
        """Bytes of one element; bits are read a byte at a time."""
        return max(SCALARS[self.scalar].bits // 8, 1)


def dtype(scalar: str) -> np.dtype:
    """The numpy type of an element; a mask's is bool."""
    return np.dtype(bool) if scalar == "bool" else SCALARS[scalar].dtype


def is_float(scalar: str) -> bool:
    """Whether it is `f32` or `f64`."""
    return scalar in ("f32", "f64")


def is_signed(scalar: str) -> bool:
    """Whether it is a signed integer."""
    return scalar.startswith("i")


def element(scalar: str) -> Any:
    """The LLVM type of an element."""
    from llvmlite import ir

    if scalar == "bool":
        return ir.IntType(1)
    if scalar == "f32":
        return ir.FloatType()
    if scalar == "f64":
        return ir.DoubleType()
    return ir.IntType(max(SCALARS[scalar].bits, 8))


def llvm_type(vec: Vec) -> Any:
    """The LLVM vector type of a register."""
    from llvmlite import ir

    return ir.VectorType(element(vec.scalar), vec.lanes)


def suffix(t: Any) -> str:
    """An LLVM type as it stands in an intrinsic's name: v16f32, i32."""
    from llvmlite import ir

    if isinstance(t, ir.VectorType):
        return f"v{t.count}{suffix(t.element)}"
    return {"float": "f32", "double": "f64"}.get(str(t), str(t))


def call(b: Any, name: str, result: Any, *args: Any) -> Any:
    """Call an LLVM intrinsic by its full name, declared on first use."""
    from llvmlite import ir

    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(result, [a.type for a in args]), name)
    return b.call(function, args)


def call_like(b: Any, name: str, x: Any, *args: Any) -> Any:
    """Call the overload of an LLVM intrinsic for x's type, which is the result's type too."""
    return call(b, f"llvm.{name}.{suffix(x.type)}", x.type, x, *args)


def constant(vec: Vec, value: float) -> Any:
    """The number in every lane."""
    from llvmlite import ir

    kept = float(value) if is_float(vec.scalar) else int(value)
    return ir.Constant(llvm_type(vec), [ir.Constant(element(vec.scalar), kept)] * vec.lanes)


def zeros(t: Any) -> Any:
    """All lanes zero, of an LLVM type."""
    from llvmlite import ir

    return ir.Constant(t, None)


def shuffle(b: Any, x: Any, y: Any, lanes: Sequence[int]) -> Any:
    """The lanes of x, then y, that are named, in that order."""
    return b.shuffle_vector(x, y, _numbers(tuple(lanes)))


# Few are different, and making them was a tenth of writing a kernel.
@cache
def _numbers(lanes: tuple[int, ...]) -> Any:
    from llvmlite import ir

    return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))


def splat(b: Any, scalar: Any, lanes: int) -> Any:
    """An LLVM scalar in every lane."""
    from llvmlite import ir

    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = b.insert_element(undefined, scalar, ir.IntType(32)(0))
    return shuffle(b, one, undefined, [0] * lanes)


def at(b: Any, p: Pointer, elements: int, t: Any) -> Any:
    """A typed pointer `elements` after p."""
    from llvmlite import ir

    offset = ir.IntType(64)(elements * p.bytes)
    moved = b.gep(p.llvm, [offset], inbounds=True) if elements else p.llvm
    return b.bitcast(moved, t.as_pointer())


def lane_mask(lanes: int, valid: int) -> Any:
    """The first `valid` lanes on."""
    from llvmlite import ir

    bit = ir.IntType(1)
    return ir.Constant(ir.VectorType(bit, lanes), [bit(int(i < valid)) for i in range(lanes)])


def interleave(b: Any, rows: Sequence[Any]) -> Any:
    """Vectors a, b, ... to a0 b0 ... a1 b1 ...; the number of vectors is a power of two."""
    rows = list(rows)
    n = rows[0].type.count
    while len(rows) > 1:
        half = len(rows) // 2
        lanes = [k for i in range(n) for k in (i, n + i)]
        rows = [shuffle(b, rows[i], rows[i + half], lanes) for i in range(half)]
        n *= 2
    return rows[0]


def concatenate(b: Any, parts: Sequence[Any]) -> Any:
    """Vectors of one type end to end, any number of them."""
    parts = list(parts)
    n = parts[0].type.count
    total = n * len(parts)
    while len(parts) > 1:
        # An odd one out is doubled, and its copy cut off at the end.
        parts += [parts[-1]] * (len(parts) % 2)
        parts = [
            shuffle(b, x, y, range(2 * n)) for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
        n *= 2
    return parts[0] if n == total else shuffle(b, parts[0], parts[0], range(total))


def convert(b: Any, vec: Vec, x: Value) -> Any:
    """The same value in another type, which holds it (checked before); else its low bits."""
    t = llvm_type(vec)
    if x.scalar == vec.scalar:
        return x.llvm
    if x.scalar == "bool":
        return b.uitofp(x.llvm, t) if is_float(vec.scalar) else b.zext(x.llvm, t)
    if is_float(x.scalar):
        if is_float(vec.scalar):
            return b.fpext(x.llvm, t) if vec.scalar == "f64" else b.fptrunc(x.llvm, t)
        return b.fptosi(x.llvm, t) if is_signed(vec.scalar) else b.fptoui(x.llvm, t)
    signed = is_signed(x.scalar)
    if is_float(vec.scalar):
        return b.sitofp(x.llvm, t) if signed else b.uitofp(x.llvm, t)
    have, want = SCALARS[x.scalar].bits, SCALARS[vec.scalar].bits
    if have == want:
        return x.llvm
    if have > want:
        return b.trunc(x.llvm, t)
    return b.sext(x.llvm, t) if signed else b.zext(x.llvm, t)


def opaque(b: Any, x: Any) -> Any:
    """x, which LLVM can neither see through nor move past what is around it (x86 only)."""
    from llvmlite import ir

    return b.asm(ir.FunctionType(x.type, [x.type]), "", "=v,0", [x], side_effect=False)
