"""conv2d, depthwise_conv2d, dense and matmul against their numpy references.

Integers and every rounding rule are exact; f32 stays inside c * K * eps * sum |a*b|. Shapes are few
because each compiles; the data are many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow import ops
from simdflow.ops import reference
from simdflow.targets.detect import host_targets
from simdflow.testing import arrays

EPS = float(np.finfo(np.float32).eps)
TARGETS = [t.name for t in host_targets()]
SMALL = sf.f32.range(-4, 4)

# x [n, h, w, c], w [kh, kw, c/groups, oc], options
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 7, 9, 5), (3, 3, 5, 7), {"padding": 1}),
    ((2, 8, 8, 16), (3, 2, 16, 33), {"stride": 2, "padding": "same"}),
    ((1, 9, 9, 8), (3, 3, 2, 16), {"padding": ((2, 1), (0, 3)), "dilation": 2, "groups": 4}),
    ((1, 5, 6, 3), (1, 1, 1, 6), {"groups": 3, "stride": (2, 1)}),
    ((1, 11, 11, 4), (5, 5, 2, 6), {"groups": 2, "stride": 3, "padding": "valid"}),
]
REQUANTIZED: tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]] = (
    (1, 5, 6, 9),
    (3, 2, 9, 19),
    {"padding": 1},
)
RULES = [("float", None), ("float", "relu6"), ("tflite", "relu6"), ("onnx", None)]


def taken(options: dict[str, Any]) -> dict[str, Any]:
    """The options that the reference of a sum takes."""
    return {k: v for k, v in options.items() if k in ("stride", "padding", "dilation", "groups")}


def within(found: np.ndarray, exact: np.ndarray, size: np.ndarray, terms: int) -> None:
    """Assert |found - exact| <= 2 * (terms + 2) * eps * size, the bound of a sum in any order."""
    assert found.dtype == np.float32
    assert found.shape == exact.shape
    assert (np.abs(found - exact) <= 2 * (terms + 2) * EPS * size + 1e-30).all()


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
@given(data=st.data())
@settings(max_examples=8)
def test_conv2d_f32_stays_inside_the_bound(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any], data: st.DataObject
) -> None:
    x, w = data.draw(arrays(x_shape, SMALL)), data.draw(arrays(w_shape, SMALL))
    bias = data.draw(arrays(w_shape[-1], SMALL))
    exact = reference.conv2d(x, w, bias, **options)
    size = reference.conv2d(np.abs(x), np.abs(w), np.abs(bias), **options)
    within(ops.conv2d(x, sf.pack(w), bias, **options), exact, size, int(np.prod(w_shape[:3])))


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
@pytest.mark.parametrize("kind", [sf.u8, sf.i8])
@given(data=st.data())
@settings(max_examples=6)
def test_integer_sums_are_exact(
    kind: sf.Scalar,
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    options: dict[str, Any],
    data: st.DataObject,
) -> None:
    x, w = data.draw(arrays(x_shape, kind)), data.draw(arrays(w_shape, sf.i8))
    bias = data.draw(arrays(w_shape[-1], sf.i32.range(-(1 << 30), 1 << 30)))
    found = ops.conv2d(x, sf.pack(w), bias, **options)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, reference.conv2d(x, w, bias, **options))


def quantizations(data: st.DataObject, channels: int, kind: sf.Scalar) -> dict[str, Any]:
    """Drawn scales of x and w; those of y are two, because its clamp is compiled in."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x_zero, y_zero, y_scale = data.draw(st.sampled_from([(3, 5, 0.8), (128, 0, 0.03)]))
    return {
        "x_q": ops.Quantization(float(rng.uniform(0.001, 0.1)), x_zero + int(kind.low)),
        "w_q": ops.Quantization(rng.uniform(1e-4, 0.02, channels)),
        "y_q": ops.Quantization(y_scale, y_zero + int(kind.low)),
    }


def requantized(
    acc: np.ndarray, q: dict[str, Any], kind: sf.Scalar, rule: str, activation: str | None
) -> np.ndarray:
    """The reference of one rule."""
    low, high = int(kind.low), int(kind.high)
    scales = q["x_q"].single, q["w_q"].scales, q["y_q"].single
    zero = q["y_q"].zero_point
    rounding = "tflite" if rule in ("tflite", "double") else "float"
    low, high = reference.activation_bounds(
        activation or "none", scales[2], zero, low, high, rounding
    )
    if rule == "float":
        return reference.requantize_float(acc, reference.float_multiplier(*scales), zero, low, high)
    if rule == "onnx":
        return reference.requantize_onnx(acc, *scales, zero, low, high)
    if rule == "double":
        return reference.requantize_double(acc, *scales, zero, low, high)
    fixed = reference.fixed_multiplier(*scales)
    return reference.requantize_fixed(acc, *fixed, zero, low, high)


