"""The entry function on a caller's arrays: every byte of a tensor is moved, and no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simdflow.compiler.assemble import assembled
from simdflow.compiler.call import Slot, caller
from simdflow.compiler.native import Function, link
from simdflow.dsl.types import SCALARS
from simdflow.graph.arrays_ir import Rows, arrays_ir, rows
from simdflow.graph.entry import ARRAYS, ENTRY, entry_ir
from simdflow.graph.network import Port
from simdflow.testing import guarded

POISON = 0x5A


@st.composite
def ports(draw: st.DrawFn, offset: int) -> Port:
    """A tensor of up to four axes in a frame, some bytes into an arena."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    if shape and draw(st.booleans()):
        shape = (*shape, draw(st.sampled_from([1, 3, 31, 64, 65, 200, 1100])))
    frame = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in shape)
    scalar = SCALARS[draw(st.sampled_from(["u8", "i8", "i32", "f32"]))]
    kind = scalar[shape]
    return Port(f"p{offset}", kind, None, offset, replace(kind, frame=frame))


@st.composite
def both(draw: st.DrawFn) -> tuple[Port, Port]:
    """An input and an output behind it."""
    first = draw(ports(draw(st.integers(0, 2)) * 64))
    end = -(-(first.offset + first.nbytes) // 64) * 64
    return first, draw(ports(end + 64 * draw(st.integers(0, 1))))


@given(both(), st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None, max_examples=80)
def test_inputs_go_in_and_outputs_come_out(
    pair: tuple[Port, Port], seed: int, at_end: bool
) -> None:
    """No kernel runs: what was in the output's place is what comes out."""
    rng = np.random.default_rng(seed)
    x_port, y_port = pair
    text = entry_ir([], 1) + arrays_ir([x_port], [y_port])
    library = link(assembled(text, "arrays"), [ENTRY, ARRAYS])
    arena = np.full(y_port.offset + y_port.nbytes + 64, POISON, np.uint8)
    expected = rng.integers(0, 100, y_port.type.shape).astype(y_port.type.scalar.dtype)
    y_port.view(arena)[...] = expected
    before = arena.copy()
    x = rng.integers(0, 100, x_port.type.shape).astype(x_port.type.scalar.dtype)
    x, y = guarded(x, at_end, read_only=True), guarded(np.zeros_like(expected), at_end)
    weights = np.zeros(1, np.uint8)
    slots = [Slot(a.shape, a.dtype) for a in (arena, weights, x)]
    slots.append(Slot(y.shape, y.dtype, written=True))
    function = Function(library.address(ARRAYS), library)
    assert caller(function, slots, 0, 0)(arena, weights, x, y)
    np.testing.assert_array_equal(y, expected)
    x_port.view(before)[...] = x
    np.testing.assert_array_equal(arena, before)


def test_what_lies_in_one_piece_is_one_piece() -> None:
    plain = SCALARS["f32"][2, 3, 4, 5]
    assert rows(Port("x", plain, None, 128, plain)) == Rows(128, (), 2 * 3 * 4 * 5 * 4)
    framed = replace(plain, frame=((0, 0), (1, 1), (1, 1), (0, 0)))
    found = rows(Port("x", plain, None, 128, framed))
    # Rows of 4 pixels, 3 in an image of 5 rows of 6 pixels; 2 images.
    assert (found.row, found.loops) == (80, ((2, 600, 240), (3, 120, 80)))
    assert found.first == 128 + 4 * 5 * (6 + 1)
