"""Bound indices: an input that chooses rows of a table gets the table's range as its type's.

A model then refuses an index outside the table before anything runs; the kernel itself would clamp
it.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph
from ..rewrite import op_of


def bound_indices(graph: Graph) -> Graph:
    """The graph with the range 0 to rows - 1 on every input that only `gather` reads as indices."""
    values = dict(graph.values)
    for name in graph.inputs:
        readers = graph.consumers[name]
        if not readers or values[name].ranged or name in graph.outputs:
            continue
        if any(op_of(n) != "gather" or n.inputs[1] != name or n.inputs[0] == name for n in readers):
            continue
        rows = min(
            values[str(n.inputs[0])].type.shape[int(n.options.get("axis", 0))] for n in readers
        )
        kind = replace(values[name].type, low=0, high=rows - 1)
        values[name] = replace(values[name], type=kind)
    return replace(graph, values=values)
