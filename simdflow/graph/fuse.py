"""Fuse: elementwise steps go into the epilogue of the step that makes their input, or the one that
makes it into their loads, where they read it in another order.

    before   y = conv2d(x);  z = add(y, r);  a = look_up(z)
    after    a = conv2d_add_look_up(x, r)

    before   y = to_unsigned(x);  z = transpose(y)
    after    z = to_unsigned_transpose(x)

The values between never reach memory. What is computed for each element stays the same, each
rounding included, so integers stay bit-exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .nests import framed, fused, fused_names, inlined, is_elementwise
from .steps import Read, Schedule, Step


def fuse(schedule: Schedule) -> Schedule:
    """The schedule with every elementwise step fused that can be."""
    steps = list(schedule.steps)
    at = 0
    while at < len(steps):
        for before, operand in _producers(schedule, steps, at):
            merged = _merged(steps[before], steps[at], operand)
            merged = merged or _inlined(steps[before], steps[at], operand)
            if merged is not None and _writes(schedule, merged):
                # The merged step runs where the consumer did: its other operands are known there.
                del steps[before]
                at -= 1
                steps[at] = merged
                break
        else:
            at += 1
    return replace(schedule, steps=tuple(steps))


def _producers(schedule: Schedule, steps: list[Step], at: int) -> list[tuple[int, str]]:
    """(a step that makes an input of step `at` which nobody else reads, the operand), the latest
    step first: what it needs is fresh in the caches.
    """
    step = steps[at]
    if not is_elementwise(step.nest):
        return []
    reads = Counter(schedule.root(s) for other in steps for s in other.slots)
    kept = {schedule.root(o) for o in schedule.graph.outputs}
    # By place, not by memory: parts of a concatenation have one memory and several writers.
    writer = {schedule.place(other.writes): i for i, other in enumerate(steps[:at])}
    # A place that is filled first and written in part afterwards is not one step's.
    written = Counter(schedule.place(other.writes) for other in steps)
    found: list[tuple[int, str]] = []
    for name, read in step.reads.items():
        if not isinstance(read, Read) or read.border:
            continue
        place = schedule.place(read.slot)
        if reads[place.root] != 1 or place.root in kept:
            continue
        if written[place] == 1 and place in writer:
            found.append((writer[place], name))
    return sorted(found, reverse=True)


def _writes(schedule: Schedule, step: Step) -> bool:
    """Whether a step can write where it has to: a part of other memory is no plain array."""
    place = schedule.place(step.writes)
    view = step.nest.type_of(step.nest.out.name).shape
    return framed(view, place.shape, place.frame) is not None


def _merged(producer: Step, consumer: Step, operand: str) -> Step | None:
    nest = fused(producer.nest, consumer.nest, operand)
    if nest is None:
        return None
    mine = consumer.reads[operand]
    if any(n != operand and r == mine for n, r in consumer.reads.items() if isinstance(r, Read)):
        return None  # it reads the value through two operands
    names = fused_names(producer.nest, consumer.nest, operand)
    reads = dict(producer.reads)
    reads.update((names[n], r) for n, r in consumer.reads.items() if n != operand)
    # The axes are the producer's, and with them the dataflow that may have been chosen for it.
    nodes = (*producer.nodes, *consumer.nodes)
    return Step(nodes, nest, reads, consumer.writes, producer.dataflow)


def _inlined(producer: Step, consumer: Step, operand: str) -> Step | None:
    nest = inlined(producer.nest, consumer.nest, operand)
    if nest is None:
        return None
    names = fused_names(consumer.nest, producer.nest, producer.nest.out.name)
    reads = {n: r for n, r in consumer.reads.items() if n != operand}
    reads = {names[n]: r for n, r in producer.reads.items()} | reads
    return Step((*producer.nodes, *consumer.nodes), nest, reads, consumer.writes)
