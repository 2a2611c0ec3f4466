"""conv2d, depthwise_conv2d and dense: shape rules, and the product nest each of them is.

Turns operand types, packed weights and options into one kernel, after one that makes the border
where there is padding. The nests are in `products`, the borders in `border`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..dsl.errors import OperandError
from ..dsl.types import OperandType, Scalar, f32
from ..operands import PackedOperand
from . import winograd
from .border import source
from .layer import Layer, Step
from .numbers import Numbers, result_type
from .op import described, op
from .products import finishing, starts
from .quantization import Quantization, checked_activation
from .window import Padding, Pair, Window, is_size, nonempty, rank, window, without_border

# The largest promise about a requantization factor; an i32 times it, rounded to f32, fits i32.
FRACTION = 0.99
ALGORITHMS = ("direct", "winograd", "auto")


def _product(
    name: str,
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None,
    out: OperandType,
    constants: Mapping[str, int],
    n: Numbers,
) -> Step:
    """The step that reads `x` [n, h, w, c] and packed `w` [kh, kw, c/groups, oc] and writes
    `out`.
    """
    channels = w.shape[-1]
    rounding = "double" if (name, n.rounding) == ("dense", "tflite") else n.rounding
    activation = checked_activation(name, n.activation)
    finish = finishing(channels, out.scalar, rounding, activation, n.all)
    assert w.array is not None
    added = None if bias is None else bias.array
    if out.scalar == f32:
        start = np.zeros(channels, np.float32) if added is None else added
    else:
        start = starts(name, w.array, added, n.x_q.zero_point if n.x_q else 0, x.scalar)
    made = finish.nest.specialize(
        **dict(zip(finish.inputs, map(promised, (start, *finish.arrays)), strict=True)),
        **constants,
        **finish.constants,
        x=x,
        w=w.type,
        out=out,
        target=n.target,
        dataflow=n.dataflow,
    )
    return Step(made, ("x", w, start, *finish.arrays))


def promised(a: np.ndarray) -> OperandType:
    """The type of a constant array; of scales that are all below 1, with that promise."""
    kind = described(a)
    below_one = kind.scalar == f32 and a.size and a.min() >= 0 and a.max() < FRACTION
    return replace(kind, low=0.0, high=FRACTION) if below_one else kind


# An operand and its view share one packed form for every batch size and option.
_VIEWS: WeakKeyDictionary[PackedOperand, PackedOperand] = WeakKeyDictionary()


def _reshaped(w: PackedOperand, shape: tuple[int, ...]) -> PackedOperand:
    """The packed operand with axes of length 1 added, on the same memory; the same one each
    time.
    """
    found = _VIEWS.get(w)
    if found is None or found.shape != shape:
        assert w.array is not None
        found = PackedOperand(replace(w.type, shape=shape), w.array.reshape(shape), None)
        _VIEWS[w] = found
    return found


def _kind(bias: PackedOperand | None) -> OperandType | None:
    return None if bias is None else bias.type


def _conv2d_shape(
    x: OperandType,
    w: OperandType,
    bias: OperandType | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    bordered: bool = False,
    groups: int = 1,
    algorithm: str = "direct",
    **numbers: Any,
) -> OperandType:
    rank("conv2d", "x", x, "n, h, w, c")
    rank("conv2d", "w", w, "kh, kw, c/groups, oc")
    nonempty("conv2d", "x", x)
    nonempty("conv2d", "w", w)
    c, oc = x.shape[3], w.shape[3]
    if not is_size(groups, 1) or oc % groups:
        raise OperandError(
            f"conv2d: groups={groups!r} does not divide the {oc} output channels of w; a divisor "
            "of them is allowed. Correct groups or w."
        )
    if w.shape[2] * groups != c:
        raise OperandError(
            f"conv2d: x has {c} channels, w reads {w.shape[2]} in each of {groups} groups; "
            f"w.shape[2] = {c} / groups is needed. Correct w [kh, kw, c/groups, oc] or groups."
        )
    if algorithm not in ALGORITHMS:
        raise OperandError(
            f"conv2d: algorithm={algorithm!r} is not known; "
            f"{', '.join(map(repr, ALGORITHMS))} are. Use one of them."
        )
    to = result_type("conv2d", x, w, bias, oc, Numbers(**numbers))
    inner = without_border("conv2d", x, padding) if bordered else x
    at = window("conv2d", inner, w.shape[:2], stride, padding, dilation)
    return to[x.shape[0], *at.out, oc]


@op(_conv2d_shape)
def conv2d(
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    bordered: bool = False,
    groups: int = 1,
    algorithm: str = "direct",
    activation: str | None = None,
    x_q: Quantization | None = None,
    w_q: Quantization | None = None,
    y_q: Quantization | None = None,
    y_type: Scalar | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[n,oh,ow,oc] = bias[oc] + sum over kh,kw,ic of
    x[n, oh*stride + kh*dilation, ow*stride + kw*dilation, g*c/groups + ic] * w[kh,kw,ic,oc],
    g = oc // (oc_total / groups), then the activation.

    x           [n, h, w, c] f32, u8 or i8; w [kh, kw, c/groups, oc] f32 or i8; bias [oc] f32 or i32
    padding     a number, (vertical, horizontal), ((top, bottom), (left, right)), "same" or "valid";
                the border holds 0, or the zero point of x
    bordered    `x` has that border already, and keeps it: see `ops.bordered`. `padding` is in
                numbers, and rows of zeros are not multiplied
    activation  None, "relu", "relu6" or "relu_n1_to_1"
    x_q w_q y_q Quantization of x (per tensor), w (symmetric, per tensor or channel) and the result:
                given together the result is 8 bits (`y_type`, by default the type of x); without
                them the result of integers is i32
    rounding    "float" (XNNPACK, the default), "tflite" (TensorFlow Lite's reference kernels) or
                "onnx" (DequantizeLinear, QuantizeLinear); see `ops.reference.rounding`
    algorithm   "direct": the sums above. "winograd": 3x3 of f32 from 16 products for four outputs,
                not 36 (see `winograd`): its rounding errors are larger, an infinite sum may be
                NaN, and `dataflow` is that of its products. "auto": what the cost model finds
                faster

    Raises OperandError for ranks, types, sizes and options that do not go together, and for integer
    sums that can leave i32.
    """
    numbers = Numbers(activation, x_q, w_q, y_q, y_type, rounding, target, dataflow)
    window_: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "bordered": bordered,
    }
    kind = _conv2d_shape(
        x, w.type, _kind(bias), groups=groups, algorithm=algorithm, **window_, **vars(numbers)
    )
    inner = without_border("conv2d", x, padding) if bordered else x
    at = window("conv2d", inner, w.shape[:2], stride, padding, dilation)
    tiles = winograd.possible(x, w.type, at, groups, bordered)
    if algorithm == "winograd" and not tiles:
        raise OperandError(
            f"conv2d: algorithm='winograd' with x={x.scalar}, kernel={at.kernel}, "
            f"stride={at.stride}, dilation={at.dilation}, groups={groups}, bordered={bordered}, "
            f"out={at.out}; f32, 3x3, strides and dilations of 1 and one group are allowed, and "
            "even outputs with bordered=True. Use 'auto'."
        )

    def layer(images: int, tiled: bool) -> Layer:
        read, out = (replace(t, shape=(images, *t.shape[1:])) for t in (x, kind))
        if tiled:
            return winograd.tiled(read, w, bias, out, at, numbers, bordered)
        group = w.shape[3] // groups
        return _windowed("conv2d", read, w, bias, out, group, at, bordered, numbers)

    if algorithm == "auto" and tiles and dataflow is None:
        # By one image: the bits of an image are the same in every batch. No direct sum is quicker
        # than its products, so that most are not weighed.
        cycles, products = layer(1, True).cycles, winograd.products(w.type, at, target)
        tiles = cycles < products or cycles < layer(1, False).cycles
    else:
        tiles = algorithm == "winograd"
    return layer(x.shape[0], tiles)


