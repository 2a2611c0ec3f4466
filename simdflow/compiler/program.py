"""Program: a kernel as loops over vector instructions.

`lower` makes it, `emit` prints it, `jit` compiles it. Registers are names; an Address is an operand
and an offset in elements, affine in the loop variables. Knows nothing of nests or LLVM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..dsl.nest import Affine
from ..dsl.types import Scalar


@dataclass(frozen=True, order=True)
class Vec:
    """A vector register's type: element name and lanes. Element `bool` is a mask."""

    scalar: str
    lanes: int

    def __str__(self) -> str:
        return f"{self.scalar}x{self.lanes}"


@dataclass(frozen=True)
class Address:
    """Element `offset` of an operand (of its bytes, for `bit`)."""

    operand: str
    offset: Affine


Arg = str | Address | int | float


@dataclass(frozen=True)
class Op:
    """`dst = name(args)`: one instruction of the target's table. Stores have dst ''."""

    dst: str
    vec: Vec
    name: str
    args: tuple[Arg, ...]

    @property
    def text_name(self) -> str:
        """Its name in the emitted text."""
        return f"{self.name}_{self.vec}"

    @property
    def registers(self) -> tuple[str, ...]:
        """The registers it reads."""
        return tuple(a for a in self.args if isinstance(a, str))


@dataclass(frozen=True)
class Fetch:
    """`var = operand[offset]`: an integer read into a loop-level variable (indices).

    limits   the nearest integer between these is taken, so that whatever the memory holds, what is
             read by it lies inside; None where the values cannot change (sparse indices)
    """

    var: str
    operand: str
    offset: Affine
    limits: tuple[int, int] | None = None

    def text(self, read: str) -> str:
        """`read`, an expression of the integer, held inside the limits."""
        return read if self.limits is None else "min(max({}, {}), {})".format(read, *self.limits)


@dataclass(frozen=True)
class Loop:
    """`for var in range(start, stop, step)`; a bound may be a fetched variable.

    A parallel loop runs the part of its range inside the kernel's (begin, end).
    """

    var: str
    start: int | str
    stop: int | str
    step: int
    body: tuple[Statement, ...]
    parallel: bool = False


Statement = Op | Fetch | Loop


@dataclass(frozen=True)
class Memory:
    """One native argument: name, element type, elements, and what it is for.

    role: 'in', 'out', 'packed' (an operand in the kernel's own order), 'scratch', or
    'indptr'/'indices'/'data' of a CSR operand.
    """

    name: str
    scalar: Scalar
    size: int
    role: str
    operand: str


@dataclass(frozen=True)
class Program:
    """A lowered kernel: native arguments in order, statements, the parallel axis."""

    name: str
    memories: tuple[Memory, ...]
    body: tuple[Statement, ...]
    registers: int
    parallel: tuple[str, int, int] = ("", 0, 1)

    def memory(self, name: str) -> Memory:
        """The memory of that name."""
        return next(m for m in self.memories if m.name == name)

    def ops(self) -> Iterator[Op]:
        """Every instruction, in text order."""
        yield from _ops(self.body)

    def __str__(self) -> str:
        head = f"program {self.name}: {self.registers} vector registers planned"
        memories = [f"  {m.role:8s}{m.name}: {m.scalar}[{m.size}]" for m in self.memories]
        return "\n".join([head, *memories, *_lines(self.body, 1)])


def _ops(body: tuple[Statement, ...]) -> Iterator[Op]:
    for s in body:
        if isinstance(s, Loop):
            yield from _ops(s.body)
        elif isinstance(s, Op):
            yield s


def _lines(body: tuple[Statement, ...], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for s in body:
        if isinstance(s, Loop):
            kind = "parallel " if s.parallel else ""
            yield f"{indent}{kind}for {s.var} in {s.start}..{s.stop} step {s.step}:"
            yield from _lines(s.body, depth + 1)
        elif isinstance(s, Fetch):
            yield f"{indent}{s.var} = {s.text(f'{s.operand}[{s.offset}]')}"
        else:
            shown = ", ".join(_shown(a) for a in s.args)
            yield f"{indent}{s.dst + ': ' + str(s.vec) + ' = ' if s.dst else ''}{s.name}({shown})"


def _shown(arg: Arg) -> str:
    return f"{arg.operand}[{arg.offset}]" if isinstance(arg, Address) else str(arg)
