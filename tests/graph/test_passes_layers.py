"""What is folded into layers and fused with them, and layers between quantize and dequantize."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_graphs import RNG, conv, kinds, made, one, reals, same

import simdflow as sf
from simdflow import OperandError, f32, i8, i32, i64, ops, u8
from simdflow.graph import passes
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph
from simdflow.ops import Quantization

AROUND = ((0, 0), (1, 1), (1, 1), (0, 0))
Q1, Q2 = Quantization(0.05, 3), Quantization(0.1, -4)
W_Q = Quantization(np.array([0.01, 0.02, 0.03, 0.04], np.float32))


def test_batch_norm_factors_and_offsets_fold_into_the_weights() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.add, conv(b, x), b.constant("o", reals(1, 1, 1, 4)))
        y = b.call(ops.div, y, b.constant("s", one(2)))
        y = b.call(ops.sub, b.constant("t", reals(4)), y)
        rows = [b.constant("r", np.abs(reals(4)) + one(0.1)) for _ in range(4)]
        y = b.call(ops.batch_norm, y, *rows, epsilon=1e-3)
        return b.call(ops.mul, y, b.constant("u", reals(4)), activation="relu")

    graph = made(f32[1, 3, 3, 2], make)
    after = passes.fold_batch_norm(graph)
    assert kinds(after) == ["conv2d"]
    assert after.nodes[0].options["activation"] == "relu"
    same(graph, after)


def test_a_map_before_a_layer_folds_into_it_too() -> None:
    """The offset only where the layer has no border, which stays 0."""

    def make(b: Builder, x: str) -> tuple[str, ...]:
        def mapped(n: int) -> str:
            y = b.call(ops.mul, b.call(ops.exp, x), b.constant("s", reals(n)))
            return b.call(ops.add, y, b.constant("t", reals(n)))

        w = b.constant("w", reals(2, 2, 2, 6))
        grouped = b.call(ops.conv2d, mapped(4), w, b.constant("b", reals(6)), groups=2)
        deep = b.call(ops.depthwise_conv2d, mapped(4), b.constant("w", reals(2, 2, 8)))
        scaled = b.call(ops.mul, b.call(ops.exp, x), b.constant("s", reals(4)))
        return grouped, deep, conv(b, scaled, padding=1), conv(b, mapped(4), padding=1)

    graph = made(f32[1, 3, 3, 4], make)
    after = passes.fold_batch_norm(graph)
    assert sorted(kinds(after)) == sorted(
        ["exp"] * 4 + ["conv2d"] * 3 + ["depthwise_conv2d", "mul", "add"]
    )
    same(graph, after)


def test_one_factor_for_all_folds_through_moves() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.dense, x, b.constant("w", reals(4, 6)))
        y = b.call(ops.transpose, b.call(ops.reshape, y, shape=(3, 2, 3)), axes=(1, 0, 2))
        return b.call(ops.mul, y, b.constant("c", one(0.125)))

    graph = made(f32[3, 4], make)
    after = passes.fold_batch_norm(graph)
    assert kinds(after) == ["dense", "reshape", "transpose"]
    assert after.nodes[0].inputs[2] is None
    same(graph, after)


def test_arithmetic_with_nothing_goes() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.mul, b.constant("i", one(1)), x)
        y = b.call(ops.sub, b.call(ops.add, y, b.constant("o", np.zeros(4, np.float32))), x)
        return b.call(ops.div, b.call(ops.exp, y), b.constant("i", one(1)))

    assert kinds(passes.simplify(made(f32[3, 4], make))) == ["sub", "exp"]


def test_a_softmax_of_rows_needs_no_reshape() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.softmax, b.call(ops.reshape, x, shape=(6, 4)))
        return b.call(ops.reshape, y, shape=(2, 3, 4))

    graph = made(f32[2, 3, 4], make)
    assert kinds(passes.simplify(graph)) == ["softmax"]
    same(graph, passes.simplify(graph))


def test_a_condition_turned_round_chooses_the_other_way() -> None:
    def make(b: Builder, x: str) -> str:
        number = b.call(ops.cast, b.call(ops.equal, x, x), to=f32)
        missing = b.call(ops.cast, b.call(ops.sub, b.constant("i", one(1)), number), to=u8)
        return b.call(ops.where, missing, b.constant("z", one(0)), x)

    graph = made(f32[3, 4], make)
    after = passes.recognize(graph)
    assert kinds(after) == ["equal", "where"]
    same(graph, after)


def test_a_layer_that_something_else_reads_keeps_its_weights() -> None:
    def make(b: Builder, x: str) -> tuple[str, str]:
        y = conv(b, x)
        return b.call(ops.mul, y, b.constant("c", reals(4))), b.call(ops.relu, y)

    assert kinds(passes.fold_batch_norm(made(f32[1, 3, 3, 2], make))) == ["conv2d", "mul", "relu"]


def test_a_pad_becomes_padding() -> None:
    def make(b: Builder, x: str) -> tuple[str, ...]:
        pads = ((0, 0), (1, 0), (2, 1), (0, 0))
        zeros = b.call(ops.pad, x, pads=pads)
        least = b.call(ops.pad, x, pads=AROUND, value=-math.inf)
        w = b.constant("w", reals(3, 3, 2))
        return (
            conv(b, zeros, padding=1),
            b.call(ops.depthwise_conv2d, zeros, w, padding="same", stride=2),
            b.call(ops.max_pool2d, least, kernel=2),
            b.call(
                ops.avg_pool2d, b.call(ops.pad, x, pads=((0, 0), (1, 1), (1, 1), (0, 0))), kernel=3
            ),
        )

    graph = made(f32[1, 4, 4, 2], make)
    after = passes.fold_pads(graph)
    assert "pad" not in kinds(after)
    assert after.nodes[0].options["padding"] == ((2, 1), (3, 2))
    same(graph, after)


@pytest.mark.parametrize(
    ("pads", "value"),
    [(((0, 0), (1, 1), (1, 1), (0, 0)), 1.0), (((0, 0), (1, 1), (1, 1), (0, 2)), 0.0)],
)
def test_a_pad_that_is_no_border_stays(pads: Any, value: float) -> None:
    graph = made(f32[1, 4, 4, 2], lambda b, x: conv(b, b.call(ops.pad, x, pads=pads, value=value)))
    assert kinds(passes.fold_pads(graph)) == ["pad", "conv2d"]


def test_a_quantized_pad_holds_the_zero_point() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.pad, x, pads=AROUND, value=3)
        w = b.constant("w", np.ones((3, 3, 2, 4), np.int8))
        return b.call(ops.conv2d, y, w, x_q=Q1, w_q=W_Q, y_q=Q2)

    graph = made(i8[1, 4, 4, 2], make)
    after = passes.fold_pads(graph)
    assert kinds(after) == ["conv2d"]
    same(graph, after, 0)


@pytest.mark.parametrize(
    ("clamp", "options", "activation"),
    [
        (ops.relu, {}, "relu"),
        (ops.relu6, {}, "relu6"),
        (ops.clip, {"low": 0.0, "high": 6.0}, "relu6"),
        (ops.clip, {"low": -1.0, "high": 1.0}, "relu_n1_to_1"),
        (ops.clip, {"low": 0.0, "high": math.inf}, "relu"),
    ],
)
def test_a_clamp_becomes_the_activation_of_its_layer(
    clamp: Any, options: dict[str, float], activation: str
) -> None:
    graph = made(f32[1, 3, 3, 2], lambda b, x: b.call(clamp, conv(b, x), **options))
    after = passes.fuse_activation(graph)
    assert kinds(after) == ["conv2d"]
    assert after.nodes[0].options["activation"] == activation
    same(graph, after)


def test_other_clamps_and_second_readers_are_left() -> None:
    def make(b: Builder, x: str) -> tuple[str, ...]:
        y = conv(b, x)
        return b.call(ops.clip, conv(b, x), low=0.0, high=5.0), b.call(ops.relu, y), y

    assert kinds(passes.fuse_activation(made(f32[1, 3, 3, 2], make))).count("relu") == 1


def real(b: Builder, x: str, q: Quantization = Q1) -> str:
    return b.call(ops.dequantize, x, x_q=q)


def stored(b: Builder, x: str, q: Quantization = Q2, kind: Any = i8) -> str:
    return b.call(ops.quantize, x, y_q=q, y_type=kind)


def weights(b: Builder, *shape: int, zero: int = 0) -> str:
    values = RNG.integers(-127, 128, shape) + zero
    array = values.astype(np.uint8 if zero else np.int8)
    q = Quantization(0.01, zero) if zero else W_Q
    return b.call(ops.dequantize, b.constant("w", array), x_q=q)


def test_a_network_between_quantize_and_dequantize_becomes_8_bit_layers() -> None:
    def make(b: Builder, x: str) -> str:
        bias = b.call(ops.dequantize, b.constant("b", np.arange(4, dtype=np.int32)),
                      x_q=Quantization(W_Q.scales * np.float32(0.05)))  # fmt: skip
        y = b.call(ops.conv2d, real(b, x), weights(b, 3, 3, 2, 4), bias, padding=1)
        y = stored(b, b.call(ops.relu, y))
        z = b.call(ops.depthwise_conv2d, real(b, y, Q2), weights(b, 3, 3, 4, zero=128), padding=1)
        z = stored(b, b.call(ops.add, real(b, stored(b, z), Q2), real(b, y, Q2)))
        z = b.call(ops.concat, real(b, z, Q2), real(b, y, Q2), axis=3)
        z = b.call(ops.max_pool2d, b.call(ops.sigmoid, real(b, stored(b, z), Q2)), kernel=2)
        z = b.call(ops.reshape, real(b, stored(b, z, Q1), Q1), shape=(1, 2 * 2 * 8))
        z = b.call(ops.matmul, z, weights(b, 32, 4))
        return real(b, stored(b, b.call(ops.add, z, b.constant("c", reals(4)))), Q2)

    graph = made(i8[1, 4, 4, 2], make)
    after = passes.run(graph)
    assert [n for n in kinds(after) if n not in ("flip_sign", "reshape")] == [
        "conv2d", "depthwise_conv2d", "add", "concat", "sigmoid", "max_pool2d", "dense",
        "dequantize",
    ]  # fmt: skip
    assert after.nodes[-1].op == "dequantize"
    first = next(n for n in after.nodes if n.op == "conv2d")
    assert (first.options["activation"], first.options["rounding"]) == ("relu", "onnx")
    assert after.constants[str(first.inputs[2])].dtype == np.int32


def test_weights_with_a_zero_point_stay_float() -> None:
    def make(b: Builder, x: str) -> str:
        return stored(b, b.call(ops.dense, real(b, x), weights(b, 2, 4, zero=120)))

    graph = made(i8[3, 2], make)
    assert kinds(passes.lower_quantization(graph)) == kinds(graph)
    assert kinds(passes.run(graph)) == ["dequantize", "dense", "quantize"]


def test_integers_are_carried_through_moves() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.pad, real(b, x), pads=((0, 0), (0, 1)), value=0.5)
        y = b.call(ops.transpose, y, axes=(1, 0))
        y = real(b, stored(b, y, Q1), Q1)
        return stored(b, b.call(ops.concat, y, y, axis=0), Q2)

    graph = made(i8[3, 4], make)
    after = passes.carry_integers(graph)
    assert kinds(after) == ["pad", "transpose", "concat", "requantize"]
    assert after.nodes[0].options["value"] == 13
    same(graph, after, 0)


def test_tables_of_embeddings_are_gathered_as_integers() -> None:
    def make(b: Builder, ids: str) -> str:
        table = b.constant("table", RNG.integers(-128, 128, (7, 4)).astype(np.int8))
        return b.call(ops.gather, real(b, table), ids, axis=0)

    graph = made(i32.range(0, 6)[5], make)
    after = passes.run(graph)
    assert kinds(after) == ["gather", "dequantize"]
    same(graph, after, 0)


def test_an_index_outside_the_table_is_refused_by_the_model() -> None:
    b = Builder("rows")
    ids = b.input("ids", i32[5])
    table = b.constant("table", np.arange(12, dtype=np.float32).reshape(4, 3))
    graph = b.graph(b.call(ops.gather, table, ids, axis=0))
    bounded = passes.bound_indices(graph)
    assert (bounded.values["ids"].type.low, bounded.values["ids"].type.high) == (0, 3)
    model = sf.compile(graph)
    good = np.array([0, 3, 1, 1, 2], np.int32)
    assert np.array_equal(model(good), graph.constants[table][good])
    for wrong in (-1, 4):
        with pytest.raises(OperandError, match=r"ids has values .* 0 to 3 is allowed"):
            model(np.array([0, 1, 2, 3, wrong], np.int32))


def reading(move: Callable[[Builder, str], str]) -> Graph:
    """Rows of a table of 4 by what `move` makes of the input."""
    b = Builder("rows")
    ids = move(b, b.input("ids", i32[2, 3]))
    table = b.constant("table", np.arange(12, dtype=np.float32).reshape(4, 3))
    return b.graph(b.call(ops.gather, table, ids, axis=0))


@pytest.mark.parametrize(
    "move",
    [
        lambda b, x: b.call(ops.cast, b.call(ops.reshape, x, shape=(6,)), to=i64),
        lambda b, x: b.call(ops.transpose, b.call(ops.concat, x, x, axis=0), axes=(1, 0)),
    ],
)
def test_an_index_that_is_only_moved_is_refused_by_the_model(move: Any) -> None:
    graph = reading(move)
    model = sf.compile(graph)
    good = np.array([[0, 3, 1], [1, 2, 2]], np.int32)
    assert np.array_equal(model(good), evaluate(graph, {"ids": good})[graph.outputs[0]])
    with pytest.raises(OperandError, match=r"ids has values .* 0 to 3 is allowed"):
        model(np.array([[0, 1, 2], [0, 4, 0]], np.int32))


def test_an_index_that_is_computed_or_left_out_is_not_bounded() -> None:
    part = {"starts": (0, 0), "stops": (1, 3), "steps": (1, 1)}
    for move in (
        lambda b, x: b.call(ops.maximum, x, x),
        lambda b, x: b.call(ops.slice, x, **part),
    ):
        assert not passes.bound_indices(reading(move)).values["ids"].ranged


@pytest.mark.parametrize("activation", [ops.relu, ops.relu6])
def test_a_fused_activation_keeps_nan(activation: Any) -> None:
    def make(b: Builder, x: str) -> str:
        return b.call(activation, b.call(ops.add, conv(b, x), b.constant("o", reals(1, 1, 1, 4))))

    graph = made(f32[1, 3, 3, 2], make)
    assert len(passes.run(graph).nodes) < len(graph.nodes)
    x = reals(1, 3, 3, 2)
    x[0, 1, 1] = np.nan
    assert np.isnan(sf.compile(graph)(x)).any()
