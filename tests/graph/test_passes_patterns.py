"""What small ops become that spell out a larger one."""

from __future__ import annotations

import math

import pytest
from small_graphs import kinds, made, one, reals, same

from simdflow import f32, ops
from simdflow.graph import passes
from simdflow.graph.graph import Builder


def gelu_erf(b: Builder, x: str) -> str:
    inner = b.call(ops.erf, b.call(ops.mul, x, b.constant("r", one(math.sqrt(0.5)))))
    gate = b.call(
        ops.mul, b.constant("h", one(0.5)), b.call(ops.add, b.constant("i", one(1)), inner)
    )
    return b.call(ops.mul, gate, x)


def gelu_tanh(b: Builder, x: str) -> str:
    cube = b.call(ops.mul, b.constant("c", one(0.044715)), b.call(ops.pow, x, exponent=3.0))
    inner = b.call(ops.mul, b.call(ops.add, x, cube), b.constant("r", one(math.sqrt(2 / math.pi))))
    gate = b.call(ops.add, b.call(ops.tanh, inner), b.constant("i", one(1)))
    return b.call(ops.mul, b.call(ops.mul, b.constant("h", one(0.5)), x), gate)


def silu(b: Builder, x: str) -> str:
    return b.call(ops.mul, x, b.call(ops.sigmoid, x))


def hardswish(b: Builder, x: str) -> str:
    gate = b.call(ops.relu6, b.call(ops.add, x, b.constant("c", one(3))))
    return b.call(ops.mul, x, b.call(ops.mul, gate, b.constant("s", one(1 / 6))))


def hardswish_gate(b: Builder, x: str) -> str:
    return b.call(ops.mul, x, b.call(ops.hard_sigmoid, x, alpha=1 / 6, beta=0.5))


def layer_norm(b: Builder, x: str) -> str:
    less = b.call(ops.sub, x, b.call(ops.reduce_mean, x, axes=(-1,), keepdims=True))
    variance = b.call(
        ops.reduce_mean, b.call(ops.pow, less, exponent=2.0), axes=(-1,), keepdims=True
    )
    deviation = b.call(ops.sqrt, b.call(ops.add, variance, b.constant("e", one(1e-5))))
    y = b.call(ops.mul, b.call(ops.div, less, deviation), b.constant("g", reals(4)))
    return b.call(ops.add, y, b.constant("o", reals(4)))


def softmax(b: Builder, x: str) -> str:
    less = b.call(ops.sub, x, b.call(ops.reduce_max, x, axes=(3,), keepdims=True))
    e = b.call(ops.exp, less)
    return b.call(ops.div, e, b.call(ops.reduce_sum, e, axes=(3,), keepdims=True))


def scaled(b: Builder, x: str) -> str:
    return b.call(ops.softmax, b.call(ops.div, x, b.constant("c", one(8))))


def dense(b: Builder, x: str) -> str:
    return b.call(ops.matmul, x, b.constant("w", reals(5, 4)), transpose_b=True)


def relu6(b: Builder, x: str) -> str:
    return b.call(
        ops.minimum, b.call(ops.maximum, x, b.constant("z", one(0))), b.constant("s", one(6))
    )


PATTERNS = {
    "dense": dense,
    "gelu": gelu_erf,
    "gelu approximate": gelu_tanh,
    "hardswish": hardswish,
    "hardswish gate": hardswish_gate,
    "layer_norm": layer_norm,
    "relu6": relu6,
    "silu": silu,
    "softmax": softmax,
    "softmax scaled": scaled,
}


@pytest.mark.parametrize("name", PATTERNS)
def test_small_ops_become_the_one_they_spell(name: str) -> None:
    graph = made(f32[1, 2, 3, 4], PATTERNS[name])
    after = passes.recognize(graph)
    assert kinds(after) == [name.split()[0]]
    assert bool(after.nodes[0].options.get("approximate")) == ("approximate" in name)
    same(graph, after)


def test_a_mean_over_the_image_is_a_global_pool() -> None:
    graph = made(f32[1, 2, 3, 4], lambda b, x: b.call(ops.reduce_mean, x, axes=(1, 2)))
    assert kinds(passes.recognize(graph)) == ["global_avg_pool2d"]


@pytest.mark.parametrize("c", [0.7, 0.5])
def test_what_is_nearly_a_pattern_stays(c: float) -> None:
    def make(b: Builder, x: str) -> str:
        inner = b.call(ops.erf, b.call(ops.mul, x, b.constant("r", one(c))))
        gate = b.call(ops.add, inner, b.constant("i", one(1)))
        return b.call(ops.mul, b.call(ops.mul, gate, x), b.constant("h", one(0.5)))

    assert "gelu" not in kinds(passes.recognize(made(f32[3, 4], make)))
