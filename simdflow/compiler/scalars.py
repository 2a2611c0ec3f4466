"""The scalar type of every expression of a nest, and the plain numbers in it given theirs.

An integer operation is computed in i32 when its range and its operands allow, else in i64; `min`,
`max`, `select` and the bitwise operations of two equal types keep it; floats take the wider one.
Refuses what fits no type; other mistakes are `check`'s.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..dsl import loops
from ..dsl.errors import KernelError
from ..dsl.nest import Call, Cast, Const, Expr, Load, Lookup, LoopNest, Pick, Ref, Store, walk
from ..dsl.types import Exact, Scalar, bit, f32, f64, i32, i64
from .ranges import BOOLEANS, range_of

FLOATS = ("div", "round", "floor", "ceil", "exp", "log", "tanh", "erf", "sigmoid", "sqrt", "rsqrt")
KEEPS = ("min", "max", "select", "and", "or", "xor")
_FOLD: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "shl": operator.lshift,
    "shr": operator.rshift,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "neg": operator.neg,
    "not": operator.not_,
}
_FOLD |= {name: function for function, name in loops.UNARY.items()}
_FOLD |= {name: function for function, name in loops.BINARY.items()}


def fault(nest: LoopNest, line: int, message: str) -> KernelError:
    """The error for a line of the kernel (0: for the kernel as a whole)."""
    origin = nest.origin
    at = line - origin.line
    text = origin.lines[at] if line and 0 <= at < len(origin.lines) else ""
    return KernelError(f"{nest.name}: {message}", origin.file if line else "", line, text)


def is_truth(expr: Expr, nest: LoopNest) -> bool:
    """Whether the expression is a condition: a comparison, or `and`, `or`, `not` of conditions."""
    if isinstance(expr, Const):
        return isinstance(expr.value, bool)
    if isinstance(expr, Ref):
        named = [x.value for x in nest.epilogue if x.name == expr.name]
        return bool(named) and is_truth(named[0], nest)
    if not isinstance(expr, Call):
        return False
    if expr.op in ("and", "or"):
        return all(is_truth(a, nest) for a in expr.args)
    return expr.op in BOOLEANS


def scalar_of(expr: Expr, nest: LoopNest) -> Scalar:
    """The type an expression of a bound nest is computed in; `bit` for a condition.

    Raises KernelError for an integer expression that does not fit i64.
    """
    # Lowering asks for the same few expressions once for each vector of a tile. The answers lie
    # beside the nest's fields, by identity: 1 and 1.0 are equal, and not of one type.
    known: dict[int, tuple[Expr, Scalar]] = nest.__dict__.setdefault("_scalars", {})
    found = known.get(id(expr))
    if found is None:
        found = known[id(expr)] = expr, _scalar(expr, nest, {})
    return found[1]


def _scalar(expr: Expr, nest: LoopNest, memo: dict[Expr, Scalar]) -> Scalar:
    if expr not in memo:
        memo[expr] = _computed(expr, nest, memo)
    return memo[expr]


def _computed(expr: Expr, nest: LoopNest, memo: dict[Expr, Scalar]) -> Scalar:
    if isinstance(expr, Const):
        return expr.scalar or _plain(expr)
    if isinstance(expr, (Load, Lookup)):
        return nest.type_of(expr.operand).scalar
    if isinstance(expr, Ref):
        if nest.reduction and expr.name == nest.reduction.name:
            return nest.reduction.scalar
        return _scalar(next(x.value for x in nest.epilogue if x.name == expr.name), nest, memo)
    if isinstance(expr, Cast):
        return expr.scalar
    if is_truth(expr, nest):
        return bit
    op = "select" if isinstance(expr, Pick) else expr.op
    found = [_scalar(a, nest, memo) for a in _alternatives(expr)]
    floats = [s for s in found if s.is_float]
    if floats or op in FLOATS:
        return max(floats, key=lambda s: s.bits, default=f32)
    if op in KEEPS and len(set(found)) == 1:
        return found[0]
    low, high = range_of(expr, nest)
    if i64 not in found and i32.low <= low and high <= i32.high:
        return i32
    # An infinite range has another cause (a divisor that can be 0, a shift too far): check's.
    if math.isfinite(low) and math.isfinite(high) and not i64.low <= low <= high <= i64.high:
        raise fault(
            nest,
            line_of(expr, nest),
            f"{expr} reaches {low} to {high}; integers are computed in at most i64 "
            f"({i64.low} to {i64.high}). Cast a part of it to a narrower type.",
        )
    return i64


def _alternatives(expr: Call | Pick) -> tuple[Expr, ...]:
    """The parts that an expression's own type comes from."""
    if isinstance(expr, Pick):
        return expr.values
    return expr.args[1:] if expr.op == "select" else expr.args


def line_of(expr: Expr, nest: LoopNest) -> int:
    """The line of the statement that holds the expression; 0 when no statement does."""
    r = nest.reduction
    places = [(r.init, r.line), (r.value, r.line)] if r else []
    places += [(x.value, x.line) for x in nest.epilogue] + [(nest.store.value, nest.store.line)]
    return next((line for value, line in places if any(e is expr for e in walk(value))), 0)


