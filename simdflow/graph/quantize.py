"""Quantize: an f32 network becomes one of 8-bit layers, by the ranges its values take on samples.

real = scale * (q - zero_point): u8 activations with one scale a tensor, i8 weights with one a
channel, i32 biases; the rounding is XNNPACK's. Products decide: convolutions and dense layers
become 8 bits, and with them what lies between two of them; the rest stays f32, where nothing would
be gained. What that costs in accuracy is measured by `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from .. import ops
from ..dsl.errors import ModelError
from ..dsl.types import f32, i32, u8
from ..ops import Quantization
from .calibrate import Arrays, spreads
from .graph import Builder, Function, Graph, Node
from .passes import run as optimize
from .ranges import LEVELS, RULES, Range, scale_of
from .rewrite import op_of

PRODUCTS = frozenset(("conv2d", "depthwise_conv2d", "dense"))
SUMS = frozenset(("add", "mul", "sub"))
TABLES = frozenset(
    ("relu", "relu6", "clip", "leaky_relu", "hardswish", "sigmoid", "tanh", "gelu",
     "global_avg_pool2d")
)  # fmt: skip
# These choose or move values: the result has the quantization of the input, and is exact.
MOVES = frozenset(
    ("max_pool2d", "reshape", "transpose", "slice", "pad", "expand", "resize_nearest",
     "depth_to_space", "space_to_depth")
)  # fmt: skip
# Likewise, but rounded.
MEANS = frozenset(("avg_pool2d", "resize_bilinear"))
WEIGHT_LEVELS = 127
# A bias takes half of i32 at most, the products the other half.
BIAS_LIMIT = 2**30


def quantize(
    graph: Graph,
    calibration: np.ndarray | Arrays,
    *,
    ranges: str = "mse",
    percentile: float = 99.99,
    keep_float: Collection[str] = (),
) -> Graph:
    """The graph with 8-bit layers.

    calibration  samples [n, ...] of the input, or {name: samples}: 100 to 1000 typical ones
    ranges       "minmax": all values; "percentile": without the rarest; "mse": the range with the
                 least mean squared error
    percentile   99.99 leaves out 0.01 percent of the values at each end
    keep_float   names of nodes, or of ops, that stay f32

    Inputs and outputs stay as they are. Raises ModelError for samples that do not fit, values that
    are not finite, and for rules and names that are not known.
    """
    if ranges not in RULES:
        raise ModelError(
            f"{graph.name}: ranges={ranges!r} is not known; {', '.join(RULES)} are. Use one"
        )
    if not 50 < percentile <= 100:
        raise ModelError(
            f"{graph.name}: percentile={percentile!r} is not above 50 and at most 100. Correct it"
        )
    graph = optimize(graph)
    rule = RULES[ranges]
    keep = checked_names(graph, keep_float)
    found = {name: rule(s, percentile) for name, s in spreads(graph, calibration).items()}
    return quantized(graph, found, keep)


def checked_names(graph: Graph, names: Collection[str]) -> frozenset[str]:
    """The names; ModelError for one that is neither a node of the graph nor an op."""
    given = (names,) if isinstance(names, str) else names
    known = {n.name for n in graph.nodes} | set(ops.__all__)
    for name in given:
        if name not in known:
            raise ModelError(
                f"{graph.name}: keep_float={name!r} is no op, and no node that the passes leave; "
                "a layer may have been merged into the one before it. Print "
                "simdflow.graph.passes.run(graph) for the nodes"
            )
    return frozenset(given)


def quantized(graph: Graph, ranges: Mapping[str, Range], keep_float: Collection[str] = ()) -> Graph:
    """The graph, as it is, with 8-bit layers by the (lowest, highest) value of each f32 value that
    no constant is: `quantize` after passes and calibration.
    """
    return _Quantizing(graph, ranges, frozenset(keep_float)).made()


def small_name(graph: Graph, name: str) -> str:
    """What the 8-bit form of a value of `graph` is called."""
    found = f"{name}.q"
    while found in graph.values:
        found += ".q"
    return found


class _Quantizing:
    """The graph being made. A value has an f32 form, an 8-bit form, or both, each made when it is
    first asked for.
    """

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], keep: frozenset[str]) -> None:
        self.old, self.keep = graph, keep
        self.new = Builder(graph.name)
        self.real: dict[str, str] = {}
        self.small: dict[str, str] = {}
        self.q: dict[str, Quantization] = {}  # what each 8-bit form means
        self.wanted = self._wanted()
        self.ranges = self._joined(ranges)

    def made(self) -> Graph:
        """The quantized graph."""
        for name in self.old.inputs:
            value = self.old.values[name]
            self.real[name] = self.new.input(name, value.type, value.quantization)
        for node in self.old.nodes:
            convert = self._converter(node)
            if convert is None:
                self._float(node)
            else:
                self.small[node.output] = convert(node)
        return self.new.graph(*(self.as_float(name) for name in self.old.outputs))

    def _wanted(self) -> set[str]:
        """The values whose 8-bit form leads to a product."""
        found: set[str] = set()
        for node in reversed(self.old.nodes):
            rule = self._rule(node)
            if rule == "product":
                found.add(str(node.inputs[0]))
            elif rule and node.output in found:
                found.update(i for i in node.reads if i not in self.old.constants)
        return found

    def _joined(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The ranges, those of parts that go nowhere but into a concatenation being its own: they
        are rounded once.
        """
        found, readers = dict(ranges), self.old.consumers
        for node in reversed(self.old.nodes):
            if self._rule(node) == "concat" and node.output in self.wanted:
                for part in node.reads:
                    if len(readers[part]) == 1 and part not in self.old.outputs:
                        found[part] = found[node.output]
        return found

    def _rule(self, node: Node) -> str:
        """The method that makes a node's 8-bit form; "" where there is none."""
        op, values = op_of(node), self.old.values
        if {node.name, node.op} & self.keep:
            return ""
        if op == "dequantize":
            whole = node.options["x_q"].scales.size == 1
            return "stored" if whole and values[str(node.inputs[0])].type.scalar == u8 else ""
        if any(values[i].type.scalar != f32 for i in (*node.reads, node.output)):
            return ""
        constant = [i in self.old.constants for i in node.reads]
        if op in PRODUCTS:
            fits = not constant[0] and all(constant[1:])
            return "product" if fits and self._depth(node) * LEVELS * 128 < BIAS_LIMIT else ""
        if op in SUMS:
            return "" if all(constant) else "sum"
        if any(constant):
            return ""
        if op in TABLES:
            return "table"
        if op in MOVES or op in MEANS:
            return "move"
        return op if op in ("silu", "concat") else ""

    def _depth(self, node: Node) -> int:
        """How many products each result of a product is the sum of."""
        w = self.old.constants[str(node.inputs[1])]
        return w.size // w.shape[-1]

    def _converter(self, node: Node) -> Callable[[Node], str] | None:
        """How a node becomes 8 bits; None for one that stays as it is."""
        rule = self._rule(node)
        if not rule:
            return None
        made: Callable[[Node], str] = getattr(self, rule)
        if rule in ("product", "stored"):
            return made
        ready = all(i in self.small for i in node.reads if i not in self.old.constants)
        return made if ready and (node.op in MOVES or node.output in self.wanted) else None

    def as_float(self, name: str) -> str:
        """The f32 form of a value, or integers that were integers before."""
        if name not in self.real:
            if name in self.old.constants:
                self.real[name] = self._constant(name, self.old.constants[name])
            else:
                x_q = self.q[name]
                self.real[name] = self.new.call(
                    ops.dequantize, self.small[name], x_q=x_q, output=name,
                    name=f"{name}.dequantize",  # the layer has the plain one
                )  # fmt: skip
        return self.real[name]

    def as_small(self, name: str) -> str:
        """The u8 form of a value."""
        if name not in self.small:
            q = self.meaning(name)
            if name in self.old.constants:
                levels = np.rint(self.old.constants[name] / np.float64(q.single)) + q.zero_point
                array = np.clip(levels, 0, LEVELS).astype(np.uint8)
                self.small[name] = self._constant(self._named(name), array, q)
            else:
                self.small[name] = self.new.call(
                    ops.quantize, self.as_float(name), y_q=q, y_type=u8, output=self._named(name)
                )
        return self.small[name]

    def meaning(self, name: str) -> Quantization:
        """The quantization of a value: as it is already, or by its range."""
        if name not in self.q:
            if name in self.old.constants:
                array = self.old.constants[name]
                low, high = float(array.min()), float(array.max())
            else:
                low, high = self.ranges[name]
            self.q[name] = Quantization(*scale_of(low, high))
        return self.q[name]

    def _named(self, name: str) -> str:
        """A name that nothing has, here or in the old graph."""
        found = small_name(self.old, name)
        while found in self.new.values:
            found = small_name(self.old, found)
        return found

    def _constant(self, name: str, array: np.ndarray, q: Quantization | None = None) -> str:
        return self.new.constant(name, array, q)

    def _call(
        self, function: Function, node: Node, inputs: list[str | None], **options: Any
    ) -> str:
        """A function of 8-bit values in the place of a node, of which it has the name and the
        result.
        """
        name = self._named(node.output)
        return self.new.call(
            function, *inputs, name=node.name, output=name,
            quantization=self.meaning(node.output), **options,
        )  # fmt: skip

    def _float(self, node: Node) -> None:
        inputs = [None if i is None else self.as_float(i) for i in node.inputs]
        self.real[node.output] = self.new.call(
            node.function, *inputs, name=node.name, output=node.output,
            quantization=self.old.values[node.output].quantization, **node.options,
        )  # fmt: skip

    # The 8-bit forms, by the names that `_rule` gives.

    def product(self, node: Node) -> str:
        """conv2d, depthwise_conv2d, dense: i8 weights by channel, i32 bias in units of both
        scales. A channel of small weights and a large bias has a scale that the bias fits.
        """
        x, w, *rest = (None if i is None else str(i) for i in node.inputs)
        assert x is not None and w is not None
        small, x_q = self.as_small(x), self.meaning(x)
        weights = self.old.constants[w].astype(np.float64)
        bias = self.old.constants[rest[0]].astype(np.float64) if rest and rest[0] else None
        largest = np.abs(weights).reshape(-1, weights.shape[-1]).max(axis=0) / WEIGHT_LEVELS
        if bias is not None:
            largest = np.maximum(largest, np.abs(bias) / (BIAS_LIMIT * np.float64(x_q.single)))
        scales = np.where(largest > 0, np.maximum(largest, 1e-30), 1.0).astype(np.float32)
        levels = np.clip(np.rint(weights / scales), -WEIGHT_LEVELS, WEIGHT_LEVELS)
        w_q = Quantization(scales)
        inputs = [small, self._constant(self._named(w), levels.astype(np.int8), w_q)]
        if bias is not None:
            units = np.rint(bias / (np.float64(x_q.single) * scales)).astype(i32.dtype)
            inputs.append(self._constant(self._named(str(rest[0])), units))
        options = {k: v for k, v in node.options.items() if k != "algorithm"}  # one of f32
        options |= {"x_q": x_q, "w_q": w_q, "y_q": self.meaning(node.output)}
        return self._call(node.function, node, [*inputs], **options | {"rounding": "float"})

    def sum(self, node: Node) -> str:
        """add, mul, sub."""
        a, b = (str(i) for i in node.inputs)
        options = dict(node.options) | {"a_q": self.meaning(a), "b_q": self.meaning(b)}
        options |= {"y_q": self.meaning(node.output), "rounding": "float"}
        return self._call(node.function, node, [self.as_small(a), self.as_small(b)], **options)

    def table(self, node: Node) -> str:
        """Layers of one input with a quantization before and after."""
        x = str(node.inputs[0])
        options = dict(node.options) | {"x_q": self.meaning(x), "y_q": self.meaning(node.output)}
        return self._call(node.function, node, [self.as_small(x)], **options)

    def silu(self, node: Node) -> str:
        """x * sigmoid(x), the second factor in steps of 1/256."""
        x = str(node.inputs[0])
        small, x_q, gate_q = self.as_small(x), self.meaning(x), Quantization(1 / 256, 0)
        name = self._named(f"{node.output}.gate")
        gate = self.new.call(ops.sigmoid, small, x_q=x_q, y_q=gate_q, output=name)
        options = {"a_q": x_q, "b_q": gate_q, "y_q": self.meaning(node.output)}
        return self._call(ops.mul, node, [small, gate], **options, rounding="float")

    def move(self, node: Node) -> str:
        """Layers that choose, move or average values, and keep what they mean."""
        x = str(node.inputs[0])
        small, q, options = self.as_small(x), self.meaning(x), dict(node.options)
        if node.op in ("max_pool2d", "avg_pool2d"):
            options["y_q"] = q
        if node.op == "pad":
            real = options.get("value", 0) / float(q.single) + q.zero_point
            if not -0.5 <= real <= LEVELS + 0.5:  # only the result's range has it
                small, q = self._requantized(x, self.meaning(node.output)), self.q[node.output]
                real = options["value"] / float(q.single) + q.zero_point
            options["value"] = int(np.clip(np.rint(real), 0, LEVELS))
        self.q[node.output] = q
        return self._call(node.function, node, [small], **options)

    def concat(self, node: Node) -> str:
        """Every part in the quantization of the whole."""
        y_q = self.meaning(node.output)
        parts: list[str | None] = [self._requantized(name, y_q) for name in node.reads]
        return self._call(node.function, node, parts, **node.options)

    def stored(self, node: Node) -> str:
        """The input of a dequantize, which is 8 bits already."""
        name = self.as_float(str(node.inputs[0]))
        self.q[node.output] = node.options["x_q"]
        return name

    def _requantized(self, name: str, y_q: Quantization) -> str:
        """The 8-bit form of a value with another meaning."""
        small, x_q = self.as_small(name), self.meaning(name)
        if x_q == y_q:
            return small
        return self.new.call(
            ops.requantize, small, x_q=x_q, y_q=y_q, y_type=u8, output=self._named(name)
        )
