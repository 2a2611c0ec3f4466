"""The layers of the YFlows study: the paper's sweep, and convolutions of networks that it names.

Turns a target into cases. A layer of the sweep has one vector of channels: as many as one
multiply-accumulate instruction of the target sums. Padding is SAME (the paper's is "full", with a
test of bounds at every tap); the input has its border.
"""

from __future__ import annotations

import itertools

from simdflow.targets import Target

from .cases import Case

SIZES, KERNELS, STRIDES, FILTERS = (56, 112), (3, 4, 5), (1, 2), (8, 16, 32, 64)
DTYPES = ("int8", "bit")
# VGG-19's 3x3 convolutions but the first: name, height and width, channels in, channels out.
VGG = (
    ("1_2", 112, 64, 64),
    ("2_1", 112, 64, 128),
    ("2_2", 112, 128, 128),
    ("3_1", 56, 128, 256),
    ("3_2", 56, 256, 256),
    ("4_1", 28, 256, 512),
    ("4_2", 28, 512, 512),
    ("5_x", 14, 512, 512),
)
RESNET = (("conv2_x", 56, 64), ("conv3_x", 28, 128), ("conv4_x", 14, 256))
# Depthwise, int8 only: a vector is a vector of channels, and nothing is summed across it.
MOBILENET = (("conv1", 112, 32, 1), ("conv2", 112, 64, 2))


def vector_channels(target: Target, dtype: str) -> int:
    """Channels that one multiply-accumulate of the target sums: the paper's vector variable."""
    if dtype == "bit":
        return target.width
    return target.width // 32 * max(target.groups("u8", "i8", "i32", widened=False))


def layers(target: Target, quick: bool = False) -> list[Case]:
    """The sweep in both types, then the networks' layers; `quick`: six layers of all kinds."""
    found = [*sweep(target), *networks()]
    if not quick:
        return found
    return [c for c in found if (c.h, c.k, c.stride, c.oc) in QUICK and c.network == "sweep"]


QUICK = {(56, 3, 1, 16), (56, 3, 2, 16), (56, 5, 1, 8)}


def sweep(target: Target) -> list[Case]:
    """H = W, f, stride and K as in the paper, C = one vector."""
    return [
        Case("sweep", "conv2d", h, h, vector_channels(target, dtype), k, f, stride, False, dtype)
        for dtype, h, f, stride, k in itertools.product(DTYPES, SIZES, KERNELS, STRIDES, FILTERS)
    ]


def networks() -> list[Case]:
    """VGG-19, ResNet and MobileNet; every dense-channel layer in both types."""
    found = []
    for dtype in DTYPES:
        found += [
            Case(f"vgg19 {name}", "conv2d", h, h, c, k, 3, 1, False, dtype) for name, h, c, k in VGG
        ]
        found += [
            Case(f"resnet {name}", "conv2d", h, h, c, c, 3, 1, False, dtype)
            for name, h, c in RESNET
        ]
    found += [
        Case(f"mobilenet {name}", "depthwise_conv2d", h, h, c, c, 3, stride, False, "int8")
        for name, h, c, stride in MOBILENET
    ]
    return found
