"""Unsigned: values between layers that are i8 become u8, moved by 128 with their zero points.

    before   i8 q, zero point z        after   u8 q + 128, zero point z + 128

The products of the CPU take u8 x i8; for an i8 input every vector that is loaded would have to be
moved first. The values of the network stay the same, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ... import ops
from ...dsl.types import i8, u8
from ...ops import Quantization
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of

SHIFT = 128
# The types of input and result are free of each other here.
PRODUCTS = frozenset(("conv2d", "depthwise_conv2d", "dense"))
# These take and give one type, and their rules do not change when all values move by a constant.
# Not avg_pool2d: it rounds halves away from zero.
MOVABLE = frozenset(
    ("add", "mul", "sub", "max_pool2d", "relu", "relu6", "clip", "leaky_relu", "hardswish",
     "sigmoid", "tanh", "gelu", "reshape", "transpose", "concat", "slice", "expand", "pad",
     "resize_nearest", "depth_to_space", "space_to_depth")
)  # fmt: skip
OF_OPERAND = {"x_q": 0, "a_q": 0, "b_q": 1}


def unsigned(graph: Graph) -> Graph:
    """The graph with its inner 8-bit activations unsigned. Inputs and outputs keep their types."""
    return _Unsigned(graph).made()


def _moved(graph: Graph) -> set[str]:
    """The values that can be unsigned; i8 inputs among them, which are moved once when read."""
    found = {
        name
        for name, v in graph.values.items()
        if v.type.scalar == i8 and name not in graph.outputs and name not in graph.constants
    }
    if not any(op_of(n) in PRODUCTS for n in graph.nodes):
        return set()
    changed = True
    while changed:
        changed = False
        for node in graph.nodes:
            tied = {n for n in (*_activations(graph, node), node.output)
                    if graph.values[n].type.scalar == i8}  # fmt: skip
            if op_of(node) in PRODUCTS or not tied & found:
                continue
            signed = any(n not in found for n in tied if n not in graph.constants)
            if op_of(node) not in MOVABLE or signed or not _meant(node):
                found -= tied
                changed = True
    return found


def _meant(node: Node) -> bool:
    """Whether the options say what the integers mean, where a rule needs it."""
    arithmetic = {"add": "a_q", "mul": "a_q", "sub": "a_q", "relu": "x_q", "relu6": "x_q",
                  "clip": "x_q"}  # fmt: skip
    return op_of(node) not in arithmetic or node.options.get(arithmetic[op_of(node)]) is not None


def _activations(graph: Graph, node: Node) -> tuple[str, ...]:
    """The inputs that are not weights."""
    if op_of(node) in PRODUCTS:
        return tuple(i for i in node.inputs[:1] if i is not None)
    return node.reads


class _Unsigned(Rewrite):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._moved = _moved(graph)
        self._inputs_moved: dict[str, str] = {}

    def made(self) -> Graph:
        """The new graph."""
        return self.walk(lambda _, node: self._node(node)) if self._moved else self.old

    def _node(self, node: Node) -> str | None:
        old = self.old
        activations = set(_activations(old, node))
        if not (activations | {node.output}) & self._moved:
            return None
        inputs = [self._input(i) if i in activations else i for i in node.inputs]
        options = self._options(node)
        self._nodes.append(
            Node(node.name, node.function, tuple(inputs), node.output, MappingProxyType(options))
        )
        kinds = [None if i is None else self.values[i].type for i in inputs]
        value = old.values[node.output]
        meaning = value.quantization
        if node.output in self._moved and meaning is not None:
            meaning = _shifted(meaning)
        kind = node.function.shape(*kinds, **options)
        self.values[node.output] = replace(value, type=kind, quantization=meaning)
        self._made[node.output] = self._nodes[-1]
        return node.output

    def _input(self, name: str) -> str:
        """The unsigned form of an input or of a constant; a value that is moved has it already."""
        old = self.old
        if name in old.constants and old.values[name].type.scalar == i8:
            if name not in self._inputs_moved:
                array = (old.constants[name].astype(np.int16) + SHIFT).astype(np.uint8)
                self._inputs_moved[name] = self.constant(f"{name}_unsigned", array)
            return self._inputs_moved[name]
        if name in old.inputs and name in self._moved:
            if name not in self._inputs_moved:
                meaning = old.values[name].quantization
                self._inputs_moved[name] = self.call(
                    ops.flip_sign,
                    name,
                    output=self.fresh(f"{name}_unsigned"),
                    quantization=None if meaning is None else _shifted(meaning),
                )
            return self._inputs_moved[name]
        return name

    def _options(self, node: Node) -> dict[str, Any]:
        options: dict[str, Any] = dict(node.options)
        for name, at in OF_OPERAND.items():
            given = node.inputs[at] if at < len(node.inputs) else None
            if options.get(name) is not None and self._is_moved(given, node):
                options[name] = _shifted(options[name])
        if node.output in self._moved:
            if options.get("y_q") is not None:
                options["y_q"] = _shifted(options["y_q"])
            if op_of(node) == "pad":
                options["value"] = options.get("value", 0) + SHIFT
        if op_of(node) in PRODUCTS and options.get("y_q") is not None:
            options["y_type"] = u8 if node.output in self._moved else self._type(node)
        return options

    def _type(self, node: Node) -> Any:
        return self.old.values[node.output].type.scalar

    def _is_moved(self, name: str | None, node: Node) -> bool:
        """Whether an operand is read unsigned that was not; constants go with the others."""
        if name in self._moved:
            return True
        signed = name in self.old.constants and self.old.values[str(name)].type.scalar == i8
        return signed and node.output in self._moved

    def _agree(self, name: str) -> None:
        """Values inside change their type here, and nothing else."""
        if name not in self._moved:
            super()._agree(name)


def _shifted(q: Quantization) -> Quantization:
    return Quantization(q.scale, q.zero_point + SHIFT)
