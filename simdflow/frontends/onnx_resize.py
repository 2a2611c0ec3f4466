"""ONNX's Resize and Upsample.

What the ops resize_nearest and resize_bilinear do is theirs; every other form moves places along an
axis (nearest) or multiplies an axis by a matrix that is known when the model is imported (linear,
cubic, antialiased). Cropping by `roi` is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from .onnx_call import Call, Operator, Table
from .onnx_scope import Tensor, Unsupported, counted, known
from .onnx_windows import from_nhwc, to_nhwc

_PLAIN = {"asymmetric", "half_pixel", "align_corners"}
_MODES = (*sorted(_PLAIN), "pytorch_half_pixel", "half_pixel_symmetric")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _places(size: int, out: int, scale: float, mode: str) -> np.ndarray:
    """Where each element of the result lies in the input, by the specification's formulas."""
    i = np.arange(out, dtype=np.float64)
    match mode:
        case "asymmetric":
            return i / scale
        case "align_corners":
            return i * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
        case "pytorch_half_pixel":
            return (i + 0.5) / scale - 0.5 if out > 1 else np.zeros(out)
        case "half_pixel_symmetric":
            # Keeps the middle where the size was rounded down.
            middle = (size / 2) * (1 - out / (scale * size))
            return middle + (i + 0.5) / scale - 0.5
    return (i + 0.5) / scale - 0.5


def _nearest(places: np.ndarray, rounding: str, size: int) -> np.ndarray:
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    found = rules[rounding](places)
    return np.clip(found, 0, size - 1).astype(np.int64)


def _linear(distance: np.ndarray, _: float) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel: zero from a distance of 2 on."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _matrix(
    places: np.ndarray,
    size: int,
    kernel: Callable[[np.ndarray, float], np.ndarray],
    reach: int,
    scale: float,
    options: dict[str, Any],
) -> np.ndarray:
    """[size, out]: the weight of each element of the input in each of the result.

    Elements outside the input repeat the edge, or count nothing and the rest is made to sum to 1
    (`exclude`). With `antialias` the kernel is as wide as a step of the result.
    """
    narrow = min(scale, 1.0) if options["antialias"] else 1.0
    around = math.ceil(reach / narrow)
    offsets = np.arange(1 - around, around + 1)
    at = np.floor(places)[:, None] + offsets
    weight = kernel((at - places[:, None]) * narrow, options["a"])
    if options["exclude"]:
        weight = np.where((at >= 0) & (at < size), weight, 0)
    total = weight.sum(1, keepdims=True)
    if options["exclude"] or options["antialias"]:
        weight = weight / np.where(total == 0, 1, total)
    found = np.zeros((size, len(places)))
    columns = np.broadcast_to(np.arange(len(places))[:, None], at.shape)
    np.add.at(found, (np.clip(at, 0, size - 1).astype(np.int64), columns), weight)
    return found.astype(np.float32)


