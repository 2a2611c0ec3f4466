"""Turns the bytes of an .onnx file into frozen dataclasses: inputs, constants, nodes in an order in
which every value is known before it is read, and outputs.

A file is hostile input: counts, sizes, names and order are checked here, in Python, and onnx's own
checker and shape inference never see it. Whether an operator is supported is not asked here.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..dsl.errors import ModelError
from .onnx_tensor import MAX_SIZE, Reader, checked_shape, dtype_of

# Protobuf's own limit.
MAX_FILE_BYTES = 2**31 - 1
MAX_NODES = 65_536
OPSETS = range(7, 23)
STANDARD = ("", "ai.onnx")
Attribute = int | float | str | np.ndarray | tuple[Any, ...] | None


@dataclass(frozen=True)
class Declared:
    """An input of the model. A size that the file leaves open is its name, or ""."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One node. An input or output that is left out is "". An attribute that holds a graph, or
    another thing that no operator here reads, is None.
    """

    name: str
    domain: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    @property
    def label(self) -> str:
        """What an error calls the node: "conv1 (Conv)"."""
        domain = "" if self.domain in STANDARD else f"{self.domain}."
        name = self.name or next((o for o in self.outputs if o), "?")
        return f"{name} ({domain}{self.kind})"


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """One model, read and checked.

    size   bytes of the model, files beside it included
    """

    name: str
    opset: int
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    nodes: tuple[OnnxNode, ...]
    size: int = field(default=0)


def read(source: str | os.PathLike[str] | bytes, name: str | None = None) -> OnnxFile:
    """The model in a file, or in bytes that have no files beside them.

    Raises ModelError if the package `onnx` is missing, and for a file that is too large, malformed
    or of an opset outside 7 to 22.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content, folder, title = bytes(source), None, name or "model"
    else:
        content, folder, title = _content(Path(source)), Path(source).parent, Path(source).name
    if len(content) > MAX_FILE_BYTES:
        raise ModelError(
            f"{title}: bytes={len(content)} are too many; at most {MAX_FILE_BYTES} are allowed. "
            "Keep the tensors in a file beside the model"
        )
    reader = Reader(title, folder)
    model = _parsed(content, title)
    try:
        return _checked(model, reader, name, len(content))
    except (ValueError, TypeError, OverflowError, UnicodeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"{title}: bytes={len(content)} are damaged ({type(error).__name__}: {error}). "
            "Fetch the file again"
        ) from error


def _content(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"onnx: path={str(path)!r} is not a regular file of at most {MAX_FILE_BYTES} "
                "bytes. Give an .onnx file"
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"onnx: path={str(path)!r} cannot be read: {error.strerror}") from error


def _parsed(content: bytes, title: str) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ModelError(
            f"{title}: package=onnx is not installed; it holds the format of .onnx files. "
            "Install simdflow[onnx]"
        ) from error
    try:
        return onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ModelError(
            f"{title}: bytes={len(content)} are no ONNX model ({error}). Give an .onnx file"
        ) from error


def _checked(model: Any, reader: Reader, name: str | None, size: int) -> OnnxFile:
    title = reader.model
    opset = _opset(model, title)
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise ModelError(
            f"{title}: nodes={len(graph.node)} are too many; at most {MAX_NODES} are allowed. "
            "Split the model"
        )
    if graph.sparse_initializer:
        raise ModelError(
            f"{title}: sparse_initializer={len(graph.sparse_initializer)} tensors are not "
            "supported; dense ones are. Export the weights as dense"
        )
    constants: dict[str, np.ndarray] = {}
    for proto in graph.initializer:
        if not proto.name or proto.name in constants:
            raise ModelError(
                f"{title}: initializer={proto.name!r} has no name or one of another; names are "
                "unique. Fetch the file again"
            )
        constants[proto.name] = reader.array(proto, f"initializer={proto.name!r}")
    # Before IR version 4 every initializer was listed as an input too.
    declared = [v for v in graph.input if v.name not in constants]
    inputs = tuple(_declared(v, title) for v in declared)
    nodes = [_node(n, i, reader) for i, n in enumerate(graph.node)]
    ordered = sorted_nodes(nodes, [*(i.name for i in inputs), *constants], title)
    outputs = tuple(o.name for o in graph.output)
    known = {*(i.name for i in inputs), *constants, *(o for n in nodes for o in n.outputs)} - {""}
    lost = [o for o in outputs if o not in known]
    if lost or not outputs or len(set(outputs)) != len(outputs):
        raise ModelError(
            f"{title}: outputs={list(outputs)[:8]} are none, not unique, or not made by any node"
            f" ({lost[:3]}). Fetch the file again"
        )
    return OnnxFile(
        name or graph.name or title,
        opset,
        inputs,
        outputs,
        MappingProxyType(constants),
        ordered,
        size + reader.used,
    )


def _opset(model: Any, title: str) -> int:
    found = [int(o.version) for o in model.opset_import if o.domain in STANDARD]
    if len(found) != 1 or found[0] not in OPSETS:
        raise ModelError(
            f"{title}: opset={found} is not supported; one from {OPSETS[0]} to {OPSETS[-1]} is. "
            "Export the model for one of these, or convert it with onnx.version_converter"
        )
    own = sorted({f.name for f in model.functions if f.domain in STANDARD})
    if own:
        raise ModelError(
            f"{title}: functions={own[:8]} redefine standard operators, which is not supported. "
            "Export the model without functions"
        )
    return found[0]


