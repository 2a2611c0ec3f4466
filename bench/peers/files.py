"""Whole model files in the peers, inputs set before the call, as small networks are run in a loop.

LiteRT takes .tflite, onnxruntime .onnx, OpenVINO both. An engine is imported when it is asked for.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..cases import Run, Unsupported

Inputs = Mapping[str, np.ndarray]


def prepare(peer: str, content: bytes, suffix: str, inputs: Inputs, threads: int) -> Run:
    """The file in a peer, ready to run on these inputs ("" names the only one).

    The run's output is the first output. Raises Unsupported where the package is missing or does
    not read such files.
    """
    try:
        return (ENGINES | APPROXIMATE)[peer](content, suffix, inputs, threads)
    except ModuleNotFoundError as missing:
        raise Unsupported(f"not installed: {missing.name}") from missing


def _litert(content: bytes, suffix: str, inputs: Inputs, threads: int) -> Run:
    if suffix != ".tflite":
        raise Unsupported(f"reads .tflite, not {suffix}")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], _named(inputs, detail["name"]))
    index = interpreter.get_output_details()[0]["index"]
    return Run(interpreter.invoke, lambda: np.asarray(interpreter.get_tensor(index)))


def _onnxruntime(content: bytes, suffix: str, inputs: Inputs, threads: int) -> Run:
    if suffix != ".onnx":
        raise Unsupported(f"reads .onnx, not {suffix}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for given in session.get_inputs():
        binding.bind_cpu_input(given.name, _named(inputs, given.name))
    for out in session.get_outputs():
        binding.bind_output(out.name, "cpu")
    return Run(
        lambda: session.run_with_iobinding(binding),
        lambda: np.asarray(binding.copy_outputs_to_cpu()[0]),
    )


def _openvino(content: bytes, suffix: str, inputs: Inputs, threads: int) -> Run:
    # Else it rounds the inputs of layers whose weights have 8 bits to 8 bits as well, which no
    # operator of the file says.
    return _openvino_with({"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}, content, suffix, inputs, threads)


def _openvino_rounding(content: bytes, suffix: str, inputs: Inputs, threads: int) -> Run:
    return _openvino_with({}, content, suffix, inputs, threads)


def _openvino_with(
    more: Mapping[str, Any], content: bytes, suffix: str, inputs: Inputs, threads: int
) -> Run:
    import openvino

    core = openvino.Core()
    if suffix == ".onnx":
        model = core.read_model(io.BytesIO(content))
    else:  # it reads .tflite from files only
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            path.write_bytes(content)
            model = core.read_model(path)
    shapes = {p: _named(inputs, p.any_name).shape for p in model.inputs}
    if any(p.partial_shape.is_dynamic for p in model.inputs):
        model.reshape(shapes)
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else it may compute f32 layers in bf16
        "ENABLE_CPU_PINNING": False,  # the harness has pinned the process
        **more,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    kept = [np.ascontiguousarray(_named(inputs, p.any_name)) for p in model.inputs]
    for at, a in enumerate(kept):
        request.set_input_tensor(at, openvino.Tensor(a, shared_memory=True))
    return Run(request.infer, lambda: np.array(request.get_output_tensor(0).data))


def _named(inputs: Inputs, name: str) -> np.ndarray:
    return inputs[""] if "" in inputs else inputs[name]


ENGINES: dict[str, Callable[[bytes, str, Inputs, int], Run]] = {
    "litert": _litert,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
# What computes something else than the file says, for weights of 8 bits with float inputs.
APPROXIMATE: dict[str, Callable[[bytes, str, Inputs, int], Run]] = {
    "openvino rounding activations": _openvino_rounding,
}
