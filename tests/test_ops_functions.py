"""Elementary functions, activations of f32, and normalization by known numbers, against numpy.

Every f32 bit pattern may come; errors are bounded by a few units in the last place.
"""

from __future__ import annotations

import math
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
EXACT = ["neg", "abs", "sqrt", "reciprocal", "square", "floor", "ceil", "round"]
CLOSE = ["exp", "log", "rsqrt", "erf", "softplus", "silu", "elu", "hard_sigmoid"]
RELATIVE, LEAST = 5e-7, 1e-37


def near(name: str, *operands: Any, relative: float = RELATIVE, **options: Any) -> None:
    """Assert that the op is near the reference, relative to max(|result|, `LEAST`), NaN as NaN."""
    expected = reference.call(name, *operands, **options)
    found = getattr(ops, name)(*operands, **options)
    assert (found.dtype, found.shape) == (np.float32, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * LEAST)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
@settings(max_examples=6)
def test_exact_functions(name: str, target: str, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 37), sf.f32))
    found = getattr(ops, name)(x, target=target)
    np.testing.assert_array_equal(found, reference.call(name, x))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CLOSE)
@given(data=st.data())
@settings(max_examples=8)
def test_functions(name: str, target: str, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 37), sf.f32) | arrays((3, 37), sf.f32.range(-20, 20)))
    # alpha * x + beta cancels: its error is relative to beta.
    found = getattr(ops, name)(x, target=target)
    atol = 1e-7 if name == "hard_sigmoid" else 1e-37
    expected = reference.call(name, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=atol)


def test_digits_are_kept_next_to_zero() -> None:
    small = np.float32([-1e-6, -1e-10, -1e-30])
    near("elu", small, alpha=2.0)
    near("softplus", np.float32([-15, -40, -80]))


def test_options_of_activations() -> None:
    x = np.linspace(-9, 9, 301, dtype=np.float32)
    near("elu", x, alpha=0.3)
    found = ops.hard_sigmoid(x, alpha=0.25, beta=0.4)
    exact = reference.hard_sigmoid(x, 0.25, 0.4)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)


# A whole number of halves is a product, else an exponential whose error grows with the exponent.
EXPONENTS = {0: 0, 1: 0, 2: 0, 0.5: 0, -1: 0, 1.5: 1, -0.5: 1, 3: 2, 7: 4, 15.5: 9, -2.5: 3}
OTHERS = [0.3, 2.2, -1 / 3, 16, 17, -21, 1e-3]


@pytest.mark.parametrize("exponent", [*EXPONENTS, *OTHERS])
@given(data=st.data())
@settings(max_examples=6)
def test_powers(exponent: float, data: st.DataObject) -> None:
    x = data.draw(arrays((3, 37), sf.f32.range(-30, 30)))
    x[:, :4] = [0.0, -0.0, 1.0, -1.0]
    x = np.abs(x) * np.sign(x) if exponent in OTHERS else x  # -0 becomes 0
    units = EXPONENTS.get(exponent, 8 + 16 * math.log(30) * math.fabs(exponent))
    near("pow", x, exponent=exponent, relative=units * 2.0**-23 + 1e-12)


@pytest.mark.parametrize("exponent", [-2, -0.5, 0.5, 1.5, 2.2, 3, 17, 18])
def test_powers_of_what_is_not_finite(exponent: float) -> None:
    x = np.float32([np.nan, np.inf, -np.inf])
    found, expected = ops.pow(x, exponent=exponent), reference.call("pow", x, exponent=exponent)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("slope", [(5,), (3, 1, 5), (1,), (3, 7, 5)])
@given(data=st.data())
@settings(max_examples=4)
def test_prelu(slope: tuple[int, ...], data: st.DataObject) -> None:
    x, s = data.draw(arrays((2, 3, 7, 5), sf.f32)), data.draw(arrays(slope, sf.f32))
    np.testing.assert_array_equal(ops.prelu(x, s), reference.call("prelu", x, s))


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
@given(data=st.data())
@settings(max_examples=6)
def test_batch_norm(epsilon: float, data: st.DataObject) -> None:
    x = data.draw(arrays((2, 3, 19), sf.f32.range(-9, 9)))
    scale, bias, mean = (data.draw(arrays(19, sf.f32.range(-2, 2))) for _ in range(3))
    variance = data.draw(arrays(19, sf.f32.range(0.25, 4)))
    numbers = (scale, bias, mean, variance)
    exact = reference.batch_norm(x, *numbers, epsilon)
    found = ops.batch_norm(x, *numbers, epsilon=epsilon)
    # The terms are at most 9 * 2 / 0.5 + 2 * 2 / 0.5 + 2 in size.
    np.testing.assert_allclose(found, exact, rtol=0, atol=46 * 2 * 2.0**-23)


F = np.zeros((2, 3), np.float32)
ONES = np.ones(3, np.float32)
REFUSED: list[tuple[str, Any]] = [
    (
        "exp: x=i8 is not a type of this operand; f32 are allowed. Convert it.",
        lambda: ops.exp(F.astype(np.int8)),
    ),
    (
        "silu: x.shape=[0, 3] has no elements; sizes of 1 or more are allowed. Skip the call for "
        "an empty batch.",
        lambda: ops.silu(F[:0]),
    ),
    (
        "pow: exponent=inf is not a finite number, which it must be. Correct it.",
        lambda: ops.pow(F, exponent=math.inf),
    ),
    (
        "prelu: x [2, 3] and slope [2] do not broadcast; sizes that are equal or 1, counted from "
        "the last axis, do. Reshape one.",
        lambda: ops.prelu(F, ONES[:2]),
    ),
    (
        "batch_norm: mean.shape=[2] is not [3], one for each channel. Reshape it.",
        lambda: ops.batch_norm(F, ONES, ONES, ONES[:2], ONES),
    ),
    (
        "batch_norm: variance has -1; numbers of 0 or more are variances. Check the order of the "
        "operands.",
        lambda: ops.batch_norm(F, ONES, ONES, ONES, -ONES),
    ),
    (
        "batch_norm: epsilon=-1 is not a finite number of 0 or more. Correct it.",
        lambda: ops.batch_norm(F, ONES, ONES, ONES, ONES, epsilon=-1),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[m[:40] for m, _ in REFUSED])
def test_what_is_refused_says_why(message: str, call: Any) -> None:
    with pytest.raises(sf.OperandError) as refused:
        call()
    assert str(refused.value) == message
