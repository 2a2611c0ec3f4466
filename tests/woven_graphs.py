"""Random networks that are hard on memory: what the tests of storage, fusing and the arena draw.

`woven` networks join, split, pad and reshape the same few values again and again, and give away
values that others still read. All numbers are small integers, also in f32, so that every order of
a sum gives the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from graphs import Draw, Network, fits
from hypothesis import strategies as st

import simdflow as sf
from simdflow import OperandError, f32, i32, ops
from simdflow.graph.graph import Graph

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 17, 24, 33)
LARGEST = 3000


@sf.kernel
def twice_and_one(x, out):
    """out[n, h, w, c] = 2 * x[n, h, w, c] + 1, as a user would write it."""
    for n, h, w, c in sf.grid(out.shape):
        out[n, h, w, c] = x[n, h, w, c] * 2.0 + 1.0


@sf.kernel
def neighbours(x, out):
    """out[n, h, w, c] = x[n, h, w, c] + x[n, h, w + 1, c]: no elementwise kernel."""
    for n, h, w, c in sf.grid(out.shape):
        out[n, h, w, c] = x[n, h, w, c] + x[n, h, w + 1, c]


class Woven(Network):
    """A network of small integers in f32."""

    batch = 1

    def input(self) -> str:
        """A new input [n, h, w, c]."""
        h, w = (self.draw(st.integers(1, 5)) for _ in range(2))
        name = self.b.fresh("x")
        self.pool.append(self.b.input(name, f32[self.batch, h, w, self.one_of(CHANNELS)]))
        return name

    def whole(self, *shape: int) -> np.ndarray:
        """f32 integers from -2 to 2."""
        return self.rng.integers(-2, 3, shape).astype(np.float32)

    def small(self, name: str) -> str:
        """A value clipped, so that the next sum stays exact."""
        return self.b.call(ops.clip, name, low=-4.0, high=4.0)


def border(net: Woven) -> Any:
    """A padding, often one that no other layer has."""
    return net.one_of(("valid", "same", 1, ((0, 1), (2, 0)), ((1, 1), (0, 0)), ((0, 0), (0, 3))))


def conv2d(net: Woven) -> str:
    """A convolution with groups or dilation now and then, and a clamp."""
    x = net.value(4)
    c, oc = net.shape(x)[3], net.one_of(CHANNELS)
    groups = net.one_of([g for g in (1, 1, 1, c) if oc % g == 0])
    k = net.one_of((1, 2, 3))
    w = net.constant(net.whole(k, net.one_of((1, k)), c // groups, oc), "w")
    bias = net.one_of((None, net.constant(net.whole(oc), "b")))
    y = net.b.call(
        ops.conv2d, x, w, bias, stride=net.one_of((1, 1, 2)), padding=border(net),
        dilation=net.one_of((1, 1, 2)), groups=groups, activation=net.one_of((None, "relu6")),
    )  # fmt: skip
    return net.small(y)


def depthwise(net: Woven) -> str:
    """A depthwise convolution."""
    x = net.value(4)
    w = net.constant(net.whole(net.one_of((1, 3)), 3, net.shape(x)[3]), "w")
    y = net.b.call(
        ops.depthwise_conv2d, x, w, stride=net.one_of((1, 2)), padding=net.one_of(("same", 1, 2))
    )
    return net.small(y)


def dense(net: Woven) -> str:
    """A dense layer on the last axis."""
    x = net.value()
    w = net.constant(net.whole(net.shape(x)[-1], net.one_of(CHANNELS)), "w")
    return net.small(net.b.call(ops.dense, x, w))


def matmul(net: Woven) -> str:
    """A product of a value with itself."""
    x = net.value(4)
    return net.small(net.b.call(ops.matmul, x, x, transpose_b=True))


def pool(net: Woven) -> str:
    """A largest value of a window; its border is -inf, not the 0 of a convolution."""
    x = net.value(4)
    padding = net.one_of((0, "same", ((1, 0), (0, 1))))
    return net.b.call(ops.max_pool2d, x, kernel=2, stride=net.one_of((1, 2)), padding=padding)


def unary(net: Woven) -> str:
    """A function of each element."""
    return net.b.call(net.one_of((ops.relu, ops.relu6, ops.abs, ops.neg)), net.value())


def binary(net: Woven) -> str:
    """A function of two values, often of the same, that broadcast."""
    x = net.value()
    fit = [v for v in net.pool if len(net.shape(v)) == len(net.shape(x)) and fits(net, v, x)]
    op = net.one_of((ops.add, ops.sub, ops.maximum, ops.minimum))
    return net.small(net.b.call(op, *net.draw(st.permutations((x, net.one_of(fit))))))


def concat(net: Woven) -> str:
    """A value beside others, itself or a constant."""
    x = net.value()
    axis = net.one_of((len(net.shape(x)) - 1, net.draw(st.integers(0, len(net.shape(x)) - 1))))
    fit = [v for v in net.pool if beside(net, v, x, axis)]
    parts = [x, *(net.one_of(fit) for _ in range(net.one_of((1, 1, 2))))]
    if net.one_of((False, False, True)):
        parts.append(net.constant(net.whole(*net.shape(x))))
    return net.b.call(ops.concat, *net.draw(st.permutations(parts)), axis=axis)


def beside(net: Woven, a: str, b: str, axis: int) -> bool:
    """Whether two values can lie beside each other along an axis."""
    p, q = net.shape(a), net.shape(b)
    return p[:axis] + p[axis + 1 :] == q[:axis] + q[axis + 1 :]


def sliced(net: Woven) -> str:
    """A part of a value from anywhere in it."""
    x = net.value()
    starts, stops = [], []
    for n in net.shape(x):
        start = net.draw(st.integers(0, n - 1)) if net.one_of((False, True)) else 0
        starts.append(start)
        stops.append(net.draw(st.integers(start + 1, n)))
    steps = tuple(net.one_of((1, 1, 1, 2)) for _ in starts)
    return net.b.call(ops.slice, x, starts=tuple(starts), stops=tuple(stops), steps=steps)


def split(net: Woven) -> str:
    """Both halves of a value, each with a life of its own."""
    x = net.value()
    shape = net.shape(x)
    axis = max(range(len(shape)), key=lambda a: (shape[a], a))
    at = net.draw(st.integers(1, shape[axis])) if shape[axis] > 1 else 1
    pieces = []
    for start, stop in ((0, at), (at, shape[axis])):
        if start < stop:
            starts = tuple(start if a == axis else 0 for a in range(len(shape)))
            stops = tuple(stop if a == axis else n for a, n in enumerate(shape))
            ones = (1,) * len(shape)
            pieces.append(net.b.call(ops.slice, x, starts=starts, stops=stops, steps=ones))
    net.pool.append(pieces[0])
    return pieces[-1]


def padded(net: Woven) -> str:
    """A pad of any axis."""
    x = net.value()
    pads = tuple((net.one_of((0, 0, 1)), net.one_of((0, 0, 1))) for _ in net.shape(x))
    pads = ((0, 0), *pads[1:])  # one axis is always left out: an op can pad three
    return net.b.call(ops.pad, x, pads=pads, value=net.one_of((0.0, 1.0)))


def reshaped(net: Woven) -> str:
    """Axes joined, split, dropped or added; back to four now and then."""
    x = net.value()
    shape = net.shape(x)
    size = math.prod(shape)
    kinds = [(size,), (1, size, 1), (shape[0], math.prod(shape[1:])), (*shape[::-1],)]
    kinds += [(1, 1, *shape)[-4:]] if len(shape) < 4 else [(shape[0], 1, shape[1] * shape[2], -1)]
    return net.b.call(ops.reshape, x, shape=net.one_of(kinds))


def transposed(net: Woven) -> str:
    """A transpose."""
    x = net.value()
    axes = net.draw(st.permutations(range(len(net.shape(x)))))
    return net.b.call(ops.transpose, x, axes=tuple(axes))


def resized(net: Woven) -> str:
    """Twice the height, or rows and columns into channels and back."""
    x = net.value(4)
    _, h, w, c = net.shape(x)
    if c % 4 == 0 and net.draw(st.booleans()):
        return net.b.call(ops.depth_to_space, x, block=2, order=net.one_of(("dcr", "crd")))
    if h % 2 == w % 2 == 0:
        return net.b.call(ops.space_to_depth, x, block=2)
    return net.b.call(ops.resize_nearest, x, size=(2 * h, w + 1))


def reduced(net: Woven) -> str:
    """A reduction, whose result broadcasts against its input or has fewer axes."""
    x = net.value()
    rank = len(net.shape(x))
    axes = net.draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=max(1, rank - 1)))
    keep = net.draw(st.booleans()) or rank < 2
    return net.b.call(ops.reduce_max, x, axes=tuple(sorted(axes)), keepdims=keep)


def gathered(net: Woven) -> str:
    """Some places of an axis, by constants or by an input."""
    x = net.value()
    axis = net.draw(st.integers(0, len(net.shape(x)) - 1))
    rows = net.shape(x)[axis]
    count = net.draw(st.integers(1, 4))
    if net.batch == 1 and net.one_of((False, True)):
        ids = net.b.input(net.b.fresh("ids"), i32.range(0, rows - 1)[count])
    else:
        ids = net.constant(net.rng.integers(0, rows, count).astype(np.int32), "ids")
    return net.b.call(ops.gather, x, ids, axis=axis)


def own(net: Woven) -> str:
    """A user's kernel."""
    x = net.value(4)
    if net.shape(x)[2] > 1 and net.draw(st.booleans()):
        return net.small(net.b.call(neighbours, x))
    return net.small(net.b.call(twice_and_one, x))


LAYERS = (
    binary,
    concat,
    conv2d,
    dense,
    depthwise,
    gathered,
    matmul,
    own,
    padded,
    pool,
    reduced,
    reshaped,
    resized,
    sliced,
    split,
    transposed,
    unary,
)
RUNS = (
    (concat, conv2d),
    (conv2d, conv2d, concat, unary),
    (conv2d, binary, unary),
    (concat, concat, sliced),
    (split, concat, unary),
    (conv2d, pool, conv2d),
    (unary, reshaped, dense),
)


@st.composite
def woven(draw: Draw, most: int = 8, batch: int = 1) -> Graph:
    """A network whose outputs are any of its values: results, parts of them, inputs, constants."""
    net = Woven(draw)
    net.batch = batch
    net.input()
    for _ in range(draw(st.integers(1, most))):
        for layer in net.one_of((*((layer,) for layer in LAYERS), *RUNS)):
            try:
                y = layer(net)
            except OperandError:  # a window larger than its input
                continue
            if math.prod(net.shape(y)) <= LARGEST:
                net.pool.append(y)
    made = [v for v in net.b.values if v in net.pool]
    given = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        return net.graph(*given)  # and all that nobody reads
    return net.b.graph(*given)
