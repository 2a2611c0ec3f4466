"""rewrite: how a pass makes the next graph out of a graph.

Walks the nodes in order, lets a rule replace some of them by other nodes, and drops what nobody
reads afterwards. Names and types of inputs and outputs stay. The rules are in `passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..dsl.errors import ModelError
from ..ops import Op, Quantization
from .graph import Builder, Graph, Node


class Rewrite(Builder):
    """The graph being made, and the one it is made from (`graph`).

    A rule looks at nodes with `maker` and `uses`, adds nodes with `call`, and returns the name of
    the value that takes the place of the node's output.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.name)
        self.old = graph
        for name in graph.inputs:
            self.input(name, graph.values[name].type, graph.values[name].quantization)
        for name, array in graph.constants.items():
            self.values[name] = graph.values[name]
            self.constants[name] = array
        self._made: dict[str, Node] = {}
        self._readers: dict[str, list[str]] = {}
        self._alias: dict[str, str] = {}
        self._root: Node | None = None
        self._uses: dict[str, int] = dict.fromkeys(graph.outputs, 1)
        for node in graph.nodes:
            for name in node.reads:
                self._uses[name] = self._uses.get(name, 0) + 1

    def maker(self, name: str | None, *ops: str) -> Node | None:
        """The node made so far that gives `name`, if it calls one of `ops` (any, if none named)."""
        node = None if name is None else self._made.get(name)
        return node if node is not None and (not ops or op_of(node) in ops) else None

    def uses(self, name: str) -> int:
        """How often the old graph reads a value, an output being one use; 1 for a value that a
        rule has just made.
        """
        return self._uses.get(name, 1)

    def only(self, name: str | None, *ops: str) -> Node | None:
        """`maker`, if nothing else uses the value."""
        node = self.maker(name, *ops)
        return node if node is not None and self.uses(node.output) == 1 else None

    def readers(self, name: str) -> list[Node]:
        """The nodes made so far that read a value."""
        return [self._made[output] for output in self._readers.get(name, ())]

    def array(self, name: str | None) -> np.ndarray | None:
        """The array of a constant; None for anything else."""
        return None if name is None else self.constants.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return self.values[name].type.shape

    def call(
        self,
        function: Any,
        *inputs: str | None,
        name: str = "",
        output: str = "",
        quantization: Quantization | None = None,
        **options: Any,
    ) -> str:
        """`Builder.call`; without an `output` the new value is named after the node's, and one of
        the type of its first input, without a `y_q`, means what that means.
        """
        root = self._root
        base = output or name or (root.output if root is not None else "")
        result = super().call(
            function, *inputs, name=name, output=base, quantization=quantization, **options
        )
        made, first = self.values[result], self.values[inputs[0]] if inputs and inputs[0] else None
        if made.quantization is None and first and first.type.scalar == made.type.scalar:
            self.values[result] = replace(made, quantization=first.quantization)
        self._noted(self._nodes[-1])
        return result

    def replaced(self, function: Any, *inputs: str | None, **options: Any) -> str:
        """The node that takes the place of the present one: its output has the same name."""
        assert self._root is not None
        root, old = self._root, self.old.values[self._root.output]
        self._nodes.append(
            Node(root.name, function, inputs, root.output, MappingProxyType(dict(options)))
        )
        kinds = [None if i is None else self.values[i].type for i in inputs]
        self.values[root.output] = replace(old, type=function.shape(*kinds, **options))
        self._noted(self._nodes[-1])
        return root.output

    def again(self, node: Node, inputs: Mapping[int, str] | None = None, **options: Any) -> str:
        """`node`'s function in the place of the present node, with some inputs or options
        changed.
        """
        given = [(inputs or {}).get(k, i) for k, i in enumerate(node.inputs)]
        return self.replaced(node.function, *given, **(dict(node.options) | options))

    def fresh(self, name: str) -> str:
        """A name that neither graph has."""
        found, n = name, 1
        while found in self.values or found in self.old.values:
            n += 1
            found = f"{name}_{n}"
        return found

    def walk(self, rule: Callable[[Rewrite, Node], str | None]) -> Graph:
        """The graph after `rule`, which returns the name of a value for each node, or None to
        keep it. A node whose output must keep its name, and cannot, is kept too.
        """
        for old in self.old.nodes:
            inputs = tuple(i if i is None else self._now(i) for i in old.inputs)
            node = old if inputs == old.inputs else replace(old, inputs=inputs)
            self._root = node
            found = rule(self, node)
            if found is None or (found != node.output and not self._replaced_by(found)):
                self.values[node.output] = self.old.values[node.output]
                self._nodes.append(node)
                self._noted(node)
            self._agree(node.output)
        return pruned(self.graph(*(self._now(o) for o in self.old.outputs)))

    def _noted(self, node: Node) -> None:
        """Know a node by its output and by what it reads."""
        self._made[node.output] = node
        for name in node.reads:
            self._readers.setdefault(name, []).append(node.output)

    def _now(self, name: str) -> str:
        """The value that stands for `name`."""
        while name in self._alias:
            name = self._alias[name]
        return name

    def _replaced_by(self, new: str) -> bool:
        """Let `new` stand for the present node's output from now on; False if it cannot."""
        assert self._root is not None
        old, outputs, new = self._root.output, self.old.outputs, self._now(new)
        if old not in outputs:
            self._alias[old] = new
            self._uses[new] = self.uses(new) + self._uses.get(old, 0) - 1
            return True
        if new not in self._made or new in outputs:
            return False
        # The value takes the name of the output, wherever it is read already.
        self.values[old] = replace(self.old.values[old], type=self.values.pop(new).type)
        self._readers[old] = [*self._readers.get(old, ()), *self._readers.pop(new, ())]
        for k, node in enumerate(self._nodes):
            if new in node.reads or node.output == new:
                inputs = tuple(old if i == new else i for i in node.inputs)
                output = old if node.output == new else node.output
                self._nodes[k] = self._made[output] = replace(node, inputs=inputs, output=output)
        for readers in self._readers.values():
            readers[:] = [old if output == new else output for output in readers]
        self._uses[old] = self.uses(old) + self.uses(new) - 1
        del self._made[new]
        self._alias[new] = old
        return True

    def _agree(self, name: str) -> None:
        """A rule may not change what a value is."""
        before = self.old.values[name].type
        after = self.values[self._now(name)].type
        if (before.scalar, before.shape) != (after.scalar, after.shape):
            raise ModelError(
                f"{self.name}: value={name!r} became {after}, it was {before}; a pass keeps types. "
                "This is a mistake in simdflow: report it with the model"
            )