def _plain(number: Const) -> Scalar:
    if isinstance(number.value, float):
        return f32
    assert isinstance(number.value, int), f"{number} is not bound"
    return i32 if i32.low <= number.value <= i32.high else i64


def numbered(number: Const, scalar: Scalar) -> Const:
    """A plain number in the given type; a float that meets an integer type stays a float."""
    v = number.value
    assert isinstance(v, (int, float)), f"{number} is not bound"
    if scalar.is_float:
        return Const(Exact(v).cast(scalar).value, scalar)
    if isinstance(v, int) and not isinstance(v, bool) and scalar != bit:
        return Const(v, scalar if scalar.low <= v <= scalar.high else _plain(number))
    return Const(v, _plain(number))


def is_plain(expr: Expr) -> bool:
    """Whether the expression is a number that has no type yet."""
    return isinstance(expr, Const) and expr.scalar is None


def typed(expr: Expr, nest: LoopNest) -> Expr:
    """The expression with plain numbers folded and typed, and f32 widened where it meets f64.

    before   (acc * ((2 * 3))) + 1.0          acc: f32
    after    (acc * 6.0:f32) + 1.0:f32
    """
    if isinstance(expr, Cast):
        return _typed_cast(replace(expr, arg=typed(expr.arg, nest)))
    if isinstance(expr, Lookup):
        index = typed(expr.index, nest)
        return replace(expr, index=numbered(index, i32) if isinstance(index, Const) else index)
    if isinstance(expr, Pick):
        return replace(expr, values=_alike([typed(v, nest) for v in expr.values], True, nest))
    if isinstance(expr, Call):
        return _typed_call(Call(expr.op, tuple(typed(a, nest) for a in expr.args)), nest)
    return expr


def _typed_cast(expr: Cast) -> Expr:
    if not isinstance(expr.arg, Const) or isinstance(expr.arg.value, bool):
        return expr
    arg = expr.arg if expr.arg.scalar else numbered(expr.arg, _plain(expr.arg))
    assert isinstance(arg.value, (int, float))
    try:
        result = Exact(arg.value).cast(expr.scalar, expr.mode == "saturate", expr.mode == "wrap")
    except OverflowError:
        return replace(expr, arg=arg)
    return Const(result.value, expr.scalar)


def _typed_call(expr: Call, nest: LoopNest) -> Expr:
    if expr.op == "select" and is_plain(expr.args[0]):
        condition = expr.args[0]
        assert isinstance(condition, Const)
        return expr.args[1] if condition.value else expr.args[2]
    if all(is_plain(a) for a in expr.args):
        return _folded(expr, nest)
    first = 1 if expr.op == "select" else 0
    keeps = expr.op in KEEPS or expr.op in BOOLEANS
    return Call(expr.op, (*expr.args[:first], *_alike(list(expr.args[first:]), keeps, nest)))


def _alike(parts: list[Expr], keeps: bool, nest: LoopNest) -> tuple[Expr, ...]:
    """Parts of one expression, with plain numbers in the type of the others (of integers only if it
    `keeps` that type), and f32 widened beside f64.
    """
    known = [scalar_of(a, nest) for a in parts if not is_plain(a) and not is_truth(a, nest)]
    floats = [s for s in known if s.is_float]
    wide = any(isinstance(a, Const) and isinstance(a.value, float) for a in parts)
    found: list[Expr] = []
    for a in parts:
        if isinstance(a, Const) and a.scalar is None and not isinstance(a.value, bool):
            if floats:
                a = numbered(a, max(floats, key=lambda s: s.bits))
            elif known and keeps:
                a = numbered(a, known[0])
            elif not known and wide:
                a = numbered(a, f32)
            else:
                a = numbered(a, _plain(a))
        elif f64 in floats and not is_truth(a, nest) and scalar_of(a, nest) == f32:
            a = Cast(f64, "exact", a)
        found.append(a)
    return tuple(found)


def _folded(expr: Call, nest: LoopNest) -> Const:
    values = [a.value for a in expr.args if isinstance(a, Const)]
    try:
        result = _FOLD[expr.op](*values)
    except (ArithmeticError, ValueError, TypeError) as e:
        raise fault(
            nest, 0, f"{expr} cannot be computed: {e}. Change the constants it is made of."
        ) from e
    return Const(result.value if isinstance(result, Exact) else result)


def typed_store(store: Store, nest: LoopNest) -> Store:
    """The store with its value in the output's type, as far as no proof is needed."""
    value = typed(store.value, nest)
    out = nest.out.type
    if isinstance(value, Const) and value.scalar is None:
        value = numbered(value, out.scalar if out else _plain(value))
    if out is None or out.scalar == bit or is_truth(value, nest):
        return replace(store, value=value)
    found = scalar_of(value, nest)
    if found != out.scalar and found.is_float == out.scalar.is_float and not found.is_float:
        value = Cast(out.scalar, "exact", value)
    return replace(store, value=value)
