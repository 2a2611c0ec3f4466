"""The portable rows that touch memory: loads, broadcasts, gathers, stores and table lookups.

Turns a register type and an address into the elements there, or the other way round. What is not
valid is neither read nor written. An address is (memory, offset) in a meaning, which checks its
bounds, and a Pointer in an emission.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..compiler.program import Vec
from ..compiler.turn import NEAR, PIECE
from ..dsl.types import SCALARS
from .base import Instruction
from .emission import (
    Pointer,
    Value,
    at,
    call,
    concatenate,
    dtype,
    element,
    interleave,
    is_signed,
    lane_mask,
    llvm_type,
    shuffle,
    splat,
    suffix,
    zeros,
)


def _inside(what: str, memory: np.ndarray, offset: int, n: int) -> None:
    assert offset in range(len(memory) - n + 1), f"{what} {offset}+{n} outside {len(memory)}"


def _load(vec: Vec, memory: np.ndarray, offset: int, valid: int | None = None) -> np.ndarray:
    out = np.zeros(vec.lanes, dtype(vec.scalar))
    n = vec.lanes if valid is None else valid
    _inside("load", memory, offset, n)
    out[:n] = memory[offset : offset + n]
    return out


def emit_load(b: Any, vec: Vec, p: Pointer, valid: int | None = None) -> Any:
    """The lanes after p; those past `valid` are 0 and not read: two loads that may overlap."""
    if valid is None or valid == vec.lanes:
        return b.load(at(b, p, 0, llvm_type(vec)), align=p.bytes)
    n = 1 << (valid.bit_length() - 1)
    part = llvm_type(Vec(vec.scalar, n))
    first = b.load(at(b, p, 0, part), align=p.bytes)
    last = b.load(at(b, p, valid - n, part), align=p.bytes)
    # Lane i is first[i], or last[i - (valid - n)], which is place n + that of the two in a row.
    inside = [i if i < n else 2 * n - valid + i for i in range(min(valid, 2 * n))]
    both = shuffle(b, first, last, [*inside, *([0] * (vec.lanes - valid))])
    beyond = [vec.lanes + i for i in range(valid, vec.lanes)]
    return shuffle(b, both, zeros(both.type), [*range(valid), *beyond])


def emit_masked_load(b: Any, vec: Vec, p: Pointer, valid: int | None = None) -> Any:
    """The same in one load, for a CPU with a mask for each lane."""
    if valid is None or valid == vec.lanes:
        return emit_load(b, vec, p)
    t = llvm_type(vec)
    name = f"llvm.masked.load.{suffix(t)}.p0"
    return call(b, name, t, at(b, p, 0, t), lane_mask(vec.lanes, valid), zeros(t))


def _pieces(vec: Vec, memory: np.ndarray, offset: int, *places: int) -> np.ndarray:
    n = vec.lanes // len(places)
    return np.concatenate([_load(Vec(vec.scalar, n), memory, offset + p) for p in places])


def emit_pieces(b: Any, vec: Vec, p: Pointer, *places: int) -> Any:
    """As many equal parts as there are places, each from its place after p."""
    t = llvm_type(Vec(vec.scalar, vec.lanes // len(places)))
    return concatenate(b, [b.load(at(b, p, n, t), align=p.bytes) for n in places])


def _rows(
    vec: Vec, memory: np.ndarray, offset: int, stride: int, count: int, valid: int
) -> np.ndarray:
    n = PIECE // SCALARS[vec.scalar].bits
    out = np.zeros((vec.lanes // n, n), dtype(vec.scalar))
    for i in range(count):
        _inside("rows", memory, offset + i * stride, valid)
        out[i, :valid] = memory[offset + i * stride : offset + i * stride + valid]
    return out.ravel()


def emit_rows(b: Any, vec: Vec, p: Pointer, stride: int, count: int, valid: int) -> Any:
    """Pieces of 16 bytes: `valid` elements of each of `count` rows, `stride` elements apart; the
    others are 0 and not read.
    """
    from llvmlite import ir

    one = Vec(vec.scalar, PIECE // SCALARS[vec.scalar].bits)
    found = [
        emit_load(b, one, Pointer(at(b, p, i * stride, ir.IntType(8)), p.scalar), valid)
        for i in range(count)
    ]
    missing = vec.lanes // one.lanes - count
    return concatenate(b, [*found, *([zeros(llvm_type(one))] * missing)])


def _broadcast(
    vec: Vec, memory: np.ndarray, offset: int, group: int, valid: int | None = None
) -> np.ndarray:
    n = group if valid is None else valid
    _inside("broadcast", memory, offset, n)
    one = np.zeros(group, dtype(vec.scalar))
    one[:n] = memory[offset : offset + n]
    return np.tile(one, vec.lanes // group)


def emit_broadcast(b: Any, vec: Vec, p: Pointer, group: int, valid: int | None = None) -> Any:
    """The `group` elements at p, over and over; those past `valid` are 0 and not read."""
    from llvmlite import ir

    if group == 1:
        e = element(vec.scalar)
        return splat(b, b.load(at(b, p, 0, e), align=p.bytes), vec.lanes)
    word = ir.IntType(group * p.bytes * 8)
    if valid is None or valid == group:
        one = b.load(at(b, p, 0, word), align=p.bytes)
    else:
        small = ir.IntType(p.bytes * 8)
        one = ir.Constant(word, 0)
        for i in range(valid):
            part = b.zext(b.load(at(b, p, i, small), align=p.bytes), word)
            one = b.or_(one, b.shl(part, ir.Constant(word, 8 * p.bytes * i)))
    return b.bitcast(splat(b, one, vec.lanes // group), llvm_type(vec))


def _collect(vec: Vec, memory: np.ndarray, offset: int, group: int, *steps: int) -> np.ndarray:
    one = np.zeros(group, dtype(vec.scalar))
    for g, step in enumerate(steps):
        _inside("collect", memory, offset + step, 1)
        one[g] = memory[offset + step]
    return np.tile(one, vec.lanes // group)


def emit_collect(b: Any, vec: Vec, p: Pointer, group: int, *steps: int) -> Any:
    """The elements `steps` after p as a group, over and over; zeros where there are fewer. A whole
    group in two runs is two words, which both lie between its first and its last element.
    """
    from llvmlite import ir

    bits = p.bytes * 8
    word, small = ir.IntType(group * bits), ir.IntType(bits)
    jumps = [g for g in range(1, len(steps)) if steps[g] != steps[g - 1] + 1]
    if len(steps) == group and len(jumps) == 1 and steps[-1] >= group:
        low = (1 << jumps[0] * bits) - 1
        first, last = (
            b.load(at(b, p, start, word), align=p.bytes) for start in (0, steps[-1] - group + 1)
        )
        one = b.or_(b.and_(first, word(low)), b.and_(last, word(~low)))
    else:
        one = ir.Constant(word, 0)
        for g, step in enumerate(steps):
            part = b.zext(b.load(at(b, p, step, small), align=p.bytes), word)
            one = b.or_(one, b.shl(part, word(bits * g)))
    return b.bitcast(splat(b, one, vec.lanes // group), llvm_type(vec))


def _gather(
    vec: Vec,
    memory: np.ndarray,
    offset: int,
    group: int,
    lane_stride: int,
    group_stride: int,
    lanes: int,
    valid: int,
) -> np.ndarray:
    out = np.zeros((vec.lanes // group, group), dtype(vec.scalar))
    for i in range(lanes):
        for g in range(valid):
            where = offset + i * lane_stride + g * group_stride
            _inside("gather", memory, where, 1)
            out[i, g] = memory[where]
    return out.ravel()


def emit_gather(
    b: Any,
    vec: Vec,
    p: Pointer,
    group: int,
    lane_stride: int,
    group_stride: int,
    lanes: int,
    valid: int,
) -> Any:
    """Lane i, group element g is what lies at i*lane_stride + g*group_stride.

    Lanes past `lanes` and group elements past `valid` are 0 and not read.
    """
    from llvmlite import ir

    if lane_stride == 1 and group > 1 and group & (group - 1) == 0:
        return interleave(b, rows(b, vec, p, group, group_stride, lanes, valid))
    near = 0 < abs(lane_stride) <= NEAR and p.bytes <= 4
    if group == 1 and near and valid == 1 < lanes:
        return neighbours(b, vec, p, lane_stride, lanes)
    result, e = zeros(llvm_type(vec)), element(vec.scalar)
    for i in range(lanes):
        for g in range(valid):
            one = b.load(at(b, p, i * lane_stride + g * group_stride, e), align=p.bytes)
            result = b.insert_element(result, one, ir.IntType(32)(i * group + g))
    return result


def neighbours(b: Any, vec: Vec, p: Pointer, stride: int, lanes: int) -> Any:
    """Lane i is what lies at i*stride, a few elements apart: all that lies between is loaded, in
    whole registers of which the last ends with the last lane.
    """
    from llvmlite import ir

    span = (lanes - 1) * abs(stride) + 1
    low = Pointer(at(b, p, min((lanes - 1) * stride, 0), ir.IntType(8)), p.scalar)
    places = [i * stride if stride > 0 else (lanes - 1 - i) * -stride for i in range(lanes)]
    if span <= vec.lanes:
        loaded = {0: emit_load(b, vec, low, span)}
    else:
        starts = [*range(0, span - vec.lanes, vec.lanes), span - vec.lanes]
        t = llvm_type(vec)
        loaded = {n: b.load(at(b, low, n, t), align=p.bytes) for n in starts}
    result = zeros(llvm_type(vec))
    for start, part in loaded.items():
        kept = list(range(vec.lanes))
        for i, place in enumerate(places):
            if start <= place < start + vec.lanes:
                kept[i] = vec.lanes + place - start
        result = shuffle(b, result, part, kept)
    return result


def rows(
    b: Any, vec: Vec, p: Pointer, group: int, group_stride: int, lanes: int, valid: int
) -> Sequence[Any]:
    """A vector for each group element: `lanes` neighbours in memory; zeros past `valid` of them."""
    from llvmlite import ir

    one = Vec(vec.scalar, vec.lanes // group)
    loaded = [
        emit_load(b, one, Pointer(at(b, p, g * group_stride, ir.IntType(8)), p.scalar), lanes)
        for g in range(valid)
    ]
    return [*loaded, *([zeros(llvm_type(one))] * (group - valid))]


def _store(
    vec: Vec,
    memory: np.ndarray,
    offset: int,
    value: np.ndarray,
    valid: int | None = None,
    first: int = 0,
) -> None:
    n = vec.lanes if valid is None else valid
    _inside("store", memory, offset, n)
    memory[offset : offset + n] = value[first : first + n]


def emit_store(
    b: Any, vec: Vec, p: Pointer, value: Value, valid: int | None = None, first: int = 0
) -> None:
    """`valid` lanes from `first` on to p, no others: two stores that may overlap."""
    if first:
        assert valid is not None
        emit_store(b, *_part(b, vec, p, value, valid, first), valid)
        return
    t = value.llvm.type
    if valid is None or valid == vec.lanes:
        b.store(value.llvm, at(b, p, 0, t), align=p.bytes)
        return
    n = 1 << (valid.bit_length() - 1)
    part = llvm_type(Vec(vec.scalar, n))
    for start in sorted({0, valid - n}):
        some = shuffle(b, value.llvm, value.llvm, range(start, start + n))
        b.store(some, at(b, p, start, part), align=p.bytes)


def _part(
    b: Any, vec: Vec, p: Pointer, value: Value, valid: int, first: int
) -> tuple[Vec, Pointer, Value]:
    """A store of the lanes from `first` on as one of the first lanes of a shorter vector."""
    part = Vec(vec.scalar, 1 << (valid - 1).bit_length())
    lanes = [min(first + i, vec.lanes - 1) for i in range(part.lanes)]
    return part, p, Value(shuffle(b, value.llvm, value.llvm, lanes), value.scalar, part.lanes)


def emit_masked_store(
    b: Any, vec: Vec, p: Pointer, value: Value, valid: int | None = None, first: int = 0
) -> None:
    """The same in one store, for a CPU with a mask for each lane."""
    from llvmlite import ir

    if first:
        assert valid is not None
        emit_masked_store(b, *_part(b, vec, p, value, valid, first), valid)
        return
    t = value.llvm.type
    # One lane is stored on its own: LLVM 22 turns a masked store of one lane of a value that was
    # just narrowed from i32 into a store of all four bytes, three of them past the end. Whole
    # registers of a smaller size take one plain store, twice as fast as a masked one.
    if valid is None or valid in (1, vec.lanes) or valid * p.bytes in (8, 16, 32):
        emit_store(b, vec, p, value, valid)
        return
    name = f"llvm.masked.store.{suffix(t)}.p0"
    call(b, name, ir.VoidType(), value.llvm, at(b, p, 0, t), lane_mask(vec.lanes, valid))


def _store_bits(vec: Vec, memory: np.ndarray, offset: int, value: np.ndarray, valid: int) -> None:
    words = np.packbits(value[:valid], bitorder="little")
    _inside("store_bits", memory, offset, len(words))
    memory[offset : offset + len(words)] = words


def emit_store_bits(b: Any, vec: Vec, p: Pointer, value: Value, valid: int) -> None:
    """A mask as packed bits, little-endian; bits past `valid` in the last byte are 0."""
    from llvmlite import ir

    bits = value.llvm
    if valid < vec.lanes:
        bits = b.and_(bits, lane_mask(vec.lanes, valid))
    if vec.lanes < 8:
        padding = [vec.lanes] * (8 - vec.lanes)
        bits = shuffle(b, bits, zeros(bits.type), [*range(vec.lanes), *padding])
    whole = b.bitcast(bits, ir.IntType(bits.type.count))
    if valid == whole.type.width and valid in (8, 16, 32, 64):
        b.store(whole, at(b, p, 0, whole.type), align=1)
        return
    for done in range(-(-valid // 8)):
        byte = b.lshr(whole, whole.type(8 * done)) if done else whole
        byte = b.trunc(byte, ir.IntType(8)) if byte.type.width > 8 else byte
        b.store(byte, at(b, p, done, byte.type), align=1)


def _lookup(vec: Vec, memory: np.ndarray, offset: int, index: np.ndarray) -> np.ndarray:
    return memory[offset + index.astype(np.int64)].astype(dtype(vec.scalar))


def emit_lookup(b: Any, vec: Vec, p: Pointer, index: Value) -> Any:
    """Lane i is element index[i] after p; the indices are proven to be inside the table."""
    from llvmlite import ir

    i64, e = ir.IntType(64), element(vec.scalar)
    result = ir.Constant(llvm_type(vec), ir.Undefined)
    for i in range(vec.lanes):
        lane = b.extract_element(index.llvm, ir.IntType(32)(i))
        extend = b.sext if is_signed(index.scalar) else b.zext
        wide = lane if lane.type.width == 64 else extend(lane, i64)
        address = b.gep(p.llvm, [b.mul(wide, i64(p.bytes))])
        one = b.load(b.bitcast(address, e.as_pointer()), align=p.bytes)
        result = b.insert_element(result, one, ir.IntType(32)(i))
    return result


MASKED = (
    Instruction("load", _load, emit_masked_load),
    Instruction("store", _store, emit_masked_store),
)
ROWS = (
    Instruction("load", _load, emit_load),
    Instruction("pieces", _pieces, emit_pieces),
    Instruction("rows", _rows, emit_rows),
    Instruction("broadcast", _broadcast, emit_broadcast),
    Instruction("collect", _collect, emit_collect),
    Instruction("gather", _gather, emit_gather),
    Instruction("store", _store, emit_store),
    Instruction("store_bits", _store_bits, emit_store_bits),
    Instruction("lookup", _lookup, emit_lookup),
)
