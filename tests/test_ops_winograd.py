"""conv2d from Winograd's tiles: inside its error bound at every edge, and refused with reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import made, reals

import simdflow as sf
from simdflow import OperandError, ops
from simdflow.graph.compile import compile
from simdflow.graph.evaluate import evaluate
from simdflow.graph.graph import Builder
from simdflow.graph.passes import fast_convolutions
from simdflow.ops import reference
from simdflow.targets.detect import host_targets
from simdflow.testing import arrays

UNIT = 2.0**-24
TARGETS = [t.name for t in host_targets()]
RNG = np.random.default_rng(7)

# The algorithm's three matrices, from the paper.
B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1.0]])
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]])


def sizes(x: np.ndarray, w: np.ndarray, padding: int) -> np.ndarray:
    """|A'| (sum of |B'| |d| |B| * |G w G'|) |A| of each output: what its errors are relative to."""
    behind = [n % 2 for n in x.shape[1:3]]
    border = ((0, 0), *((padding, padding + odd) for odd in behind), (0, 0))
    bordered = np.abs(np.pad(x.astype(np.float64), border))
    points = np.abs(np.einsum("ai,bj,ijco->abco", G, G, w.astype(np.float64)))
    h, width = (n + 2 * padding - 2 for n in x.shape[1:3])
    found = np.zeros((len(x), h + 1, width + 1, w.shape[3]))
    for y in range(0, h, 2):
        for z in range(0, width, 2):
            tile = bordered[:, y : y + 4, z : z + 4]
            seen = np.einsum("ai,bj,nijc->nabc", np.abs(B), np.abs(B), tile)
            sums = np.einsum("nabc,abco->nabo", seen, points)
            found[:, y : y + 2, z : z + 2] = np.einsum("pa,qb,nabo->npqo", abs(A), abs(A), sums)
    return found[:, :h, :width]


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=8, deadline=None)
@given(
    images=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    padding=st.integers(0, 2),
    activation=st.sampled_from([None, "relu", "relu6"]),
    data=st.data(),
)
def test_every_output_is_inside_the_bound(
    target: str,
    images: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    padding: int,
    activation: str | None,
    data: st.DataObject,
) -> None:
    """(ic + 12) units of the sizes: two sums before the products, ic in them, four after, a bias,
    and the roundings of weights and products.
    """
    h, width = (max(n, 3 - 2 * padding) for n in size)
    x = data.draw(arrays((images, h, width, channels[0]), sf.f32.range(-4, 4)))
    w = data.draw(arrays((3, 3, *channels), sf.f32.range(-4, 4)))
    bias = data.draw(arrays(channels[1], sf.f32.range(-4, 4)))
    given_ = {"padding": padding, "activation": activation}
    found = ops.conv2d(x, sf.pack(w), bias, algorithm="winograd", target=target, **given_)
    exact = reference.call("conv2d", x, w, bias, **given_)
    error = (channels[0] + 12) * UNIT * (sizes(x, w, padding) + np.abs(bias)) + 1e-37
    assert found.shape == exact.shape
    assert (np.abs(found - exact) <= error + UNIT * np.abs(exact)).all()


def test_small_integers_are_exact() -> None:
    """Halves of halves of weights that are multiples of four, and sums below 2^24."""
    x = RNG.integers(-8, 9, (1, 7, 10, 20)).astype(np.float32)
    w = 4 * RNG.integers(-8, 9, (3, 3, 20, 18)).astype(np.float32)
    exact = reference.conv2d(x, w, None, padding=1)
    found = ops.conv2d(x, sf.pack(w), padding=1, algorithm="winograd")
    np.testing.assert_array_equal(found, exact)


def test_a_border_in_place_is_taken_for_even_outputs() -> None:
    x, w = reals(2, 8, 6, 5), sf.pack(reals(3, 3, 5, 7))
    whole, inside = ops.bordered(x.shape, sf.f32, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside[...] = x
    given_: dict[str, Any] = {"padding": 1, "algorithm": "winograd"}
    found = ops.conv2d(whole, w, bordered=True, **given_)
    np.testing.assert_array_equal(found, ops.conv2d(x, w, **given_))


def test_infinities_and_nan_reach_the_outputs_that_read_them_alone() -> None:
    """As an infinity or as NaN: tiles add and subtract an infinity more than once."""
    w = reals(3, 3, 3, 4)
    for y, z in ((0, 0), (5, 6), (8, 3), (11, 10)):
        x = reals(1, 12, 12, 3)
        x[0, y, z, 1] = np.inf
        found = ops.conv2d(x, sf.pack(w), padding=1, algorithm="winograd")
        direct = reference.call("conv2d", x, w, padding=1)
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(direct))


