"""The references against independent definitions: scalar loops, exact integers, answers of LiteRT.

What LiteRT answers to single operators is in golden/litert_ops.npz (golden/make_litert_ops.py);
whole networks are in test_networks_reference.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simdflow.ops import reference as ref

OPS = dict(np.load(Path(__file__).with_name("golden") / "litert_ops.npz"))
ROUNDINGS = {"auto": "float", "ref": "tflite"}
ABY = ("a_q", "b_q", "y_q")
I8 = hnp.from_dtype(np.dtype(np.int8))


def _naive_conv(
    x: Any, w: Any, stride: Any, pads: Any, dilation: Any, groups: int, pad_value: int
) -> Any:
    """The definition, one scalar at a time with Python's integers."""
    n, h, width, _ = x.shape
    kh, kw, icg, oc = w.shape
    (top, bottom), (left, right) = pads
    oh = (h + top + bottom - (kh - 1) * dilation[0] - 1) // stride[0] + 1
    ow = (width + left + right - (kw - 1) * dilation[1] - 1) // stride[1] + 1
    out = np.zeros((n, oh, ow, oc), object)
    for b, i, j, o in np.ndindex(out.shape):
        total = 0
        for p, q, r in np.ndindex(kh, kw, icg):
            row, column = (
                i * stride[0] + p * dilation[0] - top,
                j * stride[1] + q * dilation[1] - left,
            )
            inside = 0 <= row < h and 0 <= column < width
            channel = o // (oc // groups) * icg + r
            value = int(x[b, row, column, channel]) if inside else pad_value
            total += value * int(w[p, q, r, o])
        out[b, i, j, o] = total
    return out.astype(np.int64)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, ...]:
    small = st.integers(1, 3)
    kernel, stride, dilation = (draw(st.tuples(small, small)) for _ in range(3))
    groups, icg, ocg = draw(small), draw(small), draw(small)
    padded = st.tuples(st.integers(0, 2), st.integers(0, 2))
    pads = draw(st.tuples(padded, padded))
    size = [
        draw(st.integers(max(1, (k - 1) * d + 1 - sum(p)), (k - 1) * d + 4))
        for k, d, p in zip(kernel, dilation, pads, strict=True)
    ]
    x = draw(hnp.arrays(np.int8, (draw(st.integers(1, 2)), *size, groups * icg), elements=I8))
    w = draw(hnp.arrays(np.int8, (*kernel, icg, groups * ocg), elements=I8))
    return x, w, stride, pads, dilation, groups, draw(st.integers(-128, 127))


@given(convolutions())
def test_conv2d_is_its_definition(case: tuple[Any, ...]) -> None:
    x, w, stride, pads, dilation, groups, pad_value = case
    found = ref.conv2d(x, w, None, stride, pads, dilation, groups, pad_value)
    assert found.dtype == np.int64
    assert np.array_equal(found, _naive_conv(x, w, stride, pads, dilation, groups, pad_value))


@given(convolutions())
def test_depthwise_is_a_grouped_convolution(case: tuple[Any, ...]) -> None:
    x, w, stride, pads, dilation, _, pad_value = case
    x, groups = x[..., :1].repeat(w.shape[3], axis=3), w.shape[3]
    x = (x + np.arange(groups)).astype(np.int8)
    flat = w[:, :, 0]
    found = ref.depthwise_conv2d(x, flat, None, stride, pads, dilation, pad_value)
    assert np.array_equal(
        found, ref.conv2d(x, w[:, :, :1], None, stride, pads, dilation, groups, pad_value)
    )


