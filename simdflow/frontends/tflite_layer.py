"""One operator of a .tflite file on its way into a Graph: its tensors, options and constants.

Turns "input 1 of this operator" into names of values and arrays, and calls of ops into nodes.
Knows no operator; `tflite_products`, `tflite_elements` and `tflite_moves` do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops
from ..dsl.errors import ModelError
from ..dsl.types import BY_DTYPE, OperandType, Scalar
from ..graph.graph import Builder
from ..ops import Op, Quantization
from .tflite import Model, Operator, Tensor

# Arrays made at import (weights in another order, dequantized ones) may have so many bytes together
# for each byte of the file, and so many more: tables that share one tensor cannot multiply it.
BYTES_PER_BYTE, MORE_BYTES = 16, 1 << 28


class Unsupported(ModelError):
    """Why one operator cannot be a node; `from_tflite` collects these."""


@dataclass(eq=False)
class Network:
    """A model while its graph is being made.

    allowance  bytes that arrays made here may still have
    values     name of the value that holds a tensor
    known      array of a tensor that is known already: a constant, or computed from constants
    names      a name for every tensor that no other has
    """

    model: Model
    builder: Builder
    rounding: str
    allowance: int
    values: dict[int, str] = field(default_factory=dict)
    known: dict[int, np.ndarray] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            taken: dict[str, int] = {}
            for i, tensor in enumerate(self.model.tensors):
                taken.setdefault(tensor.name, i)
            self.names = tuple(
                t.name if t.name and taken[t.name] == i else f"{t.name or 'tensor'}#{i}"
                for i, t in enumerate(self.model.tensors)
            )

    def value(self, index: int) -> str:
        """The value that holds a tensor; a known one becomes a constant of the graph."""
        if index not in self.values:
            tensor = self.model.tensors[index]
            array = self.known[index]
            if array.dtype == np.float16:
                array = self.charged(array.astype(np.float32))
            if array.dtype == np.bool_:
                array = array.view(np.uint8)
            name, meaning = self.builder.fresh(self.names[index]), quantization(tensor)
            self.values[index] = self.builder.constant(name, array, meaning)
        return self.values[index]

    def charged(self, array: np.ndarray) -> np.ndarray:
        """An array made at import, if there may be one more of its size."""
        self.allowance -= array.nbytes
        if self.allowance < 0:
            raise Unsupported(
                f"constants of the file become more than {BYTES_PER_BYTE} times its size"
            )
        return array

    def know(self, index: int, array: np.ndarray) -> None:
        """Say what a tensor holds, if that is what the file says of its type."""
        tensor = self.model.tensors[index]
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise Unsupported(
                f"gives {array.dtype}{list(array.shape)}, the file says "
                f"{tensor.dtype}{list(tensor.shape)}"
            )
        array = self.charged(np.ascontiguousarray(array).reshape(tensor.shape))
        array.flags.writeable = False
        self.known[index] = array


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator: what an importer reads and calls."""

    network: Network
    operator: Operator

    @property
    def options(self) -> dict[str, Any]:
        """The operator's options by name."""
        return dict(self.operator.options)

    @property
    def count(self) -> int:
        """How many inputs the operator has."""
        return len(self.operator.inputs)

    def has(self, i: int) -> bool:
        """Whether input `i` is there."""
        return i < self.count and self.operator.inputs[i] >= 0

    def x(self, i: int = 0) -> Tensor:
        """The tensor that is input `i`; Unsupported if it is absent."""
        if not self.has(i):
            raise Unsupported(f"input {i} is absent")
        return self.network.model.tensors[self.operator.inputs[i]]

    def y(self, i: int = 0) -> Tensor:
        """The tensor that is output `i`."""
        if i >= len(self.operator.outputs):
            raise Unsupported(f"output {i} is absent")
        return self.network.model.tensors[self.operator.outputs[i]]

    def value(self, i: int = 0) -> str:
        """The value of input `i`."""
        self.x(i)
        return self.network.value(self.operator.inputs[i])

    def is_known(self, i: int) -> bool:
        """Whether input `i` is there and constant."""
        return self.has(i) and self.operator.inputs[i] in self.network.known

    def array(self, i: int, what: str) -> np.ndarray:
        """The array of input `i`; Unsupported if `what` it is is computed."""
        self.x(i)
        if not self.is_known(i):
            raise Unsupported(f"its {what} is computed, not constant")
        return self.network.known[self.operator.inputs[i]]

    def integers(self, i: int, what: str) -> list[int]:
        """The array of input `i` as a flat list of ints."""
        array = self.array(i, what)
        if array.dtype.kind not in "iu" or array.size > 64:
            raise Unsupported(f"its {what} is {array.dtype}{list(array.shape)}")
        return [int(v) for v in array.reshape(-1)]

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the first one; Unsupported if there is no such axis."""
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} of {rank} axes")
        return axis % rank

    def pair(self, name: str) -> tuple[int, int]:
        """Two options, `name_h` and `name_w`."""
        return int(self.options[f"{name}_h"]), int(self.options[f"{name}_w"])

    @property
    def activation(self) -> str | None:
        """The fused activation, as ops call it."""
        found = str(self.options.get("activation", "none"))
        if found in ("tanh", "sign_bit"):
            raise Unsupported(f"activation {found}; none, relu, relu6, relu_n1_to_1 are supported")
        return None if found == "none" else found

    @property
    def is_quantized(self) -> bool:
        """Whether the result is 8 bits with a scale, and so are the other tensors of the layer."""
        return quantization(self.y()) is not None

    def quantizations(self, *names: str) -> dict[str, Any]:
        """`x_q=..., y_q=...` of the first inputs and, for the last name, the result; {} for f32."""
        if not self.is_quantized:
            return {}
        tensors = [self.x(i) for i in range(len(names) - 1)] + [self.y()]
        return {n: meaning(t) for n, t in zip(names, tensors, strict=True)}

    @property
    def rounded(self) -> dict[str, Any]:
        """`rounding=...` where the result is quantized."""
        return {"rounding": self.network.rounding} if self.is_quantized else {}

    def real(self, i: int = 0) -> str:
        """Input `i` as f32: dequantized if it is 8 bits."""
        tensor = self.x(i)
        q = quantization(tensor)
        if tensor.dtype.kind == "f":
            return self.value(i)
        if self.is_known(i):
            return self.constant(dequantized(tensor, self.array(i, "input")), f"input_{i}")
        if q is None:
            raise Unsupported(f"{tensor.dtype} without a scale")
        return self.call(ops.dequantize, self.value(i), x_q=q)

    def constant(
        self, array: np.ndarray, part: str, quantization: Quantization | None = None
    ) -> str:
        """A constant made for this operator alone, named after its `part` in it."""
        name = f"{self.name}.{part}"
        return self.network.builder.constant(name, self.network.charged(array), quantization)

    @property
    def name(self) -> str:
        """The name of the operator: that of its first output."""
        self.y()
        return self.network.names[self.operator.outputs[0]]

    def call(self, function: Op, *inputs: str | None, **options: Any) -> str:
        """Add a node whose result only this operator needs; the name of its result."""
        builder = self.network.builder
        name = f"{self.name}.{function.name}"
        if name in builder.values:
            name = f"{name}#{len(builder.values)}"
        return builder.call(function, *inputs, name=name, **options)

    def give(self, function: Op, *inputs: str | None, at: int = 0, **options: Any) -> None:
        """Add the node that makes output `at`; Unsupported if it is not what the file says."""
        index, tensor = self.operator.outputs[at], self.y(at)
        name, builder = self.network.names[index], self.network.builder
        result = builder.call(
            function, *inputs, output=name, quantization=quantization(tensor), **options
        )
        found, wanted = builder.values[result].type, operand_type(tensor)
        if (found.scalar, found.shape) != (wanted.scalar, wanted.shape):
            raise Unsupported(f"gives {found}, the file says {wanted}")
        self.network.values[index] = result

    def give_real(self, function: Op, *inputs: str | None, **options: Any) -> None:
        """`give` for an op on f32: its result is quantized if the file says so."""
        if self.is_quantized:
            self.give_quantized(self.call(function, *inputs, **options))
        else:
            self.give(function, *inputs, **options)

    def give_quantized(self, real: str) -> None:
        """Give the f32 value `real` as 8 bits."""
        self.give(ops.quantize, real, y_q=meaning(self.y()), y_type=operand_type(self.y()).scalar)

    def give_shaped(self, value: str, at: int = 0) -> None:
        """Give `value` in the shape that the file says."""
        self.give(ops.reshape, value, at=at, shape=self.y(at).shape)


def scalar_type(tensor: Tensor) -> Scalar:
    """The element type of a tensor in a graph: a bool is a u8 of 0 or 1. Unsupported for f16."""
    dtype = np.dtype("u1") if tensor.dtype == np.bool_ else tensor.dtype.newbyteorder("=")
    if dtype not in BY_DTYPE:
        raise Unsupported(f"{tensor.dtype} results; only constants may be {tensor.dtype}")
    return BY_DTYPE[dtype]


def operand_type(tensor: Tensor) -> OperandType:
    """The operand type of a tensor."""
    return scalar_type(tensor)[tensor.shape]


def quantization(tensor: Tensor) -> Quantization | None:
    """What the integers of an 8-bit tensor mean, per tensor; None for others."""
    if tensor.dtype.itemsize != 1 or tensor.dtype == np.bool_ or tensor.scale is None:
        return None
    if tensor.zero_point is None or len(tensor.scale) != 1:
        return None
    return Quantization(tensor.scale[0], int(tensor.zero_point[0]))


def meaning(tensor: Tensor) -> Quantization:
    """`quantization`; Unsupported if the tensor has none."""
    found = quantization(tensor)
    if found is None:
        what = "a scale for each channel" if tensor.scale is not None else "no scale"
        raise Unsupported(f"{tensor.dtype} activations with {what}")
    return found


def dequantized(tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """The f32 array that a constant stands for: `scale * (q - zero_point)` in f32 for integers, by
    channel where the file says so.
    """
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if tensor.scale is None or tensor.zero_point is None:
        raise Unsupported(f"{tensor.dtype} constants without a scale")
    shape = [1] * array.ndim
    if len(tensor.scale) > 1:
        shape[tensor.axis] = len(tensor.scale)
    scale, zero = tensor.scale.reshape(shape), tensor.zero_point.reshape(shape)
    return (array.astype(np.int64) - zero).astype(np.float32) * scale
