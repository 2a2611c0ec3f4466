"""Ports: which kinds of instructions one operation of a Program becomes, and how long they take.

Turns an operation into counts by the port that takes them, and counts into the cycles of the
busiest port of the target's core. Knows no loops.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ..dsl.types import SCALARS
from ..targets import Target
from .plan import RegisterPlan
from .program import Address, Op
from .turn import NEAR, PIECE

Ports = dict[str, float]  # instructions by the port that takes them

DOTS = ("dot", "dot_words")
EXPENSIVE = {
    "exp": 14,
    "log": 20,
    "tanh": 22,
    "erf": 25,
    "sigmoid": 20,
    "div": 5,
    "sqrt": 9,
    "rsqrt": 14,
}
EXPENSIVE |= {"mod": 40, "floordiv": 40, "hadd": 10, "hmax": 10, "hmin": 10}


def pieces(op: Op, target: Target) -> float:
    """Registers one instruction works on: wide vectors are split, 8-bit ones count as they are, and
    half a register goes through in half the time where the core has paths of half.
    """
    bits = 8 if op.vec.scalar == "bool" else SCALARS[op.vec.scalar].bits
    least = target.rate("other") / target.core.at(target.width // 2).other
    return max(least, op.vec.lanes * bits / target.width)


def number(op: Op, place: int) -> int:
    """An argument that is an immediate."""
    value = op.args[place]
    assert isinstance(value, int), f"{op.name}: argument {place} is {value}, not an integer"
    return value


def uops(op: Op, plan: RegisterPlan) -> Ports:
    """Instructions by the port that takes them."""
    found = _own(op, plan)
    if plan.dot is None or not plan.dot.widened:
        return found
    if op.name in DOTS:
        return found | {"other": plan.dot.adds * pieces(op, plan.target)}
    first = op.args[0] if op.dst and op.args else None
    sides = {x.operand for x in (plan.a, plan.b) if x is not None}
    if isinstance(first, Address) and first.operand in sides:
        return together([found, plan.dot.widening(op.vec.scalar)])
    return found


def _own(op: Op, plan: RegisterPlan) -> Ports:
    target = plan.target
    n = pieces(op, target)
    if op.name == "load":
        return {"load": n}
    if op.name == "broadcast":
        group_extra = 3.0 * number(op, 2) if len(op.args) == 3 else 0.0
        return {"broadcast": 1.0 + group_extra}
    if op.name == "collect":
        # Put together outside the vector registers, and moved into one: 1.3 to 2.4 cycles more
        # than a broadcast (3x3 of 224x224x3 u8, one Zen 4 core).
        return {"broadcast": 2.0, "shuffle": 1.0, "other": 2.0}
    if op.name == "pieces":
        return {"load": 1.0}  # of scales and starts, which LLVM keeps over the pixels
    if op.name == "gather":
        group, stride, lanes = number(op, 1), number(op, 2), number(op, 4)
        if stride == 1:
            return {"load": float(group), "shuffle": group + 1.0}
        if group == 1 and 0 < abs(stride) <= NEAR:
            return {"load": n * abs(stride), "shuffle": n * abs(stride)}
        return {"broadcast": 1.0 * lanes * group, "other": 1.0 * lanes * group + 1}
    if op.name == "rows":
        count = float(number(op, 2))
        whole = number(op, 3) * SCALARS[op.vec.scalar].bits == PIECE
        return {"load": count if whole else 2.0 * count, "shuffle": count - whole}
    if op.name == "interleave":
        return {"shuffle": n * (len(op.args) - 1)}
    if op.name == "store" and len(op.args) == 4:
        return {"store": n, "shuffle": 1.0}  # a later part of a register, moved down first
    if op.name in ("store", "store_bits"):
        return {"store": n}
    if op.name == "scatter":
        return {"store": 2.0 * op.vec.lanes}
    if op.name in DOTS and plan.dot is not None:
        return {"dot": plan.dot.uops * n}
    if op.name == "dotbits" and plan.dot is not None:
        return {"other": 2.0 * plan.dot.uops}
    if op.name in ("const", "copy", "unweave", "join"):
        return {}  # the last two become part of the permutation that ends a narrowing
    if op.name == "narrow":
        if len(op.args) == 1:
            return {"shuffle": 2.0, "other": 2.0}  # no pack takes one register
        return {"shuffle": float(len(op.args))}
    if op.name == "narrow_add" and len(op.args) == 2:
        return {"shuffle": 2.0, "other": 3.0}
    if op.name == "narrow_add":
        return {"shuffle": len(op.args) - 1.0, "dot": 0.5 * (len(op.args) - 1)}
    if op.name == "lookup":
        return {"broadcast": 3.0 * op.vec.lanes}
    if op.name == "mul":
        return {"dot": n}
    if op.name in ("convert", "round", "round_bounded", "round_saturate", "saturate"):
        return {"shuffle": n}
    return {"other": n * EXPENSIVE.get(op.name, 1)}


def together(ops: Iterable[Ports]) -> Ports:
    """The sum of counts."""
    total: Ports = defaultdict(float)
    for one in ops:
        for kind, n in one.items():
            total[kind] += n
    return total


def arithmetic(ports: Ports) -> float:
    """Instructions that compute."""
    return ports["dot"] + ports["shuffle"] + ports["other"]


def loading(ports: Ports, target: Target) -> float:
    """Cycles of the ports that load."""
    return ports["load"] / target.rate("load") + ports["broadcast"] / target.rate("broadcast")


def busiest(ports: Ports, target: Target) -> float:
    """Cycles of the port that is busy the longest."""
    return max(
        *(ports[kind] / target.rate(kind) for kind in ("dot", "store", "shuffle")),
        loading(ports, target),
        arithmetic(ports) / target.rate("other"),
    )
