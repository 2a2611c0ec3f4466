"""Turns ONNX models into graphs: `from_onnx`.

Every operator has one importer, in the file of its family; here they are put together, run over the
nodes in order, and what none of them can do is reported at once. Inside the graph images are NHWC,
with transposes where the model's NCHW begins and ends; passes cancel them. Nothing is compiled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import ops
from ..dsl.errors import ModelError, OperandError
from ..graph.graph import Builder, Graph
from .onnx_call import Call, Operator, Table
from .onnx_elements import ELEMENTS
from .onnx_file import STANDARD, OnnxFile, OnnxNode, read, resolved
from .onnx_fold import folded
from .onnx_moves import MOVES
from .onnx_products import PRODUCTS
from .onnx_quantized import MICROSOFT, QUANTIZED
from .onnx_resize import RESIZES
from .onnx_rows import ROWS
from .onnx_scope import (
    FOLD_BYTES,
    FOLD_FACTOR,
    Scope,
    Tensor,
    Unsupported,
    graph_array,
    known,
    scalar_of,
)
from .onnx_windows import WINDOWS

# Kinds by domain; a domain that is not here is not supported.
STANDARD_OPERATORS: Table = {
    **ELEMENTS, **MOVES, **PRODUCTS, **QUANTIZED, **RESIZES, **ROWS, **WINDOWS
}  # fmt: skip
OPERATORS: Mapping[str, Table] = {
    "": STANDARD_OPERATORS,
    "ai.onnx": STANDARD_OPERATORS,
    "com.microsoft": {**MICROSOFT, "Gelu": Operator(lambda n: n.emit(ops.gelu, n.floats(0)))},
}
# Evaluated when their inputs are known, and only then.
FOLDED_ONLY = (
    "ConstantOfShape", "Cos", "CumSum", "Mod", "NonZero", "Range", "ReduceProd", "Sin", "Trilu",
)  # fmt: skip
LISTED = 100


def from_onnx(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The graph of an ONNX model, given by its path or its bytes: opset 7 to 22.

    name     of the graph; by default the model's own
    shapes   of inputs whose sizes the model leaves open, by name; an open first axis is 1 without

    Weights and activations of 16-bit floats become f32, bool becomes u8 of 0 and 1. Names of
    inputs and outputs are those of the model, and so are their axes (NCHW stays NCHW). What depends
    on shapes and constants only is computed here: reading at most 2^32 bytes of constants, and
    computing with at most 2^28 bytes and 16 times the size of the model.

    Raises ModelError when the package `onnx` is missing, for files that are malformed, for open
    sizes, and for operators that are not supported, listing all of them with the names of nodes.
    """
    file = read(source, name)
    sizes = resolved(file, shapes)
    names = {*file.outputs, *(i.name for i in file.inputs), *file.constants}
    reserved = frozenset(names | {o for node in file.nodes for o in node.outputs})
    budget = FOLD_BYTES + FOLD_FACTOR * file.size
    scope = Scope(Builder(file.name), reserved, file.opset, budget)
    problems: list[str] = []
    for i in file.inputs:
        try:
            scalar = scalar_of(i.dtype)
        except Unsupported as error:
            problems.append(f"input {i.name!r}: {error}")
            scope.tensors[i.name] = None
            continue
        scope.builder.input(i.name, scalar[sizes[i.name]])
        scope.tensors[i.name] = Tensor(sizes[i.name], i.dtype, i.name)
    for key, array in file.constants.items():
        scope.tensors[key] = known(array, key)
    for node in file.nodes:
        _import(node, scope, problems)
    if not problems:
        graph = _finished(file, scope, problems)
        if graph is not None:
            return graph
    shown = "\n  ".join(problems[:LISTED])
    more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    raise ModelError(
        f"{file.name}: unsupported={len(problems)} nodes cannot be imported; "
        f"docs/onnx_operators.md lists what can. Change the model, or leave these out:\n"
        f"  {shown}{more}"
    )


def _import(node: OnnxNode, scope: Scope, problems: list[str]) -> None:
    """Make the results of one node known; None for those that cannot be."""
    for output in node.outputs:
        scope.tensors[output] = None
    table = OPERATORS.get(node.domain, {})
    if node.kind not in table and not (node.domain in STANDARD and node.kind in FOLDED_ONLY):
        problems.append(f"{node.label}: the operator is not known")
        return
    inputs = tuple(scope.tensors[i] if i else None for i in node.inputs)
    if any(t is None and i for i, t in zip(node.inputs, inputs, strict=True)):
        return  # what it reads could not be made, and that has been said
    n = Call(node, inputs, scope)
    try:
        made = _results(n, table.get(node.kind))
        if len(made) < len([o for o in node.outputs if o]):
            raise Unsupported(f"{len(node.outputs)} outputs; {len(made)} are supported")
        if n.unread:
            raise Unsupported(f"attributes {sorted(n.unread)} are not known")
    except (Unsupported, ModelError) as error:
        problems.append(f"{node.label}: {error}")
        return
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
        problems.append(f"{node.label}: malformed ({type(error).__name__}: {error})")
        return
    for output, tensor in zip(node.outputs, made, strict=False):
        if output:
            scope.tensors[output] = tensor


def _results(n: Call, operator: Operator | None) -> tuple[Tensor | None, ...]:
    if n.node.domain in STANDARD:
        found = folded(n)
        if found is not None:
            return found
    if operator is None:
        raise Unsupported("its inputs are computed; constants are supported")
    made = operator.importer(n)
    return made if isinstance(made, tuple) else (made,)


def _finished(file: OnnxFile, scope: Scope, problems: list[str]) -> Graph | None:
    """The graph with the values called as in the model, or None with a problem."""
    builder = scope.builder
    renamed: dict[str, str] = {}
    taken = {i.name for i in file.inputs}
    wished = set(file.outputs)
    done: set[str] = set()
    for output in (*file.outputs, *(o for node in file.nodes for o in node.outputs if o)):
        tensor = scope.tensors[output]
        if tensor is None or output in done:
            continue
        wanted = output in wished
        done.add(output)
        try:
            value = _placed(scope, tensor, output) if wanted else tensor.name
            free = value not in taken and value not in renamed and value not in builder.constants
            if value is not None and free and value in builder.values:
                renamed[value] = output
            elif wanted and value is not None and value != output:
                # Two names of one value: the second is a copy.
                shape = builder.values[value].type.shape
                copy = builder.call(ops.reshape, value, shape=shape, output=scope.fresh(output))
                renamed[copy] = output
        except (Unsupported, ModelError, OperandError) as error:
            problems.append(f"output {output!r}: {error}")
            return None
    return _renamed(builder.graph(), renamed, tuple(file.outputs))


def _placed(scope: Scope, tensor: Tensor, output: str) -> str:
    """The graph's value of an output; one that is known is a constant of that name."""
    if tensor.array is None or output in scope.builder.values:
        return scope.value(tensor, output)
    return scope.builder.constant(output, graph_array(tensor.array))


def _renamed(graph: Graph, names: Mapping[str, str], outputs: tuple[str, ...]) -> Graph:
    """The graph with some values called otherwise."""

    def new(name: Any) -> Any:
        return names.get(name, name)

    nodes = tuple(
        replace(n, inputs=tuple(new(i) for i in n.inputs), output=new(n.output), name=new(n.name))
        for n in graph.nodes
    )
    values = {new(k): replace(v, name=new(k)) for k, v in graph.values.items()}
    return Graph(graph.name, graph.inputs, outputs, values, graph.constants, nodes)