def _windowed(
    name: str,
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None,
    kind: OperandType,
    group: int,
    at: Window,
    given: bool,
    n: Numbers,
) -> Layer:
    """The layer of a product over windows: the border, if it is not `given`, then the product."""
    zero = n.x_q.zero_point if n.x_q else 0
    border = source(name, "x", x, at.pads, zero, n.target, given)
    step = _product(name, border.kind, w, bias, kind, {**at.constants, "group": group}, n)
    last = replace(step, operands=(border.name, *step.operands[1:]))
    return Layer({"x": border.shape}, kind, (*border.steps, last), border.buffers)


def _depthwise_shape(
    x: OperandType,
    w: OperandType,
    bias: OperandType | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    bordered: bool = False,
    **numbers: Any,
) -> OperandType:
    name = "depthwise_conv2d"
    rank(name, "x", x, "n, h, w, c")
    rank(name, "w", w, "kh, kw, c*m")
    nonempty(name, "x", x)
    nonempty(name, "w", w)
    c, oc = x.shape[3], w.shape[2]
    if oc % c:
        raise OperandError(
            f"{name}: w has {oc} channels for {c} of x; a multiple of {c} is allowed. Correct w "
            "[kh, kw, c*m]."
        )
    to = result_type(name, x, w, bias, oc, Numbers(**numbers))
    inner = without_border(name, x, padding) if bordered else x
    at = window(name, inner, w.shape[:2], stride, padding, dilation)
    return to[x.shape[0], *at.out, oc]


