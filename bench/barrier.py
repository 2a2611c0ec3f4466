"""Programs in which LLVM keeps nothing in registers that the program itself does not keep.

Turns a Program into one with a barrier before each output: an empty instruction that LLVM takes to
read and write every memory. A naive program stays naive; without it, LLVM loads the weights of an
unrolled window once for all pixels, and sums that lie in memory may never go there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from simdflow.compiler.program import Address, Loop, Op, Program, Statement, Vec
from simdflow.dsl.nest import Affine
from simdflow.targets import Target
from simdflow.targets.base import Instruction

NAME = "barrier"


def with_barriers(program: Program, target: Target) -> tuple[Program, Target]:
    """The program with a barrier in every innermost loop and after every store; its target."""
    memories = tuple(Address(m.name, Affine()) for m in program.memories)
    barrier = Op("", Vec("u8", 1), NAME, memories)
    body = tuple(_kept_apart(program.body, barrier))
    return replace(program, body=body), replace(target, rows=partial(_rows, target))


def _kept_apart(body: Sequence[Statement], barrier: Op) -> Iterator[Statement]:
    if not any(isinstance(s, Loop) for s in body):
        yield barrier
    for s in body:
        yield replace(s, body=tuple(_kept_apart(s.body, barrier))) if isinstance(s, Loop) else s
        if isinstance(s, Op) and s.name == "store":
            yield barrier


def _rows(target: Target) -> Mapping[str, Instruction]:
    return {**target.table, NAME: Instruction(NAME, _nothing, _emit)}


def _nothing(vec: Vec, *memories: Any) -> None:
    """Its numpy meaning."""


def _emit(b: Any, vec: Vec, *memories: Any) -> None:
    from llvmlite import ir

    pointers = [m.llvm for m in memories]
    kind = ir.FunctionType(ir.VoidType(), [p.type for p in pointers])
    constraints = ",".join(["r"] * len(pointers) + ["~{memory}"])
    b.asm(kind, "", constraints, pointers, side_effect=True)
