"""Graph: a network as frozen data, and the Builder that makes one.

A value has a name and an operand type; a node calls an op of `simdflow.ops`, or a user's kernel, on
values and makes one value. Nothing here is compiled or computed: passes turn graphs into graphs,
`compile` turns one into a Model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ..dsl.errors import ModelError
from ..dsl.types import OperandType
from ..kernel import Kernel
from ..operands import type_of
from ..ops import Op, Quantization

Function = Op | Kernel


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `quantization` says what its integers mean; None where they mean
    themselves, and for floats.
    """

    name: str
    type: OperandType
    quantization: Quantization | None = None

    @property
    def ranged(self) -> bool:
        """Whether the type promises more about the values than that they are of it."""
        return (self.type.low, self.type.high) != (self.type.scalar.low, self.type.scalar.high)

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True, eq=False)
class Node:
    """`output = function(*inputs, **options)`.

    inputs   names of values, in the order of the function's parameters; None for one left out
    """

    name: str
    function: Function
    inputs: tuple[str | None, ...]
    output: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def __reduce__(self) -> Any:
        return Node, (self.name, self.function, self.inputs, self.output, dict(self.options))

    @property
    def op(self) -> str:
        """The function's name: "conv2d"."""
        return self.function.name

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs that are there."""
        return tuple(i for i in self.inputs if i is not None)

    def __str__(self) -> str:
        given = ["None" if i is None else short(i) for i in self.inputs]
        given += [f"{k}={_shown(v)}" for k, v in self.options.items()]
        return f"{short(self.output)} = {self.op}({', '.join(given)})"


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which every value is known before it is read.

    values      every value by its name: inputs, constants, results of nodes
    constants   read-only arrays by the name of their value

    Raises ModelError if a value is made twice, read before it is made, or has no type.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    constants: Mapping[str, np.ndarray]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        for field in ("values", "constants"):
            object.__setattr__(self, field, MappingProxyType(dict(getattr(self, field))))
        for array in self.constants.values():
            if array.flags.owndata:
                array.flags.writeable = False  # as it was before it was pickled
        known = {*self.inputs, *self.constants}
        for node in self.nodes:
            missing = [i for i in node.reads if i not in known]
            if missing:
                raise ModelError(
                    f"{self.name}: node={node.name!r} reads {missing[0]!r}, which no earlier node "
                    "makes; inputs, constants and results of earlier nodes are allowed. Sort the "
                    "nodes"
                )
            if node.output in known:
                raise ModelError(
                    f"{self.name}: node={node.name!r} makes {node.output!r}, which exists already; "
                    "every value is made once. Rename it"
                )
            known.add(node.output)
        unknown = [v for v in (*known, *self.outputs) if v not in self.values]
        unmade = [o for o in self.outputs if o not in known]
        if unknown or unmade:
            name = (unknown or unmade)[0]
            raise ModelError(
                f"{self.name}: value={name!r} has no type or is never made; every output is made "
                "by a node, or is an input or a constant. Correct the name"
            )

    def __reduce__(self) -> Any:
        values, constants = dict(self.values), dict(self.constants)
        return Graph, (self.name, self.inputs, self.outputs, values, constants, self.nodes)

    @property
    def producers(self) -> dict[str, Node]:
        """The node that makes each result."""
        return {n.output: n for n in self.nodes}

    @property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value; [] for one that nobody reads."""
        found: dict[str, list[Node]] = {name: [] for name in self.values}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                found[name].append(node)
        return found

    def __str__(self) -> str:
        """The graph as text, a line a node."""
        shown = ", ".join(str(self.values[i]) for i in self.inputs)
        lines = [f"graph {self.name}({shown})"]
        lines += [f"  {node}   # {self.values[node.output].type}" for node in self.nodes]
        return "\n".join([*lines, f"  return {', '.join(self.outputs)}"])


LONGEST = 40


def short(name: str) -> str:
    """A name for people: exporters give some of several hundred characters, the last part of which
    says most.
    """
    last = name.rsplit(";", 1)[-1]
    return last if len(last) <= LONGEST else "..." + last[3 - LONGEST :]


def _shown(value: object) -> str:
    if not isinstance(value, Quantization):
        return str(value)
    scales = value.scales.reshape(-1)
    scale = f"{scales[0]:.4g}" if scales.size == 1 else f"{scales.size} scales"
    return f"({scale}, {value.zero_point})"


class Builder:
    """Makes a Graph, node by node. Types of results come from each function's own shape rule."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Value] = {}
        self.constants: dict[str, np.ndarray] = {}
        self._inputs: list[str] = []
        self._nodes: list[Node] = []

    def input(self, name: str, kind: OperandType, quantization: Quantization | None = None) -> str:
        """Declare an input; its name."""
        name = self._new(Value(name, kind, quantization))
        self._inputs.append(name)
        return name

    def constant(
        self, name: str, array: np.ndarray, quantization: Quantization | None = None
    ) -> str:
        """Add a constant; its name, made unique if another value has it. The array is not copied
        if it is read-only already.
        """
        array = np.asarray(array)
        if array.flags.writeable or not array.flags.c_contiguous:
            array = array.copy(order="C")
            array.flags.writeable = False
        name = self._new(Value(self.fresh(name), type_of(array), quantization))
        self.constants[name] = array
        return name

    def call(
        self,
        function: Function,
        *inputs: str | None,
        name: str = "",
        output: str = "",
        quantization: Quantization | None = None,
        **options: Any,
    ) -> str:
        """Add the node `function(*inputs, **options)`; the name of its result.

        `name` and `output` are made from the function's name when not given. `quantization` is what
        the result's integers mean, by default the option `y_q`. Raises OperandError where the
        function's shape rule does, ModelError for inputs that are not there.
        """
        for i in inputs:
            if i is not None and i not in self.values:
                raise ModelError(
                    f"{self.name}: {function.name} reads {i!r}, which is no value yet; add inputs, "
                    "constants and nodes before they are read"
                )
        types = [None if i is None else self.values[i].type for i in inputs]
        kind = function.shape(*types, **options)
        meaning = quantization if quantization is not None else options.get("y_q")
        result = self._new(Value(self.fresh(output or name or function.name), kind, meaning))
        node = Node(name or result, function, inputs, result, options)
        self._nodes.append(node)
        return result

    def add(self, graph: Graph, nodes: Iterable[Node]) -> None:
        """Take nodes of another graph over as they are, with the names of their values."""
        for node in nodes:
            self.values[node.output] = graph.values[node.output]
            self._nodes.append(node)

    def graph(self, *outputs: str) -> Graph:
        """The graph made so far."""
        return Graph(
            self.name,
            tuple(self._inputs),
            outputs,
            self.values,
            self.constants,
            tuple(self._nodes),
        )

    def fresh(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`... if a value has it."""
        found, n = name, 1
        while found in self.values:
            n += 1
            found = f"{name}_{n}"
        return found

    def _new(self, value: Value) -> str:
        if value.name in self.values:
            raise ModelError(
                f"{self.name}: value={value.name!r} exists already; names are unique. Rename one"
            )
        self.values[value.name] = value
        return value.name
