"""The values an expression of a bound nest can take, by interval arithmetic in Python.

Integers are exact. Floats are rounded as the program rounds them; only an interval that is
infinite on both sides may hold a NaN. Proves, and refuses nothing: `check` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..dsl import loops
from ..dsl.nest import Cast, Const, Expr, Load, Lookup, LoopNest, Pick, Reduction, Ref
from ..dsl.types import Exact, Scalar, f32

Range = tuple[int | float, int | float]
ANY: Range = (-math.inf, math.inf)
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
BOOLEANS = (*COMPARISONS, "not")

_MONOTONE: dict[str, Callable[[object], Exact]] = {
    "round": loops.round,
    "floor": loops.floor,
    "ceil": loops.ceil,
    "exp": loops.exp,
    "tanh": loops.tanh,
    "erf": loops.erf,
    "sigmoid": loops.sigmoid,
}


def range_of(expr: Expr, nest: LoopNest) -> Range:
    """(low, high) of every value `expr` can have.

    `ANY` for a float that nothing bounds or that may be NaN.
    """
    return _range(expr, nest, {})


def accumulated(nest: LoopNest, reduction: Reduction) -> Range:
    """(low, high) of the exact accumulator at any moment, in any order of the sum."""
    return _accumulated(nest, reduction, {})


def terms(nest: LoopNest, reduction: Reduction) -> int:
    """The most values one accumulator combines; of a compressed axis, at most its nonzeros."""
    count = 1
    for a in reduction.axes:
        extent = nest.extents[a.name]
        if a.kind == "nonzeros":
            extent = min(extent, nest.type_of(a.of).nonzeros)
        count *= extent
    return count


def _accumulated(nest: LoopNest, r: Reduction, memo: dict[Expr, Range]) -> Range:
    low, high = _range(r.init, nest, memo)
    count = terms(nest, r)
    if count == 0:
        return low, high
    a, b = _range(r.value, nest, memo)
    if r.combine == "max":
        return (low if _sparse(r) else max(low, a)), max(high, b)
    if r.combine == "min":
        return (min(low, a), high if _sparse(r) else min(high, b))
    if r.scalar.is_float:
        # The error of a float sum depends on its order; only its sign is certain.
        return (0.0, math.inf) if low >= 0 and a >= 0 else ANY
    return low + count * min(a, 0), high + count * max(b, 0)


def _sparse(r: Reduction) -> bool:
    return any(a.kind == "nonzeros" for a in r.axes)


def _range(expr: Expr, nest: LoopNest, memo: dict[Expr, Range]) -> Range:
    if expr not in memo:
        memo[expr] = _computed(expr, nest, memo)
    return memo[expr]


def _computed(expr: Expr, nest: LoopNest, memo: dict[Expr, Range]) -> Range:
    if isinstance(expr, Const):
        assert isinstance(expr.value, (int, float)), f"{expr} is not bound"
        return (expr.value, expr.value) if expr.value == expr.value else ANY
    if isinstance(expr, (Load, Lookup)):
        kind = nest.type_of(expr.operand)
        return kind.low, kind.high
    if isinstance(expr, Ref):
        r = nest.reduction
        if r and expr.name == r.name:
            whole = _accumulated(nest, r, memo)
            inside = r.scalar.low <= whole[0] and whole[1] <= r.scalar.high
            return whole if inside else (r.scalar.low, r.scalar.high)
        return _range(next(x.value for x in nest.epilogue if x.name == expr.name), nest, memo)
    if isinstance(expr, Cast):
        return cast_range(expr, _range(expr.arg, nest, memo))
    if isinstance(expr, Pick):
        found = [_range(v, nest, memo) for v in expr.values]
        return min(low for low, _ in found), max(high for _, high in found)
    if expr.op == "mul" and expr.args[0] == expr.args[1]:
        low, high = _range(expr.args[0], nest, memo)
        if (low, high) == ANY:
            return ANY
        return (0 if low <= 0 <= high else min(low * low, high * high)), max(low * low, high * high)
    args = [_range(a, nest, memo) for a in expr.args]
    return _ordered(_call(expr.op, args), any(isinstance(v, float) for a in args for v in a))


def cast_range(expr: Cast, arg: Range) -> Range:
    """The range after a cast; the type's own where it does not fit (`check` refuses that)."""
    to, (low, high) = expr.scalar, arg
    whole = (to.low, to.high)
    if to.is_float:
        return _rounded(low, to), _rounded(high, to)
    if to.kind == "b":
        return whole
    low, high = truncated(low), truncated(high)
    if arg == ANY and isinstance(arg[0], float):
        return whole
    if expr.mode == "saturate":
        return min(max(low, to.low), to.high), min(max(high, to.low), to.high)
    return (low, high) if to.low <= low and high <= to.high else whole


def truncated(value: int | float) -> int | float:
    """Toward zero, as a cast from float to integer does; infinities stay."""
    return int(value) if isinstance(value, int) or math.isfinite(value) else value


