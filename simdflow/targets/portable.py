"""The portable target: generic LLVM vectors of 128 bits, which any CPU runs.

Turns every instruction into code without a single CPU-specific one; other targets start from its
table and override rows. What it can do is therefore what every target can do.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from .base import WIDENED, Dot, Instruction, Target


def _rows() -> Mapping[str, Instruction]:
    from .rows import TABLE

    return TABLE


PORTABLE = Target(
    name="portable",
    width=128,
    registers=16,
    budget=13,
    dots=(*WIDENED, Dot("bit", "bit", "i32", 32, uops=10.0)),
    cpu="x86-64" if platform.machine().lower() in ("x86_64", "amd64") else "generic",
    features="",
    rows=_rows,
)
