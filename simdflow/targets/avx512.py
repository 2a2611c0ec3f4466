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
from .emission import Pointer, concatenate, llvm_type, shuffle
from .memory import MASKED, rows
from .portable import WIDENED

NEEDS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma")
WIDTH = 512


def _gather() -> Instruction:
    """The row `gather`, quick for 16 lanes of 4 bytes from 4 rows in memory: depthwise, by kw."""
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
        shape = (group, lane_stride, vec.lanes, p.bytes)
        if shape != (4, 1, 64, 1):
            return portable.emit(b, vec, p, group, lane_stride, group_stride, lanes, valid)
        whole = concatenate(b, rows(b, vec, p, group, group_stride, lanes, valid))
        # Words to their 128 bits, then the bytes inside them.
        words = b.bitcast(whole, llvm_type(Vec("i32", 16)))
        words = shuffle(b, words, words, [4 * g + lane for lane in range(4) for g in range(4)])
        order = [16 * lane + 4 * g + i for lane in range(4) for i in range(4) for g in range(4)]
        placed = b.bitcast(_opaque(b, words), whole.type)
        return shuffle(b, placed, placed, order)

    return Instruction("gather", portable.meaning, emit)


def _opaque(b: Any, x: Any) -> Any:
    """x, which LLVM cannot see through: of two large shuffles it would make eleven small ones."""
    from llvmlite import ir

    return b.asm(ir.FunctionType(x.type, [x.type]), "", "=v,0", [x], side_effect=False)


def avx512(cpu: str, has: Collection[str], features: str) -> Target:
    """The target for the CPU LLVM calls `cpu`, with these features, which include NEEDS.

    `features` is the same as LLVM's feature string, in which what the CPU's name implies but a
    virtual machine hides is switched off.
    """
    vnni = "avx512vnni" in has
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
        table=MappingProxyType(
            x86.NATIVE_ROWS
            | {
                row.name: row
                for row in (
                    x86.dot(WIDTH, vnni),
                    *x86.narrowing(WIDTH),
                    *x86.to_integers(WIDTH),
                    *MASKED,
                    _gather(),
                )
            }
        ),
    )
