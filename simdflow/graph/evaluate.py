"""evaluate: what a graph must compute, in numpy, node by node.

Turns arrays for the inputs of a graph into its outputs, each node by the reference of its op
(`ops.reference.call`) or, for a user's kernel, by its body run as Python. Slow and exact: it is
what passes and compiled models are compared with, and how constants are folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..dsl.errors import ModelError
from ..dsl.types import OperandType
from ..operands import type_of
from ..ops import Op, reference
from .graph import Graph, Node


def evaluate(
    graph: Graph, inputs: Mapping[str, Any], *, every: bool = False
) -> dict[str, np.ndarray]:
    """The outputs of `graph` by name, for one array an input; with `every`, all values.

    Integers are exact. A float result of a node is computed in float64 and rounded once to its
    type, so that the error of a graph is that of its values and not of any order of summation.

    Raises ModelError for inputs that are missing, unknown, or of another shape or type, and for an
    array outside the range that its type promises.
    """
    values = {**graph.constants, **_checked(graph, inputs)}
    for node in graph.nodes:
        operands = [None if i is None else values[i] for i in node.inputs]
        values[node.output] = evaluate_node(node, operands, graph.values[node.output].type)
    return values if every else {name: values[name] for name in graph.outputs}


def evaluate_node(node: Node, operands: list[np.ndarray | None], kind: OperandType) -> np.ndarray:
    """The result of one node, of the type and shape `kind`; ModelError if it has another shape."""
    if isinstance(node.function, Op):
        found = np.asarray(reference.call(node.op, *operands, **node.options))
    else:
        found = np.asarray(node.function.interpret(*operands, **node.options))
    if found.shape != kind.shape:
        raise ModelError(
            f"{node.name}: {node.op} gives shape={list(found.shape)}, not {list(kind.shape)} as "
            "its shape rule says; they must agree. Correct the reference or the rule"
        )
    return np.asarray(found.astype(kind.scalar.dtype, order="C", copy=False))


def _checked(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the graph's inputs, in C order."""
    missing = [name for name in graph.inputs if name not in inputs]
    unknown = [name for name in inputs if name not in graph.inputs]
    if missing or unknown:
        what = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is no input"
        raise ModelError(
            f"{graph.name}: input={what}; {', '.join(map(repr, graph.inputs))} are the inputs. "
            "Give an array for each"
        )
    found = {}
    for name in graph.inputs:
        kind, array = graph.values[name].type, np.ascontiguousarray(inputs[name])
        given = type_of(array)
        if (given.scalar, np.shape(inputs[name])) != (kind.scalar, kind.shape):
            raise ModelError(
                f"{graph.name}: {name}={given.scalar}{list(np.shape(inputs[name]))} is not {kind}, "
                "the type of this input. Convert or reshape the array"
            )
        array = array.reshape(kind.shape)
        if array.size and not kind.scalar.is_float:
            low, high = int(array.min()), int(array.max())
            if low < kind.low or high > kind.high:
                raise ModelError(
                    f"{graph.name}: {name} has values from {low} to {high}; its type promises "
                    f"{kind.low:g} to {kind.high:g}. Widen the type or clip the values"
                )
        found[name] = array
    return found
