"""The entry function with kernels that only write down how they are called."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simdflow import OperandType, f32, i8, i32, u8
from simdflow.compiler.assemble import assembled
from simdflow.compiler.native import Library, link
from simdflow.graph.arena import border
from simdflow.graph.entry import ENTRY, TEAM, Call, entry_ir, symbol
from simdflow.graph.storage import Slab
from simdflow.graph.team import new_team, symbols

Called = list[tuple[int, int, int, int, int]]
ARENA, WEIGHTS = 1 << 20, 1 << 30
PORTS = ARENA + 7777, ARENA + 5555
GARBAGE = 0x5A


class Recorder:
    """Kernels of two addresses, (kernel, first - arena, second - weights, begin, end) a call."""

    def __init__(self, kernels: int) -> None:
        self.calls: Called = []
        kind = ctypes.CFUNCTYPE(
            None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
        )
        self.kept = [kind(self._recording(k)) for k in range(kernels)]

    def _recording(self, kernel: int) -> Callable[..., None]:
        def record(x: int, w: int, begin: int, end: int) -> None:
            self.calls.append((kernel, x - ARENA, w - WEIGHTS, begin, end))

        return record

    @property
    def imports(self) -> dict[str, int]:
        """What the entry function is linked with."""
        return {
            symbol(k): ctypes.cast(f, ctypes.c_void_p).value or 0 for k, f in enumerate(self.kept)
        }


def run(library: Library, arena: int, weights: int) -> None:
    """Call the entry function."""
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)
    table = (ctypes.c_int64 * 2)(*PORTS)
    kind(library.address(ENTRY))(arena, weights, ctypes.addressof(table), 0, 0)


def recorded(calls: Sequence[Call], threads: int = 1) -> Called:
    """How the kernels are called; by several threads once these are awake."""
    recorder = Recorder(1 + max(c.kernel for c in calls))
    imports: dict[str, int] = dict(recorder.imports)
    workers = new_team(threads)
    imports |= {**symbols(), TEAM: workers.address}
    # Without the measuring, which would leave a busy machine's threads out.
    imports["simdflow_team_run_measured"] = imports["simdflow_team_run"]
    library = link(assembled(entry_ir(calls, threads), ENTRY), [ENTRY], imports)
    for _ in range(1000):
        recorder.calls.clear()
        run(library, ARENA, WEIGHTS)
        if len(recorder.calls) > len(calls) or threads == 1:
            break
    workers.close()
    return recorder.calls


def call(kernel: int, extent: int, step: int = 1, split: bool = True, at: int = 0) -> Call:
    """A call of a kernel of the recorder."""
    return Call(kernel, (("arena", at), ("weights", 64 * kernel)), extent, step, split)


def test_kernels_run_in_order_at_their_places() -> None:
    calls = [call(0, 5, at=128), call(1, 7, split=False), call(0, 3, at=4096)]
    assert recorded(calls) == [(0, 128, 0, 0, 5), (1, 0, 64, 0, 7), (0, 4096, 0, 0, 3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_inputs_and_outputs_lie_where_the_table_says(threads: int) -> None:
    calls = [Call(0, (("ports", n), ("weights", 0)), 1, 1, False) for n in (1, 0)]
    assert [x for _, x, *_ in recorded(calls, threads)] == [5555, 7777]


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("extent", "step"), [(2, 1), (10, 1), (10, 4), (64, 16), (13, 8)])
def test_ranges_cover_the_axis_once(threads: int, extent: int, step: int) -> None:
    """In whole steps, as even as can be; who has no step left is called for nothing."""
    done = recorded([call(0, extent, step)], threads)
    assert len(done) == threads
    rows = sorted((b, min(e, extent)) for *_, b, e in done if b < e)
    assert rows[0][0] == 0 and rows[-1][1] == extent
    assert all(a[1] == b[0] for a, b in pairwise(rows))
    assert all(b % step == 0 for b, _ in rows)
    assert max(e - b for b, e in rows) <= math.ceil(math.ceil(extent / step) / threads) * step


def test_what_is_not_split_is_done_once_and_between_barriers() -> None:
    calls = [call(0, 30), call(1, 30, split=False), call(2, 30), call(3, 30, split=False)]
    for _ in range(5):
        done = recorded(calls, 3)
        order = [k for k, *_ in done]
        assert order == sorted(order), "a barrier between a step and the next"
        assert [c for c in done if c[0] in (1, 3)] == [(1, 0, 64, 0, 30), (3, 0, 192, 0, 30)]


sides = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def slabs(draw: Any) -> Slab:
    """A slab [n, h, w, c] with a border along rows and columns."""
    shape = tuple(draw(st.integers(1, 4)) for _ in range(4))
    scalar, fills = draw(st.sampled_from((
        (u8, (0, 128, 255)), (i8, (0, -128, 7)), (i32, (0, 1 << 20)), (f32, (0.0, -math.inf, 1.5)),
    )))  # fmt: skip
    frame = ((0, 0), draw(sides), draw(sides), (0, 0))
    kind = OperandType(scalar, shape, scalar.low, scalar.high, frame=frame)
    return Slab(kind, draw(st.sampled_from(fills)))


@settings(max_examples=settings().max_examples // 4)
@given(slabs(), st.integers(0, 3))
def test_a_border_is_written_and_nothing_else(slab: Slab, blocks: int) -> None:
    kind, at = slab.kind, 64 * blocks
    calls = [Call(0, (("arena", 0), ("weights", 0)), 1, 1, True, ((at, border(slab)),))]
    recorder = Recorder(1)
    memory = np.full(at + slab.nbytes + 64, GARBAGE, np.uint8)
    expected = memory.copy()
    inside = np.zeros(kind.stored, bool)
    inside[kind.inside] = True
    view = expected[at : at + slab.nbytes].view(kind.scalar.dtype).reshape(kind.stored)
    view[~inside] = slab.fill
    library = link(assembled(entry_ir(calls, 1), ENTRY), [ENTRY], recorder.imports)
    run(library, memory.ctypes.data, WEIGHTS)
    np.testing.assert_array_equal(memory, expected)
    assert len(recorder.calls) == 1


def test_one_thread_needs_no_team() -> None:
    text = entry_ir([call(0, 5)], 1)
    assert "simdflow_team" not in text
    assert "simdflow_team_run" in entry_ir([call(0, 5)], 2)
