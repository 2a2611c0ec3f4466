"""Model.map: batches on the workers of an executor, in order, with the bits of a plain call.

Threads share the model; processes get its graph and compile it once each, from the tests' cache;
Dask's workers are processes of a cluster on this machine.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simdflow as sf
from examples import compose
from simdflow import ops
from simdflow.graph.model import Model

RNG = np.random.default_rng(8)
BATCHES = [RNG.normal(0, 1, (2, 6, 6, 3)).astype(np.float32) for _ in range(12)]
W = RNG.normal(0, 1, (3, 3, 3, 8)).astype(np.float32)


def network(x: Any) -> Any:
    y = ops.conv2d(x, W, padding="same", activation="relu")
    return ops.softmax(ops.global_avg_pool2d(y).reshape(2, 8))


@pytest.fixture(scope="module")
def model() -> Model:
    return sf.compile(sf.trace(network, sf.f32[2, 6, 6, 3]))


@contextmanager
def threads(folder: Path) -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@contextmanager
def processes(folder: Path) -> Iterator[Executor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextmanager
def dask(folder: Path) -> Iterator[Executor]:
    distributed = pytest.importorskip("distributed", reason="simdflow[dask] is not installed")
    # Workers are started as modules of this process, so they need no main file of their own.
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(folder), host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):  # fmt: skip
        yield executor


@pytest.mark.parametrize("workers", [threads, processes, dask])
def test_batches_come_back_in_order(workers: Any, model: Model, tmp_path: Path) -> None:
    expected = [model(b) for b in BATCHES]
    with workers(tmp_path) as executor:
        found = model.map(BATCHES, executor)
        assert not isinstance(found, (list, tuple))
        for y, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize("workers", [threads, processes, dask])
def test_a_wrong_batch_is_refused_where_it_is_asked_for(
    workers: Any, model: Model, tmp_path: Path
) -> None:
    with workers(tmp_path) as executor:
        found = iter(model.map([BATCHES[0], BATCHES[1][:1]], executor))
        np.testing.assert_array_equal(next(found), model(BATCHES[0]))
        with pytest.raises(sf.OperandError, match=r"network: x is float32\[1, 6, 6, 3\]"):
            next(found)


def test_a_kernel_of_ones_own_travels(tmp_path: Path) -> None:
    model = sf.compile(sf.trace(compose.network, sf.f32[1, 64, 64, 3]))
    images = [RNG.random((1, 64, 64, 3), dtype=np.float32) for _ in range(3)]
    with processes(tmp_path) as executor:
        for y, x in zip(model.map(images, executor), images, strict=True):
            np.testing.assert_array_equal(y, model(x))


def test_a_process_compiles_a_model_once(model: Model) -> None:
    content = pickle.dumps(model)
    first, second = pickle.loads(content), pickle.loads(content)
    assert first is second
    assert pickle.loads(pickle.dumps(first)) is first
    other = sf.compile(model.graph)
    assert pickle.loads(pickle.dumps(other)) is not first
    np.testing.assert_array_equal(first(BATCHES[0]), model(BATCHES[0]))
