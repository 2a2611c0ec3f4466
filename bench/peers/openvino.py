"""OpenVINO's CPU plugin: a layer as an ONNX graph, compiled for latency at full f32 precision.

The reordering between the caller's layout and the one inside is timed, as for any single layer in
this engine.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..cases import Problem, Run
from ..timing import fastest
from .onnx_graph import graph


def prepare(problem: Problem, threads: int) -> Run:
    """The layer as an inference request with its input bound, in its quicker layout.

    Raises:
        Unsupported: the case is binary.
    """
    # int8 behind a transposition is computed in f32: there only NCHW is worth a try.
    both = problem.case.dtype == "f32" and problem.case.op != "dense"
    forms = (True, False) if both else (False,)
    return fastest(_run(problem, threads, channels_last) for channels_last in forms)


def _run(problem: Problem, threads: int, channels_last: bool) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else it may compute f32 layers in bf16
        "ENABLE_CPU_PINNING": False,  # the harness has pinned the process
    }
    core = openvino.Core()
    model = core.read_model(io.BytesIO(graph(problem, channels_last)))
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    as_nchw = problem.case.op != "dense" and not channels_last
    x = problem.x.transpose(0, 3, 1, 2) if as_nchw else problem.x
    request.set_input_tensor(openvino.Tensor(np.ascontiguousarray(x)))

    def output() -> np.ndarray:
        y = request.get_output_tensor().data.copy()
        return y.transpose(0, 2, 3, 1) if as_nchw else y

    form = "NHWC" if channels_last else "NCHW"
    return Run(request.infer, output, f"{form} {_primitives(compiled)}")


def _primitives(compiled: Any) -> str:
    """What the plugin chose to run, in order."""
    chosen = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        about = op.get_rt_info()
        if "primitiveType" in about:
            kind = about["layerType"].astype(str)
            if kind not in ("Input", "Output", "Const"):
                chosen.append(f"{kind}:{about['primitiveType'].astype(str)}")
    return " ".join(chosen)
