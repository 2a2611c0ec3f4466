"""Proves that a bound nest is safe and means one thing, or says with numbers why it does not.

Every index stays inside its operand, every output element is written exactly once, no accumulator
overflows, every exact cast fits, and integers meet floats only through casts. Changes nothing;
arrays are checked when they are passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..dsl.errors import OperandError
from ..dsl.nest import (
    Affine,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Lookup,
    LoopNest,
    Pick,
    Quotient,
    walk,
)
from ..dsl.types import bit, i64
from .coverage import check_store
from .ranges import ANY, BOOLEANS, accumulated, range_of, terms, truncated
from .scalars import FLOATS, fault, is_truth, line_of, scalar_of

__all__ = ["check", "range_of"]

INTEGERS = ("floordiv", "mod", "shl", "shr", "and", "or", "xor")
# The largest iteration space that is enumerated when interval bounds of a quotient are too wide.
ENUMERATED = 1 << 22


def check(nest: LoopNest) -> None:
    """Nothing for a safe nest.

    Raises KernelError with the line of the statement, or OperandError when an operand's storage is
    the mistake.
    """
    _storage(nest)
    _inputs_only(nest)
    r = nest.reduction
    if r is not None:
        for e in (r.init, r.value):
            _expression(nest, e, r.line)
        _reduction(nest)
    for let in nest.epilogue:
        _expression(nest, let.value, let.line)
    _expression(nest, nest.store.value, nest.store.line)
    _indices(nest, nest.store.operand, nest.store.index, nest.store.line)
    check_store(nest)
    _stored(nest)


def _storage(nest: LoopNest) -> None:
    compressed = {a.of for a in nest.axes if a.kind == "nonzeros"}
    for o in nest.operands:
        storage = nest.type_of(o.name).storage
        if o.name in compressed and storage != "csr":
            raise OperandError(
                f"{nest.name}: {o.name}={nest.type_of(o.name)} is {storage}; "
                f"sf.nonzeros({o.name}, ...) needs "
                "CSR. Pass a scipy.sparse.csr_array."
            )
        if o.name not in compressed and storage == "csr":
            raise OperandError(
                f"{nest.name}: {o.name}={nest.type_of(o.name)} is compressed; the nest indexes "
                f"every element. Pass a dense array, or loop over sf.nonzeros({o.name}, row)."
            )


def _inputs_only(nest: LoopNest) -> None:
    for e in (e for x in nest.expressions() for e in walk(x)):
        read = {e.operand} if isinstance(e, (Load, Lookup)) else set()
        if isinstance(e, Load):
            read |= {t.operand for i in e.index for t in i.fetched}
        if nest.out.name in read:
            raise fault(
                nest,
                line_of(e, nest),
                f"{e} reads the output; a nest reads inputs and writes its output once. "
                "Pass what it should read as another operand.",
            )


def _indices(nest: LoopNest, operand: str, index: tuple[Affine, ...], line: int) -> None:
    """Every index inside its operand for every point of the axes it mentions."""
    shape = nest.type_of(operand).shape
    for axis, (i, n) in enumerate(zip(index, shape, strict=True)):
        extents = {a: nest.extents[a] for a in sorted(i.axes)}
        if 0 in extents.values():
            continue
        low, high = _bounds(i, extents)
        if low >= 0 and high < n:
            continue
        bad = high if high >= n else low
        border = f", or give {operand} a border" if operand != nest.out.name else ""
        for t in i.fetched:
            kind = nest.type_of(t.operand).scalar
            border = f", or give {t.operand} a range such as sf.{kind}.range(0, {n - 1})"
        over = ", ".join(f"{a}<{e}" for a, e in extents.items()) or "no axis"
        raise fault(
            nest,
            line,
            f"index={i} of {operand} reaches {bad} with {over}; axis {axis} of {operand} has size "
            f"{n}, so 0 to {n - 1} is allowed. Correct the index or the extents{border}.",
        )


def _bounds(index: Affine, extents: Mapping[str, int]) -> tuple[int, int]:
    """Exact bounds: intervals, or with quotients all points when there are not too many."""
    plain = all(isinstance(t, str) for t, _ in index.terms)
    if plain or index.fetched or math.prod(extents.values()) > ENUMERATED:
        return index.bounds(extents)
    names = tuple(extents)
    grids = np.meshgrid(*(np.arange(extents[a]) for a in names), indexing="ij", sparse=True)
    values = _values(index, dict(zip(names, grids, strict=True)))
    return int(np.min(values)), int(np.max(values))


def _values(index: Affine, at: dict[str, np.ndarray]) -> np.ndarray:
    """The index at many points at once."""
    assert isinstance(index.const, int)
    total = np.asarray(index.const)
    for t, c in index.terms:
        assert isinstance(c, int)
        if isinstance(t, str):
            total = total + at[t] * c
        elif isinstance(t, Quotient):
            inner = _values(t.inner, at)
            total = total + (inner // t.divisor if t.op == "//" else inner % t.divisor) * c
    return total


def _expression(nest: LoopNest, expr: Expr, line: int) -> None:
    """Every part of one expression."""
    paired = {
        a for e in walk(expr) if isinstance(e, Call) and e.op == "xnor_popcount" for a in e.args
    }
    for e in walk(expr):
        if isinstance(e, Load):
            _load(nest, e, line)
            if nest.type_of(e.operand).scalar == bit and e not in paired:
                raise fault(
                    nest,
                    line,
                    f"{e} is a bit; bits are packed in words, and only xnor_popcount(a, b) reads "
                    "them. Use it, or pass the operand as i8 of +1 and -1.",
                )
        elif isinstance(e, Lookup):
            _lookup(nest, e, line)
        elif isinstance(e, Pick):
            _pick(nest, e, line)
        elif isinstance(e, Cast):
            _cast(nest, e, line)
        elif isinstance(e, Call):
            _operation(nest, e, line)
        elif (
            isinstance(e, Const) and isinstance(e.value, int) and not i64.low <= e.value <= i64.high
        ):
            raise fault(
                nest, line, f"{e} does not fit i64, the widest integer. Use a smaller number."
            )


def _load(nest: LoopNest, e: Load, line: int) -> None:
    compressed = [a for a in nest.axes if a.of == e.operand]
    if compressed and e.index != (compressed[0].row, Affine.axis(compressed[0].name)):
        a = compressed[0]
        raise fault(
            nest,
            line,
            f"{e} is not the stored element; a compressed operand is read as "
            f"{a.of}[{a.row}, {a.name}] only. Correct the index.",
        )
    for t in (t for i in e.index for t in i.fetched):
        _indices(nest, t.operand, t.index, line)
    _indices(nest, e.operand, e.index, line)


def _lookup(nest: LoopNest, e: Lookup, line: int) -> None:
    _number(nest, e.index, line, e)
    if scalar_of(e.index, nest).is_float:
        raise fault(
            nest, line, f"{e}: the index is a float; integers are allowed. Cast it with sf.i32."
        )
    size = nest.type_of(e.operand).shape[0]
    low, high = range_of(e.index, nest)
    if low < 0 or high >= size:
        raise fault(
            nest,
            line,
            f"index={e.index} of table {e.operand} reaches {low} to {high}; {e.operand} has {size} "
            "elements. Clip the index, or give its operand a range.",
        )


def _pick(nest: LoopNest, e: Pick, line: int) -> None:
    """Numbers of one kind, and as many as the index has values."""
    for v in e.values:
        _number(nest, v, line, e)
    scalars = [scalar_of(v, nest) for v in e.values]
    if len({s.is_float for s in scalars}) > 1:
        shown = " and ".join(f"{s} {v}" for s, v in zip(scalars, e.values, strict=True))
        raise fault(
            nest,
            line,
            f"{e}: mixed types {shown}; an integer meets a float only through a cast. Write "
            "sf.f32(...).",
        )
    low, high = e.index.bounds(nest.extents)
    if low < 0 or high >= len(e.values):
        over = ", ".join(f"{a}<{nest.extents[a]}" for a in sorted(e.index.axes))
        raise fault(
            nest,
            line,
            f"index={e.index} of {len(e.values)} values reaches {high if low >= 0 else low} with "
            f"{over}; 0 to {len(e.values) - 1} is allowed. Correct the index, or write more "
            "values.",
        )


def _cast(nest: LoopNest, e: Cast, line: int) -> None:
    _number(nest, e.arg, line, e)
    if e.mode != "exact" or e.scalar.is_float or e.scalar == bit:
        return
    found = range_of(e.arg, nest)
    low, high = (truncated(v) for v in found)
    if e.scalar.low <= low and high <= e.scalar.high:
        return
    nan = " or NaN" if found == ANY else ""
    raise fault(
        nest,
        line,
        f"{e} reaches {low} to {high}{nan}, which does not fit {e.scalar} ({e.scalar.low} to "
        f"{e.scalar.high}). Write sf.clip, or {e.scalar}(..., saturate=True) or wrap=True.",
    )


def _number(nest: LoopNest, e: Expr, line: int, where: Expr) -> None:
    if is_truth(e, nest):
        raise fault(
            nest,
            line,
            f"{where}: {e} is a condition, not a number; select, and, or, not and a store into "
            f"bit take conditions. Write `1 if ... else 0`.",
        )


def _condition(nest: LoopNest, e: Expr, line: int, where: Expr) -> None:
    if not is_truth(e, nest):
        raise fault(
            nest,
            line,
            f"{where}: {e} is a number, not a condition. Compare it, for example {e} > 0.",
        )


def _operation(nest: LoopNest, e: Call, line: int) -> None:
    if e.op == "not" or (is_truth(e, nest) and e.op in ("and", "or")):
        for a in e.args:
            _condition(nest, a, line, e)
        return
    args = e.args
    if e.op == "select":
        _condition(nest, args[0], line, e)
        args = args[1:]
    for a in args:
        _number(nest, a, line, e)
    scalars = [scalar_of(a, nest) for a in args]
    if len({s.is_float for s in scalars}) > 1:
        shown = " and ".join(f"{s} {a}" for s, a in zip(scalars, args, strict=True))
        raise fault(
            nest,
            line,
            f"{e}: mixed types {shown}; an integer meets a float only through a cast. Write "
            "sf.f32(...).",
        )
    is_float = scalars[0].is_float
    if e.op in FLOATS and not is_float:
        what = "/" if e.op == "div" else e.op
        advice = "Use //, or cast with sf.f32." if e.op == "div" else "Cast it with sf.f32."
        raise fault(nest, line, f"{e}: {what} of integers; floats are allowed. {advice}")
    if e.op in INTEGERS and is_float:
        raise fault(
            nest, line, f"{e}: {e.op} of floats; integers are allowed. Cast it, or use sf.floor."
        )
    if e.op == "xnor_popcount":
        for a, s in zip(args, scalars, strict=True):
            if not isinstance(a, Load) or s != bit:
                raise fault(
                    nest, line, f"{e}: {a} is {s}; xnor_popcount takes two loads of bit operands."
                )
    if e.op in ("floordiv", "mod"):
        low, high = range_of(args[1], nest)
        if low <= 0 <= high:
            raise fault(
                nest,
                line,
                f"{e}: the divisor can be {low} to {high}, which includes 0. Give its operand a "
                "range.",
            )
    if e.op in ("shl", "shr"):
        low, high = range_of(args[1], nest)
        limit = 63 if scalar_of(args[0], nest).bits == 64 or scalar_of(e, nest).bits == 64 else 31
        if low < 0 or high > limit:
            raise fault(
                nest,
                line,
                f"{e}: the shift can be {low} to {high}; 0 to {limit} is allowed. Clip it, or "
                "cast to i64.",
            )
    if e.op not in BOOLEANS:
        scalar_of(e, nest)


def _reduction(nest: LoopNest) -> None:
    """The value is of the accumulator's kind, and no partial result overflows it."""
    r = nest.reduction
    assert r is not None
    _number(nest, r.value, r.line, r.value)
    scalar = scalar_of(r.value, nest)
    wider = scalar.is_float and scalar.bits > r.scalar.bits
    if scalar.is_float != r.scalar.is_float or wider:
        kind = "f32" if scalar.is_float else "i32"
        other = "" if kind == r.scalar.name else f", or declare {r.name} = sf.{kind}(0)"
        raise fault(
            nest,
            r.line,
            f"{r.name}={r.scalar} takes {scalar} {r.value}; mixed types meet only through a cast. "
            f"Write sf.{r.scalar}(...){other}.",
        )
    if r.scalar.is_float or r.wrap:
        return
    low, high = accumulated(nest, r)
    if r.scalar.low <= low and high <= r.scalar.high:
        return
    a, b = range_of(r.value, nest)
    start = range_of(r.init, nest)
    count = terms(nest, r)
    how = f"{count} terms of {a} to {b} on {start[0]} to {start[1]}"
    advice = "Use a wider accumulator, give operands a range, or wrap=True."
    if r.combine != "add":
        how, advice = (
            f"{r.combine} of {a} to {b}",
            "Use a wider accumulator, or give operands a range.",
        )
    raise fault(
        nest,
        r.line,
        f"{r.name}={r.scalar} can overflow: {how} reach {low} to {high}, {r.scalar} holds "
        f"{r.scalar.low} to {r.scalar.high}. {advice}",
    )


def _stored(nest: LoopNest) -> None:
    """The stored value is of the output's type."""
    store, out = nest.store, nest.type_of(nest.store.operand).scalar
    truth = is_truth(store.value, nest)
    found = scalar_of(store.value, nest)
    if truth and out != bit:
        raise fault(
            nest,
            store.line,
            f"{store.operand}={out} is given the condition {store.value}; conditions are stored "
            "into bit. Write `1 if ... else 0`.",
        )
    if not truth and found != out:
        raise fault(
            nest,
            store.line,
            f"{store.operand}={out} is given {found} {store.value}; the value is of the output's "
            f"type. Cast it: sf.{out}(...).",
        )
