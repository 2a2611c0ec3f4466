"""Storage: where each slot lies, so that no layer needs a copy to read what another one wrote.

A slot that is read with a border is kept with that border around it, filled once; readers without
one see its inside. A reshape, a part of a concatenation or of a slice is a place in another slot's
memory. Where the shapes forbid that, a copy step makes the border, and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..dsl.types import OperandType
from .nests import Frame, aligned, framed
from .network import SLACK
from .steps import Read, Schedule, Step, copied, realigned, rebound, summed


@dataclass(frozen=True)
class Slab:
    """The memory of one root slot: its shape with the frame around it, and what the frame holds."""

    kind: OperandType
    fill: float = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the memory, without slack."""
        total = self.kind.scalar.dtype.itemsize
        for n in self.kind.stored:
            total *= n
        return total

    @property
    def bordered(self) -> bool:
        """Whether it has a frame, so that what lies around the slot matters."""
        return any(a or b for a, b in self.kind.frame)


@dataclass(frozen=True, eq=False)
class Stored:
    """A schedule whose nests are bound to the operand types as they lie in memory."""

    schedule: Schedule
    slabs: Mapping[str, Slab]


def store(schedule: Schedule) -> Stored:
    """Choose the memory of every slot, and bind the nests to it."""
    wanted, fills = _wanted(schedule)
    schedule, frames = _possible(schedule, wanted)
    schedule, frames, fills = _copied(schedule, frames, fills)
    steps = tuple(_bound(schedule, step, frames) for step in schedule.steps)
    used = [s for step in steps for s in (*step.slots, step.writes)]
    roots = {schedule.root(s) for s in (*used, *schedule.graph.inputs, *schedule.graph.outputs)}
    slabs = {}
    for root in sorted(roots):
        kind = replace(schedule.slots[root], frame=frames.get(root, ()), slack=SLACK)
        slabs[root] = Slab(kind, fills.get(root, 0))
    return Stored(replace(schedule, steps=steps), slabs)


def _wanted(schedule: Schedule) -> tuple[dict[str, Frame], dict[str, float]]:
    """The border that the readers of each root slot want together, and the value in it: that of
    the widest border, where they differ.
    """
    frames: dict[str, Frame] = {}
    fills: dict[str, float] = {}
    reads = [r for s in schedule.steps for r in s.reads.values() if isinstance(r, Read)]
    for read in sorted(reads, key=lambda r: -sum(a + b for a, b in r.border)):
        if not read.border or not _is_whole(schedule, read):
            continue
        root = schedule.root(read.slot)
        if fills.setdefault(root, read.fill) == read.fill:
            frames[root] = _wider(frames.get(root, ()), read.border)
    return frames, fills


def _is_whole(schedule: Schedule, read: Read) -> bool:
    """Whether a slot is the whole memory in its own shape, so that its border can lie around it."""
    place = schedule.place(read.slot)
    return not place.frame and place.shape == schedule.slots[read.slot].shape


def _wider(a: Frame, b: Frame) -> Frame:
    if not a:
        return b
    return tuple((max(p, r), max(q, s)) for (p, q), (r, s) in zip(a, b, strict=True))


def _possible(schedule: Schedule, frames: dict[str, Frame]) -> tuple[Schedule, dict[str, Frame]]:
    """The schedule with elementwise nests spread where a frame needs it, and those frames that
    every reader and the writer can live with.
    """
    steps = list(schedule.steps)
    # A caller sees a reshaped output as an array: with a border inside, none has its strides.
    for output in schedule.graph.outputs:
        if schedule.place(output).shape != schedule.slots[output].shape:
            frames.pop(schedule.root(output), None)
    for root in list(frames):
        spread: dict[int, Step] = {}
        for at, step in enumerate(steps):
            if root not in {schedule.root(s) for s in (*step.slots, step.writes)}:
                continue
            other = _fitting(schedule, step, frames)
            if other is None:
                del frames[root]
                break
            spread[at] = other
        else:
            for at, step in spread.items():
                steps[at] = step
    return replace(schedule, steps=tuple(steps)), frames


def _fitting(schedule: Schedule, step: Step, frames: Mapping[str, Frame]) -> Step | None:
    """The step, with its axes spread if it needs that to see the frames of all its slots."""
    shape = schedule.place(step.writes).shape
    for nest in (step.nest, aligned(step.nest, shape)):
        if nest is not None:
            other = realigned(step, nest)
            views = [(n, r) for n, r in other.reads.items() if isinstance(r, Read)]
            views.append((nest.out.name, Read(step.writes)))
            if all(_seen(schedule, r, nest.type_of(n).shape, frames) is not None
                   for n, r in views):  # fmt: skip
                return other
    return None


def _copied(
    schedule: Schedule, frames: dict[str, Frame], fills: dict[str, float]
) -> tuple[Schedule, dict[str, Frame], dict[str, float]]:
    """The schedule with a copy step wherever a slot does not lie as it is read: a border it does
    not have, a part of another slot that is read in a row.
    """
    steps: list[Step] = []
    slots = dict(schedule.slots)
    made: dict[Read, str] = {}
    for step in schedule.steps:
        reads = dict(step.reads)
        fitting = _fitting(schedule, step, frames)
        for name, read in step.reads.items():
            if not isinstance(read, Read):
                continue
            view = step.nest.type_of(name).shape
            if read.border:
                root = schedule.root(read.slot)
                there = _is_whole(schedule, read) and _has(frames.get(root, ()), read.border)
                if there and fills.get(root) == read.fill:
                    continue
            elif fitting or _seen(schedule, read, view, frames) is not None:
                continue
            if read not in made:
                slot = made[read] = f"{read.slot}+{len(made)}"
                kind = slots[slot] = slots[read.slot]
                if read.border:
                    frames[slot], fills[slot] = read.border, read.fill
                nest = copied(kind, schedule.target)
                steps.append(Step(step.nodes, nest, {"x": Read(read.slot)}, slot))
            reads[name] = replace(read, slot=made[read])
        steps.append(replace(fitting or step, reads=reads))
    return replace(schedule, steps=tuple(steps), slots=slots), frames, fills


def _has(frame: Frame, border: Frame) -> bool:
    return bool(frame) and all(
        p >= a and q >= b for (p, q), (a, b) in zip(frame, border, strict=True)
    )


def _bound(schedule: Schedule, step: Step, frames: Mapping[str, Frame]) -> Step:
    """The step with its nest bound to the operand types as they lie in memory."""
    types: dict[str, OperandType] = {}
    views = [(n, r) for n, r in step.reads.items() if isinstance(r, Read)]
    for name, read in (*views, (step.nest.out.name, Read(step.writes))):
        kind = step.nest.type_of(name)
        frame = _seen(schedule, read, kind.shape, frames)
        assert frame is not None, "a slot that cannot be seen so has been copied"
        storage = "dense" if kind.scalar.kind == "b" else "computed"
        types[name] = replace(kind, frame=frame, slack=SLACK, storage=storage)
    return replace(step, nest=rebound(step.nest, types))


def _seen(
    schedule: Schedule, read: Read, view: tuple[int, ...], frames: Mapping[str, Frame]
) -> Frame | None:
    """The frame that is left round a reader's view of a slot; None if it cannot have one."""
    place = schedule.place(read.slot)
    frame = summed(frames.get(place.root, ()), place.frame)
    if read.border:
        if not _has(frame, read.border):
            return None
        left = tuple((p - a, q - b) for (p, q), (a, b) in zip(frame, read.border, strict=True))
        return left if any(a or b for a, b in left) else ()
    return framed(view, place.shape, frame) if frame else ()
