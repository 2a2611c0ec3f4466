"""Tensor: a value of a graph that is being traced.

Stands for an array while a function runs: it has its shape and type, and every op, kernel and
operator on it is recorded as a node. It has no numbers, and says so where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import ops
from ..dsl.errors import ModelError, OperandError
from ..dsl.types import BY_DTYPE, OperandType, Scalar
from .graph import Function

if TYPE_CHECKING:
    from .trace import Recorder

Axes = int | tuple[int, ...] | None


class Tensor:
    """A symbolic tensor. Operators broadcast as numpy does; basic indexing, `.reshape`,
    `.transpose`, `.T`, `.sum`, `.mean`, `.max` and `.min` are those of numpy.
    """

    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    @property
    def kind(self) -> OperandType:
        """The operand type: `sf.f32[1, 96, 96, 3]`."""
        return self.recorder.builder.values[self.name].type

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.kind.shape

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of an element."""
        return self.kind.scalar.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.kind.size

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()

    def __simdflow_op__(
        self, function: Function, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Tensor:
        """What an op or kernel does instead of running: record the call."""
        return self.recorder.call(function, arguments, options)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, of which one size may be -1."""
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        return ops.reshape(self, shape=tuple(int(n) for n in sizes))

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in another order, by default the reverse."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        order = order or tuple(reversed(range(self.ndim)))
        return ops.transpose(self, axes=tuple(int(a) % max(self.ndim, 1) for a in order))

    def astype(self, to: Scalar | Any) -> Tensor:
        """The values in another element type; see `ops.cast`."""
        scalar = to if isinstance(to, Scalar) else BY_DTYPE.get(np.dtype(to))
        return ops.cast(self, to=scalar)

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The sum over axes, by default all."""
        return ops.reduce_sum(self, axes=_axes(axis), keepdims=keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The mean over axes, by default all."""
        return ops.reduce_mean(self, axes=_axes(axis), keepdims=keepdims)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The maximum over axes, by default all."""
        return ops.reduce_max(self, axes=_axes(axis), keepdims=keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """The minimum over axes, by default all."""
        return ops.reduce_min(self, axes=_axes(axis), keepdims=keepdims)

    def __getitem__(self, key: Any) -> Tensor:
        """Basic indexing: integers, slices, `...` and None."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(isinstance(k, (Tensor, np.ndarray, list, bool)) for k in keys):
            raise OperandError(
                f"{self.name}: an index of {[type(k).__name__ for k in keys]} is not traced; "
                "integers, slices, ... and None are. Use ops.gather for entries by number"
            )
        if keys.count(Ellipsis) > 1:
            raise OperandError(f"{self.name}: an index has one ..., not more. Remove the others")
        given = sum(k is not None and k is not Ellipsis for k in keys)
        if given > self.ndim:
            raise OperandError(
                f"{self.name}: {given} indices are given for shape={list(self.shape)}, which has "
                f"{self.ndim} axes. Give fewer"
            )
        rest = [slice(None)] * (self.ndim - given)
        at = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
        full = [*keys[:at], *rest, *keys[at + 1 :]]
        return self._taken(full)

    def _taken(self, keys: list[Any]) -> Tensor:
        """The part that one key for each axis, and None for each new one, selects."""
        bounds, shape = [], []
        sizes = iter(self.shape)
        for k in keys:
            if k is None:
                shape.append(1)
                continue
            n = next(sizes)
            if isinstance(k, slice):
                bounds.append(k.indices(n))
                shape.append(len(range(*bounds[-1])))
                continue
            index = k.__index__()
            if not -n <= index < n:
                raise IndexError(f"{self.name}: index {index} is not inside an axis of {n}")
            bounds.append((index % n, index % n + 1, 1))
        starts, stops, steps = zip(*bounds, strict=True) if bounds else ((), (), ())
        part = self
        if any(len(range(*b)) != n or b[2] != 1 for b, n in zip(bounds, self.shape, strict=True)):
            part = ops.slice(self, starts=starts, stops=stops, steps=steps)
        return part if part.shape == tuple(shape) else part.reshape(tuple(shape))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"{self.name}: a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    def __pow__(self, exponent: float) -> Tensor:
        return ops.pow(self, exponent=exponent)

    def __lt__(self, other: Any) -> Tensor:
        return ops.less(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return ops.greater(self, other)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __abs__(self) -> Tensor:
        return ops.abs(self)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """numpy's functions of each element: those of an operator with an array on the left."""
        name = UFUNCS.get(function.__name__)
        if name is None or method != "__call__" or options:
            self._no_numbers(f"np.{function.__name__}")
        return getattr(ops, name)(*inputs)

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        """numpy's other functions, which want the numbers."""
        self._no_numbers(f"np.{function.__name__}")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._no_numbers("numpy")

    def __bool__(self) -> NoReturn:
        self._no_numbers("a condition (if, while, and, or)")

    def __float__(self) -> NoReturn:
        self._no_numbers("float()")

    def __int__(self) -> NoReturn:
        self._no_numbers("int()")

    def __index__(self) -> NoReturn:
        self._no_numbers("an index or range()")

    def _no_numbers(self, what: str) -> NoReturn:
        raise ModelError(
            f"{self.recorder.builder.name}: {what} asks for the numbers in {self.name}="
            f"{self.kind}, which has none while the function is traced; simdflow.ops, operators "
            "and shapes are allowed. Use an op, or compute it outside and pass the array"
        )

    def __repr__(self) -> str:
        return f"<tensor {self.name}: {self.kind}>"


# What numpy calls when an array stands on the left of an operator, and the functions like it.
UFUNCS = {
    "absolute": "abs",
    "add": "add",
    "divide": "div",
    "exp": "exp",
    "less": "less",
    "greater": "greater",
    "log": "log",
    "matmul": "matmul",
    "maximum": "maximum",
    "minimum": "minimum",
    "multiply": "mul",
    "negative": "neg",
    "sqrt": "sqrt",
    "subtract": "sub",
    "tanh": "tanh",
}


def _axes(axis: Axes) -> tuple[int, ...] | None:
    return (axis,) if isinstance(axis, int) else axis