def test_depthwise_repeats_channels_for_a_multiplier() -> None:
    x = np.array([[[[2, 3]]]], np.int8)
    assert ref.depthwise_conv2d(x, np.array([[[1, 10, 100, 1000]]])).tolist() == [
        [[[2, 20, 300, 3000]]]
    ]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        (32, 3, 1, 1, (1, 1)),
        (32, 3, 2, 1, (0, 1)),
        (49, 10, 2, 1, (4, 5)),
        (5, 3, 1, 2, (2, 2)),
        (8, 1, 2, 1, (0, 0)),
    ],
)
def test_same_padding_puts_the_odd_one_after(
    size: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    assert ref.window_pads("same", size, kernel, stride, dilation) == (expected, expected)
    assert ref.window_pads("valid", size, kernel, stride, dilation) == ((0, 0), (0, 0))


def test_padding_takes_numbers_pairs_and_pairs_of_pairs() -> None:
    assert ref.window_pads(2, 8, 3) == ((2, 2), (2, 2))
    assert ref.window_pads((1, 2), 8, 3) == ((1, 1), (2, 2))
    assert ref.window_pads(((1, 2), (3, 4)), 8, 3) == ((1, 2), (3, 4))
    with pytest.raises(ValueError, match="padding='full'"):
        ref.window_pads("full", 8, 3)


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = np.zeros((1, 4, 4, 4), np.int8)
    with pytest.raises(ValueError, match="groups=3"):
        ref.conv2d(x, np.zeros((1, 1, 1, 6)), groups=3)
    with pytest.raises(ValueError, match=r"kernel=\(5, 5\)"):
        ref.conv2d(x, np.zeros((5, 5, 4, 1)))
    with pytest.raises(ValueError, match="no whole number"):
        ref.depthwise_conv2d(x, np.zeros((1, 1, 6)))


def test_pools_leave_the_border_out_unless_asked() -> None:
    x = np.array([[1, 2], [3, 6]], np.float32).reshape(1, 2, 2, 1)
    assert ref.max_pool2d(-x, 2, 1, 1).ravel().tolist() == [-1, -1, -2, -1, -1, -2, -3, -3, -6]
    assert ref.avg_pool2d(x, 2, 2, 1).ravel().tolist() == [1, 2, 3, 6]
    assert ref.avg_pool2d(x, 2, 2, 1, count_include_pad=True).ravel().tolist() == [
        0.25,
        0.5,
        0.75,
        1.5,
    ]
    assert ref.global_avg_pool2d(x).tolist() == [[3.0]]


def test_integer_sums_do_not_wrap() -> None:
    a, b = np.full((1, 70000), -128, np.int8), np.full((70000, 1), -128, np.int8)
    assert ref.dense(a, b).tolist() == [[70000 * 128 * 128]]
    assert ref.matmul(a[None], b.T[None], transpose_b=True).tolist() == [[[70000 * 128 * 128]]]
    assert ref.matmul(a.T, b, transpose_a=True).shape == (1, 1)
    assert ref.add(a, a).min() == -256
    assert ref.mul(a, a).max() == 128 * 128


ELEMENTWISE: dict[str, tuple[Callable[..., Any], Callable[[float], float]]] = {
    "relu": (ref.relu, lambda v: v if v > 0 else 0.0),
    "relu6": (ref.relu6, lambda v: min(max(v, 0.0), 6.0)),
    "clip": (lambda x: ref.clip(x, -1, 2), lambda v: min(max(v, -1.0), 2.0)),
    "leaky_relu": (lambda x: ref.leaky_relu(x, 0.2), lambda v: v if v >= 0 else 0.2 * v),
    "hardswish": (ref.hardswish, lambda v: v * min(max(v + 3, 0.0), 6.0) / 6),
    "sigmoid": (ref.sigmoid, lambda v: 0.5 * (1 + math.tanh(v / 2))),
    "tanh": (ref.tanh, math.tanh),
    "gelu": (ref.gelu, lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2))),
    "gelu_tanh": (
        lambda x: ref.gelu(x, approximate=True),
        lambda v: 0.5 * v * (1 + math.tanh(0.7978845608028654 * (v + 0.044715 * v**3))),
    ),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@given(x=st.floats(-50, 50))
def test_elementwise_functions_are_their_definitions(name: str, x: float) -> None:
    found, expected = ELEMENTWISE[name]
    assert math.isclose(float(found(np.array([x]))[0]), expected(x), rel_tol=1e-12, abs_tol=1e-14)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_keep_nan(name: str) -> None:
    assert np.isnan(ELEMENTWISE[name][0](np.array([np.nan])))[0]


