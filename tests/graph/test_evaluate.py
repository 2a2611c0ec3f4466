"""Evaluation of graphs in numpy: every node by its definition, inputs checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import simdflow as sf
from simdflow import f32, i8, i32, ops
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph
from simdflow.ops import Quantization

Q = Quantization(0.5, 1)


@sf.kernel
def doubled(x, out, *, by=2):
    """out[i] = x[i] * by."""
    for i in sf.grid(x.shape):
        out[i] = sf.i32(x[i]) * by


def two_outputs() -> Graph:
    b = Builder("two")
    x = b.input("x", i8[2, 3], Q)
    w = b.constant("w", np.arange(12, dtype=np.int8).reshape(3, 4))
    y = b.call(
        ops.dense, x, w, x_q=Q, w_q=Quantization(0.25), y_q=Quantization(0.5), activation="relu"
    )
    return b.graph(y, b.call(ops.dequantize, y, x_q=Quantization(0.5), name="real"))


def test_each_node_is_computed_by_its_definition() -> None:
    graph = two_outputs()
    x = np.array([[1, 2, 3], [-4, 5, -128]], np.int8)
    w = graph.constants["w"].astype(int)
    expected = np.clip(np.rint((x.astype(int) - 1) @ w * 0.25), 0, 127)
    found = evaluate(graph, {"x": x})
    assert list(found) == ["dense", "real"]
    assert found["dense"].dtype == np.int8
    np.testing.assert_array_equal(found["dense"], expected)
    np.testing.assert_array_equal(found["real"], expected * 0.5)
    assert set(evaluate(graph, {"x": x}, every=True)) == {"x", "w", "dense", "real"}


def test_floats_are_rounded_once_a_node() -> None:
    """1e8 + 1 - 1e8 in one f32 sum of products is 1: the sum is exact before it is rounded."""
    b = Builder("sum")
    w = b.constant("w", np.array([[1e8], [1], [-1e8]], np.float32))
    graph = b.graph(b.call(ops.dense, b.input("x", f32[1, 3]), w))
    assert evaluate(graph, {"x": np.ones((1, 3), np.float32)})["dense"] == 1


def test_a_kernel_runs_as_python() -> None:
    b = Builder("kernel")
    graph = b.graph(b.call(doubled, b.input("x", i8[3]), by=3))
    x = np.array([1, -128, 127], np.int8)
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["doubled"], x.astype(int) * 3)


def test_inputs_may_be_views_of_any_order() -> None:
    b = Builder("views")
    graph = b.graph(b.call(ops.neg, b.input("x", f32[2, 3])))
    x = np.arange(6, dtype=np.float32).reshape(3, 2).T
    np.testing.assert_array_equal(evaluate(graph, {"x": x})["neg"], -x)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "'x' is missing"),
        ({"x": np.zeros(3, np.int32), "y": 1}, "'y' is no input"),
        ({"x": np.zeros(3, np.int8)}, r"i8\[3\] is not i32"),
        ({"x": np.zeros((1, 3), np.int32)}, r"i32\[1, 3\] is not i32"),
        ({"x": np.array([0, 10, 3], np.int32)}, "promises 0 to 9"),
    ],
)
def test_inputs_are_checked(arrays: dict[str, Any], says: str) -> None:
    b = Builder("checked")
    table = b.constant("table", np.zeros((10, 2), np.float32))
    graph = b.graph(b.call(ops.gather, table, b.input("x", i32.range(0, 9)[3]), axis=0))
    with pytest.raises(sf.ModelError, match=says):
        evaluate(graph, arrays)
