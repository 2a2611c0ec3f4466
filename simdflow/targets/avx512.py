"""The target avx512: 512 bits, 32 registers; VNNI and VPOPCNTDQ where the CPU has them.

Turns the portable table into one with vpdpbusd, packs and permutes, and a depthwise gather of four
rows. Which CPU this is, detect.py finds out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType

from .avx2 import FOURS, PAIRS
from .base import WIDENED, Dot, Instruction, Target

NEEDS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma")
WIDTH = 512


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
        cpu=cpu,
        features=features,
        rows=partial(_rows, vnni, "avx512vbmi" in has),
    )


def _rows(vnni: bool, vbmi: bool) -> Mapping[str, Instruction]:
    from . import x86
    from .depthwise import gather
    from .memory import MASKED

    own = (
        x86.dot(WIDTH, vnni),
        x86.flip(WIDTH),
        *x86.narrowing(WIDTH),
        *x86.to_integers(WIDTH),
        gather(vbmi),
        *MASKED,
    )
    return MappingProxyType(x86.NATIVE_ROWS | {row.name: row for row in own})
