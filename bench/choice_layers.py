"""Layers whose default dataflow is judged: those of the networks, and those of the YFlows study.

Turns a case into a Subject: its space of dataflows, its operands, and one output that all kernels
write in turn. It compiles and times nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import simdflow as sf
from simdflow.targets import Target
from simdflow.tuning.space import Space

from . import study_kernels, study_layers
from .cases import Case, mismatch, problem
from .nests import layer_nest
from .networks import mobilenet_v1, resnet50

LEAST_MACS = 10e6  # of a network's convolution; depthwise and dense layers are all in
POISON = 0xA5  # every byte of the output before a kernel is checked
QUICK = frozenset(
    {
        "resnet50 conv3x3 14x14x256-256 int8",
        "resnet50 conv1x1 56x56x64-256 int8",
        "mobilenet dw3x3 112x112x32-32 int8",
        "resnet50 dense 2048-1000 int8",
        "resnet50 conv3x3 56x56x64-64 f32",
        "resnet conv4_x conv3x3 14x14x256-256 bit",
    }
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A layer on one target.

    arrays      what a kernel is bound to besides the output
    out         the output, the same for all kernels
    judge       why a result is wrong, or ""
    """

    case: Case
    space: Space
    arrays: Mapping[str, Any]
    out: np.ndarray
    judge: Callable[[np.ndarray], str]

    def bind(self, made: sf.CompiledKernel) -> Callable[[], object]:
        """A compiled kernel as a call without arguments."""
        return made.bind(**self.arrays, out=self.out)

    def wrong(self, call: Callable[[], object]) -> str:
        """Run once; why the result is not numpy's, or ""."""
        self.out.view(np.uint8).fill(POISON)
        call()
        return self.judge(self.out)


def layers(target: Target, quick: bool) -> list[Case]:
    """ResNet-50 and MobileNetV1 in int8 and f32, each shape once; then the study's layers."""
    distinct: dict[tuple[object, ...], Case] = {}
    for case in (*resnet50(), *mobilenet_v1()):
        if case.op != "conv2d" or case.macs > LEAST_MACS:
            shape = (case.op, case.h, case.w, case.ic, case.oc, case.k, case.stride)
            distinct.setdefault(shape, case)
    found = [replace(case, dtype=dtype) for dtype in ("int8", "f32") for case in distinct.values()]
    found += study_layers.layers(target)
    return [case for case in found if case.name in QUICK] if quick else found


def subject(case: Case, target: str) -> Subject:
    """The layer with random operands; the study's layers end in i32 sums, the networks' in u8."""
    if case.network in ("resnet50", "mobilenet"):
        nest = layer_nest(problem(case))
        kind, shape = nest.types["out"], nest.problem.expected.shape
        out = sf.empty(kind, beside=nest.arrays["x"])
        judge = partial(_mismatch, nest.problem, shape)
        return Subject(case, nest.space(target), nest.arrays, out, judge)
    layer = study_kernels.layer(case)
    beside = layer.x.words if isinstance(layer.x, sf.Bits) else layer.x
    out = sf.empty(sf.i32[layer.expected.shape], beside=beside)
    arrays = {"x": layer.x, "w": layer.w}
    return Subject(case, layer.space(target), arrays, out, layer.wrong)


def _mismatch(given: Any, shape: tuple[int, ...], found: np.ndarray) -> str:
    return mismatch(found.reshape(shape), given, 0)
