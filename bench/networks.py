"""The distinct convolution and dense layers of ResNet-50, VGG-16 and MobileNetV1, as cases.

Batch 1 and shapes only: the numbers are random. A shape that two networks share appears once,
under the first.
"""

from __future__ import annotations

from dataclasses import replace

from .cases import Case


def resnet50() -> list[Case]:
    """ResNet-50 for 224x224 images (He et al. 2015), with the strides in the 3x3 convolutions."""
    layers = [Case("resnet50", "conv2d", 224, 224, 3, 64, k=7, stride=2)]
    before, size = 64, 56
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        out = size // stride
        conv = Case("resnet50", "conv2d", out, out, 4 * width, width)
        layers += [
            replace(conv, h=size, w=size, ic=before),
            replace(conv, h=size, w=size, ic=width, k=3, stride=stride),
            replace(conv, ic=width, oc=4 * width),
            replace(conv, h=size, w=size, ic=before, oc=4 * width, stride=stride),
            conv,
            replace(conv, ic=width, k=3),
        ]
        before, size = 4 * width, out
    return [*layers, Case("resnet50", "dense", 1, 1, 2048, 1000, relu=False)]


def vgg16() -> list[Case]:
    """VGG-16, configuration D (Simonyan and Zisserman 2014)."""
    layers, before = [], 3
    for size, width, count in (
        (224, 64, 2),
        (112, 128, 2),
        (56, 256, 3),
        (28, 512, 3),
        (14, 512, 3),
    ):
        for _ in range(count):
            layers.append(Case("vgg16", "conv2d", size, size, before, width, k=3))
            before = width
    dense = Case("vgg16", "dense", 1, 1, 4096, 4096)
    return [*layers, replace(dense, ic=25088), dense, replace(dense, oc=1000, relu=False)]


def mobilenet_v1() -> list[Case]:
    """MobileNetV1 1.0 for 224x224 images (Howard et al. 2017)."""
    layers = [Case("mobilenet", "conv2d", 224, 224, 3, 32, k=3, stride=2)]
    size, before = 112, 32
    widths = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *((512, 1),) * 5,
        (1024, 2),
        (1024, 1),
    )
    for width, stride in widths:
        layers.append(
            Case("mobilenet", "depthwise_conv2d", size, size, before, before, k=3, stride=stride)
        )
        size //= stride
        layers.append(Case("mobilenet", "conv2d", size, size, before, width))
        before = width
    return [*layers, Case("mobilenet", "dense", 1, 1, 1024, 1000, relu=False)]


def binary() -> list[Case]:
    """3x3 binary convolutions of the sizes of a ResNet's stages."""
    sizes = ((56, 64), (28, 128), (14, 256), (7, 512))
    return [Case("binary", "conv2d", s, s, c, c, k=3, relu=False, dtype="bit") for s, c in sizes]


def layers(quick: bool = False) -> list[Case]:
    """Every distinct layer as int8 and f32, then the binary ones; `quick`: a dozen of all kinds."""
    distinct: dict[tuple[object, ...], Case] = {}
    for case in (*resnet50(), *vgg16(), *mobilenet_v1()):
        distinct.setdefault((case.op, case.h, case.w, case.ic, case.oc, case.k, case.stride), case)
    found = [replace(case, dtype=dtype) for dtype in ("int8", "f32") for case in distinct.values()]
    found += binary()
    return [case for case in found if case.name in QUICK] if quick else found


QUICK = frozenset(
    {
        "resnet50 conv3x3 56x56x64-64 int8",
        "resnet50 conv3x3 14x14x256-256 int8",
        "resnet50 conv1x1 56x56x64-256 int8",
        "resnet50 conv1x1 7x7x512-2048 int8",
        "mobilenet conv3x3s2 224x224x3-32 int8",
        "mobilenet dw3x3 112x112x32-32 int8",
        "mobilenet dw3x3s2 14x14x512-512 int8",
        "resnet50 dense 2048-1000 int8",
        "resnet50 conv3x3 56x56x64-64 f32",
        "resnet50 conv1x1 14x14x256-1024 f32",
        "mobilenet dw3x3 14x14x512-512 f32",
        "resnet50 dense 2048-1000 f32",
        "binary conv3x3 28x28x128-128 bit",
    }
)
