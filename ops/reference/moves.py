"""Turns arrays into arrays of the same values in other places, with numpy alone: reshapes,
transposes, slices, concatenation, gathering and resizing.

The dtype is kept, but for `resize_bilinear` of floats, which is float64. Nothing is fast.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .windows import Array, widen


def reshape(x: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The elements of `x` in C order as `shape`, of which one size may be -1."""
    return np.asarray(x).reshape(shape)


def transpose(x: ArrayLike, axes: tuple[int, ...]) -> Array:
    """out[i_0, i_1, ...] = x[...] with i_k standing at axis axes[k] of `x`."""
    return np.ascontiguousarray(np.asarray(x).transpose(axes))


def expand(x: ArrayLike, shape: tuple[int, ...]) -> Array:
    """`x` repeated along its axes of size 1, and along new first axes, to `shape`."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(x), shape))


def slice(
    x: ArrayLike, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> Array:
    """out[i, ...] = x[starts[0] + i * steps[0], ...] up to, and without, `stops`: the indices of
    Python's range(start, stop, step) along each axis.
    """
    array = np.asarray(x)
    for axis, (a, b, step) in enumerate(zip(starts, stops, steps, strict=True)):
        array = np.take(array, np.arange(a, b, step), axis)
    return array


def concat(*xs: ArrayLike, axis: int) -> Array:
    """The operands one after the other along `axis`."""
    return np.concatenate([np.asarray(x) for x in xs], axis)


def gather(x: ArrayLike, indices: ArrayLike, axis: int) -> Array:
    """out[a..., i..., b...] = x[a..., indices[i...], b...], `axis` being the first after a...

    Raises IndexError for an index outside 0 <= index < size.
    """
    array, at = np.asarray(x), np.asarray(indices)
    if at.size and (at.min() < 0 or at.max() >= array.shape[axis]):
        raise IndexError(f"indices {at.min()} to {at.max()} leave the {array.shape[axis]} entries")
    return np.take(array, at, axis)


def depth_to_space(x: ArrayLike, block: int, order: str = "dcr") -> Array:
    """[n, h, w, c] to [n, h*block, w*block, c/block^2].

    out[n, h*block + i, w*block + j, c] is x[n, h, w, (i*block + j)*C + c] for "dcr" and
    x[n, h, w, (c*block + i)*block + j] for "crd", C being the channels of the result.
    """
    array = np.asarray(x)
    n, h, w, c = array.shape
    deep = c // (block * block)
    if order == "dcr":
        parts = array.reshape(n, h, w, block, block, deep).transpose(0, 1, 3, 2, 4, 5)
    else:
        parts = array.reshape(n, h, w, deep, block, block).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, h * block, w * block, deep)


def space_to_depth(x: ArrayLike, block: int) -> Array:
    """[n, h, w, c] to [n, h/block, w/block, c*block^2]: the inverse of depth_to_space "dcr"."""
    array = np.asarray(x)
    n, h, w, c = array.shape
    parts = array.reshape(n, h // block, block, w // block, block, c).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(n, h // block, w // block, block * block * c)


def resize_places(size: int, wanted: int, mode: str) -> Array:
    """Where each of `wanted` places lies among `size`: float64, one rounded division each.

    "asymmetric" i * size / wanted, "half_pixel" (i + 1/2) * size / wanted - 1/2, "align_corners"
    i * (size - 1) / (wanted - 1), or 0 for one place. Source: ONNX, Resize.
    """
    i = np.arange(wanted, dtype=np.int64)
    if mode == "asymmetric":
        return i * size / wanted
    if mode == "half_pixel":
        return ((2 * i + 1) * size - wanted) / (2 * wanted)
    if mode == "align_corners":
        return i * (size - 1) / max(wanted - 1, 1)
    raise ValueError(f"mode={mode!r} is not known; asymmetric, half_pixel and align_corners are")


def resize_nearest(
    x: ArrayLike, size: tuple[int, int], mode: str = "asymmetric", rounding: str = "floor"
) -> Array:
    """out[n, i, j, c] = x[n, r(place(i)), r(place(j)), c], places by `resize_places`.

    r is "floor", "ceil", "round_prefer_floor" (halves down) or "round_prefer_ceil" (halves up),
    then clamped into the input.
    """
    array = np.asarray(x)
    rules: dict[str, Callable[[Array], Array]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    }
    for axis, wanted in ((1, size[0]), (2, size[1])):
        places = rules[rounding](resize_places(array.shape[axis], wanted, mode))
        array = np.take(array, np.clip(places, 0, array.shape[axis] - 1).astype(np.int64), axis)
    return array


def resize_bilinear(
    x: ArrayLike, size: tuple[int, int], mode: str = "half_pixel", rounding: str = "float"
) -> Array:
    """out[n, i, j, c]: the mean of the four neighbours of (place(i), place(j)), weighted by
    nearness; a neighbour outside the input is the nearest element inside.

    Floats in float64. Integers in their own dtype: weights of 11 fraction bits and floor(sum / 2^22
    + 1/2) for "float" (XNNPACK, s8-ibilinear); for "tflite" places of 10 fraction bits, and halves
    away from zero (TensorFlow Lite, reference/resize_bilinear.h).
    """
    array = widen(x)
    whole = array.dtype == np.int64
    bits = 0 if not whole else 10 if rounding == "tflite" else 11
    for axis, wanted in ((1, size[0]), (2, size[1])):
        last = array.shape[axis] - 1
        if bits == 10:
            places = _places_in_1024ths(last + 1, wanted, mode) / 1024
        else:
            places = resize_places(last + 1, wanted, mode)
        places = np.clip(places, 0, last)
        first = np.floor(places).astype(np.int64)
        weight = (places - first).reshape([-1 if a == axis else 1 for a in range(4)])
        if whole:
            weight = np.round(weight * (1 << bits)).astype(np.int64)
        low = np.take(array, first, axis)
        high = np.take(array, np.minimum(first + 1, last), axis)
        array = low * ((1 << bits) - weight) + high * weight
    if not whole:
        return array
    half = 1 << (2 * bits - 1)
    if bits == 10:
        array = np.sign(array) * ((np.abs(array) + half) >> (2 * bits))
    else:
        array = (array + half) >> (2 * bits)
    return np.asarray(array).astype(np.asarray(x).dtype)


def _places_in_1024ths(size: int, wanted: int, mode: str) -> Array:
    """TensorFlow Lite's places: multiples of a scale of 10 fraction bits."""
    i = np.arange(wanted, dtype=np.int64)
    if mode == "align_corners" and wanted > 1:
        return i * ((1024 * (size - 1) + (wanted - 1) // 2) // (wanted - 1))
    scale = (1024 * size + wanted // 2) // wanted
    return i * scale + (scale // 2 - 512 if mode == "half_pixel" else 0)
