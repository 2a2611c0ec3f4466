"""A network as a list of steps over fixed buffers: what runs layer after layer.

It turns prepared steps and an input into outputs and into the time of each step. It knows no file
format (`tflite_layers` makes the steps) and computes nothing between the kernels; a step allocates
nothing, so every input after the first costs the kernels only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quantized:
    """real = scale * (q - zero_point) for the values of a whole tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class Step:
    """One operator, ready to run: `call` reads and writes buffers that never move.

    `call` is None for a step that only gives a buffer another shape. `macs` are the
    multiply-accumulates of one call, 0 for layers without products.
    """

    kind: str
    detail: str
    out: np.ndarray
    macs: int
    call: Callable[[], object] | None


@dataclass(frozen=True, eq=False)
class Network:
    """Steps in order, the buffer that they read first and the one that they write last.

    `input_quantized` and `output_quantized` are None where the buffer holds f32.
    """

    name: str
    target: str
    steps: tuple[Step, ...]
    input: np.ndarray
    output: np.ndarray
    input_quantized: Quantized | None
    output_quantized: Quantized | None


def outputs(network: Network, inputs: np.ndarray) -> np.ndarray:
    """[n, ...] outputs of [n, ...] inputs, one after the other, through the network's own buffers.

    `inputs` has the buffer's dtype and, but for the first axis, its shape (`samples.inputs` makes
    such arrays). Not for several threads at once: they would share the buffers.
    """
    calls = [step.call for step in network.steps if step.call is not None]
    found = np.empty((len(inputs), *network.output.shape[1:]), network.output.dtype)
    for x, y in zip(inputs, found, strict=True):
        network.input[0] = x
        for call in calls:
            call()
        y[...] = network.output[0]
    return found


def timings(network: Network, x: np.ndarray, seconds: float = 0.3) -> tuple[list[float], float]:
    """(microseconds of each step, microseconds of the whole), each the shortest of many passes.

    The steps run in order, so each finds the caches as its predecessor left them. A clock reading
    (about 0.05 us) is part of each step's time and of no other; the whole is timed without them.
    """
    network.input[0] = x
    clock = time.perf_counter_ns
    steps = [step.call for step in network.steps]
    calls = [call for call in steps if call is not None]
    best, whole = [2**63] * len(steps), 2**63
    end = clock() + int(seconds * 1e9)
    passes = 0
    while passes < 3 or clock() < end:
        for at, step in enumerate(steps):
            before = clock()
            if step is not None:
                step()
            best[at] = min(best[at], clock() - before)
        before = clock()
        for call in calls:
            call()
        whole = min(whole, clock() - before)
        passes += 1
    # A step without a call takes no time; what was measured there is the clock.
    return [
        t / 1e3 if s is not None else 0.0 for t, s in zip(best, steps, strict=True)
    ], whole / 1e3
