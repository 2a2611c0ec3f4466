"""The body run as Python is exact, checks every index, and agrees with numpy."""

from __future__ import annotations

import math

import nests
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simdflow import dsl as sf
from simdflow.dsl import interpret, loops, pack_bits, unpack_bits
from simdflow.dsl.errors import OperandError
from simdflow.dsl.types import Exact

RNG = np.random.default_rng


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_convolution_is_the_sum_of_its_windows(stride, taps, channels, seed):
    r = RNG(seed)
    x = r.choice(np.uint8([0, 1, 254, 255]), (1, 6, 7, channels))
    w = r.choice(np.int8([-128, -127, 0, 127]), (taps, taps, channels, 2))
    rows, columns = (6 - taps) // stride + 1, (7 - taps) // stride + 1
    out = np.full((1, rows, columns, 2), -1, np.int32)
    interpret(nests.conv2d, {"x": x, "w": w, "out": out}, {"stride": stride})
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.int64), (taps, taps), (1, 2))
    expected = np.einsum("nhwckl,klco->nhwo", windows[:, ::stride, ::stride], w.astype(np.int64))
    assert np.array_equal(out, expected)


def test_narrow_products_do_not_wrap_but_a_wrapping_sum_does():
    x, w = np.full((1, 3, 3, 1), -128, np.int8), np.full((3, 3, 1), -128, np.int8)
    out = np.zeros((1, 1, 1, 1), np.int16)
    interpret(nests.depthwise, {"x": x, "w": w, "out": out})
    assert out[0, 0, 0, 0] == (9 * 16384 + 32768) % 65536 - 32768


def test_a_sum_that_overflows_its_accumulator_raises():
    def k(x, out):
        for i in sf.grid(out.shape):
            acc = sf.i16(0)
            for j in sf.reduce(x.shape[1]):
                acc += x[i, j] * x[i, j]
            out[i] = acc

    out = np.zeros(1, np.int16)
    interpret(k, {"x": np.full((1, 2), 127, np.int8), "out": out})
    assert out[0] == 2 * 127 * 127
    with pytest.raises(OverflowError, match=r"48387 does not fit i16 \(-32768 to 32767\)"):
        interpret(k, {"x": np.full((1, 3), 127, np.int8), "out": out})


@given(st.integers(1, 20), st.integers(1, 3), st.integers(0, 99), st.booleans())
def test_bits_packed_and_logical_are_the_same(channels, outputs, seed, packed):
    r = RNG(seed)
    x = (r.integers(0, 2, (1, 3, 3, channels)) * 2 - 1).astype(np.int8)
    w = (r.integers(0, 2, (outputs, 2, 2, channels)) * 2 - 1).astype(np.int8)
    out = np.zeros((1, 2, 2, outputs), np.int32)
    types = {"x": sf.bit[x.shape], "w": sf.bit[w.shape], "out": sf.i32[out.shape]}
    arrays = {"x": pack_bits(x) if packed else x, "w": w, "out": out}
    interpret(nests.xnor, arrays, types=types)
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(int), (2, 2), (1, 2))
    assert np.array_equal(out, np.einsum("nhwckl,oklc->nhwo", windows, w.astype(int)))


