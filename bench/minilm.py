"""A MiniLM sentence encoder (BERT, Devlin et al. 2018) as an ONNX file, from safetensors weights.

input_ids, token_type_ids and attention_mask i64[1, tokens] to last_hidden_state; in the form that
exporters write: separate MatMul and Add, GELU out of Erf.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HEADS, LAYERS, EPSILON = 12, 6, 1e-12


def weights_in(path: Path) -> dict[str, np.ndarray]:
    """The f32 tensors of a .safetensors file: a length, a JSON header, the bytes."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    found = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            found[name] = np.frombuffer(content[begin:end], np.float32).reshape(entry["shape"])
    return found


class _Writer:
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        self.constants.setdefault(name, np.ascontiguousarray(value))
        return name

    def weight(self, name: str, transposed: bool = False) -> str:
        array = self.weights[name]
        return self.constant(name, array.T if transposed else array)

    def linear(self, x: str, name: str) -> str:
        product = self.node("MatMul", x, self.weight(f"{name}.weight", transposed=True))
        return self.node("Add", product, self.weight(f"{name}.bias"))

    def norm(self, x: str, name: str) -> str:
        parts = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.node("LayerNormalization", x, *parts, axis=-1, epsilon=EPSILON)

    def heads(self, x: str, tokens: int, width: int, axes: list[int]) -> str:
        shape = self.constant("heads", np.array([1, tokens, HEADS, width // HEADS], np.int64))
        return self.node("Transpose", self.node("Reshape", x, shape), perm=axes)

    def gelu(self, x: str) -> str:
        root = self.node("Div", x, self.constant("root2", np.float32(2**0.5)))
        one = self.node("Add", self.node("Erf", root), self.constant("one", np.float32(1)))
        return self.node("Mul", self.node("Mul", x, one), self.constant("half", np.float32(0.5)))


def onnx_file(weights: dict[str, np.ndarray], tokens: int) -> bytes:
    """The encoder for a number of tokens."""
    from onnx import TensorProto, helper, numpy_helper

    w = _Writer(weights)
    words = w.node("Gather", w.weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = w.node("Gather", w.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    places = w.constant("places", weights["embeddings.position_embeddings.weight"][:tokens])
    x = w.norm(w.node("Add", w.node("Add", words, kinds), places), "embeddings.LayerNorm")
    width = weights["embeddings.word_embeddings.weight"].shape[1]
    whole = w.constant("whole", np.array([1, tokens, width], np.int64))
    axes = w.constant("mask_axes", np.array([1, 2], np.int64))
    shown = w.node("Cast", w.node("Unsqueeze", "attention_mask", axes), to=TensorProto.FLOAT)
    hidden = w.node("Sub", w.constant("one", np.float32(1)), shown)
    mask = w.node("Mul", hidden, w.constant("lowest", np.float32(-1e9)))
    scale = w.constant("scale", np.float32((width // HEADS) ** 0.5))
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        attention = f"{name}.attention.self"
        q = w.heads(w.linear(x, f"{attention}.query"), tokens, width, [0, 2, 1, 3])
        k = w.heads(w.linear(x, f"{attention}.key"), tokens, width, [0, 2, 3, 1])
        v = w.heads(w.linear(x, f"{attention}.value"), tokens, width, [0, 2, 1, 3])
        scores = w.node("Add", w.node("Div", w.node("MatMul", q, k), scale), mask)
        mixed = w.node("MatMul", w.node("Softmax", scores, axis=-1), v)
        joined = w.node("Reshape", w.node("Transpose", mixed, perm=[0, 2, 1, 3]), whole)
        y = w.node("Add", w.linear(joined, f"{name}.attention.output.dense"), x)
        x = w.norm(y, f"{name}.attention.output.LayerNorm")
        inner = w.gelu(w.linear(x, f"{name}.intermediate.dense"))
        y = w.node("Add", w.linear(inner, f"{name}.output.dense"), x)
        x = w.norm(y, f"{name}.output.LayerNorm")
    w.nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, [1, tokens])
        for n in ("input_ids", "token_type_ids", "attention_mask")
    ]
    result = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, [1, tokens, width]
    )
    arrays = [numpy_helper.from_array(a, n) for n, a in w.constants.items()]
    graph = helper.make_graph(w.nodes, "minilm", inputs, [result], arrays)
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return made
