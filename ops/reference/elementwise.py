"""Turns arrays into arrays element by element, or row by row (softmax, layer norm), in float64 or
exact int64.

These are the real-valued definitions; the quantized ones are in `quantized`.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from .windows import Array, widen

_erf = np.vectorize(math.erf, otypes=[np.float64])


def relu(x: ArrayLike) -> Array:
    """out = max(x, 0), NaN stays NaN; int64 or float64."""
    return np.asarray(np.maximum(widen(x), 0))


def relu6(x: ArrayLike) -> Array:
    """out = min(max(x, 0), 6), NaN stays NaN; int64 or float64."""
    return clip(x, 0, 6)


def clip(x: ArrayLike, low: float, high: float) -> Array:
    """out = min(max(x, low), high), NaN stays NaN; int64 or float64."""
    return np.asarray(np.minimum(np.maximum(widen(x), low), high))


def leaky_relu(x: ArrayLike, slope: float = 0.01) -> Array:
    """out = x if x >= 0 else slope * x; float64."""
    xs = np.asarray(x, np.float64)
    return np.where(xs >= 0, xs, slope * xs)


def hardswish(x: ArrayLike) -> Array:
    """out = x * min(max(x + 3, 0), 6) / 6; float64."""
    xs = np.asarray(x, np.float64)
    return np.asarray(xs * clip(xs + 3, 0, 6) / 6)


def sigmoid(x: ArrayLike) -> Array:
    """out = 1 / (1 + exp(-x)), by exp(-|x|) so that nothing overflows; float64."""
    xs = np.asarray(x, np.float64)
    e = np.exp(-np.abs(xs))
    return np.where(xs >= 0, 1 / (1 + e), e / (1 + e))


def tanh(x: ArrayLike) -> Array:
    """out = (exp(x) - exp(-x)) / (exp(x) + exp(-x)); float64."""
    return np.asarray(np.tanh(np.asarray(x, np.float64)))


def gelu(x: ArrayLike, approximate: bool = False) -> Array:
    """out = x/2 * (1 + erf(x / sqrt(2))), or with `approximate` x/2 * (1 + tanh(sqrt(2/pi) * (x +
    0.044715 x^3))).

    float64. Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """
    xs = np.asarray(x, np.float64)
    if approximate:
        return np.asarray(xs / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (xs + 0.044715 * xs**3))))
    return np.asarray(xs / 2 * (1 + _erf(xs / math.sqrt(2))))


def elu(x: ArrayLike, alpha: float = 1.0) -> Array:
    """out = x if x >= 0 else alpha * (exp(x) - 1); float64."""
    xs = np.asarray(x, np.float64)
    return np.where(xs >= 0, xs, alpha * np.expm1(np.minimum(xs, 0)))


def softplus(x: ArrayLike) -> Array:
    """out = log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)) so that nothing overflows; float64."""
    xs = np.asarray(x, np.float64)
    return np.asarray(np.maximum(xs, 0) + np.log1p(np.exp(-np.abs(xs))))


def hard_sigmoid(x: ArrayLike, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """out = min(max(alpha * x + beta, 0), 1), NaN stays NaN; float64."""
    return clip(alpha * np.asarray(x, np.float64) + beta, 0, 1)


def silu(x: ArrayLike) -> Array:
    """out = x * sigmoid(x); float64."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.asarray(x, np.float64) * sigmoid(x))


def prelu(x: ArrayLike, slope: ArrayLike) -> Array:
    """out = x if x >= 0 else slope * x, `slope` broadcast from the last axes; float64."""
    xs, slopes = np.asarray(x, np.float64), np.asarray(slope, np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(xs >= 0, xs, slopes * xs)


def batch_norm(
    x: ArrayLike,
    scale: ArrayLike,
    bias: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    epsilon: float = 1e-5,
) -> Array:
    """out[..., c] = (x[..., c] - mean[c]) / sqrt(variance[c] + epsilon) * scale[c] + bias[c];
    float64.
    """
    xs, gain, offset, middle, spread = (
        np.asarray(v, np.float64) for v in (x, scale, bias, mean, variance)
    )
    return np.asarray((xs - middle) / np.sqrt(spread + epsilon) * gain + offset)


def softmax(x: ArrayLike, beta: float = 1.0, axis: int = -1) -> Array:
    """out = exp(beta * (x - max x)) / sum exp(beta * (x - max x)) along `axis`; float64."""
    xs = np.asarray(x, np.float64)
    e = np.exp(beta * (xs - xs.max(axis=axis, keepdims=True)))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def layer_norm(
    x: ArrayLike,
    gain: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """out[..., i] = (x - mean) / sqrt(variance + epsilon) * gain[i] + bias[i] along the last axis;
    float64.

    The variance is the mean of squared differences (divided by the length, not the length less
    one).
    """
    xs = np.asarray(x, np.float64)
    centred = xs - xs.mean(axis=-1, keepdims=True)
    out = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    out = out if gain is None else out * np.asarray(gain, np.float64)
    return np.asarray(out if bias is None else out + np.asarray(bias, np.float64))
