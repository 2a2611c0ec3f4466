"""Reductions, and conversions between element types and scales, against numpy.

8-bit results are exact for every input value; sums of f32 stay inside their bound.
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

TARGETS = [t.name for t in host_targets()]
BYTES = [sf.u8, sf.i8]
TYPES = [sf.f32, sf.u8, sf.i8, sf.i32, sf.i64]
SHAPE = (2, 5, 3, 7)
AXES: list[Any] = [None, (), (0,), (-1,), (1, 2), (0, 2), (1, -1), (0, 1, 3), (3, 2, 1, 0)]


def same(name: str, *operands: Any, **options: Any) -> None:
    """Assert that the op gives the bits (and NaN) of the reference."""
    expected = reference.call(name, *operands, **options)
    found = getattr(ops, name)(*operands, **options)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", ["reduce_sum", "reduce_mean"])
@given(data=st.data())
@settings(max_examples=5)
def test_sums_stay_inside_the_bound(name: str, axes: Any, data: st.DataObject) -> None:
    x, kept = data.draw(arrays(SHAPE, sf.f32.range(-4, 4))), data.draw(st.booleans())
    found = getattr(ops, name)(x, axes=axes, keepdims=kept)
    exact = getattr(reference, name)(x, axes, kept)
    size = getattr(reference, name)(np.abs(x), axes, kept)
    assert (found.dtype, found.shape) == (np.float32, exact.shape)
    assert (np.abs(found - exact) <= (x.size + 2) * 2.0**-23 * size + 1e-30).all()


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8, sf.i32])
@given(data=st.data())
@settings(max_examples=4)
def test_extremes_are_exact(kind: sf.Scalar, axes: Any, data: st.DataObject) -> None:
    x, kept = data.draw(arrays(SHAPE, kind)), data.draw(st.booleans())
    for name in ("reduce_max", "reduce_min"):
        same(name, x, axes=axes, keepdims=kept)
    if kind in BYTES:
        same("reduce_sum", x, axes=axes, keepdims=kept)


@pytest.mark.parametrize("target", TARGETS)
def test_numbers_win_over_nan(target: str) -> None:
    x = np.float32([[np.nan, -1.0, np.nan], [np.nan] * 3])
    assert ops.reduce_max(x, axes=(1,), target=target).tolist() == [-1.0, -np.inf]
    assert ops.reduce_min(x, axes=(1,), target=target).tolist() == [-1.0, np.inf]
    assert np.isnan(ops.reduce_sum(x, axes=(1,), target=target)).all()
    pooled = ops.max_pool2d(x.reshape(1, 2, 3, 1), kernel=(1, 3), target=target)
    assert pooled.ravel().tolist() == [-1.0, -np.inf]


def test_scalars_and_many_axes_reduce() -> None:
    assert ops.reduce_max(np.float32(3), axes=None).tolist() == 3.0
    x = np.arange(2**8, dtype=np.float32).reshape((2,) * 8)
    same("reduce_max", x, axes=(1, 2, 4, 7))
    same("reduce_sum", x, axes=(0, 1, 5), keepdims=True)


def ties(scale: float, zero: int) -> np.ndarray:
    """Real values on the ties of a scale, next to them, far outside, and not finite."""
    exact = (np.arange(-140 - zero, 300 - zero) + 0.5).astype(np.float32) * np.float32(scale)
    near = (np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf))
    odd = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.0, -0.0, 1e-45])
    return np.concatenate([exact, *near, odd])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rounding", ["onnx", "float", "tflite"])
@pytest.mark.parametrize("kind", BYTES)
def test_quantize(kind: sf.Scalar, rounding: str, target: str) -> None:
    for scale, zero in ((1.0, 0), (0.5, int(kind.low)), (0.07, int(kind.high))):
        x = ties(scale, zero)
        q = ops.Quantization(scale, zero)
        same("quantize", x, y_q=q, y_type=kind, rounding=rounding, target=target)


@pytest.mark.parametrize("rounding", ["onnx", "float", "tflite"])
@given(data=st.data())
@settings(max_examples=5)
def test_quantize_by_channel(rounding: str, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 4, 9), sf.f32))
    q = ops.Quantization(np.random.default_rng(1).uniform(0.01, 0.5, 9), -3)
    same("quantize", x, y_q=q, y_type=sf.i8, rounding=rounding)


@pytest.mark.parametrize("kind", [*BYTES, sf.i32])
@pytest.mark.parametrize("channels", [1, 9])
@given(data=st.data())
@settings(max_examples=5)
def test_dequantize(channels: int, kind: sf.Scalar, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 4, 9), kind))
    scales = np.random.default_rng(2).uniform(0.01, 0.5, channels)
    same("dequantize", x, x_q=ops.Quantization(scales, 0 if kind == sf.i32 else 7))


@pytest.mark.parametrize("rounding", ["float", "tflite", "onnx"])
@pytest.mark.parametrize("to", [*BYTES, None])
@pytest.mark.parametrize("kind", BYTES)
@given(data=st.data())
@settings(max_examples=10)
def test_requantize_for_every_input(
    kind: sf.Scalar, to: sf.Scalar | None, rounding: str, data: st.DataObject
) -> None:
    every = np.arange(int(kind.low), int(kind.high) + 1).astype(kind.dtype)
    found = []
    for stored in (kind, to or kind):
        # Ratios beyond XNNPACK's are among them.
        scale = data.draw(st.sampled_from([1e-4, 0.03, 0.5, 2.0, 1.0]) | st.floats(0.004, 0.2))
        zero = data.draw(st.integers(int(stored.low), int(stored.high)))
        found.append(ops.Quantization(scale, zero))
    same("requantize", every, x_q=found[0], y_q=found[1], y_type=to, rounding=rounding)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", TYPES)
@given(data=st.data())
@settings(max_examples=6)
def test_cast(kind: sf.Scalar, target: str, data: st.DataObject) -> None:
    x = data.draw(arrays((2, 19), kind))
    for to in TYPES:
        same("cast", x, to=to, target=target)


def test_casts_of_floats_saturate() -> None:
    x = np.float32(
        [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**63, -(2.0**63), 2.0**31, 255.9, -0.9]
    )
    for to in TYPES:
        same("cast", x, to=to)
    assert ops.cast(x, to=sf.u8).tolist() == [0, 255, 0, 255, 0, 255, 0, 255, 255, 0]


F = np.zeros((2, 3), np.float32)
B = np.zeros((2, 3), np.int8)
Q = ops.Quantization(0.5, 3)
REFUSED: list[tuple[str, Any]] = [
    (
        "reduce_sum: axes=(2,) are not axes of x [2, 3]; a tuple of -2 to 1 is allowed, or None "
        "for all. Correct them.",
        lambda: ops.reduce_sum(F, axes=(2,)),
    ),
    (
        "reduce_max: axes=(0, -2) name an axis twice; each is reduced once. Remove one.",
        lambda: ops.reduce_max(F, axes=(0, -2)),
    ),
    (
        "reduce_mean: x=i8 is not a type of this operand; f32 are allowed. Convert it.",
        lambda: ops.reduce_mean(B),
    ),
    (
        "reduce_min: axes=(0, 2, 4, 6) of x [2, 2, 2, 2, 2, 2, 2] are 4 groups with others between "
        "them; at most 3 are allowed. Reduce in two calls.",
        lambda: ops.reduce_min(np.zeros((2,) * 7, np.float32), axes=(0, 2, 4, 6)),
    ),
    (
        "quantize: y_type=i32 is not u8 or i8, which the result is. Give one.",
        lambda: ops.quantize(F, y_q=Q, y_type=sf.i32),
    ),
    (
        "quantize: y_q=0.5 is not a Quantization; Quantization(scale, zero_point) is. Make one.",
        lambda: ops.quantize(F, y_q=0.5, y_type=sf.i8),
    ),
    (
        "quantize: y_q.scale has 2 values for x [2, 3]; 1, or one for each element of the last "
        "axis, are allowed. Correct it.",
        lambda: ops.quantize(F, y_q=ops.Quantization([1.0, 2.0]), y_type=sf.i8),
    ),
    (
        "dequantize: x_q.zero_point=3 of i32 is not 0; sums have none. Take it off first.",
        lambda: ops.dequantize(B.astype(np.int32), x_q=Q),
    ),
    (
        "requantize: y_q.zero_point=-4 is not a value of u8; 0 to 255 is allowed. Give the zero "
        "point of the stored type.",
        lambda: ops.requantize(B, x_q=Q, y_q=ops.Quantization(1.0, -4), y_type=sf.u8),
    ),
    (
        "cast: to=f64 is not a type of a result; f32, u8, i8, i32, i64 are. Use one of them.",
        lambda: ops.cast(F, to=sf.f64),
    ),
    (
        "avg_pool2d: y_q=Quantization(scale=array(0.5, dtype=float32), zero_point=3) does not go "
        "with x=f32, which has no quantization. Remove it.",
        lambda: ops.avg_pool2d(F.reshape(1, 2, 3, 1), kernel=2, y_q=Q),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[m[:40] for m, _ in REFUSED])
def test_what_is_refused_says_why(message: str, call: Any) -> None:
    with pytest.raises(sf.OperandError) as refused:
        call()
    assert str(refused.value) == message
