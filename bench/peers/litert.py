"""LiteRT, the TensorFlow Lite interpreter with XNNPACK's kernels: a layer as a .tflite file.

NHWC throughout. int8 is s8 x s8 -> s8 with a weight scale a channel: the case's u8 values minus
128, which is the same arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cases import Case, Problem, Run, Unsupported

SIGNED = 128  # u8 value - 128 = s8 value


def prepare(problem: Problem, threads: int) -> Run:
    """The layer as an interpreter with its input set.

    Raises:
        Unsupported: the case is binary.
    """
    from ai_edge_litert.interpreter import Interpreter

    if problem.case.dtype not in ("f32", "int8"):
        raise Unsupported(f"dtype={problem.case.dtype}: no such arithmetic")
    interpreter = Interpreter(model_content=_file(problem), num_threads=threads)
    interpreter.allocate_tensors()
    signed = problem.case.dtype == "int8"
    x = (problem.x.astype(np.int16) - SIGNED).astype(np.int8) if signed else problem.x
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    index = interpreter.get_output_details()[0]["index"]

    def output() -> np.ndarray:
        y = interpreter.get_tensor(index)
        return (y.astype(np.int16) + SIGNED).astype(np.uint8) if signed else y

    return Run(interpreter.invoke, output)


def _file(problem: Problem) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    case, quantized = problem.case, problem.case.dtype == "int8"
    kind = schema.TensorType
    data, sums = (kind.INT8, kind.INT32) if quantized else (kind.FLOAT32, kind.FLOAT32)
    if case.op == "conv2d":
        w, axis = problem.w.transpose(3, 0, 1, 2), 0  # (oc, kh, kw, ic)
    elif case.op == "depthwise_conv2d":
        w, axis = problem.w[None], 3  # (1, kh, kw, c)
    else:
        w, axis = problem.w.T, 0  # (n, k)
    buffers, tensors = [schema.BufferT()], []

    def tensor(name: str, shape: tuple[int, ...], element: int, **quantization: Any) -> None:
        found = schema.TensorT(name=name, shape=list(shape), type=element)
        if quantized:
            found.quantization = schema.QuantizationParametersT(**quantization)
        tensors.append(found)

    def constant(value: np.ndarray) -> None:
        tensors[-1].buffer = len(buffers)
        buffers.append(schema.BufferT(data=np.frombuffer(value.tobytes(), np.uint8)))

    w_scale = problem.w_scale if problem.w_scale is not None else np.ones(case.oc, np.float32)
    no_zero = np.zeros(case.oc, np.int64)
    tensor("x", problem.x.shape, data, scale=[problem.x_scale], zeroPoint=[-SIGNED])
    tensor("w", w.shape, data, scale=w_scale, zeroPoint=no_zero, quantizedDimension=axis)
    constant(w)
    tensor("b", (case.oc,), sums, scale=w_scale * problem.x_scale, zeroPoint=no_zero)
    constant(problem.bias)
    y_zero = problem.y_zero - SIGNED
    tensor("y", problem.expected.shape, data, scale=[problem.y_scale], zeroPoint=[y_zero])
    code, version, options_type, options = _operator(case, schema)
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[3], name="layer")
    graph.operators = [
        schema.OperatorT(
            opcodeIndex=0,
            inputs=[0, 1, 2],
            outputs=[3],
            builtinOptionsType=options_type,
            builtinOptions=options,
        )
    ]
    operator = schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=version)
    model = schema.ModelT(version=3, operatorCodes=[operator], subgraphs=[graph], buffers=buffers)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _operator(case: Case, schema: Any) -> tuple[int, int, int, Any]:
    """(builtin code, version, type of its options, its options)."""
    codes, kinds = schema.BuiltinOperator, schema.BuiltinOptions
    activations, quantized = schema.ActivationFunctionType, case.dtype == "int8"
    activation = activations.RELU if case.relu else activations.NONE
    if case.op == "dense":
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation)
        return codes.FULLY_CONNECTED, 12 if quantized else 1, kinds.FullyConnectedOptions, options
    settings = {
        "padding": schema.Padding.SAME,
        "strideH": case.stride,
        "strideW": case.stride,
        "fusedActivationFunction": activation,
    }
    version = 3 if quantized else 1
    if case.op == "conv2d":
        return codes.CONV_2D, version, kinds.Conv2DOptions, schema.Conv2DOptionsT(**settings)
    options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **settings)
    return codes.DEPTHWISE_CONV_2D, version, kinds.DepthwiseConv2DOptions, options
