"""Express: an expression of the nest at one place becomes vector instructions.

Every value has one type per lane, the one `scalars` computed for it; conversions are written where
types meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..dsl.errors import KernelError
from ..dsl.nest import Affine, Call, Cast, Const, Expr, Load, Lookup, Pick, Ref, integer, number
from ..dsl.types import SCALARS, Scalar
from .place import Place, address, substitute, value_load
from .plan import RegisterPlan
from .program import Vec
from .ranges import range_of
from .scalars import is_truth, scalar_of
from .writer import Writer

COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
LOGIC = {"and", "or", "not"}


def express(
    w: Writer, plan: RegisterPlan, expr: Expr, place: Place, known: Mapping[str, str]
) -> str:
    """The register that holds `expr` at `place`; `known`: accumulator and lets -> registers."""

    def value(e: Expr) -> str:
        return express(w, plan, e, place, known)

    def typed(e: Expr, to: Scalar) -> str:
        if isinstance(e, Const):
            return w.op("const", Vec(to.name, place.lanes), _number(e, to))
        return as_type(w, value(e), to.name)

    if isinstance(expr, Ref):
        return known[expr.name]
    if isinstance(expr, Load):
        return value_load(w, plan, expr, place)
    if isinstance(expr, Const):
        scalar = expr.scalar or scalar_of(expr, plan.nest)
        return w.op("const", Vec(scalar.name, place.lanes), _number(expr, scalar))
    if isinstance(expr, Lookup):
        table = plan.nest.type_of(expr.operand).scalar
        where = address(plan, Load(expr.operand, (Affine(),)), place)
        return w.op("lookup", Vec(table.name, place.lanes), where, value(expr.index))
    if isinstance(expr, Cast):
        return _cast(w, plan, expr, value)
    if isinstance(expr, Pick):
        # The tile has all of the axis, so that the place says which value it is.
        which = substitute(expr.index, place.at)
        assert not which.terms, f"{expr} is picked by a loop"
        return typed(expr.values[integer(which.const)], scalar_of(expr, plan.nest))
    op, args = expr.op, expr.args
    if op in COMPARISONS:
        common = _common(plan, args)
        return w.op(op, Vec("bool", place.lanes), *(typed(a, common) for a in args))
    if op in LOGIC and is_truth(expr, plan.nest):
        return _logic(w, place, op, args, value)
    scalar = scalar_of(expr, plan.nest)
    vec = Vec(scalar.name, place.lanes)
    if op == "select":
        condition, a, b = args
        return w.op("select", vec, value(condition), typed(a, scalar), typed(b, scalar))
    if op == "xnor_popcount":
        raise KernelError(
            f"{plan.nest.name}: xnor_popcount(a, b) is only a sum's whole value. Use it alone."
        )
    if op in ("max", "min") and isinstance(args[0], Const):
        args = args[::-1]  # a constant on the right is one instruction
    return w.op(op, vec, *(typed(a, scalar) for a in args))


def _number(e: Const, to: Scalar) -> int | float:
    return float(number(e.value)) if to.is_float else integer(e.value)


def _common(plan: RegisterPlan, args: tuple[Expr, ...]) -> Scalar:
    """The type two sides of a comparison are compared in."""
    scalars = [scalar_of(a, plan.nest) for a in args if not isinstance(a, Const)]
    floats = [s for s in scalars if s.is_float]
    if floats or not scalars:
        return max(floats, key=lambda s: s.bits) if floats else SCALARS["i32"]
    wide = max(scalars, key=lambda s: s.bits)
    return SCALARS["i64"] if wide.bits == 64 or wide.name == "u32" else SCALARS["i32"]


def _logic(
    w: Writer, place: Place, op: str, args: tuple[Expr, ...], value: Callable[[Expr], str]
) -> str:
    """`and`, `or`, `not` of conditions, of which some may be known."""
    mask = Vec("bool", place.lanes)
    known = [bool(a.value) for a in args if isinstance(a, Const)]
    open_ = [value(a) for a in args if not isinstance(a, Const)]
    if op == "not":
        return w.op("not", mask, *open_)
    if (op == "and" and False in known) or (op == "or" and True in known) or not open_:
        zero = w.op("const", Vec("i32", place.lanes), 0)
        truth = all(known) if op == "and" else any(known)
        return w.op("eq" if truth else "ne", mask, zero, zero)
    return open_[0] if len(open_) == 1 else w.op(op, mask, *open_)


def as_type(w: Writer, register: str, scalar: str) -> str:
    """The register converted to an element type, itself if it has that type."""
    vec = w.vecs[register]
    return register if vec.scalar == scalar else w.op("convert", Vec(scalar, vec.lanes), register)


def _cast(w: Writer, plan: RegisterPlan, cast: Cast, value: Callable[[Expr], str]) -> str:
    inner = cast.arg
    if (
        cast.mode == "saturate"
        and cast.scalar.name == "i32"
        and isinstance(inner, Call)
        and inner.op == "round"
    ):
        rounded = value(inner.args[0])
        if w.vecs[rounded].scalar == "f32":
            bounded = range_of(inner, plan.nest)[1] < 2**31
            name = "round_bounded" if bounded else "round_saturate"
            return w.op(name, Vec("i32", w.vecs[rounded].lanes), rounded)
    arg = value(cast.arg)
    have = w.vecs[arg]
    to = Vec(cast.scalar.name, have.lanes)
    if have == to:
        return arg
    name = {"exact": "convert", "saturate": "saturate", "wrap": "wrap"}[cast.mode]
    if to.scalar in ("f32", "f64") or have.scalar == "bool":
        name = "convert"
    if cast.mode == "wrap" and have.scalar in ("f32", "f64"):
        arg = w.op("saturate", Vec("i64", have.lanes), arg)
    return w.op(name, to, arg)
