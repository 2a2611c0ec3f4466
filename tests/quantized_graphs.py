"""Random 8-bit networks for the tests of passes and of the compiler.

`quantized` are networks of 8-bit layers as TensorFlow Lite has them; `qdq` are f32 layers between
quantize and dequantize, as ONNX has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from graphs import Draw, Network, fits
from hypothesis import strategies as st

from simdflow import OperandType, f32, i8, ops, u8
from simdflow.graph.graph import Graph
from simdflow.ops import Quantization

ACTIVATIONS = (None, None, "relu", "relu6")
ROUNDINGS = ("float", "tflite", "onnx")


class Integers(Network):
    """A network of 8-bit values, each with what it means in `meaning`."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(draw)
        self.kind = self.one_of((i8, u8))

    def meaning(self) -> Quantization:
        """A scale near 1/32 and a zero point."""
        zero = self.draw(st.integers(int(self.kind.low), int(self.kind.high)))
        return Quantization(self.one_of((0.02, 0.03125, 0.05)), zero)

    def q(self, name: str) -> Quantization:
        """What a value means."""
        found = self.b.values[name].quantization
        assert found is not None
        return found

    def input(self) -> str:
        """A new input [1, h, w, c] of 8 bits."""
        h, w, c = (self.draw(st.integers(1, 5)) for _ in range(3))
        name = self.b.fresh("x")
        self.pool.append(self.b.input(name, self.kind[1, h, w, c], self.meaning()))
        return name

    def integers(self, *shape: int) -> np.ndarray:
        """i8 weights."""
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def weights(self, *shape: int) -> tuple[np.ndarray, Quantization]:
        """i8 weights with one scale, or one a channel."""
        count = self.one_of((None, shape[-1]))
        scale = np.asarray(self.rng.uniform(0.002, 0.01, count), np.float32)
        return self.integers(*shape), Quantization(scale)


def product(net: Integers) -> str:
    """A convolution, depthwise convolution or dense layer."""
    x = net.value(4)
    c, oc = net.shape(x)[3], net.draw(st.integers(1, 5))
    op, shape, options = net.one_of((
        (ops.conv2d, (2, 2, c, oc), {"padding": "same", "stride": net.one_of((1, 2))}),
        (ops.depthwise_conv2d, (2, 2, c), {"padding": ((1, 0), (0, 1))}),
        (ops.dense, (c, oc), {}),
    ))  # fmt: skip
    w, w_q = net.weights(*shape)
    bias = net.one_of((None, net.rng.integers(-500, 500, shape[-1]).astype(np.int32)))
    return net.b.call(
        op, x, net.constant(w, "w", w_q), None if bias is None else net.constant(bias, "b"),
        x_q=net.q(x), w_q=w_q, y_q=net.meaning(), rounding=net.one_of(ROUNDINGS),
        activation=net.one_of(ACTIVATIONS), **options,
    )  # fmt: skip


def sums(net: Integers) -> str:
    """A sum or product of two values."""
    x = net.value()
    fit = [v for v in net.pool if len(net.shape(v)) == len(net.shape(x)) and fits(net, v, x)]
    y = net.one_of(fit)
    op = net.one_of((ops.add, ops.sub, ops.mul))
    return net.b.call(
        op, x, y, a_q=net.q(x), b_q=net.q(y), y_q=net.meaning(),
        activation=net.one_of(ACTIVATIONS), rounding=net.one_of(("float", "tflite")),
    )  # fmt: skip


def clamp(net: Integers) -> str:
    """A relu, sometimes with the scale of its input."""
    x = net.value()
    y_q = net.one_of((net.q(x), net.meaning()))
    return net.b.call(net.one_of((ops.relu, ops.relu6)), x, x_q=net.q(x), y_q=y_q)


def table(net: Integers) -> str:
    """An activation by table."""
    x = net.value()
    op = net.one_of((ops.sigmoid, ops.tanh, ops.hardswish))
    return net.b.call(op, x, x_q=net.q(x), y_q=net.meaning())


