"""How an op is called: layouts, `out`, `bind`, packed and plain weights, symbolic tensors, errors.

What each layer computes is tested elsewhere; here every way to call one gives the same bits, and
every wrong call a typed error.
"""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings

import simdflow as sf
from simdflow import ops
from simdflow.ops import reference
from simdflow.testing import layouts

RNG = np.random.default_rng(5)
X = RNG.integers(-128, 128, (2, 7, 6, 5), np.int8)
W = RNG.integers(-128, 128, (3, 3, 5, 9), np.int8)
BIAS = RNG.integers(-1000, 1000, 9).astype(np.int32)
Q = {
    "x_q": ops.Quantization(0.02, 3),
    "w_q": ops.Quantization(RNG.uniform(0.001, 0.01, 9)),
    "y_q": ops.Quantization(0.2, -4),
}
EXPECTED = ops.conv2d(X, W, BIAS, padding=1, **Q)
LAYERS = [name for name in ops.__all__ if isinstance(getattr(ops, name), ops.Op)]


@given(layout=layouts(), other=layouts())
@settings(max_examples=30)
def test_operands_of_any_strides(layout: Any, other: Any) -> None:
    found = ops.conv2d(layout(X), other(W), BIAS, padding=1, **Q)
    np.testing.assert_array_equal(found, EXPECTED)
    total = ops.add(layout(X), other(X))
    np.testing.assert_array_equal(total, reference.add(X, X))
    flat = ops.dense(layout(X), other(W[0, 0]))
    np.testing.assert_array_equal(flat, reference.dense(X, W[0, 0]))


@given(layout=layouts())
@settings(max_examples=20)
def test_out_of_any_strides_is_filled_and_returned(layout: Any) -> None:
    for op, operands in ((ops.conv2d, (X, W)), (ops.softmax, (X.astype(np.float32),))):
        plain = op(*operands)
        out = layout(np.zeros_like(plain))
        if not out.flags.writeable:
            continue
        assert op(*operands, out=out) is out
        np.testing.assert_array_equal(out, plain)


def test_inputs_stay_as_they_were() -> None:
    x, w = X.copy(), W.copy()
    ops.conv2d(x, w, BIAS, padding=1, **Q)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(w, W)


def test_packed_plain_and_keyword_weights_give_the_same() -> None:
    packed = sf.pack(W)
    for _ in range(2):
        for call in (
            lambda: ops.conv2d(X, packed, BIAS, padding=1, **Q),
            lambda: ops.conv2d(X, w=packed, bias=sf.pack(BIAS), padding=1, **Q),
            lambda: ops.conv2d(x=X, w=W, bias=BIAS, padding=1, **Q),
        ):
            np.testing.assert_array_equal(call(), EXPECTED)


def test_a_plain_weight_or_bias_may_change_between_calls() -> None:
    w, bias, packed = W.copy(), BIAS.copy(), sf.pack(W)
    ops.conv2d(X, w, bias)
    w[0] = 1
    np.testing.assert_array_equal(ops.conv2d(X, w, bias), reference.conv2d(X, w, bias))
    ops.conv2d(X, packed, bias)
    bias[3] += 17
    np.testing.assert_array_equal(ops.conv2d(X, packed, bias), reference.conv2d(X, W, bias))


def test_a_packed_weight_does_not_follow_its_array() -> None:
    w = W.copy()
    packed = sf.pack(w)
    w[:] = 0
    np.testing.assert_array_equal(ops.conv2d(X, packed), reference.conv2d(X, W))


def test_a_bound_call_reads_its_arrays_each_time() -> None:
    x, out = X.copy(), np.empty_like(EXPECTED)
    call = ops.conv2d.bind(x, W, BIAS, padding=1, out=out, **Q)
    call()
    np.testing.assert_array_equal(out, EXPECTED)
    x[:] = X[::-1]
    call()
    np.testing.assert_array_equal(out, EXPECTED[::-1])


def test_a_bordered_input_needs_no_padding() -> None:
    border = ((0, 0), (1, 1), (1, 1), (0, 0))
    whole, inside = ops.bordered(X.shape, sf.i8, border, Q["x_q"].zero_point)
    inside[...] = X
    out = np.empty_like(EXPECTED)
    ops.conv2d.bind(whole, W, BIAS, out=out, **Q)()
    np.testing.assert_array_equal(out, EXPECTED)
    np.testing.assert_array_equal(ops.conv2d(whole, W, BIAS, **Q), EXPECTED)


def test_threads_share_a_prepared_call() -> None:
    packed = sf.pack(W)
    images = [RNG.integers(-128, 128, X.shape, np.int8) for _ in range(4)]
    wanted = [ops.conv2d(x, packed, BIAS, padding=1, **Q) for x in images]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(200):
            if not np.array_equal(ops.conv2d(images[i], packed, BIAS, padding=1, **Q), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_prepared_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops.op, "KEPT", 4)
    for n in range(1, 8):
        np.testing.assert_array_equal(ops.relu(X.reshape(-1)[:n]), np.maximum(X.reshape(-1)[:n], 0))
        assert len(ops.relu._ready) <= 4


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_a_reference_and_a_text(name: str) -> None:
    op = getattr(ops, name)
    assert op.reference is getattr(reference, name)
    assert op.__doc__


