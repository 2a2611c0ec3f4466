"""Random small networks for the tests of passes and of the compiler.

`networks` are f32, with residuals, branches, several outputs, regions in NCHW and the small ops of
exporters; `quantized` are 8-bit ones as TensorFlow Lite has them; `qdq` are f32 layers between
quantize and dequantize. `fed` makes arrays for a graph's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from simdflow import f32, ops
from simdflow.graph.graph import Builder, Graph
from simdflow.ops import Quantization

Draw = Callable[[st.SearchStrategy[Any]], Any]
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
UNARY = (ops.relu, ops.relu6, ops.sigmoid, ops.tanh, ops.hardswish, ops.abs, ops.neg, ops.square)


class Network:
    """A network being drawn: the values so far, and random weights."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.b = draw, Builder("drawn")
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.pool: list[str] = []

    def one_of(self, values: Any) -> Any:
        """One of a sequence."""
        return self.draw(st.sampled_from(list(values)))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return self.b.values[name].type.shape

    def value(self, rank: int | None = None) -> str:
        """A value made so far, of a rank if there is one; else a new input."""
        fit = [v for v in self.pool if rank is None or len(self.shape(v)) == rank]
        return self.one_of(fit) if fit else self.input()

    def input(self) -> str:
        """A new input [n, h, w, c] f32."""
        name = f"x{len(self.b._inputs)}"
        h, w, c = (self.draw(st.integers(1, 5)) for _ in range(3))
        self.pool.append(self.b.input(name, f32[self.one_of((1, 1, 2)), h, w, c]))
        return name

    def reals(self, *shape: int) -> np.ndarray:
        """f32 of about 1."""
        return self.rng.normal(0, 1, shape).astype(np.float32)

    def constant(self, array: np.ndarray, name: str = "c", q: Quantization | None = None) -> str:
        """A constant with a name of its own."""
        return self.b.constant(name, array, q)

    def graph(self, *names: str) -> Graph:
        """The graph: what nobody reads is an output, and so are `names`."""
        read = {i for n in self.b._nodes for i in n.reads}
        made = [n.output for n in self.b._nodes]
        last = [o for o in made if o not in read]
        return self.b.graph(*dict.fromkeys([*last, *names]))


def window(net: Network, x: str) -> dict[str, Any]:
    """Stride and padding of a convolution of 3x3 at most."""
    return {
        "stride": net.one_of((1, 1, 2)),
        "padding": net.one_of(("same", 1, ((1, 0), (0, 2)))),
        "activation": net.one_of((None, None, "relu", "relu6")),
    }


def conv2d(net: Network) -> str:
    """A convolution, with or without bias."""
    x, k, oc = net.value(4), net.one_of((1, 2)), net.draw(st.integers(1, 5))
    w = net.constant(net.reals(k, k, net.shape(x)[3], oc), "w")
    bias = net.one_of((None, net.constant(net.reals(oc), "b")))
    return net.b.call(ops.conv2d, x, w, bias, **window(net, x))


def depthwise(net: Network) -> str:
    """A depthwise convolution."""
    x = net.value(4)
    w = net.constant(net.reals(2, 2, net.shape(x)[3]), "w")
    return net.b.call(ops.depthwise_conv2d, x, w, **window(net, x))


def dense(net: Network) -> str:
    """A dense layer on the last axis."""
    x = net.value()
    w = net.constant(net.reals(net.shape(x)[-1], net.draw(st.integers(1, 5))), "w")
    return net.b.call(ops.dense, x, w)


def batch_norm(net: Network) -> str:
    """A batch norm."""
    x = net.value()
    c = net.shape(x)[-1]
    rows = [net.reals(c), net.reals(c), net.reals(c), np.abs(net.reals(c)) + np.float32(0.5)]
    return net.b.call(ops.batch_norm, x, *(net.constant(r) for r in rows), epsilon=1e-3)


def unary(net: Network) -> str:
    """An activation, or another function of each element."""
    return net.b.call(net.one_of(UNARY), net.value())


def clip(net: Network) -> str:
    """A clamp."""
    low, high = net.one_of(((0.0, math.inf), (0.0, 6.0), (-1.0, 1.0), (-0.5, 2.0)))
    return net.b.call(ops.clip, net.value(), low=low, high=high)


def constants(net: Network) -> str:
    """A factor, a divisor or an offset for each channel, or for all."""
    x, op = net.value(), net.one_of((ops.add, ops.sub, ops.mul, ops.div))
    c = net.shape(x)[-1]
    shape = net.one_of(((c,), (1,), (1,) * (len(net.shape(x)) - 1) + (c,), ()))
    values = np.abs(net.reals(*shape)) + np.float32(0.5)
    order = [x, net.constant(np.asarray(values, np.float32))]
    if op is not ops.div and net.draw(st.booleans()):
        order.reverse()
    return net.b.call(op, *order, activation=net.one_of((None, None, "relu")))


