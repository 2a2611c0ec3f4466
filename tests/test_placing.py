"""Outputs that simdflow makes: aligned, apart from the input, and nothing else than a new array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simdflow as sf
from simdflow import ops
from simdflow.placing import LARGE, PAGE

ROWS = (256, 512, 1024, 2048, 4096)  # bytes of rows that repeat their place in a page


def address(a: np.ndarray) -> int:
    return int(a.__array_interface__["data"][0])


def apart(out: np.ndarray, x: np.ndarray) -> bool:
    """Whether the output starts on a line, two or more from every row of the input."""
    gap = address(out) - address(x) // 64 * 64
    return address(out) % 64 == 0 and all(128 <= gap % row <= row - 128 for row in ROWS)


@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=4), start=st.integers(0, PAGE))
def test_empty_lies_apart_from_any_input(shape: list[int], start: int) -> None:
    x = np.zeros(2 * PAGE, np.uint8)[start:]
    out = sf.empty(sf.f32[tuple(shape)], beside=x)
    assert out.shape == tuple(shape) and out.dtype == np.float32
    assert out.flags.c_contiguous and out.flags.writeable
    assert apart(out, x)


def test_empty_of_bits_and_of_integers() -> None:
    bits = sf.empty(sf.bit[3, 40])
    assert isinstance(bits, sf.Bits) and bits.shape == (3, 40)
    assert sf.empty(sf.i8[7]).dtype == np.int8


@sf.kernel
def twice(x, out):
    for i, j in sf.grid(out.shape):
        out[i, j] = x[i, j] + x[i, j]


@pytest.mark.parametrize("rows", [2, LARGE // 4 // 512 - 1, LARGE // 4 // 512, 300])
def test_large_results_lie_apart(rows: int) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 512), np.float32)
    out = twice(x)
    np.testing.assert_array_equal(out, x + x)
    assert apart(out, x) or out.nbytes < LARGE
    assert not np.shares_memory(out, twice(x))


@pytest.mark.parametrize("padding", [0, 1])
def test_large_results_of_layers_are_new_arrays(padding: int) -> None:
    random = np.random.default_rng(5)
    x = random.standard_normal((1, 16, 16, 512), np.float32)
    w = random.standard_normal((3, 3, 512), np.float32)
    first = ops.depthwise_conv2d(x, w, padding=padding)
    kept = first.copy()
    second = ops.depthwise_conv2d(-x, w, padding=padding)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, -first)
    assert first.nbytes >= LARGE and address(first) % 64 == 0
