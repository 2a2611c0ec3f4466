"""Narrowing: the end of an epilogue that makes an i32 8 bits wide, taken apart.

before   out = min(max(u8(q + 3, saturate), 5), 250)
after    q, + 3, then max 5 and min 250

What comes after the cast is done with four vectors in one register. Writes no code.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dsl.nest import Call, Cast, Const, Expr, LoopNest, Ref, integer
from .scalars import scalar_of


@dataclass(frozen=True)
class Narrowed:
    """A stored value that is an i32 made 8 bits, and then bounded by constants.

    wide    what is narrowed
    bounds  (max or min, constant), in order, done with the narrow elements
    lets    names of the lets that are parts of this and of nothing else
    """

    wide: Expr
    bounds: tuple[tuple[str, int], ...]
    lets: frozenset[str]


def narrowed(nest: LoopNest) -> Narrowed | None:
    """What is narrowed to 8 bits last, when the stored value is such."""
    value = nest.store.value
    bounds: list[tuple[str, int]] = []
    lets = set()
    while True:
        if isinstance(value, Ref) and (named := _let(nest, value.name)) is not None:
            lets.add(value.name)
            value = named
        elif isinstance(value, Call) and value.op in ("max", "min"):
            constants = [x for x in value.args if isinstance(x, Const)]
            others = [x for x in value.args if not isinstance(x, Const)]
            if len(constants) != 1 or scalar_of(others[0], nest).bits != 8:
                return None
            bounds.insert(0, (value.op, integer(constants[0].value)))
            value = others[0]
        else:
            break
    if not isinstance(value, Cast) or value.scalar.name not in ("u8", "i8"):
        return None
    wide = value.arg
    if value.mode == "wrap" or isinstance(wide, Const):
        return None
    if scalar_of(wide, nest).name != "i32" and added_constant(nest, wide) is None:
        return None
    return Narrowed(wide, tuple(bounds), frozenset(lets))


def _let(nest: LoopNest, name: str) -> Expr | None:
    return next((x.value for x in nest.epilogue if x.name == name), None)


def added_constant(nest: LoopNest, expr: Expr) -> tuple[Expr, int] | None:
    """(v, c) of `v + c` with a small constant c and v a saturated i32.

    The sum saturates the same in 16 bits.
    """
    if isinstance(expr, Call) and expr.op == "add":
        a, b = expr.args
        if isinstance(a, Const):
            a, b = b, a
        if (
            isinstance(b, Const)
            and abs(integer(b.value)) <= 32767
            and scalar_of(a, nest).name == "i32"
        ):
            return a, integer(b.value)
    return None