def pool(net: Integers) -> str:
    """A pool, which keeps what its input means."""
    x = net.value(4)
    kernel = tuple(min(2, n) for n in net.shape(x)[1:3])
    op = net.one_of((ops.max_pool2d, ops.avg_pool2d))
    return net.b.call(op, x, kernel=kernel, stride=1, quantization=net.q(x))


def pad(net: Integers) -> str:
    """A pad of height and width with the zero point, which a convolution can take over."""
    x = net.value(4)
    pads = ((0, 0), (1, 0), (1, 1), (0, 0))
    value = net.one_of((net.q(x).zero_point, int(net.kind.low)))
    return net.b.call(ops.pad, x, pads=pads, value=value, quantization=net.q(x))


def move(net: Integers) -> str:
    """A transpose, a reshape, a concatenation or a requantization."""
    x = net.value()
    rank = len(net.shape(x))
    choice = net.one_of(("transpose", "reshape", "concat", "requantize"))
    if choice == "transpose":
        axes = tuple(net.draw(st.permutations(range(rank))))
        return net.b.call(ops.transpose, x, axes=axes, quantization=net.q(x))
    if choice == "reshape":
        shape = net.one_of(((1, math.prod(net.shape(x))), (1, *net.shape(x))[-5:], net.shape(x)))
        shape = shape if math.prod(shape) == math.prod(net.shape(x)) else net.shape(x)
        return net.b.call(ops.reshape, x, shape=shape, quantization=net.q(x))
    if choice == "concat":
        return net.b.call(ops.concat, x, x, axis=rank - 1, quantization=net.q(x))
    y_q = net.one_of((net.q(x), net.meaning()))
    return net.b.call(ops.requantize, x, x_q=net.q(x), y_q=y_q, y_type=net.kind)


LAYERS = (product, sums, clamp, table, pool, pad, move)
RUNS = ((pad, product, clamp), (product, clamp), (move, clamp, move))


@st.composite
def quantized(draw: Draw, most: int = 6) -> Graph:
    """A network of 8-bit layers."""
    net = Integers(draw)
    net.input()
    for _ in range(draw(st.integers(1, most))):
        for layer in net.one_of((*((layer,) for layer in LAYERS), *RUNS)):
            y = layer(net)
            if math.prod(net.shape(y)) <= 2000:
                net.pool.append(y)
    return net.graph()


class Qdq(Integers):
    """f32 layers, with quantize and dequantize between them."""

    def real(self, name: str) -> str:
        """The f32 meaning of an 8-bit value."""
        return self.b.call(ops.dequantize, name, x_q=self.q(name))

    def stored(self, name: str, q: Quantization | None = None) -> str:
        """An f32 value in 8 bits."""
        meaning = self.meaning() if q is None else q
        return self.b.call(ops.quantize, name, y_q=meaning, y_type=self.kind)

    def kernel(self, *shape: int) -> str:
        """The f32 meaning of constant weights: i8, seldom u8 around 128 or 120."""
        array, q = self.weights(*shape)
        zero = self.one_of((None, None, None, 128, 120))
        if zero is not None:
            q = Quantization(q.scales.reshape(-1)[0], zero)
            array = (array.astype(np.int16) + 128).astype(np.uint8)
        return self.b.call(ops.dequantize, self.constant(array, "w", q), x_q=q)


def qdq_product(net: Qdq) -> str:
    """A convolution, depthwise convolution, dense layer or matmul, with a bias or an add."""
    x = net.value(4)
    c, oc = net.shape(x)[3], net.draw(st.integers(1, 5))
    op, shape, options = net.one_of((
        (ops.conv2d, (2, 2, c, oc), {"padding": "same", "stride": net.one_of((1, 2))}),
        (ops.depthwise_conv2d, (2, 2, c), {"padding": ((1, 0), (0, 1))}),
        (ops.dense, (c, oc), {}),
        (ops.matmul, (c, oc), {}),
    ))  # fmt: skip
    w = net.kernel(*shape)
    bias = net.constant(net.reals(shape[-1]), "b")
    added = op is ops.matmul or net.draw(st.booleans())
    operands = (net.real(x), w) if added else (net.real(x), w, net.one_of((None, bias)))
    y = net.b.call(op, *operands, **options)
    y = net.b.call(ops.add, y, bias) if added else y
    y = net.b.call(ops.relu, y) if net.draw(st.booleans()) else y
    return net.stored(y)