def test_row_functions_on_a_row_known_by_hand() -> None:
    row = np.array([[0.0, math.log(3.0)]])
    assert np.allclose(ref.softmax(row), [[0.25, 0.75]], rtol=1e-15)
    assert np.allclose(ref.softmax(row + 1000, beta=2.0), [[0.1, 0.9]], rtol=1e-12)
    normal = ref.layer_norm(np.array([[1.0, 3.0]]), np.array([2.0, 4.0]), np.array([1.0, -1.0]), 0)
    assert normal.tolist() == [[-1.0, 3.0]]


ACCUMULATORS = st.integers(-(2**31), 2**31 - 1)


@given(ACCUMULATORS, st.floats(2.0**-24, 1.0, width=32), st.integers(-128, 127))
def test_float_rounding_is_its_definition_in_exact_arithmetic(
    acc: int, multiplier: float, zero_point: int
) -> None:
    single = float(np.float32(acc))
    product = np.float32(single * multiplier)  # exact in 64 bits, then one rounding
    expected = min(max(round(Fraction(float(product))) + zero_point, -128), 127)
    assert int(ref.requantize_float([acc], np.float32(multiplier), zero_point)[0]) == expected


@given(ACCUMULATORS, st.integers(2**30, 2**31 - 1), st.integers(-31, 0), st.integers(-128, 127))
def test_fixed_rounding_is_its_definition_in_exact_integers(
    acc: int, multiplier: int, shift: int, zero_point: int
) -> None:
    high = Fraction(acc * multiplier, 2**31)
    first = math.floor(high + Fraction(1, 2))  # SQRDMULH: ties up
    second = Fraction(first, 2**-shift)
    away = math.floor(abs(second) + Fraction(1, 2)) * (1 if second >= 0 else -1)
    expected = min(max(away + zero_point, -128), 127)
    assert int(ref.requantize_fixed([acc], multiplier, shift, zero_point)[0]) == expected


@given(st.floats(2.0**-31, 2.0**20))
def test_the_quantized_multiplier_is_the_nearest_31_bit_fraction(real: float) -> None:
    q, shift = (int(v) for v in ref.quantize_multiplier(real))
    assert 2**30 <= q < 2**31
    assert abs(Fraction(q) * Fraction(2) ** (shift - 31) - Fraction(real)) <= (
        Fraction(2) ** (shift - 32)
    )


def test_the_three_rules_differ_where_they_should() -> None:
    ties = np.array([-3, -1, 1, 3, 5])
    assert ref.requantize_float(ties, np.float32(0.5)).tolist() == [-2, 0, 0, 2, 2]
    assert ref.requantize_onnx(ties, 1.0, 0.5, 1.0).tolist() == [-2, 0, 0, 2, 2]
    assert ref.requantize_fixed(ties, *ref.quantize_multiplier(0.25 + 0.25)).tolist() == [
        -1,
        0,
        1,
        2,
        3,
    ]
    assert ref.requantize_double(ties, 1.0, 0.5, 1.0).tolist() == [-2, -1, 1, 2, 3]
    # The division of the ONNX rule comes last and is rounded once more: next to ties they part.
    acc = np.arange(-(2**15), 2**15)
    sx, sw, sy = 0.1, 0.013, 0.0371
    one = ref.requantize_float(acc, ref.float_multiplier(sx, sw, sy))
    assert np.abs(one - ref.requantize_onnx(acc, sx, sw, sy)).max() <= 1
    exact = np.float32(np.float32(acc) * (np.float32(sx) * np.float32(sw))) / np.float32(sy)
    assert np.array_equal(ref.requantize_onnx(acc, sx, sw, sy), np.clip(np.rint(exact), -128, 127))


@given(st.floats(-1e6, 1e6), st.floats(2.0**-10, 8, width=32), st.integers(-128, 127))
def test_quantize_and_dequantize_invert_each_other(x: float, scale: float, zero: int) -> None:
    q = ref.quantize([x], scale, zero)
    assert np.array_equal(ref.quantize(ref.dequantize(q, scale, zero), scale, zero), q)