def op_of(node: Node) -> str:
    """The name of the op that a node calls; "" for a user's kernel, whatever its name."""
    return node.op if isinstance(node.function, Op) else ""


def over(node: Node, rank: int) -> tuple[int, ...]:
    """The axes of a reduction of a value with `rank` axes: sorted, none negative."""
    axes = node.options.get("axes")
    return tuple(range(rank)) if axes is None else tuple(sorted(a % rank for a in axes))


def rewrite(graph: Graph, rule: Callable[[Rewrite, Node], str | None]) -> Graph:
    """`graph` with every node for which `rule(at, node)` returns a name replaced by the value of
    that name; None keeps a node. `rule` adds the nodes it needs to `at`.
    """
    return Rewrite(graph).walk(rule)


def settled(graph: Graph, rule: Callable[[Rewrite, Node], str | None]) -> Graph:
    """`rewrite`, repeated until the rule keeps every node."""
    while True:
        found = rewrite(graph, rule)
        if found.nodes == graph.nodes:
            return found
        graph = found


def pruned(graph: Graph) -> Graph:
    """The graph without nodes, constants and values that no output needs. Inputs stay."""
    needed, nodes = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.reads)
            nodes.append(node)
    kept = needed | set(graph.inputs)
    return Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        {k: v for k, v in graph.values.items() if k in kept},
        {k: v for k, v in graph.constants.items() if k in kept},
        tuple(reversed(nodes)),
    )
