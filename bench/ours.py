"""simdflow as an engine of the bench: a problem's layer as a call of its compiled kernel.

The contract is that of the peers, `prepare(problem, threads) -> Run` with a call that passes
nothing: weights are packed and arrays bound here, outside the timed call. The bound input has its
border, as a layer in a network finds it: the layer before wrote inside it. It times nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from simdflow.placing import placed

from .cases import BORDERED, Case, Problem, Run, Unsupported

if TYPE_CHECKING:
    from simdflow.ops import Quantization


def prepare(problem: Problem, threads: int) -> Run:
    """The layer compiled for this CPU, its weights packed, its arrays bound, its output as
    simdflow lays it.

    Raises:
        Unsupported: simdflow.ops has no such layer, or it does not run on `threads` threads.
    """
    if threads != 1:
        raise Unsupported(f"threads={threads}: a single layer runs on one thread")
    if problem.case.dtype == "bit":
        return _binary(problem)
    op, settings, weights = _op(problem), settings_of(problem), weights_of(problem)
    dtype = np.float32 if problem.case.dtype == "f32" else problem.expected.dtype
    x = bordered(problem)
    out = placed(problem.expected.shape, np.dtype(dtype), x)
    if x is problem.x:
        return Run(op.bind(x, weights, problem.bias, out=out, **settings), out.copy)
    inside = settings | {"padding": problem.case.padding, "bordered": True}
    call = op.bind(x, weights, problem.bias, out=out, **inside)
    copying = op.bind(problem.x, weights, problem.bias, out=out, **settings)
    return Run(call, out.copy, BORDERED, copying)


def _binary(problem: Problem) -> Run:
    """Sums of +1 and -1, as a nest: ops has no binary layers. The input has its border, of +1."""
    import simdflow as sf

    @sf.kernel
    def binary_conv2d(x, w, out, *, stride=1):
        """out[n,oh,ow,oc] = sum over kh,kw,ic of x[n, oh*s + kh, ow*s + kw, ic] * w[kh,kw,oc,ic]"""
        for n, oh, ow, oc in sf.grid(out.shape):
            acc = sf.i32(0)
            for kh, kw, ic in sf.reduce(w.shape[0], w.shape[1], w.shape[3]):
                acc += sf.xnor_popcount(
                    x[n, oh * stride + kh, ow * stride + kw, ic], w[kh, kw, oc, ic]
                )
            out[n, oh, ow, oc] = acc

    border = ((0, 0), *problem.case.padding, (0, 0))
    x = sf.pack_bits(np.pad(problem.x, border, constant_values=1))
    w = sf.pack(sf.pack_bits(problem.w.transpose(0, 1, 3, 2)))
    out = placed(problem.expected.shape, np.dtype(np.int32), x.words)
    made = binary_conv2d.specialize(
        x=x.type, w=w.type, out=sf.i32[out.shape], stride=problem.case.stride
    )
    return Run(made.bind(x=x, w=w, out=out), out.copy, BORDERED if padded(problem.case) else "")


def padded(case: Case) -> bool:
    """Whether the layer reads beyond its input."""
    return case.op != "dense" and any(map(any, case.padding))


def bordered(problem: Problem) -> np.ndarray:
    """The input, inside its border where the layer has padding."""
    if not padded(problem.case):
        return problem.x
    from simdflow import dsl, ops

    kind = {np.dtype("u1"): dsl.u8, np.dtype("f4"): dsl.f32}[problem.x.dtype]
    border = ((0, 0), *problem.case.padding, (0, 0))
    whole, inside = ops.bordered(problem.x.shape, kind, border)
    inside[...] = problem.x
    return whole


def eager(problem: Problem) -> Callable[[], np.ndarray]:
    """The layer as a user calls it: numpy arrays in, packed weights, a new array out."""
    op, weights, settings = _op(problem), weights_of(problem), settings_of(problem)
    return lambda: op(problem.x, weights, problem.bias, **settings)


def target() -> str:
    """The name of the target that simdflow compiles for here."""
    from simdflow.targets import target

    return target().name


def _op(problem: Problem) -> Any:
    try:
        from simdflow import ops
    except ImportError as missing:
        raise Unsupported(f"simdflow.ops does not import: {missing}") from missing
    op = getattr(ops, problem.case.op, None)
    if op is None:
        raise Unsupported(f"simdflow.ops has no {problem.case.op}")
    return op


def weights_of(problem: Problem) -> Any:
    """The weights, packed."""
    import simdflow

    return simdflow.pack(problem.w)


def settings_of(problem: Problem) -> dict[str, Any]:
    """The options of the op."""
    case = problem.case
    if case.dtype == "bit":
        raise Unsupported("dtype=bit: simdflow.ops has no binary layers; prepare has a nest")
    settings: dict[str, Any] = {"activation": "relu" if case.relu else None}
    if case.op != "dense":
        settings |= {"stride": case.stride, "padding": case.padding}
    if found := quantizations(problem):
        settings |= dict(zip(("x_q", "w_q", "y_q"), found, strict=True))
    return settings


def quantizations(problem: Problem) -> tuple[Quantization, Quantization, Quantization] | None:
    """Those of input, weights and output; None for f32."""
    from simdflow.ops import Quantization

    if problem.w_scale is None:
        return None
    return (
        Quantization(problem.x_scale),
        Quantization(problem.w_scale),
        Quantization(problem.y_scale, problem.y_zero),
    )
