"""Run by test_model_guarded in a process of its own: networks with guard pages round their memory.

Argument: a target. The arena and the weights each touch a page without access, first with their
last byte, then with their first; weights are on read-only pages. With `--short` the arena ends
early, to show that the guard works.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
from graphs import fed
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from quantized_graphs import quantized
from woven_graphs import woven

from simdflow.compiler.call import bound
from simdflow.graph.buffers import direct
from simdflow.graph.compile import Stages
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Graph
from simdflow.graph.network import Network, port_places
from simdflow.targets import target
from simdflow.testing import guarded

SHORT = "--short"


def survive(graph: Graph, network: Network, cut: int = 0) -> None:
    """Run it twice between guard pages, at either end; it computes its graph."""
    linked = network.linked()
    for at_end in (True, False):
        arena = guarded(network.memory.make()[: network.memory.nbytes - cut], at_end)
        weights = guarded(network.weights, at_end, read_only=True)
        places = port_places((*network.inputs, *network.outputs))
        table = np.array([arena.ctypes.data + at for at in places], np.uint64)
        run = bound(linked.entry, (arena, weights, table), 0, 0)
        called = direct(replace(network, weights=weights), linked.arrays, arena)
        for seed in (0, 1):
            inputs = fed(graph, seed)
            given = [guarded(inputs[p.name], at_end, read_only=True) for p in network.inputs]
            fresh = called(*given)
            assert fresh is not None
            fresh = fresh if len(network.outputs) > 1 else (fresh,)
            for port in network.inputs:
                port.view(arena)[...] = inputs[port.name]
            run()
            for name, y in evaluate(graph, inputs).items():
                at, port = next((n, p) for n, p in enumerate(network.outputs) if p.name == name)
                np.testing.assert_array_equal(fresh[at], port.view(arena), str(graph))
                np.testing.assert_allclose(port.view(arena), y, 1e-3, 1e-3, err_msg=str(graph))


def drawn(name: str, examples: int) -> None:
    """A few random networks of floats and of integers."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(woven(), quantized()))
    def attempt(graph: Graph) -> None:
        print(graph, flush=True)
        survive(graph, Stages(graph, target(name)).network())

    attempt()


def overrun(name: str) -> None:
    """A network whose arena ends before its last slab."""
    made: list[Graph] = []

    @settings(max_examples=1, database=None, derandomize=True, phases=[Phase.generate])
    @given(quantized())
    def one(graph: Graph) -> None:
        made.append(graph)

    one()
    network = Stages(made[0], target(name)).network()
    # What is only filled or copied in Python would raise there.
    memory = replace(network.memory, fills=())
    survive(made[0], replace(network, memory=memory, inputs=(), outputs=()), memory.nbytes - 64)


def main(name: str, what: str) -> None:
    if what == SHORT:
        overrun(name)
        sys.exit("the network wrote past the end and lived")
    drawn(name, int(what))


if __name__ == "__main__":
    main(*sys.argv[1:])