@op(_depthwise_shape)
def depthwise_conv2d(
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None = None,
    *,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    bordered: bool = False,
    activation: str | None = None,
    x_q: Quantization | None = None,
    w_q: Quantization | None = None,
    y_q: Quantization | None = None,
    y_type: Scalar | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[n,oh,ow,oc] = bias[oc] + sum over kh,kw of
    x[n, oh*stride + kh*dilation, ow*stride + kw*dilation, oc // m] * w[kh,kw,oc], then the
    activation.

    x [n, h, w, c], w [kh, kw, c*m] with the channel multiplier m >= 1, bias [c*m]. Types, options
    and errors are those of `conv2d`.
    """
    numbers = Numbers(activation, x_q, w_q, y_q, y_type, rounding, target, dataflow)
    window_: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "bordered": bordered,
    }
    kind = _depthwise_shape(x, w.type, _kind(bias), **window_, **vars(numbers))
    kh, kw, oc = w.shape
    one = _reshaped(w, (kh, kw, 1, oc))
    multiplier = oc // x.shape[3]
    inner = without_border("depthwise_conv2d", x, padding) if bordered else x
    at = window("depthwise_conv2d", inner, (kh, kw), stride, padding, dilation)
    return _windowed("depthwise_conv2d", x, one, bias, kind, multiplier, at, bordered, numbers)


def _dense_shape(
    x: OperandType, w: OperandType, bias: OperandType | None = None, **numbers: Any
) -> OperandType:
    rank("dense", "w", w, "k, n")
    nonempty("dense", "x", x)
    nonempty("dense", "w", w)
    if not x.shape or x.shape[-1] != w.shape[0]:
        raise OperandError(
            f"dense: x.shape={list(x.shape)} does not end in the {w.shape[0]} rows of w "
            f"{list(w.shape)}; x [..., k] and w [k, n] are needed. Transpose or reshape one."
        )
    to = result_type("dense", x, w, bias, w.shape[1], Numbers(**numbers))
    return to[*x.shape[:-1], w.shape[1]]


@op(_dense_shape)
def dense(
    x: OperandType,
    w: PackedOperand,
    bias: PackedOperand | None = None,
    *,
    activation: str | None = None,
    x_q: Quantization | None = None,
    w_q: Quantization | None = None,
    y_q: Quantization | None = None,
    y_type: Scalar | None = None,
    rounding: str = "float",
    target: Any = None,
    dataflow: Any = None,
) -> Layer:
    """out[..., n] = bias[n] + sum over k of x[..., k] * w[k, n], then the activation.

    Types, options and errors are those of `conv2d`, of which it is the 1x1 case; with "tflite" the
    rounding is `requantize_double`, that of TensorFlow Lite's FULLY_CONNECTED.
    """
    numbers = Numbers(activation, x_q, w_q, y_q, y_type, rounding, target, dataflow)
    kind = _dense_shape(x, w.type, _kind(bias), **vars(numbers))
    k, n = w.shape
    rows = x.size // k
    one = _reshaped(w, (1, 1, k, n))
    seen = replace(x, shape=(1, 1, rows, k))
    out = kind.scalar[1, 1, rows, n]
    step = _product("dense", seen, one, bias, out, {"group": n}, numbers)
    return Layer({"x": seen.shape}, kind, (replace(step, view=out.shape),))
