"""Puts damaged copies of a .tflite file through `from_tflite`; a program, because what it looks for
is crashes, and because memory can only be limited for a process.

`python hostile_tflite.py FILE SEED COUNT SAMPLE COMPILED` flips bytes of FILE in COUNT ways. Every
copy must give a ModelError or a graph within SECONDS, and memory within `from_tflite`'s bound;
SAMPLE of the graphs are evaluated, and the first COMPILED of these must give the same compiled. It
prints how many loaded, were evaluated and were refused.
"""

from __future__ import annotations

import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from simdflow.dsl.errors import ModelError
from simdflow.frontends import tflite
from simdflow.frontends.tflite_graph import from_tflite, memory_bound
from simdflow.graph.compile import compile as compile_graph
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Graph

SECONDS = 20
# Larger graphs are loaded, not evaluated: that takes as long as the sizes in the file ask for.
MAX_VALUES = 1 << 24


def tables(content: bytes) -> list[int]:
    """Where bytes are that belong to no constant: a change there changes the model's structure."""
    free = np.ones(len(content), bool)
    start = np.frombuffer(content, np.uint8).ctypes.data
    for tensor in tflite.parse(content).tensors:
        if tensor.data is not None:
            at = tensor.data.ctypes.data - start
            if 0 <= at < len(content):
                free[at : at + tensor.data.nbytes] = False
    return [int(i) for i in np.flatnonzero(free)]


def damaged(content: bytes, places: list[int], rng: random.Random) -> bytes:
    """A copy with one to eight changed bytes, in the tables or anywhere."""
    copy = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.choice(places) if rng.random() < 0.5 else rng.randrange(len(copy))
        copy[at] = rng.choice((copy[at] ^ 1 << rng.randrange(8), rng.randrange(256), 0, 255))
    return bytes(copy)


def evaluated(graph: Graph, rng: np.random.Generator, compiled: bool) -> bool:
    """Whether the graph is small enough; if so, its outputs are what their types say and, if it is
    to be `compiled`, what the model gives.
    """
    if sum(v.type.size for v in graph.values.values()) > MAX_VALUES:
        return False
    inputs = {}
    for name in graph.inputs:
        kind = graph.values[name].type
        if kind.scalar.is_float:
            inputs[name] = rng.normal(size=kind.shape).astype(kind.scalar.dtype)
        else:
            inputs[name] = rng.integers(0, 2, kind.shape).astype(kind.scalar.dtype)
    found = evaluate(graph, inputs)
    for name, array in found.items():
        kind = graph.values[name].type
        assert (array.shape, array.dtype) == (kind.shape, kind.scalar.dtype), name
    if compiled:
        given = compile_graph(graph).run(inputs)
        for name, array in found.items():
            assert alike(given[name], array), name
    return True


def alike(ours: np.ndarray, expected: np.ndarray) -> bool:
    """Equal for integers. Damaged weights can be of any size: floats are near by the largest of
    them, and are not compared where sums of them overflow.
    """
    if expected.dtype.kind != "f":
        return np.array_equal(ours, expected)
    largest = float(np.abs(expected).max(initial=0))
    if not largest < 1e30:
        return ours.shape == expected.shape
    return bool(np.all(np.abs(ours - expected) <= 1e-3 * largest + 1e-6))


def main(path: str, seed: int, count: int, sample: int, compiled: int) -> None:
    content = Path(path).read_bytes()
    places = tables(content)
    evaluated(from_tflite(content), np.random.default_rng(seed), compiled > 0)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + memory_bound(len(content))
    free = resource.getrlimit(resource.RLIMIT_AS)
    loaded = done = refused = 0
    for at in range(count):
        rng = random.Random(seed * 1_000_003 + at)
        copy = damaged(content, places, rng)
        resource.setrlimit(resource.RLIMIT_AS, (limit, free[1]))
        signal.alarm(SECONDS)
        try:
            graph = from_tflite(copy)
        except ModelError:
            refused += 1
            signal.alarm(0)
            continue
        except BaseException:
            print(f"{path}: seed {seed}, copy {at}", file=sys.stderr)
            raise
        signal.alarm(0)
        loaded += 1
        if done < sample:
            resource.setrlimit(resource.RLIMIT_AS, free)
            with np.errstate(all="ignore"):
                done += evaluated(graph, np.random.default_rng(at), done < compiled)
    print(loaded, done, refused)


if __name__ == "__main__":
    main(sys.argv[1], *(int(v) for v in sys.argv[2:]))
