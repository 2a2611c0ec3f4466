"""Constant folding: nodes that read nothing but constants are computed now.

Turns such nodes into constants, by the numpy evaluation of each. Weights that are dequantized stay
as they are in the first run, because quantization lowering wants their integers;
`fold_dequantized`, which runs after it, folds those too. A result that is an output stays computed.
"""

from __future__ import annotations

import math

import numpy as np

from ...ops import Op
from ..evaluate import evaluate_node
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite

# A file of a few bytes can ask for any amount of memory (expand) or of work (matmul): what is
# larger is left to the compiler, whose memory plan shows it.
BYTES = 64 << 20
WORK = 1 << 28
PRODUCTS = ("conv2d", "depthwise_conv2d", "dense", "matmul", "avg_pool2d", "max_pool2d")


def fold_constants(graph: Graph) -> Graph:
    """The graph with the results of constants as constants, `dequantize` excepted.

    Evaluated by `evaluate`, so the values are the same bits. At most BYTES are added in all, and
    WORK multiplications a node.
    """
    return _folded(graph, frozenset({"dequantize"}))


def fold_dequantized(graph: Graph) -> Graph:
    """`fold_constants`, dequantized weights included."""
    return _folded(graph, frozenset())


def _folded(graph: Graph, but: frozenset[str]) -> Graph:
    left = BYTES

    def rule(at: Rewrite, node: Node) -> str | None:
        nonlocal left
        if (
            not isinstance(node.function, Op)  # a user's body runs as Python, an element at a time
            or op_of(node) in but
            or node.output in graph.outputs
            or any(i not in at.constants for i in node.reads)
        ):
            return None
        kind = graph.values[node.output].type
        size = kind.size * kind.scalar.dtype.itemsize
        read = sum(at.constants[i].nbytes for i in node.reads)
        if size > read + left or _work(at, node) > WORK:
            return None
        operands = [None if i is None else at.constants[i] for i in node.inputs]
        try:
            with np.errstate(all="ignore"):
                array = evaluate_node(node, operands, kind)
        except (ArithmeticError, IndexError, ValueError):
            return None  # whatever is wrong with these numbers, the compiled op says it
        left -= max(0, size - read)
        return at.constant(node.output, array, graph.values[node.output].quantization)

    return rewrite(graph, rule)


def _work(at: Rewrite, node: Node) -> int:
    """Multiplications of a node that sums, 0 for others."""
    if op_of(node) not in PRODUCTS:
        return 0
    read = math.prod(at.shape(str(node.inputs[0])))
    return read * at.old.values[node.output].type.size
