"""Bound loop nests made to fit each other: axes spread to another shape, a consumer fused into the
epilogue of its producer.

    conv    for oh, ow, oc: acc = ...;  out[oh, ow, oc] = u8(q(acc))
    add     for i: out[i] = u8(s(a[i], b[i]))
    fused   for oh, ow, oc: acc = ...; v = u8(q(acc)); out[oh, ow, oc] = u8(s(v, b[oh, ow, oc]))

Works on any nests: it knows no layer, and no memory but the shapes of operands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ..compiler.flatten import map_accesses
from ..compiler.place import substitute
from ..dsl.nest import (
    Affine,
    Axis,
    Expr,
    Fetched,
    Let,
    Load,
    Lookup,
    LoopNest,
    Operand,
    Pick,
    Quotient,
    Ref,
    rewrite,
    walk,
)
from ..dsl.types import OperandType

Frame = tuple[tuple[int, int], ...]


def grouping(merged: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    """For each size of `merged`, the consecutive axes of `shape` whose product it is; None where
    the one is not made of the other that way.
    """
    groups: list[tuple[int, ...]] = []
    at = 0
    for n in merged:
        axes: list[int] = []
        have = 1
        while at < len(shape) and (have < n or (n == shape[at] == 1 and not axes)):
            have *= shape[at]
            axes.append(at)
            at += 1
        if have != n:
            return None
        groups.append(tuple(axes))
    if any(n != 1 for n in shape[at:]):
        return None
    if groups:
        groups[-1] = (*groups[-1], *range(at, len(shape)))
    return groups


def framed(view: tuple[int, ...], shape: tuple[int, ...], frame: Frame) -> Frame | None:
    """The frame of an array of `shape` when it is seen as `view`, its axes joined; None where it
    has none: a step of the joined axes would not be even.
    """
    if not any(a or b for a, b in frame):
        return ()
    groups = grouping(view, shape)
    if groups is None:
        return None
    seen: list[tuple[int, int]] = []
    covered: set[int] = set()
    for axes in groups:
        covered |= set(axes)
        real = [a for a in axes if shape[a] > 1 or frame[a] != (0, 0)]
        if any(frame[a] != (0, 0) for a in real[1:]):
            return None
        inner = math.prod(shape[a] for a in real[1:])
        before, after = frame[real[0]] if real else (0, 0)
        seen.append((before * inner, after * inner))
    if any(frame[a] != (0, 0) for a in range(len(shape)) if a not in covered):
        return None
    return tuple(seen)


def is_elementwise(nest: LoopNest) -> bool:
    """Whether each point of the output is computed alone, and stored where its axes say."""
    sizes = nest.type_of(nest.out.name).shape
    return nest.reduction is None and all(
        _runs_along(nest, i, n) for i, n in zip(nest.store.index, sizes, strict=True) if n > 1
    )


def _runs_along(nest: LoopNest, index: Affine, size: int) -> bool:
    """Whether an index is one axis, from the first element of `size` to the last."""
    axis = next(iter(index.axes), "")
    return index == Affine.axis(axis) and nest.extents.get(axis) == size


def aligned(nest: LoopNest, shape: tuple[int, ...]) -> LoopNest | None:
    """An elementwise nest with one axis for each size of `shape`, which its output has then.

    Operands that run along a spread axis are spread as well. None if the output's axes are not
    those of `shape`, joined.
    """
    out = nest.type_of(nest.out.name)
    groups = grouping(out.shape, shape)
    if groups is None or not is_elementwise(nest):
        return None
    names = [f"i{d}" for d in range(len(shape))]
    parts: dict[str, tuple[int, ...]] = {}
    for index, axes in zip(nest.store.index, groups, strict=True):
        for axis in index.axes:
            parts[axis] = axes
    spread: dict[str, list[tuple[int, ...] | None]] = {}
    for o in nest.operands:
        rank = len(nest.type_of(o.name).shape)
        spread[o.name] = [_spread_axes(nest, o.name, d, parts) for d in range(rank)]

    def change(operand: str, index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        found: list[Affine] = []
        for d, i in enumerate(index):
            axes = spread[operand][d] if operand in spread else None
            if axes is not None:
                found += [Affine.axis(names[a]) for a in axes]
            else:
                found.append(_substituted(i, parts, names, shape))
        return tuple(found)

    operands = tuple(
        replace(o, type=_spread_type(nest.type_of(o.name), spread[o.name], shape))
        for o in nest.operands
    )
    moved = map_accesses(nest, change)
    grid = tuple(Axis(name, n) for name, n in zip(names, shape, strict=True))
    store = replace(moved.store, index=tuple(Affine.axis(n) for n in names))
    operands = tuple(
        replace(o, type=replace(out, shape=shape)) if o.role == "out" else o for o in operands
    )
    return replace(moved, grid=grid, store=store, operands=operands)


def _spread_axes(
    nest: LoopNest, operand: str, d: int, parts: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """The axes that dimension `d` of an operand becomes: those of the one axis that every load
    runs along it with.
    """
    found = {x.index[d] for x in nest.loads() if x.operand == operand}
    if len(found) != 1:
        return None
    (index,) = found
    axis = next(iter(index.axes), "")
    if index != Affine.axis(axis) or axis not in parts:
        return None
    return parts[axis] if nest.type_of(operand).shape[d] == nest.extents[axis] else None


def _spread_type(
    kind: OperandType, spread: list[tuple[int, ...] | None], shape: tuple[int, ...]
) -> OperandType:
    sizes: list[int] = []
    for n, axes in zip(kind.shape, spread, strict=True):
        sizes += [n] if axes is None else [shape[a] for a in axes]
    return replace(kind, shape=tuple(sizes))


def _substituted(
    index: Affine, parts: Mapping[str, tuple[int, ...]], names: list[str], shape: tuple[int, ...]
) -> Affine:
    """The index with each axis written as the sum of the axes it was spread to."""
    total = Affine((), index.const)
    for term, c in index.terms:
        if isinstance(term, Quotient):
            inner = _substituted(term.inner, parts, names, shape)
            total = total.plus(Affine(((replace(term, inner=inner), c),)))
            continue
        if isinstance(term, Fetched):  # `map_accesses` has been at its index before
            total = total.plus(Affine(((term, c),)))
            continue
        stride = 1
        for a in reversed(parts.get(term, ())):
            total = total.plus(Affine.axis(names[a]).times(stride).times(c))
            stride *= shape[a]
    return total


def fused(producer: LoopNest, consumer: LoopNest, operand: str) -> LoopNest | None:
    """The producer with the consumer in its epilogue, where `operand` is the producer's output.

    The consumer's other operands come after the producer's, with a number after their
    names where those have the name already; the output keeps the producer's. None where the
    consumer does not read that operand point by point, or the producer stores where quotients of
    its axes say.
    """
    out = producer.type_of(producer.out.name)
    if out.border or any(not isinstance(t, str) for i in producer.store.index for t, _ in i.terms):
        return None
    lined = aligned(consumer, out.shape)
    if lined is None:
        return None
    if any(x.index != lined.store.index for x in lined.loads() if x.operand == operand):
        return None
    if any(t.operand == operand for x in lined.loads() for i in x.index for t in i.fetched):
        return None
    if lined.type_of(operand).scalar != out.scalar:
        return None
    axis_of = {
        next(iter(mine.axes)): theirs
        for mine, theirs in zip(lined.store.index, producer.store.index, strict=True)
    }
    names = _fresh_names(producer, lined, operand)

    def on(e: Expr) -> Expr:
        if isinstance(e, Load):
            if e.operand == operand:
                return Ref(names[operand])
            index = tuple(_renamed(i, axis_of, names) for i in e.index)
            return Load(names[e.operand], index)
        if isinstance(e, Lookup):
            return replace(e, operand=names[e.operand])
        if isinstance(e, Pick):
            return replace(e, index=_renamed(e.index, axis_of, names))
        if isinstance(e, Ref):
            return Ref(names[e.name])
        return e

    held = Let(names[operand], producer.store.value, producer.store.line)
    lets = tuple(Let(names[x.name], rewrite(x.value, on)) for x in lined.epilogue)
    value = rewrite(lined.store.value, on)
    result = lined.type_of(lined.out.name)
    others = tuple(
        Operand(names[o.name], o.role, o.type)
        for o in lined.operands
        if o.role != "out" and o.name != operand
    )
    mine = tuple(o for o in producer.operands if o.role != "out")
    stored = replace(producer.out, type=replace(out, scalar=result.scalar, low=result.low,
                                                high=result.high))  # fmt: skip
    return replace(
        producer,
        name=f"{producer.name}_{consumer.name}",
        operands=(*mine, *others, stored),
        constants=(),
        epilogue=(*producer.epilogue, held, *lets),
        store=replace(producer.store, value=value),
    )


def inlined(producer: LoopNest, consumer: LoopNest, operand: str) -> LoopNest | None:
    """The consumer with what the producer computes in the place of its load of `operand`, the
    producer's output: a transpose of a sum becomes a sum of transposed loads.

    Operands as in `fused`, with the parts changed over: `fused_names(consumer, producer,
    producer's output)` names the producer's. None unless both compute each element alone, the
    consumer loads the operand in one place, and computes no element of the producer's twice.
    """
    loads = [x for x in consumer.loads() if x.operand == operand]
    parts = [e for x in consumer.expressions() for e in walk(x)]
    if len(loads) != 1 or not (is_elementwise(producer) and is_elementwise(consumer)):
        return None
    if any(isinstance(e, Lookup) and e.operand == operand for e in parts):
        return None
    if any(i.fetched for x in (*producer.loads(), *loads) for i in x.index):
        return None
    made, read = producer.type_of(producer.out.name), consumer.type_of(operand)
    if (made.shape, made.scalar) != (read.shape, read.scalar):
        return None
    if consumer.type_of(consumer.out.name).size > made.size:
        return None
    names = _fresh_names(consumer, producer, producer.out.name)
    at: dict[str, Affine] = {}
    for mine, theirs in zip(producer.store.index, loads[0].index, strict=True):
        at |= dict.fromkeys(mine.axes, theirs)
    at |= {a.name: Affine() for a in producer.axes if a.name not in at}  # axes of one element
    lets: dict[str, Expr] = {}

    def there(e: Expr) -> Expr:
        if isinstance(e, Load):
            return Load(names[e.operand], tuple(substitute(i, at) for i in e.index))
        if isinstance(e, Lookup):
            return replace(e, operand=names[e.operand])
        if isinstance(e, Pick):
            return replace(e, index=substitute(e.index, at))
        return lets[e.name] if isinstance(e, Ref) else e

    for let in producer.epilogue:
        lets[let.name] = rewrite(let.value, there)
    value = rewrite(producer.store.value, there)

    def here(e: Expr) -> Expr:
        return value if e == loads[0] else e

    others = tuple(
        Operand(names[o.name], o.role, o.type) for o in producer.operands if o.role != "out"
    )
    return replace(
        consumer,
        name=f"{producer.name}_{consumer.name}",
        operands=(*others, *(o for o in consumer.operands if o.name != operand)),
        constants=(),
        epilogue=tuple(replace(x, value=rewrite(x.value, here)) for x in consumer.epilogue),
        store=replace(consumer.store, value=rewrite(consumer.store.value, here)),
    )


def fused_names(producer: LoopNest, consumer: LoopNest, operand: str) -> dict[str, str]:
    """What the consumer's other operands are called in `fused`."""
    names = _fresh_names(producer, consumer, operand)
    return {o.name: names[o.name] for o in consumer.operands if o.role != "out"}


