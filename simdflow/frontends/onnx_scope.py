"""The tensors of an ONNX model while its graph is made: constants, stored integers and values.

Turns them into values of the graph when a node reads them, within a budget for what is computed on
the way. Knows no operator and no attribute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops
from ..dsl.errors import ModelError, OperandError
from ..dsl.types import BY_DTYPE, Scalar, u8
from ..graph.graph import Builder
from ..ops import Op, Quantization
from .onnx_tensor import checked_shape

# What folding constants may read and write, all together: this, and so many times the file's bytes.
FOLD_BYTES = 2**28
FOLD_FACTOR = 16
# Nodes that one model may become.
MAX_GRAPH_NODES = 1 << 18


class Unsupported(Exception):
    """Why one node cannot be imported; all of them are reported together."""


@dataclass(frozen=True, eq=False)
class Stored:
    """8-bit or 32-bit integers that mean scale * (array - zero_point), with a scale for all or for
    each place of `axis`.
    """

    array: np.ndarray
    scale: np.ndarray
    zero_point: int
    axis: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the model: known now (`array`), stored as integers (`stored`), or the value
    `name` of the graph. bool is u8 in a graph.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    name: str | None = None
    array: np.ndarray | None = None
    stored: Stored | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.dtype == np.float32


def known(array: Any, name: str | None = None) -> Tensor:
    """The tensor of a constant; `name` is what its value in the graph will be called."""
    found = np.asarray(array)
    return Tensor(found.shape, found.dtype, name, found)


@dataclass
class Scope:
    """The graph that is being made, and the tensors known so far by their names in the model."""

    builder: Builder
    reserved: frozenset[str]
    opset: int
    budget: int
    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    # What is the opposite of a truth, by the name of its value.
    inverses: dict[str, Tensor] = field(default_factory=dict)
    _constants: dict[int, tuple[np.ndarray, str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def charge(self, size: int) -> None:
        """Take bytes off the budget for constants. Raises Unsupported when it is spent."""
        self.budget -= size
        if self.budget < 0:
            raise Unsupported(f"{size} bytes of constants to compute are beyond the file's budget")

    def fresh(self, name: str) -> str:
        """A name that neither the model nor the graph has."""
        # Counted on from the last time: one node may become as many values as a file has bytes.
        n = self._counts.get(name, 1)
        found = name if n == 1 else f"{name}_{n}"
        while found in self.reserved or found in self.builder.values:
            n += 1
            found = f"{name}_{n}"
        self._counts[name] = n
        return found

    def value(self, tensor: Tensor, hint: str) -> str:
        """The name of a tensor in the graph; constants enter it when first asked for."""
        if tensor.stored is not None:
            tensor = self._dequantized(tensor.stored, hint)
        if tensor.array is None:
            assert tensor.name is not None
            return tensor.name
        key = id(tensor.array)
        if key not in self._constants:
            array = graph_array(tensor.array)
            own = tensor.name is not None and tensor.name not in self.builder.values
            name = str(tensor.name) if own else self.fresh(tensor.name or hint)
            self.builder.constant(name, array)
            self._constants[key] = tensor.array, name
        return self._constants[key][1]

    def call(self, op: Op, name: str, tensors: tuple[Tensor | None, ...], **options: Any) -> Tensor:
        """Add a node. Raises Unsupported for what the op refuses."""
        if len(self.builder.values) > MAX_GRAPH_NODES:
            raise Unsupported(f"the graph has more than {MAX_GRAPH_NODES} values")
        names = [None if t is None else self.value(t, f"{name}.constant") for t in tensors]
        try:
            kinds = [None if n is None else self.builder.values[n].type for n in names]
            checked_shape(op.shape(*kinds, **options).shape, name)
            made = self.builder.call(op, *names, output=self.fresh(name), **options)
        except (OperandError, ModelError) as error:
            raise Unsupported(str(error)) from error
        kind = self.builder.values[made].type
        return Tensor(kind.shape, kind.scalar.dtype, made)

    def _dequantized(self, s: Stored, hint: str) -> Tensor:
        """The node that widens stored integers; the axis of the scales is last where there are
        several.
        """
        array, back = s.array, tuple(range(s.array.ndim))
        if s.scale.size > 1 and s.axis != array.ndim - 1:
            array = np.ascontiguousarray(np.moveaxis(array, s.axis, -1))
            back = tuple(np.argsort([*(i for i in range(array.ndim) if i != s.axis), s.axis]))
        q = Quantization(s.scale, s.zero_point)
        made = self.call(ops.dequantize, f"{hint}.dequantized", (known(array),), x_q=q)
        if back != tuple(range(len(back))):
            axes = tuple(int(i) for i in back)
            made = self.call(ops.transpose, f"{hint}.transposed", (made,), axes=axes)
        return made


def graph_array(array: np.ndarray) -> np.ndarray:
    """The array as a graph holds it: f64 rounded to f32, bool as u8. Raises Unsupported for types
    that it has not.
    """
    if array.dtype == np.float64:
        return array.astype(np.float32)
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    scalar_of(array.dtype)
    return array


def scalar_of(dtype: np.dtype[Any]) -> Scalar:
    """The element type of a value in a graph: u8 for bool. Raises Unsupported for others."""
    if dtype == np.bool_:
        return u8
    if dtype not in (np.float32, np.uint8, np.int8, np.int32, np.int64):
        raise Unsupported(f"{dtype} is computed; float, uint8, int8, int32, int64 and bool can be")
    return BY_DTYPE[dtype]


def quantization(scale: np.ndarray, zero_point: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Scales as a vector, or a number where all are equal, and the one zero point.

    Raises Unsupported for zero points that differ.
    """
    scales = np.asarray(scale, np.float32).reshape(-1)
    zeros = np.zeros(1, np.int64) if zero_point is None else np.asarray(zero_point).reshape(-1)
    if not scales.size or not zeros.size or (zeros != zeros[0]).any():
        raise Unsupported("zero points that differ between channels")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise Unsupported(f"scale={scales[:4]}; positive numbers are allowed")
    same = bool((scales == scales[0]).all())
    return (scales[0] if same else scales), int(zeros[0])


def keeps_axis(stored: Stored, shape: tuple[int, ...]) -> bool:
    """Whether a reshape leaves the axis of the scales, and what is before it, as it is."""
    until = stored.axis + 1
    return stored.scale.size == 1 or stored.array.shape[:until] == shape[:until]


def counted(axis: int, rank: int) -> int:
    """An axis counted from the first. Raises Unsupported outside the rank."""
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} of {rank}")
    return axis % rank