def qdq_sums(net: Qdq) -> str:
    """A sum or product."""
    x = net.value()
    fit = [v for v in net.pool if len(net.shape(v)) == len(net.shape(x)) and fits(net, v, x)]
    op = net.one_of((ops.add, ops.sub, ops.mul))
    y = net.b.call(op, net.real(x), net.real(net.one_of(fit)))
    return net.stored(net.b.call(ops.relu, y) if net.draw(st.booleans()) else y)


def qdq_unary(net: Qdq) -> str:
    """An activation, with a quantized form or without."""
    x = net.real(net.value())
    op = net.one_of((ops.relu, ops.relu6, ops.sigmoid, ops.tanh, ops.gelu, ops.exp))
    return net.stored(net.b.call(op, x))


def qdq_mean(net: Qdq) -> str:
    """A mean over height and width, a pool, or a resized image."""
    name = net.value(4)
    x = net.real(name)
    if net.draw(st.booleans()):
        y = net.b.call(ops.resize_bilinear, x, size=(3, 4), mode="half_pixel")
        return net.stored(y, net.q(name))
    if net.draw(st.booleans()):
        return net.stored(net.b.call(ops.reduce_mean, x, axes=(1, 2), keepdims=True))
    kernel = tuple(min(2, n) for n in net.shape(x)[1:3])
    op = net.one_of((ops.max_pool2d, ops.avg_pool2d))
    return net.stored(net.b.call(op, x, kernel=kernel), net.one_of((net.q(name), None)))


def qdq_move(net: Qdq) -> str:
    """Moves of reals, which integers can make."""
    name = net.value()
    x, rank = net.real(name), len(net.shape(name))
    for _ in range(net.draw(st.integers(1, 2))):
        choice = net.one_of(("transpose", "pad", "concat", "reshape"))
        if choice == "transpose":
            x = net.b.call(ops.transpose, x, axes=tuple(net.draw(st.permutations(range(rank)))))
        elif choice == "pad":
            x = net.b.call(ops.pad, x, pads=((0, 0),) * (rank - 1) + ((1, 0),))
        elif choice == "concat":
            x = net.b.call(ops.concat, x, net.real(name) if x == name else x, axis=0)
        else:
            x = net.b.call(ops.reshape, x, shape=net.shape(x)[::-1])
    return net.stored(x, net.one_of((net.q(name), None)))


def qdq_nchw(net: Qdq) -> str:
    """A convolution in NHWC inside a network in NCHW."""
    x = net.b.call(ops.transpose, net.real(net.value(4)), axes=(0, 2, 3, 1))
    y = net.b.call(ops.conv2d, x, net.kernel(1, 1, net.shape(x)[3], 3))
    return net.stored(net.b.call(ops.transpose, y, axes=(0, 3, 1, 2)))


QDQ_LAYERS = (qdq_product, qdq_sums, qdq_unary, qdq_mean, qdq_move, qdq_nchw)


@st.composite
def qdq(draw: Draw, most: int = 6) -> Graph:
    """A network of f32 layers between quantize and dequantize, from f32 to f32."""
    net = Qdq(draw)
    kind: OperandType = f32[1, *(draw(st.integers(1, 5)) for _ in range(3))]
    net.pool.append(net.stored(net.b.input("x", kind)))
    for _ in range(draw(st.integers(1, most))):
        y = net.one_of(QDQ_LAYERS)(net)
        if math.prod(net.shape(y)) <= 2000:
            net.pool.append(y)
    last: Any = net.pool[-1]
    return net.graph(net.real(last))
