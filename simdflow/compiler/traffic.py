"""Traffic: bytes that a Program moves from beyond L1, and the cycles that they take.

What one pass of a loop shares with the next stays in a cache that holds all of a pass; the rest
comes from further out. Counts loops and addresses; knows nothing of registers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..dsl.nest import Affine, integer
from ..targets import Target
from ..targets.core import Caches
from .ports import number
from .program import Address, Loop, Op, Program, Statement

LINE = 64
# Lines from L2 that go to few sets of L1 wait for each other: one line of every page takes 3.7 to
# 5.3 cycles, two neighbours of each 5.1 to 6.9 a line, four 3.0 to 3.6, eight 2.0 (one Zen 4 core).
SPREAD, CROWDED = 8, 0.6
AHEAD = 320  # instructions that the CPU has in flight
KEPT = 0.75  # of the ways of a set; a quarter is the other operands'
# From L3 a few channels of every pixel take longer than whole pixels: 3x3 of 112x112x64 f32, stride
# 2, 46 us in whole pixels and 54 in tiles of 16 channels (one Zen 4 core).
SCATTERED = 1.25
Spans = list[tuple[int, int]]
Loops = tuple[tuple[Loop, int], ...]  # with their trips, outermost first


@dataclass(frozen=True)
class _Access:
    """What a body reads or writes of a memory, by addresses with the same loop variables.

    ops      instructions of the body
    written  whether it is what is written
    spans    whole lines, (start, stop) in bytes
    offset   of the address in elements of `item` bytes, but for the loops' part
    loops    around the body
    """

    ops: int
    written: bool
    spans: Spans
    offset: Affine
    item: int
    loops: Loops

    @cached_property
    def bytes(self) -> int:
        """Of one pass of the body."""
        return sum(stop - start for start, stop in self.spans)

    @cached_property
    def path(self) -> tuple[int, ...]:
        """Its loops, by identity."""
        return tuple(id(loop) for loop, _ in self.loops)

    def sets(self, l1: Caches, passes: int = 1) -> set[int]:
        """The sets of L1 that so many passes of its loops go to, from the first set on."""
        way = l1.l1 // l1.ways
        found = {p % way for start, stop in self.spans for p in range(start, stop, LINE)}
        for loop, trips in reversed(self.loops):
            if passes < 2:
                break
            step = self.step(loop)
            moves = {i * step % way for i in range(min(passes, trips))}
            found = {(p + m) % way for p in found for m in moves}
            passes //= max(trips, 1)
        return {p // LINE for p in found}

    def between(self, depth: int) -> float:
        """Which part of the lines of a pass lie between two readings of one that the next pass of
        that loop reads as well.
        """
        step = self.step(self.loops[depth][0])
        lines = [p for start, stop in self.spans for p in range(start, stop, LINE)]
        place = {p: i for i, p in enumerate(lines)}
        back = [i - place[p - step] for i, p in enumerate(lines) if step and p - step in place]
        return 1 - back[0] / len(lines) if back else 1.0

    @property
    def scattered(self) -> bool:
        """Whether the next pass does not go on where this one ends."""
        steps = [abs(n) for loop, _ in reversed(self.loops) if (n := self.step(loop))]
        return bool(steps) and steps[0] > max(stop - start for start, stop in self.spans)

    def step(self, loop: Loop) -> int:
        """Bytes between two passes of a loop."""
        return integer(self.offset.coefficient(loop.var)) * loop.step * self.item

    def grown(self, depth: int) -> float:
        """How many times what one pass of that loop touches the whole loop does."""
        loop, trips = self.loops[depth]
        step = self.step(loop)
        return 1 + (trips - 1) * _beyond(self.spans, step) / self.bytes if step else 1.0


def traffic(program: Program, target: Target) -> tuple[float, float, float]:
    """(bytes that come from beyond L1, cycles they take, cycles of stores to lines beyond L2)."""
    core, caches = target.core, target.core.caches
    accesses = _accesses(program)
    far = cycles = stores = 0.0
    for a, l1, l2, l3 in zip(
        accesses,
        _missed(accesses, caches.l1, caches),
        _missed(accesses, caches.l2),
        _missed(accesses, caches.l3),
        strict=True,
    ):
        beyond2 = min(l1, l2)
        beyond3 = min(beyond2, l3)
        far += l1
        cycles += (l1 - beyond2) * crowding(len(a.sets(caches, AHEAD // a.ops))) / core.l2_bytes
        cycles += (beyond2 - beyond3) * (SCATTERED if a.scattered else 1.0) / core.l3_bytes
        cycles += beyond3 / core.memory_bytes
        if a.written:
            stores += (beyond2 - beyond3) / core.l3_bytes + beyond3 / core.memory_bytes
    return far, cycles, stores


def crowding(sets: float) -> float:
    """How many times as long lines take from L2 that go to so many sets of L1 at a time."""
    return max(1.0, SPREAD / sets) ** CROWDED


def _missed(accesses: Sequence[_Access], size: int, l1: Caches | None = None) -> list[float]:
    """Bytes of each access that a cache of that size has to fetch; of L1, also by its sets."""
    touched: dict[tuple[int, ...], float] = defaultdict(float)  # by the loops that stand still
    for a in accesses:
        bytes_ = float(a.bytes)
        touched[a.path] += bytes_
        for depth in range(len(a.loops) - 1, -1, -1):
            bytes_ *= a.grown(depth)
            touched[a.path[:depth]] += bytes_
    if touched[()] <= size:
        return [0.0] * len(accesses)
    # Of what is a little too much for a large cache, the next call finds a part: 1.08 MB in 1 MB
    # of L2 takes no longer than 0.9 MB (3x3 of 28x28x256 f32, stride 2, one Zen 4 core).
    again = 1.0 if l1 else min(1.0, touched[()] / size - 1)
    found = []
    for a in accesses:
        bytes_ = float(a.bytes)
        for depth in range(len(a.loops) - 1, -1, -1):
            kept = touched[a.path[: depth + 1]] <= size and (not l1 or _room(a, depth, l1))
            bytes_ *= a.grown(depth) if kept else a.loops[depth][1]
        found.append(bytes_ * again)
    return found


def _room(a: _Access, depth: int, caches: Caches) -> bool:
    """Whether what a pass of the loop `depth` shares with the next has room in its sets of L1.

    Lines are read by rising addresses, so that the last rows of a pass, which the next one begins
    with, are the most recent; where passes follow each other along a row, all of one lies between.
    """
    way = caches.l1 // caches.ways
    sets, lines = a.sets(caches), a.bytes / LINE
    for i in range(depth + 1, len(a.loops)):
        loop, trips = a.loops[i]
        step = a.step(loop)
        lines *= a.grown(i)
        if step % way and len(sets) < way // LINE:
            moves = {n * step % way // LINE for n in range(min(trips, way))}
            sets = {(s + m) % (way // LINE) for s in sets for m in moves}
    return lines * a.between(depth) <= KEPT * len(sets) * caches.ways


def _accesses(program: Program) -> list[_Access]:
    found: dict[tuple, tuple[int, bool, Affine, int, Loops, set[tuple[int, int]]]] = {}
    _collect(program.body, program, (), found)
    return [
        _Access(ops, written, _merged(spans), offset, item, loops)
        for ops, written, offset, item, loops, spans in found.values()
    ]


def _collect(
    body: Sequence[Statement],
    program: Program,
    loops: Loops,
    found: dict[tuple, tuple[int, bool, Affine, int, Loops, set[tuple[int, int]]]],
) -> None:
    path, ops = tuple(id(loop) for loop, _ in loops), sum(isinstance(s, Op) for s in body)
    for s in body:
        if isinstance(s, Loop):
            trips = 4
            if isinstance(s.start, int) and isinstance(s.stop, int):
                trips = max(0, -(-(s.stop - s.start) // s.step))
            _collect(s.body, program, (*loops, (s, trips)), found)
        elif isinstance(s, Op):
            for arg in s.args:
                if isinstance(arg, Address):
                    item = max(program.memory(arg.operand).scalar.bits // 8, 1)
                    wide = s.vec.lanes if s.name != "broadcast" else number(s, 1)
                    start = integer(arg.offset.const) * item
                    stop = start + wide * item
                    key = (arg.operand, arg.offset.terms, path)
                    new = (ops, not s.dst, arg.offset, item, loops, set[tuple[int, int]]())
                    spans = found.setdefault(key, new)[-1]
                    spans.add((start - start % LINE, stop + -stop % LINE))


def _merged(spans: set[tuple[int, int]]) -> Spans:
    """The spans in order, those that touch as one."""
    found: Spans = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _beyond(spans: Spans, step: int) -> int:
    """Bytes of the spans, moved by `step`, that are in none of them."""
    outside, at = 0, 0
    for start, stop in spans:
        start, stop = start + step, stop + step
        outside += stop - start
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        i = at
        while i < len(spans) and spans[i][0] < stop:
            outside -= min(stop, spans[i][1]) - max(start, spans[i][0])
            i += 1
    return outside
