"""The target avx512: 512 bits, 32 registers; VNNI and VPOPCNTDQ where the CPU has them.

Turns the portable table into one with vpdpbusd, packs and permutes, and a depthwise gather of four
rows. Which CPU this is, detect.py finds out.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType
from typing import Any

from ..compiler.program import Vec
from . import x86
from .avx2 import FOURS, PAIRS
from .base import Dot, Instruction, Target
from .emission import Pointer, concatenate, llvm_type, opaque, shuffle
from .memory import MASKED, rows
from .portable import WIDENED

NEEDS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma")
WIDTH = 512


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


def avx512(cpu: str, has: Collection[str], features: str) -> Target:
    """The target for the CPU LLVM calls `cpu`, with these features, which include NEEDS.

    `features` is the same as LLVM's feature string, in which what the CPU's name implies but a
    virtual machine hides is switched off.
    """
    vnni = "avx512vnni" in has
    own = (
        x86.dot(WIDTH, vnni),
        x86.flip(WIDTH),
        *x86.narrowing(WIDTH),
        *x86.to_integers(WIDTH),
        GATHER,
        *MASKED,
    )
    bits = Dot("bit", "bit", "i32", 32, uops=1.5 if "avx512vpopcntdq" in has else 6.0)
    return Target(
        name="avx512",
        width=WIDTH,
        registers=32,
        budget=30,
        dots=(*(FOURS if vnni else ()), *PAIRS, *WIDENED, bits),
        rates=(("dot", 2.0), ("load", 2.0), ("store", 1.0), ("other", 4.0)),
        cpu=cpu,
        features=features,
        table=MappingProxyType(x86.NATIVE_ROWS | {row.name: row for row in own}),
    )
