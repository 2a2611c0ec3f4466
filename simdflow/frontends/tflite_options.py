"""Turns the option table of one .tflite operator into sorted (name, value) pairs with readable
values.

It knows which options of which operators matter and what values they may have; operators it does
not know have none.
"""

import math
from collections.abc import Callable
from typing import Any

from ..dsl.errors import ModelError
from .tflite_bytes import FileBytes

Option = int | float | bool | str | tuple[int, ...]

_PADDINGS = ("same", "valid")
_ACTIVATIONS = ("none", "relu", "relu_n1_to_1", "relu6", "tanh", "sign_bit")
_WEIGHT_FORMATS = ("default", "shuffled")

# For each kind: the schema class of its options, and option name -> (method of that class, how to
# read it, value when the options are absent). A tuple decodes an enumeration, `range` is an int of
# at least 1, `tuple` a vector of ints, another type is itself.
_Field = tuple[str, Any, Option]
_ACTIVATION: dict[str, _Field] = {"activation": ("FusedActivationFunction", _ACTIVATIONS, "none")}
_WINDOW: dict[str, _Field] = {
    "padding": ("Padding", _PADDINGS, "same"),
    "stride_h": ("StrideH", range, 0),
    "stride_w": ("StrideW", range, 0),
    **_ACTIVATION,
}
_DILATION: dict[str, _Field] = {
    "dilation_h": ("DilationHFactor", range, 1),
    "dilation_w": ("DilationWFactor", range, 1),
}
_POOL: dict[str, _Field] = {
    **_WINDOW,
    "kernel_h": ("FilterHeight", range, 0),
    "kernel_w": ("FilterWidth", range, 0),
}
_RESIZE: dict[str, _Field] = {
    "align_corners": ("AlignCorners", bool, False),
    "half_pixel_centers": ("HalfPixelCenters", bool, False),
}
_REDUCER: dict[str, _Field] = {"keep_dims": ("KeepDims", bool, False)}
_AXIS: dict[str, _Field] = {"axis": ("Axis", int, 0)}
_OPTIONS: dict[str, tuple[str, dict[str, _Field]]] = {
    "CONV_2D": ("Conv2DOptions", {**_WINDOW, **_DILATION}),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        {**_WINDOW, **_DILATION, "multiplier": ("DepthMultiplier", int, 0)},
    ),
    "TRANSPOSE_CONV": ("TransposeConvOptions", _WINDOW),
    "AVERAGE_POOL_2D": ("Pool2DOptions", _POOL),
    "MAX_POOL_2D": ("Pool2DOptions", _POOL),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        {
            **_ACTIVATION,
            "keep_dims": ("KeepNumDims", bool, False),
            "weights_format": ("WeightsFormat", _WEIGHT_FORMATS, "default"),
        },
    ),
    "ADD": ("AddOptions", _ACTIVATION),
    "SUB": ("SubOptions", _ACTIVATION),
    "MUL": ("MulOptions", _ACTIVATION),
    "SOFTMAX": ("SoftmaxOptions", {"beta": ("Beta", float, 0.0)}),
    "LEAKY_RELU": ("LeakyReluOptions", {"slope": ("Alpha", float, 0.0)}),
    "GELU": ("GeluOptions", {"approximate": ("Approximate", bool, False)}),
    "DIV": ("DivOptions", _ACTIVATION),
    "L2_NORMALIZATION": ("L2NormOptions", _ACTIVATION),
    "MEAN": ("ReducerOptions", _REDUCER),
    "SUM": ("ReducerOptions", _REDUCER),
    "REDUCE_MAX": ("ReducerOptions", _REDUCER),
    "REDUCE_MIN": ("ReducerOptions", _REDUCER),
    "REDUCE_PROD": ("ReducerOptions", _REDUCER),
    "CONCATENATION": ("ConcatenationOptions", {**_AXIS, **_ACTIVATION}),
    "GATHER": ("GatherOptions", {**_AXIS, "batch_dims": ("BatchDims", int, 0)}),
    "PACK": ("PackOptions", _AXIS),
    "UNPACK": ("UnpackOptions", _AXIS),
    "RESHAPE": ("ReshapeOptions", {"shape": ("NewShape", tuple, ())}),
    "SQUEEZE": ("SqueezeOptions", {"axes": ("SqueezeDims", tuple, ())}),
    "MIRROR_PAD": ("MirrorPadOptions", {"mode": ("Mode", ("reflect", "symmetric"), "reflect")}),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        {
            "begin_mask": ("BeginMask", int, 0),
            "end_mask": ("EndMask", int, 0),
            "ellipsis_mask": ("EllipsisMask", int, 0),
            "new_axis_mask": ("NewAxisMask", int, 0),
            "shrink_axis_mask": ("ShrinkAxisMask", int, 0),
            "offset": ("Offset", bool, False),
        },
    ),
    "BATCH_MATMUL": (
        "BatchMatMulOptions",
        {"transpose_a": ("AdjX", bool, False), "transpose_b": ("AdjY", bool, False)},
    ),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", _RESIZE),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", _RESIZE),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", {"block": ("BlockSize", range, 0)}),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", {"block": ("BlockSize", range, 0)}),
}


def read_options(
    file: FileBytes, entry: Any, kind: str, field: str
) -> tuple[tuple[str, Option], ...]:
    """The options of the operator `entry` of the given kind, sorted by name; ModelError if one is
    impossible.

    `entry` is the schema's Operator, `field` stands in error messages.
    """
    if kind not in _OPTIONS:
        return ()
    class_name, fields = _OPTIONS[kind]
    union, table = entry.BuiltinOptionsType(), entry.BuiltinOptions()
    expected = getattr(file.schema.BuiltinOptions, class_name)
    if union not in (0, expected):
        raise file.refuse(
            f"{field}.options_type", union, f"does not belong to {kind}; {expected} does"
        )
    reader = None
    if union == expected and table is not None:
        reader = getattr(file.schema, class_name)()
        reader.Init(table.Bytes, table.Pos)
    found: list[tuple[str, Option]] = []
    for name, (method, form, absent) in sorted(fields.items()):
        if form is tuple:
            values = () if reader is None else file.integers(reader, method, 4, f"{field}.{name}")
            found.append((name, values))
            continue
        value = absent if reader is None else getattr(reader, method)()
        found.append((name, _decode(value, form, f"{file.name}: {field}.{name}")))
    return tuple(found)


def _decode(value: Any, form: Any, field: str) -> Option:
    if isinstance(form, tuple):
        if isinstance(value, str):
            return value
        if not 0 <= value < len(form):
            names = ", ".join(form)
            raise ModelError(
                f"{field}={value} is not known; 0 to {len(form) - 1} are ({names}). "
                "Fetch the file again"
            )
        return str(form[value])
    if form is range and value < 1:
        raise ModelError(f"{field}={value} is not possible; 1 or more is. Fetch the file again")
    if form is float and not math.isfinite(value):
        raise ModelError(f"{field}={value} is not finite; a number is needed. Fetch the file again")
    convert: Callable[[Any], Option] = int if form is range else form
    return convert(value)
