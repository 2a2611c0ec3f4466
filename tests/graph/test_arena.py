"""The arena's plan: who shares bytes with whom, and whose border has to be written again."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from quantized_graphs import quantized
from simulated import planned
from woven_graphs import woven

from simdflow import f32, ops, u8
from simdflow.graph.arena import ALIGNMENT, Arena, Life, plan
from simdflow.graph.graph import Builder, Graph
from simdflow.graph.network import SLACK
from simdflow.graph.steps import Read
from simdflow.graph.storage import Slab, Stored

DRAWN = settings(max_examples=settings().max_examples // 4)


def needed(stored: Stored) -> dict[str, set[int]]:
    """The steps at which each root's bytes hold something, found step by step."""
    schedule = stored.schedule
    ends = {schedule.root(n) for n in (*schedule.graph.inputs, *schedule.graph.outputs)}
    when: dict[str, set[int]] = {}
    for at, step in enumerate(schedule.steps):
        reads = [r.slot for r in step.reads.values() if isinstance(r, Read)]
        for slot in (*reads, step.writes):
            when.setdefault(schedule.root(slot), set()).add(at)
    everything = set(range(-1, len(schedule.steps) + 1))
    spans = {root: set(range(min(s), max(s) + 1)) for root, s in when.items()}
    return spans | dict.fromkeys(ends, everything)


def overlap(arena: Arena, a: str, b: str) -> bool:
    """Whether two slabs share a byte, the readable bytes after them included."""
    ends = [(arena.offsets[n], arena.offsets[n] + arena.lives[n].slab.nbytes + SLACK) for n in
            (a, b)]  # fmt: skip
    return ends[0][0] < ends[1][1] and ends[1][0] < ends[0][1]


def sound(stored: Stored, arena: Arena) -> None:
    """No two slabs that are needed at one step share a byte; all lie inside, on boundaries."""
    spans = needed(stored)
    assert set(spans) == set(arena.lives)
    for a, b in combinations(spans, 2):
        assert not (overlap(arena, a, b) and spans[a] & spans[b]), f"{a} and {b}"
    for name, life in arena.lives.items():
        assert arena.offsets[name] % ALIGNMENT == 0
        assert arena.offsets[name] + life.slab.nbytes + SLACK <= arena.nbytes
    peak = max(
        (sum(arena.lives[n].size for n, s in spans.items() if at in s)
         for at in range(len(stored.schedule.steps))),
        default=arena.nbytes,
    )  # fmt: skip
    assert arena.bound == peak <= arena.nbytes


def borders_survive(arena: Arena) -> None:
    """A border that is not written again shares its bytes only with borders equal to it."""
    again = {n for names in arena.refilled.values() for n in names}
    for name, life in arena.lives.items():
        if not life.slab.bordered or name in again:
            continue
        for other, that in arena.lives.items():
            if other != name and overlap(arena, name, other):
                same = (that.slab.kind.frame, that.slab.kind.memory, that.slab.fill)
                assert same == (life.slab.kind.frame, life.slab.kind.memory, life.slab.fill)
                assert arena.offsets[other] == arena.offsets[name]


@DRAWN
@given(woven())
def test_live_slabs_lie_apart(graph: Graph) -> None:
    stored, arena = planned(graph)
    sound(stored, arena)
    borders_survive(arena)


@DRAWN
@given(quantized())
def test_live_slabs_of_8_bit_networks_lie_apart(graph: Graph) -> None:
    stored, arena = planned(graph)
    sound(stored, arena)
    borders_survive(arena)


def chain(n: int, padding: int) -> Graph:
    """`n` convolutions of equal sizes in a row."""
    b = Builder("g")
    x = b.input("x", f32[1, 8, 8, 16])
    for i in range(n):
        w = b.constant("w", np.ones((3, 3, 16, 16), np.float32))
        x = b.call(ops.conv2d, x, w, padding=padding or ((1, 1), (1, 1)), name=f"conv{i}")
    return b.graph(x)


def test_a_chain_takes_turns() -> None:
    """Input and output keep their memory; between them two slabs are enough for any length."""
    short, long = (planned(chain(n, 1))[1] for n in (4, 12))
    assert long.nbytes == short.nbytes == long.bound
    assert not long.refilled, "equal borders lie over each other"


def test_another_layout_over_a_border_has_it_written_again() -> None:
    b = Builder("g")
    b.input("x", f32[1, 8, 8, 16])
    x = "x"
    for i, k in enumerate((3, 3, 3, 5, 5, 3)):
        w = b.constant("w", np.ones((k, k, 16, 16), np.float32))
        x = b.call(ops.conv2d, x, w, padding=k // 2, name=f"conv{i}")
    stored, arena = planned(b.graph(x))
    sound(stored, arena)
    assert arena.refilled
    for at, names in arena.refilled.items():
        for name in names:
            first = stored.schedule.steps[at]
            assert stored.schedule.root(first.writes) == name, "when it is written, or before"


def test_scratch_memory_is_its_steps_alone() -> None:
    stored, _ = planned(chain(3, 1))
    scratch = {f"{at}.acc": (Slab(u8[5000]), at) for at in range(3)}
    arena = plan(stored, scratch)
    for name, (_, at) in scratch.items():
        life = arena.lives[name]
        assert (life.first, life.last) == (at, at)
        for other, that in arena.lives.items():
            if other != name and that.first <= at <= that.last:
                assert not overlap(arena, name, other)
    assert len({arena.offsets[n] for n in scratch}) < 3 or arena.nbytes <= 1.15 * arena.bound


def test_sizes_are_whole_boundaries_with_slack() -> None:
    assert Life("a", Slab(u8[1]), 0, 0).size == 2 * ALIGNMENT
    assert Life("a", Slab(u8[64]), 0, 0).size == 2 * ALIGNMENT
    assert Life("a", Slab(f32[17]), 0, 0).size == 3 * ALIGNMENT


def test_a_graph_of_names_needs_no_steps() -> None:
    b = Builder("g")
    b.input("x", f32[2, 3])
    b.call(ops.reshape, "x", shape=(6,))
    stored, arena = planned(b.graph("reshape"))
    assert not stored.schedule.steps
    assert arena.nbytes == arena.bound == 2 * ALIGNMENT