def test_the_shape_rule_takes_types() -> None:
    y = ops.conv2d.shape(sf.u8[1, 56, 56, 64], sf.i8[3, 3, 64, 128], stride=2, padding="same")
    assert (y.scalar, y.shape) == (sf.i32, (1, 28, 28, 128))
    y = ops.conv2d.shape(X, sf.pack(W), BIAS, padding=1, **Q)
    assert (y.scalar, y.shape) == (sf.i8, EXPECTED.shape)
    y = ops.max_pool2d.shape(sf.f32[2, 9, 9, 3], kernel=3, stride=2)
    assert (y.scalar, y.shape) == (sf.f32, (2, 4, 4, 3))
    y = ops.matmul.shape(sf.f32[2, 9, 4], sf.f32[2, 7, 4], transpose_b=True)
    assert (y.scalar, y.shape) == (sf.f32, (2, 9, 7))


def test_the_dataflow_is_the_callers_to_choose() -> None:
    for flow in (sf.Dataflow(anchor="w"), sf.Dataflow(tile={"ow": 3}, lanes="oc", group="ic")):
        found = ops.conv2d(X, sf.pack(W), BIAS, padding=1, dataflow=flow, **Q)
        np.testing.assert_array_equal(found, EXPECTED)
    with pytest.raises(sf.DataflowError, match="anchor"):
        ops.conv2d(X, W, dataflow=sf.Dataflow(anchor="v"))


def test_scalars_are_arrays_and_lists_are_options() -> None:
    assert ops.relu(np.float32(-2.0)).tolist() == 0.0
    assert ops.add(np.ones(3, np.float32), np.float32(2)).tolist() == [3.0, 3.0, 3.0]
    bordered = ops.pad(np.array([[1, 2]], np.int32), pads=[(0, 0), (1, 0)])
    assert bordered.tolist() == [[0, 1, 2]]


def test_ops_and_quantizations_survive_pickling() -> None:
    op, quantization = pickle.loads(pickle.dumps((ops.conv2d, Q["w_q"])))
    assert op is ops.conv2d
    assert quantization == Q["w_q"]
    assert hash(quantization) == hash(Q["w_q"])
    assert quantization != ops.Quantization(0.5)


class Symbol:
    """A tensor that records what it is given to."""

    def __simdflow_op__(self, op: ops.Op, arguments: tuple[Any, ...], options: Any) -> Any:
        return op, arguments, dict(options)


def test_a_symbolic_tensor_gets_the_call() -> None:
    symbol = Symbol()
    for operands in ((symbol, W), (X, symbol)):
        op, arguments, options = ops.conv2d(*operands, BIAS, stride=2, out=None)
        assert op is ops.conv2d
        assert arguments == (*operands, BIAS)
        assert options == {"stride": 2}
    assert ops.softmax(symbol) == (ops.softmax, (symbol,), {})


