"""Layers that move values against their numpy references: every bit arrives, from any place.

Arrays are random bytes, so that floats are NaNs, infinities and denormals too.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simdflow as sf
from simdflow import ops
from simdflow.ops import reference
from simdflow.ops.reference.call import call
from simdflow.targets.detect import host_targets

TARGETS = [t.name for t in host_targets()]
KINDS = [sf.f32, sf.u8, sf.i8, sf.i32, sf.i64]
MODES = ["asymmetric", "half_pixel", "align_corners"]
ROUNDINGS = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]

shapes = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


def bytes_of(shape: tuple[int, ...], kind: sf.Scalar, seed: int = 0) -> np.ndarray:
    """Random bytes as an array of the type."""
    count = prod(shape) * kind.dtype.itemsize
    return (
        np.random.default_rng(seed)
        .integers(0, 256, count, np.uint8)
        .view(kind.dtype)
        .reshape(shape)
    )


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def agree(op: ops.Op, *operands: np.ndarray, target: str | None = None, **options: Any) -> None:
    """The op, its shape rule, its reference and the reference by name give one result."""
    expected = op.reference(*operands, **options)
    same(op(*operands, target=target, **options), expected)
    same(call(op.name, *operands, **options), expected)
    kind = op.shape(*operands, **options)
    assert (kind.shape, kind.scalar.dtype) == (expected.shape, expected.dtype)
    out = np.empty(expected.shape, expected.dtype)
    op.bind(*(np.asarray(a, order="C") for a in operands), out=out, target=target, **options)()
    same(out, expected)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_transpose(target: str, data: st.DataObject) -> None:
    x = bytes_of(data.draw(shapes), data.draw(st.sampled_from(KINDS)))
    agree(ops.transpose, x, axes=tuple(data.draw(st.permutations(range(x.ndim)))), target=target)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 3, 40, 37), (0, 2, 3, 1)),
        ((1, 40, 37, 3), (0, 3, 1, 2)),
        ((2, 33, 3, 16), (0, 2, 1, 3)),
        ((65, 129), (1, 0)),
    ],
)
def test_transpose_of_layouts(
    kind: sf.Scalar, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    agree(ops.transpose, bytes_of(shape, kind), axes=axes)


def test_axes_that_stay_together_are_one() -> None:
    x = bytes_of((2, 1, 3, 2, 1, 2, 3, 2), sf.f32)
    agree(ops.transpose, x, axes=(5, 6, 7, 0, 1, 2, 3, 4))
    with pytest.raises(sf.OperandError, match="moves 7 groups of axes"):
        ops.transpose(np.zeros((2,) * 7, np.float32), axes=(6, 5, 4, 3, 2, 1, 0))


@given(data=st.data())
@settings(max_examples=8)
def test_reshape(data: st.DataObject) -> None:
    x = bytes_of(data.draw(shapes), data.draw(st.sampled_from(KINDS)))
    sizes = list(data.draw(st.permutations(x.shape)))
    place = data.draw(st.integers(0, len(sizes)))
    agree(ops.reshape, x, shape=(*sizes[:place], -1, *sizes[place:]))
    agree(ops.reshape, x, shape=tuple(sizes))


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_expand(target: str, data: st.DataObject) -> None:
    wanted = data.draw(shapes)
    kept = data.draw(st.tuples(*[st.booleans()] * len(wanted)))
    seen = tuple(n if k else 1 for n, k in zip(wanted, kept, strict=True))
    seen = seen[data.draw(st.integers(0, len(seen))) :]
    x = bytes_of(seen, data.draw(st.sampled_from(KINDS)))
    agree(ops.expand, x, shape=wanted, target=target)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_slice(target: str, data: st.DataObject) -> None:
    shape = data.draw(shapes)
    taken = [data.draw(st.slices(n).filter(lambda s, n=n: range(n)[s])) for n in shape]
    starts, stops, steps = zip(
        *(s.indices(n) for s, n in zip(taken, shape, strict=True)), strict=True
    )
    x = bytes_of(shape, data.draw(st.sampled_from(KINDS)))
    options = {"starts": starts, "stops": stops, "steps": steps}
    agree(ops.slice, x, target=target, **options)
    same(reference.slice(x, **options), x[tuple(taken)])


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_concat(target: str, data: st.DataObject) -> None:
    shape = data.draw(shapes)
    axis = data.draw(st.integers(0, len(shape) - 1))
    kind = data.draw(st.sampled_from(KINDS))
    sizes = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
    parts = [(*shape[:axis], n, *shape[axis + 1 :]) for n in sizes]
    xs = [bytes_of(s, kind, seed) for seed, s in enumerate(parts)]
    agree(ops.concat, *xs, axis=axis, target=target)


def test_concat_of_the_same_array_and_of_strided_ones() -> None:
    x = bytes_of((4, 6), sf.f32)
    same(ops.concat(x, x, x[::-1], axis=0), np.concatenate([x, x, x[::-1]]))
    out = np.zeros((4, 24), np.float32)
    same(ops.concat(x, x[:, ::-1], out=out[:, ::2], axis=1), np.concatenate([x, x[:, ::-1]], 1))


@pytest.mark.parametrize("order", ["dcr", "crd"])
@given(data=st.data())
@settings(max_examples=6)
def test_depth_and_space(order: str, data: st.DataObject) -> None:
    n, h, w, c, block = (data.draw(st.integers(1, 4)) for _ in range(5))
    x = bytes_of((n, h, w, c * block * block), data.draw(st.sampled_from(KINDS)))
    agree(ops.depth_to_space, x, block=block, order=order)
    wide = reference.depth_to_space(x, block, "dcr")
    agree(ops.space_to_depth, wide, block=block)
    same(ops.space_to_depth(wide, block=block), x)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_pad(target: str, data: st.DataObject) -> None:
    """Up to four axes at once, wherever they are."""
    x = bytes_of(data.draw(shapes), data.draw(st.sampled_from([sf.f32, sf.u8, sf.i8, sf.i32])))
    padded = data.draw(st.sets(st.integers(0, x.ndim - 1), max_size=4))
    side = st.integers(0, 3)
    pads = tuple(data.draw(st.tuples(side, side)) if d in padded else (0, 0) for d in range(x.ndim))
    agree(ops.pad, x, pads=pads, value=7, target=target)


def test_five_axes_are_not_padded_at_once() -> None:
    """The shape rule says so, and not only the layer."""
    for refused in (ops.pad, ops.pad.shape):
        with pytest.raises(sf.OperandError) as error:
            refused(np.zeros((1, 2, 1, 2, 1), np.float32), pads=((1, 0),) * 5)
        assert str(error.value) == (
            "pad: pads=[(1, 0), (1, 0), (1, 0), (1, 0), (1, 0)] border 5 axes; at most 4 are "
            "allowed. Pad in two calls."
        )


def test_crd_is_the_pixel_shuffle() -> None:
    """Channel c*4 + i*2 + j of a pixel goes to row i, column j, channel c."""
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 1, 8)
    assert ops.depth_to_space(x, block=2, order="crd")[0, :, :, 1].tolist() == [[4, 5], [6, 7]]
    assert ops.depth_to_space(x, block=2, order="dcr")[0, :, :, 1].tolist() == [[1, 3], [5, 7]]


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=6)
def test_gather(target: str, data: st.DataObject) -> None:
    x = bytes_of(data.draw(shapes.filter(lambda s: len(s) < 5)), data.draw(st.sampled_from(KINDS)))
    axis = data.draw(st.integers(0, x.ndim - 1))
    wanted = data.draw(st.lists(st.integers(1, 5), min_size=0, max_size=2).map(tuple))
    dtype = data.draw(st.sampled_from([np.int32, np.int64]))
    indices = np.random.default_rng(1).integers(0, x.shape[axis], wanted).astype(dtype)
    agree(ops.gather, x, np.asarray(indices), axis=axis, target=target)


@pytest.mark.parametrize("bad", [-1, 5, 2**40, -(2**63)])
def test_an_index_outside_is_refused_and_never_read(bad: int) -> None:
    x, indices = bytes_of((5, 40), sf.f32), np.array([0, bad, 4])
    with pytest.raises(sf.OperandError, match="its type promises 0 to 4"):
        ops.gather(x, indices, axis=0)
    with pytest.raises(IndexError):
        reference.gather(x, indices, axis=0)
    kept, out = np.array([0, 1, 4]), np.empty((3, 40), np.float32)
    run = ops.gather.bind(x, kept, out=out, axis=0)
    kept[:] = indices
    run()
    same(out, x[np.clip(indices, 0, 4)])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(data=st.data())
@settings(max_examples=4)
def test_resize_nearest(mode: str, rounding: str, data: st.DataObject) -> None:
    n, h, w, c, *size = (data.draw(st.integers(1, 9)) for _ in range(6))
    x = bytes_of((n, h, w, c), data.draw(st.sampled_from(KINDS)))
    agree(ops.resize_nearest, x, size=tuple(size), mode=mode, rounding=rounding)


def test_resize_nearest_of_frameworks() -> None:
    """Places that PyTorch, TensorFlow Lite and ONNX agree on."""
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)

    def row(wanted: int, **options: Any) -> list[int]:
        return [int(v) for v in ops.resize_nearest(x, size=(1, wanted), **options).ravel()]

    assert row(8) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert row(2) == [0, 2]
    assert row(2, mode="half_pixel", rounding="round_prefer_floor") == [0, 2]
    assert row(2, mode="half_pixel", rounding="round_prefer_ceil") == [1, 3]
    assert row(7, mode="align_corners", rounding="round_prefer_ceil") == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=4)
def test_resize_bilinear(mode: str, target: str, data: st.DataObject) -> None:
    n, h, w, c, *size = (data.draw(st.integers(1, 9)) for _ in range(6))
    kind = data.draw(st.sampled_from([sf.f32, sf.u8, sf.i8]))
    options: dict[str, Any] = {"size": tuple(size), "mode": mode}
    if kind != sf.f32:
        options["rounding"] = data.draw(st.sampled_from(["float", "tflite"]))
        agree(ops.resize_bilinear, bytes_of((n, h, w, c), kind), target=target, **options)
        return
    x = np.random.default_rng(0).standard_normal((n, h, w, c)).astype(np.float32)
    found = ops.resize_bilinear(x, target=target, **options)
    exact = reference.resize_bilinear(x, **options)
    # Three mixes of at most 2 roundings each, of values up to twice the largest, and the weights.
    assert (np.abs(found - exact) <= 20 * 2.0**-24 * np.abs(x).max()).all()


@pytest.mark.parametrize(("rounding", "kernels"), [("float", "auto"), ("tflite", "ref")])
def test_resize_bilinear_of_8_bits_is_that_of_litert(rounding: str, kernels: str) -> None:
    """LiteRT's own answers, to the bit; see golden/make_litert_graphs.py."""
    pytest.importorskip("tflite", reason="the model's input is made with simdflow[tflite]")
    import tflite_cases

    case = tflite_cases.make("RESIZE_BILINEAR:int8")
    with np.load(Path(__file__).parent / "golden" / "litert_graphs.npz") as stored:
        expected = stored[f"RESIZE_BILINEAR:int8|{kernels}|0"]
    size = expected.shape[1:3]
    found = ops.resize_bilinear(case.inputs[0], size=size, mode="asymmetric", rounding=rounding)
    same(found, expected)


