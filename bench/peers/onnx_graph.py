"""A problem as an ONNX graph, for the engines that read ONNX: f32, or u8 x i8 -> u8 in QDQ form.

With `channels_last` the activations are NHWC with a transposition on either side, which these
engines may fold into the reordering that they do anyway; else NCHW. Nothing is run here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..cases import Problem, Unsupported


def graph(problem: Problem, channels_last: bool) -> bytes:
    """One layer with input "x" and output "y", the rest as initializers (opset 13)."""
    case = problem.case
    if case.dtype not in ("f32", "int8"):
        raise Unsupported(f"dtype={case.dtype}: no such arithmetic")
    quantized, dense = case.dtype == "int8", case.op == "dense"
    if dense:
        w, channel_axis = problem.w, 1
    elif case.op == "depthwise_conv2d":
        w, channel_axis = problem.w.transpose(2, 0, 1)[:, None], 0
    else:
        w, channel_axis = problem.w.transpose(3, 2, 0, 1), 0
    constants = {"w": w, "b": problem.bias}
    nodes, last, names = [], "x", ["x", "w", "b"]
    if channels_last and not dense:
        nodes.append(helper.make_node("Transpose", [last], ["x_nchw"], perm=[0, 3, 1, 2]))
        last = "x_nchw"
    if quantized:
        assert problem.w_scale is not None
        constants |= {
            "x_scale": np.array(problem.x_scale, np.float32),
            "x_zero": np.array(0, np.uint8),
            "w_scale": problem.w_scale,
            "w_zero": np.zeros(case.oc, np.int8),
            "b_scale": np.float32(problem.x_scale) * problem.w_scale,
            "b_zero": np.zeros(case.oc, np.int32),
            "y_scale": np.array(problem.y_scale, np.float32),
            "y_zero": np.array(problem.y_zero, np.uint8),
        }
        for name, source, axis in (("x", last, None), ("w", "w", channel_axis), ("b", "b", 0)):
            attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
            inputs = [source, f"{name}_scale", f"{name}_zero"]
            nodes.append(
                helper.make_node("DequantizeLinear", inputs, [f"{name}_real"], **attributes)
            )
        last, names = "x_real", ["x_real", "w_real", "b_real"]
    if dense:
        nodes.append(helper.make_node("Gemm", [last, *names[1:]], ["sum"]))
    else:
        (top, bottom), (left, right) = case.padding
        nodes.append(
            helper.make_node(
                "Conv",
                [last, *names[1:]],
                ["sum"],
                kernel_shape=[case.k, case.k],
                pads=[top, left, bottom, right],
                strides=[case.stride, case.stride],
                group=case.ic if case.op == "depthwise_conv2d" else 1,
            )
        )
    last = "sum"
    if case.relu:
        nodes.append(helper.make_node("Relu", [last], ["relu"]))
        last = "relu"
    if quantized:
        nodes.append(helper.make_node("QuantizeLinear", [last, "y_scale", "y_zero"], ["q"]))
        last = "q"
    if channels_last and not dense:
        nodes.append(helper.make_node("Transpose", [last], ["y"], perm=[0, 2, 3, 1]))
    else:
        nodes[-1].output[0] = "y"
    x_shape, y_shape = problem.x.shape, problem.expected.shape
    if not channels_last and not dense:
        x_shape, y_shape = ((s[0], s[3], s[1], s[2]) for s in (x_shape, y_shape))
    element = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    layer = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", element, x_shape)],
        [helper.make_tensor_value_info("y", element, y_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(layer, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()
