"""Models on several threads, from several threads, and after a fork: the same bits as on one.

The cost model keeps tiny layers on one thread; here it is told that every layer is worth sharing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from graphs import fed
from hypothesis import HealthCheck, given, settings
from quantized_graphs import quantized
from woven_graphs import woven

from simdflow import ModelError, f32, ops
from simdflow.graph import build, team
from simdflow.graph.compile import compile
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.model import Model

FEW = settings(
    max_examples=max(settings().max_examples // 25, 1),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every layer is shared, among up to four threads whatever the cores."""
    monkeypatch.setattr(build, "SHARED_CYCLES", 0)
    monkeypatch.setattr(build, "TEAM_CYCLES", -1e12)
    monkeypatch.setattr(team, "available", lambda: 4)
    yield


def same_bits(graph: Graph, threads: int) -> None:
    """One thread and several give the same, run after run."""
    one, many = compile(graph), compile(graph, threads=threads)
    for seed in (0, 1, 0):
        inputs = fed(graph, seed)
        expected = one.run(inputs)
        for _ in range(3):
            for name, y in many.run(inputs).items():
                about = f"{name} threads={many.threads}\n{graph}"
                np.testing.assert_array_equal(y, expected[name], about)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.usefixtures("sharing")
def test_random_networks_give_the_same_bits(threads: int) -> None:
    @FEW
    @given(woven())
    def drawn(graph: Graph) -> None:
        same_bits(graph, threads)

    drawn()


@pytest.mark.usefixtures("sharing")
def test_8_bit_networks_give_the_same_bits() -> None:
    @FEW
    @given(quantized())
    def drawn(graph: Graph) -> None:
        same_bits(graph, 3)

    drawn()


def network() -> Graph:
    """Layers whose borders are written again, so that threads have something to get wrong."""
    b = Builder("threads")
    x = b.input("x", f32[1, 9, 11, 8])
    rng = np.random.default_rng(0)
    for i, k in enumerate((3, 3, 3, 5, 5, 3)):
        w = b.constant("w", rng.normal(0, 0.1, (k, k, 8, 8)).astype(np.float32))
        x = b.call(ops.conv2d, x, w, padding=k // 2, activation="relu", name=f"conv{i}")
    b.call(ops.add, x, b.call(ops.max_pool2d, x, kernel=3, stride=1, padding=1))
    return b.graph("add", "conv2")


@pytest.mark.usefixtures("sharing")
def test_every_number_of_threads_is_the_same() -> None:
    graph = network()
    inputs = fed(graph)
    expected = compile(graph).run(inputs)
    for threads in (2, 3, 4):
        model = compile(graph, threads=threads)
        assert model.threads == threads
        assert sum(c.split for c in model.network.calls) > 1
        for _ in range(50):
            for name, y in model.run(inputs).items():
                np.testing.assert_array_equal(y, expected[name])


def test_tiny_layers_stay_on_one_thread() -> None:
    b = Builder("tiny")
    b.input("x", f32[1, 4, 4, 3])
    b.call(ops.relu, "x")
    assert compile(b.graph("relu"), threads=4).threads == 1


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2", None])
def test_other_numbers_are_refused(threads: object) -> None:
    with pytest.raises(ModelError, match="threads"):
        compile(network(), threads=threads)


def called_at_once(model: Model, callers: int, times: int) -> None:
    """Each Python thread has inputs of its own, and gets its own outputs."""
    inputs = [fed(model.graph, seed) for seed in range(callers)]
    expected = [{k: y.copy() for k, y in model.run(x).items()} for x in inputs]
    wrong: list[str] = []
    start = threading.Barrier(callers)

    def call(at: int) -> None:
        start.wait()
        for _ in range(times):
            for name, y in model.run(inputs[at]).items():
                if not np.array_equal(y, expected[at][name]):
                    wrong.append(f"{name} of caller {at}")

    workers = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_eight_callers_at_once() -> None:
    called_at_once(compile(network()), 8, 50)


@pytest.mark.usefixtures("sharing")
def test_eight_callers_of_a_model_of_several_threads() -> None:
    called_at_once(compile(network(), threads=2), 8, 20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.usefixtures("sharing")
@pytest.mark.parametrize("threads", [1, 3])
def test_a_forked_child_goes_on(threads: int) -> None:
    model = compile(network(), threads=threads)
    inputs = fed(model.graph)
    expected = model.run(inputs)
    child = os.fork()
    if child == 0:
        good = all(
            np.array_equal(y, expected[name])
            for _ in range(20)
            for name, y in model.run(inputs).items()
        )
        os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    for name, y in model.run(inputs).items():
        np.testing.assert_array_equal(y, expected[name])


def line() -> Graph:
    """One input, one output."""
    b = Builder("line")
    b.input("x", f32[2, 5])
    b.call(ops.dense, "x", b.constant("w", np.eye(5, dtype=np.float32) * 3))
    return b.graph("dense")


def test_batches_are_mapped_over_threads_and_processes() -> None:
    model = compile(line())
    batches = [np.full((2, 5), i, np.float32) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(model.map(batches, pool))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        elsewhere = list(model.map(batches, processes))
    for i, (y, z) in enumerate(zip(found, elsewhere, strict=True)):
        np.testing.assert_array_equal(y, np.full((2, 5), 3 * i, np.float32))
        np.testing.assert_array_equal(z, y)
