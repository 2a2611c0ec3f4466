"""Groups across kernel rows: an axis along which the input jumps, fused for the dot products.

Three rows of 9 bytes are 9 groups of 4, their 27 elements are 7; two of these lie in two rows. The
text and the machine code are compared with the body, on every target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import BY_NAME

import simdflow as sf
from simdflow.targets import host_targets

CONV = BY_NAME["conv2d"].kernel
GROUP = "kh__kw__ic"


@pytest.mark.parametrize("target", [t.name for t in host_targets()])
@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 40)),
    size=st.tuples(st.integers(0, 3), st.integers(0, 4)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    signed=st.booleans(),
    tile=st.integers(1, 3),
    kept=st.integers(0, 3),
    compiled=st.integers(0, 9),
    data=st.data(),
)
def test_every_group_has_the_elements_of_its_rows(
    target: str,
    kernel: tuple[int, int],
    channels: tuple[int, int],
    size: tuple[int, int],
    stride: int,
    dilation: int,
    signed: bool,
    tile: int,
    kept: int,
    compiled: int,
    data: st.DataObject,
) -> None:
    (kh, kw), (ic, oc) = kernel, channels
    names = ("kh", "kw", "ic") if dilation == 1 or kw == 1 else ("kw", "ic")
    h = (kh - 1) * dilation + 1 + size[0] * stride
    width = (kw - 1) * dilation + 1 + size[1] * stride
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    kind = np.int8 if signed else np.uint8
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    x = rng.integers(low, high, (1, h, width, ic), kind, endpoint=True)
    w = sf.pack(rng.integers(-128, 127, (kh, kw, ic, oc), np.int8, endpoint=True))
    flow = sf.Dataflow(
        group="__".join(names),
        lanes="oc",
        tile={"ow": tile},
        auxiliary={"x": kept} if kept else {},
    )
    constants = {"stride": stride, "dilation": dilation}
    kernel_of = CONV.specialize(
        x=sf.i8[x.shape] if signed else sf.u8[x.shape],
        w=w.type,
        dataflow=flow,
        target=target,
        **constants,
    )
    try:
        _ = kernel_of.plan
    except sf.DataflowError as error:
        assert "jumps" in str(error) or "registers" in str(error)
        return
    expected = CONV.interpret(x, w, **constants)
    assert np.array_equal(kernel_of.run_text(x, w), expected)
    if compiled == 0:
        assert np.array_equal(kernel_of(x, w), expected)


def text_of(x: sf.OperandType, w: sf.OperandType, **flow: Any) -> str:
    given = sf.Dataflow(**{"group": GROUP, "lanes": "oc", **flow})
    return CONV.specialize(x=x, w=sf.pack(np.zeros(w.shape, np.int8)).type, dataflow=given).source


FOURS = host_targets()[0].groups("u8", "i8", "i32")[0] == 4


@pytest.mark.skipif(not FOURS, reason="this CPU has no instruction that sums four products")
def test_groups_that_lie_in_two_rows_are_collected_and_others_broadcast() -> None:
    text = text_of(sf.u8[1, 3, 5, 3], sf.i8[3, 3, 3, 16], tile={"ow": 1})
    assert text.count("= dot") == 7
    assert text.count("= broadcast_u8x64(x, ") == 5
    assert "collect_u8x64(x, ow*3 + 8, 4, 0, 7, 8, 9)" in text
    assert "collect_u8x64(x, ow*3 + 22, 4, 0, 1, 8, 9)" in text


@pytest.mark.skipif(not FOURS, reason="this CPU has no instruction that sums four products")
@pytest.mark.parametrize(
    ("x", "w", "flow", "message"),
    [
        (
            sf.u8[1, 5, 5, 1],
            sf.i8[3, 3, 1, 16],
            {},
            "conv2d: group='kh__kw__ic' jumps in memory every 3 elements, and an instruction sums "
            "4; at least so many in a row are allowed. Use an inner axis.",
        ),
        (
            sf.u8[1, 5, 5, 3],
            sf.i8[3, 3, 3, 16],
            {"unroll": {GROUP: 8}},
            "conv2d: group='kh__kw__ic' jumps in memory every 9 elements, and the body has 8 of "
            "its 27 steps; all of them are allowed. Use an inner axis.",
        ),
    ],
)
def test_refusals(x: sf.OperandType, w: sf.OperandType, flow: dict[str, Any], message: str) -> None:
    with pytest.raises(sf.DataflowError) as caught:
        text_of(x, w, **flow)
    assert str(caught.value) == message
