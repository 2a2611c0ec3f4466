"""The passes over a graph, in the order they run.

Each is a function Graph -> Graph in a file of its own: same inputs and outputs, by name and type,
and the same values, exactly or within what its docstring says. `run` applies them all.
"""

from __future__ import annotations

from collections.abc import Callable

from ..graph import Graph
from .bound_indices import bound_indices
from .cancel_transposes import cancel_transposes
from .carry_integers import carry_integers
from .fast_convolutions import fast_convolutions
from .fold_batch_norm import fold_batch_norm
from .fold_constants import fold_constants, fold_dequantized
from .fold_pads import fold_pads
from .fuse_activation import fuse_activation
from .lower_quantization import lower_quantization
from .recognize import recognize
from .simplify import simplify, still_transposes
from .unsigned import unsigned

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    fold_constants,  # what no input reaches is computed now; dequantized weights wait
    simplify,  # copies go, chains of moves merge, equal nodes become one
    carry_integers,  # dequantize sinks and quantize rises through moves, until they meet layers
    cancel_transposes,  # NCHW to NHWC and back sink until they cancel
    fold_constants,  # weights that were moved in front of their layers
    recognize,  # layer_norm, gelu, silu, hardswish, softmax, dense out of small ops
    carry_integers,  # past what recognize made
    fold_batch_norm,  # factors and offsets of channels into weights and bias
    fold_pads,  # pads into the padding of the layer that reads them
    lower_quantization,  # layers between dequantize and quantize in 8 bits
    fold_dequantized,  # weights of layers that stayed float
    fold_batch_norm,  # and what folds into those
    fuse_activation,  # relu, relu6, clip into the layer before
    still_transposes,  # what moves nothing is a reshape; what all this left behind
    unsigned,  # i8 between layers as u8, which the products take as it is
    fast_convolutions,  # 3x3 of f32 by fewer products, where the cost model finds it faster
    bound_indices,  # inputs that choose rows of a table may not leave it
)


def run(graph: Graph) -> Graph:
    """The graph after all passes."""
    for each in PASSES:
        graph = each(graph)
    return graph


__all__ = ["PASSES", "Pass", "run"]
