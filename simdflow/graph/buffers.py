"""Buffers: a network with an arena of its own, ready to run.

Makes the arena, the views of inputs and outputs, and the callable. A batch that is larger than the
network's own goes through it in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..compiler.call import Slot, bound, caller, with_fixed
from ..compiler.native import Function
from ..compiler.packing import aligned
from .network import SLACK, Network, port_places

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bound:
    """A network on buffers of its own: write `inputs`, call `run()`, read `outputs`.

    The arrays never move; some have strides, where a border lies around them. `memories` are what
    the entry function is given: arena, weights, addresses of inputs and outputs. One Bound is for
    one thread at a time.
    """

    inputs: Arrays
    outputs: Arrays
    run: Callable[[], object]
    memories: tuple[np.ndarray, np.ndarray, np.ndarray]

    def __call__(self) -> Arrays:
        """Run; the outputs."""
        self.run()
        return self.outputs


def direct(network: Network, function: Function, arena: np.ndarray) -> Callable[..., Any]:
    """The network on an arena, as a callable of input arrays that returns a fresh output, or a
    tuple of several: copied in, run and copied out in one native call.

    None where an array is not exactly what an input is: then nothing was touched.
    """
    ports = (*network.inputs, *network.outputs)
    kept = arena, network.weights
    slots = [Slot(a.shape, a.dtype) for a in kept]
    slots += [Slot(p.type.stored, p.type.scalar.dtype) for p in network.inputs]
    slots += [Slot(p.type.stored, p.type.scalar.dtype, written=True) for p in network.outputs]
    native = with_fixed(caller(function, slots, 0, 0), [*kept, *[None] * len(ports)])
    made = [(p.type.stored, p.type.scalar.dtype) for p in network.outputs]
    empty, count = np.empty, len(network.inputs)
    if len(made) == 1:
        shape, dtype = made[0]

        def one(*arrays: np.ndarray) -> np.ndarray | None:
            if len(arrays) != count:
                return None
            fresh = empty(shape, dtype)
            return fresh if native(*arrays, fresh) else None

        return one

    def several(*arrays: np.ndarray) -> tuple[np.ndarray, ...] | None:
        if len(arrays) != count:
            return None
        fresh = tuple([empty(shape, dtype) for shape, dtype in made])
        return fresh if native(*arrays, *fresh) else None

    return several


def bind(network: Network, function: Function, repeats: int) -> Bound:
    """The network on a fresh arena, for `repeats` runs: inputs and outputs of all of them lie in a
    row, borders included, so that each run reads and writes its own and nothing is copied.
    """
    arena = network.memory.make()
    every = (*network.inputs, *network.outputs)
    places = port_places(every)
    sizes = {p.offset: p.nbytes for p in every}
    if repeats == 1:
        memory = {at: arena[at:] for at in places}
    else:
        memory = {at: aligned(repeats * sizes[at] + SLACK) for at in places}
        for at, whole in memory.items():
            once = arena[at : at + sizes[at]]  # with its border filled
            whole[: repeats * sizes[at]].reshape(repeats, -1)[...] = once
    tables = [
        np.array([memory[at].ctypes.data + k * sizes[at] for at in places], np.uint64)
        for k in range(repeats)
    ]
    runs = [bound(function, (arena, network.weights, table), 0, 0) for table in tables]
    inputs, outputs = (
        {p.name: p.views(memory[p.offset], repeats) for p in ports}
        for ports in (network.inputs, network.outputs)
    )
    kept = arena, network.weights, tables[0]
    if repeats == 1:
        return Bound(inputs, outputs, runs[0], kept)

    def run_all(_: object = memory) -> None:  # whose addresses alone are in the tables
        for run in runs:
            run()

    return Bound(inputs, outputs, run_all, kept)
