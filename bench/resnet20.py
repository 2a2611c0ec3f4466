"""ResNet-20 for CIFAR-10 (He et al. 2015) as an ONNX file, from the weights of a trained one.

Batch norm is a node of its own, as exporters write it; what an engine makes of that is its affair.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPSILON = 1e-5


def onnx_file(weights: dict[str, np.ndarray]) -> bytes:
    """The network, x f32[1, 3, 32, 32] to logits f32[1, 10]; `weights` by PyTorch's names."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(weights[name]), name))
        return name

    def convolution(x: str, conv: str, norm: str, stride: int, pad: int) -> str:
        nodes.append(
            helper.make_node(
                "Conv",
                [x, constant(f"{conv}.weight")],
                [f"{conv}.y"],
                name=conv,
                strides=[stride, stride],
                pads=[pad] * 4,
            )
        )
        parts = [constant(f"{norm}.{p}") for p in ("weight", "bias", "running_mean", "running_var")]
        nodes.append(
            helper.make_node(
                "BatchNormalization",
                [f"{conv}.y", *parts],
                [f"{norm}.y"],
                name=norm,
                epsilon=EPSILON,
            )
        )
        return f"{norm}.y"

    def relu(x: str) -> str:
        nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"], name=f"{x}.relu"))
        return f"{x}.relu"

    def shortcut(x: str, name: str, channels: int) -> str:
        """Every second pixel, with zero channels on both sides: the paper's option A."""
        sides = channels // 4
        bounds = {"starts": [0, 0], "ends": [2**31 - 1] * 2, "axes": [2, 3], "steps": [2, 2]}
        for key, value in bounds.items():
            constants.append(numpy_helper.from_array(np.array(value, np.int64), f"{name}.{key}"))
        pads = np.array([0, sides, 0, 0, 0, sides, 0, 0], np.int64)
        constants.append(numpy_helper.from_array(pads, f"{name}.pads"))
        nodes.append(
            helper.make_node("Slice", [x, *(f"{name}.{k}" for k in bounds)], [f"{name}.s"])
        )
        nodes.append(helper.make_node("Pad", [f"{name}.s", f"{name}.pads"], [f"{name}.p"]))
        return f"{name}.p"

    y = relu(convolution("x", "conv1", "bn1", 1, 1))
    before = 16
    for stage, channels in enumerate((16, 32, 64), 1):
        for block in range(3):
            name = f"layer{stage}.{block}"
            stride = 2 if channels != before else 1
            side = y if stride == 1 else shortcut(y, name, channels)
            z = relu(convolution(y, f"{name}.conv1", f"{name}.bn1", stride, 1))
            z = convolution(z, f"{name}.conv2", f"{name}.bn2", 1, 1)
            nodes.append(helper.make_node("Add", [z, side], [f"{name}.sum"]))
            y, before = relu(f"{name}.sum"), channels
    nodes.append(helper.make_node("GlobalAveragePool", [y], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    gemm = ["flat", constant("linear.weight"), constant("linear.bias")]
    nodes.append(helper.make_node("Gemm", gemm, ["logits"], transB=1))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "resnet20",
        [helper.make_tensor_value_info("x", kind, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", kind, [1, 10])],
        constants,
    )
    opset = [helper.make_opsetid("", 13)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return made
