"""The same network for another number of samples: each sample is computed as it was alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import fed
from hypothesis import assume, given, settings
from woven_graphs import neighbours, twice_and_one, woven

import simdflow as sf
from simdflow import ModelError, f32, ops
from simdflow.graph.batch import with_batch
from simdflow.graph.compile import compile
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph


@sf.kernel
def turned(x, out):
    for i, j, k in sf.grid(out.shape):
        out[i, j, k] = x[j, i, k]


def network() -> Graph:
    """Reshapes and slices that spell out the batch, and a layer of every axis."""
    b = Builder("net")
    b.input("x", f32[1, 4, 4, 3])
    rng = np.random.default_rng(0)
    w = b.constant("w", rng.normal(0, 1, (3, 3, 3, 5)).astype(np.float32))
    v = b.constant("v", rng.normal(0, 1, (60, 4)).astype(np.float32))
    b.call(ops.conv2d, "x", w, padding=1, activation="relu")
    b.call(ops.slice, "conv2d", starts=(0, 1, 0, 0), stops=(1, 4, 4, 5), steps=(1,) * 4)
    b.call(ops.reshape, "slice", shape=(1, 60))
    b.call(ops.softmax, b.call(ops.dense, "reshape", v))
    b.call(ops.reshape, "conv2d", shape=(-1, 80), name="flat")
    return b.graph("softmax", "flat", "x")


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_samples_are_computed_as_alone(batch: int) -> None:
    graph = network()
    x = np.random.default_rng(1).normal(0, 1, (batch, 4, 4, 3)).astype(np.float32)
    alone = [evaluate(graph, {"x": one[None]}) for one in x]
    many = compile(graph, batch=batch)
    found = many.run({"x": x})
    # Where a sample stands changes no bit of it.
    turned = many.run({"x": np.roll(x, 1, 0)})
    for name in graph.outputs:
        expected = np.concatenate([a[name] for a in alone])
        np.testing.assert_allclose(found[name], expected, 1e-4, 1e-5)
        np.testing.assert_array_equal(turned[name], np.roll(found[name], 1, 0))


@settings(max_examples=settings().max_examples // 4)
@given(woven(batch=1, most=4))
def test_random_networks_keep_their_samples_apart_or_are_refused(graph: Graph) -> None:
    try:
        wide = with_batch(graph, 2)
    except ModelError:
        assume(False)
    names = [o for o in graph.outputs if o not in graph.constants]
    a, b = fed(graph, 0), fed(graph, 1)
    both = {n: np.concatenate([a[n], b[n]]) for n in graph.inputs}
    found = evaluate(wide, both)
    first, second = evaluate(graph, a), evaluate(graph, b)
    for name in names:
        expected = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(found[name], expected, 1e-4, 1e-4, err_msg=f"{name}\n{graph}")


def test_the_same_batch_is_the_same_graph() -> None:
    graph = network()
    assert with_batch(graph, 1) is graph


@pytest.mark.parametrize("batch", [0, -1, 1.0, True, "2"])
def test_other_batches_are_refused(batch: Any) -> None:
    with pytest.raises(ModelError, match="batch="):
        with_batch(network(), batch)


def test_inputs_of_different_batches_are_refused() -> None:
    b = Builder("g")
    b.input("x", f32[1, 3])
    b.input("y", f32[2, 3])
    b.call(ops.add, "x", "y")
    with pytest.raises(ModelError, match="one batch for all"):
        with_batch(b.graph("add"), 4)
    c = Builder("g")
    c.input("x", f32[()])
    c.call(ops.neg, "x")
    with pytest.raises(ModelError, match="first axes"):
        with_batch(c.graph("neg"), 2)


def refused(*layers: tuple[object, dict[str, object]]) -> None:
    """A graph of x[1, 3, 4] cannot have two samples."""
    b = Builder("g")
    x = b.input("x", f32[1, 3, 4])
    for op, options in layers:
        x = b.call(op, x, **options)
    with pytest.raises(ModelError, match="batch=2"):
        with_batch(b.graph(x), 2)


def test_layers_that_mix_samples_are_refused() -> None:
    refused((ops.reduce_sum, {"axes": (0,), "keepdims": True}))
    refused((ops.reshape, {"shape": (12,)}))
    refused((ops.reshape, {"shape": (3, 4)}))
    refused((ops.transpose, {"axes": (1, 0, 2)}))
    refused((ops.pad, {"pads": ((0, 1), (0, 0), (0, 0))}))
    refused((ops.reshape, {"shape": (3, 4)}), (ops.transpose, {"axes": (1, 0)}))
    refused((ops.reshape, {"shape": (12,)}), (ops.softmax, {}))


def test_samples_that_come_back_in_another_order_are_refused() -> None:
    """All shapes are right here, and every value is in the wrong place."""
    b = Builder("g")
    b.input("x", f32[1, 4, 1])
    b.call(ops.reshape, b.call(ops.transpose, "x", axes=(2, 1, 0)), shape=(1, 4))
    with pytest.raises(ModelError, match=r"batch=2.*transpose does not keep the samples apart"):
        with_batch(b.graph("reshape"), 2)


def test_rows_of_a_sample_may_be_joined_with_the_samples_and_parted_again() -> None:
    """As exporters of matrix products do it: [n, s, c] to [n * s, c] and back."""
    b = Builder("g")
    b.input("x", f32[1, 3, 4])
    w = b.constant("w", np.random.default_rng(0).normal(0, 1, (4, 5)).astype(np.float32))
    b.call(ops.softmax, b.call(ops.dense, b.call(ops.reshape, "x", shape=(3, 4)), w))
    b.call(ops.reshape, "softmax", shape=(1, 3, 5), name="parted")
    b.call(ops.matmul, "parted", "parted", transpose_b=True)
    graph = b.graph("matmul")
    x = np.random.default_rng(1).normal(0, 1, (4, 3, 4)).astype(np.float32)
    alone = np.concatenate([evaluate(graph, {"x": one[None]})["matmul"] for one in x])
    np.testing.assert_allclose(evaluate(with_batch(graph, 4), {"x": x})["matmul"], alone, 1e-6)


def test_a_users_kernel_keeps_rows_if_it_reads_where_it_writes() -> None:
    b = Builder("g")
    b.input("x", f32[1, 3, 5, 2])
    b.call(neighbours, b.call(twice_and_one, "x"))
    wide = with_batch(b.graph("neighbours"), 3)
    assert wide.values["neighbours"].type.shape == (3, 3, 4, 2)
    refused((turned, {}))


def test_constants_keep_their_shapes() -> None:
    b = Builder("g")
    b.input("x", f32[1, 4])
    c = b.constant("c", np.arange(4, dtype=np.float32).reshape(1, 2, 2))
    b.call(ops.add, "x", b.call(ops.reshape, c, shape=(1, 4)))
    graph = b.graph("add", "c")
    x = np.ones((3, 4), np.float32)
    found = evaluate(with_batch(graph, 3), {"x": x})
    np.testing.assert_array_equal(found["add"], x + np.arange(4))
    assert found["c"].shape == (1, 2, 2)


@pytest.mark.parametrize(("side", "batch", "groups"), [(32, 3, 3), (16, 8, 2)])
def test_groups_of_a_batch_lie_in_a_row_with_their_borders(
    side: int, batch: int, groups: int
) -> None:
    b = Builder("net")
    b.input("x", f32[1, side, side, 16])
    w = b.constant("w", np.random.default_rng(0).integers(-3, 4, (3, 3, 16, 32)).astype(np.float32))
    y = b.call(ops.conv2d, "x", w, padding="same", algorithm="direct")
    graph = b.graph(y, b.call(ops.reshape, y, shape=(1, side * side * 32)))
    model = compile(graph, batch=batch)
    assert model.repeats == groups
    bound = model.bind()
    x = np.random.default_rng(1).integers(-9, 9, (batch, side, side, 16)).astype(np.float32)
    place = bound.inputs["x"]
    assert place.strides[0] > x.strides[0], "a border lies round every sample"
    place[...] = x
    for _ in range(2):
        bound.run()
    for at in range(batch):
        for name, wanted in evaluate(graph, {"x": x[at : at + 1]}).items():
            np.testing.assert_array_equal(bound.outputs[name][at], wanted[0])
    np.testing.assert_array_equal(place, x)
    run, outputs = bound.run, dict(bound.outputs)
    del bound, place
    run()  # whoever has the callable has the memory
    np.testing.assert_array_equal(outputs[y], model(x)[0])
