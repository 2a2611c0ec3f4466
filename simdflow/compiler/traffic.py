"""Traffic: bytes that a Program moves from beyond L1, and the cycles that they take.

A load is charged to the cache that holds what is touched until it comes round again. Counts loops
and addresses; knows nothing of registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..dsl.nest import integer
from ..targets import Target
from .ports import number
from .program import Address, Loop, Op, Program, Statement


@dataclass(frozen=True)
class _Access:
    """What a body reads or writes of a memory, with the same loop variables in the address.

    bytes   of one pass; where instructions overlap, once
    """

    memory: str
    variables: frozenset[str]
    bytes: float
    loops: tuple[tuple[str, float], ...]


def traffic(program: Program, target: Target) -> tuple[float, float]:
    """(bytes that come from beyond L1, cycles they take)."""
    found: dict[tuple, tuple[frozenset[str], set[tuple[int, int]]]] = {}
    _collect(program.body, program, (), found)
    accesses = {
        key: _Access(key[0], names, _union(spans), key[2]) for key, (names, spans) in found.items()
    }
    sizes = {m.name: m.size * max(m.scalar.bits, 8) / 8 for m in program.memories}
    far = cycles = 0.0
    for a in accesses.values():
        names = [v for v, _ in a.loops]
        reuse = [i for i, v in enumerate(names) if v not in a.variables]
        depth = reuse[-1] if reuse else -1
        prefix = names[: depth + 1]
        span = sum(
            _footprint(b, tuple(prefix), sizes)
            for b in accesses.values()
            if names[:depth] == [v for v, _ in b.loops][:depth]
        )
        moved = a.bytes
        for v, n in a.loops:
            if v in a.variables or depth >= 0:
                moved *= n
        if depth < 0:
            moved = min(moved, sizes[a.memory]) if a.variables else a.bytes
            span = sizes[a.memory]
        core = target.core
        if span <= core.caches.l1:
            continue
        far += moved
        if span <= core.caches.l2:
            cycles += moved / core.l2_bytes
        else:
            cycles += moved / (core.l3_bytes if span <= core.caches.l3 else core.memory_bytes)
    return far, cycles


def _footprint(a: _Access, outside: tuple[str, ...], sizes: dict[str, float]) -> float:
    """Bytes an access touches while the loops of `outside` stand still."""
    touched = a.bytes
    for v, n in a.loops:
        if v not in outside and v in a.variables:
            touched *= n
    return min(touched, sizes[a.memory])


def _collect(
    body: Sequence[Statement],
    program: Program,
    loops: tuple[tuple[str, float], ...],
    accesses: dict[tuple, tuple[frozenset[str], set[tuple[int, int]]]],
) -> None:
    for s in body:
        if isinstance(s, Loop):
            trips = 4.0
            if isinstance(s.start, int) and isinstance(s.stop, int):
                trips = max(0, -(-(s.stop - s.start) // s.step))
            _collect(s.body, program, (*loops, (s.var, float(trips))), accesses)
        elif isinstance(s, Op):
            for arg in s.args:
                if isinstance(arg, Address):
                    item = max(program.memory(arg.operand).scalar.bits // 8, 1)
                    wide = s.vec.lanes if s.name != "broadcast" else number(s, 1)
                    key = (arg.operand, arg.offset.terms, loops)
                    names = frozenset(arg.offset.axes)
                    start = integer(arg.offset.const) * item
                    accesses.setdefault(key, (names, set()))[1].add((start, start + wide * item))


def _union(spans: set[tuple[int, int]]) -> float:
    """Bytes in any of the spans (start, stop)."""
    total, end = 0, -(1 << 62)
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return float(total)
