"""Loop nests in which an axis picks one of several values; see `sample_kernels`."""

from __future__ import annotations

import numpy as np

import simdflow as sf

Array = np.ndarray


@sf.kernel
def haar(x, out):
    for i, p, c in sf.grid(x.shape[0] // 2, 2, x.shape[1]):
        a = x[2 * i, c]
        b = x[2 * i + 1, c]
        out[2 * i + p, c] = (a + b, a - b)[p]


def haar_numpy(x: Array) -> Array:
    pairs = x[: len(x) // 2 * 2].astype(int).reshape(-1, 2, x.shape[1])
    return np.stack([pairs.sum(axis=1), pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1, x.shape[1])


@sf.kernel
def three_ways(x, w, out):
    for i, q, j in sf.grid(x.shape[0], 3, w.shape[1]):
        acc = sf.i32(0)
        for k in sf.reduce(w.shape[0]):
            acc += x[i, k] * w[k, j]
        out[i, q, j] = (acc, -acc, sf.max(acc, 0))[q]


def three_ways_numpy(x: Array, w: Array) -> Array:
    sums = x.astype(int) @ w.astype(int)
    return np.stack([sums, -sums, np.maximum(sums, 0)], axis=1)


@sf.kernel
def square_turned(x, out):
    """out[p, i] = x[i] * s for the p-th of 4 factors, in the order of a turned square."""
    for p, i in sf.grid(4, x.shape[0]):
        out[p, i] = x[i] * (1.0, 3.0, 2.0, -4.0)[p // 2 + 2 * (p % 2)]


@sf.kernel
def summed_of_two(x, y, out):
    for p, i in sf.grid(2, x.shape[0]):
        acc = sf.f32(0)
        for k in sf.reduce(x.shape[1]):
            acc += (x[i, k], y[i, k] * 2.0)[1 - p]
        out[p, i] = acc


@sf.kernel
def extremes_of_two(x, y, out):
    """out[i, p] = the smaller and the larger of two bytes, as bytes."""
    for i, p in sf.grid(x.shape[0], 2):
        a = sf.min(x[i], y[i])
        out[i, p] = sf.u8((a, sf.max(x[i], y[i]) + 1)[p], saturate=True)


@sf.kernel
def narrowed_ways(x, w, scale, out):
    """out[p, i, j] = u8(round(acc * scale[j])) and what is left to 255."""
    for p, i, j in sf.grid(2, x.shape[0], w.shape[1]):
        acc = sf.i32(0)
        for k in sf.reduce(w.shape[0]):
            acc += x[i, k] * w[k, j]
        q = sf.u8(sf.i32(sf.round(sf.f32(acc) * scale[j]), saturate=True), saturate=True)
        out[p, i, j] = (q, sf.u8(255 - q))[p]


def narrowed_ways_numpy(x: Array, w: Array, scale: Array) -> Array:
    sums = (x.astype(np.int64) @ w.astype(np.int64)).astype(np.float32)
    q = np.clip(np.rint(sums * scale.astype(np.float32)), 0, 255)
    return np.stack([q, 255 - q])
