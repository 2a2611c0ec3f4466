"""Quantized ONNX models: QDQ, QLinear operators, and the operators of onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx_models import model, node, proto

from simdflow.frontends.onnx import from_onnx
from simdflow.graph.evaluate import evaluate


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class TestQuantized:
    def layer(self, **constants: np.ndarray) -> Any:
        nodes = [
            node("QuantizeLinear", ["x", "xs", "xz"], "q"),
            node("DequantizeLinear", ["q", "xs", "xz"], "d"),
            node("DequantizeLinear", ["w", "ws", "wz"], "u", axis=0),
            node("DequantizeLinear", ["b", "bs"], "c", axis=0),
            node("Conv", ["d", "u", "c"], "a", pads=[1, 1, 1, 1]),
            node("QuantizeLinear", ["a", "ys", "yz"], "y"),
        ]  # fmt: skip
        r = np.random.default_rng(1)
        scale = np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32)
        given = {
            "xs": np.array(0.1, np.float32), "xz": np.array(3, np.uint8),
            "ys": np.array(0.2, np.float32), "yz": np.array(7, np.uint8),
            "w": r.integers(-127, 128, (5, 2, 3, 3)).astype(np.int8), "ws": scale,
            "wz": np.zeros(5, np.int8), "b": np.arange(5, dtype=np.int32), "bs": scale * 0.1,
        }  # fmt: skip
        return proto(nodes, {"x": ("f32", (1, 2, 6, 6))}, ["y"], given | constants, 21)

    def test_weights_stay_integers_in_the_order_of_the_layer(self) -> None:
        graph = from_onnx(self.layer().SerializeToString())
        ops = [n.op for n in graph.nodes]
        assert ops.count("dequantize") == 3 and ops.count("conv2d") == 1
        conv = next(n for n in graph.nodes if n.op == "conv2d")
        made = graph.producers[str(conv.inputs[1])]
        assert made.op == "dequantize"
        weights = graph.constants[str(made.inputs[0])]
        assert (weights.dtype, weights.shape) == (np.dtype(np.int8), (3, 3, 2, 5))
        assert made.options["x_q"].scales.shape == (5,)

    def test_it_computes_what_the_model_says(self) -> None:
        made = self.layer()
        x = numbers((1, 2, 6, 6)) * 5
        found = evaluate(from_onnx(made.SerializeToString()), {"x": x})["y"]
        wanted = ReferenceEvaluator(made).run(None, {"x": x})[0]
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
        assert (found == wanted).mean() > 0.99

    def test_zero_points_of_channels(self) -> None:
        made = self.layer(wz=np.array([1, -2, 3, 0, 5], np.int8))
        x = numbers((1, 2, 6, 6)) * 5
        found = evaluate(from_onnx(made.SerializeToString()), {"x": x})["y"]
        wanted = ReferenceEvaluator(made).run(None, {"x": x})[0]
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1

    @given(
        st.sampled_from([np.uint8, np.int8]),
        st.sampled_from(["symmetric", "shifted", "wide", "channels"]),
        st.booleans(),
        st.integers(0, 99),
    )
    def test_qlinear_conv(self, kind: Any, form: str, bias: bool, seed: int) -> None:
        """rint(sum * f32(f32(xs * ws) / ys)) + yz on exact sums, for every form of the weights."""
        r = np.random.default_rng(seed)
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        x = r.integers(low, high + 1, (1, 3, 5, 5)).astype(kind)
        unsigned = form in ("shifted", "wide")
        w = r.integers(*((0, 256) if unsigned else (-127, 128)), (4, 3, 3, 3))
        zero = {"shifted": 128, "wide": 7}.get(form, 0)
        ws = r.uniform(0.01, 0.02, 4 if form == "channels" else 1).astype(np.float32)
        xs, ys = np.float32(0.05), np.float32(0.4)
        xz, yz = int(r.integers(low, high + 1)), int(r.integers(low, high + 1))
        constants = {
            "xs": np.array(xs), "xz": np.array(xz, kind), "ys": np.array(ys),
            "yz": np.array(yz, kind), "w": w.astype(np.uint8 if unsigned else np.int8), "ws": ws,
            "wz": np.full(ws.shape, zero, np.uint8 if unsigned else np.int8),
            "b": r.integers(-999, 999, 4).astype(np.int32),
        }  # fmt: skip
        inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", *(["b"] if bias else [])]
        code = "u8" if kind is np.uint8 else "i8"
        content = model(
            [node("QLinearConv", inputs, "y", pads=[1, 0, 1, 0], strides=[2, 1])],
            {"x": (code, x.shape)}, ["y"], constants,
        )  # fmt: skip
        graph = from_onnx(content)
        wide = np.pad(x.astype(np.int64) - xz, ((0, 0), (0, 0), (1, 1), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))[:, :, ::2]
        sums = np.einsum("nchwij,ocij->nohw", views, w.astype(np.int64) - zero)
        if bias:
            sums = sums + constants["b"][:, None, None]
        factor = (xs * ws / ys).astype(np.float64).reshape(-1, 1, 1)
        wanted = np.clip(np.rint(sums * factor) + yz, low, high)
        found = evaluate(graph, {"x": x})["y"]
        assert found.dtype == np.dtype(kind)
        assert np.abs(found - wanted).max() <= 1
        assert (found == wanted).mean() > 0.97
        assert ("dequantize" in [n.op for n in graph.nodes]) == (form == "wide")

    def test_onnxruntime_operators(self) -> None:
        """QLinearAdd of com.microsoft is the sum between dequantize and quantize."""
        numbers_ = {"s": np.array(0.5, np.float32), "z": np.array(2, np.int8)}
        inputs = ["x", "s", "z", "x", "s", "z", "s", "z"]
        nodes = [node("QLinearAdd", inputs, "y", domain="com.microsoft")]
        graph = from_onnx(model(nodes, {"x": ("i8", (1, 4))}, ["y"], numbers_))
        x = np.array([[-128, 0, 50, 127]], np.int8)
        assert evaluate(graph, {"x": x})["y"].tolist() == [[-128, -2, 98, 127]]


@pytest.mark.parametrize("kind", ["QGemm", "QLinearAveragePool"])
def test_layers_of_onnxruntime(kind: str) -> None:
    """The result on real numbers, requantized: within one of the exact value."""
    r = np.random.default_rng(3)
    x = r.integers(0, 256, (2, 6) if kind == "QGemm" else (1, 3, 6, 6)).astype(np.uint8)
    xs, ys = np.float32(0.1), np.float32(0.25)
    constants = {
        "xs": np.array(xs), "xz": np.array(120, np.uint8),
        "ys": np.array(ys), "yz": np.array(100, np.uint8),
        "w": r.integers(-9, 10, (4, 6)).astype(np.int8), "ws": np.float32([0.1, 0.2, 0.3, 0.1]),
        "wz": np.zeros(4, np.int8), "b": r.integers(-99, 99, 4).astype(np.int32),
    }  # fmt: skip
    real = (x.astype(np.float64) - 120) * xs
    inputs, attributes = ["x", "xs", "xz"], {}
    if kind == "QGemm":
        inputs += ["w", "ws", "wz", "b"]
        attributes = {"transB": 1, "alpha": 0.5}
        weights = constants["w"] * constants["ws"][:, None]
        wanted = 0.5 * (real @ weights.T + constants["b"] * (xs * constants["ws"]))
    else:
        attributes = {"kernel_shape": [2, 3], "strides": [2, 3]}
        wanted = real.reshape(1, 3, 3, 2, 2, 3).mean((3, 5))
    made = node(kind, [*inputs, "ys", "yz"], "y", domain="com.microsoft", **attributes)
    found = evaluate(from_onnx(model([made], {"x": ("u8", x.shape)}, ["y"], constants)), {"x": x})
    exact = np.clip(wanted / ys + 100, 0, 255)
    assert found["y"].dtype == np.uint8
    assert np.abs(found["y"] - exact).max() <= 0.51


def test_dynamic_quantization_as_onnxruntime_makes_it() -> None:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: the product of the quantized values."""
    w = np.random.default_rng(5).integers(-127, 128, (8, 3)).astype(np.int8)
    nodes = [
        node("DynamicQuantizeLinear", ["x"], "q", "s", "z"),
        node("MatMulInteger", ["q", "w", "z"], "i"),
        node("Cast", ["i"], "f", to=1),
        node("Mul", ["f", "s"], "y"),
    ]
    made = proto(nodes, {"x": ("f32", (4, 8))}, ["y", "q", "z"], {"w": w})
    x = numbers((4, 8))
    found = evaluate(from_onnx(made.SerializeToString()), {"x": x})
    y, q, z = ReferenceEvaluator(made).run(None, {"x": x})
    np.testing.assert_array_equal(found["q"], q)
    assert found["z"] == z
    np.testing.assert_allclose(found["y"], y, 1e-6)
