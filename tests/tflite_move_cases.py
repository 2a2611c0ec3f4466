"""Models of one operator that moves values.

For tests only; see `tflite_cases`.
"""

from __future__ import annotations

import numpy as np
from tflite_case import A, Cases, F, In, Out, X, constant, in8, ints, out8

CASES = Cases()

CASES.add("RESHAPE", [F, ints(2, -1)], [Out((2, 60))], "ReshapeOptions", NewShape=(2, 60))
CASES.add("SQUEEZE", [In((1, 5, 1, 3))], [Out((5, 3))], "SqueezeOptions", SqueezeDims=(0, 2))
CASES.add("EXPAND_DIMS", [In((5, 3)), ints(1)], [Out((5, 1, 3))], "ExpandDimsOptions")
CASES.add("TRANSPOSE", [F, ints(0, 3, 1, 2)], [Out((2, 3, 5, 4))], "TransposeOptions")
CASES.add(
    "TRANSPOSE:int8", [in8(X), ints(2, 0, 3, 1)], [out8((4, 2, 3, 5), A)], "TransposeOptions", 2
)
CASES.add(
    "CONCATENATION", [F, In((2, 5, 1, 3)), F], [Out((2, 5, 9, 3))], "ConcatenationOptions", Axis=2
)
CASES.add(
    "CONCATENATION:int8",
    [in8(X), in8(X)],
    [out8((2, 5, 4, 6), A)],
    "ConcatenationOptions",
    2,
    Axis=-1,
)
CASES.add(
    "CONCATENATION:uint8 scales",
    [In(X, "uint8", (0.05, 130)), In(X, "uint8", (0.02, 100))],
    [Out((2, 5, 4, 6), "uint8", (0.06, 120))],
    "ConcatenationOptions",
    Axis=3,
)
CASES.add("PACK", [In((4, 3)), In((4, 3))], [Out((4, 2, 3))], "PackOptions", ValuesCount=2, Axis=1)
CASES.add("UNPACK", [In((4, 2, 3))], [Out((4, 3)), Out((4, 3))], "UnpackOptions", Num=2, Axis=1)
CASES.add(
    "SPLIT", [ints(2), F], [Out((2, 5, 2, 3)), Out((2, 5, 2, 3))], "SplitOptions", NumSplits=2
)
CASES.add(
    "SPLIT_V",
    [F, ints(1, -1), ints(1)],
    [Out((2, 1, 4, 3)), Out((2, 4, 4, 3))],
    "SplitVOptions",
    NumSplits=2,
)
CASES.add("SLICE", [F, ints(0, 1, 2, 0), ints(-1, 3, 2, 3)], [Out((2, 3, 2, 3))], "SliceOptions")
CASES.add(
    "STRIDED_SLICE",
    [F, ints(0, 1, 3), ints(2, 5, 0), ints(1, 2, -1)],
    [Out((2, 2, 3, 3))],
    "StridedSliceOptions",
    BeginMask=1,
    EndMask=1,
)
CASES.add(
    "STRIDED_SLICE:shrink",
    [F, ints(0, -2, 0, 0), ints(0, 0, 0, 2), ints(1, 1, 1, 1)],
    [Out((2, 4, 2))],
    "StridedSliceOptions",
    BeginMask=5,
    EndMask=5,
    ShrinkAxisMask=2,
)
CASES.add("REVERSE_V2", [F, ints(2)], [Out(X)], "ReverseV2Options")
CASES.add(
    "GATHER",
    [In((6, 4)), In((3, 2), "int32", low=0, high=5)],
    [Out((3, 2, 4))],
    "GatherOptions",
    Axis=0,
)
CASES.add(
    "GATHER:axis 1",
    [In((6, 4, 3)), ints(3, 0, 0)],
    [Out((6, 3, 3))],
    "GatherOptions",
    Axis=1,
)
CASES.add(
    "EMBEDDING_LOOKUP", [In((5,), "int32", low=0, high=5), constant(np.eye(6, 4))], [Out((5, 4))]
)
PADS = constant([[0, 0], [1, 2], [3, 0], [0, 0]], "int32")
CASES.add("PAD", [F, PADS], [Out((2, 8, 7, 3))], "PadOptions")
CASES.add("PAD:int8", [in8(X), PADS], [out8((2, 8, 7, 3), A)], "PadOptions", 2)
CASES.add("PADV2", [F, PADS, constant(1.5)], [Out((2, 8, 7, 3))], "PadV2Options")
for number, mode in enumerate(("reflect", "symmetric")):
    CASES.add(f"MIRROR_PAD:{mode}", [F, PADS], [Out((2, 8, 7, 3))], "MirrorPadOptions", Mode=number)
CASES.add("TILE", [In((2, 3)), ints(2, 3)], [Out((4, 9))], "TileOptions")
CASES.add("BROADCAST_TO", [In((4, 1)), ints(2, 4, 3)], [Out((2, 4, 3))], "BroadcastToOptions", 2)
for mode, corners, half in (("", False, False), (":corners", True, False), (":half", False, True)):
    for kind, table in (
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    ):
        CASES.add(
            f"{kind}{mode}",
            [F, ints(8, 3)],
            [Out((2, 8, 3, 3))],
            table,
            3,
            AlignCorners=corners,
            HalfPixelCenters=half,
        )
CASES.add(
    "RESIZE_BILINEAR:int8",
    [in8(X), ints(10, 8)],
    [out8((2, 10, 8, 3), A)],
    "ResizeBilinearOptions",
    2,
)
CASES.add(
    "DEPTH_TO_SPACE", [In((1, 3, 2, 12))], [Out((1, 6, 4, 3))], "DepthToSpaceOptions", BlockSize=2
)
CASES.add(
    "SPACE_TO_DEPTH", [In((1, 6, 4, 3))], [Out((1, 3, 2, 12))], "SpaceToDepthOptions", BlockSize=2
)

CASES.add(
    "SPACE_TO_BATCH_ND",
    [In((2, 5, 3, 2)), ints(2, 3), constant([[1, 0], [2, 1]], "int32")],
    [Out((12, 3, 2, 2))],
    "SpaceToBatchNDOptions",
)
CASES.add(
    "BATCH_TO_SPACE_ND",
    [In((12, 3, 2, 2)), ints(2, 3), constant([[1, 0], [2, 1]], "int32")],
    [Out((2, 5, 3, 2))],
    "BatchToSpaceNDOptions",
)
