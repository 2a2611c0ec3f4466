"""Batch: the same network for another number of samples.

Turns a graph into one whose inputs have another first axis, by inferring every shape again and
following where the samples are: a layer that would mix them is refused. It changes no layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..dsl.errors import ModelError, SimdflowError
from ..dsl.index import Affine
from ..dsl.nest import Lookup, walk
from ..kernel import Kernel
from .graph import Builder, Graph, Node

# Layers along the last axis, which has to be another one than that of the samples.
ALONG_LAST = ("batch_norm", "dense", "layer_norm", "softmax")


def with_batch(graph: Graph, batch: int) -> Graph:
    """The graph with `batch` as the first axis of every input.

    Raises ModelError for an input without axes, inputs whose first axes differ, and networks whose
    layers do not keep the samples apart.
    """
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ModelError(f"{graph.name}: batch={batch!r} is not 1 or more. Correct it")
    firsts = {graph.values[i].type.shape[:1] for i in graph.inputs}
    if len(firsts) != 1 or firsts == {()}:
        raise ModelError(
            f"{graph.name}: inputs have first axes {sorted(firsts)}; one batch for all is needed. "
            "Compile it as it is"
        )
    ((before,),) = firsts
    if before == batch:
        return graph
    made = Builder(graph.name)
    for name in graph.inputs:
        value = graph.values[name]
        kind = value.type
        sized = type(kind)(kind.scalar, (batch, *kind.shape[1:]), kind.low, kind.high)
        made.input(name, sized, value.quantization)
    for name, array in graph.constants.items():
        made.constant(name, array, graph.values[name].quantization)
    # How many rows of the first axis each sample has; values that no input reaches are not there.
    rows = dict.fromkeys(graph.inputs, 1)
    for node in graph.nodes:
        count = _rows(graph, node, rows, before)
        if count == 0:
            raise ModelError(
                f"{graph.name}: batch={batch}: node={node.name!r}: {node.op} does not keep the "
                "samples apart. Compile the graph as it is"
            )
        try:
            made.call(
                node.function,
                *node.inputs,
                name=node.name,
                output=node.output,
                quantization=graph.values[node.output].quantization,
                **(_options(graph, node, count * batch) if count else dict(node.options)),
            )
        except SimdflowError as error:
            raise ModelError(f"{graph.name}: batch={batch}: node={node.name!r}: {error}") from error
        if count:
            rows[node.output] = count
            _checked(made, graph, node, count * batch)
    for name in graph.outputs:
        if rows.get(name, 1) != 1:
            raise ModelError(
                f"{graph.name}: batch={batch}: output={name!r} has {rows[name]} rows a sample; one "
                "is allowed. Compile the graph as it is"
            )
    return made.graph(*graph.outputs)


def _checked(made: Builder, graph: Graph, node: Node, first: int) -> None:
    shape = graph.values[node.output].type.shape
    found = made.values[node.output].type.shape
    if found != (first, *shape[1:]):
        raise ModelError(
            f"{graph.name}: node={node.name!r} makes {list(found)}, which was {list(shape)}; its "
            "layers do not keep samples apart. Compile it as it is"
        )


def _options(graph: Graph, node: Node, first: int) -> dict[str, Any]:
    """The node's options; those that are shapes, with the new first axis."""
    options = dict(node.options)
    shape = (first, *graph.values[node.output].type.shape[1:])
    if node.op in ("reshape", "expand"):
        options["shape"] = shape
    elif node.op == "slice":
        options["stops"] = (first, *options["stops"][1:])
    return options


def _rows(graph: Graph, node: Node, rows: Mapping[str, int], before: int) -> int | None:
    """How many rows each sample has in a node's result; None if it does not depend on inputs, 0
    where samples are mixed.
    """
    held = [i for i in node.reads if i in rows]
    if not held:
        return None
    shape = graph.values[node.output].type.shape
    if node.op == "reshape":  # elements keep their order, and samples are the outermost
        return shape[0] // before if shape and shape[0] % before == 0 else 0
    counts = {rows[i] for i in held}
    count = counts.pop()
    apart = not counts and shape[:1] == (before * count,) and _apart(graph, node, held)
    return count if apart else 0


def _apart(graph: Graph, node: Node, held: list[str]) -> bool:
    """Whether each row of the result comes from the same row of the operands `held`, whose first
    axis is that of the samples.
    """
    if isinstance(node.function, Kernel):
        return _kernel_keeps_rows(node, node.function, held)
    rank = {i: len(graph.values[i].type.shape) for i in (*node.reads, node.output)}
    x, options = node.reads[0], node.options
    if node.op == "gather":
        along_rows = options["axis"] % rank[x] == 0
        return len(held) == 1 and along_rows == (held != [x])
    if node.op == "transpose":
        return bool(options["axes"][0] == 0)
    if node.op == "concat":
        return bool(options["axis"] % rank[x] != 0)
    if node.op == "slice":
        return (options["starts"][0], options["steps"][0]) == (0, 1) and (
            options["stops"][0] == graph.values[x].type.shape[0]
        )
    if node.op == "pad":
        return tuple(options["pads"][0]) == (0, 0)
    if node.op.startswith("reduce_"):
        axes = options.get("axes")
        return axes is not None and 0 not in {a % rank[x] for a in axes}
    if node.op == "matmul":
        return _matmul_keeps_rows(node, rank, held)
    if node.op in ALONG_LAST and rank[x] < 2:
        return False
    if node.op == "global_avg_pool2d":  # the first axis is the same, the rank is not
        return True
    # Broadcast from the last axes: the first one of a smaller operand is another.
    return all(rank[i] == rank[node.output] for i in held)


def _matmul_keeps_rows(node: Node, rank: Mapping[str, int], held: list[str]) -> bool:
    a, b = node.reads[:2]
    if b in held and rank[b] < 3:
        return False
    if a in held and rank[a] < 3 and node.options.get("transpose_a"):
        return False
    return all(rank[i] == rank[node.output] for i in held)


def _kernel_keeps_rows(node: Node, kernel: Kernel, held: list[str]) -> bool:
    """Whether a user's kernel reads the first axis where it writes it."""
    nest = kernel.nest
    names = [o.name for o in nest.operands if o.role == "in"]
    mine = {name for name, value in zip(names, node.inputs, strict=True) if value in held}
    row = nest.store.index[0]
    looked_up = {e.operand for x in nest.expressions() for e in walk(x) if isinstance(e, Lookup)}
    return (
        row == Affine.axis(next(iter(row.axes), ""))
        and not mine & looked_up
        and all(x.index[0] == row for x in nest.loads() if x.operand in mine)
    )
