"""Turns a few tensors and operators into the bytes of a .tflite file, also into wrong ones.

For tests only: it writes through the schema package's builders and checks nothing, so that a test
can break one field at a time.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int8": 9}


@dataclass
class FileTensor:
    """A tensor to write; `buffer` overrides the index of the buffer that `data` would get."""

    shape: tuple[int, ...]
    dtype: str = "int8"
    data: NDArray[Any] | bytes | None = None
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0
    buffer: int | None = None
    sparsity: "FileSparsity | None" = None


@dataclass
class FileSparsity:
    """How a tensor's values lie in it: levels are sizes of dense ones, or (segments, indices, type
    of their vectors).
    """

    order: tuple[int, ...]
    levels: tuple[int | tuple[tuple[int, ...], tuple[int, ...], str], ...]
    blocks: tuple[int, ...] = ()


@dataclass
class FileOperator:
    """An operator to write: builtin code, tensors, and the name and fields of its options: numbers,
    or tuples for vectors of i32.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    version: int = 2


def write(
    tensors: list[FileTensor],
    operators: list[FileOperator],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    version: int = 3,
    graphs: int = 1,
    repeat: int = 1,
) -> bytes:
    """The file's bytes; with `repeat` its list names every tensor so many times."""
    import flatbuffers
    import tflite as t

    b = flatbuffers.Builder(1024)

    def table(kind: str, **fields: Any) -> int:
        getattr(t, f"{kind}Start")(b)
        for name, value in fields.items():
            if value is not None:
                getattr(t, f"{kind}Add{name}")(b, value)
        return int(getattr(t, f"{kind}End")(b))

    def numbers(values: Any, dtype: Any) -> int:
        return int(b.CreateNumpyVector(np.asarray(values, dtype)))

    def offsets(values: list[int]) -> int:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependUOffsetTRelative(value)
        return int(b.EndVector())

    def indices(values: tuple[int, ...], kind: str) -> int:
        dtype = {"Int32Vector": np.int32, "Uint16Vector": np.uint16, "Uint8Vector": np.uint8}[kind]
        return table(kind, Values=numbers(values, dtype))

    def sparse(tree: FileSparsity) -> int:
        levels = []
        for level in tree.levels:
            if isinstance(level, int):
                levels.append(table("DimensionMetadata", Format=0, DenseSize=level))
                continue
            segments, found, kind = level
            number = getattr(t.SparseIndexVector, kind)
            parts = {
                "ArraySegments": indices(segments, kind),
                "ArrayIndices": indices(found, kind),
            }
            levels.append(
                table(
                    "DimensionMetadata",
                    Format=1,
                    ArraySegmentsType=number,
                    ArrayIndicesType=number,
                    **parts,
                )
            )
        return table(
            "SparsityParameters",
            TraversalOrder=numbers(tree.order, np.int32),
            BlockMap=numbers(tree.blocks, np.int32) if tree.blocks else None,
            DimMetadata=offsets(levels),
        )

    buffers, written = [table("Buffer")], []
    for i, tensor in enumerate(tensors):
        index = 0
        if tensor.data is not None:
            raw = tensor.data if isinstance(tensor.data, bytes) else tensor.data.tobytes()
            index = len(buffers)
            buffers.append(table("Buffer", Data=numbers(list(raw), np.uint8)))
        scale = numbers(tensor.scale, np.float32) if tensor.scale else None
        zero = numbers(tensor.zero_point, np.int64) if tensor.zero_point else None
        quantization = table(
            "QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=tensor.axis
        )
        tree = None if tensor.sparsity is None else sparse(tensor.sparsity)
        written.append(
            table(
                "Tensor",
                Name=b.CreateString(f"t{i}"),
                Shape=numbers(tensor.shape, np.int32),
                Type=TYPES.get(tensor.dtype, 5),
                Buffer=index if tensor.buffer is None else tensor.buffer,
                Quantization=quantization,
                Sparsity=tree,
            )
        )
    codes, steps = [], []
    for i, op in enumerate(operators):
        codes.append(
            table(
                "OperatorCode",
                DeprecatedBuiltinCode=min(op.code, 127),
                BuiltinCode=op.code,
                Version=op.version,
            )
        )
        fields = {
            k: numbers(v, np.int32) if isinstance(v, tuple) else v for k, v in op.fields.items()
        }
        options = table(op.options, **fields) if op.options else None
        steps.append(
            table(
                "Operator",
                OpcodeIndex=i,
                Inputs=numbers(op.inputs, np.int32),
                Outputs=numbers(op.outputs, np.int32),
                BuiltinOptionsType=getattr(t.BuiltinOptions, op.options) if op.options else None,
                BuiltinOptions=options,
            )
        )
    graph = table(
        "SubGraph",
        Tensors=offsets(written * repeat),
        Inputs=numbers(inputs, np.int32),
        Outputs=numbers(outputs, np.int32),
        Operators=offsets(steps),
    )
    root = table(
        "Model",
        Version=version,
        OperatorCodes=offsets(codes),
        Subgraphs=offsets([graph] * graphs),
        Buffers=offsets(buffers),
    )
    b.Finish(root, b"TFL3")
    return bytes(b.Output())
