"""`simdflow.testing` itself: its dataflows reach every field and are legal, and `check` finds bugs.

Bugs are planted in a stage or in a kernel's reference; each must be found, and the line in the
message must show it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from samples import BY_NAME, SAMPLES, Sample

import simdflow as sf
from simdflow import testing
from simdflow.compiled import CompiledKernel
from simdflow.compiler import plan as planning
from simdflow.compiler.flatten import flatten
from simdflow.targets import host_targets
from simdflow.testing.bounds import bounds
from simdflow.testing.problem import dense

AVX2 = "avx2" if any(t.name == "avx2" for t in host_targets()) else "portable"
CONV = BY_NAME["conv2d"].kernel
QUIET = settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def bound(name: str, **types: Any) -> Any:
    return BY_NAME[name].kernel.specialize(target=AVX2, **types).nest


SPACES = {
    "conv2d": bound("conv2d", x=sf.u8[2, 8, 9, 17], w=sf.i8[3, 3, 17, 33]),
    "depthwise": bound("depthwise", x=sf.i8[1, 9, 9, 40], w=sf.i8[3, 3, 40]),
    "hardswish": bound("hardswish", x=sf.f32[5, 70]),
    "row_max": bound("row_max", x=sf.f32[5, 70]),
}


@pytest.mark.parametrize("name", SPACES)
def test_every_dataflow_drawn_is_legal(name: str) -> None:
    target = sf.target(AVX2)

    @QUIET
    @given(testing.dataflows(SPACES[name], target))
    def legal(flow: sf.Dataflow) -> None:
        assert testing.legal(SPACES[name], flow, target)
        planned = planning.plan(flatten(SPACES[name], flow), flow, target)
        assert planned.registers <= target.budget

    legal()


WANTED: Mapping[str, Callable[[sf.Dataflow], Any]] = {
    "weight anchored": lambda f: f.anchor == "w",
    "input anchored": lambda f: f.anchor == "x",
    "auxiliary registers": lambda f: dict(f.auxiliary).get("x", 0) > 1,
    "a tile of two axes": lambda f: len([n for _, n in f.tile if n > 1]) > 1,
    "two vectors of channels": lambda f: dict(f.tile).get("oc", 0) >= 16 and f.lanes == "oc",
    "a blocked reduction": lambda f: 1 < dict(f.block).get("ic", 0) < 17,
    "lanes on the pixel": lambda f: f.lanes == "ow",
    "lanes on the reduction": lambda f: f.lanes == "ic",
    "a group of taps": lambda f: f.group == "kw",
    "a narrower vector": lambda f: f.width == 128,
    "an unrolled window": lambda f: dict(f.unroll).get("kw", 0) == 3,
    "a loop order": lambda f: f.order,
    "a parallel axis": lambda f: f.parallel == "oh",
    "a group across kernel rows": lambda f: "__" in f.group,
    "fused axes": lambda f: any("__" in a for a in f.axes()),
    "the default": lambda f: f == sf.Dataflow(),
}


@pytest.mark.parametrize("wanted", WANTED)
def test_dataflows_reach_every_corner(wanted: str) -> None:
    flows = testing.dataflows(SPACES["conv2d"], sf.target(AVX2))
    only = settings(
        max_examples=4000,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    assert WANTED[wanted](find(flows, WANTED[wanted], settings=only))


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_problems_fit_the_kernel_and_are_made_the_same_way_twice(sample: Sample) -> None:
    @settings(QUIET, max_examples=15)
    @given(testing.problems(sample.kernel, **sample.given))
    def fits(problem: testing.Problem) -> None:
        nest = problem.nest(sample.kernel)
        assert 0 < np.prod([1, *nest.extents.values()]) <= 60_000
        first, again = problem.operands(sample.kernel), problem.operands(sample.kernel)
        for name, kind in problem.types:
            if name in first:
                values = dense(first[name])
                assert values.shape == kind.shape
                assert values.size == 0 or kind.low <= values.min() <= values.max() <= kind.high
                assert values.tobytes() == dense(again[name]).tobytes()

    fits()


def test_problems_keep_what_is_given() -> None:
    drawn = testing.problems(
        CONV, x=sf.u8, w=[sf.i8, sf.i8.range(-7, 7)], stride=[2], kh=3, kw=[1, 2], ic=(5, 9), n=1
    )

    @QUIET
    @given(drawn)
    def kept(problem: testing.Problem) -> None:
        types, extents = dict(problem.types), problem.nest(CONV).extents
        assert types["x"].scalar == sf.u8
        assert types["w"].low in (-128, -7)
        assert dict(problem.constants) == {"stride": 2, "dilation": 1}
        assert (extents["n"], extents["kh"]) == (1, 3)
        assert extents["kw"] in (1, 2)
        assert 5 <= extents["ic"] <= 9

    kept()


def test_problems_take_whole_types_and_borders() -> None:
    bordered = sf.u8[1, 5, 5, 3].with_border(((0, 0), (1, 1), (1, 1), (0, 0)), 7)
    drawn = find(
        testing.problems(CONV, x=bordered, w=sf.i8, kh=3, kw=3), lambda p: p.fill == "random"
    )
    x = dense(drawn.operands(CONV)["x"])
    assert x.shape == (1, 7, 7, 3)
    assert (x[:, 0] == 7).all()
    assert (x[:, :, -1] == 7).all()
    assert (x[:, 1:-1, 1:-1] != 7).any()


def test_types_that_are_not_given_are_those_that_the_nest_accepts() -> None:
    kinds = set()

    @settings(QUIET, max_examples=150)
    @given(testing.problems(BY_NAME["matmul_nt"].kernel))
    def collect(problem: testing.Problem) -> None:
        kinds.add(tuple(kind.scalar.name for _, kind in problem.types))

    collect()
    assert {("i8", "i8"), ("u8", "i8"), ("i8", "u8"), ("u8", "u8")} <= kinds
    assert not any("f32" in pair for pair in kinds)


def test_a_keyword_that_names_nothing_is_refused() -> None:
    with pytest.raises(sf.OperandError, match=r"conv2d: padding=1 is no operand, constant or axis"):
        testing.check(CONV, padding=1)


def test_a_nest_that_accepts_no_type_is_refused() -> None:
    @sf.kernel
    def impossible(x, out):
        for i in sf.grid(x.shape[0]):
            out[i] = sf.exp(x[i]) + sf.i32(x[i] & 1)

    with pytest.raises(sf.OperandError, match=r"impossible: x fit no element type of f32, i8"):
        testing.check(impossible)


def test_sizes_that_never_fit_are_refused_with_the_reason() -> None:
    with pytest.raises(sf.OperandError, match="no problem that was drawn is accepted") as caught:
        testing.check(CONV, x=sf.u8[1, 4, 4, 1], w=sf.i8[3, 3, 2, 5])
    assert "index=ic of x reaches 1 with ic<2; axis 3 of x has size 1" in str(caught.value)


def test_a_wrong_reference_is_found_and_shrunk() -> None:
    def wrong(x: np.ndarray, w: np.ndarray, stride: int, dilation: int) -> np.ndarray:
        right = BY_NAME["conv2d"].reference(x, w, stride, dilation)
        return right + (right.shape[-1] >= 5)

    with pytest.raises(testing.Mismatch) as caught:
        testing.check(CONV, reference=wrong, compiled=0, **BY_NAME["conv2d"].given)
    line = str(caught.value).splitlines()[-1]
    assert line == (
        "sf.testing.reproduce(conv2d, x=sf.u8[1, 1, 1, 1], w=sf.i8[1, 1, 1, 5], fill='ones', "
        "seed=0, stage='reference')"
    )


def run_line(line: str, kernel: Any, **more: Any) -> None:
    """What a user does with the last line of a message."""
    assert line.startswith("sf.testing.reproduce(")
    extra = "".join(f", {name}={name}" for name in more)
    eval(line[:-1] + extra + ")", {"sf": sf, kernel.name: kernel, **more})


def test_the_line_for_a_wrong_reference_shows_it_again() -> None:
    def wrong(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return BY_NAME["matmul_nt"].reference(a, b) * (b.shape[1] != 3)

    kernel = BY_NAME["matmul_nt"].kernel
    with pytest.raises(testing.Mismatch) as caught:
        testing.check(kernel, reference=wrong, compiled=0, **BY_NAME["matmul_nt"].given)
    with pytest.raises(testing.Mismatch, match="the body and the reference disagree"):
        run_line(str(caught.value).splitlines()[-1], kernel, reference=wrong)


def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner that forgets the last point of a tile's remainder (portable: texts only)."""
    from simdflow.compiler import lower

    right = lower.sections

    def wrong(extent: int, step: int) -> Any:
        parts = right(extent, step)
        if len(parts) == 2 and parts[1][2] == 1:
            return parts[:1]
        return parts

    monkeypatch.setattr(lower, "sections", wrong)


