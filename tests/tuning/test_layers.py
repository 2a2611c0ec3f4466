"""Layers by name: the nests that `simdflow explore` knows, against `ops.reference` and numpy.

The emitted text is run, no machine code; errors are checked with their whole message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import simdflow as sf
from simdflow.ops import reference
from simdflow.tuning.layers import layer


def drawn(kind: sf.OperandType, rng: np.random.Generator) -> Any:
    if kind.scalar.is_float:
        return rng.integers(-4, 5, kind.shape).astype(np.float32)
    low, high = max(int(kind.low), -300), min(int(kind.high), 300)
    a = rng.integers(low, high, kind.shape, endpoint=True).astype(kind.scalar.dtype)
    return sf.pack(a) if kind.storage == "packed" else a


def ran(name: str, shapes: dict[str, tuple[int, ...]], dtype: str, **options: Any) -> Any:
    """(what the nest computes, its operands by name): random operands, `scale` 0.01."""
    kernel, given = layer(name, shapes, dtype, options)
    made = kernel.specialize(target="portable", **given)
    rng = np.random.default_rng(1)
    types = {n: made.nest.type_of(n) for n in made.inputs}
    operands = {n: drawn(t, rng) for n, t in types.items()}
    if "scale" in operands:
        operands["scale"] = np.full(types["scale"].shape, 0.01, np.float32)
    plain = {n: a.array if isinstance(a, sf.PackedOperand) else a for n, a in operands.items()}
    return made.run_text(*operands.values()), plain


@pytest.mark.parametrize("dtype", ["u8i8", "i8i8", "f32", "u8i8u8"])
def test_convolutions(dtype: str) -> None:
    shapes = {"x": (1, 7, 8, 8), "w": (3, 3, 4, 16)}
    found, o = ran("conv2d", shapes, dtype, stride=2, padding=1, groups=2)
    assert o["x"].shape == (1, 9, 10, 8)  # with its border
    sums = reference.conv2d(o["x"], o["w"], o["start"], stride=2, groups=2)
    if dtype == "u8i8u8":
        sums = np.clip(np.rint(sums.astype(np.float32) * np.float32(0.01)), 0, 255)
    assert np.array_equal(found, sums)


def test_depthwise_and_dense_and_matmul() -> None:
    found, o = ran("depthwise_conv2d", {"x": (1, 6, 6, 5), "w": (3, 3, 10)}, "u8i8")
    w = o["w"].reshape(3, 3, 10)
    assert np.array_equal(found, reference.depthwise_conv2d(o["x"], w, o["start"]))
    found, o = ran("dense", {"x": (3, 20), "w": (20, 7)}, "i8i8")
    expected = o["x"][0, 0].astype(int) @ o["w"][0, 0] + o["start"]
    assert np.array_equal(found[0, 0], expected)
    for shapes in ({"a": (4, 6), "b": (6, 5)}, {"a": (3, 4, 6), "b": (3, 6, 5)}):
        found, o = ran("matmul", shapes, "u8i8")
        assert np.array_equal(found, o["a"].astype(int) @ o["b"])


def test_layers_of_bits() -> None:
    rng = np.random.default_rng(2)
    kernel, given = layer("conv2d", {"x": (1, 6, 6, 40), "w": (3, 3, 40, 9)}, "bit", {"stride": 2})
    x, w = rng.choice([-1, 1], (1, 6, 6, 40)), rng.choice([-1, 1], (9, 3, 3, 40))
    made = kernel.specialize(target="portable", **given)
    found = made.run_text(sf.pack_bits(x), sf.pack(sf.pack_bits(w)))
    assert np.array_equal(found, reference.conv2d(x, np.moveaxis(w, 0, -1), stride=2))
    for name, (a, b) in {"dense": ("x", "w"), "matmul": ("a", "b")}.items():
        kernel, given = layer(name, {a: (4, 70), b: (70, 6)}, "bit", {})
        x, w = rng.choice([-1, 1], (4, 70)), rng.choice([-1, 1], (6, 70))
        packed = sf.pack_bits(w)
        made = kernel.specialize(target="portable", **given)
        found = made.run_text(sf.pack_bits(x), sf.pack(packed) if name == "dense" else packed)
        assert np.array_equal(found, x @ w.T)


SHAPES = {"x": (1, 8, 8, 16), "w": (3, 3, 16, 8)}


@pytest.mark.parametrize(
    ("name", "shapes", "dtype", "options", "said"),
    [
        (
            "conv3d", SHAPES, "u8i8", {},
            "explore: kernel='conv3d' is no layer; conv2d, depthwise_conv2d, dense, matmul are. "
            "Name one of them, or a kernel of a file: my_layers.py:my_kernel",
        ),
        (
            "conv2d", {"x": (1, 8, 8, 16)}, "u8i8", {},
            "conv2d: operands=x are not those of the layer, x and w. Give both, e.g. --x and --w",
        ),
        (
            "dense", {"x": (2, 16), "w": (16, 8)}, "u8i8", {"stride": 2},
            "dense: stride=2 is no option of it here; none are. Leave it out",
        ),
        (
            "conv2d", SHAPES, "u9", {},
            "explore: dtype='u9' is not a row of element types; u8, u16, u32, i8, i16, i32, i64, "
            "f32, f64, bit are. Write e.g. u8i8, i8i8, f32 or bit",
        ),
        (
            "conv2d", SHAPES, "biti8", {},
            "conv2d: dtype='biti8' is not what the layer takes; u8i8, i8i8, f32 and bit are, and "
            "u8i8u8 for a requantized result. Use one of them",
        ),
        (
            "conv2d", SHAPES, "u8i8f32", {},
            "conv2d: dtype has a result of f32 for u8 x i8; u8 and i8 are requantized results of "
            "8-bit products. Leave it out",
        ),
        (
            "conv2d", SHAPES, "bit", {"padding": 1},
            "conv2d: padding and groups are not there for bits, which have no zero; stride and "
            "dilation are. Give x with its border",
        ),
        (
            "conv2d", {"x": (1, 8, 8, 16), "w": (3, 3, 12, 8)}, "bit", {},
            "conv2d: x [1, 8, 8, 16] and w [3, 3, 12, 8] do not fit; 4 axes each and as many "
            "channels in x's last axis as in w's last but one are needed. Correct one",
        ),
        (
            "matmul", {"a": (4, 6), "b": (6, 5)}, "u8i8u8", {},
            "matmul: dtype has a result of u8; matmul stores its sums, i32 or f32. Leave it out",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    name: str, shapes: Any, dtype: str, options: Any, said: str
) -> None:
    with pytest.raises(sf.OperandError) as refused:
        layer(name, shapes, dtype, options)
    assert str(refused.value) == said


def test_errors_of_sizes_are_those_of_the_layers() -> None:
    with pytest.raises(sf.OperandError, match="x has 16 channels, w reads 12 in each of 1 groups"):
        layer("conv2d", {"x": (1, 8, 8, 16), "w": (3, 3, 12, 8)}, "u8i8", {})
    with pytest.raises(sf.OperandError, match="is smaller than the window's 9"):
        layer("conv2d", {"x": (1, 8, 8, 16), "w": (9, 9, 16, 8)}, "u8i8", {})
    with pytest.raises(sf.OperandError, match="sums of 100000 products can leave i32"):
        layer("matmul", {"a": (4, 100000), "b": (100000, 5)}, "u8i8", {})
