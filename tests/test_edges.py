"""Rows of promised zeros are not multiplied: that it changes nothing, and where it is not done.

Dataflows are drawn at random; the text and some of the machine code are compared with the body,
which multiplies every zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import BY_NAME

import simdflow as sf
from simdflow import ops, testing
from simdflow.compiler.program import Loop, Op, Statement
from simdflow.targets import host_targets
from simdflow.testing.bounds import bounds

CONV, CONV_F32, DEPTHWISE = (BY_NAME[n].kernel for n in ("conv2d", "conv2d_f32", "depthwise"))
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


def rows(kernel: sf.CompiledKernel) -> list[tuple[int, int]]:
    """(first, count) of the kernel rows that each run of output rows takes."""
    edges = dict(kernel.plan.nest.edges)
    return [(run.first, run.count) for run in edges.get("oh", ())]


@pytest.mark.parametrize("target", [t.name for t in host_targets()])
@pytest.mark.parametrize("name", ["conv2d", "conv2d_f32", "depthwise"])
@settings(QUIET, max_examples=25)
@given(data=st.data())
def test_zeros_that_are_left_out_change_nothing(
    name: str, target: str, data: st.DataObject
) -> None:
    kernel = BY_NAME[name].kernel
    draw = data.draw
    kh, kw, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    side, ic, oc = draw(st.integers(0, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 20))
    dilation = draw(st.integers(1, 2)) if name != "depthwise" else 1
    reach = (kh - 1) * dilation + 1
    inside = max(1, reach - before - after) + draw(st.integers(0, 6))
    width = max(1, (kw - 1) * dilation + 1 - 2 * side) + draw(st.integers(0, 4))
    kind = np.float32 if name == "conv2d_f32" else draw(st.sampled_from([np.uint8, np.int8]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    channels = oc if name == "depthwise" else ic
    border = ((0, 0), (before, after), (side, side), (0, 0))
    x: Any = rng.integers(-100, 100, (2, inside, width, channels)).astype(kind)
    x = np.pad(x, border)
    w_shape = (kh, kw, oc) if name == "depthwise" else (kh, kw, ic, oc)
    w = rng.integers(-100, 100, w_shape).astype(np.float32 if kind == np.float32 else np.int8)
    packed = sf.pack(w)
    scalar = {np.uint8: sf.u8, np.int8: sf.i8, np.float32: sf.f32}[kind]
    given_type = replace(scalar[x.shape], zeros=border)
    constants = {"stride": stride} | ({"dilation": dilation} if name != "depthwise" else {})
    constants = {k: v for k, v in constants.items() if k in dict(kernel.nest.constants)}
    bias = {"bias": np.zeros(oc, np.float32)} if kind == np.float32 else {}
    types = {"x": given_type, "w": packed.type, **{n: sf.f32[a.shape] for n, a in bias.items()}}
    made = kernel.specialize(target=target, **types, **constants)
    flow = draw(st.none() | testing.dataflows(made.nest, sf.target(target)))
    made = kernel.specialize(target=target, dataflow=flow, **types, **constants)
    operands = (x, packed, *bias.values())
    expected = kernel.interpret(*operands, **constants)
    found = [made.run_text(*operands)]
    if draw(st.integers(0, 19)) == 0:
        found.append(made(*operands))
    near = bounds(made.nest, {"x": x, "w": w, **bias}) if kind == np.float32 else None
    for y in found:
        if near is None:
            assert np.array_equal(y, expected)
        else:
            assert (np.abs(y - near.value) <= near.error).all()


def conv(shape: tuple[int, ...], zeros: Any, kernel: int = 3, **given: Any) -> sf.CompiledKernel:
    x = replace(sf.u8[shape], zeros=zeros)
    w = sf.pack(np.zeros((kernel, kernel, shape[3], 16), np.int8)).type
    return CONV.specialize(x=x, w=w, **given)


ONE = ((0, 0), (1, 1), (1, 1), (0, 0))


def test_runs_are_the_rows_that_read_something() -> None:
    assert rows(conv((1, 9, 9, 8), ONE)) == [(1, 2), (0, 3), (0, 2)]
    low = ((0, 0), (0, 1), (0, 1), (0, 0))
    assert rows(conv((1, 9, 9, 8), low, stride=2)) == [(0, 3), (0, 2)]
    assert rows(conv((1, 11, 11, 8), ((0, 0), (2, 2), (2, 2), (0, 0)), 5)) == [
        (2, 3),
        (1, 4),
        (0, 5),
        (0, 4),
        (0, 3),
    ]


def test_what_is_not_worth_its_code_is_multiplied() -> None:
    assert rows(conv((1, 24, 24, 8), ONE)), "4 of 66 rows of products"
    assert rows(conv((1, 58, 58, 8), ONE)) == [], "2 of 168"
    assert rows(conv((1, 9, 9, 8), ())) == []


def products(body: tuple[Statement, ...]) -> int:
    """How often a program's dot products run."""
    return sum(
        len(range(x.start, x.stop, x.step)) * products(x.body)
        if isinstance(x, Loop)
        else isinstance(x, Op) and x.name == "dot"
        for x in body
    )