def test_resize_bilinear_between_two_pixels() -> None:
    x = np.array([0, 10], np.float32).reshape(1, 1, 2, 1)
    found = ops.resize_bilinear(x, size=(1, 4)).ravel()
    assert found.tolist() == [0, 2.5, 7.5, 10]
    assert ops.resize_bilinear(x.astype(np.int8), size=(1, 4)).ravel().tolist() == [0, 3, 8, 10]


F4 = np.zeros((1, 4, 4, 6), np.float32)
REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("type", lambda: ops.transpose(F4.astype(np.int16), axes=(0, 1, 2, 3)), "x=i16 is not a type"),
    ("axes", lambda: ops.transpose(F4, axes=(0, 1, 1, 3)), "is not an order of the axes 0 to 3"),
    ("rank", lambda: ops.reshape(F4, shape=(1,) * 8 + (96,)), "has 9 axes; at most 8"),
    ("elements", lambda: ops.reshape(F4, shape=(5, -1)), "does not have the 96 elements"),
    ("two open sizes", lambda: ops.reshape(F4, shape=(-1, -1)), "one of them -1"),
    ("no tuple", lambda: ops.reshape(F4, shape=96), "is not a tuple of integers"),
    ("expand", lambda: ops.expand(F4, shape=(1, 4, 5, 6)), "does not repeat to shape"),
    (
        "slice",
        lambda: ops.slice(F4, starts=(0,) * 4, stops=(1, 4, 4, 7), steps=(1,) * 4),
        "axis=3 from 0 to 7 by 1",
    ),
    (
        "empty slice",
        lambda: ops.slice(F4, starts=(0, 2, 0, 0), stops=(1, 2, 4, 6), steps=(1,) * 4),
        "takes nothing",
    ),
    ("step", lambda: ops.slice(F4, starts=(0,) * 4, stops=(1,) * 4, steps=(0,) * 4), "by 0 takes"),
    ("channels", lambda: ops.depth_to_space(F4, block=2), "x has 6 channels, which block=2"),
    ("order", lambda: ops.depth_to_space(F4, block=1, order="rcd"), "'dcr' and 'crd' are"),
    ("block", lambda: ops.space_to_depth(F4, block=3), "are not multiples of block=3"),
    ("nothing", lambda: ops.concat(axis=0), "one or more are needed"),
    ("axis", lambda: ops.concat(F4, F4, axis=-1), "0 to 3 are allowed"),
    ("sizes", lambda: ops.concat(F4, F4[:, :3], axis=3), "xs[1]=f32[1, 3, 4, 6] does not join"),
    ("types", lambda: ops.concat(F4, F4.astype(np.uint8), axis=3), "does not join xs[0]"),
    ("packed", lambda: ops.concat(F4, sf.pack(F4), axis=3), "xs1=f32[1, 4, 4, 6] packed is packed"),
    ("index type", lambda: ops.gather(F4, np.zeros(2, np.uint8), axis=1), "indices=u8 is not"),
    ("size", lambda: ops.resize_nearest(F4, size=(0, 3)), "a size below 1"),
    (
        "mode",
        lambda: ops.resize_nearest(F4, size=(2, 3), mode="cubic"),
        "mode='cubic' is not known",
    ),
    ("rounding", lambda: ops.resize_nearest(F4, size=(2, 3), rounding="up"), "rounding='up' is"),
    (
        "bilinear type",
        lambda: ops.resize_bilinear(F4.astype(np.int32), size=(2, 3)),
        "x=i32 is not",
    ),
    (
        "bilinear rounding",
        lambda: ops.resize_bilinear(F4, size=(2, 3), rounding="onnx"),
        "rounding='onnx' has no definition here",
    ),
    ("empty", lambda: ops.transpose(F4[:0], axes=(0, 1, 2, 3)), "has no elements"),
]


@pytest.mark.parametrize(
    ("call_it", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refusals(call_it: Callable[[], Any], message: str) -> None:
    with pytest.raises(sf.OperandError) as caught:
        call_it()
    assert message in str(caught.value)
