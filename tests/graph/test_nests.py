"""Nests made to fit each other: joined axes, frames seen through them, consumers in epilogues."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simdflow as sf
from simdflow import f32, i32, ops
from simdflow.dsl.nest import LoopNest
from simdflow.graph.graph import Builder
from simdflow.graph.nests import (
    Frame,
    aligned,
    framed,
    fused,
    fused_names,
    grouping,
    is_elementwise,
)
from simdflow.graph.steps import steps_of
from simdflow.targets import target
from simdflow.testing.bounds import bounds

PORTABLE = target("portable")


@sf.kernel
def doubled(x, out):
    for i in sf.grid(out.shape):
        out[i] = x[i] * 2.0


@sf.kernel
def columns(x, c, out):
    for i, j in sf.grid(out.shape):
        out[i, j] = x[i, j] + c[j]


@sf.kernel
def turned(x, out):
    for i, j in sf.grid(out.shape):
        out[i, j] = x[j, i]


@sf.kernel
def picked(x, ids, c, out):
    for i, j in sf.grid(out.shape):
        out[i, j] = x[ids[i], j] + c[i, j]


@sf.kernel
def row_sums(x, out):
    for i in sf.grid(out.shape):
        acc = sf.f32(0)
        for j in sf.reduce(x.shape[1]):
            acc += x[i, j]
        out[i] = acc


def nest(kernel: Any, **types: Any) -> LoopNest:
    """A kernel's bound nest."""
    found: LoopNest = kernel.specialize(**types, target=PORTABLE).nest
    return found


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple)


