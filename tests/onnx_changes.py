"""A small ONNX model with a bit of everything, and its file with random bytes changed."""

from __future__ import annotations

import random

import numpy as np
from onnx_models import model, node


def network() -> bytes:
    """A model with a bit of everything that has a size in it."""
    r = np.random.default_rng(7)
    constants = {
        "w": r.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "v": r.integers(-128, 127, (4, 4, 1, 1)).astype(np.int8),
        "s": np.array([0.02, 0.01, 0.03, 0.05], np.float32),
        "z": np.zeros(4, np.int8),
        "to": np.array([0, -1], np.int64),
        "k": r.standard_normal((4 * 5 * 4, 5)).astype(np.float32),
        "i": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    }
    nodes = [
        node("Conv", ["x", "w"], "a", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", ["a"], "b"),
        node("DequantizeLinear", ["v", "s", "z"], "u", axis=0),
        node("Conv", ["b", "u"], "c", auto_pad="SAME_UPPER"),
        node("Pad", ["c", "i"], "d"),
        node("MaxPool", ["d"], "e", kernel_shape=[2, 2], strides=[2, 2]),
        node("Slice", ["e", "one", "end", "two"], "f"),
        node("Reshape", ["f", "to"], "g"),
        node("MatMul", ["g", "k"], "h"),
        node("Softmax", ["h"], "y", axis=-1),
    ]
    constants |= {"one": np.array([0]), "end": np.array([4]), "two": np.array([3])}
    return model(nodes, {"x": ("f32", (1, 3, 8, 8))}, ["y"], constants)


def flipped(content: bytes, seed: int) -> bytes:
    """The bytes with a few of them changed."""
    r = random.Random(seed)
    found = bytearray(content)
    for _ in range(r.choice((1, 1, 2, 5))):
        found[r.randrange(len(found))] = r.randrange(256)
    return bytes(found)
