"""Arena: an offset for every slab in one block of memory.

Slabs that are never alive at the same time may share bytes. A border has to survive: it does where
only slabs of the same layout and fill lie over it; elsewhere it is filled again before its slab is
written, which `Border` describes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..placing import APART, PAGE
from .entry import Border
from .network import SLACK
from .storage import Slab, Stored

ALIGNMENT = 64
LARGE = 1 << 16  # bytes from which a tensor is followed by up to a page of nothing
# A plan this near to the bound is taken; else so many others are tried (2 ms each).
NEAR = 1.02
TRIES = 100


@dataclass(frozen=True)
class Life:
    """A slab, its bytes with slack, and the first and last step during which it holds a value."""

    name: str
    slab: Slab
    first: int
    last: int

    @property
    def needed(self) -> int:
        """Bytes of the tensor, its border and its slack."""
        return -(-(self.slab.nbytes + SLACK) // ALIGNMENT) * ALIGNMENT

    @property
    def size(self) -> int:
        """Bytes it takes up. What lies behind a large one begins APART from it, modulo pages: it is
        as a rule the output of a layer that reads it (simdflow.placing). Six depthwise layers of
        7x7x1024 f32 take 13.1 us each so and 21.6 at the next boundary (one Zen 4 core).
        """
        size = self.needed
        return size + (APART - size) % PAGE if size >= LARGE else size

    @property
    def layout(self) -> tuple[object, ...]:
        """What two slabs must have in common to lie over each other's borders."""
        kind = self.slab.kind
        return kind.scalar, kind.memory, kind.frame, self.slab.fill

    def meets(self, other: Life) -> bool:
        """Whether both are alive at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where every slab lies.

    refilled   slabs whose border is filled before step `first` of their life, for each such step
    bound      the largest sum of the sizes alive at one step: no plan takes less
    """

    lives: Mapping[str, Life]
    offsets: Mapping[str, int]
    nbytes: int
    bound: int
    refilled: Mapping[int, tuple[str, ...]]


def plan(
    stored: Stored, scratch: Mapping[str, tuple[Slab, int]], calls: Sequence[int] = ()
) -> Arena:
    """Offsets for the slabs of a schedule, and for the scratch memory that a step has alone.

    `calls` is the number of the call that runs each step, where some run together.
    Inputs and outputs keep their memory from the first step to the last, so that a caller may write
    the one and read the other in place, and run twice.
    """
    of_step = calls or range(len(stored.schedule.steps))
    lives = {life.name: life for life in _lives(stored, scratch, of_step)}
    steps = max(of_step, default=-1) + 1

    def least(size: Callable[[Life], int]) -> int:
        """The largest sum of sizes alive at one step."""
        alive = ((x for x in lives.values() if x.first <= s <= x.last) for s in range(steps))
        return max((sum(map(size, some)) for some in alive), default=sum(map(size, lives.values())))

    offsets = _offsets(lives, least(lambda x: x.size))
    nbytes = max((offsets[n] + x.size for n, x in lives.items()), default=0)
    return Arena(lives, offsets, nbytes, least(lambda x: x.needed), _refilled(lives, offsets))


def _offsets(lives: Mapping[str, Life], bound: int) -> dict[str, int]:
    """The smallest of several plans, and of equal ones the one with the fewest refills.

    Each takes the slabs in some order and puts each one at the lowest free place. Largest first is
    within 1.0 to 1.25 of the bound on the networks at hand; where it is not near, orders that
    differ from the best one by two slabs are tried, always the same ones.
    """
    found: list[tuple[int, int, dict[str, int]]] = []

    def attempt(order: Sequence[Life], alike: bool) -> tuple[int, int]:
        offsets: dict[str, int] = {}
        for life in order:
            offsets[life.name] = _place(life, lives, offsets, alike)
        nbytes = max((offsets[n] + x.size for n, x in lives.items()), default=0)
        refills = sum(map(len, _refilled(lives, offsets).values()))
        found.append((nbytes, refills, offsets))
        return nbytes, refills

    orders: list[list[Life]] = [
        sorted(lives.values(), key=lambda x: (-x.size, x.first, x.name)),
        sorted(lives.values(), key=lambda x: (-x.size * (x.last - x.first + 1), x.first, x.name)),
        sorted(lives.values(), key=lambda x: (x.first, -x.size, x.name)),
    ]
    tried = [(attempt(order, alike), alike, order) for order in orders for alike in (True, False)]
    best, alike, order = min(tried, key=lambda t: t[0])
    draw = random.Random(len(lives))
    for _ in range(TRIES if len(order) > 1 else 0):
        if best[0] <= NEAR * bound:
            break
        other = list(order)
        i, j = draw.sample(range(len(other)), 2)
        other[i], other[j] = other[j], other[i]
        reached = attempt(other, alike)
        if reached <= best:
            best, order = reached, other
    return min(found, key=lambda f: f[:2])[2]


def _lives(
    stored: Stored, scratch: Mapping[str, tuple[Slab, int]], calls: Sequence[int]
) -> Iterable[Life]:
    schedule = stored.schedule
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for at, step in zip(calls, schedule.steps, strict=True):
        for slot in (*step.slots, step.writes):
            root = schedule.root(slot)
            first.setdefault(root, at)
            last[root] = at
    end = max(calls, default=-1) + 1
    for name in (*schedule.graph.inputs, *schedule.graph.outputs):
        root = schedule.root(name)
        first[root], last[root] = -1, end
    for root, slab in stored.slabs.items():
        yield Life(root, slab, first[root], last[root])
    for name, (slab, at) in scratch.items():
        yield Life(name, slab, calls[at], calls[at])


def _place(life: Life, lives: Mapping[str, Life], offsets: Mapping[str, int], alike: bool) -> int:
    """The lowest offset at which nothing lies that is alive with it; with `alike`, rather the one
    of a slab of the same layout, which saves filling its border again.
    """
    taken = sorted(
        (offset, offset + lives[n].size) for n, offset in offsets.items() if life.meets(lives[n])
    )
    if alike and life.slab.bordered:
        for n, offset in offsets.items():
            free = all(offset + life.size <= a or b <= offset for a, b in taken)
            if free and lives[n].layout == life.layout:
                return offset
    at = 0
    for a, b in taken:
        if at + life.size <= a:
            break
        at = max(at, b)
    return at


def _refilled(lives: Mapping[str, Life], offsets: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for name, life in lives.items():
        if not life.slab.bordered:
            continue
        low, high = offsets[name], offsets[name] + life.slab.nbytes
        for other, that in lives.items():
            same = that.layout == life.layout and offsets[other] == low
            apart = offsets[other] >= high or offsets[other] + that.slab.nbytes <= low
            if other != name and not same and not apart:
                found[life.first] = (*found.get(life.first, ()), name)
                break
    return found


def border(slab: Slab) -> Border:
    """The border of a slab of four axes that is framed along its rows and columns."""
    kind = slab.kind
    item = kind.scalar.dtype.itemsize
    n, h, w, c = kind.memory
    (_, _), (top, bottom), (left, right), (_, _) = kind.frame
    row, pixel = w * c * item, c * item
    return Border(
        n,
        h * row,
        top * row + left * pixel,
        h - top - bottom - 1,
        (left + right) * pixel,
        row,
        bottom * row + right * pixel,
        np.array(slab.fill, kind.scalar.dtype).tobytes(),
    )
