"""Binary arithmetic, comparisons and choices against numpy, with broadcasting and every f32 value.

One operation on two f32 numbers is exact: the reference in float64 rounds to the same bits.
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
BINARY = ["add", "sub", "mul", "div", "maximum", "minimum"]
ORDERED = ["less", "greater", "equal", "maximum", "minimum"]
# Shapes whose axes merge to one, two, three and four.
SHAPES = [
    ((2, 3, 5), (2, 3, 5)),
    ((4, 1, 7), (3, 1)),
    ((2, 3, 1, 5), (3, 4, 1)),
    ((1,), (2, 9)),
    ((2, 1, 3, 1), (1, 4, 3, 5)),
    ((), (3,)),
]
SPECIAL = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -2.5, 6.5, 1.0])


def same(name: str, *operands: Any, **options: Any) -> None:
    """Assert that the op gives the bits (and NaN) of the reference."""
    expected = reference.call(name, *operands, **options)
    found = getattr(ops, name)(*operands, **options)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(("a_shape", "b_shape"), SHAPES)
@given(data=st.data())
@settings(max_examples=6)
def test_any_two_numbers(
    name: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...], data: st.DataObject
) -> None:
    # Any f32, but for quotients: one below the normal numbers is rounded twice in the reference.
    kind = sf.f32.range(-1e9, 1e9) if name == "div" else sf.f32
    same(name, data.draw(arrays(a_shape, kind)), data.draw(arrays(b_shape, kind)))


@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "relu_n1_to_1"])
@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("target", TARGETS)
def test_activations_keep_nan(target: str, name: str, activation: str) -> None:
    same(name, SPECIAL[:, None], SPECIAL, activation=activation, target=target)


@pytest.mark.parametrize("kind", [sf.u8, sf.i8])
@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@given(data=st.data())
@settings(max_examples=5)
def test_integers_widen(name: str, kind: sf.Scalar, data: st.DataObject) -> None:
    same(name, data.draw(arrays((3, 1, 9), kind)), data.draw(arrays((4, 1), kind)))


@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8, sf.i32, sf.i64])
@pytest.mark.parametrize("name", ORDERED)
@given(data=st.data())
@settings(max_examples=5)
def test_order(name: str, kind: sf.Scalar, data: st.DataObject) -> None:
    if kind == sf.i64 and name in ("maximum", "minimum"):
        return
    a, b = data.draw(arrays((3, 19), kind)), data.draw(arrays(19, kind))
    same(name, a, b)
    same(name, a, a.copy())


@pytest.mark.parametrize("kind", [sf.f32, sf.u8, sf.i8, sf.i32, sf.i64])
@pytest.mark.parametrize(
    "shapes", [((5, 17), (5, 17), (5, 17)), ((5, 1), (17,), (5, 17)), ((2, 3, 1), (1, 4), (3, 1))]
)
@given(data=st.data())
@settings(max_examples=4)
def test_where(kind: sf.Scalar, shapes: tuple[tuple[int, ...], ...], data: st.DataObject) -> None:
    condition = data.draw(arrays(shapes[0], sf.u8.range(0, 2)))
    same("where", condition, *(data.draw(arrays(s, kind)) for s in shapes[1:]))


def test_a_difference_of_quantized_operands_is_that_of_their_numbers() -> None:
    a, b = np.int8([[5, 100, -100]]), np.int8([[3, -100, 100]])
    q = ops.Quantization(0.5, 1)
    found = ops.sub(a, b, a_q=q, b_q=q, y_q=ops.Quantization(1.0, -2))
    # (5 - 3) / 2 - 2; (100 + 100) / 2 - 2; (-100 - 100) / 2 - 2
    assert found.tolist() == [[-1, 98, -102]]


F = np.zeros((2, 3), np.float32)
REFUSED: list[tuple[str, Any]] = [
    (
        "div: a=i8 is not a type of this operand; f32 are allowed. Convert it.",
        lambda: ops.div(F.astype(np.int8), F.astype(np.int8)),
    ),
    (
        "sub: b=f32 is not a type of this operand; u8 are allowed. Convert it.",
        lambda: ops.sub(F.astype(np.uint8), F),
    ),
    (
        "sub: a_q=None is not a Quantization with one scale; for i8 a_q and b_q and y_q are "
        "needed. Give Quantization(scale, zero_point).",
        lambda: ops.sub(F.astype(np.int8), F.astype(np.int8), y_q=ops.Quantization(1.0)),
    ),
    (
        "maximum: activation='relu' of integers is not defined; it is for f32 and quantized "
        "results. Give quantizations, or None.",
        lambda: ops.maximum(F.astype(np.int8), F.astype(np.int8), activation="relu"),
    ),
    (
        "sub: rounding='onnx' has no definition here; 'float' and 'tflite' do. Use one.",
        lambda: ops.sub(F, F, rounding="onnx"),
    ),
    (
        "less: a [2, 3] and b [2] do not broadcast; sizes that are equal or 1, counted from the "
        "last axis, do. Reshape one.",
        lambda: ops.less(F, F[:, 0]),
    ),
    (
        "where: condition=f32 is not a type of this operand; u8 are allowed. Convert it.",
        lambda: ops.where(F, F, F),
    ),
    (
        "where: condition [2, 1] and a [2, 3] and b [4, 3] do not broadcast; sizes that are equal "
        "or 1, counted from the last axis, do. Reshape one.",
        lambda: ops.where(np.ones((2, 1), np.uint8), F, np.zeros((4, 3), np.float32)),
    ),
    (
        "mul: a [2, 1, 2, 1, 2] and b [2, 1, 2, 1] change sides of the broadcast more than 3 "
        "times; fewer are allowed. Use np.broadcast_to first.",
        lambda: ops.mul(np.zeros((2, 1, 2, 1, 2), np.float32), np.zeros((2, 1, 2, 1), np.float32)),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[m[:40] for m, _ in REFUSED])
def test_what_is_refused_says_why(message: str, call: Any) -> None:
    with pytest.raises(sf.OperandError) as refused:
        call()
    assert str(refused.value) == message
