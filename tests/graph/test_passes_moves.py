"""What the passes leave of constants, copies and transposes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from graphs import TO_NCHW, TO_NHWC
from small_graphs import RNG, conv, kinds, made, reals, same

from simdflow import f32, ops
from simdflow.graph import passes
from simdflow.graph.graph import Builder
from simdflow.ops import Quantization

Q1 = Quantization(0.05, 3)
W_Q = Quantization(np.array([0.01, 0.02, 0.03, 0.04], np.float32))


def test_results_of_constants_are_constants() -> None:
    def make(b: Builder, x: str) -> str:
        c = b.call(ops.exp, b.constant("c", reals(1, 4)))
        return b.call(ops.mul, x, b.call(ops.reshape, c, shape=(4,)))

    graph = made(f32[2, 4], make)
    after = passes.fold_constants(graph)
    assert kinds(after) == ["mul"]
    assert set(after.constants) == set(after.nodes[0].inputs) - {"x"}
    same(graph, after)


def test_dequantized_weights_wait_for_the_lowering() -> None:
    def make(b: Builder, x: str) -> str:
        w = b.call(ops.dequantize, b.constant("w", np.ones((4, 4), np.int8)), x_q=W_Q)
        return b.call(ops.dense, x, w)

    graph = made(f32[2, 4], make)
    assert kinds(passes.fold_constants(graph)) == ["dequantize", "dense"]
    assert kinds(passes.fold_dequantized(graph)) == ["dense"]


def test_constants_do_not_grow_beyond_a_bound() -> None:
    """A file of a few bytes may ask for gigabytes; only what is small is computed."""

    def make(b: Builder, x: str) -> str:
        big = b.call(ops.expand, b.constant("c", reals(1, 1)), shape=(1 << 15, 1 << 15))
        part = b.call(ops.slice, big, starts=(0, 0), stops=(1, 4), steps=(1, 1))
        return b.call(ops.add, x, part)

    assert kinds(passes.fold_constants(made(f32[1, 4], make))) == ["expand", "slice", "add"]


def test_an_output_that_is_constant_stays_computed() -> None:
    graph = made(
        f32[4], lambda b, x: (b.call(ops.relu, x), b.call(ops.exp, b.constant("c", reals(3))))
    )
    assert kinds(passes.fold_constants(graph)) == ["relu", "exp"]


def test_copies_go_and_chains_merge() -> None:
    def make(b: Builder, x: str) -> str:
        x = b.call(ops.reshape, x, shape=(2, 12))
        x = b.call(ops.reshape, b.call(ops.reshape, x, shape=(24,)), shape=(2, 3, 4))
        x = b.call(ops.transpose, b.call(ops.transpose, x, axes=(1, 2, 0)), axes=(1, 0, 2))
        x = b.call(ops.clip, x, low=-math.inf, high=math.inf)
        x = b.call(ops.slice, x, starts=(0, 0, 0), stops=(4, 3, 2), steps=(1, 1, 1))
        return b.call(ops.exp, b.call(ops.concat, x, axis=0))

    graph = made(f32[2, 3, 4], make)
    after = passes.simplify(graph)
    assert kinds(after) == ["transpose", "exp"]
    assert after.nodes[0].options["axes"] == (2, 1, 0)
    same(graph, after)


def test_equal_nodes_are_computed_once_and_dead_ones_never() -> None:
    def make(b: Builder, x: str) -> str:
        b.call(ops.tanh, x)
        return b.call(ops.add, b.call(ops.exp, x), b.call(ops.exp, x))

    assert kinds(passes.simplify(made(f32[4], make))) == ["exp", "add"]


def test_a_copy_of_an_input_stays_when_it_is_an_output() -> None:
    graph = made(f32[4], lambda b, x: b.call(ops.reshape, x, shape=(4,)))
    assert kinds(passes.simplify(graph)) == ["reshape"]


def test_a_copied_result_takes_the_name_of_the_output() -> None:
    graph = made(f32[4], lambda b, x: b.call(ops.reshape, b.call(ops.relu, x), shape=(4,)))
    after = passes.simplify(graph)
    assert (kinds(after), after.outputs) == (["relu"], ("reshape",))


def test_a_transpose_of_single_elements_is_a_reshape() -> None:
    graph = made(f32[2, 1, 1, 5], lambda b, x: b.call(ops.transpose, x, axes=TO_NCHW))
    assert kinds(passes.simplify(graph)) == ["transpose"]
    assert kinds(passes.still_transposes(graph)) == ["reshape"]


def nchw(b: Builder, x: str, layer: Callable[[Builder, str], str]) -> str:
    """A layer of NHWC inside a network in NCHW."""
    x = b.call(ops.transpose, x, axes=TO_NHWC)
    return b.call(ops.transpose, layer(b, x), axes=TO_NCHW)


def test_transposes_cancel_through_a_residual_network() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.relu, nchw(b, x, conv))
        z = b.call(ops.add, nchw(b, y, conv), y)
        z = b.call(ops.mul, z, b.constant("c", reals(4, 1, 1)))
        z = b.call(ops.concat, z, y, axis=1)
        z = b.call(ops.pad, z, pads=((0, 0), (0, 0), (1, 1), (2, 2)))
        gate = b.call(
            ops.sigmoid, nchw(b, b.call(ops.reduce_mean, z, axes=(2, 3), keepdims=True), conv)
        )
        z = b.call(ops.mul, nchw(b, z, conv), gate)
        return b.call(ops.reduce_mean, z, axes=(2, 3))

    graph = made(f32[1, 3, 6, 6], make)
    after = passes.cancel_transposes(graph)
    assert kinds(after).count("transpose") == 1  # of the input
    same(graph, after)


def test_a_flattened_transpose_moves_into_the_weights() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.reshape, nchw(b, x, conv), shape=(2, 4 * 3 * 5))
        w = b.call(
            ops.dequantize, b.constant("w8", RNG.integers(0, 256, (60, 4)).astype(np.uint8)), x_q=Q1
        )
        return b.call(ops.dense, b.call(ops.relu, y), w)

    graph = made(f32[2, 3, 3, 5], make)
    after = passes.cancel_transposes(graph)
    assert kinds(after).count("transpose") == 1
    assert after.values[after.nodes[-1].inputs[0]].type.shape == (2, 60)
    same(graph, after)


def test_heads_of_attention_keep_what_moves_rows() -> None:
    """[b, s, h*d] -> heads: three transposes that move rows; the product reads K as it lies."""

    def make(b: Builder, x: str) -> str:
        def heads(axes: tuple[int, ...]) -> str:
            y = b.call(ops.dense, x, b.constant("w", reals(8, 8)))
            return b.call(ops.transpose, b.call(ops.reshape, y, shape=(1, 5, 2, 4)), axes=axes)

        q, k, v = heads((0, 2, 1, 3)), heads((0, 2, 3, 1)), heads((0, 2, 1, 3))
        y = b.call(ops.matmul, b.call(ops.softmax, b.call(ops.matmul, q, k)), v)
        return b.call(ops.reshape, b.call(ops.transpose, y, axes=(0, 2, 1, 3)), shape=(1, 5, 8))

    graph = made(f32[1, 5, 8], make)
    after = passes.run(graph)
    products = [n for n in after.nodes if n.op == "matmul"]
    assert [bool(n.options.get("transpose_b")) for n in products] == [True, False]
    assert {n.options["axes"] for n in after.nodes if n.op == "transpose"} == {(0, 2, 1, 3)}
    same(graph, after)


def test_a_channel_shuffle_moves_channels_only() -> None:
    def make(b: Builder, x: str) -> str:
        y = b.call(ops.reshape, nchw(b, x, conv), shape=(1, 2, 2, 3, 5))
        y = b.call(ops.transpose, y, axes=(0, 2, 1, 3, 4))
        return nchw(b, b.call(ops.reshape, y, shape=(1, 4, 3, 5)), conv)

    graph = made(f32[1, 4, 3, 5], make)
    after = passes.still_transposes(passes.cancel_transposes(graph))
    assert kinds(after) == [
        "transpose",
        "conv2d",
        "reshape",
        "transpose",
        "reshape",
        "conv2d",
        "transpose",
    ]
    same(graph, after)


def test_transposes_stay_where_moving_them_would_cost_more() -> None:
    def make(b: Builder, x: str) -> tuple[str, ...]:
        y = b.call(ops.transpose, x, axes=(1, 0))
        return tuple(b.call(op, y) for op in (ops.exp, ops.tanh, ops.abs))

    graph = made(f32[3, 4], make)
    assert passes.cancel_transposes(graph) is graph
