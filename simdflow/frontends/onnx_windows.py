"""ONNX convolutions and pools: windows over one or two spatial axes.

Turns [n, c, h, w] operands into calls of the NHWC ops with a transpose on either side, which a pass
of the graph cancels; one spatial axis is a second one of size 1. Three are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from .onnx_call import Call, Operator, Table
from .onnx_elements import div
from .onnx_scope import Tensor, Unsupported, known

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """(vertical, horizontal) sizes of a window, and the places it takes.

    pads    as the file gives them; `extra` is what a rounded-up output reads beyond, at the end
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[Pair, Pair]
    extra: Pair
    out: Pair

    @property
    def padding(self) -> tuple[Pair, Pair]:
        """All of the border: ((top, bottom), (left, right))."""
        (a, b), (c, d) = self.pads
        return (a, b + self.extra[0]), (c, d + self.extra[1])


def flat_window(n: Call, x: Tensor, kernel: tuple[int, ...]) -> Window:
    """The window of a node over the spatial axes of `x` [n, c, ...]."""
    axes = x.rank - 2
    if axes not in (1, 2):
        raise Unsupported(f"{axes} spatial axes; 1 and 2 are supported")
    sizes = x.shape[2:]
    if len(kernel) != axes or min(kernel, default=0) < 1:
        raise Unsupported(f"a window of {kernel} over {axes} axes")
    stride, dilation = n.ints("strides", (1,) * axes), n.ints("dilations", (1,) * axes)
    auto = n.one("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    pads = n.ints("pads", (0,) * (2 * axes))
    up = bool(n.integer("ceil_mode", 0))
    if not len(stride) == len(dilation) == len(pads) // 2 == axes:
        raise Unsupported(f"strides {stride}, dilations {dilation}, pads {pads} of {axes} axes")
    if min((*stride, *dilation)) < 1 or min(pads) < 0:
        raise Unsupported(f"strides {stride}, dilations {dilation}, pads {pads}")
    found: list[tuple[int, int, int, int, int, int, int]] = []
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, stride, dilation, strict=True)):
        reach = (k - 1) * d + 1
        before, after = pads[i], pads[i + axes]
        if auto == "VALID":
            before = after = 0
        elif auto != "NOTSET":
            total = max((-(-size // s) - 1) * s + reach - size, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        span = size + before + after - reach
        if span < 0:
            raise Unsupported(f"a window of {reach} in {size} elements with pads {before}, {after}")
        out = (-(-span // s) if up else span // s) + 1
        # A window that starts behind the input and the border before it is none.
        out -= int(up and (out - 1) * s >= size + before)
        extra = max((out - 1) * s + reach - (size + before + after), 0)
        found.append((k, s, d, before, after, extra, out))
    rows = [(1, 1, 1, 0, 0, 0, 1)] * (2 - axes) + found
    (kh, sh, dh, top, bottom, eh, oh), (kw, sw, dw, left, right, ew, ow) = rows
    pairs = ((top, bottom), (left, right))
    return Window((kh, kw), (sh, sw), (dh, dw), pairs, (eh, ew), (oh, ow))


def to_nhwc(n: Call, x: Tensor) -> Tensor:
    """[n, c, h, w] or [n, c, w] as [n, h, w, c]. Raises Unsupported for other ranks."""
    if x.rank not in (3, 4):
        raise Unsupported(f"{x.rank - 2} spatial axes; 1 and 2 are supported")
    square = x if x.rank == 4 else n.reshape(x, (*x.shape[:2], 1, x.shape[2]))
    return n.transpose(square, (0, 2, 3, 1))


def from_nhwc(n: Call, y: Tensor, rank: int) -> Tensor:
    """The inverse of `to_nhwc`."""
    made = n.transpose(y, (0, 3, 1, 2))
    return made if rank == 4 else n.reshape(made, (*made.shape[:2], made.shape[3]))


def convolve(n: Call, x: Tensor, w: Tensor, bias: Tensor | None, **numbers: Any) -> Tensor:
    """x [n, c, ...] with weights [oc, c/group, ...] by the attributes of a Conv node; `numbers` are
    the options of quantized layers.
    """
    group = n.integer("group", 1)
    if x.rank not in (3, 4) or w.rank != x.rank:
        raise Unsupported(f"{x.rank - 2} spatial axes; 1 and 2 are supported")
    kernel = n.ints("kernel_shape", w.shape[2:])
    if kernel != w.shape[2:] or group < 1 or w.shape[1] * group != x.shape[1]:
        raise Unsupported(f"weights {list(w.shape)} for {list(x.shape)} in {group} groups")
    at = flat_window(n, x, kernel)
    if w.rank == 3:
        w = n.reshape(w, (*w.shape[:2], 1, w.shape[2]))
    places: dict[str, Any] = {
        "stride": at.stride,
        "padding": at.padding,
        "dilation": at.dilation,
    }
    inner = to_nhwc(n, x)
    if group > 1 and w.shape[1] == 1:
        thin = n.transpose(n.reshape(w, (w.shape[0], *w.shape[2:])), (1, 2, 0))
        y = n.emit(ops.depthwise_conv2d, inner, thin, bias, **places, **numbers)
    else:
        wide = n.transpose(w, (2, 3, 1, 0))
        y = n.emit(ops.conv2d, inner, wide, bias, groups=group, **places, **numbers)
    return from_nhwc(n, y, x.rank)


def _conv(n: Call) -> Tensor:
    bias = n.given(2)
    return convolve(n, n.floats(0), n.floats(1), bias)


def _conv_transpose(n: Call) -> Tensor:
    """As a convolution of the input with zeros between its elements, and mirrored weights."""
    x, w, group = n.floats(0), n.floats(1), n.integer("group", 1)
    axes = x.rank - 2
    if axes not in (1, 2) or w.rank != x.rank or group < 1 or x.shape[1] % group:
        raise Unsupported(f"{axes} spatial axes, {group} groups; 1 or 2 axes are supported")
    kernel = n.ints("kernel_shape", w.shape[2:])
    stride, dilation = n.ints("strides", (1,) * axes), n.ints("dilations", (1,) * axes)
    more, pads = n.ints("output_padding", (0,) * axes), n.ints("pads", (0,) * (2 * axes))
    auto = n.one("auto_pad", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), "NOTSET")
    shape = n.ints("output_shape", ())
    lengths = {len(stride), len(dilation), len(more), len(kernel), len(pads) // 2}
    if lengths != {axes} or min((*stride, *dilation)) < 1 or min((*more, *pads)) < 0:
        raise Unsupported(f"strides {stride}, pads {pads}, output_padding {more}")
    if kernel != w.shape[2:] or w.shape[0] != x.shape[1]:
        raise Unsupported(f"weights {list(w.shape)} for {list(x.shape)}")
    cuts: list[tuple[int, int]] = []
    for i, (size, k, s, d) in enumerate(zip(x.shape[2:], kernel, stride, dilation, strict=True)):
        reach = (k - 1) * d + 1
        full = (size - 1) * s + reach + more[i]
        before, after = pads[i], pads[i + axes]
        if shape or auto.startswith("SAME"):
            total = full - (shape[i - axes] if shape else size * s)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        elif auto == "VALID":
            before = after = 0
        # What a border adds around the input so that the plain product has the right size.
        cuts.append((reach - 1 - before, reach - 1 - after + more[i]))
    y = _widened(n, x, stride)
    for i, (before, after) in enumerate(cuts):
        size = y.shape[2 + i]
        y = n.slice(y, 2 + i, max(-before, 0), size - max(-after, 0))
    padding = [(max(a, 0), max(b, 0)) for a, b in cuts]
    mirrored = w
    for axis in range(2, w.rank):
        mirrored = n.slice(mirrored, axis, w.shape[axis] - 1, -1, -1)
    parts = n.reshape(mirrored, (group, w.shape[0] // group, *w.shape[1:]))
    swapped = n.transpose(parts, (0, 2, 1, *range(3, parts.rank)))
    deep = n.reshape(swapped, (group * w.shape[1], w.shape[0] // group, *kernel))
    flat = deep if axes == 2 else n.reshape(deep, (*deep.shape[:2], 1, deep.shape[2]))
    spread = (1, *dilation) if axes == 1 else dilation
    made = n.emit(
        ops.conv2d,
        to_nhwc(n, y),
        n.transpose(flat, (2, 3, 1, 0)),
        n.given(2),
        padding=tuple([(0, 0)] * (2 - axes) + padding),
        dilation=spread,
        groups=group,
    )
    return from_nhwc(n, made, x.rank)


def _widened(n: Call, x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """stride - 1 zeros between the elements of each spatial axis."""
    for axis, s in enumerate(stride, 2):
        if s == 1:
            continue
        size = x.shape[axis]
        apart = n.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        pads = tuple((0, s - 1 if i == axis + 1 else 0) for i in range(apart.rank))
        wide = n.emit(ops.pad, apart, pads=pads)
        shape = (*x.shape[:axis], size * s, *x.shape[axis + 1 :])
        x = n.slice(n.reshape(wide, shape), axis, 0, size * s - s + 1)
    return x


def _max_pool(n: Call) -> Tensor:
    x = n.need(0)
    n.one("storage_order", (0, 1), 0)
    if any(n.node.outputs[1:]):
        raise Unsupported("the output Indices")
    at = flat_window(n, x, n.ints("kernel_shape"))
    y = n.emit(
        ops.max_pool2d,
        to_nhwc(n, x),
        kernel=at.kernel,
        stride=at.stride,
        padding=at.padding,
        dilation=at.dilation,
    )
    return from_nhwc(n, y, x.rank)


def average(n: Call, x: Tensor) -> Tensor:
    """The AveragePool of x [n, c, ...] in f32."""
    at = flat_window(n, x, n.ints("kernel_shape"))
    count_border = bool(n.integer("count_include_pad", 0))
    inner = to_nhwc(n, x)
    if at.dilation != (1, 1) or (count_border and at.extra != (0, 0)):
        # The sum of the window, by how many elements of it count.
        c = inner.shape[3]
        n.scope.charge(4 * (c * at.kernel[0] * at.kernel[1] + at.out[0] * at.out[1]))
        n.scope.charge(32 * sum(o * k for o, k in zip(at.out, at.kernel, strict=True)))
        ones = known(np.ones((*at.kernel, c), np.float32))
        places = {"stride": at.stride, "padding": at.padding, "dilation": at.dilation}
        total = n.emit(ops.depthwise_conv2d, inner, ones, **places)
        down, across = (_counts(inner.shape[1 + i], at, i, count_border) for i in (0, 1))
        counts = np.outer(down, across).astype(np.float32)
        return from_nhwc(n, div(n, total, known(counts[:, :, None])), x.rank)
    y = n.emit(
        ops.avg_pool2d,
        inner,
        kernel=at.kernel,
        stride=at.stride,
        padding=at.padding,
        count_include_pad=count_border,
    )
    return from_nhwc(n, y, x.rank)


def _counts(size: int, at: Window, axis: int, border: bool) -> np.ndarray:
    """How many elements of each window lie inside, or inside and in the file's own border."""
    before, after = at.pads[axis]
    first = np.arange(at.out[axis])[:, None] * at.stride[axis] - before
    places = first + np.arange(at.kernel[axis]) * at.dilation[axis]
    low, high = (-before, size + after) if border else (0, size)
    return np.asarray(((places >= low) & (places < high)).sum(1))


def _global_average(n: Call) -> Tensor:
    x = n.floats(0)
    if x.rank not in (3, 4):
        axes = tuple(range(2, x.rank))
        return n.emit(ops.reduce_mean, x, axes=axes, keepdims=True) if axes else x
    y = n.emit(ops.global_avg_pool2d, to_nhwc(n, x))
    return n.reshape(y, (*x.shape[:2], *(1,) * (x.rank - 2)))


def _global_max(n: Call) -> Tensor:
    x = n.floats(0)
    axes = tuple(range(2, x.rank))
    return n.emit(ops.reduce_max, x, axes=axes, keepdims=True) if axes else x


_AXES = "f32, one or two spatial axes"
WINDOWS: Table = {
    "AveragePool": Operator(lambda n: average(n, n.floats(0)), note=_AXES),
    "Conv": Operator(_conv, note=_AXES),
    "ConvTranspose": Operator(_conv_transpose, note=_AXES),
    "GlobalAveragePool": Operator(_global_average, note="f32 only"),
    "GlobalMaxPool": Operator(_global_max, note="f32 only"),
    "MaxPool": Operator(_max_pool, note="f32, int8, uint8, one or two spatial axes; no Indices"),
}
