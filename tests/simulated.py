"""A stored schedule run in numpy, on one block of memory laid out as the arena plans it.

Turns `Stored` and `Arena` into what the native code must compute, without compiling anything: every
nest is evaluated by `simdflow.testing.bounds` on views of the memory, borders are written when the
plan says so, and all other bytes start as garbage. It does not run the emitted code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from simdflow.dsl.nest import Const, LoopNest
from simdflow.dsl.types import OperandType
from simdflow.graph.arena import Arena, plan
from simdflow.graph.fuse import fuse
from simdflow.graph.graph import Graph
from simdflow.graph.steps import Read, Step, steps_of
from simdflow.graph.storage import Slab, Stored, store
from simdflow.operands import PackedOperand
from simdflow.targets import target
from simdflow.testing.bounds import bounds

GARBAGE = 0x5A


def planned(graph: Graph, cpu: str | None = None, fused: bool = True) -> tuple[Stored, Arena]:
    """The schedule of a graph as it is, without passes, and the plan of its memory."""
    schedule = steps_of(graph, target(cpu))
    stored = store(fuse(schedule) if fused else schedule)
    return stored, plan(stored, {})


class Simulation:
    """The memory of a plan, and the steps that run on it."""

    def __init__(self, stored: Stored, arena: Arena) -> None:
        self.stored, self.arena = stored, arena
        self.memory = np.full(arena.nbytes, GARBAGE, np.uint8)
        for name, life in arena.lives.items():
            if life.slab.bordered:
                self.slab(name)[...] = life.slab.fill

    def slab(self, root: str) -> np.ndarray:
        """All memory of a root slot, its border with it."""
        kind, at = self.arena.lives[root].slab.kind, self.arena.offsets[root]
        nbytes = self.arena.lives[root].slab.nbytes
        return self.memory[at : at + nbytes].view(kind.scalar.dtype).reshape(kind.stored)

    def seen(self, slot: str, kind: OperandType) -> np.ndarray:
        """The memory of a slot as a nest sees it that is bound to `kind`."""
        whole = self.slab(self.stored.schedule.root(slot))
        assert whole.dtype == kind.scalar.dtype
        return whole.reshape(kind.stored)[kind.inside]

    def value(self, slot: str) -> np.ndarray:
        """The tensor in a slot."""
        place = self.stored.schedule.place(slot)
        whole = self.slab(place.root)
        kind = self.stored.slabs[place.root].kind
        inside = whole[(*kind.inside, ...)]
        if place.frame:
            inside = inside[tuple(slice(a, n - b) for n, (a, b) in
                                  zip(inside.shape, place.frame, strict=True))]  # fmt: skip
        return inside.reshape(self.stored.schedule.slots[slot].shape)

    def refill(self, at: int) -> None:
        """Write the borders that the plan has written before step `at`, and nothing else."""
        for name in self.arena.refilled.get(at, ()):
            slab = self.arena.lives[name].slab
            outside = np.ones(slab.kind.stored, bool)
            outside[slab.kind.inside] = False
            self.slab(name)[outside] = slab.fill

    def step(self, at: int) -> None:
        """Run one step."""
        self.refill(at)
        step = self.stored.schedule.steps[at]
        out = step.nest.type_of(step.nest.out.name)
        found = bounds(step.nest, {n: self._operand(step, n) for n in step.reads}).value
        with np.errstate(all="ignore"):
            self.seen(step.writes, out)[...] = np.where(
                stored_points(step.nest),
                found.astype(out.scalar.dtype),
                self.seen(step.writes, out),
            )

    def _operand(self, step: Step, name: str) -> np.ndarray:
        given, kind = step.reads[name], step.nest.type_of(name)
        if isinstance(given, Read):
            return self.seen(given.slot, kind).copy()
        plain = given.array if isinstance(given, PackedOperand) else given
        assert plain is not None
        return np.asarray(plain).reshape(kind.shape)

    def __call__(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One run: inputs in, every step, outputs out."""
        graph = self.stored.schedule.graph
        for name in graph.inputs:
            self.value(name)[...] = arrays[name]
        for at in range(len(self.stored.schedule.steps)):
            self.step(at)
        found = {name: self.value(name) for name in graph.outputs}
        # `Model.bind` gives these very views away.
        assert all(np.shares_memory(y, self.memory) for y in found.values())
        return {name: y.copy() for name, y in found.items()}


def stored_points(nest: LoopNest) -> np.ndarray:
    """Where a nest stores: a part of its output, for the copy inside a border."""
    ones = replace(nest.store, value=Const(1))
    marked: np.ndarray = bounds(replace(nest, reduction=None, epilogue=(), store=ones), {}).value
    return marked == 1


def spoiled(simulation: Simulation, slabs: Mapping[str, Slab]) -> None:
    """Write garbage wherever no border lies that the plan says is filled once and for all."""
    keep = np.zeros(simulation.memory.size, bool)
    refilled = {n for names in simulation.arena.refilled.values() for n in names}
    for root, slab in slabs.items():
        if slab.bordered and root not in refilled:
            outside = np.ones(slab.kind.stored, bool)
            outside[slab.kind.inside] = False
            at = simulation.arena.offsets[root]
            size = slab.kind.scalar.dtype.itemsize
            keep[at : at + slab.nbytes] |= np.repeat(outside.reshape(-1), size)
    simulation.memory[~keep] = GARBAGE
