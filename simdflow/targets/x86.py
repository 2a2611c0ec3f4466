"""Rows that AVX2 and AVX-512 share: the same x86 instructions at 128, 256 and 512 bits.

Turns a dot product into pmaddwd or vpdpbusd and narrowing into packs and a permute, at the width
the registers have; lanes and types that no instruction fits go to the portable row. Which of these
a CPU has, its file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..compiler.program import Vec
from .base import Instruction
from .emission import (
    Value,
    call,
    call_like,
    concatenate,
    constant,
    convert,
    llvm_type,
    opaque,
    shuffle,
)
from .floats import NATIVE
from .products import MAX_PACKED_ADD
from .rows import rows

NATIVE_ROWS = rows(NATIVE)

REGISTERS = (128, 256, 512)
# Intrinsics by the bits of their registers.
_MULTIPLY_PAIRS = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}
_TRUNCATE = {
    128: "sse2.cvttps2dq",
    256: "avx.cvtt.ps2dq.256",
    512: "avx512.mask.cvttps2dq.512",
}
_NEAREST = {128: "sse2.cvtps2dq", 256: "avx.cvt.ps2dq.256", 512: "avx512.mask.cvtps2dq.512"}
CURRENT_DIRECTION = 4
_PACK = {128: "sse2.{}.128", 256: "avx2.{}", 512: "avx512.{}.512"}


def multiply_pairs(b: Any, acc: Value, x: Value, y: Value) -> Any:
    """acc[i] + x[2i] * y[2i] + x[2i+1] * y[2i+1] by pmaddwd, whose factors have 16 bits: exact."""
    wide = Vec("i16", x.lanes)
    name = f"llvm.x86.{_MULTIPLY_PAIRS[acc.lanes * 32]}"
    pairs = call(b, name, acc.llvm.type, convert(b, wide, x), convert(b, wide, y))
    return b.add(acc.llvm, pairs)


def multiply_fours(b: Any, acc: Value, unsigned: Value, signed: Value) -> Any:
    """acc[i] + sum over j < 4 of u8 unsigned[4i+j] * i8 signed[4i+j] by vpdpbusd: exact."""
    name = f"llvm.x86.avx512.vpdpbusd.{acc.lanes * 32}"
    return call(b, name, acc.llvm.type, acc.llvm, unsigned.llvm, signed.llvm)


def multiply_words(b: Any, acc: Value, x: Value, y: Value) -> Any:
    """acc[i] + sum over j < 4 of x[4i+j] * y[4i+j], bytes of either sign, by two pmaddwd: exact.

    Even bytes and odd ones are widened where they lie, by a shift or two, which all products of a
    register share: half of the shuffles that widening by pairs takes.
    """
    name = f"llvm.x86.{_MULTIPLY_PAIRS[acc.lanes * 32]}"
    total = acc.llvm
    for even in (True, False):
        halves = (_bytes(b, v, even) for v in (x, y))
        total = b.add(total, call(b, name, acc.llvm.type, *halves))
    return total


def dot_words(width: int) -> Instruction:
    """The row `dot_words` by two pmaddwd, whose second factors come from memory as they are."""
    portable = NATIVE_ROWS["dot_words"]

    def emit(b: Any, vec: Vec, acc: Value, x: Value, y: Value) -> Any:
        bits, n = vec.lanes * 32, 2 * vec.lanes
        if vec.scalar != "i32" or bits not in REGISTERS or bits > width:
            return portable.emit(b, vec, acc, x, y)
        name, total = f"llvm.x86.{_MULTIPLY_PAIRS[bits]}", acc.llvm
        for even in (True, False):
            words = shuffle(b, y.llvm, y.llvm, range(0 if even else n, n if even else 2 * n))
            total = b.add(total, call(b, name, acc.llvm.type, _bytes(b, x, even), words))
        return total

    return Instruction("dot_words", portable.meaning, emit)


def _bytes(b: Any, x: Value, even: bool) -> Any:
    """The even or odd bytes of a register, as 16-bit numbers."""
    wide = Vec("i16", x.lanes // 2)
    words = b.bitcast(x.llvm, llvm_type(wide))
    eight = constant(wide, 8)
    if x.scalar == "u8":
        return b.and_(words, constant(wide, 0xFF)) if even else b.lshr(words, eight)
    return b.ashr(b.shl(words, eight) if even else words, eight)


def dot(width: int, vnni: bool) -> Instruction:
    """The row `dot` with pmaddwd and FMA, and with vpdpbusd where there is VNNI.

    LLVM cannot split these instructions: registers wider than `width` bits go to the portable row.
    """
    portable = NATIVE_ROWS["dot"]

    def emit(b: Any, vec: Vec, acc: Value, x: Value, y: Value) -> Any:
        group, kinds = x.lanes // vec.lanes, {x.scalar, y.scalar}
        if vec.scalar == "i32" and vec.lanes * 32 in REGISTERS and vec.lanes * 32 <= width:
            if group == 4 and kinds == {"u8", "i8"} and vnni:
                unsigned, signed = (x, y) if x.scalar == "u8" else (y, x)
                return multiply_fours(b, acc, unsigned, signed)
            if group == 4 and kinds <= {"u8", "i8"}:
                return multiply_words(b, acc, x, y)
            if group == 2 and kinds <= {"u8", "i8", "i16"}:
                return multiply_pairs(b, acc, x, y)
        return portable.emit(b, vec, acc, x, y)

    return Instruction("dot", portable.meaning, emit)


def _pack(b: Any, name: str, scalar: str, low: Any, high: Any) -> Any:
    """Two registers saturated to half-width elements, 64 bits of each in every 128."""
    bits = low.type.count * low.type.element.width
    t = llvm_type(Vec(scalar, 2 * low.type.count))
    return call(b, f"llvm.x86.{_PACK[bits].format(name)}", t, low, high)


def _pack_four(b: Any, vec: Vec, parts: list[Any], zero_point: int) -> Any:
    """Four i32 registers in one of bytes, 4 bytes of every part in each 128 bits until sorted."""
    halves = [_pack(b, "packssdw", "i16", *parts[i : i + 2]) for i in (0, 2)]
    halves = [_add_saturating(b, h, zero_point) for h in halves]
    name = "packuswb" if vec.scalar == "u8" else "packsswb"
    packed = _pack(b, name, vec.scalar, *halves)
    # Words now lie as (128-bit lane, part); wanted is part by part.
    order = [4 * lane + part for part in range(4) for lane in range(packed.type.count // 16)]
    return _permuted_words(b, packed, order)


def _pack_two(b: Any, vec: Vec, parts: list[Any], zero_point: int) -> Any:
    """Two i32 registers of 256 or 512 bits in one of bytes of half their width."""
    halves = _add_saturating(b, _pack(b, "packssdw", "i16", *parts), zero_point)
    n = halves.type.count // 2
    low, high = (shuffle(b, halves, halves, range(i, i + n)) for i in (0, n))
    name = "packuswb" if vec.scalar == "u8" else "packsswb"
    packed = _pack(b, name, vec.scalar, low, high)
    # Words now lie as (128-bit lane of the result, upper or lower half, part); wanted is part
    # by part.
    order = [
        4 * lane + 2 * half + part
        for part in range(2)
        for half in range(2)
        for lane in range(n // 8)
    ]
    return _permuted_words(b, packed, order)


def _add_saturating(b: Any, x: Any, zero_point: int) -> Any:
    if not zero_point:
        return x
    return call_like(b, "sadd.sat", x, constant(Vec("i16", x.type.count), zero_point))


def _permuted_words(b: Any, packed: Any, order: list[int]) -> Any:
    if order == sorted(order):
        return packed
    words = b.bitcast(packed, llvm_type(Vec("i32", len(order))))
    return b.bitcast(shuffle(b, words, words, order), packed.type)


def narrowing(width: int) -> tuple[Instruction, Instruction]:
    """The rows `narrow` and `narrow_add` by packs, for registers of up to `width` bits."""
    narrow, narrow_add = NATIVE_ROWS["narrow"], NATIVE_ROWS["narrow_add"]

    def fits(vec: Vec, parts: Sequence[Value]) -> bool:
        bits = parts[0].lanes * 32
        whole = bits in REGISTERS and bits <= width and len(parts) > 1
        return whole and vec.scalar in ("u8", "i8") and all(p.scalar == "i32" for p in parts)

    def emit_narrow(b: Any, vec: Vec, *parts: Value) -> Any:
        return _packed(b, vec, parts, 0) if fits(vec, parts) else narrow.emit(b, vec, *parts)

    def emit_narrow_add(b: Any, vec: Vec, *args: Any) -> Any:
        *parts, zero_point = args
        if fits(vec, parts) and abs(zero_point) <= MAX_PACKED_ADD:
            return _packed(b, vec, parts, int(zero_point))
        return narrow_add.emit(b, vec, *args)

    return (
        Instruction("narrow", narrow.meaning, emit_narrow),
        Instruction("narrow_add", narrow_add.meaning, emit_narrow_add),
    )


def _packed(b: Any, vec: Vec, parts: Sequence[Value], zero_point: int) -> Any:
    """The bytes of any number of i32 registers, by fours and twos."""
    lanes = parts[0].lanes
    done = []
    for i in range(0, len(parts), 4):
        some = [p.llvm for p in parts[i : i + 4]]
        if len(some) == 2 and lanes > 4:
            done.append(_pack_two(b, vec, some, zero_point))
        else:
            whole = _pack_four(b, vec, some + [some[-1]] * (4 - len(some)), zero_point)
            n = len(some) * lanes
            done.append(whole if len(some) == 4 else shuffle(b, whole, whole, range(n)))
    widest = max(d.type.count for d in done)
    padded = [_padded(b, d, widest) for d in done]
    joined = concatenate(b, padded)
    return (
        joined if joined.type.count == vec.lanes else shuffle(b, joined, joined, range(vec.lanes))
    )


def _padded(b: Any, x: Any, lanes: int) -> Any:
    n = x.type.count
    return x if n == lanes else shuffle(b, x, x, [min(i, n - 1) for i in range(lanes)])


def to_integers(width: int) -> tuple[Instruction, ...]:
    """The rows that round or saturate f32 to i32, quick in up to `width` bits.

    They are `saturate`, `round_saturate` and `round_bounded`.
    """

    def row(name: str, intrinsics: dict[int, str], bounded: bool = False) -> Instruction:
        portable = NATIVE_ROWS[name]

        def emit(b: Any, vec: Vec, x: Value) -> Any:
            bits = vec.lanes * 32
            if (x.scalar, vec.scalar) != ("f32", "i32") or bits not in REGISTERS or bits > width:
                return portable.emit(b, vec, x)
            return _converted(b, vec, x, f"llvm.x86.{intrinsics[bits]}", bounded)

        return Instruction(name, portable.meaning, emit)

    return (
        row("saturate", _TRUNCATE),
        row("round_saturate", _NEAREST),
        row("round_bounded", _NEAREST, bounded=True),
    )


def _converted(b: Any, vec: Vec, x: Value, name: str, bounded: bool) -> Any:
    """The instruction gives -2^31 for all it cannot convert, which is right for what is below."""
    from llvmlite import ir

    t = llvm_type(vec)
    if vec.lanes == 16:
        everywhere = (constant(vec, 0), ir.IntType(16)(0xFFFF), ir.IntType(32)(CURRENT_DIRECTION))
        whole = call(b, name, t, x.llvm, *everywhere)
    else:
        whole = call(b, name, t, x.llvm)
    if bounded:
        return whole
    over = b.fcmp_ordered(">=", x.llvm, constant(Vec("f32", vec.lanes), 2.0**31))
    whole = b.select(over, constant(vec, 2**31 - 1), whole)
    return b.select(b.fcmp_ordered("ord", x.llvm, x.llvm), whole, constant(vec, 0))


def flip(width: int) -> Instruction:
    """i8 to u8 by adding 128, as one xor of 32-bit lanes, into which a broadcast from memory folds.

    The constant is opaque: LLVM 22 otherwise moves the xor before the broadcast, on lanes it then
    knows to be undefined, and its code generator does not come to an end.
    """
    portable = NATIVE_ROWS["flip"]

    def emit(b: Any, vec: Vec, x: Value) -> Any:
        if x.lanes * 8 not in REGISTERS or x.lanes * 8 > width:
            return portable.emit(b, vec, x)
        words = Vec("i32", x.lanes // 4)
        sign = opaque(b, constant(words, -0x7F7F7F80))
        return b.bitcast(b.xor(b.bitcast(x.llvm, llvm_type(words)), sign), x.llvm.type)

    return Instruction("flip", portable.meaning, emit)
