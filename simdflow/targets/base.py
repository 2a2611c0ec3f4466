"""What a CPU is to the compiler: registers, vector width, issue rates, and a table of instructions.

An instruction is its numpy meaning and its LLVM emission, side by side. The table here is portable:
generic LLVM vectors that any CPU runs. A CPU's own file overrides rows. llvmlite is imported only
when something is emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .core import Core


@dataclass(frozen=True)
class Instruction:
    """One row: `meaning(vec, *args)` on numpy arrays, `emit(b, vec, *args)` on LLVM values.

    Registers arrive as arrays or Values, an address as (memory, offset) or as a pointer, immediates
    as numbers.
    """

    name: str
    meaning: Callable[..., Any]
    emit: Callable[..., Any]


@dataclass(frozen=True)
class Dot:
    """A dot-product row: `acc += sum over group of a * b`, what it costs, and whether `a` must be
    made unsigned first.

    flip    `a` is i8 and the instruction takes u8: 128 is added to `a`, and 128 * sum(b) taken off
            the start value
    uops    products issued for each use, and `adds` additions beside them
    widened whether a register of bytes is first made two of words, once for all its products
    """

    a: str
    b: str
    acc: str
    group: int
    flip: bool = False
    uops: float = 1.0
    adds: float = 0.0
    widened: bool = False

    def widening(self, scalar: str) -> dict[str, float]:
        """Instructions that widen one register of a side, by the port that takes them: a mask and a
        shift of unsigned bytes, three shifts of signed ones, none of words.
        """
        if not self.widened or scalar == "i16":
            return {}
        return {"other": 1.0, "shuffle": 1.0} if scalar == "u8" else {"shuffle": 3.0}


@dataclass(frozen=True)
class Target:
    """A CPU family: what the plan and the cost model need, and its instruction table.

    name        portable, avx2, avx512 ...
    width       widest vector in bits
    registers   architectural vector registers
    budget      registers a plan may use before LLVM starts to spill (validated by assembly)
    dots        dot products it has beyond group 1
    cpu         what LLVM compiles for: CPU name, and features forced on or off
    core        what the core at hand issues and moves: it decides a default dataflow, no result
    """

    name: str
    width: int
    registers: int
    budget: int
    dots: tuple[Dot, ...]
    cpu: str
    features: str
    core: Core = field(compare=False, default=Core())
    rows: Callable[[], Mapping[str, Instruction]] = field(compare=False, repr=False, default=dict)

    @cached_property
    def table(self) -> Mapping[str, Instruction]:
        """The instructions by name. Made when something is lowered, not when the CPU is looked at:
        importing their code takes 40 ms, and a kernel that comes from the cache needs none of it.
        """
        return self.rows()

    def rate(self, what: str) -> float:
        """Instructions of one kind (a field of `Rates`) on whole registers, issued per cycle."""
        found: float = getattr(self.core.at(self.width), what)
        return found

    def dot(self, a: str, b: str, acc: str, group: int) -> Dot | None:
        """The row for these types and this group; group 1 of equal kinds always exists."""
        for d in self.dots:
            if (d.a, d.b, d.acc, d.group) == (a, b, acc, group):
                return d
        return Dot(a, b, acc, 1) if group == 1 else None

    def groups(self, a: str, b: str, acc: str, widened: bool = True) -> tuple[int, ...]:
        """The groups it has for a product of these types, largest first; those of one instruction
        for registers as they are loaded, if not `widened`.
        """
        rows = (d for d in self.dots if (d.a, d.b, d.acc) == (a, b, acc))
        found = {d.group for d in rows if widened or not d.widened}
        return tuple(sorted(found | {1}, reverse=True))


# What a product costs without an instruction of its own: two widenings, a multiplication, an
# addition.
WIDENED = tuple(
    Dot(a, b, acc, 1, uops=3.0 if acc == "i32" else 2.0)
    for a in ("u8", "i8", "i16")
    for b in ("u8", "i8", "i16")
    for acc in ("i16", "i32")
)
