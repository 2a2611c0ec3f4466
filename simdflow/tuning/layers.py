"""Layers by name: the nest of a layer of `simdflow.ops`, for shapes and a word for the types.

Turns `conv2d`, `depthwise_conv2d`, `dense` or `matmul` with shapes, options and element types into
a kernel and what it is specialized with. Layers of bits, which ops has none of, are written here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import ops
from ..dsl import loops as sf
from ..dsl.errors import OperandError
from ..dsl.types import SCALARS, OperandType, Scalar, bit, f32, i32
from ..kernel import Kernel, kernel
from ..ops.convolution import FRACTION
from ..ops.matrix import NESTS
from ..ops.products import product_f32, product_i32, requantizing
from ..ops.window import window

Shapes = Mapping[str, tuple[int, ...]]
Given = tuple[Kernel, dict[str, Any]]
DEFAULT = "u8i8"


@kernel
def conv2d_bit(x, w, out, *, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1):
    """Sums of xnor-popcounts, x [n, h, w, ic] and w [oc, kh, kw, ic] packed along ic."""
    for n, oh, ow, oc in sf.grid(out.shape):
        acc = i32(0)
        for kh, kw, ic in sf.reduce(w.shape[1:]):
            row = oh * stride_h + kh * dilation_h
            column = ow * stride_w + kw * dilation_w
            acc += sf.xnor_popcount(x[n, row, column, ic], w[oc, kh, kw, ic])
        out[n, oh, ow, oc] = acc


@kernel
def dense_bit(x, w, out):
    """Sums of xnor-popcounts, x [m, k] and w [n, k] packed along k."""
    for m, n in sf.grid(out.shape):
        acc = i32(0)
        for k in sf.reduce(w.shape[1]):
            acc += sf.xnor_popcount(x[m, k], w[n, k])
        out[m, n] = acc


def scalars_of(dtype: str) -> tuple[Scalar, ...]:
    """`u8i8` -> (u8, i8). Raises OperandError for what is no row of element types."""
    names = "|".join(SCALARS)
    if not re.fullmatch(f"({names})+", dtype):
        raise OperandError(
            f"explore: dtype={dtype!r} is not a row of element types; {', '.join(SCALARS)} are. "
            "Write e.g. u8i8, i8i8, f32 or bit"
        )
    return tuple(SCALARS[name] for name in re.findall(names, dtype))


def layer(name: str, shapes: Shapes, dtype: str, options: Mapping[str, Any]) -> Given:
    """The kernel of a layer and the arguments of its `specialize`.

    shapes   of x and w (a and b of matmul), as `simdflow.ops` has them: x [n, h, w, c] without its
             border, w [kh, kw, c/groups, oc], depthwise [kh, kw, c*m], dense [k, n]
    dtype    element types in a row: u8i8, i8i8, u8u8 (matmul), f32, bit; a third one (u8i8u8) is a
             result that is requantized; else sums are stored as they are, i32 or f32
    options  stride, padding, dilation, groups of those layers that have them

    Raises OperandError for a layer, operands, sizes or options that do not go together.
    """
    if name not in LAYERS:
        raise OperandError(
            f"explore: kernel={name!r} is no layer; {', '.join(LAYERS)} are. Name one of them, or "
            "a kernel of a file: my_layers.py:my_kernel"
        )
    names, make, known = LAYERS[name]
    if set(shapes) != set(names):
        raise OperandError(
            f"{name}: operands={', '.join(shapes) or 'none'} are not those of the layer, "
            f"{' and '.join(names)}. Give both, e.g. --{names[0]} and --{names[1]}"
        )
    for option in options:
        if option not in known:
            raise OperandError(
                f"{name}: {option}={options[option]!r} is no option of it here; "
                f"{', '.join(known) or 'none'} are. Leave it out"
            )
    kinds = scalars_of(dtype)
    first, second = (kinds[0], kinds[0] if len(kinds) == 1 else kinds[1])
    if len(kinds) > 3 or (bit in kinds and (first, second, len(kinds) > 2) != (bit, bit, False)):
        raise OperandError(
            f"{name}: dtype={dtype!r} is not what the layer takes; u8i8, i8i8, f32 and bit are, "
            "and u8i8u8 for a requantized result. Use one of them"
        )
    a, b = first[shapes[names[0]]], second[shapes[names[1]]]
    return make(a, b, kinds[2] if len(kinds) == 3 else None, dict(options))


def _conv2d(x: OperandType, w: OperandType, to: Scalar | None, options: dict[str, Any]) -> Given:
    if x.scalar == bit:
        return _conv2d_bit(x, w, to, options)
    out = ops.conv2d.shape(x, w, **options)
    group = w.shape[3] // options.pop("groups", 1)
    return _windowed("conv2d", x, w, out, group, to, options)


def _depthwise(x: OperandType, w: OperandType, to: Scalar | None, options: dict[str, Any]) -> Given:
    out = ops.depthwise_conv2d.shape(x, w, **options)
    kh, kw, oc = w.shape
    group = oc // x.shape[3]
    return _windowed("depthwise_conv2d", x, w.scalar[kh, kw, 1, oc], out, group, to, options)


def _dense(x: OperandType, w: OperandType, to: Scalar | None, options: dict[str, Any]) -> Given:
    if x.scalar == bit:
        _sizes("dense", x, w, 1)
        (depth, columns) = w.shape
        return dense_bit, {"x": x, "w": replace(bit[columns, depth], storage="packed")}
    out = ops.dense.shape(x, w)
    flat, k, n = x.size // x.shape[-1], w.shape[0], w.shape[1]
    one = out.scalar[1, 1, flat, n]
    return _windowed("dense", x.scalar[1, 1, flat, k], w.scalar[1, 1, k, n], one, n, to, options)


def _matmul(a: OperandType, b: OperandType, to: Scalar | None, options: dict[str, Any]) -> Given:
    if to is not None:
        raise OperandError(
            f"matmul: dtype has a result of {to}; matmul stores its sums, i32 or f32. Leave it out"
        )
    if a.scalar == bit:
        _sizes("matmul", a, b, 1)
        return dense_bit, {"x": a, "w": bit[b.shape[1], b.shape[0]]}
    out = ops.matmul.shape(a, b)
    m, n, depth = *out.shape[-2:], a.shape[-1]
    first, second = a.size // (m * depth), b.size // (depth * n)
    return NESTS[out.scalar], {
        "a": a.scalar[first, m, depth],
        "b": b.scalar[second, depth, n],
        "out": out.scalar[max(first, second), m, n],
        "depth": depth,
        "stacked_a": int(first > 1),
        "stacked_b": int(second > 1),
    }


def _conv2d_bit(
    x: OperandType, w: OperandType, to: Scalar | None, options: dict[str, Any]
) -> Given:
    if "padding" in options or "groups" in options:
        raise OperandError(
            "conv2d: padding and groups are not there for bits, which have no zero; stride and "
            "dilation are. Give x with its border"
        )
    _sizes("conv2d", x, w, 3)
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    at = window("conv2d", x, w.shape[:2], stride, 0, dilation)
    kh, kw, ic, oc = w.shape
    packed = replace(bit[oc, kh, kw, ic], storage="packed")
    return conv2d_bit, {"x": x, "w": packed, **at.constants}


def _sizes(name: str, x: OperandType, w: OperandType, leading: int) -> None:
    """Raise OperandError unless x [..., c] and w [..., c, n] have as many axes and the same c."""
    ranks = len(x.shape) == len(w.shape) == leading + 1
    if not ranks or x.shape[-1] != w.shape[-2]:
        raise OperandError(
            f"{name}: x {list(x.shape)} and w {list(w.shape)} do not fit; {leading + 1} axes each "
            "and as many channels in x's last axis as in w's last but one are needed. Correct one"
        )


def _windowed(
    name: str,
    x: OperandType,
    w: OperandType,
    out: OperandType,
    group: int,
    to: Scalar | None,
    options: Mapping[str, Any],
) -> Given:
    """The product nest, its input with its border, its weights packed once."""
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    at = window(name, x, w.shape[:2], stride, options.get("padding", 0), dilation)
    (top, bottom), (left, right) = at.pads
    n, height, width, c = x.shape
    oc = out.shape[-1]
    given = {
        "x": x.scalar[n, height + top + bottom, width + left + right, c],
        "w": replace(w, storage="packed"),
        "group": group,
        **at.constants,
    }
    if to is None:
        nest, start = (product_f32, f32) if out.scalar == f32 else (product_i32, i32)
        return nest, {**given, "start": start[oc], "out": out}
    rules = [s for s in (SCALARS["u8"], SCALARS["i8"]) if s == to and out.scalar != f32]
    if not rules:
        raise OperandError(
            f"{name}: dtype has a result of {to} for {x.scalar} x {w.scalar}; u8 and i8 are "
            "requantized results of 8-bit products. Leave it out"
        )
    scale = f32.range(0.0, FRACTION)[oc]
    nest = requantizing(to)["float"]
    return nest, {**given, "start": i32[oc], "scale": scale, "out": to[out.shape]}


_WINDOW = ("stride", "padding", "dilation")
Make = Callable[[OperandType, OperandType, Scalar | None, dict[str, Any]], Given]
# Name -> (operands, how its nest is made, options).
LAYERS: dict[str, tuple[Sequence[str], Make, Sequence[str]]] = {
    "conv2d": (("x", "w"), _conv2d, (*_WINDOW, "groups")),
    "depthwise_conv2d": (("x", "w"), _depthwise, _WINDOW),
    "dense": (("x", "w"), _dense, ()),
    "matmul": (("a", "b"), _matmul, ()),
}
