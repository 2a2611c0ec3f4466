"""Bands: a producer and its consumer through a few rows give what whole tensors give.

The threshold is taken away, so that small networks are run this way; the definition is numpy's.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow import f32, ops, u8
from simdflow.graph import bands
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph
from simdflow.ops import Quantization

RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "WORTH_BYTES", 0)


def rolled(model: sf.Model) -> int:
    return sum(c.rolled is not None for c in model.network.calls)


def same(graph: Graph, model: sf.Model) -> None:
    """Twice, with other inputs between, so that nothing may be left over from a run before."""
    inputs = []
    for _ in range(2):
        shape, scalar = model.inputs[0].type.shape, model.inputs[0].type.scalar
        x = RNG.standard_normal(shape) * 40 + (128 if scalar == u8 else 0)
        low, high = (0, 255) if scalar == u8 else (-1e9, 1e9)
        inputs.append(np.clip(x, low, high).astype(scalar.dtype))
    for x in (*inputs, inputs[0]):
        (expected,) = evaluate(graph, {model.inputs[0].name: x}).values()
        found = model(x)
        if expected.dtype.kind == "f":
            assert np.abs(found - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1)
        else:
            assert np.array_equal(found, expected)


@settings(max_examples=6)
@given(
    height=st.integers(12, 23),
    width=st.integers(5, 9),
    channels=st.sampled_from([3, 8, 17]),
    stride=st.sampled_from([1, 2]),
    kernel=st.sampled_from([3, 5]),
    padding=st.sampled_from(["same", "valid", 1]),
)
def test_expand_and_depthwise_in_8_bits(
    height: int, width: int, channels: int, stride: int, kernel: int, padding: str | int
) -> None:
    b = Builder("bands")
    x_q, y_q, z_q = Quantization(0.05, 7), Quantization(0.1, 99), Quantization(0.2, 3)
    w_q = Quantization(0.02)
    x = b.input("x", u8[1, height, width, 4], x_q)
    w = b.constant("w", RNG.integers(-99, 99, (1, 1, 4, channels)).astype(np.int8))
    y = b.call(ops.conv2d, x, w, None, x_q=x_q, w_q=w_q, y_q=y_q)
    d = b.constant("d", RNG.integers(-99, 99, (kernel, kernel, channels)).astype(np.int8))
    z = b.call(
        ops.depthwise_conv2d, y, d, None, stride=stride, padding=padding, x_q=y_q, w_q=w_q, y_q=z_q
    )
    graph = b.graph(z)
    same(graph, sf.compile(graph))


def test_convolution_and_pooling_go_row_by_row() -> None:
    b = Builder("bands")
    x = b.input("x", f32[1, 80, 12, 3])
    w = b.constant("w", RNG.standard_normal((3, 3, 3, 8)).astype(np.float32))
    y = b.call(ops.conv2d, x, w, padding=1, activation="relu")
    graph = b.graph(b.call(ops.max_pool2d, y, kernel=3, stride=2, padding=1))
    model = sf.compile(graph)
    assert rolled(model) == 1
    # The tensor between is never whole: 80 x 12 x 8 values of f32.
    largest = max(size for name, size, *_ in model.network.memory.slabs if name not in ("x",))
    assert largest < 80 * 12 * 8 * 4
    same(graph, model)
    profile = model.profile(seconds=0.01)
    assert len(profile.lines) == len(model.network.calls)


def test_the_whole_tensor_stays_where_it_is_needed() -> None:
    """An output, a value with two readers, and more threads than one."""
    b = Builder("bands")
    x = b.input("x", f32[1, 80, 12, 3])
    w = b.constant("w", RNG.standard_normal((1, 1, 3, 8)).astype(np.float32))
    d = b.constant("d", RNG.standard_normal((3, 3, 8)).astype(np.float32))
    y = b.call(ops.conv2d, x, w)
    z = b.call(ops.depthwise_conv2d, y, d, padding=1)
    assert rolled(sf.compile(b.graph(z))) == 1
    assert rolled(sf.compile(b.graph(z, y))) == 0
    assert rolled(sf.compile(b.graph(z), threads=2)) == 0


def test_a_stored_network_keeps_its_bands() -> None:
    b = Builder("bands")
    x = b.input("x", f32[1, 80, 9, 3])
    w = b.constant("w", RNG.standard_normal((1, 1, 3, 8)).astype(np.float32))
    d = b.constant("d", RNG.standard_normal((3, 3, 8)).astype(np.float32))
    y = b.call(ops.depthwise_conv2d, b.call(ops.conv2d, x, w), d, padding=1)
    network = sf.compile(b.graph(y)).network
    again = type(network).restored(*network.stored())
    assert again.calls == network.calls
    assert any(c.rolled for c in again.calls)
