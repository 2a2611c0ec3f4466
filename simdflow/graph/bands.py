"""Bands: a producer and the one layer that reads it, a few rows at a time (SMaLL).

    expand 1x1 -> depthwise 3x3        rows 0..3 expand, rows 0..1 depthwise, rows 4..5 expand, ...

The tensor between them is never whole: a buffer of a few rows stands for it, whose last rows move
to its beginning when the next ones are made. Both kernels run as they are, on ranges of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..compiler.artifact import Artifact
from ..dsl.nest import Load, LoopNest, Quotient, integer
from .entry import Band
from .steps import Read, Step
from .storage import Slab, Stored

# Smaller tensors stay in L1 and L2 by themselves; what is saved is memory, and traffic beyond L2.
WORTH_BYTES = 1 << 17


@dataclass(frozen=True)
class Pair:
    """Steps `at` and `at + 1` through a buffer: the slot between them, its operand's name in the
    consumer, its slab with only the rows of the buffer, and the bands.
    """

    at: int
    slot: str
    operand: str
    slab: Slab
    bands: tuple[Band, ...]


@dataclass(frozen=True)
class _Rows:
    """How the rows of a consumer read: rows `row*step + low` to `row*step + high` of the memory."""

    step: int
    low: int
    high: int


def pairs(stored: Stored, artifacts: list[Artifact]) -> tuple[Pair, ...]:
    """The pairs of neighbouring steps that are worth it, and can be."""
    found: list[Pair] = []
    for at in range(len(artifacts) - 1):
        if found and found[-1].at == at - 1:
            continue  # its producer is a consumer already
        pair = _pair(stored, at, artifacts[at], artifacts[at + 1])
        if pair is not None:
            found.append(pair)
    return tuple(found)


def _pair(stored: Stored, at: int, made: Artifact, used: Artifact) -> Pair | None:
    schedule = stored.schedule
    producer, consumer = schedule.steps[at], schedule.steps[at + 1]
    slot = producer.writes
    operands = [n for n, r in consumer.reads.items() if isinstance(r, Read) and r.slot == slot]
    slab = stored.slabs.get(slot)
    others = [s for i, s in enumerate(schedule.steps) if i not in (at, at + 1)]
    touched = {schedule.root(x) for s in others for x in (*s.slots, s.writes)}
    ports = {schedule.root(p) for p in (*schedule.graph.inputs, *schedule.graph.outputs)}
    if slab is None or len(operands) != 1 or slot in touched | ports:
        return None
    if len(slab.kind.shape) != 4 or slab.kind.shape[0] != 1 or slab.nbytes < WORTH_BYTES:
        return None
    kind = producer.nest.type_of(producer.nest.out.name)
    index = producer.nest.store.index
    if kind.shape != slab.kind.shape or str(index[1]) != made.parallel[0]:
        return None
    rows = _rows(consumer, operands[0], used.parallel[0])
    if rows is None:
        return None
    frame = slab.kind.frame or ((0, 0),) * 4
    bands, count = _bands(slab.kind.shape[1], frame[1], made, used, rows)
    if not bands or 2 * count > slab.kind.memory[1]:
        return None
    inner = ((0, 0), (0, 0), frame[2], frame[3])
    _, _, width, channels = slab.kind.shape
    buffer = replace(slab.kind, shape=(1, count, width, channels), frame=inner)
    return Pair(at, slot, operands[0], replace(slab, kind=buffer), bands)


def _rows(step: Step, operand: str, axis: str) -> _Rows | None:
    """How a step's rows read an operand, in rows of its memory; None if not row by row."""
    nest: LoopNest = step.nest
    kind = nest.type_of(operand)
    if len(kind.shape) != 4:
        return None
    loads = [x for x in nest.loads() if isinstance(x, Load) and x.operand == operand]
    if not loads or any(axis in i.axes for x in loads for d, i in enumerate(x.index) if d != 1):
        return None
    above = kind.frame[1][0] if kind.frame else 0
    steps: set[int] = set()
    lows: list[int] = []
    highs: list[int] = []
    for x in loads:
        if any(isinstance(t, Quotient) for t, _ in x.index[1].terms):
            return None
        low, high = x.index[1].bounds({**nest.extents, axis: 1})
        steps.add(integer(x.index[1].coefficient(axis)))
        lows.append(low + above)
        highs.append(high + above)
    (stride,) = steps if len(steps) == 1 else (0,)
    return _Rows(stride, min(lows), max(highs)) if stride > 0 else None


def _bands(
    height: int, border: tuple[int, int], made: Artifact, used: Artifact, rows: _Rows
) -> tuple[tuple[Band, ...], int]:
    """(the bands, how many rows the buffer has); no bands where a row would be skipped.

    Rows of the memory are counted with the border above; the producer works in steps of its own,
    so it may be ahead of what the consumer needs.
    """
    top, below = border
    _, extent, unit = used.parallel
    wanted = max(4, -(-made.parallel[2] // rows.step))
    size = -(-wanted // unit) * unit
    found: list[Band] = []
    have, done, before, count = 0, 0, 0, 0
    for first in range(0, extent, size):
        last = min(first + size, extent)
        base, need = first * rows.step + rows.low, (last - 1) * rows.step + rows.high + 1
        if base > have and found:
            return (), 0
        kept = max(have - base, 0) if found else 0
        filled: list[tuple[int, int]] = []
        if not found and base < top:
            filled.append((0, top - base))
        target = min(height, max(done, -(-(need - top) // made.parallel[2]) * made.parallel[2]))
        end = top + target
        if target == height and need > end:
            start = max(end, have)
            if need > start:
                filled.append((start - base, need - start))
            end = max(need, have)
        if need > top + height + below or (not found and base > top):
            return (), 0
        found.append(Band(base - before, kept, tuple(filled), done, target, first, last, base))
        count = max(count, end - base)
        have, done, before = end, target, base
    return tuple(found), count
