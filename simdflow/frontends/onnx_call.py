"""One node of an ONNX model as its importer sees it, and what an importer is.

Gives inputs, attributes and the ops that the node becomes. Moves (reshape, transpose, slice...) of
what is known are done with numpy, so that one importer serves weights, shapes and activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import ops
from ..dsl.types import f32
from ..ops import Op
from .onnx_file import OnnxNode
from .onnx_scope import Scope, Tensor, Unsupported, counted, keeps_axis, known, scalar_of
from .onnx_tensor import checked_shape


class Call:
    """One node of the model, as its importer sees it: inputs, attributes, and the ops it becomes.

    Attributes are remembered when read, so that one nobody read is found.
    """

    def __init__(self, node: OnnxNode, inputs: tuple[Tensor | None, ...], scope: Scope) -> None:
        self.node, self.inputs, self.scope, self.opset = node, inputs, scope, scope.opset
        self.unread = set(node.attributes)
        self._title = next((o for o in node.outputs if o), node.name)

    def given(self, at: int) -> Tensor | None:
        """Input `at`, or None if it is left out."""
        return self.inputs[at] if at < len(self.inputs) else None

    def need(self, at: int) -> Tensor:
        """Input `at`."""
        found = self.given(at)
        if found is None:
            raise Unsupported(f"input {at} is missing")
        return found

    def floats(self, at: int) -> Tensor:
        """Input `at`, which must be f32."""
        found = self.need(at)
        if not found.is_float and not (found.array is not None and found.dtype == np.float64):
            raise Unsupported(f"input {at} is {found.dtype}; float is supported")
        return found

    def constant(self, at: int) -> np.ndarray:
        """Input `at`, which must be known now."""
        found = self.need(at).array
        if found is None:
            raise Unsupported(f"input {at} is computed; a constant is supported")
        return found

    def optional(self, at: int) -> np.ndarray | None:
        """Input `at`, known now, or None if it is left out."""
        return None if self.given(at) is None else self.constant(at)

    def whole(self, at: int, name: str) -> tuple[int, ...] | None:
        """Integers that were an attribute in earlier opsets and are input `at` in later ones."""
        if name in self.node.attributes:
            return self.ints(name)
        found = self.optional(at)
        return None if found is None else tuple(int(v) for v in found.reshape(-1))

    def _read(self, name: str, kinds: type | tuple[type, ...], default: Any) -> Any:
        self.unread.discard(name)
        if name not in self.node.attributes:
            return default
        value = self.node.attributes[name]
        if not isinstance(value, kinds):
            raise Unsupported(f"attribute {name}={value!r} has a wrong type")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._required(name, self._read(name, int, default)))

    def real(self, name: str, default: float | None = None) -> float:
        return float(self._required(name, self._read(name, (float, int), default)))

    def text(self, name: str, default: str) -> str:
        return str(self._read(name, str, default))

    def ints(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        found = self._required(name, self._read(name, tuple, default))
        if not all(isinstance(v, int) for v in found):
            raise Unsupported(f"attribute {name}={found!r} is not integers")
        return tuple(found)

    def reals(self, name: str) -> tuple[float, ...]:
        found = self._required(name, self._read(name, tuple, None))
        if not all(isinstance(v, float) for v in found):
            raise Unsupported(f"attribute {name}={found!r} is not numbers")
        return tuple(found)

    def array(self, name: str, default: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._read(name, np.ndarray, default)
        return found

    def _required(self, name: str, value: Any) -> Any:
        if value is None:
            raise Unsupported(f"attribute {name} is missing")
        return value

    def one(self, name: str, allowed: tuple[Any, ...], default: Any) -> Any:
        """An attribute with few allowed values."""
        self.unread.discard(name)
        value = self.node.attributes.get(name, default)
        if value not in allowed:
            raise Unsupported(f"{name}={value!r}; {', '.join(map(repr, allowed))} are supported")
        return value

    def axis(self, rank: int, default: int, name: str = "axis") -> int:
        """The attribute `axis`, counted from the first."""
        return counted(self.integer(name, default), rank)

    def emit(self, op: Op, *tensors: Tensor | None, **options: Any) -> Tensor:
        """Add `op(*tensors, **options)` to the graph; its result."""
        return self.scope.call(op, f"{self._title}.{op.name}", tensors, **options)

    def typed(self, tensor: Tensor, dtype: Any) -> Tensor:
        """The tensor as of another type with the same form in a graph (bool and uint8)."""
        return replace(tensor, dtype=np.dtype(dtype))

    # Moves: of constants in numpy, of the rest as nodes.

    def _moved(
        self, x: Tensor, shape: tuple[int, ...], do: Callable[[np.ndarray], np.ndarray]
    ) -> Tensor:
        """A known tensor after a move to `shape`."""
        assert x.array is not None
        checked_shape(shape, self.node.label)
        self.scope.charge(math.prod(shape) * x.dtype.itemsize)
        array = do(x.array)
        return Tensor(array.shape, array.dtype, None, array)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if shape == x.shape:
            return x
        if math.prod(shape) != math.prod(x.shape):
            raise Unsupported(f"shape {list(x.shape)} does not become {list(shape)}")
        if x.array is not None:
            return self._moved(x, shape, lambda a: a.reshape(shape))
        if x.stored is not None and keeps_axis(x.stored, shape):
            stored = replace(x.stored, array=x.stored.array.reshape(shape))
            return replace(x, shape=shape, stored=stored)
        return self.typed(self.emit(ops.reshape, x, shape=shape), x.dtype)

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        if axes == tuple(range(x.rank)):
            return x
        shape = tuple(x.shape[i] for i in axes)
        if x.array is not None:
            return self._moved(x, shape, lambda a: np.ascontiguousarray(a.transpose(axes)))
        if x.stored is not None:
            s = x.stored
            moved = replace(
                s,
                array=np.ascontiguousarray(s.array.transpose(axes)),
                axis=axes.index(s.axis) if s.scale.size > 1 else 0,
            )
            return replace(x, shape=shape, stored=moved)
        return self.typed(self.emit(ops.transpose, x, axes=axes), x.dtype)

    def expand(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if shape == x.shape:
            return x
        if x.array is not None:
            return self._moved(x, shape, lambda a: np.broadcast_to(a, shape))
        return self.typed(self.emit(ops.expand, x, shape=shape), x.dtype)

    def concat(self, tensors: tuple[Tensor, ...], axis: int) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        arrays = [t.array for t in tensors if t.array is not None]
        if len(arrays) == len(tensors):
            if any(a.ndim != arrays[0].ndim or a.dtype != arrays[0].dtype for a in arrays):
                raise Unsupported("parts of different rank or type")
            self.scope.charge(sum(a.nbytes for a in arrays))
            return known(np.concatenate(arrays, axis))
        return self.typed(self.emit(ops.concat, *tensors, axis=axis), tensors[0].dtype)

    def slice(self, x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
        """Python's x[start:stop:step] along one axis, after .indices()."""
        full = (0, x.shape[axis], 1)
        if (start, stop, step) == full:
            return x
        if x.array is not None:
            size = len(range(start, stop, step))
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            at = np.arange(start, stop, step)
            return self._moved(x, shape, lambda a: np.take(a, at, axis))
        each = [(0, n, 1) for n in x.shape]
        each[axis] = start, stop, step
        starts, stops, steps = zip(*each, strict=True)
        return self.typed(self.emit(ops.slice, x, starts=starts, stops=stops, steps=steps), x.dtype)

    def gather(self, x: Tensor, at: np.ndarray, axis: int) -> Tensor:
        """The places `at` (one axis, none negative) of an axis; runs of them are slices."""
        steps = np.diff(at)
        if at.size == 1 or (at.size and steps[0] > 0 and (steps == steps[0]).all()):
            step = int(steps[0]) if at.size > 1 else 1
            return self.slice(x, axis, int(at[0]), int(at[-1]) + 1, step)
        if x.array is not None:
            shape = (*x.shape[:axis], at.size, *x.shape[axis + 1 :])
            return self._moved(x, shape, lambda a: np.take(a, at, axis))
        made = self.emit(ops.gather, x, known(at.astype(np.int64)), axis=axis)
        return self.typed(made, x.dtype)

    def cast(self, x: Tensor, to: Any) -> Tensor:
        """The tensor in another element type; bool by comparison with 0."""
        to = np.dtype(to)
        if x.dtype == to:
            return x
        if x.array is not None:
            return self._moved(x, x.shape, lambda a: a.astype(to))
        if to == np.bool_:
            zero = known(np.float32(0))
            absent = self.emit(ops.equal, self.cast(x, np.float32), zero)
            present = self.emit(ops.equal, self.emit(ops.cast, absent, to=f32), zero)
            return self.typed(present, np.bool_)
        wanted = scalar_of(to)
        if wanted == scalar_of(x.dtype):
            return self.typed(x, to)
        return self.emit(ops.cast, x, to=wanted)


Importer = Callable[[Call], Tensor | tuple[Tensor | None, ...]]


@dataclass(frozen=True)
class Operator:
    """How one kind of ONNX node is imported.

    constants   the inputs that must be known when the model is imported
    note        what of the operator is not supported, for the table in the documentation
    """

    importer: Importer
    constants: tuple[int, ...] = ()
    note: str = ""


Table = Mapping[str, Operator]