@pytest.mark.parametrize("kind", [sf.u8, sf.i8])
@pytest.mark.parametrize(("rule", "activation"), RULES)
@given(data=st.data())
@settings(max_examples=8)
def test_requantized_convolutions_are_exact(
    kind: sf.Scalar, rule: str, activation: str | None, data: st.DataObject
) -> None:
    x_shape, w_shape, options = REQUANTIZED
    x, w = data.draw(arrays(x_shape, kind)), data.draw(arrays(w_shape, sf.i8))
    bias = data.draw(arrays(w_shape[-1], sf.i32.range(-100_000, 100_000)))
    q = quantizations(data, w_shape[-1], kind)
    found = ops.conv2d(x, sf.pack(w), bias, **options, **q, rounding=rule, activation=activation)
    zero = q["x_q"].zero_point
    acc = reference.conv2d(x.astype(np.int64) - zero, w, bias, **options)
    assert found.dtype == kind.dtype
    np.testing.assert_array_equal(found, requantized(acc, q, kind, rule, activation))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [sf.u8, sf.i8])
@given(data=st.data())
@settings(max_examples=4)
def test_every_target_gives_the_same_integers(
    kind: sf.Scalar, target: str, data: st.DataObject
) -> None:
    x_shape, w_shape, options = REQUANTIZED
    x, w = data.draw(arrays(x_shape, kind)), data.draw(arrays(w_shape, sf.i8))
    q = quantizations(data, w_shape[-1], kind)
    found = ops.conv2d(x, sf.pack(w), **options, **q, target=target)
    acc = reference.conv2d(x.astype(np.int64) - q["x_q"].zero_point, w, **options)
    np.testing.assert_array_equal(found, requantized(acc, q, kind, "float", None))


def test_a_result_may_have_the_other_type() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 256, (1, 4, 4, 8), np.uint8), rng.integers(-9, 9, (1, 1, 8, 5), np.int8)
    q = {
        "x_q": ops.Quantization(0.1, 7),
        "w_q": ops.Quantization(0.02),
        "y_q": ops.Quantization(0.5, -3),
    }
    found = ops.conv2d(x, w, **q, y_type=sf.i8)
    acc = reference.conv2d(x.astype(np.int64) - 7, w)
    np.testing.assert_array_equal(found, requantized(acc, q, sf.i8, "float", None))
    assert found.dtype == np.int8
    assert np.unique(found).size > 5


@pytest.mark.parametrize(
    ("multiplier", "options"), [(1, {"padding": "same"}), (3, {"stride": 2, "dilation": 2})]
)
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=4)
def test_depthwise_convolutions_are_exact(
    multiplier: int, options: dict[str, Any], target: str, data: st.DataObject
) -> None:
    x, w = data.draw(arrays((1, 9, 10, 6), sf.u8)), data.draw(arrays((3, 3, 6 * multiplier), sf.i8))
    q = quantizations(data, 6 * multiplier, sf.u8)
    acc = reference.depthwise_conv2d(x.astype(np.int64) - q["x_q"].zero_point, w, **options)
    found = ops.depthwise_conv2d(x, sf.pack(w), **options, **q, target=target)
    np.testing.assert_array_equal(found, requantized(acc, q, sf.u8, "float", None))
    sums = ops.depthwise_conv2d(x, sf.pack(w), **options, target=target)
    np.testing.assert_array_equal(sums, reference.depthwise_conv2d(x, w, **options))


@given(data=st.data())
@settings(max_examples=8)
def test_depthwise_f32_stays_inside_the_bound(data: st.DataObject) -> None:
    x, w = data.draw(arrays((2, 9, 10, 19), SMALL)), data.draw(arrays((3, 5, 19), SMALL))
    exact = reference.depthwise_conv2d(x, w, padding=2)
    size = reference.depthwise_conv2d(np.abs(x), np.abs(w), padding=2)
    within(ops.depthwise_conv2d(x, sf.pack(w), padding=2), exact, size, 15)
    clipped = ops.depthwise_conv2d(x, sf.pack(w), padding=2, activation="relu_n1_to_1")
    within(clipped, np.clip(exact, -1, 1), size, 15)


