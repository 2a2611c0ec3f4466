"""A problem's layer as the product nest under its op, with operand types and arrays.

For suites that choose the dataflow themselves; the input has its border and the weights are packed,
as bench/ours.py has them. It compiles and times nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import simdflow as sf
from simdflow.ops.convolution import promised
from simdflow.ops.op import described
from simdflow.ops.products import finishing
from simdflow.tuning.space import Space

from .cases import Problem, Run
from .ours import bordered, quantizations


@dataclass(frozen=True, eq=False)
class LayerNest:
    """A kernel and what it is specialized and called with.

    types       operand types by name, those of the output and the packed weights too
    arrays      the inputs by name
    constants   keyword constants of the nest
    """

    problem: Problem
    kernel: sf.Kernel
    types: Mapping[str, sf.OperandType]
    arrays: Mapping[str, Any]
    constants: Mapping[str, Any]

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of `specialize` and `sf.dataflows`."""
        return {**self.types, **self.constants}

    def space(self, target: str) -> Space:
        """The dataflows of the kernel."""
        return sf.dataflows(self.kernel, target=target, **self.given)

    def made(self, flow: sf.Dataflow | None = None) -> sf.CompiledKernel:
        """The kernel with that dataflow, or with the default one.

        Raises DataflowError when its stages are looked at, if the dataflow is not legal.
        """
        return self.kernel.specialize(dataflow=flow, **self.given)

    def run(self, made: sf.CompiledKernel) -> Run:
        """`made` on the arrays, with an output of its own in which every byte is 0xA5 at first."""
        kind = self.types["out"]
        out = sf.empty(kind, beside=self.arrays["x"])
        out.view(np.uint8).fill(0xA5)
        shape = self.problem.expected.shape
        return Run(made.bind(**self.arrays, out=out), lambda: out.reshape(shape).copy())


def layer_nest(problem: Problem) -> LayerNest:
    """The nest of a convolution, depthwise or dense layer in f32 or int8.

    Its kernel is a new one, so that what is compiled for a layer is dropped with it.
    """
    case = problem.case
    to = sf.f32 if case.dtype == "f32" else sf.u8
    activation = "relu" if case.relu else None
    finish = finishing(case.oc, to, "float", activation, quantizations(problem))
    w, x, group = problem.w, bordered(problem), case.oc
    if case.op == "dense":
        w, x = w.reshape(1, 1, *w.shape), x.reshape(1, 1, *x.shape)
    elif case.op == "depthwise_conv2d":
        w, group = w.reshape(case.k, case.k, 1, case.oc), 1
    out = to[1, case.oh, case.ow, case.oc]
    # Inputs have zero point 0, so a sum starts at the bias.
    named = dict(zip(finish.inputs, (problem.bias, *finish.arrays), strict=True))
    packed = sf.pack(w)
    types = {n: promised(a) for n, a in named.items()}
    types |= {"x": described(x, fixed=True), "w": packed.type, "out": out}
    constants = {
        "stride_h": case.stride,
        "stride_w": case.stride,
        "group": group,
        **finish.constants,
    }
    kernel = sf.kernel(finish.nest.function)
    return LayerNest(problem, kernel, types, {**named, "x": x, "w": packed}, constants)
