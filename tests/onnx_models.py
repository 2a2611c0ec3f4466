"""Small ONNX models for tests, right and wrong: nodes, inputs and constants become the bytes of a
file, and nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
CODES = {
    "f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "f64": TensorProto.DOUBLE,
    "u8": TensorProto.UINT8, "i8": TensorProto.INT8, "i32": TensorProto.INT32,
    "i64": TensorProto.INT64, "bool": TensorProto.BOOL,
}  # fmt: skip


def node(kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> Any:
    """A node; "domain" and "name" are among the attributes."""
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def proto(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Shape]],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Any:
    """A ModelProto. Outputs are declared f32 without a shape, which the importer does not read."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, CODES[t], s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", opset)])


def model(*args: Any, **options: Any) -> bytes:
    """The bytes of `proto`."""
    found: bytes = proto(*args, **options).SerializeToString()
    return found


def one(kind: str, shape: Shape = (1, 4), **attributes: Any) -> bytes:
    """A model of one node from x to y."""
    return model([node(kind, ["x"], "y", **attributes)], {"x": ("f32", shape)}, ["y"])


def external(location: str, shape: Shape, offset: str = "0", length: str | None = None) -> Any:
    """An f32 tensor "w" whose values lie in a file."""
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type = "w", TensorProto.FLOAT
    tensor.dims.extend(shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor
