"""`reference.call`, the numpy result of an op by its name, against the compiled ops.

Hypothesis draws the options; each draw compiles a kernel, so the examples are few and the shapes
small. Integers are exact, f32 sums stay inside their bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow import ops
from simdflow.ops import reference
from simdflow.testing import arrays

EPS = float(np.finfo(np.float32).eps)
BYTES = st.sampled_from([sf.u8, sf.i8])
KINDS = st.sampled_from([sf.f32, sf.u8, sf.i8])
ACTIVATIONS = st.sampled_from([None, "none", "relu", "relu6", "relu_n1_to_1"])
# Every draw compiles: a failure is shown as it was found.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
REAL = sf.f32.range(-4, 4)


@st.composite
def quantizations(
    draw: st.DrawFn, kind: sf.Scalar, low: float = 0.01, high: float = 0.2
) -> ops.Quantization:
    zero = draw(st.integers(int(kind.low), int(kind.high)))
    return ops.Quantization(draw(st.floats(low, high)), zero)


def same(name: str, *operands: Any, relative: float = 0.0, **options: Any) -> None:
    """Assert that the op gives the array that `reference.call` gives."""
    expected = reference.call(name, *operands, **options)
    found = getattr(ops, name)(*operands, **options)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if relative:
        np.testing.assert_allclose(found, expected, rtol=relative, atol=relative)
    else:
        np.testing.assert_array_equal(found, expected)


def numbers(data: st.DataObject, kind: sf.Scalar, channels: int) -> dict[str, Any]:
    """Drawn options of a product for operands of a kind."""
    if kind == sf.f32:
        return {"activation": data.draw(ACTIVATIONS)}
    if data.draw(st.booleans()):
        return {}
    to = data.draw(BYTES)
    each = data.draw(st.sampled_from([1, channels]))
    scales = np.random.default_rng(data.draw(st.integers(0, 99))).uniform(1e-4, 4e-3, each)
    return {
        "activation": data.draw(ACTIVATIONS),
        "x_q": data.draw(quantizations(kind)),
        "w_q": ops.Quantization(scales if each > 1 else float(scales[0])),
        "y_q": data.draw(quantizations(to)),
        "y_type": data.draw(st.sampled_from([to, None])) if to == kind else to,
        "rounding": data.draw(st.sampled_from(["float", "tflite", "onnx"])),
    }


def product(name: str, data: st.DataObject, x_shape: Any, w_shape: Any, **window: Any) -> None:
    """Assert that a product is what `reference.call` says, for drawn numbers."""
    kind = data.draw(KINDS)
    real = kind == sf.f32
    x = data.draw(arrays(x_shape, REAL if real else kind))
    w = data.draw(arrays(w_shape, REAL if real else sf.i8))
    bias = REAL if real else sf.i32.range(-(1 << 20), 1 << 20)
    given_bias = data.draw(st.none() | arrays(w_shape[-1], bias))
    options = window | numbers(data, kind, w_shape[-1])
    if not real:
        return same(name, x, w, given_bias, **options)
    found = getattr(ops, name)(x, w, given_bias, **options)
    exact = reference.call(name, x, w, given_bias, **options)
    size = reference.call(
        name, np.abs(x), np.abs(w), None if given_bias is None else np.abs(given_bias), **window
    )
    terms = x[0].size
    assert (np.abs(found - exact) <= 2 * (terms + 2) * EPS * size + 1e-30).all()


@given(data=st.data())
@settings(max_examples=16, phases=PHASES)
def test_conv2d(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    window = {
        "stride": data.draw(st.sampled_from([1, 2, (2, 1)])),
        "padding": data.draw(st.sampled_from([0, 1, "same", ((1, 0), (0, 2))])),
        "dilation": data.draw(st.sampled_from([1, 2])),
        "groups": groups,
    }
    product("conv2d", data, (1, 6, 5, 4), (2, 2, 4 // groups, 6), **window)


@given(data=st.data())
@settings(max_examples=12, phases=PHASES)
def test_depthwise_conv2d(data: st.DataObject) -> None:
    window = {
        "stride": data.draw(st.sampled_from([1, 2])),
        "padding": data.draw(st.sampled_from([0, (1, 0), "same"])),
    }
    product("depthwise_conv2d", data, (1, 6, 5, 5), (3, 2, 10), **window)


@given(data=st.data())
@settings(max_examples=12, phases=PHASES)
def test_dense(data: st.DataObject) -> None:
    product("dense", data, (3, 7), (7, 9))


@given(data=st.data())
@settings(max_examples=8, phases=PHASES)
def test_matmul(data: st.DataObject) -> None:
    a, b = data.draw(st.booleans()), data.draw(st.booleans())
    kind = data.draw(KINDS)
    shapes = (2, 6, 3) if a else (2, 3, 6), (2, 5, 6) if b else (2, 6, 5)
    x, y = (data.draw(arrays(s, REAL if kind == sf.f32 else kind)) for s in shapes)
    loose = 1e-4 if kind == sf.f32 else 0.0
    same("matmul", x, y, relative=loose, transpose_a=a, transpose_b=b)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@given(data=st.data())
@settings(max_examples=14, phases=PHASES)
def test_pools(name: str, data: st.DataObject) -> None:
    kind, activation = data.draw(KINDS), data.draw(ACTIVATIONS)
    options: dict[str, Any] = {
        "kernel": data.draw(st.sampled_from([2, 3, (3, 2)])),
        "stride": data.draw(st.sampled_from([None, 1, 2])),
        "padding": data.draw(st.sampled_from([0, 1, "same"])),
        "activation": activation,
    }
    if name == "avg_pool2d":
        options["count_include_pad"] = data.draw(st.booleans())
    if kind != sf.f32 and (activation not in (None, "none") or data.draw(st.booleans())):
        options["y_q"] = data.draw(quantizations(kind))
    pooled = name == "max_pool2d"
    x = data.draw(arrays((2, 7, 5, 3), (sf.f32 if pooled else REAL) if kind == sf.f32 else kind))
    same(name, x, relative=1e-5 if kind == sf.f32 and not pooled else 0.0, **options)


@given(data=st.data())
@settings(max_examples=8, phases=PHASES)
def test_global_avg_pool2d(data: st.DataObject) -> None:
    kind = data.draw(BYTES)
    x = data.draw(arrays((2, 3, 5, 7), kind))
    options = {"x_q": data.draw(quantizations(kind)), "y_q": data.draw(quantizations(kind))}
    rule = data.draw(st.sampled_from(["float", "tflite"]))
    same("global_avg_pool2d", x, **options, rounding=rule)
    same("global_avg_pool2d", x.astype(np.float32), relative=1e-5)


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@given(data=st.data())
@settings(max_examples=12, phases=PHASES)
def test_quantized_arithmetic(name: str, data: st.DataObject) -> None:
    kind = data.draw(BYTES)
    a, b = data.draw(arrays((2, 1, 9), kind)), data.draw(arrays((3, 1), kind))
    # Ratios of scales beyond XNNPACK's are among them.
    low = data.draw(st.sampled_from([0.01, 1e-5]))
    options = {
        "a_q": data.draw(quantizations(kind)),
        "b_q": data.draw(quantizations(kind, low)),
        "y_q": data.draw(quantizations(kind)),
        "activation": data.draw(ACTIVATIONS),
        "rounding": data.draw(st.sampled_from(["float", "tflite"])),
    }
    same(name, a, b, **options)


UNARY: dict[str, dict[str, Any]] = {
    "relu": {},
    "relu6": {},
    "clip": {"low": -1.3, "high": 2.7},
    "leaky_relu": {"slope": 0.3},
    "hardswish": {},
    "sigmoid": {},
    "tanh": {},
    "gelu": {"approximate": True},
}


@pytest.mark.parametrize("name", UNARY)
@given(data=st.data())
@settings(max_examples=6, phases=PHASES)
def test_activations(name: str, data: st.DataObject) -> None:
    kind = data.draw(KINDS)
    x = data.draw(arrays((3, 11), REAL if kind == sf.f32 else kind))
    if kind == sf.f32:
        return same(name, x, **UNARY[name], relative=1e-5)
    options = {"x_q": data.draw(quantizations(kind)), "y_q": data.draw(quantizations(kind))}
    if name in ("relu", "relu6", "clip", "leaky_relu"):
        options["rounding"] = data.draw(st.sampled_from(["float", "tflite"]))
    return same(name, x, **UNARY[name], **options)


@pytest.mark.parametrize("kind", [sf.u8, sf.i8, sf.i32])
def test_integer_clips_need_no_scale(kind: sf.Scalar) -> None:
    x = np.arange(-100, 100).astype(kind.dtype)
    for name, options in (("relu", {}), ("relu6", {}), ("clip", {"low": -3.5, "high": 100.5})):
        same(name, x, **options)


@given(data=st.data())
@settings(max_examples=6, phases=PHASES)
def test_softmax(data: st.DataObject) -> None:
    kind, beta = data.draw(BYTES), data.draw(st.floats(0.1, 2))
    x = data.draw(arrays((3, 11), kind))
    same("softmax", x, x_q=data.draw(quantizations(kind)), beta=beta)
    same("softmax", x.astype(np.float32) / 16, beta=beta, relative=1e-5)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "relu_n1_to_1"])
def test_fused_activations_keep_nan(activation: str | None) -> None:
    x = np.float32([np.nan, -3, -0.5, 0.25, 7, np.inf]).reshape(1, 2, 3, 1)
    w = np.ones((1, 1, 1, 1), np.float32)
    same("conv2d", x, w, activation=activation)
    same("depthwise_conv2d", x, w[..., 0], activation=activation)
    same("dense", x, w[0, 0], activation=activation)
    same("avg_pool2d", x, kernel=(1, 2), stride=1, activation=activation)
    same("max_pool2d", x, kernel=(1, 2), stride=1, activation=activation)


def test_what_decides_how_a_kernel_is_made_changes_nothing() -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    expected = reference.call("relu", x)
    found = reference.call("relu", x, target="portable", dataflow=sf.Dataflow(lanes="i"))
    np.testing.assert_array_equal(found, expected)
    gain = np.float32([1, 2, 3])
    np.testing.assert_array_equal(
        reference.call("layer_norm", x, None, gain), reference.call("layer_norm", x, bias=gain)
    )


@pytest.mark.parametrize("name", ["swish", "np", "call", "Array", "_erf"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(KeyError, match="has no reference"):
        reference.call(name, np.zeros(1))


def test_every_op_has_a_result_by_its_name() -> None:
    from simdflow.ops.reference.call import _OWN, _plain

    names = {n for n in ops.__all__ if isinstance(getattr(ops, n), ops.Op)}
    assert sorted(n for n in names if not callable(_OWN.get(n) or _plain(n))) == []