@st.composite
def joined(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape, and the same with neighbouring axes joined and axes of 1 dropped or added."""
    shape = draw(shapes)
    view: list[int] = []
    for n in shape:
        if view and draw(st.booleans()):
            view[-1] *= n
        else:
            view.append(n)
    if draw(st.booleans()):
        view.insert(draw(st.integers(0, len(view))), 1)
    if draw(st.booleans()) and math.prod(view) > 1:
        view = [n for n in view if n != 1]
    return shape, tuple(view)


@given(joined())
def test_axes_are_grouped_in_order_and_each_once(pair: tuple[Any, Any]) -> None:
    shape, view = pair
    groups = grouping(view, shape)
    assert groups is not None
    assert [math.prod(shape[a] for a in axes) for axes in groups] == list(view)
    assert [a for axes in groups for a in axes] == list(range(len(shape)))


@pytest.mark.parametrize("view", [(5,), (2, 2, 3), (4, 2), (8, 3), (24, 2)])
def test_other_shapes_have_no_groups(view: tuple[int, ...]) -> None:
    assert grouping(view, (4, 6)) is None


@given(joined(), st.data())
def test_a_frame_seen_through_joined_axes_is_the_same_memory(
    pair: tuple[Any, Any], data: st.DataObject
) -> None:
    shape, view = pair
    wide = st.integers(0, 2)
    some = data.draw(st.sets(st.integers(0, len(shape) - 1), max_size=2))
    frame: Frame = tuple(
        (data.draw(wide), data.draw(wide)) if d in some else (0, 0) for d in range(len(shape))
    )
    seen = framed(view, shape, frame)
    kind = sf.OperandType(f32, shape, f32.low, f32.high, frame=frame)
    memory = np.arange(math.prod(kind.stored)).reshape(kind.stored)
    if seen is not None:
        other = sf.OperandType(f32, view, f32.low, f32.high, frame=seen)
        assert math.prod(other.stored) == memory.size
        np.testing.assert_array_equal(
            memory.reshape(other.stored)[other.inside].reshape(shape), memory[kind.inside]
        )
    else:
        assert any(a or b for a, b in frame)
        assert view != shape, "its own shape always sees it"


def test_a_frame_along_a_joined_axis_is_not_seen() -> None:
    assert framed((12,), (3, 4), ((0, 0), (1, 0))) is None
    assert framed((12,), (3, 4), ((2, 1), (0, 0))) == ((8, 4),)
    assert framed((1,), (1, 1, 1, 1), ((0, 0), (0, 1), (0, 1), (0, 0))) is None


@given(joined())
def test_a_spread_nest_computes_the_same(pair: tuple[Any, Any]) -> None:
    shape, view = pair
    size = math.prod(view)
    flat = nest(doubled, x=f32[size], out=f32[size])
    spread = aligned(flat, shape)
    assert spread is not None
    assert spread.type_of("out").shape == shape
    x = np.arange(size, dtype=np.float32)
    found = bounds(spread, {"x": x.reshape(spread.type_of("x").shape)}).value
    np.testing.assert_array_equal(found, 2 * x.reshape(shape))


def test_operands_along_other_axes_are_not_spread() -> None:
    spread = aligned(nest(columns, x=f32[6, 4], c=f32[4], out=f32[6, 4]), (2, 3, 2, 2))
    assert spread is not None
    assert spread.type_of("x").shape == (2, 3, 2, 2)
    assert spread.type_of("c").shape == (2, 2)
    x, c = np.arange(24.0).reshape(2, 3, 2, 2), np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(bounds(spread, {"x": x, "c": c}).value, x + c)
    crossed = aligned(nest(turned, x=f32[4, 6], out=f32[6, 4]), (2, 3, 4))
    assert crossed is not None
    assert crossed.type_of("x").shape == (4, 2, 3)


def test_fetched_indices_survive_spreading_and_renaming() -> None:
    """They once vanished, and every row was the first."""
    made = nest(picked, x=f32[5, 6], ids=i32.range(0, 4)[4], c=f32[4, 6], out=f32[4, 6])
    spread = aligned(made, (2, 2, 2, 3))
    assert spread is not None
    rng = np.random.default_rng(0)
    x, c = rng.normal(0, 1, (5, 6)), rng.normal(0, 1, (4, 6))
    ids = np.array([4, 0, 3, 1])
    given_ = {"x": x, "ids": ids, "c": c}
    given_ = {k: v.reshape(spread.type_of(k).shape) for k, v in given_.items()}
    np.testing.assert_allclose(bounds(spread, given_).value, (x[ids] + c).reshape(2, 2, 2, 3))

    first = nest(columns, x=f32[4, 6], c=f32[6], out=f32[4, 6])
    both = fused(first, made, "c")
    assert both is not None
    names = fused_names(first, made, "c")
    assert names["x"] != "x", "the producer has an x of its own"
    v, row = rng.normal(0, 1, (4, 6)), rng.normal(0, 1, 6)
    found = bounds(both, {"x": v, "c": row, names["x"]: x, names["ids"]: ids}).value
    np.testing.assert_allclose(found, x[ids] + (v + row))


def test_a_consumer_reads_the_value_of_its_producer() -> None:
    sums = nest(row_sums, x=f32[6, 5], out=f32[6])
    both = fused(sums, nest(doubled, x=f32[6], out=f32[6]), "x")
    assert both is not None
    assert [o.name for o in both.operands] == ["x", "out"]
    x = np.arange(30.0).reshape(6, 5)
    np.testing.assert_array_equal(bounds(both, {"x": x}).value, 2 * x.sum(1))


def test_what_cannot_be_fused_is_refused() -> None:
    square = nest(columns, x=f32[4, 4], c=f32[4], out=f32[4, 4])
    assert fused(square, nest(turned, x=f32[4, 4], out=f32[4, 4]), "x") is None, "transposed"
    row = nest(doubled, x=f32[4], out=f32[4])
    assert fused(row, square, "c") is None, "each value is read four times"
    assert fused(row, nest(row_sums, x=f32[1, 4], out=f32[1]), "x") is None, "a reduction"
    ids = nest(picked, x=f32[4, 4], ids=i32.range(0, 3)[4], c=f32[4, 4], out=f32[4, 4])
    assert fused(ids, ids, "ids") is None, "an index is no value"


def test_stores_elsewhere_are_not_elementwise() -> None:
    b = Builder("g")
    b.input("x", f32[1, 2, 3, 4])
    b.call(ops.pad, "x", pads=((0, 0), (1, 0), (0, 0), (0, 0)))
    b.call(ops.relu, "x")
    filled, inside, relu = (s.nest for s in steps_of(b.graph("pad", "relu"), PORTABLE).steps)
    assert is_elementwise(filled) and is_elementwise(relu)
    assert not is_elementwise(inside)
    assert not is_elementwise(nest(row_sums, x=f32[6, 5], out=f32[6]))
