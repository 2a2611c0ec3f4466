"""Storage: random networks on the planned memory, with garbage in all of it that is not planned.

Everything here runs in numpy (`simulated`); the machine code has tests of its own.
"""

from __future__ import annotations

import numpy as np
import pytest
from graphs import fed, networks
from hypothesis import assume, given, settings
from quantized_graphs import quantized
from simulated import Simulation, planned, spoiled
from woven_graphs import woven

from simdflow import f32, i8, ops
from simdflow.graph import passes
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.storage import Stored
from simdflow.ops import Quantization

Q = Quantization(0.05, 3)
DRAWN = settings(max_examples=settings().max_examples // 4)


def runs(graph: Graph, bound: float = 0) -> Stored:
    """Run it twice with garbage between, then again for other inputs: it equals its evaluation."""
    stored, arena = planned(graph)
    run = Simulation(stored, arena)
    for seed in (0, 1, 0):
        spoiled(run, stored.slabs)
        inputs = fed(graph, seed)
        with np.errstate(all="ignore"):
            expected, found = evaluate(graph, inputs), run(inputs)
        for name, y in expected.items():
            about = f"{name}\n{graph}"
            if bound and y.dtype.kind == "f":
                largest = np.max(np.abs(y), initial=1.0)
                np.testing.assert_allclose(found[name], y, bound, bound * largest, err_msg=about)
            else:
                np.testing.assert_array_equal(found[name], y, about)
    return stored


@DRAWN
@given(woven())
def test_woven_networks_keep_their_values(graph: Graph) -> None:
    runs(graph, 1e-4)


@DRAWN
@given(woven(batch=3))
def test_batches_keep_their_values(graph: Graph) -> None:
    runs(graph, 1e-4)


@DRAWN
@given(quantized())
def test_8_bit_networks_keep_their_values(graph: Graph) -> None:
    runs(passes.run(graph))


@DRAWN
@given(networks())
def test_f32_networks_keep_their_values(graph: Graph) -> None:
    assume(all(len(n.options.get("pads", ())) < 4 or sum(a + b > 0 for a, b in n.options["pads"])
               < 4 for n in graph.nodes))  # fmt: skip
    with np.errstate(all="ignore"):
        values = evaluate(graph, fed(graph), every=True).values()
    assume(all(np.isfinite(v).all() for v in values))
    runs(passes.run(graph), 1e-3)


def two_readers(first: object, second: object) -> Graph:
    """relu(x), read by two convolutions with a padding each."""
    b = Builder("g")
    b.input("x", f32[1, 3, 4, 5])
    b.call(ops.relu, "x")
    rng = np.random.default_rng(0)
    made = []
    for padding in (first, second):
        w = b.constant("w", rng.integers(-2, 3, (3, 3, 5, 2)).astype(np.float32))
        made.append(b.call(ops.conv2d, "relu", w, padding=padding))
    return b.graph(*made)


def copies(stored: Stored) -> int:
    """How many steps only copy."""
    return sum(s.nest.name == "copy_all" for s in stored.schedule.steps)


@pytest.mark.parametrize("second", [1, 0, "same", ((0, 2), (3, 0))])
def test_readers_of_one_value_share_the_widest_border(second: object) -> None:
    stored = runs(two_readers(1, second), 1e-5)
    assert copies(stored) == 0
    assert stored.slabs["relu"].bordered


def test_two_fills_are_two_memories() -> None:
    b = Builder("g")
    b.input("x", f32[1, 3, 4, 5])
    b.call(ops.relu, "x")
    w = b.constant("w", np.ones((3, 3, 5, 2), np.float32))
    b.call(ops.conv2d, "relu", w, padding=1)
    b.call(ops.max_pool2d, "relu", kernel=3, padding=1, stride=1)
    stored = runs(b.graph("conv2d", "max_pool2d"), 1e-5)
    assert copies(stored) == 1
    assert {s.fill for s in stored.slabs.values() if s.bordered} == {0, -np.inf}


def test_a_bordered_output_is_seen_without_its_border() -> None:
    graph = two_readers(1, 1)
    b = Builder("g")
    b.input("x", graph.values["x"].type)
    for name, c in graph.constants.items():
        b.constant(name, c)
    b.add(graph, graph.nodes)
    runs(b.graph(*graph.outputs, "relu", "x"), 1e-5)


def test_a_reshaped_output_of_a_bordered_value_is_an_array() -> None:
    """It once was a stale copy: an array with a border inside has no strides."""
    b = Builder("g")
    b.input("x", f32[1, 3, 4, 5])
    w = b.constant("w", np.ones((3, 3, 5, 2), np.float32))
    b.call(ops.conv2d, b.call(ops.relu, "x"), w, padding=1)
    b.call(ops.reshape, "relu", shape=(60,))
    b.call(ops.reshape, "x", shape=(12, 5), name="twice")
    runs(b.graph("conv2d", "reshape", "twice"), 1e-5)


def test_one_pixel_with_a_border() -> None:
    """Its kernel has one axis of 1, which has to be spread to four."""
    b = Builder("g")
    b.input("x", i8[1, 1, 1, 1], Q)
    w = b.constant("w", np.ones((2, 2, 1, 1), np.int8))
    b.call(ops.conv2d, "x", w, x_q=Q, w_q=Quantization(0.1), y_q=Q, padding="same")
    runs(passes.run(b.graph("conv2d")))


def test_a_concatenation_with_a_border_and_a_part_with_another_fill() -> None:
    b = Builder("g")
    b.input("x", f32[1, 4, 4, 3])
    ones = b.constant("w", np.ones((1, 1, 3, 5), np.float32))
    b.call(ops.conv2d, "x", ones, name="p")
    b.call(ops.neg, "x", name="q")
    b.call(ops.concat, "p", "q", axis=3)
    b.call(ops.conv2d, "concat", b.constant("v", np.ones((3, 3, 8, 2), np.float32)), padding=1)
    b.call(ops.max_pool2d, "p", kernel=3, stride=1, padding=1)
    b.call(ops.slice, "concat", starts=(0, 1, 0, 2), stops=(1, 4, 3, 7), steps=(1,) * 4)
    b.call(ops.dense, "slice", b.constant("u", np.ones((5, 2), np.float32)))
    runs(b.graph("conv2d", "max_pool2d", "dense", "slice"), 1e-5)


def test_constants_and_inputs_are_outputs_too() -> None:
    b = Builder("g")
    b.input("x", f32[2, 3])
    b.constant("c", np.arange(6, dtype=np.float32).reshape(2, 3))
    b.constant("d", np.float32(5))
    b.call(ops.add, "x", "c")
    runs(b.graph("x", "c", "add", "d"))
