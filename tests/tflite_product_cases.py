"""Models of one operator with weights, or windows.

For tests only; see `tflite_cases`.
"""

from __future__ import annotations

import numpy as np
from tflite_case import A, Cases, F, In, Out, X, constant, in8, ints, out8

CASES = Cases()

CASES.add("BATCH_MATMUL", [In((2, 3, 4)), In((2, 4, 5))], [Out((2, 3, 5))], "BatchMatMulOptions")
CASES.add(
    "BATCH_MATMUL:adjoint",
    [In((2, 4, 3)), constant(np.linspace(-1, 1, 20).reshape(5, 4))],
    [Out((2, 3, 5))],
    "BatchMatMulOptions",
    AdjX=True,
    AdjY=True,
)
WINDOW = {"Padding": 0, "StrideH": 2, "StrideW": 1}
for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
    CASES.add(
        kind,
        [F],
        [Out((2, 3, 4, 3))],
        "Pool2DOptions",
        FilterHeight=3,
        FilterWidth=2,
        **WINDOW,
    )
    CASES.add(
        f"{kind}:int8",
        [in8(X)],
        [out8((2, 3, 4, 3), A)],
        "Pool2DOptions",
        2,
        FilterHeight=2,
        FilterWidth=3,
        FusedActivationFunction=1,
        **WINDOW,
    )

W = np.random.default_rng(1).uniform(-1, 1, (6, 3, 3, 3)).astype(np.float32)
CASES.add(
    "CONV_2D",
    [F, constant(W), constant(W[:, 0, 0, 0])],
    [Out((2, 3, 4, 6))],
    "Conv2DOptions",
    FusedActivationFunction=1,
    DilationHFactor=1,
    DilationWFactor=1,
    **WINDOW,
)
CASES.add(
    "CONV_2D:grouped",
    [In((2, 5, 4, 6)), constant(W), constant(W[:, 0, 0, 0])],
    [Out((2, 3, 4, 6))],
    "Conv2DOptions",
    6,
    DilationHFactor=1,
    DilationWFactor=1,
    **WINDOW,
)
CASES.add(
    "CONV_2D:hybrid",
    [F, constant(np.rint(W * 127), "int8", (1 / 127, 0)), constant(W[:, 0, 0, 0])],
    [Out((2, 3, 4, 6))],
    "Conv2DOptions",
    2,
    DilationHFactor=1,
    DilationWFactor=1,
    **WINDOW,
)
CASES.add(
    "DEPTHWISE_CONV_2D",
    [F, constant(W.transpose(1, 2, 3, 0).reshape(1, 9, 3, 6)[:, :4]), constant(W[:, 0, 0, 0])],
    [Out((2, 3, 4, 6))],
    "DepthwiseConv2DOptions",
    DepthMultiplier=2,
    **WINDOW,
)
CASES.add(
    "FULLY_CONNECTED",
    [F, constant(W.reshape(18, 9)[:5, :6])],
    [Out((20, 5))],
    "FullyConnectedOptions",
)
CASES.add(
    "FULLY_CONNECTED:keep",
    [F, constant(W.reshape(54, 3)[:5]), constant(W[:5, 0, 0, 0])],
    [Out((2, 5, 4, 5))],
    "FullyConnectedOptions",
    5,
    KeepNumDims=True,
)
CASES.add(
    "FULLY_CONNECTED:computed",
    [In((4, 3)), In((5, 3))],
    [Out((4, 5))],
    "FullyConnectedOptions",
    FusedActivationFunction=1,
)

Q = np.rint(W * 127)
SCALES = tuple(float(s) for s in np.linspace(0.001, 0.006, 6))
BIAS = constant(np.arange(6) * 900 - 2000, "int32")
ONES = {"DilationHFactor": 1, "DilationWFactor": 1}
CASES.add(
    "CONV_2D:int8",
    [in8(X), constant(Q, "int8", (SCALES, 0)), BIAS],
    [out8((2, 3, 4, 6))],
    "Conv2DOptions",
    3,
    FusedActivationFunction=1,
    **ONES,
    **WINDOW,
)
CASES.add(
    "CONV_2D:int8 dilated",
    [in8(X), constant(Q, "int8", (0.004, 0)), BIAS],
    [out8((2, 5, 4, 6))],
    "Conv2DOptions",
    3,
    Padding=0,
    StrideH=1,
    StrideW=1,
    DilationHFactor=2,
    DilationWFactor=2,
)
CASES.add(
    "CONV_2D:uint8",
    [In(X, "uint8", (0.05, 130)), constant(Q + 127, "uint8", (0.004, 127)), BIAS],
    [Out((2, 3, 4, 6), "uint8", (0.09, 120))],
    "Conv2DOptions",
    1,
    **ONES,
    **WINDOW,
)
CASES.add(
    "CONV_2D:hybrid channels",
    [F, constant(Q, "int8", (SCALES, 0)), constant(W[:, 0, 0, 0])],
    [Out((2, 3, 4, 6))],
    "Conv2DOptions",
    5,
    **ONES,
    **WINDOW,
)
D = Q.transpose(1, 2, 3, 0).reshape(1, 9, 3, 6)[:, :4]
CASES.add(
    "DEPTHWISE_CONV_2D:int8",
    [in8(X), constant(D, "int8", (SCALES, 0, 3)), BIAS],
    [out8((2, 3, 4, 6))],
    "DepthwiseConv2DOptions",
    3,
    DepthMultiplier=2,
    FusedActivationFunction=3,
    **WINDOW,
)
CASES.add(
    "FULLY_CONNECTED:int8",
    [in8((4, 9)), constant(Q.reshape(18, 9)[:6], "int8", (0.004, 0)), BIAS],
    [out8((4, 6))],
    "FullyConnectedOptions",
    4,
)
CASES.add(
    "FULLY_CONNECTED:hybrid",
    [In((4, 9)), constant(Q.reshape(18, 9)[:6], "int8", (0.004, 0))],
    [Out((4, 6))],
    "FullyConnectedOptions",
    3,
)
for name, padding, size, stride in (
    ("same", 0, (10, 8), 2),
    ("valid", 1, (11, 9), 2),
    ("one", 0, (5, 4), 1),
):
    shape = (2, *size, 6)
    given = [ints(*shape), constant(W), F]
    CASES.add(
        f"TRANSPOSE_CONV:{name}",
        given,
        [Out(shape)],
        "TransposeConvOptions",
        1,
        Padding=padding,
        StrideH=stride,
        StrideW=stride,
    )
    given = [ints(*shape), constant(Q, "int8", (SCALES, 0)), in8(X), BIAS]
    CASES.add(
        f"TRANSPOSE_CONV:int8 {name}",
        given,
        [out8(shape)],
        "TransposeConvOptions",
        3,
        Padding=padding,
        StrideH=stride,
        StrideW=stride,
    )
CASES.add(
    "TRANSPOSE_CONV:small window",
    [ints(2, 15, 8, 6), constant(W[:, :2, :1]), F],
    [Out((2, 15, 8, 6))],
    "TransposeConvOptions",
    1,
    Padding=0,
    StrideH=3,
    StrideW=2,
)
