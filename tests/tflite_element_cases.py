"""Models of one operator on elements, rows, axes or types.

For tests only; see `tflite_cases`.
"""

from __future__ import annotations

import numpy as np
from tflite_case import A, B, Cases, F, In, Out, X, constant, in8, ints, out8

CASES = Cases()

for kind, least, most in (
    ("ABS", -3, 3),
    ("NEG", -3, 3),
    ("EXP", -3, 3),
    ("LOG", 0.1, 4),
    ("SQRT", 0, 4),
    ("RSQRT", 0.1, 4),
    ("SQUARE", -3, 3),
    ("FLOOR", -3, 3),
    ("CEIL", -3, 3),
    ("ROUND", -3, 3),
    ("ELU", -3, 3),
    ("RELU", -3, 3),
    ("RELU6", -8, 8),
    ("RELU_N1_TO_1", -3, 3),
    ("RELU_0_TO_1", -3, 3),
    ("TANH", -3, 3),
    ("LOGISTIC", -5, 5),
    ("HARD_SWISH", -5, 5),
):
    table = {"ABS": "AbsOptions", "NEG": "NegOptions", "EXP": "ExpOptions"}.get(kind, "")
    table = {"SQUARE": "SquareOptions", "HARD_SWISH": "HardSwishOptions"}.get(kind, table)
    CASES.add(kind, [In(X, low=least, high=most)], [Out(X)], table)
for kind in ("RELU", "RELU6"):
    CASES.add(f"{kind}:int8", [in8(X)], [out8(X)], version=2)
CASES.add("ELU:int8", [in8(X)], [out8(X)])
CASES.add("LOGISTIC:int8", [in8(X)], [out8(X, (1 / 256, -128))], version=2)
CASES.add("TANH:int8", [in8(X)], [out8(X, (1 / 128, 0))], version=2)
CASES.add("LEAKY_RELU", [F], [Out(X)], "LeakyReluOptions", Alpha=0.3)
CASES.add("LEAKY_RELU:int8", [in8(X)], [out8(X)], "LeakyReluOptions", 2, Alpha=0.3)
CASES.add("GELU", [F], [Out(X)], "GeluOptions", Approximate=False)
CASES.add("GELU:approximate", [F], [Out(X)], "GeluOptions", Approximate=True)
CASES.add("PRELU", [F, constant([[[0.1, 0.2, -0.3]]])], [Out(X)])
CASES.add("PRELU:spatial", [F, constant(np.linspace(-1, 1, 60).reshape(5, 4, 3))], [Out(X)])
CASES.add("POW", [In(X, low=0.1), constant(1.7)], [Out(X)], "PowOptions")
CASES.add("SOFTMAX", [In((3, 7))], [Out((3, 7))], "SoftmaxOptions", Beta=1.5)
CASES.add(
    "SOFTMAX:int8", [in8((3, 7))], [out8((3, 7), (1 / 256, -128))], "SoftmaxOptions", 2, Beta=1.0
)
CASES.add("L2_NORMALIZATION", [In((3, 7))], [Out((3, 7))], "L2NormOptions")

for kind, table in (
    ("ADD", "AddOptions"),
    ("SUB", "SubOptions"),
    ("MUL", "MulOptions"),
    ("DIV", "DivOptions"),
    ("MAXIMUM", "MaximumMinimumOptions"),
    ("MINIMUM", "MaximumMinimumOptions"),
    ("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
):
    other = In((4, 3), low=0.5)
    CASES.add(kind, [F, other], [Out(X)], table)
    CASES.add(f"{kind}:scalar", [F, constant(1.25)], [Out(X)], table)
    if table[:3].upper() == kind:
        CASES.add(f"{kind}:relu6", [F, In(X, low=0.5)], [Out(X)], table, FusedActivationFunction=3)
for kind, table in (("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions")):
    out = (0.3, -5) if kind == "MUL" else (0.12, -5)
    fields = {"FusedActivationFunction": 1}
    CASES.add(f"{kind}:int8", [in8(X), in8(X, B)], [out8(X, out)], table, 2)
    CASES.add(
        f"{kind}:int8 relu", [in8(X), in8((1, 1, 1, 3), B)], [out8(X, out)], table, 2, **fields
    )
CASES.add("MAXIMUM:int8", [in8(X), in8(X)], [out8(X, A)], "MaximumMinimumOptions", 2)
CASES.add("ADD_N", [F, F, F], [Out(X)], "AddNOptions")
for kind in ("LESS", "GREATER"):
    table = f"{kind.capitalize()}Options"
    CASES.add(kind, [In(X, low=-2, high=2), constant(0.5)], [Out(X, "bool")], table)
CASES.add("EQUAL", [in8((9, 200)), in8((9, 200))], [Out((9, 200), "bool")], "EqualOptions", 2)
CASES.add("SELECT", [In(X, "bool"), F, F], [Out(X)], "SelectOptions")
CASES.add("SELECT_V2", [In((4, 3), "bool"), F, constant(2.0)], [Out(X)], "SelectV2Options")

REDUCER = "ReducerOptions"
for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
    CASES.add(kind, [F, ints(1, 2)], [Out((2, 3))], REDUCER)
    CASES.add(f"{kind}:last", [F, ints(-1)], [Out((2, 5, 4, 1))], REDUCER, KeepDims=True)
CASES.add("MEAN:keep", [F, ints(1, 2)], [Out((2, 1, 1, 3))], REDUCER, KeepDims=True)
CASES.add(
    "MEAN:int8", [in8(X), ints(1, 2)], [out8((2, 1, 1, 3), (0.03, 7))], REDUCER, 2, KeepDims=True
)

CASES.add("QUANTIZE", [F], [out8(X)], "QuantizeOptions")
CASES.add("QUANTIZE:int8", [in8(X)], [out8(X)], "QuantizeOptions", 2)
CASES.add(
    "QUANTIZE:uint8 to int8",
    [In(X, "uint8", (0.05, 131))],
    [out8(X, A)],
    "QuantizeOptions",
    2,
)
CASES.add("DEQUANTIZE", [in8(X)], [Out(X)], "DequantizeOptions", 2)
CASES.add("CAST", [In(X, "int32", low=-99, high=99)], [Out(X)], "CastOptions", InDataType=2)
CASES.add("CAST:bool", [In(X, "bool")], [Out(X)], "CastOptions", InDataType=6)
