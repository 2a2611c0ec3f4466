"""Report: what a compiled kernel does per multiply-accumulate.

Read from its plan, its program and its assembly; nothing is run.
"""

from __future__ import annotations

import re

from .cost import cost
from .plan import RegisterPlan
from .program import Program

VECTOR = re.compile(r"%([xyz]mm\d+)|\b([vq]\d+)\.")
PRODUCT = re.compile(
    r"\bvpdp|\bvpmadd|\bvfn?m(add|sub)|\bv?p?mul|\bvpopcnt|\b[suf]?mla|\bsdot|\budot"
)
STACK = re.compile(
    r"\(%rsp|\[sp"
)  # compiled without a frame pointer: %rbp is a register like any other


def report(
    plan: RegisterPlan,
    program: Program,
    asm: str,
    seconds: float | None = None,
    peak: float | None = None,
    packed: tuple[str, ...] = (),
) -> str:
    """Registers planned and used, spills in the hot loop, instructions and bytes per
    multiply-accumulate, time.

    seconds  measured time of one call
    peak     multiply-accumulates per second this CPU can do of this kind
    packed   operands that are packed on every call because they were given as plain arrays
    """
    hot = hot_loop(asm)
    used = {m.group(1) or m.group(2) for line in asm.splitlines() for m in VECTOR.finditer(line)}
    used = {re.sub(r"^[xyz]mm", "", u) for u in used}
    predicted = cost(plan, program)
    macs = max(plan.nest.macs, 1)
    kind = "multiply-accumulate" if plan.nest.reduction else "element"
    moved = sum(
        m.size * max(m.scalar.bits, 8) // 8 for m in program.memories if m.role != "scratch"
    )
    scratch = sum(m.size * m.scalar.bits // 8 for m in program.memories if m.role == "scratch")
    lines = [
        program.name,
        f"registers    {plan.registers} planned ({plan.arithmetic}), {len(used)} used, "
        f"{plan.target.registers} exist",
        f"hot loop     {len(hot)} instructions, {spills(hot)} spills",
        f"per {kind}  {(predicted.arithmetic + predicted.loads + predicted.stores) / macs:.4f} "
        f"vector instructions, {moved / macs:.4f} bytes of operands, "
        f"{predicted.far_bytes / macs:.4f} bytes from beyond L1 (predicted)",
        f"predicted    {predicted}",
    ]
    if scratch:
        lines.append(f"scratch      {scratch} bytes: the accumulators live in memory")
    lines += [
        f"packing      {name} is packed on every call; use sf.pack({name}) to do it once"
        for name in packed
    ]
    if seconds:
        rate = macs / seconds
        share = f", {100 * rate / peak:.1f} % of the measured peak" if peak else ""
        lines.append(
            f"time         {seconds * 1e6:.2f} us, {rate / 1e9:.1f} G {kind}s a second{share}"
        )
    return "\n".join(lines)


def hot_loop(asm: str) -> list[str]:
    """The innermost loop with the most products, else vector instructions: from a label to the jump
    back to it. A long copy of sums to and from memory is not what a kernel spends its time in.
    """
    lines = [x for x in asm.splitlines() if x.strip() and not x.strip().startswith("#")]
    at = {x.split(":")[0]: i for i, x in enumerate(lines) if re.match(r"^[.\w$]+:", x)}
    best: list[str] = []
    for i, x in enumerate(lines):
        jump = re.match(r"^\s+j\w+\s+([.\w$]+)", x)
        if jump and at.get(jump.group(1), i) < i:
            body = [y for y in lines[at[jump.group(1)] + 1 : i + 1] if re.match(r"^\s+[a-z]", y)]
            inner = not any(re.match(r"^\s+j\w+", y) for y in body[:-1])
            if inner and _weight(body) > _weight(best):
                best = body
    return best


def _weight(body: list[str]) -> tuple[int, int]:
    return sum(bool(PRODUCT.search(x)) for x in body), _vectors(body)


def _vectors(body: list[str]) -> int:
    return sum(bool(VECTOR.search(x)) for x in body)


def spills(body: list[str]) -> int:
    """Vector loads from and stores to the stack."""
    return sum(bool(STACK.search(x) and VECTOR.search(x)) for x in body)