def _sizes(n: Call, x: Tensor) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The shape of the result and the scale of each axis."""
    given = n.ints("axes", tuple(range(x.rank)))
    axes = [counted(a, x.rank) for a in given]
    policy = n.one("keep_aspect_ratio_policy", ("stretch", "not_larger", "not_smaller"), "stretch")
    scales = n.optional(2 if n.opset > 10 else 1)
    sizes = n.optional(3)
    out, ratio = list(x.shape), [1.0] * x.rank
    if sizes is not None and sizes.size:
        wanted = [int(s) for s in sizes.reshape(-1)]
        if len(wanted) != len(axes) or min(wanted) < 1:
            raise Unsupported(f"sizes {wanted} of axes {axes}")
        ratios = [s / x.shape[a] for a, s in zip(axes, wanted, strict=True)]
        if policy != "stretch":
            one = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [one] * len(axes)
            wanted = [math.floor(one * x.shape[a] + 0.5) for a in axes]
        for a, s, r in zip(axes, wanted, ratios, strict=True):
            out[a], ratio[a] = s, r
    elif scales is not None and scales.size:
        factors = [float(s) for s in scales.reshape(-1)]
        if len(factors) != len(axes) or not all(0 < f < 2**31 for f in factors):
            raise Unsupported(f"scales {factors} of axes {axes}")
        for a, f in zip(axes, factors, strict=True):
            out[a], ratio[a] = math.floor(x.shape[a] * f), f
    else:
        raise Unsupported("neither scales nor sizes")
    if min(out) < 1:
        raise Unsupported(f"a result of {out}")
    return tuple(out), tuple(ratio)


def _resize(n: Call) -> Tensor:
    x = n.floats(0)
    mode = n.one("mode", ("nearest", "linear", "cubic"), "nearest")
    default = "half_pixel" if n.opset > 10 else "asymmetric"
    where = n.one("coordinate_transformation_mode", _MODES, default)
    rounding = n.one("nearest_mode", _ROUNDINGS, "round_prefer_floor" if n.opset > 10 else "floor")
    options = {
        "antialias": n.integer("antialias", 0) == 1,
        "exclude": n.integer("exclude_outside", 0) == 1,
        "a": n.real("cubic_coeff_a", -0.75),
    }
    n.real("extrapolation_value", 0.0)
    shape, scales = _sizes(n, x)
    return _resized(n, x, shape, scales, mode, where, rounding, options)


def _resized(
    n: Call,
    x: Tensor,
    shape: tuple[int, ...],
    scales: tuple[float, ...],
    mode: str,
    where: str,
    rounding: str,
    options: dict[str, Any],
) -> Tensor:
    outer = shape[:2] == x.shape[:2] and x.rank in (3, 4)
    # The ops know sizes, not scales: they agree where no size was rounded.
    whole = all(abs(d * s - o) < 1e-6 for d, s, o in zip(x.shape, scales, shape, strict=True))
    plain = outer and where in _PLAIN and (whole or where == "align_corners")
    plain &= not options["antialias"] and not options["exclude"]
    if plain and mode != "cubic" and x.array is None:
        size = shape[2:] if x.rank == 4 else (1, shape[2])
        if mode == "nearest":
            y = n.emit(ops.resize_nearest, to_nhwc(n, x), size=size, mode=where, rounding=rounding)
        else:
            y = n.emit(ops.resize_bilinear, to_nhwc(n, x), size=size, mode=where)
        return from_nhwc(n, y, x.rank)
    for axis, (before, out, scale) in enumerate(zip(x.shape, shape, scales, strict=True)):
        if before == out and scale == 1:
            continue
        n.scope.charge(8 * out)
        places = _places(before, out, scale, where)
        if mode == "nearest":
            x = n.gather(x, _nearest(places, rounding, before), axis)
            continue
        kernel, reach = (_linear, 1) if mode == "linear" else (_cubic, 2)
        width = reach / min(scale, 1.0) if options["antialias"] else reach
        n.scope.charge(int(12 * out * before + 100 * out * width))
        matrix = known(_matrix(places, before, kernel, reach, scale, options))
        order = (*(i for i in range(x.rank) if i != axis), axis)
        made = n.emit(ops.dense, n.transpose(x, order), matrix)
        x = n.transpose(made, tuple(int(i) for i in np.argsort(order)))
    return x


def _upsample(n: Call) -> Tensor:
    x = n.floats(0)
    mode = n.one("mode", ("nearest", "linear"), "nearest")
    if "scales" in n.node.attributes:
        scales = tuple(float(s) for s in n.reals("scales"))
    else:
        scales = tuple(float(s) for s in n.constant(1).reshape(-1))
    if len(scales) != x.rank or not all(1 <= s < 2**31 for s in scales):
        raise Unsupported(f"scales {scales} of {list(x.shape)}")
    shape = tuple(math.floor(d * s) for d, s in zip(x.shape, scales, strict=True))
    options = {"antialias": False, "exclude": False, "a": -0.75}
    return _resized(n, x, shape, scales, mode, "asymmetric", "floor", options)


RESIZES: Table = {
    "Resize": Operator(_resize, (1, 2, 3), note="f32; no tf_crop_and_resize"),
    "Upsample": Operator(_upsample, (1,), note="f32 only"),
}
