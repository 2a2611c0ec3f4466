"""Turns NHWC arrays into sliding-window sums, maxima and means with numpy alone: convolution,
pooling, padding.

Integers are exact (int64), floats are computed in float64. Nothing is requantized here and nothing
is fast.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray
Pair = int | tuple[int, int]
Padding = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
Pads = tuple[tuple[int, int], tuple[int, int]]


def widen(x: ArrayLike) -> Array:
    """`x` as int64 if it holds integers or booleans, as float64 if it holds floats."""
    array = np.asarray(x)
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def pair(value: Pair) -> tuple[int, int]:
    """(vertical, horizontal) of one number or of a pair."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def window_pads(
    padding: Padding, sizes: Pair, kernel: Pair, stride: Pair = 1, dilation: Pair = 1
) -> Pads:
    """((top, bottom), (left, right)) of a `padding` argument.

    An int is all four sides, a pair is (vertical, horizontal), two pairs are themselves, "valid" is
    none. "same" is TensorFlow's: out = ceil(size / stride), total = max(0, (out-1)*stride +
    (kernel-1)*dilation + 1 - size), of which floor(total / 2) go before and the rest after.
    """
    if isinstance(padding, int):
        return (padding, padding), (padding, padding)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"padding={padding!r} is not known; 'same', 'valid' or numbers are")
        both = []
        for size, k, s, d in zip(
            pair(sizes), pair(kernel), pair(stride), pair(dilation), strict=True
        ):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            both.append((0, 0) if padding == "valid" else (total // 2, total - total // 2))
        return both[0], both[1]
    vertical, horizontal = padding
    if isinstance(vertical, int) and isinstance(horizontal, int):
        return (vertical, vertical), (horizontal, horizontal)
    assert not isinstance(vertical, int) and not isinstance(horizontal, int)
    return vertical, horizontal


def pad(x: ArrayLike, pads: tuple[tuple[int, int], ...], value: float = 0) -> Array:
    """`x` with `pads[i] = (before, after)` elements of `value` added along axis i; the dtype of `x`
    is kept.
    """
    return np.pad(np.asarray(x), pads, constant_values=value)


def _taps(
    x: Array, kernel: tuple[int, int], stride: Pair, dilation: Pair
) -> Iterator[tuple[int, int, Array]]:
    """(kh, kw, the [n,oh,ow,c] elements of the bordered `x` that this tap of the window meets)."""
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    oh = (x.shape[1] - (kernel[0] - 1) * dh - 1) // sh + 1
    ow = (x.shape[2] - (kernel[1] - 1) * dw - 1) // sw + 1
    if oh < 1 or ow < 1:
        raise ValueError(f"kernel={kernel} does not fit the bordered input {x.shape}")
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            rows = slice(kh * dh, kh * dh + (oh - 1) * sh + 1, sh)
            columns = slice(kw * dw, kw * dw + (ow - 1) * sw + 1, sw)
            yield kh, kw, x[:, rows, columns]


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
    pad_value: float = 0,
) -> Array:
    """out[n,oh,ow,oc] = bias[oc] + sum over kh,kw,ic of x[n, oh*s + kh*d, ow*s + kw*d, g*icg + ic]
    * w[kh,kw,ic,oc].

    `x` [n,h,w,c], `w` HWIO [kh,kw,c/groups,oc], g = oc // (oc_total / groups), `x` bordered with
    `pad_value` (the zero point of an asymmetric input). Returns int64 [n,oh,ow,oc] for integers,
    float64 for floats.
    """
    xs, ws = widen(x), widen(w)
    kernel = ws.shape[:2]
    pads = window_pads(padding, xs.shape[1:3], kernel, stride, dilation)
    xs = pad(xs, ((0, 0), *pads, (0, 0)), pad_value)
    width, oc = ws.shape[2], ws.shape[3] // groups
    if xs.shape[3] != width * groups or ws.shape[3] != oc * groups:
        raise ValueError(
            f"groups={groups} does not divide channels of x {xs.shape} and w {ws.shape}"
        )
    total: Array | None = None
    for kh, kw, part in _taps(xs, kernel, stride, dilation):
        products = [
            part[..., g * width : (g + 1) * width] @ ws[kh, kw, :, g * oc : (g + 1) * oc]
            for g in range(groups)
        ]
        term = np.concatenate(products, axis=-1)
        total = term if total is None else total + term
    assert total is not None
    return total if bias is None else total + widen(bias)


def depthwise_conv2d(
    x: ArrayLike,
    w: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    pad_value: float = 0,
) -> Array:
    """out[n,oh,ow,oc] = bias[oc] + sum over kh,kw of x[n, oh*s + kh*d, ow*s + kw*d, oc // m] *
    w[kh,kw,oc].

    `x` [n,h,w,c], `w` [kh,kw,c*m] with channel multiplier m >= 1. Returns int64 or float64
    [n,oh,ow,c*m].
    """
    xs, ws = widen(x), widen(w)
    kernel = ws.shape[:2]
    pads = window_pads(padding, xs.shape[1:3], kernel, stride, dilation)
    xs = pad(xs, ((0, 0), *pads, (0, 0)), pad_value)
    if ws.shape[2] % xs.shape[3]:
        raise ValueError(
            f"w {ws.shape} has no whole number of channels per channel of x {xs.shape}"
        )
    xs = np.repeat(xs, ws.shape[2] // xs.shape[3], axis=3)
    total = sum(part * ws[kh, kw] for kh, kw, part in _taps(xs, kernel, stride, dilation))
    return np.asarray(total if bias is None else total + widen(bias))


def dense(x: ArrayLike, w: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """out[m,n] = bias[n] + sum over k of x[m,k] * w[k,n]; `x` [..., k], `w` [k,n]; int64 or float64
    [..., n].
    """
    out = widen(x) @ widen(w)
    return np.asarray(out if bias is None else out + widen(bias))


def matmul(
    a: ArrayLike, b: ArrayLike, transpose_a: bool = False, transpose_b: bool = False
) -> Array:
    """out[..., m, n] = sum over k of a[..., m, k] * b[..., k, n], leading axes broadcast; int64 or
    float64.

    With `transpose_a` the operand is stored as a[..., k, m], with `transpose_b` as b[..., n, k].
    """
    left, right = widen(a), widen(b)
    left = left.swapaxes(-1, -2) if transpose_a else left
    right = right.swapaxes(-1, -2) if transpose_b else right
    return np.asarray(left @ right)


def max_pool2d(
    x: ArrayLike, kernel: Pair, stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1
) -> Array:
    """out[n,oh,ow,c] = max over the window's elements that lie inside `x` [n,h,w,c]; dtype kept.

    Numbers win over NaN, as in TensorFlow Lite's and onnxruntime's pools; a window of NaN alone
    gives -inf.
    """
    xs, k = np.asarray(x), pair(kernel)
    step = k if stride is None else stride
    lowest = -np.inf if xs.dtype.kind == "f" else np.iinfo(xs.dtype).min
    pads = window_pads(padding, xs.shape[1:3], k, step, dilation)
    bordered = pad(xs, ((0, 0), *pads, (0, 0)), lowest)
    parts = [part for _, _, part in _taps(bordered, k, step, dilation)]
    return np.asarray(np.fmax.reduce(parts, axis=0, initial=lowest))


def window_sums(
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    count_include_pad: bool = False,
) -> tuple[Array, Array]:
    """(sum over each window of `x` [n,h,w,c], number of elements it counts [1,oh,ow,1]); int64 or
    float64.

    Elements of the border add nothing and count only with `count_include_pad`.
    """
    xs, k = widen(x), pair(kernel)
    step = k if stride is None else stride
    pads = ((0, 0), *window_pads(padding, xs.shape[1:3], k, step), (0, 0))
    inside = np.ones((1, *xs.shape[1:3], 1), np.int64)
    sums = sum(part for _, _, part in _taps(pad(xs, pads), k, step, 1))
    counts = sum(
        part for _, _, part in _taps(pad(inside, pads, int(count_include_pad)), k, step, 1)
    )
    return np.asarray(sums), np.asarray(counts)


def avg_pool2d(
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    count_include_pad: bool = False,
) -> Array:
    """out[n,oh,ow,c] = window sum / number of elements counted (see `window_sums`); float64
    [n,oh,ow,c].

    The integer form, with its rounding, is `quantized_avg_pool2d`.
    """
    sums, counts = window_sums(x, kernel, stride, padding, count_include_pad)
    return np.asarray(sums / counts)


def global_avg_pool2d(x: ArrayLike) -> Array:
    """out[n,c] = mean over h,w of x[n,h,w,c]; float64. The integer form is
    `quantized_global_avg_pool2d`.
    """
    return np.asarray(widen(x).mean(axis=(1, 2)))
