"""How far the floats of a nest may be from its exact result, by running error analysis.

It computes a bound nest on arrays in float64, all points at once, and carries beside every value a
limit of the error that f32 arithmetic in any order can make. Shares no code with the compiler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.scalars import scalar_of
from ..dsl.nest import (
    Affine,
    Call,
    Cast,
    Const,
    Expr,
    Fetched,
    Load,
    Lookup,
    LoopNest,
    Pick,
    Ref,
    walk,
)
from ..dsl.types import Scalar, bit

TRANSCENDENTAL = {"exp", "log", "tanh", "erf", "sigmoid", "rsqrt"}
# Units in the last place that a function's emission may be wrong by, with room for its argument.
FUNCTION_ULP = 8
TINY = {32: float(np.finfo(np.float32).tiny), 64: float(np.finfo(np.float64).tiny)}
LARGEST = {32: float(np.finfo(np.float32).max), 64: float(np.finfo(np.float64).max)}

_FLOATS: Mapping[str, Callable[[Any], Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "sqrt": np.sqrt,
    "rsqrt": lambda v: 1 / np.sqrt(v),
}
# Largest slope, for the functions that have one.
_SLOPE = {"tanh": 1.0, "erf": 1.2, "sigmoid": 0.25}
_STEPS: Mapping[str, Callable[[Any], Any]] = {"round": np.rint, "floor": np.floor, "ceil": np.ceil}
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_INTEGERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@dataclass(frozen=True)
class Near:
    """A value known to within `error` (of a condition: True where it may be either)."""

    value: Any
    error: Any


def is_exact(nest: LoopNest) -> bool:
    """Whether every dataflow gives the same bits: no float sum, no approximated function."""
    r = nest.reduction
    if r and r.combine == "add" and r.scalar.is_float:
        return False
    parts = [e for x in nest.expressions() for e in walk(x)]
    return not any(isinstance(e, Call) and e.op in TRANSCENDENTAL for e in parts)


def bounds(nest: LoopNest, arrays: Mapping[str, Any]) -> Near:
    """The output's exact values and, per element, how far f32 arithmetic may be from them.

    With u the unit roundoff and K the length of the reduction: `(K + 1) * u * sum(|terms|)` for a
    sum, `|a|*err(b) + |b|*err(a) + u*|a*b|` for a product, and so on (N. Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, chapters 3 and 4). Infinite where the analysis gives
    up: where f32 overflows, or an integer operation is given a value with an error.

    arrays     input -> values (i8 +1/-1 for `bit`, compressed operands with their zeros and as a
               masked array that hides what is not stored)
    """
    axes = nest.axes
    index = {a.name: i for i, a in enumerate(axes)}
    at = {
        a.name: np.arange(int(str(a.extent))).reshape(
            [-1 if i == index[a.name] else 1 for i in range(len(axes))]
        )
        for a in axes
    }
    known: dict[str, Near] = {}
    run = _Run(nest, arrays, at, known)
    with np.errstate(all="ignore"):
        if nest.reduction:
            _reduce(run)
        for let in nest.epilogue:
            known[let.name] = run.near(let.value)
        stored = run.near(nest.store.value)
        out = nest.type_of(nest.store.operand)
        if out.scalar == bit and np.asarray(stored.value).dtype == bool:
            both = Near(np.where(stored.value, 1.0, -1.0), np.where(stored.error, 2.0, 0.0))
        elif out.scalar == bit:
            stored = run.compared("gt", stored, Near(0.0, 0.0))
            both = Near(np.where(stored.value, 1.0, -1.0), np.where(stored.error, 2.0, 0.0))
        else:
            both = stored
        places = tuple(_affine(i, at, {}) for i in nest.store.index)
        shape = np.broadcast_shapes(
            *(np.shape(p) for p in places),
            tuple(int(str(a.extent)) if a.kind == "grid" else 1 for a in axes),
        )
        places = tuple(np.broadcast_to(p, shape) for p in places)
        value, error = np.zeros(out.shape), np.zeros(out.shape)
        value[places] = np.broadcast_to(both.value, shape)
        error[places] = np.broadcast_to(both.error, shape)
    return Near(value, error)


def _affine(index: Affine, at: Mapping[str, Any], arrays: Mapping[str, Any]) -> Any:
    """An index at all points; `arrays` hold the integers it may fetch."""
    total: Any = np.asarray(index.const)
    for term, c in index.terms:
        if isinstance(term, str):
            part = at[term]
        elif isinstance(term, Fetched):
            integers = np.ma.getdata(arrays[term.operand])
            places = tuple(_affine(i, at, arrays) for i in term.index)
            part = integers[places].astype(np.int64)
        else:
            inner, d = _affine(term.inner, at, arrays), int(str(term.divisor))
            part = inner // d if term.op == "//" else inner % d
        total = total + part * int(str(c))
    return total


def _reduce(run: _Run) -> None:
    """The accumulator after its reduction, into `run.known`."""
    nest = run.nest
    r = nest.reduction
    assert r is not None
    where = tuple(len(nest.grid) + i for i in range(len(r.axes)))
    full = tuple(int(str(a.extent)) for a in nest.axes)
    start, term = run.near(r.init), run.near(r.value)
    value = np.broadcast_to(term.value, full)
    error = np.broadcast_to(term.error, full)
    stored = run.stored(full)
    unit = run.unit(r.scalar)
    if r.combine == "add":
        value, error = np.where(stored, value, 0.0), np.where(stored, error, 0.0)
        total = value.sum(axis=where, keepdims=True) + start.value
        size = np.abs(value).sum(axis=where, keepdims=True) + np.abs(start.value)
        count = math.prod(full[i] for i in where)
        wrong = error.sum(axis=where, keepdims=True) + start.error + (count + 1) * unit * size
        near = run.rounded(total, wrong, r.scalar)
    else:
        neutral = -math.inf if r.combine == "max" else math.inf
        choose = np.fmax if r.combine == "max" else np.fmin
        value, error = np.where(stored, value, neutral), np.where(stored, error, 0.0)
        best = choose.reduce(value, axis=where, keepdims=True, initial=neutral)
        near = Near(
            choose(best, start.value),
            np.maximum(error.max(axis=where, keepdims=True, initial=0.0), start.error),
        )
    run.known[r.name] = near


@dataclass(frozen=True)
class _Run:
    """One evaluation: the nest, its arrays, every axis as an array, and the names known so far."""

    nest: LoopNest
    arrays: Mapping[str, Any]
    at: Mapping[str, Any]
    known: dict[str, Near]

    def unit(self, scalar: Scalar) -> float:
        """Half a unit in the last place, relative; 0 for integers."""
        return {32: 2.0**-24, 64: 2.0**-53}[scalar.bits] if scalar.is_float else 0.0

    def stored(self, shape: tuple[int, ...]) -> Any:
        """Which points of the nest exist: those of stored elements, for compressed axes."""
        exists: Any = np.ones(shape, bool)
        for a in self.nest.axes:
            if a.of:
                mask = ~np.ma.getmaskarray(self.arrays[a.of])
                exists = exists & mask[_affine(a.row, self.at, {}), self.at[a.name]]
        return exists

    def rounded(self, value: Any, error: Any, scalar: Scalar) -> Near:
        """A value after an operation: denormals may be lost, and past the largest all is open."""
        if not scalar.is_float:
            return Near(value, error)
        error = error + np.where(np.isfinite(value) & (value != 0), TINY[scalar.bits], 0.0)
        over = np.isfinite(value) & (np.abs(value) + error > LARGEST[scalar.bits])
        return Near(value, np.where(over, math.inf, error))

    def near(self, e: Expr) -> Near:
        if isinstance(e, Const):
            return Near(np.asarray(e.value), 0.0)
        if isinstance(e, Ref):
            return self.known[e.name]
        if isinstance(e, Load):
            array = np.ma.getdata(self.arrays[e.operand])
            places = tuple(_affine(i, self.at, self.arrays) for i in e.index)
            return Near(_wide(array[places]), 0.0)
        if isinstance(e, Lookup):
            return self._lookup(e)
        if isinstance(e, Pick):
            return self._pick(e)
        if isinstance(e, Cast):
            return self._cast(e, self.near(e.arg))
        return self._call(e, [self.near(a) for a in e.args])

    def _pick(self, e: Pick) -> Near:
        which, values = _affine(e.index, self.at, {}), [self.near(v) for v in e.values]
        parts = [np.asarray(p) for v in values for p in (v.value, v.error)]
        shape = np.broadcast_shapes(which.shape, *(p.shape for p in parts))
        at = np.broadcast_to(which, shape)[None]
        whole = [np.broadcast_to(p, shape) for p in parts]
        value, error = (np.take_along_axis(np.stack(whole[k::2]), at, 0)[0] for k in (0, 1))
        return Near(value, error)

    def _lookup(self, e: Lookup) -> Near:
        table, index = _wide(self.arrays[e.operand]), self.near(e.index)
        places = np.clip(np.asarray(index.value).astype(np.int64), 0, len(table) - 1)
        spread = float(np.max(table) - np.min(table))
        return Near(table[places], np.where(index.error > 0, spread, 0.0))

    def _cast(self, e: Cast, a: Near) -> Near:
        scalar = e.scalar
        if scalar.is_float:
            value = np.asarray(a.value, np.float64)
            return self.rounded(value, a.error + self.unit(scalar) * np.abs(value), scalar)
        value = np.nan_to_num(
            np.trunc(np.asarray(a.value, np.float64)), posinf=2.0**62, neginf=-(2.0**62)
        )
        exact = np.asarray(a.value).dtype.kind != "f"
        whole = np.asarray(a.value) if exact else value.astype(np.int64)
        error = _stepped(np.trunc, a)
        if e.mode == "wrap":
            size, low = 1 << scalar.bits, int(scalar.low)
            wrapped = whole if scalar.bits == 64 else (whole - low) % size + low
            return Near(wrapped, np.where(error > 0, math.inf, 0.0))
        low, high = int(scalar.low), int(scalar.high)
        return Near(np.clip(whole, low, high), np.minimum(error, high - low))

    def compared(self, op: str, a: Near, b: Near) -> Near:
        unsure = np.asarray(a.error + b.error)
        close = (unsure > 0) & (np.abs(a.value - b.value) <= unsure)
        return Near(_COMPARE[op](a.value, b.value), close)

    def _call(self, e: Call, args: list[Near]) -> Near:
        op = e.op
        if op in _COMPARE:
            return self.compared(op, args[0], args[1])
        scalar = scalar_of(e, self.nest)
        if op in ("and", "or", "not") and scalar == bit:
            values = [a.value for a in args]
            logic: Mapping[str, Callable[..., Any]] = {
                "and": np.logical_and,
                "or": np.logical_or,
                "not": np.logical_not,
            }
            return Near(
                logic[op](*values),
                np.logical_or.reduce(np.broadcast_arrays(*(a.error for a in args))),
            )
        if op == "select":
            test, a, b = args
            value = np.where(test.value, a.value, b.value)
            error = np.where(test.value, a.error, b.error)
            open_error = np.maximum(a.error, b.error) + np.abs(a.value - b.value)
            return Near(value, np.where(test.error, open_error, error))
        if op in _INTEGERS:
            a, b = args
            whole = _INTEGERS[op](_whole(a.value), _whole(b.value))
            return Near(whole, np.where(np.asarray(a.error) + b.error > 0, math.inf, 0.0))
        if len(args) == 1:
            return self._one(op, args[0], scalar)
        return self._two(op, args[0], args[1], scalar)

    def _two(self, op: str, a: Near, b: Near, scalar: Scalar) -> Near:
        unit = self.unit(scalar)
        if op in ("max", "min"):
            choose = np.fmax if op == "max" else np.fmin
            return Near(choose(a.value, b.value), np.maximum(a.error, b.error))
        if op in ("add", "sub"):
            value = a.value + b.value if op == "add" else a.value - b.value
            error = a.error + b.error
        elif op in ("mul", "xnor_popcount"):
            value = a.value * b.value
            error = _times(a.value, b.error) + _times(b.value, a.error) + a.error * b.error
        else:
            value = np.divide(a.value, b.value)
            room = np.abs(b.value) - b.error
            error = np.where(room > 0, (a.error + _times(value, b.error)) / room, math.inf)
        return self.rounded(value, error + _times(value, unit), scalar)

    def _one(self, op: str, a: Near, scalar: Scalar) -> Near:
        if op == "neg":
            return Near(-a.value, a.error)
        if op == "abs":
            return Near(np.abs(a.value), a.error)
        if op in _STEPS:
            step = _STEPS[op]
            return Near(step(a.value), _stepped(step, a))
        function = _FLOATS[op]
        value = function(np.asarray(a.value, np.float64))
        if op in _SLOPE:
            moved = _SLOPE[op] * a.error
        elif op == "exp":
            moved = _times(value, np.expm1(a.error))
        else:
            # Monotone: the ends of the interval are the farthest.
            ends = [function(np.maximum(a.value - a.error, 0.0)), function(a.value + a.error)]
            moved = np.where(
                np.asarray(a.error) > 0, np.maximum(*(np.abs(v - value) for v in ends)), 0.0
            )
        error = moved + _times(value, FUNCTION_ULP * self.unit(scalar))
        return self.rounded(value, error, scalar)


def _wide(values: Any) -> Any:
    """Floats as float64, integers as int64, so that nothing here overflows."""
    return np.asarray(values, np.float64 if np.asarray(values).dtype.kind == "f" else np.int64)


def _whole(value: Any) -> Any:
    return np.asarray(value).astype(np.int64)


def _stepped(step: Callable[[Any], Any], a: Near) -> Any:
    """How far a step function's result may be off: 0 unless a step is within the error."""
    here = step(a.value)
    off = np.maximum(step(a.value + a.error) - here, here - step(a.value - a.error))
    return np.where(np.asarray(a.error) > 0, off, 0.0)


def _times(a: Any, b: Any) -> Any:
    """|a| * b, and 0 where b is 0 even if a is infinite."""
    return np.where(np.asarray(b) == 0, 0.0, np.abs(a) * b)


def masked(dense: Any, stored: Any) -> Any:
    """A compressed operand for `bounds`: its dense values, hidden where nothing is stored."""
    return np.ma.MaskedArray(dense, ~np.asarray(stored, bool))


def within(got: Any, expected: Any, error: Any) -> Any:
    """Where two results agree to within an error; NaN agrees with NaN, and an unknown error with
    all.
    """
    with np.errstate(all="ignore"):
        close = np.abs(np.asarray(got, np.float64) - np.asarray(expected, np.float64)) <= error
        same = (got == expected) | ((got != got) & (expected != expected))
        return close | same | ~np.isfinite(error)
