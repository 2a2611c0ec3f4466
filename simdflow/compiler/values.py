"""Values: what LLVM leaves of a body: nothing is computed twice, and nothing in each pass of a loop
that fits a register all the time.

Turns straight-line operations into the instructions that remain of each. The cost model counts
those; the Program stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..dsl.nest import Affine, integer
from .plan import RegisterPlan
from .ports import DOTS, Ports, uops
from .program import Address, Arg, Loop, Op, Statement

# Operations of a loop that LLVM writes out, so that what neighbouring steps share is shared; its
# own limit is 300 instructions, and an operation is one to three.
UNROLLED = 256
WORKING = 2  # registers that come and go beside those that stay


def written_out(body: Sequence[Statement]) -> list[Statement]:
    """The body with its small loops of known trips as straight lines."""
    found: list[Statement] = []
    for s in body:
        ops = _steps(s) if isinstance(s, Loop) else None
        if ops is None:
            found.append(s)
        else:
            found += ops
    return found


def _steps(s: Loop) -> list[Op] | None:
    """Every operation of a loop, its variable replaced; None where it stays a loop."""
    inside = written_out(s.body)
    known = isinstance(s.start, int) and isinstance(s.stop, int) and not s.parallel
    ops = [x for x in inside if isinstance(x, Op)]
    if not known or len(ops) < len(inside):
        return None
    steps = range(int(s.start), int(s.stop), s.step)
    if len(steps) * len(ops) > UNROLLED:
        return None
    return [replace(op, args=tuple(_at(a, s.var, v) for a in op.args)) for v in steps for op in ops]


def _at(arg: Arg, var: str, value: int) -> Arg:
    c = arg.offset.coefficient(var) if isinstance(arg, Address) else 0
    if not c or not isinstance(arg, Address):
        return arg
    terms = tuple([t for t in arg.offset.terms if t[0] != var])
    return Address(arg.operand, Affine(terms, integer(arg.offset.const) + c * value))


def remaining(ops: Sequence[Op], plan: RegisterPlan, var: str) -> list[Ports]:
    """The instructions of each operation in a body, or in a pass of the loop over `var`.

    The same value is made once, and outside the loop if nothing in it changes; as far as registers
    do not suffice, it is loaded again.
    """
    sums = {op.dst for op in ops if op.name in (*DOTS, "dotbits")}
    assigned = {op.dst for op in ops}
    outside = {r for op in ops for r in op.registers} - assigned
    free = plan.target.registers - len(sums) - len(outside) - WORKING
    values: dict[str, int] = {}
    known: dict[object, int] = {}
    numbers, still = list[int](), list[bool]()
    for op in ops:
        key = (
            op.name,
            op.vec,
            tuple(values.get(a, a) if isinstance(a, str) else a for a in op.args),
        )
        fresh = not op.dst or op.dst in sums
        number = len(numbers) if fresh else known.setdefault(key, len(numbers))
        numbers.append(number)
        still.append(not fresh and bool(var) and _unchanged(op, var, values, still, assigned))
        if op.dst:
            values[op.dst] = number
    firsts = [n == i for i, n in enumerate(numbers)]
    hoisted, found = set[int](), list[Ports]()
    again = len({n for i, n in enumerate(numbers) if n != i and not still[n]})
    staying = sum(f and s for f, s in zip(firsts, still, strict=True))
    kept = min(1.0, max(0, free - staying) / again) if again else 1.0
    for op, number, first, stays in zip(ops, numbers, firsts, still, strict=True):
        ports = uops(op, plan)
        if stays and first and len(hoisted) < free:
            hoisted.add(number)
        if number in hoisted:
            ports = {}
        elif ports and stays and not (plan.dot and plan.dot.widened):
            ports = {"load": 1.0}  # and widened again, where it has to be
        elif ports and not first and not still[number]:
            ports = {"load": 1.0 - kept}
        found.append(ports)
    return found


def _unchanged(
    op: Op, var: str, values: Mapping[str, int], still: Sequence[bool], assigned: set[str]
) -> bool:
    """Whether an operation makes the same value in each pass of a loop."""
    return all(
        var not in a.offset.axes
        if isinstance(a, Address)
        else not isinstance(a, str) or (still[values[a]] if a in values else a not in assigned)
        for a in op.args
    )
