"""Depthwise layers of bytes with woven tiles, and with several pixels in one vector.

Emitted text and machine code against numpy, on every target, for channels that fill blocks of
vectors, parts of them, or repeat inside one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow.compiler.weave import woven_order
from simdflow.targets import host_targets

TARGETS = [t.name for t in host_targets()]


@sf.kernel
def requantized(x, w, start, scale, out, *, stride=1, zero_point=3, lowest=5, highest=250):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i32(start[c], wrap=True)
        for kh, kw in sf.reduce(w.shape[:2]):
            acc += x[n, oh * stride + kh, ow * stride + kw, c] * w[kh, kw, c]
        q = sf.i32(sf.round(sf.f32(acc) * scale[c]), saturate=True)
        y = sf.u8(q + zero_point, saturate=True)
        out[n, oh, ow, c] = sf.min(sf.max(y, lowest), highest)


def expected(x: Any, w: Any, start: Any, scale: Any, stride: int) -> np.ndarray:
    """The layer in numpy, tap by tap."""
    kh, kw, _ = w.shape
    oh, ow = ((n - k) // stride + 1 for n, k in zip(x.shape[1:3], (kh, kw), strict=True))
    total = np.broadcast_to(start.astype(np.int64), (x.shape[0], oh, ow, x.shape[3])).copy()
    for i in range(kh):
        for j in range(kw):
            seen = x[
                :, i : i + (oh - 1) * stride + 1 : stride, j : j + (ow - 1) * stride + 1 : stride
            ]
            total += seen.astype(np.int64) * w[i, j]
    q = np.rint(total.astype(np.int32).astype(np.float32) * scale).astype(np.int64)
    return np.clip(np.clip(q + 3, 0, 255), 5, 250).astype(np.uint8)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Any, ...]:
    """Operands, stride and a dataflow that often weaves, and often repeats the channels."""
    repeating = draw(st.booleans())
    kernel = draw(st.sampled_from(((3, 3), (3, 3), (3, 1), (1, 3), (5, 3), (2, 4))))
    stride = 1 if repeating else draw(st.integers(1, 2))
    channels = draw(st.sampled_from((4, 8, 16, 32) if repeating else (12, 64, 96, 128, 160)))
    oh = draw(st.integers(1, 5))
    ow = draw(st.sampled_from((2, 3, 16, 32, 48) if repeating else (1, 2, 3, 4, 8)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from((np.uint8, np.int8)))
    bounds = np.iinfo(kind)
    size = tuple((n - 1) * stride + k for n, k in zip((oh, ow), kernel, strict=True))
    x = rng.integers(bounds.min, bounds.max + 1, (1, *size, channels)).astype(kind)
    w = rng.integers(-128, 128, (*kernel, channels)).astype(np.int8)
    start = rng.integers(-20000, 20000, channels).astype(np.int32)
    scale = rng.uniform(0.001, 0.01, channels).astype(np.float32)
    lanes = "ow__c" if repeating else "c"
    block = draw(st.sampled_from((32, 64, 128) if repeating else (64, 128)))
    flow = sf.Dataflow(
        lanes=lanes,
        tile={lanes: block, "oh": draw(st.integers(1, 2))},
        group=draw(st.sampled_from(("kh", "kw"))),
        unroll=dict(zip(("kh", "kw"), kernel, strict=True)) if draw(st.integers(0, 3)) else {},
        auxiliary={"w": draw(st.sampled_from((1, 1, 6)))},
    )
    return (x, w, start, scale), stride, flow


def made(problem: tuple[Any, ...], target: str) -> Any:
    arrays, stride, flow = problem
    kinds = (sf.u8 if arrays[0].dtype == np.uint8 else sf.i8, sf.i8, sf.i32, sf.f32)
    types = {
        name: kind[a.shape]
        for name, kind, a in zip(("x", "w", "start", "scale"), kinds, arrays, strict=True)
    }
    kernel = requantized.specialize(**types, stride=stride, target=target, dataflow=flow)
    try:
        assert kernel.plan
    except sf.DataflowError:
        assume(False)
    return kernel


@settings(deadline=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(layers(), st.sampled_from(TARGETS))
def test_text_means_the_layer(problem: tuple[Any, ...], target: str) -> None:
    arrays, stride, _ = problem
    found = made(problem, target).run_text(*arrays)
    assert np.array_equal(found, expected(*arrays, stride))


@pytest.mark.parametrize("target", TARGETS)
@settings(deadline=None, max_examples=6, suppress_health_check=list(HealthCheck))
@given(layers())
def test_code_means_the_layer(target: str, problem: tuple[Any, ...]) -> None:
    arrays, stride, _ = problem
    assert np.array_equal(made(problem, target)(*arrays), expected(*arrays, stride))


def flow(**more: Any) -> sf.Dataflow:
    return sf.Dataflow(group="kh", unroll={"kh": 3, "kw": 3}, auxiliary={"w": 1}, **more)


def depthwise(channels: int, dataflow: sf.Dataflow, target: str, width: int = 8) -> Any:
    return requantized.specialize(
        x=sf.u8[1, 6, width + 2, channels],
        w=sf.i8[3, 3, channels],
        start=sf.i32[channels],
        scale=sf.f32.range(0, 0.9)[channels],
        target=target,
        dataflow=dataflow,
    )


@pytest.mark.parametrize("target", TARGETS)
def test_whole_blocks_are_woven_and_their_rest_is_not(target: str) -> None:
    lanes = depthwise(64, flow(), target).plan.lanes
    block = 4 * lanes
    plan = depthwise(block + lanes, flow(lanes="c", tile={"c": block}), target).plan
    grouped = plan.group == 4
    assert plan.woven == grouped
    assert not depthwise(block, flow(lanes="c", tile={"c": 2 * lanes}), target).plan.woven


def test_a_woven_narrowing_needs_no_permutation() -> None:
    if "avx512" not in TARGETS:
        pytest.skip("this CPU lacks avx512")
    kernel = depthwise(64, flow(lanes="c", tile={"c": 64, "ow": 2}), "avx512")
    assert kernel.plan.woven
    assert "vpackuswb" in kernel.asm()
    assert "vperm" not in kernel.asm()


def test_the_order_of_a_block_is_a_permutation_that_narrowing_undoes() -> None:
    order = woven_order(64, 16)
    assert sorted(order) == list(range(64))
    # Vector k, 16 bytes c of it: the four channels from 16c + 4k on.
    assert order[:8].tolist() == [0, 1, 2, 3, 16, 17, 18, 19]
    assert order[16:20].tolist() == [4, 5, 6, 7]
    assert order.reshape(4, 4, 4).swapaxes(0, 1).ravel().tolist() == list(range(64))


def test_the_default_puts_several_pixels_into_a_vector_of_few_channels() -> None:
    kernel = depthwise(8, None, TARGETS[0], width=16)
    if kernel.plan.group == 4:
        assert kernel.flow.lanes == "ow__c"


def test_tiles_of_repeating_lanes_are_whole_periods() -> None:
    kernel = depthwise(32, sf.Dataflow(lanes="ow__c", tile={"ow__c": 16}), "portable")
    with pytest.raises(sf.DataflowError) as error:
        assert kernel.plan
    assert str(error.value) == (
        "requantized: tile['ow__c']=16 with 4 lanes; some operand repeats every 32 elements, so "
        "that multiples of it are allowed, where 4 divides both. Use a multiple, or other lanes."
    )


def test_axes_repeat_only_as_lanes() -> None:
    kernel = depthwise(32, sf.Dataflow(tile={"ow__c": 32}), "portable")
    with pytest.raises(sf.DataflowError, match="axes ow and c cannot be fused"):
        assert kernel.plan


@sf.kernel
def product(a, b, out):
    for m, n in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(b.shape[0]):
            acc += a[m, k] * b[k, n]
        out[m, n] = acc


def test_lanes_do_not_repeat_for_an_operand_of_the_outer_axis_alone() -> None:
    flow = sf.Dataflow(lanes="m__n", tile={"m__n": 16})
    kernel = product.specialize(a=sf.u8[4, 8], b=sf.i8[8, 16], target="portable", dataflow=flow)
    with pytest.raises(sf.DataflowError) as error:
        assert kernel.plan
    assert str(error.value) == (
        "product: axes m and n cannot be fused: a[m*8 + k] mentions an outer one without all inner "
        "ones."
    )