def _rounded(value: int | float, to: Scalar) -> float:
    try:
        return float(Exact(value).cast(to).value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _ordered(found: Range, is_float: bool) -> Range:
    low, high = found
    if low != low or high != high:
        return ANY
    if is_float:
        # Rounding to f32 is monotone, so rounding the ends encloses the rounded values (f64 ones
        # too, from outside).
        return min(low, _rounded(low, f32)), max(high, _rounded(high, f32))
    return found


def _corners(
    a: Range, b: Range, operation: Callable[[int | float, int | float], int | float]
) -> Range:
    try:
        found = [operation(x, y) for x in a for y in b]
    except (OverflowError, ZeroDivisionError):
        return ANY
    return ANY if any(v != v for v in found) else (min(found), max(found))


def _call(op: str, args: list[Range]) -> Range:
    if op in BOOLEANS:
        return (0, 1)
    a = args[0]
    if len(args) == 1:
        return _one(op, a)
    b = args[1]
    if op == "select":
        return min(b[0], args[2][0]), max(b[1], args[2][1])
    if op == "xnor_popcount":
        return (-1, 1)
    if op in ("max", "min"):
        return _extreme(op, a, b)
    if ANY in (a, b):
        return ANY
    if op == "add":
        return a[0] + b[0], a[1] + b[1]
    if op == "sub":
        return a[0] - b[1], a[1] - b[0]
    if op == "mul":
        return _corners(a, b, lambda x, y: x * y) if _finite_product(a, b) else ANY
    if op in ("div", "floordiv", "mod") and b[0] <= 0 <= b[1]:
        return ANY
    if op == "div":
        return ANY if math.inf in map(abs, (*a, *b)) else _corners(a, b, lambda x, y: x / y)
    if not all(isinstance(v, int) for v in (*a, *b)):
        return ANY
    return _integer(op, (int(a[0]), int(a[1])), (int(b[0]), int(b[1])))


def _finite_product(a: Range, b: Range) -> bool:
    """False where 0 * inf, a NaN, can happen."""
    return not any(x[0] <= 0 <= x[1] and math.inf in map(abs, y) for x, y in ((a, b), (b, a)))


def _extreme(op: str, a: Range, b: Range) -> Range:
    """max and min give the other side for a NaN, which widens the result by that side."""
    choose = max if op == "max" else min
    low, high = choose(a[0], b[0]), choose(a[1], b[1])
    for x, other in ((a, b), (b, a)):
        if x == ANY:
            low, high = min(low, other[0]), max(high, other[1])
    return low, high


def _one(op: str, a: Range) -> Range:
    low, high = a
    if op == "neg":
        return -high, -low
    if a == ANY:
        return ANY
    if op == "abs":
        return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))
    if op in _MONOTONE:
        slack = 0.0 if op in ("round", "floor", "ceil") else 1e-6
        x, y = (float(_MONOTONE[op](float(v)).value) for v in a)
        limits = {
            "exp": (0.0, math.inf),
            "sigmoid": (0.0, 1.0),
            "tanh": (-1.0, 1.0),
            "erf": (-1.0, 1.0),
        }
        floor, ceiling = limits.get(op, ANY)
        # A vector implementation may miss the true value by a few units in the last place.
        return max(floor, x - abs(x) * slack), min(ceiling, y + abs(y) * slack)
    if op == "sqrt" and low >= 0:
        return math.sqrt(low) * (1 - 1e-6), math.sqrt(high) * (1 + 1e-6)
    if op == "rsqrt" and low > 0 and high < math.inf:
        return (1 - 1e-6) / math.sqrt(high), (1 + 1e-6) / math.sqrt(low)
    if op == "log" and low > 0 and high < math.inf:
        x, y = math.log(low), math.log(high)
        return x - abs(x) * 1e-6, y + abs(y) * 1e-6
    return ANY


def _integer(op: str, a: tuple[int, int], b: tuple[int, int]) -> Range:
    if op == "floordiv":
        return _corners(a, b, lambda x, y: x // y)
    if op == "mod":
        if b[0] == b[1] and a[0] // b[0] == a[1] // b[0]:
            low, high = sorted((a[0] % b[0], a[1] % b[0]))
            return low, high
        return (0, b[1] - 1) if b[0] > 0 else (b[0] + 1, 0)
    if op in ("shl", "shr"):
        if b[0] < 0 or b[1] > 63:
            return ANY
        return _corners(a, b, lambda x, y: int(x) << int(y) if op == "shl" else int(x) >> int(y))
    if op == "and" and (a[0] >= 0 or b[0] >= 0):
        return 0, min(v[1] for v in (a, b) if v[0] >= 0)
    top = (1 << max(v.bit_length() for v in (*a, *b))) - 1
    return (0, top) if min(a[0], b[0]) >= 0 else (-top - 1, top)
