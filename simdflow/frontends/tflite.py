"""Turns the bytes of a .tflite file into frozen dataclasses: tensors, operators in execution order,
inputs, outputs.

A file is hostile input: every count, offset, index and size is checked before it is used, and what
is wrong meets a ModelError. Nothing is executed or compiled here, and whether an operator is
supported is for the graph to say.
"""

import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dsl.errors import ModelError
from .tflite_bytes import FileBytes
from .tflite_options import Option, read_options
from .tflite_sparse import densified, read_sparsity

MAX_FILE_BYTES = 2**31 - 1
MAX_RANK = 8
MAX_TENSOR_BYTES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of the file.

    `dtype` is a numpy dtype; `data` is a read-only array of `shape` for constants (a sparse one is
    made dense), else None;
    `scale` (f32) and `zero_point` (int64) are read-only vectors of one element or of shape[axis],
    or None when not quantized: real = scale * (q - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: NDArray[Any] | None
    scale: NDArray[np.float32] | None
    zero_point: NDArray[np.int64] | None
    axis: int


@dataclass(frozen=True)
class Operator:
    """One operator: its `kind` ("CONV_2D", "CUSTOM(name)"), indices of its tensors (-1: an absent
    optional input) and its options.

    `options` are (name, value) pairs sorted by name, in lower case ("padding" is "same" or "valid",
    "activation" is "none", "relu", "relu6", ...); kinds whose options nobody here reads have none.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[tuple[str, Option], ...] = ()

    def option(self, name: str) -> Option:
        """The value of one option; KeyError if this kind does not have it."""
        return dict(self.options)[name]


@dataclass(frozen=True)
class Model:
    """One graph: `operators` in an order in which every input is known before it is used."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 6: "?", 9: "i1"}


def read(path: str | os.PathLike[str]) -> Model:
    """The model in the file at `path`. ModelError if it is no regular file, too large or
    malformed.
    """
    return parse(read_bytes(path), Path(path).name)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of the file at `path`. ModelError if it is no regular file or too large."""
    file = Path(path)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(
                f"tflite: path={str(file)!r} is not a regular file. Give a .tflite file"
            )
        if status.st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"tflite: path={str(file)!r} has {status.st_size} bytes; at most "
                f"{MAX_FILE_BYTES} are allowed. Give a smaller model"
            )
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"tflite: path={str(file)!r} cannot be read: {error.strerror}") from error


def parse(content: bytes, name: str = "model") -> Model:
    """The model in the bytes of a .tflite file; constants are views of `content` where they are
    aligned.

    `name` stands in error messages. Raises ModelError for a file that is malformed, has more than
    one graph, has variable tensors or ones of other types than f32 f16 i8 u8 i32 i64 bool, or when
    the package `tflite` is missing.
    """
    content = bytes(content)
    if len(content) < 8 or content[4:8] != b"TFL3":
        raise ModelError(
            f"{name}: identifier={content[4:8]!r} is not known; b'TFL3' is. Give a .tflite file"
        )
    schema = _schema(name)
    try:
        return _File(content, name, schema).model()
    except ModelError:
        raise
    except (struct.error, IndexError, ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"{name}: bytes={len(content)} are damaged ({type(error).__name__}: {error}). "
            "Fetch the file again"
        ) from error


def _schema(name: str) -> ModuleType:
    try:
        import tflite
    except ImportError as error:
        raise ModelError(
            f"{name}: package=tflite is not installed; it holds the schema of .tflite files. "
            "Install simdflow[tflite]"
        ) from error
    module: ModuleType = tflite
    return module


class _File(FileBytes):
    """The tables of the file: each method reads one kind of them."""

    def __init__(self, content: bytes, name: str, schema: ModuleType) -> None:
        super().__init__(content, name, schema)
        codes = vars(schema.BuiltinOperator)
        self.kinds = {code: kind for kind, code in codes.items() if isinstance(code, int)}

    def model(self) -> Model:
        root = self.schema.Model.GetRootAs(self.content, 0)
        if root.Version() != 3:
            raise self.refuse("version", root.Version(), "is not known; 3 is")
        graphs = self.entries(root.SubgraphsLength(), "subgraphs")
        if graphs != 1:
            raise self.refuse(
                "subgraphs",
                graphs,
                "is not supported; 1 is",
                "Export the model without control flow",
            )
        graph = root.Subgraphs(0)
        kinds = self.operator_kinds(root)
        buffers = self.entries(root.BuffersLength(), "buffers")
        count = self.entries(graph.TensorsLength(), "tensors")
        tensors = tuple(self.tensor(root, graph.Tensors(i), buffers, i) for i in range(count))
        inputs = self.integers(graph, "Inputs", 4, "inputs")
        outputs = self.integers(graph, "Outputs", 4, "outputs")
        steps = self.entries(graph.OperatorsLength(), "operators")
        operators = tuple(self.operator(graph.Operators(i), kinds, i) for i in range(steps))
        model = Model(tensors, operators, inputs, outputs)
        _check_order(model, self.name)
        return model

    def operator_kinds(self, root: Any) -> list[str]:
        kinds = []
        for i in range(self.entries(root.OperatorCodesLength(), "operator_codes")):
            code = root.OperatorCodes(i)
            # Old files have 0 in the 32-bit field, new ones at most 127 in the 8-bit field. The
            # schema package ignores a 32-bit field below 127, the runtime takes the larger one.
            where = code._tab.Offset(10)
            wide = struct.unpack_from("<i", self.content, code._tab.Pos + where)[0] if where else 0
            number = max(wide, code.DeprecatedBuiltinCode())
            if number not in self.kinds:
                raise self.refuse(
                    f"operator_codes[{i}]",
                    number,
                    "is not in the schema",
                    "Update the package tflite",
                )
            kind = self.kinds[number]
            if kind == "CUSTOM":
                kind = f"CUSTOM({self.text(code.CustomCode(), f'operator_codes[{i}].custom_code')})"
            kinds.append(kind)
        return kinds

    def operator(self, entry: Any, kinds: list[str], index: int) -> Operator:
        field, code = f"operators[{index}]", entry.OpcodeIndex()
        if not 0 <= code < len(kinds):
            raise self.refuse(
                f"{field}.opcode_index", code, f"is out of range; 0 to {len(kinds) - 1} are allowed"
            )
        inputs = self.integers(entry, "Inputs", 4, f"{field}.inputs")
        outputs = self.integers(entry, "Outputs", 4, f"{field}.outputs")
        return Operator(
            kinds[code],
            inputs,
            outputs,
            read_options(self, entry, kinds[code], field),
        )

    def tensor(self, root: Any, entry: Any, buffers: int, index: int) -> Tensor:
        field = f"tensors[{index}]"
        number = entry.Type()
        if number not in _DTYPES:
            raise self.refuse(
                f"{field}.type",
                number,
                "is not supported; f32 f16 i8 u8 i32 i64 bool are",
                "Export the model in these",
            )
        if entry.IsVariable():
            raise self.refuse(
                field, "variable", "is not supported; constants are", "Export the model stateless"
            )
        rank = entry.ShapeLength()
        if not 0 <= rank <= MAX_RANK:
            raise self.refuse(f"{field}.rank", rank, f"is too large; at most {MAX_RANK} is allowed")
        shape, dtype = self.integers(entry, "Shape", 4, f"{field}.shape"), np.dtype(_DTYPES[number])
        size = math.prod(shape) * dtype.itemsize
        if any(d < 0 for d in shape) or size > MAX_TENSOR_BYTES:
            raise self.refuse(
                f"{field}.shape",
                shape,
                f"is not possible; sizes from 0 and {MAX_TENSOR_BYTES} bytes in all are",
            )
        name = self.text(entry.Name(), f"{field}.name")
        data = self.constant(root, entry, buffers, shape, dtype, field)
        scale, zero_point, axis = self.quantization(entry.Quantization(), shape, dtype, field)
        return Tensor(name, shape, dtype, data, scale, zero_point, axis)

    def constant(
        self,
        root: Any,
        entry: Any,
        buffers: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        field: str,
    ) -> NDArray[Any] | None:
        number, sparsity = entry.Buffer(), entry.Sparsity()
        if not 0 <= number < buffers:
            raise self.refuse(
                f"{field}.buffer", number, f"is out of range; 0 to {buffers - 1} are allowed"
            )
        if number == 0:
            return None
        buffer, count = root.Buffers(number), math.prod(shape)
        start, size = buffer.Offset(), buffer.Size()
        if start > 1:  # A model above 2 GB keeps its buffers behind the tables.
            if start + size > len(self.content):
                raise self.refuse(
                    f"{field}.buffer",
                    (start, size),
                    f"ends after byte {len(self.content)}, the last",
                )
            raw = np.frombuffer(self.content, np.uint8, size, start)
        else:
            size = buffer.DataLength()
            raw = np.asarray(buffer.DataAsNumpy()) if size else np.empty(0, np.uint8)
        if size == 0:
            return np.empty(shape, dtype) if count == 0 else None
        tree = None if sparsity is None else read_sparsity(self, sparsity, f"{field}.sparsity")
        if tree is not None:
            count = size // dtype.itemsize
        if size != count * dtype.itemsize:
            raise self.refuse(
                f"{field}.buffer",
                size,
                f"bytes do not fit shape {shape} of {dtype}; {count * dtype.itemsize} do",
            )
        if dtype.kind == "b" and raw[: self.charge(size, 1, f"{field}.buffer")].max() > 1:
            raise self.refuse(f"{field}.buffer", "bool", "has bytes other than 0 and 1")
        array = raw.view(dtype)
        if not array.flags.aligned:
            self.charge(size, 1, f"{field}.buffer")
            array = array.copy()
            array.flags.writeable = False
        if tree is not None:
            return densified(self, tree, array, shape, f"{field}.sparsity")
        return array.reshape(shape)

    def quantization(
        self, entry: Any, shape: tuple[int, ...], dtype: np.dtype[Any], field: str
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None, int]:
        if entry is None or entry.ScaleLength() == 0:
            return None, None, 0
        scale = self.vector(entry, "Scale", 4, f"{field}.scale").astype(np.float32)
        zeros = self.vector(entry, "ZeroPoint", 8, f"{field}.zero_point").astype(np.int64)
        zeros = np.zeros(len(scale), np.int64) if len(zeros) == 0 else zeros
        axis = entry.QuantizedDimension()
        if len(scale) > 1 and not (0 <= axis < len(shape) and len(scale) == shape[axis]):
            raise self.refuse(
                f"{field}.scale", len(scale), f"elements do not fit axis {axis} of shape {shape}"
            )
        if len(zeros) not in (1, len(scale)) or not np.all(np.isfinite(scale) & (scale > 0)):
            raise self.refuse(
                f"{field}.scale",
                scale[:4],
                "is not usable; positive numbers, each with a zero point, are",
            )
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            if zeros.min() < bounds.min or zeros.max() > bounds.max:
                raise self.refuse(
                    f"{field}.zero_point",
                    zeros[:4],
                    f"is out of range; {bounds.min} to {bounds.max} are allowed",
                )
        zeros = np.broadcast_to(zeros, scale.shape).copy()
        scale.flags.writeable = zeros.flags.writeable = False
        return scale, zeros, axis


def _check_order(model: Model, name: str) -> None:
    """Refuses indices out of range, values used before they are made, made twice, or never made."""
    count = len(model.tensors)
    known = {i for i, tensor in enumerate(model.tensors) if tensor.data is not None}

    def check(field: str, indices: tuple[int, ...], optional: bool = False) -> None:
        for i in indices:
            if not (0 <= i < count or (optional and i == -1)):
                raise ModelError(
                    f"{name}: {field}={i} is out of range; 0 to {count - 1} are allowed. "
                    "Fetch the file again"
                )

    def make(field: str, indices: tuple[int, ...]) -> None:
        for i in indices:
            if i in known:
                raise ModelError(
                    f"{name}: {field}={i} is made twice; a tensor has one source. "
                    "Fetch the file again"
                )
            known.add(i)

    def use(field: str, indices: tuple[int, ...]) -> None:
        for i in indices:
            if i != -1 and i not in known:
                raise ModelError(
                    f"{name}: {field}={i} is used before it is made; operators must come in "
                    "topological order. Fetch the file again"
                )

    check("inputs", model.inputs)
    make("inputs", model.inputs)
    for step, operator in enumerate(model.operators):
        field = f"operators[{step}]"
        check(f"{field}.inputs", operator.inputs, optional=True)
        check(f"{field}.outputs", operator.outputs)
        use(f"{field}.inputs", operator.inputs)
        make(f"{field}.outputs", operator.outputs)
    check("outputs", model.outputs)
    use("outputs", model.outputs)
