"""Winograd's convolution F(2x2, 3x3): four outputs from 16 products of channels, not 36.

    x 4x4 --input_tiles--> B'xB --tile_products with GwG'--> m 4x4 --output_tiles--> A'mA 2x2

Three nests over tiles of 2 x 2 outputs; the weights are brought into that form once. The points of
a tile lie beside those of its row: 16 rows of tiles, not 16 images, are written at a time, which
takes 3.1 us and 9.2 us for 32x32x16 (one Zen 4 core). S. Winograd, Arithmetic Complexity of
Computations, 1980; A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..dsl import loops as sf
from ..dsl.types import OperandType, f32
from ..kernel import kernel
from ..operands import PackedOperand, pack
from ..targets import target as find_target
from .border import source
from .layer import Buffer, Layer, Step
from .numbers import Numbers
from .quantization import ACTIVATIONS, checked_activation
from .window import Window

POINTS = 16  # products that a tile takes for each pair of channels
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


@kernel
def input_tiles(x, out):
    """out[n, 4*i + j, ty, tx, c] = (B' d B)[i, j] of d = x[n, 2*ty:2*ty + 4, 2*tx:2*tx + 4, c], all
    f32; B' = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1].
    """
    for n, ty, a, tx, c in sf.grid(out.shape):
        y = 2 * ty
        z = 2 * tx
        # B' d: a row of four sums and differences for each row of the tile.
        p0 = x[n, y, z, c] - x[n, y + 2, z, c]
        p1 = x[n, y, z + 1, c] - x[n, y + 2, z + 1, c]
        p2 = x[n, y, z + 2, c] - x[n, y + 2, z + 2, c]
        p3 = x[n, y, z + 3, c] - x[n, y + 2, z + 3, c]
        q0 = x[n, y + 1, z, c] + x[n, y + 2, z, c]
        q1 = x[n, y + 1, z + 1, c] + x[n, y + 2, z + 1, c]
        q2 = x[n, y + 1, z + 2, c] + x[n, y + 2, z + 2, c]
        q3 = x[n, y + 1, z + 3, c] + x[n, y + 2, z + 3, c]
        r0 = x[n, y + 2, z, c] - x[n, y + 1, z, c]
        r1 = x[n, y + 2, z + 1, c] - x[n, y + 1, z + 1, c]
        r2 = x[n, y + 2, z + 2, c] - x[n, y + 1, z + 2, c]
        r3 = x[n, y + 2, z + 3, c] - x[n, y + 1, z + 3, c]
        s0 = x[n, y + 1, z, c] - x[n, y + 3, z, c]
        s1 = x[n, y + 1, z + 1, c] - x[n, y + 3, z + 1, c]
        s2 = x[n, y + 1, z + 2, c] - x[n, y + 3, z + 2, c]
        s3 = x[n, y + 1, z + 3, c] - x[n, y + 3, z + 3, c]
        out[n, ty, a, tx, c] = (
            p0 - p2, p1 + p2, p2 - p1, p1 - p3,
            q0 - q2, q1 + q2, q2 - q1, q1 - q3,
            r0 - r2, r1 + r2, r2 - r1, r1 - r3,
            s0 - s2, s1 + s2, s2 - s1, s1 - s3,
        )[a]  # fmt: skip


@kernel
def tile_products(x, w, out):
    """out[n, ty, a, tx, oc] = sum over ic of x[n, ty, a, tx, ic] * w[a, ic, oc], all f32."""
    for n, ty, a, tx, oc in sf.grid(out.shape):
        acc = f32(0)
        for ic in sf.reduce(w.shape[1]):
            acc += x[n, ty, a, tx, ic] * w[a, ic, oc]
        out[n, ty, a, tx, oc] = acc


@kernel
def output_tiles(m, start, out, *, lowest=-math.inf, highest=math.inf, clipped=0):
    """out[n, 2*ty + p, 2*tx + q, oc] = clip((A' m A)[p, q] + start[oc], lowest, highest) of the 16
    m[n, :, ty, tx, oc] as 4x4, all f32; A' = [1 1 1 0; 0 1 -1 -1]. NaN stays NaN.
    """
    for n, ty, p, tx, q, oc in sf.grid(m.shape[0], m.shape[1], 2, m.shape[3], 2, m.shape[4]):
        # A' m: two rows for the four columns of the tile.
        a0 = m[n, ty, 0, tx, oc] + m[n, ty, 4, tx, oc] + m[n, ty, 8, tx, oc]
        a1 = m[n, ty, 1, tx, oc] + m[n, ty, 5, tx, oc] + m[n, ty, 9, tx, oc]
        a2 = m[n, ty, 2, tx, oc] + m[n, ty, 6, tx, oc] + m[n, ty, 10, tx, oc]
        a3 = m[n, ty, 3, tx, oc] + m[n, ty, 7, tx, oc] + m[n, ty, 11, tx, oc]
        b0 = m[n, ty, 4, tx, oc] - m[n, ty, 8, tx, oc] - m[n, ty, 12, tx, oc]
        b1 = m[n, ty, 5, tx, oc] - m[n, ty, 9, tx, oc] - m[n, ty, 13, tx, oc]
        b2 = m[n, ty, 6, tx, oc] - m[n, ty, 10, tx, oc] - m[n, ty, 14, tx, oc]
        b3 = m[n, ty, 7, tx, oc] - m[n, ty, 11, tx, oc] - m[n, ty, 15, tx, oc]
        y = (a0 + a1 + a2, a1 - a2 - a3, b0 + b1 + b2, b1 - b2 - b3)[2 * p + q] + start[oc]
        least = lowest if y < lowest else y
        limited = (highest if least > highest else least) if clipped else y
        out[n, 2 * ty + p, 2 * tx + q, oc] = limited


@kernel
def cropped(x, out):
    """out[n, y, z, c] = x[n, y, z, c]: without the last row or column of `x`."""
    for n, y, z, c in sf.grid(out.shape):
        out[n, y, z, c] = x[n, y, z, c]


def possible(x: OperandType, w: OperandType, at: Window, groups: int, given: bool) -> bool:
    """Whether a convolution of `x` and `w` at these places can be made of tiles: f32, 3x3, every
    pixel, all channels. With a border that is `given`, of even rows and columns.
    """
    whole = at.kernel == (3, 3) and at.stride == (1, 1) and at.dilation == (1, 1) and groups == 1
    even = not any(n % 2 for n in at.out)
    return x.scalar == f32 and w.scalar == f32 and whole and (even or not given)


def products(w: OperandType, at: Window, target: Any) -> float:
    """The least cycles that the products of the direct sums take for one image, without those of
    rows of the border.
    """
    chosen, (rows, columns), (top, below) = find_target(target), at.out, at.pads[0]
    inside = range(top, rows + 2 - below)
    read = sum(row + kh in inside for row in range(rows) for kh in range(3))
    return w.size // 3 * read * columns / (chosen.width // f32.bits * chosen.rate("dot"))


def tiled(
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None,
    out: OperandType,
    at: Window,
    n: Numbers,
    given: bool,
) -> Layer:
    """The layer of a convolution that is `possible`. Where it has odd rows or columns, the border
    is one wider behind, and what is computed too much is left out.
    """
    count, (height, width), channels = x.shape[0], at.out, w.shape[3]
    (top, below), (left, right) = at.pads
    pads = ((top, below + height % 2), (left, right + width % 2))
    border = source("conv2d", "x", x, pads, 0, n.target, given)
    rows, columns = -(-height // 2), -(-width // 2)
    inside = f32[count, rows, POINTS, columns, x.shape[3]]
    sums = f32[count, rows, POINTS, columns, channels]
    whole = f32[count, 2 * rows, 2 * columns, channels]
    last = "out" if whole.shape == out.shape else "whole"
    low, high = ACTIVATIONS[checked_activation("conv2d", n.activation)]
    limits: dict[str, Any] = {}
    if low is not None:
        limits = {"lowest": low, "highest": math.inf if high is None else high, "clipped": 1}
    start = np.zeros(channels, np.float32) if bias is None else bias.array
    weights = transformed(w)
    making = {"target": n.target}
    read = replace(border.kind, zeros=())
    multiplied = tile_products.specialize(
        x=inside, w=weights.type, out=sums, dataflow=n.dataflow, **making
    )
    steps = [
        *border.steps,
        Step(input_tiles.specialize(x=read, out=inside, **making), (border.name,), "tiles"),
        Step(multiplied, ("tiles", weights), "sums"),
        Step(
            output_tiles.specialize(m=sums, start=f32[channels], out=whole, **limits, **making),
            ("sums", start),
            last,
        ),
    ]
    parts = {"tiles": inside, "sums": sums}
    if last != "out":
        parts[last] = whole
        steps.append(Step(cropped.specialize(x=whole, out=out, **making), (last,)))
    buffers = tuple(Buffer(name, kind.shape, f32.dtype) for name, kind in parts.items())
    return Layer({"x": border.shape}, out, tuple(steps), (*border.buffers, *buffers))


# Made once for an operand, whatever batch or activation it is used with.
_TRANSFORMED: WeakKeyDictionary[PackedOperand, PackedOperand] = WeakKeyDictionary()


def transformed(w: PackedOperand) -> PackedOperand:
    """G w G' of packed f32 weights [3, 3, ic, oc], as [16, ic, oc]: in float64, rounded once."""
    if w not in _TRANSFORMED:
        assert w.array is not None
        points = np.einsum("ai,bj,ijco->abco", G, G, w.array.astype(np.float64))
        _TRANSFORMED[w] = pack(points.reshape(POINTS, *w.shape[2:]).astype(np.float32))
    return _TRANSFORMED[w]