def test_the_bounds_of_fused_activations() -> None:
    assert ref.activation_bounds("none", 0.1, 5) == (-128, 127)
    assert ref.activation_bounds("relu", 0.1, 5) == (5, 127)
    assert ref.activation_bounds("relu6", 0.1, 5) == (5, 65)
    assert ref.activation_bounds("relu_n1_to_1", 0.1, 5) == (-5, 15)
    # 6 / 2.4 = 2.5 lies between two values: the rules part.
    assert ref.activation_bounds("relu6", 2.4, -89) == (-89, -86)
    assert ref.activation_bounds("relu6", 2.4, -64) == (-64, -62)
    assert ref.activation_bounds("relu6", 2.4, -64, rounding="tflite") == (-64, -61)
    with pytest.raises(ValueError, match="activation='swish'"):
        ref.activation_bounds("swish", 1.0, 0)


def _quant(value: Any) -> tuple[float, int]:
    return float(value[0]), int(value[1])


def _answer(name: str, kernels: str) -> Any:
    """What the reference says to the recorded case `name` of LiteRT."""
    op = name.rsplit("_", 1)[0]
    rounding = ROUNDINGS[kernels]
    case = {key.split(".")[1]: value for key, value in OPS.items() if key.startswith(f"{name}.")}
    x, quants = case["x0"], [_quant(case[key]) for key in ("qx", "qb", "qy") if key in case]
    if op in ("conv", "dense"):
        acc, zy = case["acc"], int(case["zy"])
        sx, sw, sy = float(case["sx"]), case["sw"], float(case["sy"])
        activation = "relu6" if case["relu6"] else "none"
        bounds = ref.activation_bounds(activation, sy, zy, rounding=rounding)
        if kernels == "auto":
            return ref.requantize_float(acc, ref.float_multiplier(sx, sw, sy), zy, *bounds)
        if op == "dense":
            return ref.requantize_double(acc, sx, sw, sy, zy, *bounds)
        return ref.requantize_fixed(acc, *ref.fixed_multiplier(sx, sw, sy), zy, *bounds)
    if op == "softmax":
        return ref.quantized_softmax(x, quants[0][0])
    if op == "avg_pool":
        return ref.quantized_avg_pool2d(x, (3, 2), (2, 1), "same")
    if op == "relu6":
        bounds = ref.activation_bounds("relu6", *quants[1], rounding="tflite")
        return ref.rescale(x, *quants, *bounds, rounding="tflite")
    if op == "sub":  # as the op: it also says which rule far scales take
        given = {
            k: SimpleNamespace(scale=q[0], zero_point=q[1])
            for k, q in zip(ABY, quants, strict=True)
        }
        activation = "relu" if case["relu"] else None
        return ref.call("sub", x, case["x1"], **given, activation=activation, rounding=rounding)
    evaluate: dict[str, Callable[[], Any]] = {
        "quantize": lambda: ref.quantize(x, *quants[0], rounding=rounding),
        "add": lambda: ref.quantized_add(x, case["x1"], *quants, rounding=rounding),
        "mul": lambda: ref.quantized_mul(x, case["x1"], *quants, rounding=rounding),
        "mean": lambda: ref.quantized_global_avg_pool2d(x, *quants, rounding=rounding),
        "rescale": lambda: ref.rescale(x, *quants, rounding=rounding),
        "leaky_relu": lambda: ref.quantized_leaky_relu(x, *quants, 0.375, rounding=rounding),
        "sigmoid": lambda: ref.quantized_sigmoid(x, *quants),
        "tanh": lambda: ref.quantized_tanh(x, *quants),
        "hardswish": lambda: ref.quantized_hardswish(x, *quants),
        "gelu": lambda: ref.quantized_gelu(x, *quants),
        "gelu_tanh": lambda: ref.quantized_gelu(x, *quants, approximate=True),
    }
    return evaluate[op]()


@pytest.mark.parametrize("kernels", ROUNDINGS)
@pytest.mark.parametrize("name", sorted({key.split(".")[0] for key in OPS}))
def test_each_int8_operator_is_bit_exact_with_litert(name: str, kernels: str) -> None:
    expected = OPS[f"{name}.{kernels}"]
    found = np.asarray(_answer(name, kernels)).reshape(expected.shape)
    assert np.array_equal(found, expected), np.argwhere(found != expected)[:5]
