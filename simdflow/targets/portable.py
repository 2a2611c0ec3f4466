"""The portable target: generic LLVM vectors of 128 bits, which any CPU runs.

Turns every instruction into code without a single CPU-specific one; other targets start from its
table and override rows. What it can do is therefore what every target can do.
"""

from __future__ import annotations

import platform
from types import MappingProxyType

from . import arithmetic, memory, moves, products, vectormath
from .base import Dot, Instruction, Target
from .floats import GENERIC, Floats

# What a product costs without an instruction of its own: two widenings, a multiplication, an
# addition.
WIDENED = tuple(
    Dot(a, b, acc, 1, uops=3.0 if acc == "i32" else 2.0)
    for a in ("u8", "i8", "i16")
    for b in ("u8", "i8", "i16")
    for acc in ("i16", "i32")
)


def rows(floats: Floats) -> dict[str, Instruction]:
    """Every instruction by its name, for a CPU that has these ways with floats."""
    listed = (
        *memory.ROWS,
        *moves.ROWS,
        *arithmetic.ROWS,
        *arithmetic.rounding(floats),
        *products.ROWS,
        products.dot(floats),
        *vectormath.rows(floats),
    )
    return {row.name: row for row in listed}


TABLE = MappingProxyType(rows(GENERIC))

PORTABLE = Target(
    name="portable",
    width=128,
    registers=16,
    budget=13,
    dots=(*WIDENED, Dot("bit", "bit", "i32", 32, uops=10.0)),
    rates=(("dot", 1.0), ("load", 2.0), ("store", 1.0), ("other", 3.0)),
    cpu="x86-64" if platform.machine().lower() in ("x86_64", "amd64") else "generic",
    features="",
    table=TABLE,
)
