"""The load of depthwise layers on AVX-512: four rows of pixels as one register of 4-byte groups.

Replaces the portable row `gather` where group='kw' or 'kh' of 8-bit operands wants it.
"""

from __future__ import annotations

from typing import Any

from ..compiler.program import Vec
from . import x86
from .base import Instruction
from .emission import Pointer, call, concatenate, llvm_type, opaque, shuffle
from .memory import rows


def gather(bytes_permuted: bool) -> Instruction:
    """The row `gather`, quick for 16 lanes of 4 bytes from 4 rows in memory, grouped by kw or kh.

    `bytes_permuted` says that the CPU permutes the bytes of a whole register at once (VBMI).
    """
    portable = x86.NATIVE_ROWS["gather"]

    def emit(
        b: Any,
        vec: Vec,
        p: Pointer,
        group: int,
        lane_stride: int,
        group_stride: int,
        lanes: int,
        valid: int,
    ) -> Any:
        from llvmlite import ir

        if (group, lane_stride, vec.lanes, p.bytes) != (4, 1, 64, 1):
            return portable.emit(b, vec, p, group, lane_stride, group_stride, lanes, valid)
        whole = concatenate(b, rows(b, vec, p, group, group_stride, lanes, valid))
        if bytes_permuted:
            # An opaque order: LLVM 22 makes 15 instructions of a shuffle that it knows interleaves.
            order = [16 * g + i for i in range(16) for g in range(4)]
            known = ir.Constant(whole.type, [ir.IntType(8)(i) for i in order])
            name = "llvm.x86.avx512.permvar.qi.512"
            return call(b, name, whole.type, whole, opaque(b, known))
        # Words to their 128 bits, then the bytes inside them.
        words = b.bitcast(whole, llvm_type(Vec("i32", 16)))
        words = shuffle(b, words, words, [4 * g + lane for lane in range(4) for g in range(4)])
        order = [16 * lane + 4 * g + i for lane in range(4) for i in range(4) for g in range(4)]
        placed = b.bitcast(opaque(b, words), whole.type)
        return shuffle(b, placed, placed, order)

    return Instruction("gather", portable.meaning, emit)
