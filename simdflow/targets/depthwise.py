"""The load of depthwise layers on AVX-512: four rows of pixels as one register of 4-byte groups.

Replaces the portable row `gather` where group='kw' or 'kh' of 8-bit operands wants it.
"""

from __future__ import annotations

from typing import Any

from ..compiler.program import Vec
from . import x86
from .base import Instruction
from .emission import Pointer, concatenate, llvm_type, opaque, shuffle
from .memory import rows


def _emit_gather(
    b: Any,
    vec: Vec,
    p: Pointer,
    group: int,
    lane_stride: int,
    group_stride: int,
    lanes: int,
    valid: int,
) -> Any:
    """Quick for 16 lanes of 4 bytes from 4 rows in memory: the depthwise load, grouped by kw."""
    if (group, lane_stride, vec.lanes, p.bytes) != (4, 1, 64, 1):
        portable = x86.NATIVE_ROWS["gather"]
        return portable.emit(b, vec, p, group, lane_stride, group_stride, lanes, valid)
    whole = concatenate(b, rows(b, vec, p, group, group_stride, lanes, valid))
    # Words to their 128 bits, then the bytes inside them.
    words = b.bitcast(whole, llvm_type(Vec("i32", 16)))
    words = shuffle(b, words, words, [4 * g + lane for lane in range(4) for g in range(4)])
    order = [16 * lane + 4 * g + i for lane in range(4) for i in range(4) for g in range(4)]
    placed = b.bitcast(opaque(b, words), whole.type)
    return shuffle(b, placed, placed, order)


GATHER = Instruction("gather", x86.NATIVE_ROWS["gather"].meaning, _emit_gather)