@pytest.mark.parametrize(
    ("shape", "tiles"),
    [
        ((16, 16, 32, 32), True),
        ((13, 12, 64, 48), True),
        ((1, 1, 64, 64), False),
        ((2, 2, 64, 64), False),
        ((9, 9, 1, 8), False),
    ],
)
def test_auto_has_the_bits_of_the_faster_one_in_every_batch(
    shape: tuple[int, ...], tiles: bool
) -> None:
    h, width, ic, oc = shape
    x, w = reals(3, h, width, ic), sf.pack(reals(3, 3, ic, oc))
    found = ops.conv2d(x, w, padding=1, algorithm="auto")
    taken = "winograd" if tiles else "direct"
    np.testing.assert_array_equal(found, ops.conv2d(x, w, padding=1, algorithm=taken))
    for image, y in zip(x, found, strict=True):
        alone = ops.conv2d(image[None], w, padding=1, algorithm="auto")
        np.testing.assert_array_equal(alone[0], y)


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        (
            sf.f32[1, 6, 6, 4],
            sf.f32[3, 3, 4, 4],
            {"algorithm": "fft"},
            "conv2d: algorithm='fft' is not known; 'direct', 'winograd', 'auto' are. Use one of "
            "them.",
        ),
        (
            sf.u8[1, 6, 6, 4],
            sf.i8[5, 3, 2, 4],
            {"algorithm": "winograd", "stride": (2, 1), "groups": 2},
            "conv2d: algorithm='winograd' with x=u8, kernel=(5, 3), stride=(2, 1), dilation=(1, "
            "1), groups=2, bordered=False, out=(1, 4); f32, 3x3, strides and dilations of 1 and "
            "one group are allowed, and even outputs with bordered=True. Use 'auto'.",
        ),
        (
            sf.f32[1, 7, 6, 4],
            sf.f32[3, 3, 4, 4],
            {"algorithm": "winograd", "padding": 1, "bordered": True},
            "conv2d: algorithm='winograd' with x=f32, kernel=(3, 3), stride=(1, 1), dilation=(1, "
            "1), groups=1, bordered=True, out=(5, 4); f32, 3x3, strides and dilations of 1 and "
            "one group are allowed, and even outputs with bordered=True. Use 'auto'.",
        ),
    ],
)
def test_refusals(
    x: sf.OperandType, w: sf.OperandType, options: dict[str, Any], message: str
) -> None:
    weights = sf.pack(np.zeros(w.shape, w.scalar.dtype))
    with pytest.raises(OperandError) as caught:
        ops.conv2d.layer(x, weights, **options)
    assert str(caught.value) == message


def residual(b: Builder, x: str) -> str:
    """3x3, then relu of another 3x3 and the first, at sizes where tiles are faster; an odd 3x3."""

    def conv(value: str, **options: Any) -> str:
        w = b.constant("w", reals(3, 3, 32, 32) / np.float32(8))
        return b.call(ops.conv2d, value, w, **options)

    first = conv(x, padding=1, activation="relu")
    held = b.call(ops.relu, b.call(ops.add, conv(first, padding=1), first))
    return conv(held, padding=((1, 0), (0, 1)))


def test_networks_take_tiles_and_what_follows_them_is_fused() -> None:
    graph = made(sf.f32[1, 16, 16, 32], residual)
    x = reals(1, 16, 16, 32)
    model = compile(graph)
    names = [line.kernel for line in model.profile(x, seconds=0).lines]
    assert sum("tile_products" in n for n in names) == 3
    assert sum("output_tiles_add" in n for n in names) == 1
    (expected,) = evaluate(graph, {"x": x}).values()
    found = model(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(compile(graph, threads=2)(x), found)
    batch = np.concatenate([x, reals(4, 16, 16, 32)])
    np.testing.assert_array_equal(compile(graph, batch=5)(batch)[:1], found)


def test_the_pass_leaves_what_it_may_not_change() -> None:
    def layers(b: Builder, x: str) -> str:
        w = b.constant("w", reals(3, 3, 16, 16))
        x = b.call(ops.conv2d, x, w, padding=1)
        x = b.call(ops.conv2d, x, w, padding=1, algorithm="direct")
        x = b.call(ops.conv2d, x, w, stride=2)
        return b.call(ops.conv2d, x, b.constant("v", reals(3, 3, 8, 16)), groups=2, padding=2)

    nodes = fast_convolutions(made(sf.f32[1, 8, 8, 16], layers)).nodes
    assert [n.options.get("algorithm") for n in nodes] == ["auto", "direct", None, None]
