"""Fast convolutions: 3x3 convolutions of f32 may be made of tiles by Winograd's algorithm.

Turns `conv2d(x, w, b)` into `conv2d(x, w, b, algorithm="auto")`, which takes what the cost model
finds faster when the layer is made. A node that names an algorithm keeps it.
"""

from __future__ import annotations

from ...ops.window import window
from ...ops.winograd import possible
from ..graph import Graph, Node
from ..rewrite import Rewrite, op_of, rewrite

# With fewer input channels the sums around the products cost what these spare: 3 to 16 of 32x32
# takes 8.0 us direct and 12.1 in tiles, 4 to 32 takes 20.9 and 19.5 (one Zen 4 core).
CHANNELS = 4


def fast_convolutions(graph: Graph) -> Graph:
    """The graph with the choice left open where there is one.

    Values stay the same within f32 rounding; an infinite sum may be NaN.
    """
    return rewrite(graph, _opened)


def _opened(at: Rewrite, node: Node) -> str | None:
    if op_of(node) != "conv2d" or {"algorithm", "bordered"} & set(node.options):
        return None
    x, w = (at.values[name].type for name in node.reads[:2])
    given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | dict(node.options)
    places = window("conv2d", x, w.shape[:2], given["stride"], given["padding"], given["dilation"])
    if x.shape[3] < CHANNELS or not possible(x, w, places, given["groups"], False):
        return None
    return at.again(node, algorithm="auto")
