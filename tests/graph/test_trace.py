"""Tracing: what a function of ops, operators and kernels becomes as a graph, and what it may not
do.

Each traced graph is evaluated and compared with the same function in plain numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import simdflow as sf
from simdflow import ops
from simdflow.graph.evaluate import evaluate
from simdflow.graph.trace import trace

RNG = np.random.default_rng(5)


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


@sf.kernel
def halved(x, out, *, by=2.0):
    """out[i, j] = x[i, j] / by."""
    for i, j in sf.grid(x.shape):
        out[i, j] = x[i, j] / by


def test_a_network_becomes_nodes_and_constants() -> None:
    w, b = reals(3, 3, 4, 8), reals(8)

    def net(image: Any) -> Any:
        y = ops.conv2d(image, w, bias=b, stride=[2, 1], padding="same", activation="relu")
        y = ops.conv2d(y, reals(1, 1, 8, 8))
        return ops.softmax(y + y.reshape(y.shape)), y

    graph = trace(net, sf.f32[1, 8, 8, 4])
    assert (graph.name, graph.inputs) == ("net", ("image",))
    assert [n.op for n in graph.nodes] == ["conv2d", "conv2d", "reshape", "add", "softmax"]
    assert graph.nodes[0].inputs == ("image", "conv2d.w", "conv2d.bias")
    assert graph.nodes[0].options["stride"] == (2, 1)
    assert graph.outputs == ("softmax", "conv2d_2")
    np.testing.assert_array_equal(graph.constants["conv2d.w"], w)
    x = reals(1, 8, 8, 4)
    y = ops.reference.conv2d(x, w, b, stride=(2, 1), padding="same")
    first = evaluate(graph, {"image": x}, every=True)["conv2d"]
    np.testing.assert_allclose(first, np.maximum(y, 0), rtol=1e-5, atol=1e-5)


def test_one_array_is_one_constant_until_it_changes() -> None:
    w = reals(4, 4)
    packed = sf.pack(reals(4, 4))

    def net(x: Any) -> Any:
        x = ops.dense(ops.dense(x, w), w)
        x = ops.dense(ops.dense(x, packed), packed)
        w[0, 0] += 1
        return ops.dense(x, w)

    graph = trace(net, sf.f32[2, 4])
    assert [n.inputs[1] for n in graph.nodes] == [
        "dense.w", "dense.w", "dense_3.w", "dense_3.w", "dense_5.w"
    ]  # fmt: skip
    assert graph.constants["dense_5.w"][0, 0] == graph.constants["dense.w"][0, 0] + 1


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: (2.0 - x) * x / 3 + 1 - -x,
    "arrays on the left": lambda x: np.ones(4, np.float32) + x * np.float32(2),
    "power": lambda x: abs(x) ** 2.0,
    "matrices": lambda x: x[0] @ x[1].T,
    "index": lambda x: x[1],
    "slices": lambda x: x[:, ::-1, 1:-1],
    "dots": lambda x: x[..., 0],
    "new axes": lambda x: x[None, :, None, 0],
    "negative": lambda x: x[-1, -2:, ::2],
    "reshape": lambda x: x.reshape(3, -1).reshape((6, 4)),
    "transpose": lambda x: x.transpose(2, 0, 1).T,
    "mean": lambda x: x.mean(axis=(0, 2), keepdims=True),
    "sum": lambda x: x.sum(-1),
    "maximum": lambda x: np.maximum(x.max(axis=0), 0.25) - x.min(axis=1, keepdims=True),
    "unpacked": lambda x: sum(list(x)[1:], start=x[0] * 0.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_are_those_of_numpy(name: str) -> None:
    x = reals(2, 3, 4)
    graph = trace(FUNCTIONS[name], sf.f32[2, 3, 4], name="f")
    expected = np.asarray(FUNCTIONS[name](x))
    (found,) = evaluate(graph, {graph.inputs[0]: x}).values()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_of_the_users_is_a_node() -> None:
    graph = trace(lambda x: halved(x, by=4.0) + 1.0, sf.f32[2, 3])
    assert graph.nodes[0].function is halved
    assert dict(graph.nodes[0].options) == {"by": 4.0}
    x = reals(2, 3)
    np.testing.assert_allclose(
        evaluate(graph, {"x": x})[graph.outputs[0]], x / 4 + 1, rtol=1e-6, atol=1e-6
    )


def test_inputs_and_outputs_have_names() -> None:
    def net(x: Any, *more: Any, gain: Any) -> dict[str, Any]:
        y = x + more[0] + more[1]
        return {"scaled": y * gain, "same": x, "sum": y}

    graph = trace(net, sf.f32[3], sf.f32[3], sf.f32[3], gain=sf.f32[1], name="named")
    assert graph.inputs == ("x", "more_0", "more_1", "gain")
    assert graph.outputs == ("scaled", "same", "sum")
    given = {name: reals(*graph.values[name].type.shape) for name in graph.inputs}
    found = evaluate(graph, given)
    total = given["x"] + given["more_0"] + given["more_1"]
    np.testing.assert_allclose(found["sum"], total, rtol=1e-6)
    np.testing.assert_allclose(found["scaled"], total * given["gain"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["same"], given["x"])


def test_a_value_returned_twice_is_two_outputs() -> None:
    graph = trace(lambda x: (ops.relu(x),) * 2, sf.f32[3])
    assert len(set(graph.outputs)) == 2
    x = reals(3)
    for y in evaluate(graph, {"x": x}).values():
        np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_tracing_after_an_eager_call_of_the_same_type_still_traces() -> None:
    x = reals(2, 3)
    np.testing.assert_array_equal(ops.relu(x), np.maximum(x, 0))
    graph = trace(ops.relu, sf.f32[2, 3])
    assert [n.op for n in graph.nodes] == ["relu"]


def test_numbers_take_the_type_of_the_tensor() -> None:
    def net(condition: Any, x: Any) -> Any:
        return ops.where(condition, x, 0.0)

    graph = trace(net, sf.u8[3], sf.f32[3])
    assert graph.constants["where.b"].dtype == np.float32


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a condition": (lambda x: x if x else -x, "a condition"),
    "a number": (lambda x: ops.clip(x, low=0.0, high=float(x)), "float()"),
    "a range": (lambda x: [*range(x)], "range()"),
    "an array": (lambda x: ops.relu(x) + np.cumsum(x), "np.cumsum"),
    "a ufunc": (lambda x: np.arctan(x), "np.arctan"),
    "an option": (lambda x: ops.leaky_relu(x, slope=x), "option"),
    "an index": (lambda x: x[np.array([0])], "ops.gather"),
    "a place": (lambda x: ops.relu(x, out=np.zeros(3, np.float32)), "out="),
    "no tensor": (lambda x: None, "not a tensor"),
    "an unknown option": (lambda x: ops.relu(x, slop=1), "slop"),
    "a shape": (lambda x: x.reshape(7), "reshape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_traced_is_refused_with_advice(name: str) -> None:
    function, says = WRONG[name]
    with pytest.raises(sf.SimdflowError, match=says.replace("(", r"\(").replace(")", r"\)")):
        trace(function, sf.f32[3], name="f")


def test_a_tensor_of_another_trace_is_refused() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x) or ops.relu(x), sf.f32[3])
    with pytest.raises(sf.ModelError, match="another trace"):
        trace(lambda x: x + kept[0], sf.f32[3])


@pytest.mark.parametrize(
    ("types", "named", "says"),
    [
        ((), {}, "missing"),
        ((sf.f32[3], sf.f32[3]), {}, "too many"),
        ((sf.f32,), {}, "operand type"),
        ((), {"x": np.zeros(3)}, "operand type"),
    ],
)
def test_arguments_of_trace_are_checked(types: Any, named: Any, says: str) -> None:
    with pytest.raises(sf.ModelError, match=says):
        trace(lambda x: ops.relu(x), *types, **named)


def test_two_outputs_of_one_name_are_refused() -> None:
    with pytest.raises(sf.ModelError, match="name of another value"):
        trace(lambda x: {"x": ops.relu(x)}, sf.f32[3])
