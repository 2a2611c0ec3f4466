"""Nests that read along another axis than they write: squares turned in registers, interleaved
stores, lanes a few elements apart.

Emitted text and machine code against numpy, on every target, for sizes that fill squares and leave
parts of them; and which of these ways the default takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow.compiler.program import Loop, Op
from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets()]
KINDS = (sf.u8, sf.i8, sf.i16, sf.i32, sf.f32, sf.i64)
SIZES = st.one_of(st.integers(1, 6), st.integers(7, 35), st.sampled_from((64, 65)))


@sf.kernel
def turned_and_joined(x, y, out):
    """out[p, c] is the larger one of x[c, p] and y[p, c]."""
    for p, c in sf.grid(out.shape):
        out[p, c] = sf.max(x[c, p], y[p, c])


@sf.kernel
def scaled(x, out, *, zero_point=3):
    """8 bits of a sum of two transposed operands: narrowed before they are stored."""
    for p, c in sf.grid(out.shape):
        out[p, c] = sf.u8(sf.i32(x[c, p]) + x[c, p] + zero_point, saturate=True)


@sf.kernel
def spaced(x, out, *, start=0, step=1):
    for i in sf.grid(out.shape):
        out[i] = x[start + step * i]


def random(kind: sf.Scalar, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of the type, the same each time."""
    low, high = (-9, 9) if kind.is_float else (kind.low, kind.high)
    rng = np.random.default_rng(sum(shape))
    return rng.integers(low, high, shape, endpoint=True).astype(kind.dtype)


@st.composite
def dataflows(draw: st.DrawFn, target: str, p: int, c: int) -> sf.Dataflow | None:
    """The default, or lanes along either axis with a tile of the other."""
    if draw(st.integers(0, 3)) == 0:
        return None
    lanes, other, n = draw(st.sampled_from((("c", "p", p), ("p", "c", c))))
    width = draw(st.sampled_from([w for w in (128, 256, 512) if w <= by_name(target).width]))
    tile = {other: draw(st.integers(1, min(n, 18)))}
    return sf.Dataflow(lanes=lanes, tile=tile, width=width)


def by_name(name: str) -> Any:
    return next(t for t in host_targets() if t.name == name)


@st.composite
def problems(draw: st.DrawFn) -> tuple[str, sf.Scalar, int, int, sf.Dataflow | None]:
    target, kind = draw(st.sampled_from(TARGETS)), draw(st.sampled_from(KINDS))
    p, c = draw(SIZES), draw(SIZES)
    return target, kind, p, c, draw(dataflows(target, p, c))


def compiled(problem: tuple[str, sf.Scalar, int, int, sf.Dataflow | None]) -> Any:
    target, kind, p, c, flow = problem
    types = {"x": kind[c, p], "y": kind[p, c]}
    made = turned_and_joined.specialize(**types, target=target, dataflow=flow)
    try:
        assert made.plan
    except sf.DataflowError:  # more registers than there are
        made = turned_and_joined.specialize(**types, target=target)
    return made


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(problems())
def test_text_reads_each_element_where_it_lies(problem: Any) -> None:
    _, kind, p, c, _ = problem
    x, y = random(kind, (c, p)), random(kind, (p, c))
    assert np.array_equal(compiled(problem).run_text(x, y), np.maximum(x.T, y))


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(problems())
def test_code_reads_each_element_where_it_lies(problem: Any) -> None:
    _, kind, p, c, _ = problem
    x, y = random(kind, (c, p)), random(kind, (p, c))
    assert np.array_equal(compiled(problem)(x, y), np.maximum(x.T, y))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("p", "c"), [(70, 3), (33, 4), (40, 19)])
def test_what_is_narrowed_is_stored_in_its_place(target: str, p: int, c: int) -> None:
    x = random(sf.i8, (c, p))
    wanted = np.clip(2 * x.T.astype(int) + 3, 0, 255).astype(np.uint8)
    made = scaled.specialize(x=sf.i8[c, p], out=sf.u8[p, c], target=target)
    assert np.array_equal(made.run_text(x), wanted)
    assert np.array_equal(made(x), wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("step", [-5, -3, -1, 2, 3, 4, 7])
def test_lanes_a_few_elements_apart(target: str, step: int) -> None:
    n = 77
    start = 0 if step > 0 else -step * (n - 1)
    x = random(sf.u8, (abs(step) * (n - 1) + 1,))
    options = {"start": start, "step": step, "target": target}
    made = spaced.specialize(x=sf.u8[x.size], out=sf.u8[n], **options)
    assert np.array_equal(made(x), x[::step])


def instructions(statements: tuple[Any, ...]) -> set[str]:
    """The names of all instructions of a program."""
    found: set[str] = set()
    for s in statements:
        if isinstance(s, Loop):
            found |= instructions(s.body)
        elif isinstance(s, Op):
            found.add(s.name)
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("shape", "expected", "absent"),
    [
        ((3, 224), {"interleave"}, {"scatter", "rows"}),
        ((64, 96), {"rows", "zip"}, {"gather", "scatter"}),
        ((9, 96), {"rows", "zip"}, {"gather", "scatter"}),
        ((96, 3), {"gather"}, {"scatter", "rows"}),
    ],
)
def test_the_default_moves_whole_rows(
    target: str, shape: tuple[int, int], expected: set[str], absent: set[str]
) -> None:
    c, p = shape
    copy = transposed.specialize(x=sf.u8[c, p], target=target)
    found = instructions(copy.program.body)
    assert expected <= found and not absent & found


@sf.kernel
def transposed(x, out):
    for p, c in sf.grid(out.shape):
        out[p, c] = x[c, p]


def test_of_each_row_as_much_is_read_as_the_tile_has() -> None:
    """A tile of 5 columns of 20 rows, four to a piece: the rows of a vector and no column more."""
    flow = sf.Dataflow(lanes="c", tile={"p": 5}, width=256)
    made = transposed.specialize(x=sf.u8[20, 5], target=TARGETS[0], dataflow=flow)
    body = [s for s in made.program.body if isinstance(s, Op) and s.name == "rows"]
    if made.plan.target.width >= 256:
        assert {op.args[3] for op in body} == {5}
        assert sum(op.args[2] for op in body) == 20