def _fresh_names(producer: LoopNest, consumer: LoopNest, operand: str) -> dict[str, str]:
    """A name in the fused nest for every operand and every name of the consumer."""
    taken = {o.name for o in producer.operands} | {a.name for a in producer.axes}
    taken |= {x.name for x in producer.epilogue}
    if producer.reduction:
        taken.add(producer.reduction.name)
    found: dict[str, str] = {}
    own = [o.name for o in consumer.operands if o.role != "out" and o.name != operand]
    own += [x.name for x in consumer.epilogue]
    for name in (*own, operand):
        wanted = "held" if name == operand else name
        free, n = wanted, 1
        while free in taken:
            n += 1
            free = f"{wanted}{n}"  # registers are `name_number`
        taken.add(free)
        found[name] = free
    return found


def _renamed(index: Affine, axes: Mapping[str, Affine], operands: Mapping[str, str]) -> Affine:
    """An index of the consumer, at the producer's axes and with its names of operands."""
    total = Affine((), index.const)
    for term, c in index.terms:
        if isinstance(term, Quotient):
            inner = _renamed(term.inner, axes, operands)
            total = total.plus(Affine(((replace(term, inner=inner), c),)))
        elif isinstance(term, Fetched):
            inside = tuple(_renamed(i, axes, operands) for i in term.index)
            moved = replace(term, operand=operands[term.operand], index=inside)
            total = total.plus(Affine(((moved, c),)))
        else:
            total = total.plus(axes[term].times(c))
    return total