F = np.zeros((1, 4, 4, 3), np.float32)
FW = np.zeros((3, 3, 3, 2), np.float32)
REFUSED: list[tuple[str, Any]] = [
    (
        "conv2d: x.shape=[4, 4] has 2 axes; [n, h, w, c] has 4. Reshape it.",
        lambda: ops.conv2d(np.zeros((4, 4), np.float32), FW),
    ),
    (
        "conv2d: x=f64 is not a type of this operand; f32, u8, i8 are allowed. Convert it.",
        lambda: ops.conv2d(F.astype(np.float64), FW),
    ),
    (
        "conv2d: w=i8 is not a type of this operand; f32 are allowed. Convert it.",
        lambda: ops.conv2d(F, FW.astype(np.int8)),
    ),
    (
        "conv2d: x has 3 channels, w reads 3 in each of 2 groups; w.shape[2] = 3 / groups is "
        "needed. Correct w [kh, kw, c/groups, oc] or groups.",
        lambda: ops.conv2d(F, FW, groups=2),
    ),
    (
        "conv2d: groups=3 does not divide the 2 output channels of w; a divisor of them is "
        "allowed. Correct groups or w.",
        lambda: ops.conv2d(F, FW, groups=3),
    ),
    (
        "conv2d: bias.shape=[3] is not [2], one for each output channel. Reshape it.",
        lambda: ops.conv2d(F, FW, np.zeros(3, np.float32)),
    ),
    (
        "conv2d: stride=0 is not one or two integers of 1 or more, which it must be. Give "
        "(vertical, horizontal), or one number for both.",
        lambda: ops.conv2d(F, FW, stride=0),
    ),
    (
        "conv2d: height=4 with padding 0 + 0 is smaller than the window's 5; at least 5 elements "
        "are needed. Pad more, or use a smaller window.",
        lambda: ops.conv2d(F, FW, dilation=2),
    ),
    (
        "conv2d: activation='swish' is not known; None, 'relu', 'relu6', 'relu_n1_to_1' are. Use "
        "one, or apply another op to the result.",
        lambda: ops.conv2d(F, FW, activation="swish"),
    ),
    (
        "conv2d: rounding='up' is not known; 'float', 'tflite', 'onnx' are. Use one of them.",
        lambda: ops.conv2d(F, FW, rounding="up"),
    ),
    (
        "conv2d: w_q.zero_point=1 is not 0; weights are symmetric. Quantize them without a zero "
        "point.",
        lambda: ops.conv2d(X, W, **(Q | {"w_q": ops.Quantization(1.0, 1)})),
    ),
    (
        "conv2d: w_q.scale has 4 values; 1 or 9, one for each output channel, are allowed. Correct "
        "it.",
        lambda: ops.conv2d(X, W, **(Q | {"w_q": ops.Quantization([1.0] * 4)})),
    ),
    (
        "conv2d: x_q.zero_point=200 is not a value of i8; -128 to 127 is allowed. Give the zero "
        "point of the stored type.",
        lambda: ops.conv2d(X, W, **(Q | {"x_q": ops.Quantization(1.0, 200)})),
    ),
    (
        "conv2d: out is int8[1]; int8[2, 7, 6, 9] is needed. Pass such an array, or none.",
        lambda: ops.conv2d(X, W, padding=1, out=np.zeros(1, np.int8), **Q),
    ),
    (
        "add: out overlaps a; an output must be memory of its own. Pass another array.",
        lambda: ops.add(F, F, out=F),
    ),
    (
        "matmul: a sums over 4 elements, b over 5; a [3, 4] and b [5, 6] need one length "
        "(transpose_a=False, transpose_b=False). Transpose one of them.",
        lambda: ops.matmul(np.zeros((3, 4), np.float32), np.zeros((5, 6), np.float32)),
    ),
    (
        "add: a [2] and b [3] do not broadcast; sizes that are equal or 1, counted from the last "
        "axis, do. Reshape one.",
        lambda: ops.add(np.zeros(2, np.float32), np.zeros(3, np.float32)),
    ),
    (
        "max_pool2d: padding=((2, 2), (2, 2)) is not smaller than kernel=(2, 2), so a window would "
        "hold nothing but border; less padding is allowed. Reduce it.",
        lambda: ops.max_pool2d(F, kernel=2, padding=2),
    ),
    (
        "relu: x.shape=[0, 3] has no elements; sizes of 1 or more are allowed. Skip the call for "
        "an empty batch.",
        lambda: ops.relu(np.zeros((0, 3), np.float32)),
    ),
    (
        "sigmoid: x=i8 is not a type of this operand; f32 are allowed. Convert it.",
        lambda: ops.sigmoid(X),
    ),
    (
        "matmul: b=f32[2, 2] packed is packed; this operand is a dense array. Pass the array.",
        lambda: ops.matmul(np.eye(2, dtype=np.float32), sf.pack(np.eye(2, dtype=np.float32))),
    ),
    (
        "dense: w=f32[3, 3] csr is compressed; this operand is a dense array, packed or not. Pass "
        "the array.",
        lambda: ops.dense(F, sf.pack(scipy.sparse.csr_array(np.eye(3, dtype=np.float32)))),
    ),
    (
        "Quantization: scale=-1.0 is not positive and finite numbers; one, or one for each output "
        "channel, is allowed. Give such a scale.",
        lambda: ops.Quantization(-1.0),
    ),
    (
        "clip: low=2 is not at most high=1, which it must be. Swap them.",
        lambda: ops.clip(F, low=2, high=1),
    ),
    (
        "pad: value=300 is not a value of i8; -128 to 127 is allowed. Give such a value.",
        lambda: ops.pad(X, pads=((0, 0),) * 4, value=300),
    ),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[m[:40] for m, _ in REFUSED])
def test_what_is_refused_says_why(message: str, call: Any) -> None:
    with pytest.raises(sf.OperandError) as refused:
        call()
    assert str(refused.value) == message


def test_an_unknown_option_shows_the_signature() -> None:
    with pytest.raises(sf.OperandError, match=r"conv2d: got an unexpected keyword argument 'pad'"):
        ops.conv2d(F, FW, pad=1)


def test_an_overlapping_result_is_refused_by_every_path() -> None:
    memory = np.zeros((2, 4, 4, 3), np.float32)
    with pytest.raises(sf.OperandError, match="overlaps"):
        ops.relu(memory[0], out=memory[0])
    with pytest.raises(sf.OperandError, match="overlaps"):
        ops.softmax(memory[0], out=memory[0])
    with pytest.raises(sf.OperandError, match="overlaps"):
        ops.max_pool2d.bind(memory[:1], kernel=3, stride=1, padding=1, out=memory[:1])