def _declared(value: Any, title: str) -> Declared:
    what = f"{title}: input={value.name!r}"
    if value.type.WhichOneof("value") != "tensor_type" or not value.name:
        raise ModelError(f"{what} is not a tensor with a name. Export the model with tensors only")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, what)
    if not tensor.HasField("shape"):
        raise ModelError(f"{what} has no shape; its rank is needed. Export the model with shapes")
    sizes: list[int | str] = []
    for dim in tensor.shape.dim:
        fixed = dim.WhichOneof("value") == "dim_value"
        # Old exporters write 0 or -1 for a size that is open.
        sizes.append(int(dim.dim_value) if fixed and dim.dim_value > 0 else str(dim.dim_param))
    checked_shape(tuple(1 if isinstance(s, str) else s for s in sizes), what)
    return Declared(value.name, dtype, tuple(sizes))


def _node(proto: Any, at: int, reader: Reader) -> OnnxNode:
    name = proto.name or f"{proto.op_type}_{at}"
    attributes: dict[str, Attribute] = {}
    for a in proto.attribute:
        if a.name in attributes or a.ref_attr_name:
            raise ModelError(
                f"{reader.model}: node={name!r} has the attribute {a.name!r} twice or by "
                "reference. Fetch the file again"
            )
        attributes[a.name] = _attribute(a, name, reader)
    return OnnxNode(
        name,
        str(proto.domain),
        str(proto.op_type),
        tuple(proto.input),
        tuple(proto.output),
        MappingProxyType(attributes),
    )


def _attribute(a: Any, node: str, reader: Reader) -> Attribute:
    match a.type:
        case 1:
            return float(a.f)
        case 2:
            return int(a.i)
        case 3:
            return bytes(a.s).decode("utf-8", "replace")
        case 4:
            return reader.array(a.t, f"node={node!r} {a.name}")
        case 6:
            return tuple(float(v) for v in a.floats)
        case 7:
            return tuple(int(v) for v in a.ints)
        case 8:
            return tuple(bytes(v).decode("utf-8", "replace") for v in a.strings)
    return None


def sorted_nodes(
    nodes: Iterable[OnnxNode], known: Iterable[str], title: str
) -> tuple[OnnxNode, ...]:
    """The nodes so that each stands after those that make what it reads, otherwise in the order
    given.

    Raises ModelError for a value made twice or never, and for a cycle.
    """
    nodes = list(nodes)
    have = set(known)
    maker: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for output in node.outputs:
            if output and (output in maker or output in have):
                raise ModelError(
                    f"{title}: value={output!r} is made twice; names are unique. "
                    "Fetch the file again"
                )
            if output:
                maker[output] = i
    readers: dict[int, list[int]] = {}
    waits = [0] * len(nodes)
    for i, node in enumerate(nodes):
        for name in dict.fromkeys(node.inputs):
            if name in maker:
                readers.setdefault(maker[name], []).append(i)
                waits[i] += 1
            elif name and name not in have:
                raise ModelError(
                    f"{title}: node={node.label} reads {name!r}, which nothing makes; an input, a "
                    "constant or a result is needed. Fetch the file again"
                )
    ready = [i for i, n in enumerate(waits) if n == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers.get(i, []):
            waits[reader] -= 1
            if waits[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) != len(nodes):
        stuck = [nodes[i].label for i, n in enumerate(waits) if n][:4]
        raise ModelError(
            f"{title}: nodes={stuck} wait for each other in a cycle; every value is made from "
            "earlier ones. Fetch the file again"
        )
    return tuple(nodes[i] for i in order)


def resolved(
    file: OnnxFile, shapes: Mapping[str, tuple[int, ...]] | None
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: as in `shapes`, else as in the file with an open first axis (the
    batch) as 1 and every other axis of that name alike.

    Raises ModelError for other open sizes, all listed at once, and for shapes that do not fit.
    """
    given = dict(shapes or {})
    unknown = sorted(set(given) - {i.name for i in file.inputs})
    if unknown:
        names = [i.name for i in file.inputs]
        raise ModelError(
            f"{file.name}: shapes={unknown} are no inputs; {names} are. Correct the names"
        )
    named: dict[str, int] = {}
    for i in file.inputs:
        if i.name in given:
            shape = given[i.name]
            fits = len(shape) == len(i.shape) and all(
                isinstance(n, int) and 0 < n <= MAX_SIZE and (isinstance(s, str) or s == n)
                for n, s in zip(shape, i.shape, strict=True)
            )
            if not fits:
                raise ModelError(
                    f"{file.name}: shapes[{i.name!r}]={shape} does not fit {list(i.shape)} of the "
                    "file; its sizes, and positive ones where it names none, do. Correct the shape"
                )
            named |= {s: n for s, n in zip(i.shape, shape, strict=True) if s and isinstance(s, str)}
        elif i.shape and isinstance(i.shape[0], str) and i.shape[0]:
            named.setdefault(i.shape[0], 1)
    found: dict[str, tuple[int, ...]] = {}
    open_: list[str] = []
    for i in file.inputs:
        sizes = []
        for axis, s in enumerate(given.get(i.name, i.shape)):
            size = named.get(s, 1 if axis == 0 else 0) if isinstance(s, str) else s
            sizes.append(size)
        if 0 in sizes:
            open_.append(f"{i.name}{[s or '?' for s in i.shape]}")
        found[i.name] = tuple(sizes)
    if open_:
        raise ModelError(
            f"{file.name}: inputs={', '.join(open_)} have sizes that the file leaves open; all but "
            "the first must be known. Give shapes={'input': (1, 128), ...}"
        )
    for key, shape in found.items():
        checked_shape(shape, f"{file.name}: input={key!r}")
    return found
