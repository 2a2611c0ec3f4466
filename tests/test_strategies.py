"""The strategies of simdflow.testing: they reach what they promise, stay inside it, and shrink."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from simdflow.dsl.errors import OperandError
from simdflow.dsl.types import SCALARS, RangedScalar, Scalar, bit, f32, f64, i8, i16, i32, i64, u8
from simdflow.testing import arrays, extremes, layouts, shapes
from simdflow.testing.operands import (
    LAYOUTS,
    Layout,
    contiguous,
    fortran,
    read_only,
    reversed_axes,
    row_padded,
    strided,
    unaligned,
)

RANGED = (
    i8.range(-7, 7),
    u8.range(0, 15),
    i16.range(3, 3),
    f32.range(-4, 4),
    f32.range(0.1, 0.3),
    f32.range(0, math.inf),
)
# To find, not to shrink; `find` raises when it does not.
GENERATE = settings(phases=[Phase.generate], database=None, max_examples=5000)
ANY_SCALAR = st.sampled_from([*SCALARS.values(), *RANGED])


@given(shapes((0, 3), (1, 40), 7, (2, 300), most=5000))
def test_shapes_keep_their_limits(shape: tuple[int, ...]) -> None:
    n, h, fixed, c = shape
    assert 0 <= n <= 3
    assert 1 <= h <= 40
    assert fixed == 7
    assert 2 <= c <= 300
    assert math.prod(shape) <= 5000


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 33, 64, 65])
def test_shapes_reach_the_edges_of_vectors(size: int) -> None:
    assert find(shapes((0, 70), 3), lambda shape: shape[0] == size) == (size, 3)


def test_shapes_shrink_to_the_smallest() -> None:
    assert find(shapes((1, 50), (1, 50)), lambda shape: math.prod(shape) >= 10) in [
        (1, 10),
        (10, 1),
        (2, 5),
        (5, 2),
    ]
    assert find(shapes((1, 50), (3, 50)), lambda shape: True) == (1, 3)


@pytest.mark.parametrize("axis", [-1, (3, 2), (-1, 4)])
def test_shapes_refuse_impossible_sizes(axis: Any) -> None:
    with pytest.raises(OperandError, match=r"shapes: axes=.* allowed is a size of 0 or more"):
        find(shapes(axis), lambda shape: True)


@pytest.mark.parametrize(
    ("scalar", "expected"),
    [
        (u8, {0, 1, 127, 128, 254, 255}),
        (i8, {0, 1, -1, 127, 126, -128, -127}),
        (i32, {0, 1, -1, 2**31 - 1, 2**31 - 2, -(2**31), -(2**31) + 1}),
        (i8.range(-7, 7), {0, 1, -1, 7, 6, -7, -6}),
        (i16.range(3, 3), {3}),
        (bit, {1, -1}),
    ],
)
def test_extremes_of_integers(scalar: Scalar | RangedScalar, expected: set[int]) -> None:
    assert set(extremes(scalar)) == expected
    assert len(extremes(scalar)) == len(expected)


def test_extremes_of_floats() -> None:
    unbounded = np.array(extremes(f32), np.float32)
    assert np.isnan(unbounded).sum() == 1
    assert np.isinf(unbounded).sum() == 2
    assert np.signbit(unbounded[unbounded == 0]).tolist() == [False, True]
    subnormal = (unbounded != 0) & (np.abs(unbounded) < np.finfo(np.float32).tiny)
    assert subnormal.sum() == 2
    assert np.finfo(np.float32).max in unbounded
    assert len(extremes(f32)) == 13
    bounded = np.array(extremes(f32.range(-4, 4)))
    assert np.isfinite(bounded).all()
    assert {bounded.min(), bounded.max()} == {-4, 4}


@given(st.data(), ANY_SCALAR, shapes((0, 3), (1, 20)))
def test_arrays_have_the_type_shape_and_range(
    data: st.DataObject, scalar: Scalar | RangedScalar, shape: tuple[int, ...]
) -> None:
    array = data.draw(arrays(shape, scalar))
    base = scalar.scalar if isinstance(scalar, RangedScalar) else scalar
    assert array.shape == shape
    assert array.dtype == (np.int8 if base is bit else base.dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    values = array[~np.isnan(array)]
    low, high = scalar.low, scalar.high
    if base.is_float:
        low, high = base.dtype.type(scalar.low), base.dtype.type(scalar.high)
    assert (values >= low).all()
    assert (values <= high).all()
    if base is bit:
        assert set(values.reshape(-1).tolist()) <= {-1, 1}
    if isinstance(scalar, RangedScalar):
        assert not np.isnan(array).any()


def ends_with(bits: bytes) -> Callable[[np.ndarray], bool]:
    return lambda array: array[-1].tobytes() == bits


@given(st.data(), ANY_SCALAR)
def test_arrays_of_rank_0(data: st.DataObject, scalar: Scalar | RangedScalar) -> None:
    array = data.draw(arrays((), scalar))
    assert isinstance(array, np.ndarray)
    assert array.shape == ()


@pytest.mark.parametrize("scalar", [u8, i8, i16, i32, i64, f32, f64, bit], ids=repr)
def test_every_extreme_is_reached(scalar: Scalar) -> None:
    """At the last element, which tails get wrong, and bit for bit: -0.0 is not 0.0."""
    dtype = np.dtype(np.int8) if scalar is bit else scalar.dtype
    wanted = {dtype.type(extreme).tobytes() for extreme in extremes(scalar)}
    assert len(wanted) == len(extremes(scalar))
    for bits in wanted:
        find(arrays((40,), scalar), ends_with(bits), settings=GENERATE)


def test_arrays_shrink_to_zeros_and_to_a_constant() -> None:
    assert not find(arrays((5, 7), f32), lambda a: True).any()
    assert np.unique(find(arrays((5, 7), i8), lambda a: bool((a < -5).any()))).tolist() == [-128]


def test_arrays_shrink_to_one_odd_element() -> None:
    found = find(arrays((5, 7), i8), lambda a: bool((a == -128).any() and (a == 0).sum() > 20))
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [-128, 0]
    assert counts.tolist() == [1, 34]


@pytest.mark.parametrize(
    "condition",
    [
        lambda a: len(np.unique(a)) > 150,
        lambda a: (np.abs(a) < 5).all() and len(np.unique(a)) > 150,
        lambda a: np.isnan(a).sum() > 5,
        lambda a: np.isnan(a).sum() == 1 and (np.abs(a) < 5).sum() == 199,
    ],
    ids=["patterns", "plain numbers", "many extremes", "one extreme in plain numbers"],
)
def test_every_filling_comes_up(condition: Callable[[np.ndarray], Any]) -> None:
    find(arrays((200,), f32), lambda a: bool(condition(a)), settings=GENERATE)


@given(st.data(), layouts(), st.sampled_from([u8, i8, i32, f32, f64]))
def test_layouts_keep_every_bit(data: st.DataObject, layout: Layout, scalar: Scalar) -> None:
    array = data.draw(arrays(shapes((0, 3), (1, 5), (1, 9)), scalar))
    other = layout(array)
    assert (other.shape, other.dtype) == (array.shape, array.dtype)
    assert other.tobytes() == array.tobytes()
    assert not np.shares_memory(other, array)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts_take_rank_0(layout: Layout) -> None:
    other = layout(np.array(3.5, np.float32))
    assert other.shape == ()
    assert other == np.float32(3.5)


def test_each_layout_is_what_its_name_says() -> None:
    x = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    assert contiguous(x).strides == (48, 16, 4)
    assert fortran(x).strides == (4, 8, 24)
    assert strided(x).strides == (7 * 9 * 8, 9 * 8, 8)
    assert reversed_axes(x).strides == (-48, -16, -4)
    assert row_padded(x).strides == (84, 28, 4)
    assert unaligned(x).strides == (48, 16, 4)
    assert not unaligned(x).flags.aligned
    assert unaligned(x).ctypes.data % 4 == 1
    assert not read_only(x).flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        read_only(x)[0, 0, 0] = 1


@pytest.mark.parametrize("layout", [strided, row_padded])
def test_gaps_hold_poison(layout: Layout) -> None:
    for dtype, poison in ((np.float32, np.isnan), (np.int8, lambda v: v == 127)):
        view = layout(np.zeros((3, 5), dtype))
        assert isinstance(view.base, np.ndarray)
        assert poison(view.base).sum() == view.base.size - view.size > 0
