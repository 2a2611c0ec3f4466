"""The target avx2: x86-64 with AVX2 and FMA, 256 bits, 16 registers, never an AVX-512 instruction.

Turns the portable table into one with FMA, pmaddwd and packs; CPUs that have AVX-VNNI also get
vpdpbusd in its VEX form. Which CPU this is, detect.py finds out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from types import MappingProxyType

from .base import WIDENED, Dot, Instruction, Target

NEEDS = ("avx2", "fma")
WIDTH = 256

# What LLVM takes for granted on a haswell and a virtual machine may hide: each is switched on or
# off explicitly.
OPTIONAL = (
    *("aes", "avx", "bmi", "bmi2", "cmov", "crc32", "cx16", "f16c", "fsgsbase", "fxsr", "invpcid"),
    *("lzcnt", "mmx", "movbe", "pclmul", "popcnt", "rdrnd", "sahf", "sse", "sse2", "sse3"),
    *("sse4.1", "sse4.2", "ssse3", "xsave", "xsaveopt"),
)

PAIRS = tuple(
    Dot(a, b, "i32", 2, uops=1.0 if a == b == "i16" else 2.0)
    for a in ("u8", "i8", "i16")
    for b in ("u8", "i8", "i16")
)
FOURS = (
    Dot("u8", "i8", "i32", 4),
    Dot("i8", "u8", "i32", 4),
    Dot("i8", "i8", "i32", 4, flip=True),
)


BITS = Dot("bit", "bit", "i32", 32, uops=6.0)
WORDS = tuple(
    Dot(a, b, "i32", 4, uops=2.0, adds=2.0, widened=True)
    for a in ("u8", "i8")
    for b in ("u8", "i8")
)


def avx2(has: Collection[str]) -> Target:
    """The target for an x86-64 CPU with these LLVM features, which include NEEDS."""
    vnni = "avxvnni" in has
    optional = ",".join(f"{'+' if f in has else '-'}{f}" for f in (*OPTIONAL, "avxvnni"))
    return Target(
        name="avx2",
        width=WIDTH,
        registers=16,
        budget=14,
        dots=(
            *(FOURS if vnni else WORDS),
            *PAIRS,
            *WIDENED,
            Dot("bit", "bit", "i32", 32, uops=6.0),
        ),
        cpu="haswell",
        features=f"{optional},+avx2,+fma",
        rows=partial(_rows, vnni),
    )


def _rows(vnni: bool) -> Mapping[str, Instruction]:
    from . import x86

    products = x86.dot(WIDTH, vnni), x86.dot_words(WIDTH), x86.flip(WIDTH)
    own = (*products, *x86.narrowing(WIDTH), *x86.to_integers(WIDTH))
    return MappingProxyType(x86.NATIVE_ROWS | {row.name: row for row in own})
