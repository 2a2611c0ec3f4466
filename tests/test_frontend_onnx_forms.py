"""Every form of the ONNX operators with many attributes, against other implementations."""

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


def agrees(made: Any, feed: dict[str, np.ndarray], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """The imported graph gives what onnx's reference evaluator gives."""
    found = evaluate(from_onnx(made.SerializeToString()), feed)
    names = [o.name for o in made.graph.output]
    for name, wanted in zip(names, ReferenceEvaluator(made).run(None, feed), strict=True):
        assert found[name].shape == wanted.shape
        np.testing.assert_allclose(found[name], wanted, rtol, atol)


SIZES = st.integers(1, 3)


@given(st.data())
def test_convolutions_of_any_form(data: st.DataObject) -> None:
    """Conv with groups, strides, dilations, pads and auto_pad, one and two axes."""
    draw = data.draw
    axes, groups = draw(st.sampled_from([1, 2])), draw(SIZES)
    per, out = draw(SIZES), draw(SIZES) * groups
    kernel = [draw(SIZES) for _ in range(axes)]
    attributes: dict[str, Any] = {"group": groups, "strides": [draw(SIZES) for _ in range(axes)]}
    auto = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if auto == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
        attributes["dilations"] = [draw(SIZES) for _ in range(axes)]
    else:
        attributes["auto_pad"] = auto
    shape = (draw(SIZES), per * groups, *(draw(st.integers(7, 10)) for _ in range(axes)))
    constants = {"w": numbers((out, per, *kernel), 1)}
    inputs = ["x", "w"]
    if draw(st.booleans()):
        inputs.append("b")
        constants["b"] = numbers((out,), 2)
    made = proto([node("Conv", inputs, "y", **attributes)], {"x": ("f32", shape)}, ["y"], constants)
    agrees(made, {"x": numbers(shape)})


def pooled(x: np.ndarray, kind: str, a: dict[str, Any]) -> np.ndarray:
    """A pool element by element, after the specification's words."""
    kernel, stride, pads, dilation = (
        a[k] for k in ("kernel_shape", "strides", "pads", "dilations")
    )
    places = []
    for i, size in enumerate(x.shape[2:]):
        before, after = pads[i], pads[i + len(kernel)]
        span = size + before + after - ((kernel[i] - 1) * dilation[i] + 1)
        out = (-(-span // stride[i]) if a["ceil_mode"] else span // stride[i]) + 1
        starts = [o * stride[i] - before for o in range(out)]
        if a["ceil_mode"]:
            starts = [s for s in starts if s < size]
        places.append([[s + k * dilation[i] for k in range(kernel[i])] for s in starts])
    y = np.zeros((*x.shape[:2], *map(len, places)), np.float64)
    for at in np.ndindex(*y.shape[2:]):
        inside, counted = [], 0
        windows = [places[i][o] for i, o in enumerate(at)]
        for point in np.stack(np.meshgrid(*windows, indexing="ij"), -1).reshape(-1, len(at)):
            if all(0 <= p < n for p, n in zip(point, x.shape[2:], strict=True)):
                inside.append(x[(..., *point)].astype(np.float64))
            counted += all(
                -pads[i] <= p < x.shape[2 + i] + pads[i + len(at)] for i, p in enumerate(point)
            )
        if kind == "MaxPool":
            y[(..., *at)] = np.max(inside, 0)
        else:
            y[(..., *at)] = np.sum(inside, 0) / (counted if a["count_include_pad"] else len(inside))
    return y


@given(st.data())
def test_pools_of_any_form(data: st.DataObject) -> None:
    draw = data.draw
    kind, axes = draw(st.sampled_from(["MaxPool", "AveragePool"])), draw(st.sampled_from([1, 2]))
    kernel = [draw(SIZES) for _ in range(axes)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "ceil_mode": int(draw(st.booleans()))}
    attributes["strides"] = [draw(SIZES) for _ in range(axes)]
    attributes["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    attributes["dilations"] = [draw(st.sampled_from([1, 1, 2])) for _ in range(axes)]
    if kind == "AveragePool":
        attributes["count_include_pad"] = int(draw(st.booleans()))
    shape = (draw(SIZES), draw(SIZES), *(draw(st.integers(5, 9)) for _ in range(axes)))
    content = model([node(kind, ["x"], "y", **attributes)], {"x": ("f32", shape)}, ["y"], opset=19)
    x = numbers(shape)
    wanted = pooled(x, kind, attributes)
    found = evaluate(from_onnx(content), {"x": x})["y"]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-6)


@given(st.data())
def test_gemm_of_any_form(data: st.DataObject) -> None:
    draw = data.draw
    m, k, n = (draw(st.integers(1, 5)) for _ in range(3))
    turned = draw(st.booleans()), draw(st.booleans())
    shapes = (k, m) if turned[0] else (m, k), (n, k) if turned[1] else (k, n)
    third = draw(st.sampled_from([None, (), (1,), (n,), (1, n), (m, 1), (m, n)]))
    attributes: dict[str, Any] = {
        "transA": int(turned[0]),
        "transB": int(turned[1]),
        "alpha": draw(st.sampled_from([1.0, 0.5])),
        "beta": draw(st.sampled_from([1.0, 2.0])),
    }
    arrays = {"a": numbers(shapes[0]), "b": numbers(shapes[1], 1)}
    names = ["a", "b"]
    if third is not None:
        arrays["c"] = numbers(third, 2)
        names.append("c")
    fixed = {name for name in names[1:] if draw(st.booleans())}
    made = proto(
        [node("Gemm", names, "y", **attributes)],
        {n: ("f32", arrays[n].shape) for n in names if n not in fixed},
        ["y"],
        {n: arrays[n] for n in fixed},
    )
    agrees(made, {n: a for n, a in arrays.items() if n not in fixed})


@given(st.data())
def test_matmul_of_any_form(data: st.DataObject) -> None:
    draw = data.draw
    stack = draw(st.lists(SIZES, max_size=2))
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))

    def side(rows: int, columns: int, vector: int) -> tuple[int, ...]:
        if draw(st.booleans()) and not stack:
            return (vector,)
        kept = [d if draw(st.booleans()) else 1 for d in stack]
        return (*kept[draw(st.integers(0, len(kept))) :], rows, columns)

    a, b = numbers(side(m, k, k)), numbers(side(k, n, k), 1)
    known = draw(st.booleans())
    made = proto(
        [node("MatMul", ["a", "b"], "y")],
        {"a": ("f32", a.shape)} | ({} if known else {"b": ("f32", b.shape)}),
        ["y"],
        {"b": b} if known else {},
    )
    agrees(made, {"a": a} if known else {"a": a, "b": b})


EARLIER = {
    "Clip": ({"min": -0.5, "max": 0.5}, 7),
    "Dropout": ({"ratio": 0.25}, 7),
    "Pad": ({"pads": [0, 1, 0, 2], "value": 3.0}, 7),
    "ReduceSum": ({"axes": [1], "keepdims": 0}, 11),
    "ReduceMax": ({"axes": [0]}, 11),
    "Slice": ({"starts": [1], "ends": [3], "axes": [1]}, 7),
    "Softmax": ({"axis": 1}, 11),
    "LogSoftmax": ({"axis": 0}, 11),
    "Split": ({"axis": 1, "split": [2, 4]}, 11),
    "Squeeze": ({"axes": [0]}, 11),
    "Unsqueeze": ({"axes": [0, 2]}, 11),
}


@pytest.mark.parametrize("kind", EARLIER)
def test_forms_of_earlier_opsets(kind: str) -> None:
    """What is an input today was an attribute; a softmax went over all axes from one on."""
    attributes, opset = EARLIER[kind]
    shape = (1, 6) if kind == "Squeeze" else (3, 6)
    outputs = ["y", "z"] if kind == "Split" else ["y"]
    made = proto(
        [node(kind, ["x"], *outputs, **attributes)], {"x": ("f32", shape)}, outputs, opset=opset
    )
    x = numbers(shape)
    found = evaluate(from_onnx(made.SerializeToString()), {"x": x})
    wanted = {
        "Clip": lambda: [np.clip(x, -0.5, 0.5)],
        "Dropout": lambda: [x],
        "Pad": lambda: [np.pad(x, ((0, 0), (1, 2)), constant_values=3)],
        "ReduceSum": lambda: [x.sum(1)],
        "ReduceMax": lambda: [x.max(0, keepdims=True)],
        "Slice": lambda: [x[:, 1:3]],
        "Softmax": lambda: [np.exp(x) / np.exp(x).sum(1, keepdims=True)],
        "LogSoftmax": lambda: [x - np.log(np.exp(x).sum())],
        "Split": lambda: [x[:, :2], x[:, 2:]],
        "Squeeze": lambda: [x[0]],
        "Unsqueeze": lambda: [x[None, :, None]],
    }[kind]()
    for name, array in zip(outputs, wanted, strict=True):
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, 1e-5, 1e-6)
