"""Quantization: each 8-bit layer against its f32 one on the same inputs, what becomes 8 bits and
what does not, the rules for ranges, and what is refused.

The bound of a layer: one step of its result, half a step of each weight times the inputs, half a
unit of the bias. Everything up to that comes from numpy; compiled networks are in the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import fed, networks
from hypothesis import given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow import ops
from simdflow.dsl.errors import ModelError
from simdflow.graph.calibrate import Spread
from simdflow.graph.evaluate import evaluate, evaluate_node
from simdflow.graph.graph import Builder, Graph, Node
from simdflow.graph.passes import run as optimize
from simdflow.graph.quantize import (
    MOVES,
    PRODUCTS,
    SUMS,
    TABLES,
    checked_names,
    quantized,
    small_name,
)
from simdflow.graph.ranges import RULES, scale_of

RNG = np.random.default_rng(3)


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def observed(graph: Graph, part: float = 1.0) -> dict[str, tuple[float, float]]:
    """A part of the range of every value for random inputs."""
    found = evaluate(graph, fed(graph), every=True)
    return {n: (float(a.min()) * part, float(a.max()) * part) for n, a in found.items()}


def by_ranges(graph: Graph, part: float = 1.0) -> tuple[Graph, Graph]:
    """(the graph after the passes, what it is in 8 bits)."""
    before = optimize(graph)
    return before, quantized(before, observed(before, part))


def meaning(graph: Graph, name: str, array: np.ndarray) -> np.ndarray:
    """The real numbers that a value of a graph stands for."""
    q = graph.values[name].quantization
    if q is None or array.dtype.kind == "f":
        return array.astype(np.float64)
    return (array.astype(np.float64) - q.zero_point) * q.scales.astype(np.float64)


def weight_error(node: Node, operands: list[Any], q: Any, kind: sf.OperandType) -> np.ndarray:
    """How far weights and bias of half a step each can move the result of a product."""
    x, w, *bias = operands
    steps = np.broadcast_to(q["w_q"].scales / 2, w.shape).astype(np.float32)
    parts = [np.abs(x), np.ascontiguousarray(steps)]
    if bias and bias[0] is not None:
        parts.append(np.broadcast_to(q["x_q"].single * q["w_q"].scales / 2, w.shape[-1:]).copy())
    plain = Node(node.name, node.function, node.inputs, node.output,
                 dict(node.options) | {"activation": None})  # fmt: skip
    return evaluate_node(plain, [p.astype(np.float32) for p in parts], kind)


def assert_within_bounds(before: Graph, after: Graph) -> None:
    """Each node of the quantized graph is its f32 node, on the inputs that it really has."""
    found = evaluate(after, fed(before), every=True)
    old = {n.name: n for n in before.nodes}
    for node in after.nodes:
        inputs = [None if i is None else meaning(after, i, found[i]) for i in node.inputs]
        real = [None if i is None else i.astype(np.float32) for i in inputs]
        got = meaning(after, node.output, found[node.output])
        q = after.values[node.output].quantization
        bound: Any = 1e-5 * (1 + np.abs(got))
        if node.op in ("quantize", "dequantize", "requantize") and node.name not in old:
            expected = inputs[0]
            half = 1.01 if node.op == "requantize" else 0.51  # in fixed point: a whole step
            bound = bound if q is None else bound + half * q.single
        elif q is None or got.dtype == found[node.output].dtype:
            expected = evaluate_node(node, real, after.values[node.output].type)
        else:
            bound = bound + q.single * 1.01
            if node.op == "sigmoid" and node.name not in old:  # the gate of a silu
                expected = 1 / (1 + np.exp(-inputs[0]))
            else:
                layer = old[node.name]
                kind = before.values[layer.output].type
                if node.op in PRODUCTS:
                    weights = [None if i is None else before.constants.get(i) for i in layer.inputs]
                    real = [real[0], *weights[1:]]
                    bound = bound + weight_error(layer, real, node.options, kind)
                elif layer.op == "silu":
                    bound = bound + np.abs(inputs[0]) / 256
                    real = real[:1]
                expected = evaluate_node(layer, real, kind)
        if q is not None:
            low, high = (meaning(after, node.output, np.uint8(v)[None]) for v in (0, 255))
            expected = np.clip(expected, low, high)
        assert np.all(np.abs(got - expected) <= bound), f"{node}: {np.abs(got - expected).max()}"


def assert_no_needless_floats(before: Graph, after: Graph) -> None:
    """No layer that has an 8-bit form is f32 between 8-bit values; none is rounded twice."""
    makers, readers = after.producers, after.consumers
    for node in after.nodes:
        sources = [makers[i].op if i in makers else "" for i in node.reads]
        assert not (node.op == "quantize" and sources == ["dequantize"]), node
        dynamic = [s for i, s in zip(node.reads, sources, strict=True) if i not in after.constants]
        islands = SUMS | (TABLES | MOVES if len(dynamic) == len(node.reads) else frozenset())
        if node.op in islands and dynamic and all(s == "dequantize" for s in dynamic):
            assert all(r.op != "quantize" for r in readers[node.output]), node


@settings(max_examples=120)
@given(networks(), st.sampled_from((1.0, 0.7)))
def test_each_layer_is_within_its_bound(graph: Graph, part: float) -> None:
    before, after = by_ranges(graph, part)
    assert (after.inputs, after.outputs) == (graph.inputs, graph.outputs)
    for name in (*graph.inputs, *graph.outputs):
        assert after.values[name].type == graph.values[name].type
    assert_within_bounds(before, after)
    assert_no_needless_floats(before, after)
    products = [n for n in before.nodes if n.op in PRODUCTS and n.inputs[0] not in before.constants]
    small = [n for n in after.nodes if n.op in PRODUCTS and "x_q" in n.options]
    constant = [n for n in products if all(i in before.constants for i in n.reads[1:])]
    assert len(small) == len(constant)


W = {k: reals(*s) for k, s in {
    "first": (3, 3, 3, 8), "bias": (8,), "deep": (3, 3, 8), "point": (1, 1, 8, 8),
    "wide": (1, 1, 16, 8), "dense": (8, 5),
}.items()}  # fmt: skip


def branches(x: Any) -> Any:
    """Every kind of layer that has an 8-bit form, two outputs, one of them inside."""
    a = ops.conv2d(x, W["first"], W["bias"], padding="same", activation="relu")
    b = ops.silu(ops.depthwise_conv2d(a, W["deep"], padding="same"))
    c = ops.leaky_relu(ops.conv2d(a, W["point"]), slope=0.1)
    d = ops.mul(ops.sigmoid(c), ops.add(b, c))
    e = ops.concat(ops.max_pool2d(a, kernel=2), ops.avg_pool2d(ops.sub(d, a), kernel=2), axis=3)
    f = ops.conv2d(ops.pad(e, pads=((0, 0), (1, 0), (0, 1), (0, 0)), value=9.0), W["wide"])
    g = ops.dense(ops.global_avg_pool2d(ops.hardswish(f)).reshape(1, 8), W["dense"])
    return ops.softmax(g), f


def test_every_layer_with_an_8_bit_form_gets_it() -> None:
    before, after = by_ranges(sf.trace(branches, sf.f32[1, 8, 8, 3]))
    assert_within_bounds(before, after)
    small = {n.name for n in after.nodes if after.values[n.output].type.scalar == sf.u8}
    assert {n.name for n in before.nodes} - small == {"softmax"}
    assert [n.op for n in after.nodes if n.op in ("quantize", "dequantize")] == [
        "quantize", "dequantize", "dequantize"
    ]  # fmt: skip


def test_what_leads_to_no_product_stays_float() -> None:
    def net(x: Any) -> Any:
        y = ops.conv2d(ops.mul(x, np.float32(0.1)), W["first"])
        return ops.sigmoid(ops.add(y, W["bias"])), ops.reshape(ops.exp(y), shape=(1, -1))

    _, after = by_ranges(sf.trace(net, sf.f32[1, 4, 4, 3]))
    found = [(n.op, after.values[n.output].type.scalar.name) for n in after.nodes]
    assert found == [
        ("quantize", "u8"), ("conv2d", "u8"), ("dequantize", "f32"), ("add", "f32"),
        ("sigmoid", "f32"), ("exp", "f32"), ("reshape", "f32"),
    ]  # fmt: skip


def chain(x: Any) -> Any:
    y = ops.conv2d(x, W["first"], padding="same", activation="relu6")
    return ops.conv2d(ops.tanh(ops.conv2d(y, W["point"])), W["point"])


@pytest.mark.parametrize(
    ("keep", "floats"),
    [
        (["conv2d_3"], {"conv2d_3", "tanh"}),  # no product reads the tanh in 8 bits
        (["conv2d_2"], {"conv2d_2", "tanh"}),  # its input is f32
        ("tanh", {"tanh"}),
        (["conv2d"], {"conv2d", "conv2d_2", "conv2d_3", "tanh"}),  # an op and a node
        (["tanh", "conv2d_3"], {"tanh", "conv2d_3"}),
    ],
)
def test_nodes_and_ops_stay_float_when_told(keep: Any, floats: set[str]) -> None:
    before = optimize(sf.trace(chain, sf.f32[1, 4, 4, 3]))
    after = quantized(before, observed(before), checked_names(before, keep))
    names = {n.name for n in before.nodes}
    found = {n.name for n in after.nodes if after.values[n.output].type.scalar == sf.f32}
    assert found & names == floats
    assert_within_bounds(before, after)


def test_inputs_are_outputs_and_names_that_are_taken() -> None:
    b = Builder("names")
    x = b.input("x", sf.f32[1, 4, 4, 3])
    w = b.constant("w", reals(1, 1, 3, 3))
    y = b.call(ops.conv2d, x, w, output="y")
    z = b.call(ops.neg, y, output="y.q")
    graph = b.graph(x, b.call(ops.conv2d, z, w, output="x.q"), z)
    before, after = by_ranges(graph)
    assert after.outputs == ("x", "x.q", "y.q")
    assert after.values["y.q"].type.scalar == sf.f32
    assert small_name(before, "y") in after.values
    assert_within_bounds(before, after)
    np.testing.assert_array_equal(evaluate(after, fed(graph))["x"], fed(graph)["x"])


def test_parts_of_a_concatenation_alone_are_rounded_once() -> None:
    def net(x: Any) -> Any:
        a = ops.conv2d(x, W["first"], activation="relu")
        b = ops.conv2d(x, W["first"] * np.float32(0.5))
        both = ops.conv2d(ops.concat(a, b, axis=3), W["wide"])
        return both, ops.conv2d(b, W["point"])

    before, after = by_ranges(sf.trace(net, sf.f32[1, 5, 5, 3]))
    q = {n.name: after.values[n.output].quantization for n in after.nodes}
    assert q["conv2d"] == q["concat"] != q["conv2d_2"]  # the second has another reader
    assert [n.inputs for n in after.nodes if n.op == "requantize"] == [("conv2d_2.q",)]
    assert_within_bounds(before, after)


def test_integers_between_layers_are_taken_as_they_are() -> None:
    q = ops.Quantization(1 / 255, 3)

    def net(x: Any) -> Any:
        return ops.conv2d(ops.dequantize(x, x_q=q), W["first"])

    graph = sf.trace(net, sf.u8[1, 4, 4, 3])
    _, after = by_ranges(graph)
    assert [n.op for n in after.nodes] == ["conv2d", "dequantize"]
    assert after.nodes[0].options["x_q"] == q


def test_a_channel_of_zeros_keeps_its_bias() -> None:
    w, bias = W["point"].copy(), reals(8)
    w[..., 2], w[..., 5] = 0, 1e-20

    graph = sf.trace(lambda x: ops.conv2d(x, w, bias), sf.f32[1, 2, 2, 8])
    before, after = by_ranges(graph)
    assert_within_bounds(before, after)
    found = evaluate(after, fed(graph))[after.outputs[0]][..., 2]
    assert np.abs(found - bias[2]).max() < 0.05


def spread(values: np.ndarray, bins: int = 2048) -> Spread:
    counts, _ = np.histogram(values, bins, (values.min(), values.max()))
    return Spread(float(values.min()), float(values.max()), counts)


def test_each_rule_gives_its_range() -> None:
    values = np.concatenate([np.linspace(-1, 1, 100_000), [-40.0, 60.0]])
    s = spread(values)
    assert RULES["minmax"](s, 0) == (-40, 60)
    low, high = RULES["percentile"](s, 99.99)
    assert -1.1 < low < -0.9 and 0.9 < high < 1.1
    low, high = RULES["percentile"](s, 100)
    assert low <= -39.9 and high == 60
    even = spread(np.linspace(-3, 5, 100_000))
    low, high = RULES["mse"](even, 0)
    assert -3 <= low < -2.9 and 4.9 < high <= 5

    def error(found: tuple[float, float]) -> float:
        scale, zero = scale_of(*found)
        q = np.clip(np.rint(x / scale) + zero, 0, 255)
        return float((((q - zero) * scale - x) ** 2).mean())

    x = np.random.default_rng(0).standard_t(3, 100_000)
    errors = {rule: error(RULES[rule](spread(x), 99.99)) for rule in RULES}
    assert errors["mse"] == min(errors.values()) < 0.9 * errors["minmax"]


@pytest.mark.parametrize("rule", RULES)
def test_a_value_that_never_changes_has_its_range(rule: str) -> None:
    low, high = RULES[rule](Spread(5.0, 5.0, np.zeros(2048, np.int64)), 99.0)
    assert (low, high) == (5, 5)
    scale, zero = scale_of(low, high)
    assert (255 - zero) * scale == pytest.approx(5)


def test_a_scale_holds_zero_exactly() -> None:
    assert scale_of(0.0, 0.0) == (1.0, 0)
    assert scale_of(2.0, 5.1) == (pytest.approx(0.02), 0)
    assert scale_of(-5.1, -2.0) == (pytest.approx(0.02), 255)
    scale, zero = scale_of(-1.0, 2.0)
    assert 0 < zero < 255 and (0 - zero) * scale == pytest.approx(-1, abs=scale / 2)


SAMPLES = reals(12, 8, 8, 3)


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        (SAMPLES, {"ranges": "max"}, "net: ranges='max' is not known; minmax, percentile, mse are"),
        (SAMPLES, {"percentile": 20}, "net: percentile=20 is not above 50 and at most 100"),
        (SAMPLES, {"keep_float": ["conv9"]}, "net: keep_float='conv9' is no op, and no node"),
        (SAMPLES.astype(float), {}, r"net: samples of x are float64\[12, 8, 8, 3\]; float32\[n, 8"),
        (SAMPLES[:, 1:], {}, r"net: samples of x are float32\[12, 7, 8, 3\]"),
        (SAMPLES[:0], {}, r"net: samples=\[0\] batches; the same number"),
        ({"y": SAMPLES}, {}, "net: samples are for y; inputs are x. Give"),
        (SAMPLES * np.float32(np.nan), {}, "net: value='x' is not finite for some sample"),
    ],
)
def test_what_does_not_fit_is_refused(samples: Any, options: Any, said: str) -> None:
    def net(x: Any) -> Any:
        return ops.conv2d(x, W["first"], activation="relu")

    with pytest.raises(ModelError, match=said):
        sf.quantize(sf.trace(net, sf.f32[1, 8, 8, 3]), samples, **options)


def test_a_network_is_calibrated_compiled_and_compared() -> None:
    graph = sf.trace(branches, sf.f32[1, 8, 8, 3])
    small = sf.quantize(graph, SAMPLES, ranges="minmax")
    report = sf.compare(graph, small, SAMPLES, labels=np.zeros(12, int))
    names = [n.output for n in optimize(graph).nodes]
    assert [x.name for x in report.layers] == names
    assert all(x.snr_db > 15 for x in report.layers), str(report)
    assert report.samples == 12 and report.accuracy is not None
    assert str(report).splitlines()[-1].startswith("accuracy ")
    expected = evaluate(small, {"x": SAMPLES[:1]})
    found = sf.compile(small).run([SAMPLES[:1]])
    for name, y in found.items():
        step = 0.0 if name == "softmax" else float(small.values[f"{name}.q"].quantization.single)
        assert np.abs(y - expected[name]).max() <= step + 0.02
    with pytest.raises(ModelError, match=r"labels are \[3\]; one for each of 12 samples"):
        sf.compare(graph, small, SAMPLES, labels=np.zeros(3, int))
    with pytest.raises(ModelError, match="has other inputs or outputs"):
        sf.compare(graph, sf.trace(chain, sf.f32[1, 8, 8, 3]), SAMPLES)