def residual(net: Network) -> str:
    """Two values of one shape, or of shapes that broadcast."""
    x = net.value()
    fit = [v for v in net.pool if len(net.shape(v)) == len(net.shape(x)) and fits(net, v, x)]
    return net.b.call(net.one_of((ops.add, ops.mul, ops.maximum)), x, net.one_of(fit))


def fits(net: Network, a: str, b: str) -> bool:
    """Whether the shape of `a` is that of `b`, but for axes of 1."""
    return all(p in (1, q) for p, q in zip(net.shape(a), net.shape(b), strict=True))


def concat(net: Network) -> str:
    """A value beside itself or another."""
    x = net.value()
    axis = net.draw(st.integers(0, len(net.shape(x)) - 1))
    fit = [
        v
        for v in net.pool
        if len(net.shape(v)) == len(net.shape(x))
        and all(p == q for k, (p, q) in enumerate(zip(net.shape(v), net.shape(x), strict=True))
                if k != axis)
    ]  # fmt: skip
    return net.b.call(ops.concat, x, net.one_of(fit), axis=axis)


def transposed(net: Network) -> str:
    """A transpose, sometimes the identity."""
    x = net.value()
    axes = net.draw(st.permutations(range(len(net.shape(x)))))
    return net.b.call(ops.transpose, x, axes=tuple(axes))


def reshaped(net: Network) -> str:
    """Axes joined, split, added or dropped."""
    x = net.value()
    shape = net.shape(x)
    kinds = [(math.prod(shape),), (shape[0], math.prod(shape[1:])), (1, *shape), shape]
    kinds += [(*shape[:-2], shape[-2] * shape[-1])] if len(shape) > 1 else []
    kinds += [tuple(n for n in shape if n != 1) or (1,)]
    kinds += [(*shape[:-1], 2, shape[-1] // 2)] if shape[-1] % 2 == 0 else []
    return net.b.call(ops.reshape, x, shape=net.one_of([k for k in kinds if len(k) <= 5]))


def padded(net: Network) -> str:
    """A pad, sometimes one that a convolution can take over."""
    x = net.value()
    rank = len(net.shape(x))
    pads = tuple((net.one_of((0, 0, 1)), net.one_of((0, 1))) for _ in range(rank))
    pads = ((0, 0), *pads[1:]) if rank > 3 else pads  # the kernel has four axes
    if rank == 4 and net.draw(st.booleans()):
        pads = ((0, 0), *pads[1:3], (0, 0))
    return net.b.call(ops.pad, x, pads=pads, value=net.one_of((0.0, 0.0, 1.5)))


def padded_pool(net: Network) -> str:
    """A maximum over windows that reach beyond the image."""
    pads = ((0, 0), (1, 0), (1, 1), (0, 0))
    x = net.b.call(ops.pad, net.value(4), pads=pads, value=-math.inf)
    return net.b.call(ops.max_pool2d, x, kernel=2, stride=net.one_of((1, 2)))


def sliced(net: Network) -> str:
    """A part of each axis."""
    x = net.value()
    sizes = net.shape(x)
    starts = tuple(net.draw(st.integers(0, min(1, n - 1))) for n in sizes)
    return net.b.call(
        ops.slice, x, starts=starts, stops=sizes, steps=tuple(net.one_of((1, 2)) for _ in sizes)
    )


def pooled(net: Network) -> str:
    """A pool of 2x2 at most."""
    x = net.value(4)
    op = net.one_of((ops.max_pool2d, ops.avg_pool2d))
    kernel = tuple(min(2, n) for n in net.shape(x)[1:3])
    return net.b.call(op, x, kernel=kernel, stride=net.one_of((None, 1)))


def reduced(net: Network) -> str:
    """A reduction over some axes."""
    x = net.value()
    rank = len(net.shape(x))
    axes = net.draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=max(1, rank - 1)))
    op = net.one_of((ops.reduce_mean, ops.reduce_max, ops.reduce_sum))
    return net.b.call(op, x, axes=tuple(sorted(axes)), keepdims=net.draw(st.booleans()) or rank < 2)


def rows(net: Network) -> str:
    """Softmax or layer norm."""
    x = net.value()
    if net.draw(st.booleans()):
        return net.b.call(ops.softmax, x)
    c = net.shape(x)[-1]
    return net.b.call(ops.layer_norm, x, net.constant(net.reals(c)), net.constant(net.reals(c)))


def nchw(net: Network) -> str:
    """A layer of NHWC between transposes, as an importer of NCHW makes it."""
    x = net.b.call(ops.transpose, net.value(4), axes=TO_NHWC)
    net.pool.append(x)
    w = net.constant(net.reals(1, 1, net.shape(x)[3], net.draw(st.integers(1, 5))), "w")
    y = net.b.call(ops.conv2d, x, w)
    net.pool.remove(x)
    return net.b.call(ops.transpose, y, axes=TO_NCHW)


