"""resize_nearest and resize_bilinear: an image [n, h, w, c] in another height and width.

Turns the sizes into tables of rows, columns and weights, once, in exact fractions; the nests read
the pixels that the tables name. No antialiasing: a smaller image is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32, i8, i32, u8
from ..kernel import Kernel, kernel
from .layer import Layer, Step
from .op import op
from .shaping import integers, movable
from .window import nonempty, rank, typed

MODES: dict[str, Callable[[int, int, int], Fraction]] = {
    "asymmetric": lambda i, size, wanted: Fraction(i * size, wanted),
    "half_pixel": lambda i, size, wanted: Fraction((2 * i + 1) * size - wanted, 2 * wanted),
    "align_corners": lambda i, size, wanted: Fraction(i * (size - 1), max(wanted - 1, 1)),
}
"""(place in the result, size of the input, of the result) -> the place in the input."""
HALF = Fraction(1, 2)
ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda place: math.ceil(place - HALF),
    "round_prefer_ceil": lambda place: math.floor(place + HALF),
}
WEIGHT_BITS = 11


@kernel
def nearest(x, rows, columns, out):
    """out[n, i, j, c] = x[n, rows[i], columns[j], c]."""
    for n, i, j, c in sf.grid(out.shape):
        out[n, i, j, c] = x[n, rows[i], columns[j], c]


@kernel
def bilinear_f32(x, top, bottom, left, right, down, along, out):
    """out[n, i, j, c] = mix(mix(x[top, left], x[top, right], along[j]), mix(x[bottom, left],
    x[bottom, right], along[j]), down[i]), mix(a, b, weight) being a + (b - a) * weight.
    """
    for n, i, j, c in sf.grid(out.shape):
        first = x[n, top[i], left[j], c]
        upper = first + (x[n, top[i], right[j], c] - first) * along[j]
        third = x[n, bottom[i], left[j], c]
        lower = third + (x[n, bottom[i], right[j], c] - third) * along[j]
        out[n, i, j, c] = upper + (lower - upper) * down[i]


def _to_8_bits(to: Scalar) -> dict[str, Kernel]:
    """The nests of 8 bits, by rounding."""

    @kernel
    def bilinear_float(x, top, bottom, left, right, down, along, out):
        """The mean of four pixels with weights of 11 fraction bits, halves rounded up: XNNPACK,
        s8-ibilinear.
        """
        for n, i, j, c in sf.grid(out.shape):
            first = i32(x[n, top[i], left[j], c])
            upper = (first << 11) + (i32(x[n, top[i], right[j], c]) - first) * along[j]
            third = i32(x[n, bottom[i], left[j], c])
            lower = (third << 11) + (i32(x[n, bottom[i], right[j], c]) - third) * along[j]
            total = (upper << 11) + (lower - upper) * down[i]
            out[n, i, j, c] = to((total + (1 << 21)) >> 22, saturate=True)

    @kernel
    def bilinear_tflite(x, top, bottom, left, right, down, along, out):
        """The mean of four pixels with weights of 10 fraction bits, halves away from zero:
        TensorFlow Lite, reference/resize_bilinear.h.
        """
        for n, i, j, c in sf.grid(out.shape):
            first = i32(x[n, top[i], left[j], c])
            upper = (first << 10) + (i32(x[n, top[i], right[j], c]) - first) * along[j]
            third = i32(x[n, bottom[i], left[j], c])
            lower = (third << 10) + (i32(x[n, bottom[i], right[j], c]) - third) * along[j]
            total = (upper << 10) + (lower - upper) * down[i]
            rounded = (sf.abs(total) + (1 << 19)) >> 20
            out[n, i, j, c] = to(rounded if total > 0 else -rounded, saturate=True)

    return {"float": bilinear_float, "tflite": bilinear_tflite}


BILINEAR = {u8: _to_8_bits(u8), i8: _to_8_bits(i8)}


def _resized(name: str, x: OperandType, size: object, mode: object) -> OperandType:
    rank(name, "x", x, "n, h, w, c")
    nonempty(name, "x", x)
    wanted = integers(name, "size", size, 2)
    if min(wanted) < 1:
        raise OperandError(
            f"{name}: size={size!r} has a size below 1; 1 or more is allowed. Correct the size."
        )
    if mode not in MODES:
        raise OperandError(
            f"{name}: mode={mode!r} is not known; {', '.join(MODES)} are. Use one of them."
        )
    return x.scalar[x.shape[0], wanted[0], wanted[1], x.shape[3]]


def _nearest_shape(
    x: OperandType,
    *,
    size: tuple[int, int],
    mode: str = "asymmetric",
    rounding: str = "floor",
    **_: Any,
) -> OperandType:
    movable("resize_nearest", "x", x)
    if rounding not in ROUNDINGS:
        raise OperandError(
            f"resize_nearest: rounding={rounding!r} is not known; {', '.join(ROUNDINGS)} are. Use "
            "one of them."
        )
    return _resized("resize_nearest", x, size, mode)


@op(_nearest_shape)
def resize_nearest(
    x: OperandType,
    *,
    size: tuple[int, int],
    mode: str = "asymmetric",
    rounding: str = "floor",
    target: Any = None,
) -> Layer:
    """out[n, i, j, c] = x[n, r(place(i)), r(place(j)), c], `size` being (height, width).

    place(i) is i * h / height for `mode="asymmetric"`, (i + 1/2) * h / height - 1/2 for
    "half_pixel" and i * (h - 1) / (height - 1) for "align_corners", exactly; r is `rounding`:
    "floor", "ceil", "round_prefer_floor" (halves down) or "round_prefer_ceil" (halves up), clamped
    into the input. f32, u8, i8, i32 or i64. Raises OperandError for other forms. Source: ONNX,
    Resize. TensorFlow Lite's half_pixel_centers is "half_pixel" with "round_prefer_ceil".
    """
    kind = _nearest_shape(x, size=size, mode=mode, rounding=rounding)
    tables = []
    for n, wanted in zip(x.shape[1:3], kind.shape[1:3], strict=True):
        places = (ROUNDINGS[rounding](MODES[mode](i, n, wanted)) for i in range(wanted))
        tables.append(_table(places, n))
    rows, columns = tables
    made = nearest.specialize(
        x=x.scalar[x.shape],
        rows=_index(rows, x.shape[1]),
        columns=_index(columns, x.shape[2]),
        out=kind,
        target=target,
    )
    return Layer({"x": x.shape}, kind, (Step(made, ("x", rows, columns)),))


def _table(places: Iterable[int], size: int) -> np.ndarray:
    return np.array([min(max(p, 0), size - 1) for p in places], np.int32)


def _index(table: np.ndarray, size: int) -> OperandType:
    return i32.range(0, size - 1)[table.size]


def _bilinear_shape(
    x: OperandType,
    *,
    size: tuple[int, int],
    mode: str = "half_pixel",
    rounding: str = "float",
    **_: Any,
) -> OperandType:
    typed("resize_bilinear", "x", x, (f32, *BILINEAR))
    if rounding not in ("float", "tflite"):
        raise OperandError(
            f"resize_bilinear: rounding={rounding!r} has no definition here; 'float' and 'tflite' "
            "do. Use one."
        )
    return _resized("resize_bilinear", x, size, mode)


Places = tuple[list[int], list[int], list[Fraction | int]]
"""The first and the second neighbour of each place, and the weight of the second."""


def _between(mode: str, size: int, wanted: int) -> Places:
    """Places in exact fractions; weights from 0 to 1."""
    last = Fraction(size - 1)
    places = [min(max(MODES[mode](i, size, wanted), Fraction()), last) for i in range(wanted)]
    first = [math.floor(p) for p in places]
    weights: list[Fraction | int] = [p - q for p, q in zip(places, first, strict=True)]
    return first, [q + 1 for q in first], weights


def _in_1024ths(mode: str, size: int, wanted: int) -> Places:
    """Places in whole 1/1024, as TensorFlow Lite rounds them; weights from 0 to 1024."""
    n, m = (size - 1, wanted - 1) if mode == "align_corners" and wanted > 1 else (size, wanted)
    scale = ((n << 10) + m // 2) // m
    shift = scale // 2 - 512 if mode == "half_pixel" else 0
    places = [min(max(i * scale + shift, 0), (size - 1) << 10) for i in range(wanted)]
    first = [p >> 10 for p in places]
    return first, [-(-p // 1024) for p in places], [p & 1023 for p in places]


@op(_bilinear_shape)
def resize_bilinear(
    x: OperandType,
    *,
    size: tuple[int, int],
    mode: str = "half_pixel",
    rounding: str = "float",
    target: Any = None,
) -> Layer:
    """out[n, i, j, c]: the four neighbours of (place(i), place(j)) in `x`, weighted by nearness;
    `size` is (height, width), places and `mode` are those of resize_nearest.

    A neighbour outside the input is the nearest element inside. f32; u8 and i8 keep their
    quantization and are rounded once: with `rounding="float"` weights have 11 fraction bits and
    halves go up (XNNPACK, s8-ibilinear), with "tflite" places and weights have 10 and halves go
    away from zero (TensorFlow Lite's reference kernel). Raises OperandError for other forms.
    """
    kind = _bilinear_shape(x, size=size, mode=mode, rounding=rounding)
    tables, weights = [], []
    whole = x.scalar != f32 and rounding == "tflite"
    for n, wanted in zip(x.shape[1:3], kind.shape[1:3], strict=True):
        first, second, near = (_in_1024ths if whole else _between)(mode, n, wanted)
        tables += [_table(first, n), _table(second, n)]
        if x.scalar == f32:
            weights.append(np.array([float(w) for w in near], np.float32))
        else:
            unit = 1 if whole else 1 << WEIGHT_BITS
            weights.append(np.array([round(w * unit) for w in near], np.int32))
    promised = f32 if x.scalar == f32 else i32.range(0, 1024 if whole else 1 << WEIGHT_BITS)
    rows, columns = (_index(tables[k], x.shape[k // 2 + 1]) for k in (0, 2))
    nest = bilinear_f32 if x.scalar == f32 else BILINEAR[x.scalar][rounding]
    made = nest.specialize(
        x=x.scalar[x.shape],
        top=rows,
        bottom=rows,
        left=columns,
        right=columns,
        down=promised[kind.shape[1]],
        along=promised[kind.shape[2]],
        out=kind,
        target=target,
    )
    return Layer({"x": x.shape}, kind, (Step(made, ("x", *tables, *weights)),))
