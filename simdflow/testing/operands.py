"""Turns a shape and a scalar type into Hypothesis strategies for numpy operands, extremes included.

`shapes` draws sizes, `arrays` values and `layouts` ways to lie in memory. It knows nothing of
kernels, and says nothing about which values make sense together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..dsl.errors import OperandError
from ..dsl.types import RangedScalar, Scalar

Array = NDArray[Any]
Shape = tuple[int, ...]
Layout = Callable[[Array], Array]

# Where vector code goes wrong: at, one before and one after a multiple of a vector's lanes.
EDGES = tuple(n + d for n in (4, 8, 16, 32, 64, 128, 256) for d in (-1, 0, 1))

FILLS = ("constant", "random", "extremes")
FLOAT_FILLS = (*FILLS, "patterns")


@st.composite
def shapes(draw: st.DrawFn, *axes: int | tuple[int, int], most: int = 1 << 14) -> Shape:
    """Shapes with one entry of `axes` per axis: a fixed size, or (smallest, largest).

    Sizes next to the powers of two come up often; a smallest of 0 gives zero-size arrays. The
    product is held at `most` by cutting the largest sizes of later axes, never below their
    smallest. Shrinks to the smallest sizes. `shapes((0, 3), (1, 20), 64)` draws e.g. (2, 17, 64).

    Raises OperandError for a negative size or a pair out of order.
    """
    shape: list[int] = []
    room = most
    for axis in axes:
        low, high = (axis, axis) if isinstance(axis, int) else axis
        if not 0 <= low <= high:
            raise OperandError(
                f"shapes: axes={axes} has {axis}; "
                "allowed is a size of 0 or more, or 0 <= smallest <= largest. Give one of these."
            )
        high = max(low, min(high, room))
        edges = [n for n in EDGES if low <= n <= high]
        sizes = st.integers(low, high)
        size = draw(sizes | st.sampled_from(edges) if edges else sizes)
        room //= max(size, 1)
        shape.append(size)
    return tuple(shape)


def extremes(scalar: Scalar | RangedScalar) -> tuple[float, ...]:
    """The values of a type at which arithmetic changes its mind, simplest first.

    Integers: 0, 1, -1, the ends of the type or range, their neighbours, and the two values at which
    the sign bit turns on. Floats: both zeros, 1, -1, the smallest normal and subnormal numbers, the
    ends; unbounded (as `f32` is and `f32.range(-4, 4)` is not) also the largest finite numbers and
    NaN. `bit`: 1 and -1.
    """
    base = scalar.scalar if isinstance(scalar, RangedScalar) else scalar
    low, high = scalar.low, scalar.high
    if base.kind == "b":
        return tuple(v for v in (1, -1) if low <= v <= high)
    if base.is_float:
        info = np.finfo(base.dtype)
        tiny, least, largest = float(info.tiny), float(info.smallest_subnormal), float(info.max)
        both = (0.0, 1.0, tiny, least, largest)
        candidates = [*both, *(-v for v in both), float(high), float(low)]
        inside = [v for v in candidates if low <= v <= high]
        if _unbounded(scalar):
            inside.append(float("nan"))
        # By its text, since 0.0 == -0.0 and both are wanted.
        return tuple({repr(v): v for v in inside}.values())
    half = 1 << base.bits - 1
    whole = [0, 1, -1, int(high), int(low), int(high) - 1, int(low) + 1, half - 1, half]
    return tuple(dict.fromkeys(v for v in whole if low <= v <= high))


@st.composite
def arrays(
    draw: st.DrawFn, shape: int | Shape | st.SearchStrategy[Shape], scalar: Scalar | RangedScalar
) -> Array:
    """C-order writable arrays of a shape (or of shapes drawn from a strategy) and a scalar type.

    A few kinds of filling (one constant, numbers at random, extremes at random, and for unbounded
    floats any bit pattern), with up to four extremes set at chosen places. So size costs nothing.
    Shrinks to the first that still fails of zeros, another constant and a filling at random, and to
    as few odd elements as will do.

    dtype: `scalar.dtype`; for `bit` i8 holding -1 and 1. `sf.i8.range(-7, 7)` limits the values,
    and `sf.f32.range(-4, 4)` keeps NaN and infinity out; `sf.f32` alone has them.
    """
    base = scalar.scalar if isinstance(scalar, RangedScalar) else scalar
    dims = draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    dtype = np.dtype(np.int8) if base.kind == "b" else base.dtype
    special = [dtype.type(value) for value in extremes(scalar)]
    size = math.prod(dims) if isinstance(dims, tuple) else dims

    # Every choice is drawn whether it is used or not: Hypothesis can then shrink one of them (the
    # filling, above all) and the others keep their meaning.
    fill = draw(st.sampled_from(FLOAT_FILLS if _unbounded(scalar) else FILLS))
    constant = draw(st.sampled_from(special))
    seed = draw(st.integers(0, 2**32 - 1))
    odd = draw(st.sampled_from((0, 0, 0, 1, 2, 4)))
    places = st.tuples(st.integers(0, max(size - 1, 0)), st.sampled_from(special))
    spots = [draw(places) for _ in range(4)]

    rng = np.random.default_rng(seed)
    if fill == "constant":
        values = np.full(dims, constant, dtype)
    elif fill == "extremes":
        values = rng.choice(np.array(special, dtype), dims)
    elif fill == "patterns":
        words = np.dtype(f"u{dtype.itemsize}")
        values = rng.integers(0, np.iinfo(words).max, dims, words, endpoint=True).view(dtype)
    else:
        values = _random(rng, dims, base, scalar.low, scalar.high)
    # numpy's functions turn rank 0 into a scalar; this turns it back.
    array = np.array(values, dtype)
    for place, value in spots[:odd] if size else []:
        array.reshape(-1)[place] = value
    return array


def _unbounded(scalar: Scalar | RangedScalar) -> bool:
    """Whether every float belongs to the type, NaN included (a range with one end has no NaN)."""
    return bool(np.isinf(scalar.low) and np.isinf(scalar.high))


def _random(
    rng: np.random.Generator, shape: int | Shape, base: Scalar, low: float, high: float
) -> Array:
    """Numbers spread over the range; normal ones (cut at a finite end) if it is unbounded."""
    if base.kind == "b":
        return np.where(rng.integers(0, 2, shape) * (high - low) + low > 0, 1, -1)
    if not base.is_float:
        signed = np.int64 if low < 0 else np.uint64
        return rng.integers(int(low), int(high), shape, signed, endpoint=True)
    if np.isinf(low) or np.isinf(high):
        return np.clip(rng.standard_normal(shape), low, high)
    # Rounding to the type may step over an end that the type cannot hold exactly.
    inside = base.dtype.type
    return np.clip(rng.uniform(low, high, shape).astype(base.dtype), inside(low), inside(high))


def contiguous(array: Array) -> Array:
    """A C-order copy: the layout kernels like best."""
    return array.copy(order="C")


def fortran(array: Array) -> Array:
    """A copy whose first axis is the fastest: what a transposed view looks like."""
    return array.copy(order="F")


def strided(array: Array) -> Array:
    """Every other element of a larger array along each axis; the gaps hold poison."""
    big = np.full([2 * n + 1 for n in array.shape], _poison(array.dtype), array.dtype)
    view = big[tuple(slice(1, 2 * n + 1, 2) for n in array.shape) or ...]
    view[...] = array
    return view


def reversed_axes(array: Array) -> Array:
    """Negative strides along every axis: the first element lies last in memory."""
    backwards = (slice(None, None, -1),) * array.ndim or ...
    return array[backwards].copy(order="C")[backwards]


def row_padded(array: Array) -> Array:
    """Rows contiguous, with three elements of poison after each: an image's line pitch."""
    if not array.ndim:
        return array.copy()
    width = array.shape[-1]
    big = np.full((*array.shape[:-1], width + 3), _poison(array.dtype), array.dtype)
    view = big[..., :width]
    view[...] = array
    return view


def unaligned(array: Array) -> Array:
    """C order, one byte off the alignment of the element (of the buffer for 8-bit types)."""
    raw = np.empty(array.nbytes + array.dtype.itemsize, np.uint8)
    view = np.ndarray(array.shape, array.dtype, raw, offset=1)
    view[...] = array
    return view


def read_only(array: Array) -> Array:
    """A C-order copy that numpy refuses to write to."""
    copy = contiguous(array)
    copy.flags.writeable = False
    return copy


def _poison(dtype: np.dtype[Any]) -> Any:
    """A value that shows up when code reads between the elements."""
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


LAYOUTS: tuple[Layout, ...] = (
    contiguous,
    read_only,
    row_padded,
    strided,
    reversed_axes,
    fortran,
    unaligned,
)


def layouts() -> st.SearchStrategy[Layout]:
    """One of LAYOUTS: a function from an array to an equal one that lies in memory in another way.

    Equal means the same shape, dtype and bits. A failing test prints the layout's name; it shrinks
    to `contiguous`.
    """
    return st.sampled_from(LAYOUTS)
