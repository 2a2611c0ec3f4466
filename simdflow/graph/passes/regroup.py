"""What a reshape does to axes: which of them it splits and merges, and where they may move.

Turns the shapes before and after into blocks of axes with equal products. Knows no graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Blocks:
    """A reshape as blocks in turn: the elements of the axes `inner[k]` before are those of
    `outer[k]` after.

    inner   axes of more than one element, before
    outer   axes after, every one of them; those of one element belong to the block before them
    """

    inner: tuple[Axes, ...]
    outer: tuple[Axes, ...]

    @staticmethod
    def of(before: Axes, after: Axes) -> Blocks | None:
        """The smallest blocks; None for shapes without an axis of more than one element, or
        without elements.
        """
        if 0 in before:
            return None
        left, right = long(before), long(after)
        inner: list[Axes] = []
        outer: list[list[int]] = []
        while left or right:
            p, q = [left.pop(0)], [right.pop(0)]
            while (m := math.prod(before[a] for a in p)) != (n := math.prod(after[a] for a in q)):
                side, rest = (p, left) if m < n else (q, right)
                side.append(rest.pop(0))
            inner.append(tuple(p))
            outer.append(q)
        if not outer:
            return None
        starts = [0, *(q[0] for q in outer[1:]), len(after)]
        whole = (tuple(range(a, b)) for a, b in pairwise(starts))
        return Blocks(tuple(inner), tuple(whole))


def regrouped(shape: Axes, axes: Axes, after: Axes) -> tuple[Axes, Axes] | None:
    """(shape, axes) with reshape(transpose(x, axes), after) == transpose(reshape(x, shape), axes).

    None when the reshape merges axes that do not lie next to each other in `x`.
    """
    blocks = Blocks.of(tuple(shape[a] for a in axes), after)
    if blocks is None:
        return None
    # Axes of one element lie between others without being in the way.
    rank_of = {a: k for k, a in enumerate(long(shape))}
    sources = [[rank_of[axes[a]] for a in inner] for inner in blocks.inner]
    if any(s != list(range(s[0], s[0] + len(s))) for s in sources):
        return None
    turns = sorted(range(len(sources)), key=lambda k: sources[k][0])
    placed = [a for k in turns for a in blocks.outer[k]]
    return tuple(after[a] for a in placed), tuple(placed.index(a) for a in range(len(after)))


def gathered(shape: Axes, axes: Axes, after: Axes) -> Axes | None:
    """A transpose of `x` after which `regrouped` finds the merged axes next to each other: within
    each block they move as the reshape wants them, the blocks stay in order. None where it would
    be `axes` itself.
    """
    blocks = Blocks.of(tuple(shape[a] for a in axes), after)
    if blocks is None:
        return None
    sources = [[axes[a] for a in inner] for inner in blocks.inner]
    placed = [a for a, n in enumerate(shape) if n == 1]
    for source in sorted(sources, key=min):
        placed += source
    return None if tuple(placed) == axes else tuple(placed)


def long(shape: Axes) -> list[int]:
    """The axes of more than one element."""
    return [a for a, n in enumerate(shape) if n != 1]