@pytest.mark.parametrize(("rows", "k", "n"), [((), 67, 10), ((3,), 16, 33), ((2, 2), 5, 1)])
@pytest.mark.parametrize("rule", ["float", "tflite", "onnx"])
@given(data=st.data())
@settings(max_examples=5)
def test_dense_is_exact(
    rows: tuple[int, ...], k: int, n: int, rule: str, data: st.DataObject
) -> None:
    x, w = data.draw(arrays((*rows, k), sf.i8)), data.draw(arrays((k, n), sf.i8))
    bias = data.draw(arrays(n, sf.i32.range(-(1 << 20), 1 << 20)))
    q = quantizations(data, n, sf.i8)
    acc = reference.dense(x.astype(np.int64) - q["x_q"].zero_point, w, bias)
    found = ops.dense(x, sf.pack(w), bias, **q, rounding=rule)
    expected = requantized(acc, q, sf.i8, "double" if rule == "tflite" else rule, None)
    np.testing.assert_array_equal(found, expected)


@given(data=st.data())
@settings(max_examples=8)
def test_dense_f32_stays_inside_the_bound(data: st.DataObject) -> None:
    x, w = data.draw(arrays((3, 130), SMALL)), data.draw(arrays((130, 21), SMALL))
    exact, size = reference.dense(x, w), reference.dense(np.abs(x), np.abs(w))
    within(ops.dense(x, sf.pack(w)), exact, size, 130)
    within(ops.dense(x, w, activation="relu"), np.maximum(exact, 0), size, 130)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("kind", [sf.f32, sf.i8])
@given(data=st.data())
@settings(max_examples=4)
def test_matmul_reads_either_order(
    transpose_a: bool, transpose_b: bool, kind: sf.Scalar, data: st.DataObject
) -> None:
    drawn = SMALL if kind == sf.f32 else kind
    a = data.draw(arrays((3, 17, 5) if transpose_a else (3, 5, 17), drawn))
    b = data.draw(arrays((9, 17) if transpose_b else (17, 9), drawn))
    order = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    found, exact = ops.matmul(a, b, **order), reference.matmul(a, b, **order)
    if kind == sf.f32:
        within(found, exact, reference.matmul(np.abs(a), np.abs(b), **order), 17)
    else:
        np.testing.assert_array_equal(found, exact)


def test_a_stack_multiplies_a_stack_matrix_by_matrix() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(-128, 128, (2, 3, 4, 6), np.int8)
    b = rng.integers(0, 256, (2, 3, 6, 5), np.uint8)
    np.testing.assert_array_equal(ops.matmul(a, b), reference.matmul(a, b))
    np.testing.assert_array_equal(ops.matmul(a[0, 0], b), reference.matmul(a[0, 0], b))


def test_sums_that_can_leave_i32_are_refused_with_the_numbers() -> None:
    x = np.zeros((1, 1, 1, 4), np.uint8)
    w = np.full((1, 1, 4, 2), 127, np.int8)
    bias = np.array([0, 2**31 - 1000], np.int32)
    message = (
        "conv2d: the sums reach 0 to 2147612188 for u8 inputs; i32 holds -2147483648 to "
        "2147483647. Use fewer input channels, or a smaller bias."
    )
    with pytest.raises(sf.OperandError) as refused:
        ops.conv2d(x, w, bias)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("op", "rule", "halves"),
    [
        (ops.conv2d, "float", [-2, -2, 0, 0, 2, 2]),
        (ops.conv2d, "onnx", [-2, -2, 0, 0, 2, 2]),
        (ops.conv2d, "tflite", [-2, -1, 0, 1, 2, 3]),
        (ops.dense, "float", [-2, -2, 0, 0, 2, 2]),
        (ops.dense, "tflite", [-3, -2, -1, 1, 2, 3]),
    ],
)
def test_halves_go_where_the_rule_says(op: ops.Op, rule: str, halves: list[int]) -> None:
    x, w = np.array([-5, -3, -1, 1, 3, 5], np.int8).reshape(-1, 1), np.ones((1, 1), np.int8)
    if op is ops.conv2d:
        x, w = x.reshape(1, 6, 1, 1), w.reshape(1, 1, 1, 1)
    q = {"x_q": ops.Quantization(0.5), "w_q": ops.Quantization(1), "y_q": ops.Quantization(1)}
    assert op(x, w, **q, rounding=rule).reshape(-1).tolist() == halves
