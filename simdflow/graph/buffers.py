"""Buffers: a network with an arena of its own, ready to run.

Makes the arena, the views of inputs and outputs in it, and the callable. A batch that is larger
than the network's own goes through it in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.call import bound
from ..compiler.native import Function
from .network import Network, Port

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bound:
    """A network on buffers of its own: write `inputs`, call `run()`, read `outputs`.

    The arrays are views of the arena and never move; some have strides, where a border lies around
    them. One Bound is for one thread at a time.
    """

    inputs: Arrays
    outputs: Arrays
    run: Callable[[], object]
    arena: np.ndarray

    def __call__(self) -> Arrays:
        """Run; the outputs."""
        self.run()
        return self.outputs


def bind(
    network: Network,
    function: Function,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    repeats: int,
) -> Bound:
    """The network on a fresh arena; `inputs` and `outputs` are the ports for `repeats` runs."""
    arena = network.memory.make()
    places, results = (
        {p.name: p.view(arena) for p in ports} for ports in (network.inputs, network.outputs)
    )
    run = bound(function, (arena, network.weights), 0, 0)
    if repeats == 1:
        return Bound(places, results, run, arena)
    taken, given = (
        {p.name: np.zeros(p.type.stored, p.type.scalar.dtype) for p in ports}
        for ports in (inputs, outputs)
    )
    moves = [
        (
            [(place, _part(taken[name], at, len(place))) for name, place in places.items()],
            [(_part(given[name], at, len(y)), y) for name, y in results.items()],
        )
        for at in range(repeats)
    ]

    def run_all() -> None:
        for before, after in moves:
            for to, source in before:
                to[...] = source
            run()
            for to, source in after:
                to[...] = source

    return Bound(taken, given, run_all, arena)


def _part(array: np.ndarray, at: int, size: int) -> np.ndarray:
    """Group `at` of `size` samples."""
    return array[at * size : (at + 1) * size]
