"""Turns .tflite operators that move values into nodes: shapes, slices, joins, borders, resizing.

8-bit values are moved as their integers, as LiteRT does; only joins look at scales. Sizes, axes and
indices of slices must be known at import.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from .tflite_layer import Layer, Unsupported, quantization, scalar_type

Importer = Callable[[Layer], None]


def reshape(layer: Layer) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the file says the result's shape."""
    layer.give_shaped(layer.value())


def densify(layer: Layer) -> None:
    """DENSIFY: sparse constants are dense already."""
    layer.network.know(layer.operator.outputs[0], layer.array(0, "input"))


def shape_of(layer: Layer) -> None:
    """SHAPE: all shapes are known."""
    found = np.array(layer.x().shape, layer.y().dtype)
    layer.network.know(layer.operator.outputs[0], found)


def fill(layer: Layer) -> None:
    """FILL with a constant."""
    value = layer.array(1, "value")
    shape = layer.y().shape
    if value.size != 1 or math.prod(shape) > 1 << 24:
        raise Unsupported(f"{value.size} values for {list(shape)}")
    layer.network.know(layer.operator.outputs[0], np.full(shape, value.reshape(-1)[0]))


def arange(layer: Layer) -> None:
    """RANGE of known integers."""
    start, limit, step = (layer.integers(i, "range")[0] for i in range(3))
    count = max(-(-(limit - start) // step), 0) if step else -1
    if layer.y().shape != (count,):
        raise Unsupported(f"{count} values, the file says {list(layer.y().shape)}")
    found = np.arange(count, dtype=np.int64) * step + start
    layer.network.know(layer.operator.outputs[0], found.astype(layer.y().dtype))


def transpose(layer: Layer) -> None:
    """TRANSPOSE."""
    rank = len(layer.x().shape)
    axes = tuple(layer.axis(a, rank) for a in layer.integers(1, "order of axes"))
    layer.give(ops.transpose, layer.value(), axes=axes)


def concatenation(layer: Layer) -> None:
    """CONCATENATION: 8-bit inputs of another scale than the result's are requantized first."""
    if layer.activation is not None:
        raise Unsupported(f"activation {layer.activation}")
    values = [_rescaled(layer, i) for i in range(layer.count)]
    axis = layer.axis(int(layer.options["axis"]), len(layer.y().shape))
    layer.give(ops.concat, *values, axis=axis)


def pack(layer: Layer) -> None:
    """PACK: inputs get an axis of 1 and are joined along it."""
    rank = len(layer.y().shape)
    axis = layer.axis(int(layer.options["axis"]), rank)
    values = []
    for i in range(layer.count):
        shape = layer.x(i).shape
        shape = (*shape[:axis], 1, *shape[axis:])
        values.append(layer.call(ops.reshape, _rescaled(layer, i), shape=shape))
    layer.give(ops.concat, *values, axis=axis)


def unpack(layer: Layer) -> None:
    """UNPACK: one result for each index of an axis."""
    shape = layer.x().shape
    axis = layer.axis(int(layer.options["axis"]), len(shape))
    if len(layer.operator.outputs) != shape[axis]:
        raise Unsupported(f"{len(layer.operator.outputs)} results of {list(shape)}")
    for i in range(shape[axis]):
        part = layer.call(ops.slice, layer.value(), **_part(shape, axis, i, i + 1))
        layer.give_shaped(part, at=i)


def split(layer: Layer) -> None:
    """SPLIT: equal parts along an axis, which is the first input."""
    (axis,) = layer.integers(0, "axis") or [0]
    shape, count = layer.x(1).shape, len(layer.operator.outputs)
    axis = layer.axis(axis, len(shape))
    if not count or shape[axis] % count:
        raise Unsupported(f"{count} parts of {list(shape)}")
    _parts(layer, 1, axis, [shape[axis] // count] * count)


def split_v(layer: Layer) -> None:
    """SPLIT_V: parts of given sizes, one of which may be -1."""
    sizes, (axis,) = layer.integers(1, "sizes"), layer.integers(2, "axis") or [0]
    shape = layer.x().shape
    axis = layer.axis(axis, len(shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(sizes) - 1
    if min(sizes, default=-1) < 0 or sum(sizes) != shape[axis]:
        raise Unsupported(f"parts {sizes} of {list(shape)}")
    if len(sizes) != len(layer.operator.outputs):
        raise Unsupported(f"{len(sizes)} parts and {len(layer.operator.outputs)} results")
    _parts(layer, 0, axis, sizes)


def slice_(layer: Layer) -> None:
    """SLICE: begin and size, -1 meaning the rest."""
    shape = layer.x().shape
    begin, size = layer.integers(1, "begin"), layer.integers(2, "size")
    if len(begin) != len(shape) or len(size) != len(shape):
        raise Unsupported(f"a slice from {begin} of {size} of {list(shape)}")
    stops = [n if s == -1 else b + s for b, s, n in zip(begin, size, shape, strict=True)]
    if any(not 0 <= b <= e <= n for b, e, n in zip(begin, stops, shape, strict=True)):
        raise Unsupported(f"a slice from {begin} to {stops} of {list(shape)}")
    steps = (1,) * len(shape)
    layer.give(ops.slice, layer.value(), starts=tuple(begin), stops=tuple(stops), steps=steps)


def strided_slice(layer: Layer) -> None:
    """STRIDED_SLICE without ellipsis and new axes."""
    options, shape = layer.options, layer.x().shape
    if options["ellipsis_mask"] or options["new_axis_mask"]:
        raise Unsupported("an ellipsis or a new axis")
    begin, end = layer.integers(1, "begin"), layer.integers(2, "end")
    steps = layer.integers(3, "strides")
    if not len(begin) == len(end) == len(steps) <= len(shape) or 0 in steps:
        raise Unsupported(f"a slice from {begin} to {end} by {steps} of {list(shape)}")
    found = []
    for at, n in enumerate(shape):
        if at >= len(begin):
            found.append((0, n, 1))
            continue
        bit = 1 << at
        first: int | None = None if options["begin_mask"] & bit else begin[at]
        last: int | None = None if options["end_mask"] & bit else end[at]
        if options["offset"] and first is not None and last is not None:
            last += first
        if options["shrink_axis_mask"] & bit:
            one = layer.axis(first or 0, n) if n else 0
            found.append((one, one + 1, 1))
        else:
            found.append(slice(first, last, steps[at]).indices(n))
    starts, stops, strides = (tuple(v) for v in zip(*found, strict=True)) if found else ((),) * 3
    part: dict[str, Any] = {"starts": starts, "stops": stops, "steps": strides}
    if options["shrink_axis_mask"]:
        layer.give_shaped(layer.call(ops.slice, layer.value(), **part))
    else:
        layer.give(ops.slice, layer.value(), **part)


def reverse(layer: Layer) -> None:
    """REVERSE_V2."""
    shape = layer.x().shape
    axes = {layer.axis(a, len(shape)) for a in layer.integers(1, "axes")}
    layer.give(ops.slice, layer.value(), **_reversed(shape, axes))


def gather(layer: Layer) -> None:
    """GATHER, EMBEDDING_LOOKUP (whose indices come first)."""
    table, indices = (1, 0) if layer.operator.kind == "EMBEDDING_LOOKUP" else (0, 1)
    if layer.options.get("batch_dims", 0):
        raise Unsupported(f"batch_dims={layer.options['batch_dims']}")
    axis = layer.axis(int(layer.options.get("axis", 0)), len(layer.x(table).shape))
    layer.give(ops.gather, layer.value(table), layer.value(indices), axis=axis)


def pad(layer: Layer) -> None:
    """PAD, PADV2: with zero (the zero point), or a constant. A node of its own before a "valid"
    convolution: a pass of the graph joins them.
    """
    value: float = 0
    found = quantization(layer.x())
    if layer.has(2):
        constant = layer.array(2, "value").reshape(-1)
        if constant.size != 1:
            raise Unsupported(f"{constant.size} values")
        value = constant[0].item()
    elif found is not None:
        value = found.zero_point
    layer.give(ops.pad, layer.value(), pads=_pads(layer), value=value)


def mirror_pad(layer: Layer) -> None:
    """MIRROR_PAD: borders are reversed slices, joined to the values axis by axis."""
    edge = 0 if layer.options["mode"] == "symmetric" else 1
    value, shape = layer.value(), layer.x().shape
    for axis, (before, after) in enumerate(_pads(layer)):
        n = shape[axis]
        if max(before, after) > n - edge:
            raise Unsupported(f"a border of {max(before, after)} for {n} values")
        parts = []
        for count, first in ((before, edge), (after, n - edge - after)):
            if count:
                part = layer.call(ops.slice, value, **_part(shape, axis, first, first + count))
                seen = (*shape[:axis], count, *shape[axis + 1 :])
                parts.append(layer.call(ops.slice, part, **_reversed(seen, {axis})))
        if parts:
            joined = [*parts[: bool(before)], value, *parts[bool(before) :]]
            value = layer.call(ops.concat, *joined, axis=axis)
            shape = (*shape[:axis], n + before + after, *shape[axis + 1 :])
    layer.give_shaped(value)


def tile(layer: Layer) -> None:
    """TILE: copies joined axis by axis."""
    value, counts = layer.value(), layer.integers(1, "counts")
    if len(counts) != len(layer.x().shape) or not all(1 <= c <= 256 for c in counts):
        raise Unsupported(f"counts {counts} for {list(layer.x().shape)}")
    for axis, count in enumerate(counts):
        if count > 1:
            value = layer.call(ops.concat, *[value] * count, axis=axis)
    layer.give_shaped(value)


def broadcast_to(layer: Layer) -> None:
    """BROADCAST_TO."""
    layer.give(ops.expand, layer.value(), shape=layer.y().shape)


def resize(name: str) -> Importer:
    """RESIZE_BILINEAR (8-bit ones between dequantize and quantize), RESIZE_NEAREST_NEIGHBOR."""

    def importer(layer: Layer) -> None:
        size = tuple(layer.integers(1, "size"))
        corners, half = layer.options["align_corners"], layer.options["half_pixel_centers"]
        if corners and half:
            raise Unsupported("align_corners with half_pixel_centers")
        mode = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        if name == "resize_bilinear":
            layer.give_real(ops.resize_bilinear, layer.real(), size=size, mode=mode)
            return
        # floor((i + 0.5) * scale), which is the nearest one to (i + 0.5) * scale - 0.5.
        rounding = "floor" if mode == "asymmetric" else "round_prefer_ceil"
        layer.give(ops.resize_nearest, layer.value(), size=size, mode=mode, rounding=rounding)

    return importer


def depth_to_space(layer: Layer) -> None:
    """DEPTH_TO_SPACE."""
    layer.give(ops.depth_to_space, layer.value(), block=layer.options["block"], order="dcr")


def space_to_depth(layer: Layer) -> None:
    """SPACE_TO_DEPTH."""
    layer.give(ops.space_to_depth, layer.value(), block=layer.options["block"])


def space_to_batch(layer: Layer) -> None:
    """SPACE_TO_BATCH_ND of [n, h, w, c]: the places of every block become batch entries."""
    (n, h, w, c), (bh, bw), sides = _blocked(layer)
    value, pads = layer.value(), ((0, 0), *sides, (0, 0))
    if any(a or b for a, b in sides):
        q = quantization(layer.x())
        zero = 0 if q is None else q.zero_point
        value = layer.call(ops.pad, value, pads=pads, value=zero)
    h, w = (size + a + b for size, (a, b) in zip((h, w), sides, strict=True))
    if h % bh or w % bw:
        raise Unsupported(f"blocks of {bh} x {bw} in {h} x {w}")
    value = layer.call(ops.reshape, value, shape=(n, h // bh, bh, w // bw, bw, c))
    layer.give_shaped(layer.call(ops.transpose, value, axes=(2, 4, 0, 1, 3, 5)))


def batch_to_space(layer: Layer) -> None:
    """BATCH_TO_SPACE_ND of [n, h, w, c]: the opposite, and cropped."""
    (n, h, w, c), (bh, bw), ((top, bottom), (left, right)) = _blocked(layer)
    if n % (bh * bw):
        raise Unsupported(f"blocks of {bh} x {bw} in a batch of {n}")
    n //= bh * bw
    value = layer.call(ops.reshape, layer.value(), shape=(bh, bw, n, h, w, c))
    value = layer.call(ops.transpose, value, axes=(2, 3, 0, 4, 1, 5))
    value = layer.call(ops.reshape, value, shape=(n, h * bh, w * bw, c))
    stops = (n, h * bh - bottom, w * bw - right, c)
    if top >= stops[1] or left >= stops[2]:
        raise Unsupported("crops of everything")
    layer.give(ops.slice, value, starts=(0, top, left, 0), stops=stops, steps=(1,) * 4)


def _blocked(
    layer: Layer,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """(shape of the input, block, border or crops) of an operator on blocks."""
    shape, block = layer.x().shape, tuple(layer.integers(1, "block"))
    found = layer.integers(2, "border")
    if len(shape) != 4 or len(block) != 2 or len(found) != 4 or min(*block, *found, 1) < 0:
        raise Unsupported(f"blocks {list(block)} of {list(shape)}; [n, h, w, c] is supported")
    if 0 in block:
        raise Unsupported("blocks of 0")
    return shape, block, ((found[0], found[1]), (found[2], found[3]))


def _pads(layer: Layer) -> tuple[tuple[int, int], ...]:
    found = layer.integers(1, "border")
    if len(found) != 2 * len(layer.x().shape) or min(found, default=0) < 0:
        raise Unsupported(f"borders {found} of {list(layer.x().shape)}")
    return tuple(zip(found[::2], found[1::2], strict=True))


def _rescaled(layer: Layer, i: int) -> str:
    """Input `i` with the scale of the result."""
    found, wanted = quantization(layer.x(i)), quantization(layer.y())
    if found is None or wanted is None or found == wanted:
        return layer.value(i)
    options = {"x_q": found, "y_q": wanted, "y_type": scalar_type(layer.y())}
    return layer.call(ops.requantize, layer.value(i), **options, **layer.rounded)


def _parts(layer: Layer, i: int, axis: int, sizes: list[int]) -> None:
    shape, start = layer.x(i).shape, 0
    for at, size in enumerate(sizes):
        part = _part(shape, axis, start, start + size)
        layer.give(ops.slice, layer.value(i), at=at, **part)
        start += size


def _part(shape: tuple[int, ...], axis: int, start: int, stop: int) -> dict[str, Any]:
    """Options of a slice of one axis."""
    starts, stops = [0] * len(shape), list(shape)
    starts[axis], stops[axis] = start, stop
    return {"starts": tuple(starts), "stops": tuple(stops), "steps": (1,) * len(shape)}


def _reversed(shape: tuple[int, ...], axes: set[int]) -> dict[str, Any]:
    """Options of a slice that reverses axes."""
    found = [slice(None, None, -1 if i in axes else 1).indices(n) for i, n in enumerate(shape)]
    starts, stops, steps = (tuple(v) for v in zip(*found, strict=True))
    return {"starts": starts, "stops": stops, "steps": steps}
