"""Bound indices: an input that chooses rows of a table gets the table's range as its type's.

A model then refuses an index outside the table before anything runs. Followed through what only
moves values; an index that is computed is not checked, the kernel reads the nearest row instead.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node
from ..rewrite import op_of

# Every element of the input is an element of the result, with its value. Not slice: what it leaves
# out may be anything.
MOVES = frozenset(("reshape", "transpose", "expand", "concat", "cast"))


def bound_indices(graph: Graph) -> Graph:
    """The graph with the range 0 to rows - 1 on every input that only `gather` reads as indices."""
    values = dict(graph.values)
    for name in graph.inputs:
        kind = values[name].type
        rows = None if values[name].ranged or kind.scalar.is_float else _rows(graph, name)
        if rows is not None:
            values[name] = replace(values[name], type=replace(kind, low=0, high=rows - 1))
    return replace(graph, values=values)


def _rows(graph: Graph, name: str) -> int | None:
    """Rows of the smallest table that a value chooses from; None if it is used in another way."""
    readers = graph.consumers[name]
    if not readers or name in graph.outputs:
        return None
    found = [_chosen(graph, node, name) for node in readers]
    known = [rows for rows in found if rows is not None]
    return min(known) if len(known) == len(found) else None


def _chosen(graph: Graph, node: Node, name: str) -> int | None:
    if op_of(node) == "gather" and node.inputs[1] == name != node.inputs[0]:
        table = graph.values[str(node.inputs[0])].type
        return table.shape[int(node.options.get("axis", 0))]
    before, after = graph.values[name].type.scalar, graph.values[node.output].type.scalar
    held = not after.is_float and after.low <= before.low <= before.high <= after.high
    return _rows(graph, node.output) if op_of(node) in MOVES and held else None
