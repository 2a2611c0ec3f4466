"""Tile: the points of one register tile, and the loads they need.

Counting registers and lowering walk it the same way. Writes no code.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from ..dsl.dataflow import Dataflow
from ..dsl.nest import Load, LoopNest


def points(sizes: Mapping[str, int], steps: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every point of a box, last axis fastest."""
    axes = list(sizes)
    for values in itertools.product(*(range(0, sizes[a], steps.get(a, 1)) for a in axes)):
        yield dict(zip(axes, values, strict=True))


def tile_keys(nest: LoopNest, flow: Dataflow, load: Load, lanes: int, group: int) -> int:
    """How many different registers one operand of a product needs for a whole tile."""
    if nest.type_of(load.operand).storage == "csr":
        return 1
    grid = {a.name for a in nest.grid}  # where unrolling repeats the tile, and adds nothing to it
    sizes = {a: min(n, nest.extents[a]) for a, n in flow.tile}
    sizes |= {a: min(n, nest.extents[a]) for a, n in flow.unroll if a not in grid}
    steps = {flow.lanes: lanes if flow.lanes != flow.group else lanes * group}
    if flow.group and flow.group != flow.lanes:
        steps[flow.group] = group
    index = load.index[-1]
    mine = {a: n for a, n in sizes.items() if a in index.axes}
    if all(isinstance(term, str) for term, _ in index.terms):
        # Axis by axis, equal offsets once: thousands of candidates are counted for a kernel.
        offsets = {0}
        for axis, n in mine.items():
            c, step = index.coefficient(axis), steps.get(axis, 1)
            offsets = {o + c * v for o in offsets for v in range(0, n, step)}
        return max(len(offsets), 1)
    seen = set()
    for p in points(mine, steps):
        seen.add(index.at(dict.fromkeys(index.axes, 0) | p))
    return max(len(seen), 1)


def next_uses(keys: Sequence[object]) -> list[int]:
    """For each position, where its key is used next (len(keys) when never)."""
    after = [0] * len(keys)
    seen: dict[object, int] = {}
    for i in range(len(keys) - 1, -1, -1):
        after[i] = seen.get(keys[i], len(keys))
        seen[keys[i]] = i
    return after


class Slots:
    """A few registers for many loads: the one whose next use is farthest away makes room (Belady's
    rule).

    The body is straight-line code, so the future is known; a sliding window rotates by itself, the
    new column going into the register that just died (YFlows).
    """

    def __init__(self, name: str, count: int, keys: Sequence[object]) -> None:
        self._names = [f"{name}_{i}" for i in range(count)]
        self._held: dict[object, str] = {}
        self._next: dict[object, int] = {}
        self._after = next_uses(keys)

    def take(self, key: object, position: int) -> tuple[str, bool]:
        """(register, must be loaded) for the use at `position`."""
        missing = key not in self._held
        if missing:
            free = [n for n in self._names if n not in self._held.values()]
            if not free:
                victim = max(self._held, key=lambda k: self._next[k])
                free = [self._held.pop(victim)]
            self._held[key] = free[0]
        self._next[key] = self._after[position]
        return self._held[key], missing