@given(st.integers(1, 19), st.integers(0, 99))
def test_a_comparison_is_stored_as_bits(channels, seed):
    x = RNG(seed).integers(-9, 9, (3, channels)).astype(np.int32)
    t = RNG(seed + 1).integers(-9, 9, channels).astype(np.int32)
    words = np.full((3, -(-channels // 8)), 255, np.uint8)
    logical = np.zeros((3, channels), np.int8)
    types = {"out": sf.bit[3, channels]}
    interpret(nests.threshold, {"x": x, "t": t, "out": words}, types=types)
    interpret(nests.threshold, {"x": x, "t": t, "out": logical}, types=types)
    expected = np.where((x > t) & (x > 7), 1, -1)
    assert np.array_equal(unpack_bits(words, channels), expected)
    assert np.array_equal(logical, expected)
    assert np.array_equal(words, np.packbits(expected > 0, axis=-1, bitorder="little"))


def test_sparse_rows_are_walked():
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is an extra")
    dense = np.float32([[0, 2, 0, 1], [0, 0, 0, 0], [-3, 0, 0.5, 0]])
    x = np.float32([[1, 2, 3, 4], [4, 3, 2, 1]])
    out = np.zeros((2, 3), np.float32)
    interpret(nests.sparse, {"w": sparse.csr_array(dense), "x": x, "out": out})
    assert np.array_equal(out, np.maximum(x @ dense.T, 0))


def test_a_missing_element_and_a_missing_row_of_a_sparse_operand_raise():
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is an extra")
    w = sparse.csr_array(np.float32([[0, 2], [1, 0]]))

    def other(w, out):
        for i in sf.grid(out.shape):
            out[i] = w[i, 0]

    with pytest.raises(IndexError) as caught:
        interpret(other, {"w": w, "out": np.zeros(2, np.float32)})
    assert str(caught.value) == "w[0, 0]: not a stored element of row 0"
    with pytest.raises(IndexError) as caught:
        arrays = {"w": w, "x": np.ones((1, 2), np.float32), "out": np.zeros((1, 3), np.float32)}
        interpret(nests.sparse, arrays)
    assert str(caught.value) == "w: index 2 of axis 0 is outside its size 2"


def test_requantize_rounds_as_its_text_says():
    x = np.int32([[1000, -1000], [2**31 - 1, -(2**31)]])
    multiplier = np.int32([2**30, 2**29])
    out = np.zeros((2, 2), np.int8)
    interpret(nests.requantize, {"x": x, "multiplier": multiplier, "out": out})
    assert out.tolist() == [[127, -128], [127, -128]]
    interpret(nests.requantize, {"x": x // 50, "multiplier": multiplier, "out": out})
    assert out[0].tolist() == [10 + 3, -5 + 3]


def test_max_and_min_give_the_other_side_of_nan():
    x = np.float32([[np.nan, 1, 2], [np.nan, np.nan, -5]])
    out = np.zeros(2, np.float32)
    interpret(nests.row_max, {"x": x, "out": out})
    assert out.tolist() == [6, -15]
    nan = float("nan")
    assert loops.min(nan, 3.0).value == 3.0 == loops.min(3.0, nan).value
    assert math.isnan(loops.max(nan, nan).value)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sqrt", "floor", "ceil"])
def test_functions_are_rounded_from_float64(name):
    x = np.float32([0.1, 0.5, 1.5, 2.5, 80.25])
    got = [getattr(loops, name)(v).value for v in x]
    assert got == getattr(np, name)(x.astype(np.float64)).astype(np.float32).tolist()


def test_functions_at_their_edges():
    assert [loops.round(sf.f32(v)).value for v in (0.5, 1.5, 2.5, -0.5)] == [0, 2, 2, 0]
    assert loops.exp(sf.f32(1000)).value == math.inf
    assert loops.sigmoid(sf.f32(-1000)).value == 0
    assert loops.sigmoid(sf.f32(0)).value == 0.5
    assert loops.erf(sf.f64(1)).value == math.erf(1)
    assert loops.rsqrt(sf.f32(4)).value == 0.5
    assert loops.rsqrt(sf.f32(0)).value == math.inf
    assert math.isnan(loops.sqrt(sf.f32(-1)).value)
    assert loops.log(sf.f32(0)).value == -math.inf
    assert loops.abs(sf.i8(-128)).value == 128
    assert loops.clip(sf.i32(300), 0, 255).value == 255
    assert loops.select(True, sf.f32(2), 0) == Exact(2.0, sf.f32)
    assert (sf.f32(1) / 0).value == math.inf
    for wrong in (lambda: loops.exp(sf.i8(1)), lambda: sf.i8(3) / 2, lambda: sf.i8(1) + 0.5):
        with pytest.raises(TypeError):
            wrong()


def test_xnor_popcount_takes_bits():
    assert loops.xnor_popcount(sf.bit(-1), sf.bit(-1)).value == 1
    with pytest.raises(TypeError) as caught:
        loops.xnor_popcount(sf.i8(1), sf.bit(1))
    assert str(caught.value) == "xnor_popcount(i8(1), bit(1)): both values are of type bit"


def test_a_value_is_no_condition():
    with pytest.raises(TypeError) as caught:
        bool(sf.i8(3))
    assert str(caught.value) == "i8(3) is not a condition; compare it with something"


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        (1, "x[3]: index 3 of axis 0 is outside its size 3"),
        (-1, "x[-1]: index -1 of axis 0 is outside its size 3"),
    ],
)
def test_an_index_outside_an_operand_raises(shift, message):
    def k(x, out, *, shift):
        for i in sf.grid(out.shape):
            out[i] = x[i + shift]

    with pytest.raises(IndexError) as caught:
        interpret(k, {"x": np.zeros(3, np.int8), "out": np.zeros(3, np.int8)}, {"shift": shift})
    assert str(caught.value) == message


def test_a_stored_value_must_fit_and_be_of_the_outputs_kind():
    def k(x, out):
        for i in sf.grid(out.shape):
            out[i] = x[i] + 1

    arrays = {"x": np.int16([127]), "out": np.zeros(1, np.int8)}
    with pytest.raises(OverflowError, match=r"128 does not fit i8 \(-128 to 127\)"):
        interpret(k, arrays)
    with pytest.raises(TypeError, match=r"out\[0\] = f32\(2.0\): cast it to i8"):
        interpret(k, {"x": np.float32([1]), "out": np.zeros(1, np.int8)})


def test_a_border_is_added_where_the_array_has_none():
    def k(x, out):
        for i in sf.grid(out.shape):
            out[i] = x[i] + x[i + 2]

    types = {"x": sf.u8[3].with_border(((1, 1),), 9), "out": sf.i32[3]}
    out = np.zeros(3, np.int32)
    interpret(k, {"x": np.uint8([1, 2, 3]), "out": out}, types=types)
    assert out.tolist() == [9 + 2, 1 + 3, 2 + 9]
    interpret(k, {"x": np.uint8([0, 1, 2, 3, 0]), "out": out}, types=types)
    assert out.tolist() == [2, 4, 2]


def test_arrays_are_what_their_types_say():
    arrays = {"x": np.zeros(4, np.int8), "out": np.zeros(3, np.float32)}
    with pytest.raises(OperandError) as caught:
        interpret(nests.row_max, arrays, types={"x": sf.i8[3]})
    assert str(caught.value) == (
        "interpret: x=int8[4] is not i8[3]; allowed is int8[3]. Pass such an array."
    )
    with pytest.raises(OperandError, match=r"interpret: x=complex128 is not an element type"):
        interpret(nests.row_max, {"x": np.zeros(4, complex)})


def test_words_are_what_pack_bits_made():
    with pytest.raises(OperandError) as caught:
        unpack_bits(np.zeros((2, 3), np.uint8), 9)
    assert str(caught.value) == (
        "unpack_bits: words is uint8[2, 3]; 9 channels are uint8[..., 2]. Pass what pack_bits made."
    )
    with pytest.raises(OperandError, match="pack_bits: values has no axis"):
        pack_bits(np.int8(1))
