"""Compiled models against the numpy evaluation of their graphs, and what a call refuses.

Random networks are few here, because each is compiled: `test_storage` draws many.
"""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from graphs import fed, networks
from hypothesis import assume, given, settings
from quantized_graphs import quantized
from woven_graphs import neighbours, twice_and_one, woven

import simdflow as sf
from simdflow import OperandError, f32, i8, i32, ops
from simdflow.graph.compile import compile
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.model import Model
from simdflow.ops import Quantization
from simdflow.targets.detect import host_targets

TARGETS = [t.name for t in host_targets()]
FEW = settings(max_examples=max(settings().max_examples // 25, 1))
Q = Quantization(0.05, 3)


def equal(graph: Graph, model: Model, bound: float, seeds: tuple[int, ...] = (0, 1, 0)) -> None:
    """The model computes its graph: integers exactly, f32 within `bound` of the largest."""
    for seed in seeds:
        inputs = fed(graph, seed)
        with np.errstate(all="ignore"):
            expected = evaluate(graph, inputs)
        found = model.run(inputs)
        assert list(found) == list(graph.outputs)
        for name, y in expected.items():
            about = f"{name} seed={seed} {model!r}\n{graph}"
            if y.dtype.kind == "f":
                largest = np.max(np.abs(y), initial=1.0)
                np.testing.assert_allclose(found[name], y, bound, bound * largest, err_msg=about)
            else:
                np.testing.assert_array_equal(found[name], y, about)


@pytest.mark.parametrize("target", TARGETS)
def test_woven_networks(target: str) -> None:
    @FEW
    @given(woven())
    def drawn(graph: Graph) -> None:
        equal(graph, compile(graph, target=target), 1e-4)

    drawn()


@pytest.mark.parametrize("target", TARGETS)
def test_8_bit_networks(target: str) -> None:
    @FEW
    @given(quantized())
    def drawn(graph: Graph) -> None:
        equal(graph, compile(graph, target=target), 0)

    drawn()


@FEW
@given(networks())
def test_f32_networks(graph: Graph) -> None:
    with np.errstate(all="ignore"):
        values = evaluate(graph, fed(graph), every=True).values()
    assume(all(np.isfinite(v).all() for v in values))
    equal(graph, compile(graph), 1e-3, (0,))


def small() -> Graph:
    """Two inputs, two outputs, a residual."""
    b = Builder("small")
    b.input("x", f32[2, 4, 4, 3])
    b.input("r", f32[2, 4, 4, 5])
    w = b.constant("w", np.random.default_rng(0).normal(0, 1, (3, 3, 3, 5)).astype(np.float32))
    b.call(ops.add, b.call(ops.conv2d, "x", w, padding="same"), "r")
    b.call(ops.reduce_max, "add", axes=(1, 2))
    return b.graph("add", "reduce_max")


def line() -> Graph:
    """One input, one output, of two samples."""
    b = Builder("line")
    b.input("x", f32[2, 4, 4, 3])
    w = b.constant("w", np.random.default_rng(0).normal(0, 1, (3, 3, 3, 5)).astype(np.float32))
    b.call(ops.relu, b.call(ops.conv2d, "x", w, padding=1))
    return b.graph("relu")


@pytest.fixture(scope="module")
def two() -> Model:
    """`small`, compiled."""
    return compile(small())


@pytest.fixture(scope="module")
def one() -> Model:
    """`line`, compiled."""
    return compile(line())


def test_arrays_in_order_and_by_name(two: Model) -> None:
    graph = small()
    given_ = fed(graph)
    expected = evaluate(graph, given_)
    for found in (two(*given_.values()), two(given_["x"], r=given_["r"]), two(**given_)):
        for y, name in zip(found, graph.outputs, strict=True):
            np.testing.assert_allclose(y, expected[name], 1e-4, 1e-4)
    listed = two.run(list(given_.values()))
    np.testing.assert_array_equal(listed["add"], two(**given_)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((2, 4, 4, 4), np.float32)}, r"x is float32\[2, 4, 4, 4\].*needed"),
        ({"x": np.zeros((2, 4, 4, 3))}, r"x is float64.*float32\[2, 4, 4, 3\] is needed"),
        ({"x": np.zeros((1, 4, 4, 3), np.float32)}, "another batch"),
        ({"x": 3}, "x is int64"),
        ({"x": None}, "x is object"),
        ({"x": [[1.0, 2.0], [3.0]]}, "x is list that is no array"),
        ({"x": np.zeros((2, 4, 4, 3), ">f4")}, "x is >f4"),
        ({"y": np.zeros(3, np.float32)}, "it takes x, r"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(two: Model, change: dict, message: str) -> None:
    arrays = fed(small()) | change
    with pytest.raises(OperandError, match=message):
        two(**arrays)
    with pytest.raises(OperandError, match=message):
        two.run(arrays)


def test_wrong_numbers_of_arrays_are_refused(two: Model) -> None:
    x, r = fed(small()).values()
    for arrays in ((), (x,), (x, r, r)):
        with pytest.raises(OperandError, match="it takes x, r"):
            two(*arrays)
    with pytest.raises(OperandError, match="it takes x, r"):
        two(x, x=x)


def test_a_refused_call_leaves_the_model_as_it_was(two: Model) -> None:
    given_ = fed(small())
    before = two(**given_)
    with pytest.raises(OperandError):
        two(given_["x"] + 1, given_["r"][..., :1])
    for a, b in zip(before, two(**given_), strict=True):
        np.testing.assert_array_equal(a, b)


def test_any_memory_order_is_read(one: Model) -> None:
    x = fed(line())["x"]
    y = one(x)
    wide = np.zeros((2, 4, 4, 6), np.float32)
    wide[..., ::2] = x
    backwards = np.ascontiguousarray(x[::-1])[::-1]
    read_only = x.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(x), wide[..., ::2], backwards, read_only):
        np.testing.assert_array_equal(one(other), y)


def test_results_are_the_callers_own(one: Model) -> None:
    a, b = fed(line())["x"], fed(line(), 1)["x"]
    first = one(a)
    kept = first.copy()
    second = one(b)
    np.testing.assert_array_equal(first, kept)
    first[...] = 7
    np.testing.assert_array_equal(one(b), second)


def test_outputs_are_written_where_the_caller_says(two: Model) -> None:
    given_ = fed(small())
    expected = two.run(given_)
    mine = np.empty_like(expected["add"])
    strided = np.zeros((2, 4, 4, 10), np.float32)[..., ::2]
    for y in (mine, strided):
        found = two.run(given_, out={"add": y})
        assert found["add"] is y
        np.testing.assert_array_equal(y, expected["add"])
        np.testing.assert_array_equal(found["reduce_max"], expected["reduce_max"])


@pytest.mark.parametrize("wrong", ["name", "shape", "dtype", "read-only", "list"])
def test_outputs_that_do_not_fit_are_refused(two: Model, wrong: str) -> None:
    y = np.zeros((2, 4, 4, 5), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    out = {
        "name": {"sum": y},
        "shape": {"add": y[..., :1]},
        "dtype": {"add": y.astype(np.float64)},
        "read-only": {"add": frozen},
        "list": {"add": y.tolist()},
    }[wrong]
    with pytest.raises(OperandError, match=r"sum|add"):
        two.run(fed(small()), out=out)
    assert not frozen.any()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_predict_takes_any_number_of_samples(one: Model, n: int) -> None:
    x = np.random.default_rng(0).normal(0, 1, (n, 4, 4, 3)).astype(np.float32)
    y = one.predict(x)
    assert y.shape == (n, 4, 4, 5) and y.dtype == np.float32
    for i in range(n):
        np.testing.assert_array_equal(y[i], one(x[[i, i]])[1], "the place in a batch is nothing")


def test_predict_refuses_other_samples(one: Model, two: Model) -> None:
    for x in (np.zeros((2, 4, 4, 4), np.float32), np.zeros((2, 4, 4, 3)), 1, [[1], [2, 3]]):
        with pytest.raises(OperandError):
            one.predict(x)
    with pytest.raises(OperandError, match="predict is for one"):
        two.predict(np.zeros((2, 4, 4, 3), np.float32))


def test_predict_is_for_samples_along_the_first_axis() -> None:
    """A result without them was once cut to its first element."""
    b = Builder("g")
    b.input("x", f32[1, 6])
    b.call(ops.reshape, b.call(ops.relu, "x"), shape=(6,))
    model = compile(b.graph("reshape"))
    with pytest.raises(OperandError, match="samples along the first axis"):
        model.predict(np.zeros((3, 6), np.float32))


def test_bound_buffers_are_written_and_read_in_place(one: Model) -> None:
    a, b = fed(line())["x"], fed(line(), 1)["x"]
    buffers = one.bind()
    other = one.bind()
    for x in (a, b, a):
        buffers.inputs["x"][...] = x
        found = buffers()
        np.testing.assert_array_equal(found["relu"], one(x))
        np.testing.assert_array_equal(buffers.inputs["x"], x, "inputs are not changed")
    other.inputs["x"][...] = b
    other.run()
    np.testing.assert_array_equal(buffers.outputs["relu"], one(a), "each has its own memory")


def test_nothing_is_allocated_while_it_runs(one: Model) -> None:
    buffers = one.bind()
    buffers.inputs["x"][...] = fed(line())["x"]
    for _ in range(10):
        buffers.run()
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(1000):
            buffers.run()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = sum(d.size_diff for d in after.compare_to(before, "filename")
                if "tracemalloc" not in d.traceback[0].filename)  # fmt: skip
    assert grown < 1000, "less than a byte a run"


def test_promised_ranges_are_checked() -> None:
    b = Builder("embedding")
    b.input("ids", i32.range(0, 9)[3])
    table = b.constant("table", np.arange(40, dtype=np.float32).reshape(10, 4))
    b.call(ops.gather, table, "ids", axis=0)
    model = compile(b.graph("gather"))
    np.testing.assert_array_equal(model(np.array([9, 0, 5], np.int32))[:, 0], [36, 0, 20])
    for ids in ([10, 0, 0], [-1, 0, 0]):
        with pytest.raises(OperandError, match="0 to 9 is allowed"):
            model(np.array(ids, np.int32))
        with pytest.raises(OperandError, match="0 to 9 is allowed"):
            model.run({"ids": np.array(ids, np.int32)})
        with pytest.raises(OperandError, match="0 to 9 is allowed"):
            model.predict(np.array(ids, np.int32))


def test_a_model_of_users_kernels_only() -> None:
    b = Builder("own")
    b.input("x", f32[1, 3, 5, 7])
    b.call(neighbours, b.call(twice_and_one, "x"))
    graph = b.graph("neighbours")
    model = compile(graph)
    assert len(model.network.calls) == 2
    equal(graph, model, 1e-6)


def test_outputs_without_axes() -> None:
    """Their view of the arena once was a number."""
    b = Builder("g")
    b.input("x", f32[2, 3])
    b.constant("c", np.float32(5))
    b.call(ops.reduce_sum, "x", axes=(0, 1))
    graph = b.graph("reduce_sum", "c")
    equal(graph, compile(graph), 1e-5)


def test_one_value_as_two_outputs_and_an_input_that_nobody_reads() -> None:
    b = Builder("g")
    b.input("x", f32[2, 3])
    b.input("dead", i8[4])
    b.call(ops.relu, "x")
    graph = b.graph("relu", "relu")
    model = compile(graph)
    given_ = fed(graph)
    first, second = model(**given_)
    np.testing.assert_array_equal(first, np.maximum(given_["x"], 0))
    np.testing.assert_array_equal(second, first)
    np.testing.assert_array_equal(model.run(given_)["relu"], first)


def test_constants_inputs_and_reshapes_as_outputs() -> None:
    b = Builder("g")
    b.input("x", f32[1, 4, 2, 3])
    w = b.constant("w", np.ones((3, 3, 3, 2), np.float32))
    b.call(ops.conv2d, b.call(ops.relu, "x"), w, padding=1)
    b.call(ops.reshape, "relu", shape=(24,))
    b.constant("c", np.arange(3, dtype=np.float32))
    graph = b.graph("reshape", "x", "c", "conv2d", "relu")
    equal(graph, compile(graph), 1e-5)


def test_pickled_models_compute_the_same(two: Model) -> None:
    given_ = fed(small())
    content = pickle.dumps(two)
    other = pickle.loads(content)
    assert other.network.entry not in content, "the graph travels, machine code does not"
    for a, b in zip(two(**given_), other(**given_), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_it_is_made_of(two: Model) -> None:
    assert (two.name, two.threads, two.target) == ("small", 1, sf.target(None).name)
    assert [str(p) for p in two.inputs] == ["x: f32[2, 4, 4, 3]", "r: f32[2, 4, 4, 5]"]
    assert "small(x: f32" in repr(two)
    assert two.graph.outputs == ("add", "reduce_max")
    profile = two.profile(seconds=0.01)
    assert len(profile.lines) == len(two.network.calls)
    assert profile.lines[0].macs == 2 * 4 * 4 * 5 * 27


def test_profiling_runs_each_step_alone() -> None:
    b = Builder("g")
    b.input("x", i8[1, 6, 6, 8], Q)
    w = b.constant("w", np.random.default_rng(0).integers(-9, 9, (3, 3, 8, 8)).astype(np.int8))
    meaning = {"x_q": Q, "w_q": Quantization(0.002), "y_q": Q, "padding": 1}
    b.call(ops.conv2d, b.call(ops.conv2d, "x", w, None, **meaning), w, None, **meaning)
    model = compile(b.graph("conv2d_2"))
    buffers = model.bind()
    x = np.random.default_rng(1).integers(-128, 128, (1, 6, 6, 8)).astype(np.int8)
    buffers.inputs["x"][...] = x
    for call in model.calls(buffers):
        call()
    np.testing.assert_array_equal(buffers.outputs["conv2d_2"], model(x))


def test_a_model_is_no_graph() -> None:
    model = compile(sf.trace(lambda x: ops.relu(x), f32[1, 4], name="small"))
    with pytest.raises(sf.ModelError, match=r"graph=Model is no Graph.*Pass model\.graph"):
        compile(model)  # type: ignore[arg-type]
    assert compile(model.graph, batch=2).predict(np.ones((2, 4), np.float32)).shape == (2, 4)
