"""Report: what a compiled kernel does per multiply-accumulate, read from its plan, its program and its assembly."""

from __future__ import annotations

import re

from .plan import RegisterPlan
from .program import Program

VECTOR = re.compile(r"%([xyz]mm\d+)")
STACK_VECTOR = re.compile(r"^\s+v?mov\w*\s.*\(%r[sb]p\)")


def report(plan: RegisterPlan, program: Program, asm: str, seconds: float | None = None) -> str:
    """A few lines of text."""
    hot = hot_loop(asm)
    used = {m.group(1)[1:] for line in asm.splitlines() for m in VECTOR.finditer(line)}
    lines = [
        f"{program.name}",
        f"registers     {plan.registers} planned ({plan.arithmetic}), {len(used)} used of {plan.target.registers}",
        f"spills        {spills(hot)} in the hot loop of {len(hot)} instructions",
    ]
    return "\n".join(lines)


def hot_loop(asm: str) -> list[str]:
    """The innermost loop with the most vector instructions: from a label to the jump back to it."""
    lines = [x for x in asm.splitlines() if x.strip() and not x.strip().startswith("#")]
    at = {x.split(":")[0]: i for i, x in enumerate(lines) if re.match(r"^[.\w$]+:", x)}
    best: list[str] = []
    for i, x in enumerate(lines):
        jump = re.match(r"^\s+j\w+\s+([.\w$]+)", x)
        if jump and at.get(jump.group(1), i) < i:
            body = [y for y in lines[at[jump.group(1)] + 1 : i + 1] if y.startswith(("\t", " ")) and "\t." not in y]
            inner = not any(re.match(r"^\s+j\w+", y) for y in body[:-1])
            if inner and _vectors(body) > _vectors(best):
                best = body
    return best


def _vectors(body: list[str]) -> int:
    return sum("mm" in x for x in body)


def spills(body: list[str]) -> int:
    """Vector loads from and stores to the stack."""
    return sum(bool(STACK_VECTOR.match(x)) and "mm" in x for x in body)
