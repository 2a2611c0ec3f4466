"""Turns an operator, its inputs, results and options into a .tflite file and arrays for it.

For tests only; `tflite_cases` lists the operators. Everything is made from the name of the case.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tflite_file import FileOperator, FileTensor, write

Shape = tuple[int, ...]
Quant = Any  # (scale, zero point), or (scales, zero point, axis)


@dataclass(frozen=True, eq=False)
class Case:
    """A model and arrays for its inputs."""

    content: bytes
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class In:
    """An input of an operator; one with `constant` is stored in the file."""

    shape: Shape
    dtype: str = "float32"
    quant: Quant | None = None
    low: float = -3.0
    high: float = 3.0
    constant: Any = None


@dataclass(frozen=True)
class Out:
    """A result."""

    shape: Shape
    dtype: str = "float32"
    quant: Quant | None = None


def ints(*values: int, dtype: str = "int32") -> In:
    """A constant vector of integers."""
    return In((len(values),), dtype, constant=np.array(values, dtype))


def constant(array: Any, dtype: str = "float32", quant: Quant | None = None) -> In:
    """A constant."""
    array = np.asarray(array, dtype)
    return In(array.shape, dtype, quant, constant=array)


class Cases(dict[str, Callable[[], Case]]):
    """Models by name; a name is the operator's, and after a colon what is special."""

    def add(
        self,
        name: str,
        inputs: Sequence[In],
        outputs: Sequence[Out],
        table: str = "",
        version: int = 1,
        **fields: Any,
    ) -> None:
        """Add a model of one operator, whose options `table` has `fields`."""
        assert name not in self, name
        self[name] = lambda: _made(name, inputs, outputs, table, version, fields)


def _made(
    name: str,
    inputs: Sequence[In],
    outputs: Sequence[Out],
    table: str,
    version: int,
    fields: dict[str, Any],
) -> Case:
    import tflite

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tensors, arrays, given = [], [], []
    for at, i in enumerate(inputs):
        tensors.append(_tensor(i.shape, i.dtype, i.quant, i.constant))
        if i.constant is None:
            given.append(at)
            arrays.append(_random(rng, i))
    tensors += [_tensor(o.shape, o.dtype, o.quant, None) for o in outputs]
    results = tuple(range(len(inputs), len(tensors)))
    code = getattr(tflite.BuiltinOperator, name.split(":")[0])
    operator = FileOperator(code, tuple(range(len(inputs))), results, table, fields, version)
    return Case(write(tensors, [operator], tuple(given), results), tuple(arrays))


def _tensor(shape: Shape, dtype: str, quant: Any, data: Any) -> FileTensor:
    """A tensor; `quant` is (scale, zero point), or (scales, zero point, axis)."""
    if quant is None:
        return FileTensor(shape, dtype, data)
    scale, zero, axis = (*quant, 0)[:3]
    scales = tuple(scale) if isinstance(scale, tuple) else (scale,)
    return FileTensor(shape, dtype, data, scales, (zero,) * len(scales), axis)


def _random(rng: np.random.Generator, i: In) -> np.ndarray:
    dtype = np.dtype(i.dtype)
    if dtype.kind == "f":
        return rng.uniform(i.low, i.high, i.shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, i.shape).astype(dtype)
    if dtype.itemsize == 1:
        info = np.iinfo(dtype)
        return rng.integers(info.min, int(info.max) + 1, i.shape).astype(dtype)
    return rng.integers(int(i.low), int(i.high) + 1, i.shape).astype(dtype)


F, X = In((2, 5, 4, 3)), (2, 5, 4, 3)
A, B = (0.05, 3), (0.08, -10)


def in8(shape: Shape, quant: Quant = A) -> In:
    """An int8 input."""
    return In(shape, "int8", quant)


def out8(shape: Shape, quant: Quant = B) -> Out:
    """An int8 result."""
    return Out(shape, "int8", quant)
