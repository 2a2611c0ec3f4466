"""Elementwise, pooling and row-wise layers against their numpy references.

Quantized results are compared for all 256 inputs or exactly on random ones; f32 within a few units
in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

TARGETS = [t.name for t in host_targets()]
BYTES = [sf.u8, sf.i8]
SHAPE = (2, 3, 37)
# Real values of one tensor: where an activation bends, saturates, and overflows its exponential.
WIDE = sf.f32.range(-200, 200)
UNARY: dict[str, tuple[dict[str, Any], float]] = {
    "relu": ({}, 0.0),
    "relu6": ({}, 0.0),
    "leaky_relu": ({"slope": 0.3}, 1e-7),
    "hardswish": ({}, 1e-6),
    "sigmoid": ({}, 1e-6),
    "tanh": ({}, 1e-6),
    "gelu": ({}, 1e-6),
}


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=8)
def test_activations_f32(name: str, target: str, data: st.DataObject) -> None:
    options, relative = UNARY[name]
    x = data.draw(arrays(SHAPE, WIDE))
    exact = getattr(reference, name)(x, **options)
    found = getattr(ops, name)(x, **options, target=target)
    assert found.dtype == np.float32
    assert (np.abs(found - exact) <= relative * (np.abs(exact) + 1)).all()


def test_gelu_by_tanh() -> None:
    x = np.linspace(-9, 9, 301, dtype=np.float32)
    exact = reference.gelu(x, approximate=True)
    assert np.abs(ops.gelu(x, approximate=True) - exact).max() < 2e-6


@pytest.mark.parametrize("op", [ops.relu, ops.relu6])
def test_relu_keeps_nan(op: ops.Op) -> None:
    x = np.array([np.nan, -np.inf, np.inf, -0.5, 3.0], np.float32)
    np.testing.assert_array_equal(op(x), op.reference(x).astype(np.float32))


@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8, sf.i32])
@given(data=st.data())
@settings(max_examples=5)
def test_clip_of_any_type(kind: sf.Scalar, data: st.DataObject) -> None:
    x = data.draw(arrays(SHAPE, kind))
    np.testing.assert_array_equal(ops.clip(x, low=-3, high=100), reference.clip(x, -3, 100))


def scale(data: st.DataObject, kind: sf.Scalar) -> tuple[float, int]:
    """A drawn (scale, zero point) whose scale is an f32 number."""
    zero = data.draw(st.integers(int(kind.low), int(kind.high)))
    return float(np.float32(data.draw(st.floats(0.004, 0.2)))), zero


def every(kind: sf.Scalar) -> np.ndarray:
    return np.arange(int(kind.low), int(kind.high) + 1).astype(kind.dtype)


Quantized = Callable[..., np.ndarray]
TABLES: dict[str, tuple[Quantized, dict[str, Any]]] = {
    "hardswish": (reference.quantized_hardswish, {}),
    "sigmoid": (reference.quantized_sigmoid, {}),
    "tanh": (reference.quantized_tanh, {}),
    "gelu": (reference.quantized_gelu, {}),
    "leaky_relu": (reference.quantized_leaky_relu, {"slope": 0.1}),
}


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
@settings(max_examples=10)
def test_quantized_activations_for_every_input(
    kind: sf.Scalar, name: str, data: st.DataObject
) -> None:
    quantized, options = TABLES[name]
    x_q, y_q = scale(data, kind), scale(data, kind)
    rules = ("float", "tflite") if name == "leaky_relu" else ("",)
    for rule in rules:
        chosen = options | ({"rounding": rule} if rule else {})
        found = getattr(ops, name)(
            every(kind), x_q=ops.Quantization(*x_q), y_q=ops.Quantization(*y_q), **chosen
        )
        low, high = int(kind.low), int(kind.high)
        expected = quantized(every(kind), x_q, y_q, **chosen, low=low, high=high)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("name", ["relu", "relu6"])
@given(data=st.data())
@settings(max_examples=10)
def test_quantized_relu_rescales(kind: sf.Scalar, name: str, data: st.DataObject) -> None:
    x_q, y_q = scale(data, kind), scale(data, kind)
    low, high = int(kind.low), int(kind.high)
    bounds = reference.activation_bounds(name, *y_q, low, high, "tflite")
    found = getattr(ops, name)(every(kind), x_q=ops.Quantization(*x_q), y_q=ops.Quantization(*y_q))
    expected = reference.rescale(every(kind), x_q, y_q, *bounds, "tflite")
    np.testing.assert_array_equal(found, expected)


# Every quantization compiles, so these are few; the data are many.
PAIRS = [((0.05, 3), (0.02, -9), (0.07, 5)), ((0.001, 0), (0.09, 100), (0.04, -100))]
FAR = ((3.0, 1), (0.0001, 2), (0.004, -3))  # beyond XNNPACK's range: LiteRT takes the other rule


@pytest.mark.parametrize("name", ["add", "mul"])
@pytest.mark.parametrize("rule", ["float", "tflite"])
@pytest.mark.parametrize("scales", PAIRS)
@given(data=st.data())
@settings(max_examples=8)
def test_quantized_add_and_mul_are_exact(
    name: str, rule: str, scales: tuple[Any, Any, Any], data: st.DataObject
) -> None:
    a, b = data.draw(arrays((3, 70), sf.i8)), data.draw(arrays(70, sf.i8))
    q = dict(zip(("a_q", "b_q", "y_q"), (ops.Quantization(*s) for s in scales), strict=True))
    found = getattr(ops, name)(a, b, **q, rounding=rule, activation="relu6")
    rounding = "tflite" if rule == "tflite" else "float"
    bounds = reference.activation_bounds("relu6", *scales[2], -128, 127, rounding)
    wide = getattr(reference, f"quantized_{name}")(a, b, *scales, *bounds, rule)
    np.testing.assert_array_equal(found, wide)


def test_a_sum_of_far_apart_scales_is_that_of_litert() -> None:
    a = every(sf.i8)
    q = dict(zip(("a_q", "b_q", "y_q"), (ops.Quantization(*s) for s in FAR), strict=True))
    expected = reference.quantized_add(a, a[::-1], *FAR, rounding="tflite")
    np.testing.assert_array_equal(ops.add(a, a[::-1], **q), expected)


@pytest.mark.parametrize("name", ["add", "mul"])
@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8])
@pytest.mark.parametrize(
    ("a_shape", "b_shape"), [((2, 3, 5), (2, 3, 5)), ((4, 1, 7), (3, 1)), ((1,), (2, 9))]
)
@given(data=st.data())
@settings(max_examples=3)
def test_add_and_mul_broadcast(
    name: str,
    kind: sf.Scalar,
    a_shape: tuple[int, ...],
    b_shape: tuple[int, ...],
    data: st.DataObject,
) -> None:
    drawn = sf.f32.range(-9, 9) if kind == sf.f32 else kind
    a, b = data.draw(arrays(a_shape, drawn)), data.draw(arrays(b_shape, drawn))
    found, exact = getattr(ops, name)(a, b), getattr(reference, name)(a, b)
    if kind == sf.f32:
        np.testing.assert_array_equal(found, exact.astype(np.float32))
    else:
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, exact)


WINDOWS: list[dict[str, Any]] = [
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": (2, 3), "padding": "same"},
    {"kernel": 2, "padding": ((0, 1), (1, 0)), "stride": 1},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8])
@given(data=st.data())
@settings(max_examples=5)
def test_max_pool_is_exact(window: dict[str, Any], kind: sf.Scalar, data: st.DataObject) -> None:
    x = data.draw(arrays((2, 7, 9, 5), WIDE if kind == sf.f32 else kind))
    found = ops.max_pool2d(x, **window)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, reference.max_pool2d(x, **window))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", BYTES)
@given(data=st.data())
@settings(max_examples=5)
def test_quantized_means_round_half_away(
    window: dict[str, Any], kind: sf.Scalar, data: st.DataObject
) -> None:
    x = data.draw(arrays((2, 7, 9, 5), kind))
    low, high = int(kind.low), int(kind.high)
    expected = reference.quantized_avg_pool2d(x, **window, low=low, high=high)
    np.testing.assert_array_equal(ops.avg_pool2d(x, **window), expected)


def test_large_windows_have_exact_means() -> None:
    x = np.full((1, 250, 250, 1), 255, np.uint8)
    x[0, 0, 0, 0] = 254
    assert ops.avg_pool2d(x, kernel=250).tolist() == [[[[255]]]]
    x[0, :125] = 254
    expected = reference.quantized_avg_pool2d(x, 250, low=0, high=255)
    np.testing.assert_array_equal(ops.avg_pool2d(x, kernel=250), expected)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_means_f32(window: dict[str, Any], counted: bool) -> None:
    x = np.random.default_rng(2).standard_normal((2, 7, 9, 21)).astype(np.float32)
    exact = reference.avg_pool2d(x, **window, count_include_pad=counted)
    found = ops.avg_pool2d(x, **window, count_include_pad=counted)
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-6)


def test_pools_clip() -> None:
    x = np.arange(-120, 120, dtype=np.int8).reshape(1, 12, 4, 5)
    y_q = ops.Quantization(0.1, 10)
    bounds = reference.activation_bounds("relu6", 0.1, 10, rounding="tflite")
    found = ops.max_pool2d(x, kernel=2, activation="relu6", y_q=y_q)
    np.testing.assert_array_equal(found, np.clip(reference.max_pool2d(x, 2), *bounds))
    means = ops.avg_pool2d(x, kernel=2, activation="relu6", y_q=y_q)
    expected = reference.quantized_avg_pool2d(x, 2, low=bounds[0], high=bounds[1])
    np.testing.assert_array_equal(means, expected)
    real = ops.max_pool2d(x.astype(np.float32), kernel=2, activation="relu6")
    np.testing.assert_array_equal(real, np.clip(reference.max_pool2d(x, 2), 0, 6))


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("rule", ["float", "tflite"])
@given(data=st.data())
@settings(max_examples=6)
def test_global_means_are_exact(kind: sf.Scalar, rule: str, data: st.DataObject) -> None:
    x = data.draw(arrays((2, 7, 7, 19), kind))
    low, high = int(kind.low), int(kind.high)
    x_q, y_q = (float(np.float32(0.02)), low + 100), (data.draw(st.floats(0.004, 0.1)), low + 90)
    found = ops.global_avg_pool2d(
        x, x_q=ops.Quantization(*x_q), y_q=ops.Quantization(*y_q), rounding=rule
    )
    expected = reference.quantized_global_avg_pool2d(x, x_q, y_q, low, high, rule)
    np.testing.assert_array_equal(found, expected)


def test_global_means_f32() -> None:
    x = np.random.default_rng(3).standard_normal((2, 7, 5, 19)).astype(np.float32)
    found = ops.global_avg_pool2d(x)
    np.testing.assert_allclose(found, reference.global_avg_pool2d(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(5, 10), (1, 1), (2, 3, 100)])
@given(data=st.data())
@settings(max_examples=5)
def test_softmax_f32(target: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    x = data.draw(arrays(shape, WIDE))
    found = ops.softmax(x, beta=0.5, target=target)
    np.testing.assert_allclose(found, reference.softmax(x, 0.5), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_quantized_softmax_is_exact(kind: sf.Scalar, target: str, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 41), kind))
    step = float(np.float32(data.draw(st.floats(0.001, 0.5))))
    found = ops.softmax(x, x_q=ops.Quantization(step, 3), target=target)
    low, high = int(kind.low), int(kind.high)
    expected = reference.quantized_softmax(x, step, 1.0, low, low, high)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=8)
def test_layer_norm(target: str, data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x, gain, bias = (rng.standard_normal(s).astype(np.float32) for s in ((2, 3, 43), 43, 43))
    exact = reference.layer_norm(x, gain, bias)
    found = ops.layer_norm(x, gain, bias, target=target)
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-5)
    plain = ops.layer_norm(x, epsilon=0.5, target=target)
    np.testing.assert_allclose(plain, reference.layer_norm(x, epsilon=0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8, sf.i32])
@pytest.mark.parametrize(
    "pads", [((0, 0), (1, 2), (3, 0)), ((2, 0), (0, 0), (0, 1)), ((0, 0), (0, 0), (0, 0))]
)
def test_pad(kind: sf.Scalar, pads: tuple[tuple[int, int], ...]) -> None:
    x = np.random.default_rng(4).integers(0, 100, (2, 5, 17)).astype(kind.dtype)
    found = ops.pad(x, pads=pads, value=7)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, reference.pad(x, pads, 7))


def test_pad_with_infinity() -> None:
    x = np.zeros((1, 2), np.float32)
    found = ops.pad(x, pads=((0, 0), (1, 1)), value=-math.inf)
    assert found.tolist() == [[-math.inf, 0.0, 0.0, -math.inf]]