def test_a_bug_in_lowering_is_found_and_its_line_shows_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = sf.kernel(CONV.function)
    planted(monkeypatch)
    with pytest.raises(testing.Mismatch) as caught:
        testing.check(kernel, compiled=0, x=sf.u8, w=sf.i8)
    message = str(caught.value)
    assert "the emitted text and the body disagree" in message
    line = message.splitlines()[-1]
    with pytest.raises(testing.Mismatch, match="the emitted text and the body disagree"):
        run_line(line, sf.kernel(CONV.function))
    monkeypatch.undo()
    run_line(line, sf.kernel(CONV.function))


def leave_last(operands: tuple[Any, ...], out: np.ndarray, before: np.ndarray) -> None:
    out.reshape(-1)[-1] = before.reshape(-1)[-1]


def change_input(operands: tuple[Any, ...], out: np.ndarray, before: np.ndarray) -> None:
    if operands[0].flags.writeable and operands[0].flags.owndata:
        operands[0].flat[0] += 1


def off_by_one(operands: tuple[Any, ...], out: np.ndarray, before: np.ndarray) -> None:
    out.reshape(-1)[-1:] += out.size > 6


@pytest.mark.parametrize(
    ("mistake", "what"),
    [
        (leave_last, "1 of 1 elements differ"),
        (change_input, "input x was changed"),
        (off_by_one, r"1 of [78] elements differ"),
    ],
)
def test_a_bug_in_machine_code_is_found_and_its_line_shows_it_again(
    mistake: Callable[..., None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = CompiledKernel.__call__

    def wrong(self: CompiledKernel, *operands: Any, out: Any = None) -> Any:
        before = out.copy()
        result = call(self, *operands, out=out)
        mistake(operands, out, before)
        return result

    kernel = BY_NAME["hardswish"].kernel
    monkeypatch.setattr(CompiledKernel, "__call__", wrong)
    with pytest.raises(testing.Mismatch) as caught:
        testing.check(kernel, examples=0, compiled=10, x=sf.f32, targets=["portable"])
    message = str(caught.value)
    assert "the compiled kernel and the body disagree" in message
    assert re.search(what, message)
    line = message.splitlines()[-1]
    with pytest.raises(testing.Mismatch, match=what):
        run_line(line, kernel)
    monkeypatch.undo()
    run_line(line, kernel)


def test_a_body_that_fails_is_a_failure() -> None:
    def body(x, out):
        for i in sf.grid(x.shape[0]):
            out[i] = sf.max(x[i], 0)

    kernel = sf.kernel(body)
    # The nest was read before: only the body is wrong now.
    kernel.function = lambda x, out: x[x.shape[0]]
    with pytest.raises(testing.Mismatch, match="the body raises IndexError: x") as caught:
        testing.check(kernel, x=sf.i32, compiled=0)
    assert str(caught.value).splitlines()[-1].startswith("sf.testing.reproduce(body, x=sf.i32[1],")


def test_no_target_is_refused() -> None:
    with pytest.raises(sf.TargetError, match=r"check: targets=\[\] is empty"):
        testing.check(CONV, targets=[])


# How far floats may be off.


@pytest.mark.parametrize(
    "name", ["conv2d_f32", "exp_sum", "variance", "gated", "gelu", "hardswish"]
)
def test_error_bounds_hold_for_the_body_and_are_not_much_too_wide(name: str) -> None:
    sample = BY_NAME[name]

    @settings(QUIET, max_examples=25)
    @given(testing.problems(sample.kernel, **sample.given))
    def holds(problem: testing.Problem) -> None:
        operands = problem.operands(sample.kernel)
        out = sample.kernel.interpret(*operands.values(), **dict(problem.constants))
        near = bounds(problem.nest(sample.kernel), {k: dense(v) for k, v in operands.items()})
        assert (np.abs(out - near.value) <= near.error).all()
        assert (near.error <= 1e-3 * (np.abs(near.value) + 64)).all()

    holds()


def test_error_bounds_of_a_sum_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((1, 50, 3)).astype(np.float32)
    b = rng.standard_normal((1, 50, 2)).astype(np.float32)
    nest = BY_NAME["matmul_tn_f32"].kernel.specialize(a=sf.f32[a.shape], b=sf.f32[b.shape]).nest
    near = bounds(nest, {"a": a, "b": b})
    size = np.abs(a.astype(float)).transpose(0, 2, 1) @ np.abs(b.astype(float))
    assert np.allclose(near.value, a.astype(float).transpose(0, 2, 1) @ b.astype(float) * 0.5)
    assert (near.error >= 50 * 2.0**-24 * size * 0.5).all()
    assert (near.error <= 54 * 2.0**-24 * size * 0.5).all()


def test_a_rounding_that_could_go_either_way_is_open_and_others_are_not() -> None:
    @sf.kernel
    def rounded(x, out):
        for n in sf.grid(x.shape[0]):
            acc = sf.f32(0)
            for c in sf.reduce(x.shape[1]):
                acc += x[n, c]
            out[n] = sf.i8(sf.round(acc), saturate=True)

    x = np.array([[0.25, 0.25], [0.25, 1.0], [300.0, 1.0]], np.float32)
    near = bounds(rounded.specialize(x=sf.f32[x.shape]).nest, {"x": x})
    assert near.value.tolist() == [0, 1, 127]
    assert near.error.tolist() == [1, 0, 0]


@settings(QUIET, max_examples=20)
@given(st.data())
def test_operands_given_as_packed_are_the_same_values(data: st.DataObject) -> None:
    problem = data.draw(testing.problems(CONV, x=sf.u8, w=sf.i8))
    types = tuple((k, replace(t, storage="dense")) for k, t in problem.types)
    plain = replace(problem, types=types).operands(CONV)
    for name, operand in problem.operands(CONV).items():
        assert np.array_equal(dense(operand), plain[name])
