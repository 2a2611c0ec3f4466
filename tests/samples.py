"""What `simdflow.testing.check` is given for each of the sample kernels.

They are what the compiler's tests run on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sample_indices import bags, channels_last, embedded
from sample_kernels import (
    Array,
    add_saturated,
    averaged,
    binary,
    binary_conv,
    binary_dense,
    blocked_channels,
    conv,
    conv1d,
    conv1d_from_bias,
    conv2d,
    conv2d_f32,
    depth,
    depthwise,
    distance,
    exp_sum,
    fixed_point,
    gated,
    gelu,
    gelu_numpy,
    gram,
    group,
    grouped,
    hardswish,
    inverse_deviation,
    leaky,
    long_sum,
    looked_up,
    matmul_nt,
    matmul_tn_f32,
    max_pool,
    mean,
    min_pool_f32,
    narrow_sum,
    pool,
    requantize,
    requantized,
    rescale,
    row_max,
    sparse_int8,
    sparse_relu,
    sparse_rows,
    square_sum,
    transposed_add,
    upsample,
    variance,
    wrapped,
    wrapping_sum,
)
from sample_picks import (
    extremes_of_two,
    haar,
    haar_numpy,
    narrowed_ways,
    narrowed_ways_numpy,
    square_turned,
    summed_of_two,
    three_ways,
    three_ways_numpy,
)

import simdflow as sf

I8 = [sf.u8, sf.i8]


@dataclass(frozen=True)
class Sample:
    """A kernel, its reference, and the keywords for `check`."""

    kernel: Any
    reference: Callable[..., Any]
    given: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return str(self.kernel.name)


def product(a: Array, b: Array) -> Array:
    kind = np.float64 if a.dtype.kind == "f" else np.int64
    return a.astype(kind) @ b.astype(kind)


def blocked(x: Array, w: Array) -> Array:
    return np.einsum("nxpi,bxic->nbpc", x.astype(np.float64), w.astype(np.float64))


def gate(x: Array, g: Array) -> Array:
    x, g = x.astype(np.float64), g.astype(np.float64)
    return np.tanh(x) / (1 + np.exp(-g))


SMALL = sf.f32.range(-4, 4)
# Wide enough that a threshold or a bias matters, narrow enough that no sum leaves i32.
BIAS = sf.i32.range(-20000, 20000)

SAMPLES: tuple[Sample, ...] = (
    Sample(conv2d, conv, {"x": I8, "w": sf.i8, "stride": [1, 2], "dilation": [1, 2]}),
    Sample(
        conv2d_f32,
        lambda x, w, bias, stride: np.maximum(conv(x, w, stride) + bias, 0),
        {"stride": [1, 2], "kh": [1, 3, 5], "kw": [1, 3, 5]},
    ),
    Sample(conv1d_from_bias, conv1d, {"x": I8, "w": sf.i8, "bias": BIAS}),
    Sample(
        requantized,
        requantize,
        {"x": I8, "w": sf.i8, "bias": BIAS, "scale": sf.f32.range(0, 0.125)},
    ),
    Sample(fixed_point, rescale, {"x": sf.i8, "w": sf.i8, "multiplier": sf.i32.range(0, 2**30)}),
    Sample(depthwise, depth, {"x": I8, "w": sf.i8, "stride": [1, 2], "dilation": [1, 2]}),
    Sample(
        grouped,
        group,
        {"x": I8, "w": sf.i8, "groups": 2, "kh": 5, "kw": [1, 5], "oc": [2, 4, 6, 16, 32, 34]},
    ),
    Sample(
        matmul_nt,
        lambda a, b: product(a, b.transpose(0, 2, 1)),
        {"a": I8, "b": [sf.i8, sf.i16.range(-99, 99)]},
    ),
    Sample(matmul_tn_f32, lambda a, b, scale: product(a.transpose(0, 2, 1), b) * scale),
    Sample(max_pool, pool(np.max), {"x": sf.i8, "size": [2, 3], "stride": [1, 2]}),
    Sample(min_pool_f32, pool(np.min), {"x": sf.f32, "stride": [1, 2]}),
    Sample(mean, averaged, {"x": sf.u8}),
    Sample(
        add_saturated,
        lambda a, b: np.clip(a.astype(int) + b, 0, 127),
        {"a": I8, "b": sf.i8},
    ),
    Sample(hardswish, lambda x: x * np.clip(x + 3, 0, 6) * np.float32(0.16666667), {"x": sf.f32}),
    Sample(gelu, gelu_numpy, {"x": sf.f32, "i": (1, 300)}),
    Sample(transposed_add, lambda a, b: a.T.astype(int) + b[:, None], {"a": sf.i8, "b": sf.i16}),
    Sample(
        channels_last,
        lambda x, y: np.maximum(x.transpose(1, 2, 0), y),
        {"x": sf.u8, "y": sf.u8, "w": (1, 40), "c": (1, 40)},
    ),
    Sample(leaky, lambda x, slope: np.where(x > 0, x, x * np.float32(slope)), {"x": sf.f32}),
    Sample(
        binary_conv, binary, {"threshold": sf.i32.range(-9, 9), "stride": [1, 2], "ic": (1, 140)}
    ),
    Sample(binary_dense, lambda x, w: product(x, w.T), {"k": (1, 300)}),
    Sample(narrow_sum, product, {"x": sf.i8.range(-7, 7), "w": sf.i8.range(-7, 7)}),
    Sample(wrapping_sum, wrapped, {"x": I8, "w": sf.i8}),
    Sample(sparse_relu, lambda w, x: np.maximum(product(w, x), 0)),
    Sample(
        sparse_int8,
        lambda w, x, bias: product(w, x) + bias[:, None],
        {"w": sf.i8, "x": I8, "bias": BIAS},
    ),
    Sample(
        looked_up,
        lambda x, table: table[x.astype(int) + 128],
        {"x": sf.i8, "table": [sf.i8, sf.u8, sf.f32]},
    ),
    Sample(row_max, lambda x: x.max(axis=1), {"x": sf.f32, "c": (1, 100)}),
    Sample(
        exp_sum,
        lambda x, m: np.exp(x.astype(np.float64) - m[:, None]).sum(axis=1),
        {"x": SMALL, "m": SMALL, "c": (1, 100)},
    ),
    Sample(variance, inverse_deviation, {"x": SMALL, "mean": SMALL}),
    Sample(gated, gate, {"x": sf.f32, "g": sf.f32}),
    Sample(
        long_sum, lambda x: x.astype(np.int64).sum(axis=1) * 1000000007 - 5, {"x": [sf.i8, sf.i16]}
    ),
    Sample(blocked_channels, blocked),
    Sample(gram, lambda x: product(x, x.T), {"x": I8}),
    Sample(square_sum, lambda x: (x.astype(np.int64) ** 2).sum(axis=(1, 2)), {"x": I8}),
    Sample(
        distance,
        lambda a, b: np.abs(a[:, None].astype(int) - b[None]).sum(axis=2),
        {"a": I8, "b": sf.i8},
    ),
    Sample(
        upsample,
        lambda x, factor: x.repeat(factor, axis=1).repeat(factor, axis=2),
        {"x": [sf.f32, sf.u8], "factor": [2, 3]},
    ),
    Sample(
        embedded,
        lambda table, ids, bias: table[ids] + bias,
        {"table": sf.f32, "ids": [sf.i64.range(0, 8), sf.u8.range(2, 9)], "bias": sf.f32},
    ),
    Sample(
        bags,
        lambda table, ids: table.astype(int)[ids.astype(int) * 2 + 1].sum(axis=1),
        {"table": I8, "ids": [sf.i32.range(0, 8), sf.i16.range(3, 5)]},
    ),
    Sample(sparse_rows, lambda w, x: product(x, w.T), {"w": sf.i8, "x": I8}),
    Sample(haar, haar_numpy, {"x": I8, "c": (1, 70)}),
    Sample(three_ways, three_ways_numpy, {"x": I8, "w": sf.i8}),
    Sample(
        extremes_of_two,
        lambda x, y: np.stack([np.minimum(x, y), np.clip(np.maximum(x, y) + 1.0, 0, 255)], 1),
        {"x": sf.u8, "y": sf.u8, "i": (1, 90)},
    ),
    Sample(
        narrowed_ways,
        narrowed_ways_numpy,
        {"x": sf.u8, "w": sf.i8, "scale": sf.f32.range(0, 0.125)},
    ),
    Sample(square_turned, lambda x: np.outer([1, 2, 3, -4], x), {"x": sf.f32}),
    Sample(
        summed_of_two, lambda x, y: np.stack([2 * y.sum(1), x.sum(1)]), {"x": SMALL, "y": SMALL}
    ),
)
BY_NAME = {str(s): s for s in SAMPLES}
