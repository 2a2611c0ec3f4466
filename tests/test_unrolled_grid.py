"""Unrolled grid axes: a pass of a loop takes several steps; a window's registers rotate by name.

Results are compared through the emitted text on every target; what rotates is read in the Program.
"""

from __future__ import annotations

import numpy as np
import pytest

import simdflow as sf
from simdflow.compiler.program import Loop, Op, Program
from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets()]
CHANNELS = 4  # one vector of the portable target


@sf.kernel
def conv(x, w, out, *, stride=1):
    """Filters [K][R][S][c], outputs [K][OH][OW]."""
    for oc, oh, ow in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            acc += x[oh * stride + kh, ow * stride + kw, ic] * w[oc, kh, kw, ic]
        out[oc, oh, ow] = acc


def made(
    target: str, f: int, stride: int, width: int, flow: sf.Dataflow, filters: int = 2
) -> sf.CompiledKernel:
    types = {
        "x": sf.u8[f + stride, (width - 1) * stride + f, CHANNELS],
        "w": sf.i8[filters, f, f, CHANNELS],
        "out": sf.i32[filters, 2, width],
    }
    return conv.specialize(**types, stride=stride, target=target, dataflow=flow)


def anchored(f: int, repeat: int, kept: int, tile: int = 1) -> sf.Dataflow:
    return sf.Dataflow(
        order=("oc", "oh", "ow", "kh", "kw", "ic"),
        lanes="ic",
        unroll={"kh": f, "kw": f, "ic": CHANNELS, "ow": repeat},
        tile={"ow": tile},
        auxiliary={"w": 1, "x": kept + 1},
        parallel="oc",  # the columns that threads share are not carried along
    )


def inner(program: Program) -> list[Loop]:
    """The loops that have no loop inside."""
    found, todo = [], [s for s in program.body if isinstance(s, Loop)]
    while todo:
        loop = todo.pop(0)
        inside = [s for s in loop.body if isinstance(s, Loop)]
        found += [] if inside else [loop]
        todo += inside
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("tile", [1, 2])
def test_any_number_of_steps_gives_the_same_sums(target: str, stride: int, tile: int) -> None:
    rng = np.random.default_rng(5)
    for width in (1, 4, 7):
        for repeat, kept in ((1, 2), (2, 2), (3, 1), (9, 0)):
            kernel = made(target, 2, stride, width, anchored(2, repeat, kept, tile))
            x = rng.integers(0, 256, kernel.types["x"].shape, np.uint8)
            w = rng.integers(-128, 128, kernel.types["w"].shape).astype(np.int8)
            expected = conv.interpret(x, w, stride=stride)
            assert np.array_equal(kernel.run_text(x, w), expected), (width, repeat, kept)


def test_a_row_of_kept_columns_comes_round_without_a_move() -> None:
    """A 3x3 window of stride 1 keeps two columns a row: two steps, three loads each."""
    for repeat, moved in ((2, 0), (1, 3)):
        kernel = made("portable", 3, 1, 8, anchored(3, repeat, 6))
        (loop,) = inner(kernel.program)
        ops = [s for s in loop.body if isinstance(s, Op)]
        assert loop.step == repeat
        loads = [op for op in ops if op.name == "load" and op.dst.startswith("x")]
        assert len(loads) == repeat * 3
        # A kept register that another kept register is moved into; the others only change names.
        assert sum(op.dst.endswith("_old") for op in ops) == moved


def test_an_unrolled_grid_axis_needs_no_more_registers() -> None:
    plans = [made("portable", 2, 1, 8, anchored(2, repeat, 2)).plan for repeat in (1, 4)]
    assert plans[0].registers == plans[1].registers


@pytest.mark.parametrize(("order", "filters"), [("oc kh kw ic", 1), ("kh kw ic oc", 6)])
def test_scratch_holds_what_the_sums_run_over(order: str, filters: int) -> None:
    """With the filters outside the sums, one filter's worth of them; inside, all."""
    axes = (*order.split(), "oh", "ow")
    flow = sf.Dataflow(anchor="w", order=axes, lanes="ic", unroll={"ic": CHANNELS})
    kernel = made("portable", 2, 1, 5, flow, filters=6)
    (scratch,) = (m for m in kernel.program.memories if m.role == "scratch")
    assert scratch.size == filters * 2 * 5 * kernel.plan.lanes
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, kernel.types["x"].shape, np.uint8)
    w = rng.integers(-128, 128, kernel.types["w"].shape).astype(np.int8)
    assert np.array_equal(kernel.run_text(x, w), conv.interpret(x, w))
