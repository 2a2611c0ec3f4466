"""Loop nests of many kinds, each with the same thing in numpy beside it.

No layer of `ops` is among them, so that a mistake there and one here do not hide each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import simdflow as sf

Array = np.ndarray


@sf.kernel
def conv2d(x, w, out, *, stride=1, dilation=1):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            acc += (
                x[n, oh * stride + kh * dilation, ow * stride + kw * dilation, ic]
                * w[kh, kw, ic, oc]
            )
        out[n, oh, ow, oc] = acc


def taps(
    x: Array, kh: int, kw: int, stride: int = 1, dilation: int = 1
) -> Iterator[tuple[int, int, Array]]:
    """(row, column, what the window sees there) for every tap of a window on an NHWC array."""
    rows = (x.shape[1] - (kh - 1) * dilation - 1) // stride + 1
    columns = (x.shape[2] - (kw - 1) * dilation - 1) // stride + 1
    for i in range(kh):
        for j in range(kw):
            a, b = i * dilation, j * dilation
            yield (
                i,
                j,
                x[:, a : a + rows * stride : stride, b : b + columns * stride : stride][
                    :, :rows, :columns
                ],
            )


def conv(x: Array, w: Array, stride: int = 1, dilation: int = 1) -> Array:
    kind = np.float64 if x.dtype.kind == "f" else np.int64
    parts = taps(x.astype(kind), *w.shape[:2], stride, dilation)
    return sum(seen @ w[i, j].astype(kind) for i, j, seen in parts)


@sf.kernel
def conv2d_f32(x, w, bias, out, *, stride=1):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.f32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            acc += x[n, oh * stride + kh, ow * stride + kw, ic] * w[kh, kw, ic, oc]
        out[n, oh, ow, oc] = sf.max(acc + bias[oc], 0.0)


@sf.kernel
def conv1d_from_bias(x, w, bias, out):
    for n, o, oc in sf.grid(out.shape):
        acc = sf.i32(bias[oc])
        for k, ic in sf.reduce(w.shape[:2]):
            acc += x[n, o + k, ic] * w[k, ic, oc]
        out[n, o, oc] = acc


def conv1d(x: Array, w: Array, bias: Array) -> Array:
    return conv(x[:, None], w[None])[:, 0] + bias


@sf.kernel
def requantized(x, w, bias, scale, out, *, zero_point=3):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            acc += x[n, oh + kh, ow + kw, ic] * w[kh, kw, ic, oc]
        v = sf.round(sf.f32(acc + bias[oc]) * scale[oc])
        out[n, oh, ow, oc] = sf.i8(sf.clip(v, -100.0, 100.0)) + zero_point


def requantize(x: Array, w: Array, bias: Array, scale: Array, zero_point: int) -> Array:
    v = np.rint((conv(x, w) + bias).astype(np.float32) * scale)
    return np.clip(v, -100, 100).astype(np.int64) + zero_point


@sf.kernel
def fixed_point(x, w, multiplier, out, *, shift=20):
    for m, n in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(x.shape[1]):
            acc += x[m, k] * w[k, n]
        high = (sf.i64(acc) * sf.i64(multiplier[n]) + (1 << (shift - 1))) >> shift
        out[m, n] = sf.u8(high, saturate=True)


def rescale(x: Array, w: Array, multiplier: Array, shift: int) -> Array:
    acc = x.astype(np.int64) @ w.astype(np.int64)
    return np.clip((acc * multiplier + (1 << (shift - 1))) >> shift, 0, 255)


@sf.kernel
def depthwise(x, w, out, *, stride=1, dilation=1):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw in sf.reduce(w.shape[:2]):
            acc += x[n, oh * stride + kh * dilation, ow * stride + kw * dilation, c] * w[kh, kw, c]
        out[n, oh, ow, c] = acc


def depth(x: Array, w: Array, stride: int, dilation: int) -> Array:
    parts = taps(x.astype(np.int64), *w.shape[:2], stride, dilation)
    return sum(seen * w[i, j] for i, j, seen in parts)


@sf.kernel
def grouped(x, w, out, *, groups=2, stride=3):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[:3]):
            c = oc // (w.shape[3] // groups) * w.shape[2] + ic
            acc += x[n, oh * stride + kh, ow * stride + kw, c] * w[kh, kw, ic, oc]
        out[n, oh, ow, oc] = acc


def group(x: Array, w: Array, groups: int, stride: int) -> Array:
    width = w.shape[2]
    outs = np.split(w, groups, axis=3)
    ins = [x[..., g * width : (g + 1) * width] for g in range(groups)]
    return np.concatenate([conv(a, b, stride) for a, b in zip(ins, outs, strict=True)], axis=3)


@sf.kernel
def matmul_nt(a, b, out):
    for n, i, j in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(a.shape[2]):
            acc += a[n, i, k] * b[n, j, k]
        out[n, i, j] = acc


@sf.kernel
def matmul_tn_f32(a, b, out, *, scale=0.5):
    for n, i, j in sf.grid(out.shape):
        acc = sf.f32(0)
        for k in sf.reduce(a.shape[1]):
            acc += a[n, k, i] * b[n, k, j]
        out[n, i, j] = acc * scale


@sf.kernel
def max_pool(x, out, *, size=2, stride=2):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.i8(-128)
        for kh, kw in sf.reduce(size, size):
            acc = sf.max(acc, x[n, oh * stride + kh, ow * stride + kw, c])
        out[n, oh, ow, c] = acc


@sf.kernel
def min_pool_f32(x, out, *, size=3, stride=1):
    for n, oh, ow, c in sf.grid(out.shape):
        acc = sf.f32(3.0e38)
        for kh, kw in sf.reduce(size, size):
            acc = sf.min(acc, x[n, oh * stride + kh, ow * stride + kw, c])
        out[n, oh, ow, c] = acc


def pool(choose: Callable[..., Any]) -> Callable[..., Array]:
    def pooled(x: Array, size: int, stride: int) -> Array:
        return choose(np.stack([seen for _, _, seen in taps(x, size, size, stride)]), axis=0)

    return pooled


@sf.kernel
def mean(x, out):
    for n, c in sf.grid(x.shape[0], x.shape[2]):
        acc = sf.i32(0)
        for p in sf.reduce(x.shape[1]):
            acc += x[n, p, c]
        out[n, c] = sf.u8(sf.round(sf.f32(acc) / sf.f32(x.shape[1])), saturate=True)


def averaged(x: Array) -> Array:
    total = x.astype(np.int64).sum(axis=1).astype(np.float32)
    return np.clip(np.rint(total / np.float32(x.shape[1])), 0, 255)


@sf.kernel
def add_saturated(a, b, out):
    for n, c in sf.grid(out.shape):
        out[n, c] = sf.i8(sf.max(a[n, c] + b[n, c], 0), saturate=True)


@sf.kernel
def hardswish(x, out):
    for n, c in sf.grid(out.shape):
        out[n, c] = x[n, c] * sf.clip(x[n, c] + 3.0, 0.0, 6.0) * 0.16666667


@sf.kernel
def gelu(x, out):
    for i in sf.grid(x.shape[0]):
        out[i] = 0.5 * x[i] * (1.0 + sf.erf(x[i] * 0.70710678))


def gelu_numpy(x: Array) -> Array:
    v = x.astype(np.float64)
    return 0.5 * v * (1 + np.vectorize(math.erf, otypes=[float])(v * np.float32(0.70710678)))


@sf.kernel
def transposed_add(a, b, out):
    for i, j in sf.grid(out.shape):
        out[i, j] = sf.i32(a[j, i]) + b[i]


@sf.kernel
def leaky(x, out, *, slope=0.25):
    for n, c in sf.grid(out.shape):
        v = x[n, c]
        out[n, c] = v if v > 0 else v * slope


@sf.kernel
def binary_conv(x, w, threshold, out, *, stride=1):
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = sf.i32(0)
        for kh, kw, ic in sf.reduce(w.shape[0], w.shape[1], w.shape[3]):
            acc += sf.xnor_popcount(x[n, oh * stride + kh, ow * stride + kw, ic], w[kh, kw, oc, ic])
        out[n, oh, ow, oc] = acc > threshold[oc]


def binary(x: Array, w: Array, threshold: Array, stride: int) -> Array:
    return np.where(conv(x, w.transpose(0, 1, 3, 2), stride) > threshold, 1, -1)


@sf.kernel
def binary_dense(x, w, out):
    for m, n in sf.grid(out.shape):
        acc = sf.i32(0)
        for k in sf.reduce(x.shape[1]):
            acc += sf.xnor_popcount(x[m, k], w[n, k])
        out[m, n] = acc


@sf.kernel
def narrow_sum(x, w, out):
    for m, n in sf.grid(out.shape):
        acc = sf.i16(0)
        for k in sf.reduce(x.shape[1]):
            acc += x[m, k] * w[k, n]
        out[m, n] = acc


@sf.kernel
def wrapping_sum(x, w, out):
    for m, n in sf.grid(out.shape):
        acc = sf.i16(0, wrap=True)
        for k in sf.reduce(x.shape[1]):
            acc += x[m, k] * w[k, n]
        out[m, n] = acc


def wrapped(x: Array, w: Array) -> Array:
    return (x.astype(np.int64) @ w.astype(np.int64)).astype(np.int16)


@sf.kernel
def sparse_relu(w, x, out):
    for m, n in sf.grid(w.shape[0], x.shape[1]):
        acc = sf.f32(0)
        for k in sf.nonzeros(w, m):
            acc += w[m, k] * x[k, n]
        out[m, n] = sf.max(acc, 0.0)


@sf.kernel
def sparse_int8(w, x, bias, out):
    for m, n in sf.grid(w.shape[0], x.shape[1]):
        acc = sf.i32(0)
        for k in sf.nonzeros(w, m):
            acc += w[m, k] * x[k, n]
        out[m, n] = acc + bias[m]


@sf.kernel
def looked_up(x, table, out):
    for n, c in sf.grid(out.shape):
        out[n, c] = table[sf.i32(x[n, c]) + 128]


@sf.kernel
def row_max(x, out):
    for n in sf.grid(x.shape[0]):
        acc = sf.f32(-3.0e38)
        for c in sf.reduce(x.shape[1]):
            acc = sf.max(acc, x[n, c])
        out[n] = acc


@sf.kernel
def exp_sum(x, m, out):
    for n in sf.grid(x.shape[0]):
        acc = sf.f32(0)
        for c in sf.reduce(x.shape[1]):
            acc += sf.exp(x[n, c] - m[n])
        out[n] = acc


@sf.kernel
def variance(x, mean, out, *, epsilon=0.001):
    for n in sf.grid(x.shape[0]):
        acc = sf.f32(0)
        for c in sf.reduce(x.shape[1]):
            acc += (x[n, c] - mean[n]) * (x[n, c] - mean[n])
        out[n] = sf.rsqrt(acc / sf.f32(x.shape[1]) + epsilon)


def inverse_deviation(x: Array, mean: Array, epsilon: float) -> Array:
    v = ((x.astype(np.float64) - mean[:, None]) ** 2).mean(axis=1)
    return 1 / np.sqrt(v + epsilon)


@sf.kernel
def gated(x, g, out):
    for n, c in sf.grid(out.shape):
        out[n, c] = sf.tanh(x[n, c]) * sf.sigmoid(g[n, c])


@sf.kernel
def long_sum(x, out):
    for n in sf.grid(x.shape[0]):
        acc = sf.i32(0)
        for c in sf.reduce(x.shape[1]):
            acc += x[n, c]
        out[n] = sf.i64(acc) * 1000000007 - 5


@sf.kernel
def blocked_channels(x, w, out):
    for n, p, b, c in sf.grid(x.shape[0], x.shape[2], w.shape[0], 16):
        acc = sf.f32(0)
        for ib, i in sf.reduce(x.shape[1], 16):
            acc += x[n, ib, p, i] * w[b, ib, i, c]
        out[n, b, p, c] = acc


@sf.kernel
def gram(x, out):
    for i, j in sf.grid(x.shape[0], x.shape[0]):
        acc = sf.i32(0)
        for k in sf.reduce(x.shape[1]):
            acc += x[i, k] * x[j, k]
        out[i, j] = acc


@sf.kernel
def square_sum(x, out):
    for n in sf.grid(x.shape[0]):
        acc = sf.i32(0)
        for p, c in sf.reduce(x.shape[1:]):
            acc += x[n, p, c] * x[n, p, c]
        out[n] = acc


@sf.kernel
def distance(a, b, out):
    for i, j in sf.grid(a.shape[0], b.shape[0]):
        acc = sf.i32(0)
        for k in sf.reduce(a.shape[1]):
            acc += sf.abs(a[i, k] - b[j, k])
        out[i, j] = acc


@sf.kernel
def upsample(x, out, *, factor=2):
    for n, h, w, c in sf.grid(x.shape[0], x.shape[1] * factor, x.shape[2] * factor, x.shape[3]):
        out[n, h, w, c] = x[n, h // factor, w // factor, c]


@sf.kernel
def sparse_rows(w, x, out):
    for n, r in sf.grid(x.shape[0], w.shape[0]):
        acc = sf.i32(0)
        for k in sf.nonzeros(w, r):
            acc += w[r, k] * x[n, k]
        out[n, r] = acc
