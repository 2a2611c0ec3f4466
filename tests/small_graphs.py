"""Small graphs for the tests of single passes, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from graphs import fed

from simdflow import OperandType, ops
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder, Graph

RNG = np.random.default_rng(11)


def reals(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def one(value: float) -> np.ndarray:
    return np.float32(value)


def made(kind: OperandType, make: Callable[[Builder, str], Any]) -> Graph:
    """The graph of what `make` does to an input x."""
    b = Builder("made")
    found = make(b, b.input("x", kind))
    return b.graph(*(found if isinstance(found, tuple) else (found,)))


def kinds(graph: Graph) -> list[str]:
    """The ops of the graph, in order."""
    return [n.op for n in graph.nodes]


def same(before: Graph, after: Graph, bound: float = 1e-5) -> None:
    """Both compute the same of random inputs."""
    expected, found = evaluate(before, fed(before)), evaluate(after, fed(before))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=bound, atol=bound)


def conv(b: Builder, x: str, **options: Any) -> str:
    """A 1x1 convolution to 4 channels with bias."""
    w = b.constant("w", reals(1, 1, b.values[x].type.shape[3], 4))
    return b.call(ops.conv2d, x, w, b.constant("b", reals(4)), **options)
