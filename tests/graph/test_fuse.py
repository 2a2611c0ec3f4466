"""Fusing: how many steps are left, which must not be fused, and that nothing changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import fed
from hypothesis import given, settings
from simulated import Simulation, planned
from woven_graphs import neighbours, twice_and_one, woven

from simdflow import f32, i8, ops
from simdflow.graph.fuse import fuse
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.steps import steps_of
from simdflow.ops import Quantization
from simdflow.targets import target

Q = Quantization(0.05, 3)


def builder() -> Builder:
    """A graph with inputs x and r, and a convolution of x."""
    b = Builder("g")
    b.input("x", f32[1, 4, 4, 6])
    b.input("r", f32[1, 4, 4, 5])
    w = np.random.default_rng(0).integers(-3, 4, (1, 1, 6, 5)).astype(np.float32)
    b.call(ops.conv2d, "x", b.constant("w", w), name="conv")
    return b


def names(graph: Graph) -> list[str]:
    """The nests that are left."""
    return [s.nest.name for s in fuse(steps_of(graph, target("portable"))).steps]


def same(graph: Graph) -> None:
    """The fused steps compute what the single ones do."""
    runs = [Simulation(*planned(graph, fused=f))(fed(graph)) for f in (True, False)]
    for name in graph.outputs:
        about = f"{name}\n{graph}"
        if runs[1][name].dtype.kind == "f":  # what is fused is not rounded in between
            np.testing.assert_allclose(runs[0][name], runs[1][name], 1e-5, 1e-4, err_msg=about)
        else:
            np.testing.assert_array_equal(runs[0][name], runs[1][name], about)


def test_elementwise_layers_go_into_the_epilogue() -> None:
    b = builder()
    b.call(ops.abs, b.call(ops.add, "conv", "r"))
    graph = b.graph("abs")
    assert len(names(graph)) == 1
    same(graph)


def test_integers_go_through_a_table_in_the_epilogue() -> None:
    b = Builder("g")
    b.input("x", i8[1, 3, 5, 8], Q)
    w = b.constant("w", np.random.default_rng(0).integers(-9, 9, (8, 7)).astype(np.int8))
    b.call(ops.dense, "x", w, x_q=Q, w_q=Quantization(0.01), y_q=Q)
    b.call(ops.sigmoid, "dense", x_q=Q, y_q=Quantization(1 / 256, -128))
    graph = b.graph("sigmoid")
    assert len(names(graph)) == 1
    same(graph)


@pytest.mark.parametrize("kept", ["conv", "abs"])
def test_a_value_that_is_read_elsewhere_stays(kept: str) -> None:
    b = builder()
    b.call(ops.neg, b.call(ops.abs, "conv"))
    b.call(ops.max_pool2d, kept, kernel=2)
    graph = b.graph("neg", "max_pool2d")
    assert len(names(graph)) == 3
    same(graph)


@pytest.mark.parametrize("kept", ["conv", "abs"])
def test_an_output_stays(kept: str) -> None:
    b = builder()
    b.call(ops.neg, b.call(ops.abs, "conv"))
    graph = b.graph("neg", kept)
    assert len(names(graph)) == 2
    same(graph)


def test_a_value_that_is_read_twice_by_one_layer_stays() -> None:
    b = builder()
    b.call(ops.mul, "conv", "conv")
    graph = b.graph("mul")
    assert len(names(graph)) == 2
    same(graph)


def test_a_value_that_is_broadcast_stays() -> None:
    b = builder()
    b.call(ops.reduce_max, "r", axes=(1, 2), keepdims=True)
    b.call(ops.sub, "conv", "reduce_max")
    graph = b.graph("sub")
    assert len(names(graph)) == 2
    same(graph)


def test_elementwise_layers_go_into_the_loads_of_a_transpose() -> None:
    b = Builder("g")
    b.input("x", i8[1, 3, 4, 5])
    b.call(ops.flip_sign, "x")
    b.call(ops.transpose, "flip_sign", axes=(0, 2, 3, 1))
    graph = b.graph(b.call(ops.flip_sign, "transpose", name="back"))
    assert names(graph) == ["to_unsigned_strided_to_signed"]
    same(graph)


def test_what_would_be_computed_again_for_each_reader_stays() -> None:
    b = builder()
    b.call(ops.exp, "r")
    b.call(ops.reshape, "exp", shape=(1, 16, 1, 5))
    graph = b.graph(b.call(ops.expand, "reshape", shape=(1, 16, 3, 5)))
    assert names(graph)[1:] == ["exp_f32", "strided"]
    same(graph)


def test_two_products_are_two_steps_and_their_sum_is_none() -> None:
    b = builder()
    w = b.constant("v", np.ones((1, 1, 6, 5), np.float32))
    b.call(ops.add, "conv", b.call(ops.conv2d, "x", w, name="second"))
    graph = b.graph("add")
    assert len(names(graph)) == 2
    same(graph)


def test_users_kernels_are_fused_as_layers_are() -> None:
    b = builder()
    b.call(ops.abs, b.call(twice_and_one, "conv"))
    assert len(names(b.graph("abs"))) == 1
    same(b.graph("abs"))
    b.call(neighbours, "abs")
    assert len(names(b.graph("neighbours"))) == 1 + 1
    same(b.graph("neighbours"))


def test_a_reshape_between_does_not_hinder() -> None:
    b = builder()
    b.call(ops.relu, b.call(ops.reshape, "conv", shape=(8, 10)))
    assert len(names(b.graph("relu"))) == 1
    same(b.graph("relu"))


def test_a_part_is_fused_with_its_own_producer() -> None:
    """The last step that writes into a concatenation is not the producer of every part of it."""
    b = builder()
    b.call(ops.abs, "r")
    b.call(ops.concat, "conv", "abs", axis=3)
    part = {"starts": (0, 0, 0, 0), "stops": (1, 4, 4, 5), "steps": (1,) * 4}
    b.call(ops.neg, b.call(ops.slice, "concat", **part))
    same(b.graph("neg"))


@pytest.mark.parametrize("pads", [((0, 0), (0, 1), (0, 0), (0, 0)), ((0, 0),) * 3 + ((0, 2),)])
def test_what_writes_a_part_is_no_producer_of_the_whole(pads: Any) -> None:
    """The copy inside a pad that only follows its input once took in the layer after it."""
    b = builder()
    b.call(twice_and_one, b.call(ops.pad, "r", pads=pads))
    b.call(ops.abs, "pad")
    same(b.graph("twice_and_one"))
    same(b.graph("twice_and_one", "abs"))


def test_a_transpose_in_a_part_of_other_memory_is_written_as_it_can_be() -> None:
    b = Builder("g")
    b.input("x", f32[1, 1, 5, 2])
    b.call(ops.dense, "x", b.constant("w", np.ones((2, 3), np.float32)))
    b.call(ops.transpose, "dense", axes=(2, 3, 1, 0))
    b.call(ops.relu6, b.call(ops.concat, "transpose", "transpose", axis=2))
    same(b.graph("relu6"))


@settings(max_examples=settings().max_examples // 4)
@given(woven())
def test_fusing_changes_nothing(graph: Graph) -> None:
    same(graph)
