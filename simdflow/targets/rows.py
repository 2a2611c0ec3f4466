"""The portable instruction table: every instruction, for a CPU that has the given ways with floats.

Collects the rows of `memory`, `moves`, `arithmetic`, `products` and `vectormath`. Importing it
imports all of them, so targets do it only when an instruction is wanted.
"""

from __future__ import annotations

from types import MappingProxyType

from . import arithmetic, memory, moves, products, vectormath
from .base import Instruction
from .floats import GENERIC, Floats


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