def test_a_fifth_of_a_small_image_is_left_out() -> None:
    for tile, kept in (({"ow": 3}, 7 * 9), ({"ow": 1}, 7 * 7)):
        flow = sf.Dataflow(tile=tile, lanes="oc", group="ic")
        some, every = (conv((1, 5, 5, 4), z, dataflow=flow).program.body for z in (ONE, ()))
        assert products(some) * 81 == products(every) * kept


@pytest.mark.parametrize(
    "flow",
    [
        sf.Dataflow(anchor="w"),
        sf.Dataflow(tile={"oh": 2}),
        sf.Dataflow(group="kh", lanes="oc"),
        sf.Dataflow(block={"oh": 2}),
    ],
    ids=str,
)
def test_where_rows_are_not_alone_everything_is_multiplied(flow: sf.Dataflow) -> None:
    plan = conv((1, 9, 9, 8), ONE, dataflow=flow).plan
    assert [plan.runs(level) for level in plan.levels if level.axis == "oh"] in ([()], [(), ()])


def test_a_side_that_is_made_unsigned_has_no_zeros() -> None:
    x = replace(sf.i8[1, 9, 9, 8], zeros=ONE)
    w = sf.pack(np.zeros((3, 3, 8, 16), np.int8)).type
    plan = CONV.specialize(x=x, w=w).plan
    level = next(x for x in plan.levels if x.axis == "oh")
    assert bool(plan.runs(level)) == (plan.dot is not None and not plan.dot.flip)


@pytest.mark.parametrize("op", [ops.conv2d, ops.depthwise_conv2d])
def test_an_input_with_its_border_is_the_same_layer(op: Any) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 6, 7, 8)).astype(np.float32)
    w = rng.standard_normal((3, 3, 8, 8) if op is ops.conv2d else (3, 3, 8)).astype(np.float32)
    whole, inside = ops.bordered(x.shape, sf.f32, ((0, 0), (1, 1), (1, 0), (0, 0)))
    inside[...] = x
    pads = ((1, 1), (1, 0))
    y = op(whole, w, padding=pads, bordered=True)
    assert y.shape == op.shape(whole, w, padding=pads, bordered=True).shape
    assert np.array_equal(y, op(x, w, padding=pads))


def test_refusals() -> None:
    x, w = np.zeros((1, 4, 2, 8), np.float32), np.zeros((3, 3, 8, 8), np.float32)
    with pytest.raises(sf.OperandError) as caught:
        ops.conv2d(x, w, padding="same", bordered=True)
    assert str(caught.value) == (
        "conv2d: padding='same' of an input that has its border is not known; numbers are, such as "
        "((top, bottom), (left, right)). Give the border's."
    )
    with pytest.raises(sf.OperandError) as caught:
        ops.conv2d(x, w, padding=1, bordered=True)
    assert str(caught.value) == (
        "conv2d: x.shape=[1, 4, 2, 8] has nothing inside a border of ((1, 1), (1, 1)); more than "
        "the border is needed. Give the whole array, or bordered=False."
    )
