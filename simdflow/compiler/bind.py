"""A nest with symbolic sizes to one with integer extents, operand types and typed numbers.

    before   for oh<out.shape[1]>: ... x[n, oh*stride + kh, ...]        x: ?
    after    for oh<28>:           ... x[n, oh*2 + kh, ...]             x: u8[1, 58, 58, 64]

Finds the output's shape and type when they are not given. Whether the nest is safe is `check`'s
question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from ..dsl.errors import KernelError, OperandError
from ..dsl.nest import (
    Affine,
    Axis,
    Cast,
    Const,
    Dim,
    Expr,
    Fetched,
    Let,
    Load,
    LoopNest,
    Pick,
    Quotient,
    Ref,
    Size,
    resolve,
    rewrite,
    walk,
)
from ..dsl.types import OperandType, bit
from .extents import inferred, output_shape, simple_index, simplified
from .scalars import fault, is_plain, is_truth, numbered, scalar_of, typed, typed_store

T = TypeVar("T")


def bind(
    nest: LoopNest,
    types: Mapping[str, OperandType],
    constants: Mapping[str, int | float] | None = None,
) -> LoopNest:
    """The nest for operands of the given types and for the given constants.

    The output may be left out of `types`: each grid axis is then as long as every index that
    mentions it allows, and the element type is that of the stored value (`bit` for a comparison).

    Raises OperandError for operands that are missing, unknown, of a wrong rank or of lengths that
    disagree, KernelError for constants, sizes and outputs that cannot be made sense of.
    """
    nest = replace(nest, constants=_constants(nest, constants or {}))
    nest = _with_types(nest, types)
    sizes = _Sizes(nest)
    out = nest.out
    nest = replace(nest, store=replace(nest.store, index=sizes.index(nest.store.index)))
    nest = _reduction_bound(nest, sizes)
    if out.type is None:
        symbolic = nest.grid
        grid = tuple(replace(a, extent=sizes.unless_output(a)) for a in symbolic)
        loads = tuple(replace(x, index=sizes.index(x.index)) for x in nest.loads())
        nest = inferred(replace(nest, grid=grid), loads)
        # The element type is found last; `bit` holds its place, for values that mention the shape.
        nest = _with_type(nest, out.name, bit[output_shape(nest, grid)])
        sizes = _Sizes(nest)
    else:
        nest = replace(nest, grid=tuple(replace(a, extent=sizes.extent(a)) for a in nest.grid))
    extents = nest.extents
    nest = _mapped(nest, lambda e: simplified(sizes.expression(e), extents))
    index = tuple(simple_index(i, extents) for i in nest.store.index)
    nest = replace(nest, store=replace(nest.store, index=index))
    if out.type is not None:
        return _typed(nest)
    shape = nest.type_of(out.name).shape
    nest = _typed(_with_type(nest, out.name, None))
    value = nest.store.value
    scalar = bit if is_truth(value, nest) else scalar_of(value, nest)
    return _with_type(nest, out.name, scalar[shape])


@dataclass(frozen=True)
class _Sizes:
    """Symbolic sizes to integers, by the nest's operand types and constants."""

    nest: LoopNest

    def known(self, d: Dim) -> int:
        if d.operand:
            kind = self.nest.operand(d.operand).type
            if kind is None:
                raise fault(
                    self.nest,
                    0,
                    f"size={d} is not known before the output's shape is; extents of the grid "
                    f"alone may be dimensions of {d.operand} that is not given. Pass {d.operand}.",
                )
            return kind.shape[d.axis]
        value = dict(self.nest.constants)[d.name]
        if not isinstance(value, int):
            raise fault(
                self.nest,
                0,
                f"{d.name}={value!r} is used as a size; sizes are integers. Pass an integer.",
            )
        return int(value)

    def integer(self, value: Size) -> int:
        try:
            return resolve(value, self.known)
        except ZeroDivisionError:
            raise fault(
                self.nest, 0, f"size={value} divides by zero; use a divisor of 1 or more."
            ) from None

    def extent(self, a: Axis) -> int:
        n = self.integer(a.extent)
        if n < 0:
            raise fault(self.nest, 0, f"axis={a.name} has extent {a.extent} = {n}; use 0 or more.")
        return n

    def unless_output(self, a: Axis) -> Size:
        """An extent; still symbolic when it is a dimension of the output to be inferred."""
        if isinstance(a.extent, Dim) and a.extent.operand == self.nest.out.name:
            return a.extent
        return self.extent(a)

    def affine(self, a: Affine) -> Affine:
        total = Affine((), self.integer(a.const))
        for t, c in a.terms:
            if isinstance(t, Quotient):
                divisor = self.integer(t.divisor)
                if divisor < 1:
                    raise fault(
                        self.nest, 0, f"index={t} divides by {divisor}; use a divisor of 1 or more."
                    )
                t = Quotient(t.op, self.affine(t.inner), divisor)
            elif isinstance(t, Fetched):
                t = self.fetched(t)
            # Terms that became equal are merged, and those that became zero dropped.
            total = total.plus(Affine(((t, self.integer(c)),)))
        return total

    def fetched(self, t: Fetched) -> Fetched:
        kind = self.nest.operand(t.operand).type
        if kind is None or kind.scalar.kind not in "ui":
            raise fault(
                self.nest,
                0,
                f"index={t} is {kind.scalar if kind else 'the output'}; an index is an integer "
                "that an input holds. Pass integers.",
            )
        return replace(t, index=self.index(t.index), low=int(kind.low), high=int(kind.high))

    def index(self, index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        return tuple(self.affine(i) for i in index)

    def expression(self, e: Expr) -> Expr:
        """One part of an expression: indices and numbers made integers."""
        if isinstance(e, Load):
            return replace(e, index=self.index(e.index))
        if isinstance(e, Pick):
            return replace(e, index=self.affine(e.index))
        if isinstance(e, Const) and isinstance(e.value, Dim) and not e.value.operand:
            return Const(dict(self.nest.constants)[e.value.name])
        if isinstance(e, Const) and not isinstance(e.value, (int, float)):
            return Const(self.integer(e.value))
        return e


def _constants(
    nest: LoopNest, given: Mapping[str, int | float]
) -> tuple[tuple[str, int | float], ...]:
    """Every constant with its value: given, or its default."""
    values: dict[str, int | float] = dict(nest.constants)
    for name, value in given.items():
        if name not in values:
            known = f"constants are {', '.join(values)}" if values else "it has none"
            raise fault(
                nest,
                0,
                f"{name}={value!r} is not a constant of this kernel; {known}. Remove it.",
            )
        default = values[name]
        if isinstance(value, (np.bool_, np.integer, np.floating)):
            value = value.item()
        allowed = (int, float) if isinstance(default, float) else (int,)
        if not isinstance(value, allowed):
            kind = "a number" if isinstance(default, float) else f"an {type(default).__name__}"
            kind = "a bool" if isinstance(default, bool) else kind
            raise fault(
                nest,
                0,
                f"{name}={value!r} is not {kind}, as its default {default!r} is. Pass {kind}.",
            )
        values[name] = type(default)(value) if not isinstance(default, float) else float(value)
    return tuple(values.items())


def _with_types(nest: LoopNest, types: Mapping[str, OperandType]) -> LoopNest:
    names = [o.name for o in nest.operands]
    for name in types:
        if name not in names:
            raise OperandError(
                f"{nest.name}: {name} is not an operand; operands are {', '.join(names)}."
            )
    ranks = {x.operand: len(x.index) for x in nest.loads()}
    ranks[nest.store.operand] = len(nest.store.index)
    ranks |= {a.of: 2 for a in nest.axes if a.kind == "nonzeros"}
    for o in nest.operands:
        kind, rank = types.get(o.name), ranks.get(o.name, 1)
        if kind is None and o.role != "out":
            raise OperandError(f"{nest.name}: {o.name} has no type. Pass {o.name} or its type.")
        if kind is not None and len(kind.shape) != rank:
            raise OperandError(
                f"{nest.name}: {o.name}={kind} has {len(kind.shape)} axes; the nest indexes it "
                f"with {rank}. Pass an operand of {rank} axes."
            )
    operands = tuple(replace(o, type=types.get(o.name)) for o in nest.operands)
    return replace(nest, operands=operands)


def _with_type(nest: LoopNest, name: str, kind: OperandType | None) -> LoopNest:
    operands = tuple(replace(o, type=kind) if o.name == name else o for o in nest.operands)
    return replace(nest, operands=operands)


def _reduction_bound(nest: LoopNest, sizes: _Sizes) -> LoopNest:
    r = nest.reduction
    if r is None:
        return nest
    axes = tuple(replace(a, extent=sizes.extent(a), row=sizes.affine(a.row)) for a in r.axes)
    return replace(nest, reduction=replace(r, axes=axes))


def _mapped(nest: LoopNest, change: Callable[[Expr], Expr]) -> LoopNest:
    """The nest with `change` applied to every part of every expression."""
    r = nest.reduction
    if r is not None:
        r = replace(r, init=rewrite(r.init, change), value=rewrite(r.value, change))
    return replace(
        nest,
        reduction=r,
        epilogue=tuple(replace(x, value=rewrite(x.value, change)) for x in nest.epilogue),
        store=replace(nest.store, value=rewrite(nest.store.value, change)),
    )


def _typed(nest: LoopNest) -> LoopNest:
    """The nest with every plain number folded and typed, and names of plain numbers replaced."""
    r = nest.reduction
    if r is not None:
        init = _located(nest, r.line, lambda: _initial(nest))
        value = _located(nest, r.line, lambda: _value(nest))
        nest = replace(nest, reduction=replace(r, init=init, value=value))
    numbers: dict[str, Expr] = {}

    def put(e: Expr) -> Expr:
        return numbers.get(e.name, e) if isinstance(e, Ref) else e

    pending, nest = nest.epilogue, replace(nest, epilogue=())
    for let in pending:
        value = _located(nest, let.line, partial(typed, rewrite(let.value, put), nest))
        if is_plain(value):
            numbers[let.name] = value
        else:
            nest = replace(nest, epilogue=(*nest.epilogue, replace(let, value=value)))
    store = replace(nest.store, value=rewrite(nest.store.value, put))
    store = _located(nest, store.line, partial(typed_store, store, nest))
    return _used_lets(replace(nest, store=store))


def _located(nest: LoopNest, line: int, make: Callable[[], T]) -> T:
    """What `make` gives; an error of an expression that is not in the nest yet gets its line."""
    try:
        return make()
    except KernelError as e:
        if e.line:
            raise
        raise fault(nest, line, str(e).removeprefix(f"{nest.name}: ")) from None


def _used_lets(nest: LoopNest) -> LoopNest:
    """Without the names that nothing reads once a constant condition has been decided."""
    kept: list[Let] = []
    wanted = {e.name for e in walk(nest.store.value) if isinstance(e, Ref)}
    for let in reversed(nest.epilogue):
        if let.name in wanted:
            kept.append(let)
            wanted |= {e.name for e in walk(let.value) if isinstance(e, Ref)}
    return replace(nest, epilogue=tuple(reversed(kept)))


def _initial(nest: LoopNest) -> Expr:
    """The accumulator's first value, in the accumulator's type."""
    assert nest.reduction is not None
    scalar = nest.reduction.scalar
    init = typed(nest.reduction.init, nest)
    if is_plain(init):
        return typed(Cast(scalar, "wrap" if nest.reduction.wrap else "exact", init), nest)
    if isinstance(init, Const) and init.scalar == scalar:
        return init
    return init if scalar_of(init, nest) == scalar else Cast(scalar, "exact", init)


def _value(nest: LoopNest) -> Expr:
    assert nest.reduction is not None
    value = typed(nest.reduction.value, nest)
    if isinstance(value, Const) and value.scalar is None:
        return numbered(value, nest.reduction.scalar)
    return value