def folded(net: Network) -> str:
    """A value and something computed of constants."""
    x = net.value()
    c = net.constant(net.reals(1, net.shape(x)[-1]))
    c = net.b.call(ops.transpose, net.b.call(ops.exp, c), axes=(1, 0))
    return net.b.call(ops.mul, x, net.b.call(ops.reshape, c, shape=(net.shape(x)[-1],)))


def spelled(net: Network) -> str:
    """A layer in the small ops of exporters."""
    return net.one_of((spelled_gelu, spelled_norm, spelled_softmax, spelled_gates))(net)


def spelled_gelu(net: Network) -> str:
    """x/2 * (1 + erf(x / sqrt(2))), in one of the orders."""
    b, x = net.b, net.value()
    root = net.constant(np.float32(math.sqrt(2)))
    one, half = net.constant(np.float32(1)), net.constant(np.float32(0.5))
    gate = b.call(ops.add, b.call(ops.erf, b.call(ops.div, x, root)), one)
    if net.draw(st.booleans()):
        return b.call(ops.mul, b.call(ops.mul, x, gate), half)
    return b.call(ops.mul, b.call(ops.mul, x, half), gate)


def spelled_norm(net: Network) -> str:
    """(x - mean) / sqrt(variance + epsilon) * gain + bias."""
    b, x = net.b, net.value()
    last = (len(net.shape(x)) - 1,)
    less = b.call(ops.sub, x, b.call(ops.reduce_mean, x, axes=last, keepdims=True))
    square = net.one_of((
        lambda: b.call(ops.pow, less, exponent=2.0),
        lambda: b.call(ops.mul, less, less),
        lambda: b.call(ops.square, less),
    ))()  # fmt: skip
    variance = b.call(ops.reduce_mean, square, axes=last, keepdims=True)
    plus = b.call(ops.add, variance, net.constant(np.float32(0.01)))
    if net.draw(st.booleans()):
        y = b.call(ops.div, less, b.call(ops.sqrt, plus))
    else:
        y = b.call(ops.mul, less, b.call(ops.rsqrt, plus))
    y = b.call(ops.mul, net.constant(net.reals(net.shape(x)[-1])), y)
    return b.call(ops.add, y, net.constant(net.reals(net.shape(x)[-1])))


def spelled_softmax(net: Network) -> str:
    """exp(x - max x) / its sum, or a softmax of a product."""
    b, x = net.b, net.value()
    if net.draw(st.booleans()):
        return b.call(ops.softmax, b.call(ops.mul, x, net.constant(np.float32(0.25))))
    last = (len(net.shape(x)) - 1,)
    less = b.call(ops.sub, x, b.call(ops.reduce_max, x, axes=last, keepdims=True))
    e = b.call(ops.exp, less)
    return b.call(ops.div, e, b.call(ops.reduce_sum, e, axes=last, keepdims=True))


def spelled_gates(net: Network) -> str:
    """x * sigmoid(x), or x * relu6(x + 3) / 6."""
    b, x = net.b, net.value()
    if net.draw(st.booleans()):
        return b.call(ops.mul, b.call(ops.sigmoid, x), x)
    gate = b.call(ops.clip, b.call(ops.add, x, net.constant(np.float32(3))), low=0.0, high=6.0)
    return b.call(ops.div, b.call(ops.mul, x, gate), net.constant(np.float32(6)))


LAYERS = (
    batch_norm,
    clip,
    concat,
    constants,
    conv2d,
    dense,
    depthwise,
    folded,
    nchw,
    padded,
    padded_pool,
    pooled,
    reduced,
    reshaped,
    residual,
    rows,
    sliced,
    spelled,
    transposed,
    unary,
)
# A graph of random layers seldom has two that a pass wants next to each other.
RUNS = (
    (conv2d, batch_norm, unary),
    (depthwise, constants, clip),
    (padded, conv2d),
    (padded, pooled),
    (nchw, unary, nchw, residual, nchw),
    (transposed, reshaped, transposed),
    (nchw, reshaped, dense),
)


@st.composite
def networks(draw: Draw, most: int = 6) -> Graph:
    """A network of f32 layers."""
    net = Network(draw)
    net.input()
    for _ in range(draw(st.integers(1, most))):
        for layer in net.one_of((*((layer,) for layer in LAYERS), *RUNS)):
            y = layer(net)
            if math.prod(net.shape(y)) <= 4000:
                net.pool.append(y)
                if len(net.pool) > 4:
                    net.pool.pop(0)
    return net.graph(*draw(st.sets(st.sampled_from([n.output for n in net.b._nodes]), max_size=1)))


def fed(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays for a graph's inputs: all values of integers, floats of about 1."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in graph.inputs:
        kind = graph.values[name].type
        if kind.scalar.is_float:
            arrays[name] = rng.normal(0, 1, kind.shape).astype(np.float32)
        else:
            low, high = int(kind.low), int(kind.high)
            arrays[name] = rng.integers(low, high + 1, kind.shape).astype(kind.scalar.dtype)
    return arrays
