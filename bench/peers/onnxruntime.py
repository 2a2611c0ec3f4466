"""onnxruntime's CPU provider: a layer as an ONNX graph, input and output bound once.

No copy is timed, but the reordering between the caller's layout and the blocked one inside is, as
for any single layer in this engine.
"""

from __future__ import annotations

import numpy as np

from ..cases import Problem, Run
from ..timing import fastest
from .onnx_graph import graph


def prepare(problem: Problem, threads: int) -> Run:
    """The layer as a session with bound arrays, in its quicker layout.

    Raises:
        Unsupported: the case is binary.
    """
    forms = (True,) if problem.case.op == "dense" else (True, False)
    return fastest(_run(problem, threads, channels_last) for channels_last in forms)


def _run(problem: Problem, threads: int, channels_last: bool) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    spin = "1" if threads > 1 else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    model = graph(problem, channels_last)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    dense = problem.case.op == "dense"
    as_nchw = not dense and not channels_last
    x = problem.x.transpose(0, 3, 1, 2) if as_nchw else problem.x
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x))
    meta = session.get_outputs()[0]
    element = np.uint8 if problem.case.dtype == "int8" else np.float32
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(meta.shape, element)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_ortvalue_output("y", result)

    def call(kept: object = (value, result)) -> None:  # the binding does not keep its arrays alive
        session.run_with_iobinding(binding)

    def output() -> np.ndarray:
        y = result.numpy()
        return y.transpose(0, 2, 3, 1) if as_nchw else y

    return Run(call, output, "NHWC" if channels_last else "NCHW")
