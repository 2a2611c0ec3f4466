"""Steps: a graph as the kernels that run, in order, and the slots they read and write.

Turns each node into the kernels of its layer. A reshape is no step but another name for its slot,
and the copy that gives a layer's input its border is left out: the border becomes a property of
the read, for `storage` to provide. Nothing has an address yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..compiled import CompiledKernel
from ..compiler.request import Request
from ..dsl import loops as sf
from ..dsl.dataflow import Dataflow
from ..dsl.errors import ModelError, OperandError, SimdflowError
from ..dsl.nest import LoopNest
from ..dsl.types import OperandType
from ..kernel import Kernel, kernel
from ..operands import PackedOperand, pack, type_of
from ..targets import Target
from .graph import Graph, Node, short
from .nests import Frame, aligned, framed

Constant = np.ndarray | PackedOperand


@dataclass(frozen=True)
class Read:
    """How a step sees a slot: as it is, or with a border of `fill` around its own shape."""

    slot: str
    border: Frame = ()
    fill: float = 0


@dataclass(frozen=True)
class Place:
    """A part of the memory of `root`: `shape` with `frame` around it. A reshaped slot has the shape
    of its root.
    """

    root: str
    shape: tuple[int, ...]
    frame: Frame = ()


def placed(
    slot: str, slots: Mapping[str, OperandType], aliases: Mapping[str, tuple[str, Frame]]
) -> Place:
    """Where a slot lies in the memory that it shares."""
    if slot not in aliases:
        return Place(slot, slots[slot].shape)
    parent, frame = aliases[slot]
    outer = placed(parent, slots, aliases)
    if not frame:
        return outer
    return Place(outer.root, slots[slot].shape, summed(outer.frame, frame))


def summed(a: Frame, b: Frame) -> Frame:
    """Frame around frame."""
    if not a or not b:
        return a or b
    return tuple((p + r, q + s) for (p, q), (r, s) in zip(a, b, strict=True))


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel.

    nodes   the names of the graph's nodes it computes
    nest    its loop nest, bound to operand types without frames
    reads   for each input of the nest: a Read, or a constant
    """

    nodes: tuple[str, ...]
    nest: LoopNest
    reads: Mapping[str, Read | Constant]
    writes: str
    dataflow: Dataflow | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots it reads, once each."""
        return tuple(dict.fromkeys(r.slot for r in self.reads.values() if isinstance(r, Read)))

    def __str__(self) -> str:
        given = ", ".join(f"{k}={_shown(v)}" for k, v in self.reads.items() if isinstance(v, Read))
        return f"{short(self.writes)} = {self.nest.name}({given})"


@dataclass(frozen=True, eq=False)
class Schedule:
    """Steps in order.

    slots    the operand type of every slot: inputs, constants that are read whole, results
    aliases  slot -> (the slot whose memory it is, where it lies in that slot's shape: the frame)
    """

    graph: Graph
    target: Target
    steps: tuple[Step, ...]
    slots: Mapping[str, OperandType]
    aliases: Mapping[str, tuple[str, Frame]] = field(default_factory=dict)

    def place(self, slot: str) -> Place:
        """Where a slot lies."""
        return placed(slot, self.slots, self.aliases)

    def root(self, slot: str) -> str:
        """The slot that owns the memory."""
        return self.place(slot).root

    def __str__(self) -> str:
        lines = [f"schedule {self.graph.name} for {self.target.name}"]
        lines += [f"  {step}" for step in self.steps]
        return "\n".join(lines)


def _shown(read: Read) -> str:
    return f"{short(read.slot)}+{read.border}" if read.border else short(read.slot)


def steps_of(graph: Graph, target: Target) -> Schedule:
    """The schedule of a graph. Raises ModelError, with the node's name, for what an op refuses."""
    made = _Lowering(graph, target)
    for node in graph.nodes:
        try:
            made.node(node)
        except SimdflowError as error:
            raise ModelError(f"{graph.name}: node={node.name!r}: {error}") from error
    for name in dict.fromkeys(o for o in graph.outputs if o in graph.constants):
        made.given_away(name)
    return Schedule(graph, target, tuple(made.steps), made.slots, made.aliases)


class _Lowering:
    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.steps: list[Step] = []
        self.slots: dict[str, OperandType] = {
            n: graph.values[n].type for n in (*graph.inputs, *graph.constants)
        }
        self.aliases: dict[str, tuple[str, Frame]] = {}
        self._packed: dict[str, PackedOperand] = {}

    def node(self, node: Node) -> None:
        """Add the steps of a node, or the alias it is."""
        kind = self.graph.values[node.output].type
        self.slots[node.output] = kind
        if self._alias(node):
            return
        if isinstance(node.function, Kernel):
            self._kernel(node, node.function)
        else:
            self._layer(node)

    def given_away(self, constant: str) -> None:
        """Add the copy that makes a constant an output."""
        kind = self.slots[constant]
        nest = copied(kind.scalar[kind.shape or (1,)], self.target)
        self.steps.append(Step((constant,), nest, {"x": self.graph.constants[constant]}, constant))

    def _kernel(self, node: Node, function: Kernel) -> None:
        """A user's kernel: constant operands are packed, so that they lie as it reads them."""
        names = [o.name for o in function.nest.operands if o.role == "in"]
        types: dict[str, Any] = {}
        reads: dict[str, Read | Constant] = {}
        for name, value in zip(names, node.reads, strict=True):
            if value in self.graph.constants:
                reads[name] = self.packed(value)
                types[name] = self.packed(value).type
            else:
                reads[name] = Read(value)
                types[name] = self.graph.values[value].type
        made = function.specialize(**types, **node.options, target=self.target)
        self.steps.append(Step((node.name,), made.nest, reads, node.output, made.request.flow))

    def _alias(self, node: Node) -> bool:
        """Whether the node is only another name, or a part, of memory that there is."""
        if node.op == "concat":
            self._concat(node)
            return True
        first = node.reads[0]
        if first in self.graph.constants:
            return False
        place = placed(first, self.slots, self.aliases)
        if node.op == "reshape" and not place.frame:
            self.aliases[node.output] = (first, ())
            return True
        whole = place.shape == self.slots[first].shape
        if node.op == "slice" and whole and set(node.options["steps"]) == {1}:
            sizes, stops = self.slots[first].shape, node.options["stops"]
            frame = tuple(
                (a, n - b) for a, b, n in zip(node.options["starts"], stops, sizes, strict=True)
            )
            self.aliases[node.output] = (first, frame)
            return True
        return False

    def _concat(self, node: Node) -> None:
        """Every part is written where it lies in the whole; by a copy, where it lies elsewhere
        already.
        """
        kind = self.graph.values[node.output].type
        axis = int(node.options["axis"]) % len(kind.shape)
        inside = {*self.graph.inputs, *self.graph.constants, *self.graph.outputs, *self.aliases}
        inside |= {parent for parent, _ in self.aliases.values()}
        at = 0
        for n, value in enumerate(node.reads):
            size = self.graph.values[value].type.shape[axis]
            frame = tuple(
                (at, kind.shape[axis] - at - size) if d == axis else (0, 0)
                for d in range(len(kind.shape))
            )
            at += size
            if value in inside or not self._writable(value, frame):
                part = f"{node.output}.{n}"
                self.slots[part] = self.graph.values[value].type
                self.aliases[part] = (node.output, frame)
                copy = copied(self.slots[part], self.target)
                read = self._read(value)
                self.steps.append(Step((node.name,), copy, {"x": read}, part))
            else:
                self.aliases[value] = (node.output, frame)
                inside.add(value)

    def _writable(self, value: str, frame: Frame) -> bool:
        """Whether the step that writes a slot can write it with that frame; if it has to be spread
        for it, it is.
        """
        shape = self.slots[value].shape
        for i, step in enumerate(self.steps):
            if step.writes == value:
                for nest in (step.nest, aligned(step.nest, shape)):
                    if nest is None:
                        return False
                    if framed(nest.type_of(nest.out.name).shape, shape, frame) is not None:
                        self.steps[i] = realigned(step, nest)
                        break
                else:
                    return False
        return True

    def packed(self, value: str) -> PackedOperand:
        """A constant as a packed operand, the same one for every node that reads it."""
        if value not in self._packed:
            self._packed[value] = pack(self.graph.constants[value])
        return self._packed[value]

    def _layer(self, node: Node) -> None:
        op = node.function
        assert not isinstance(op, Kernel)
        operands: list[Any] = []
        for at, value in enumerate(node.inputs):
            if value is None:
                operands.append(None)
            elif at < op.inputs:
                operands.append(self.graph.values[value].type)
            elif value in self.graph.constants:
                operands.append(self.packed(value))
            else:
                raise OperandError(
                    f"{op.name}: operand {at} is computed in the network; a constant is needed "
                    "there. Use matmul for a product of two computed values"
                )
        options = {k: v for k, v in node.options.items() if k != "target"}
        layer = op.layer(*operands, **options, target=self.target)
        borders = {b.name: b for b in layer.buffers if b.border}
        values: dict[str, str] = dict(
            zip(layer.inputs, (v for v in node.inputs if v is not None), strict=False)
        )
        for b in layer.buffers:
            if not b.border:
                values[b.name] = self._temporary(f"{node.output}.{b.name}", b.shape, b.dtype)
        values["out"] = node.output
        for step in layer.steps:
            if step.out in borders:
                continue
            reads: dict[str, Read | Constant] = {}
            for name, given in zip(step.kernel.inputs, step.operands, strict=True):
                if not isinstance(given, str):
                    reads[name] = given
                elif given in borders:
                    b = borders[given]
                    reads[name] = self._read(values[b.of], b.border, b.fill)
                else:
                    reads[name] = self._read(values[given])
            nest, flow = step.kernel.nest, step.kernel.request.flow
            self.steps.append(Step((node.name,), nest, reads, values[step.out], flow))

    def _read(self, value: str, border: Frame = (), fill: float = 0) -> Read | Constant:
        """A read of a slot; of a constant, its array with the border round it."""
        if value not in self.graph.constants:
            return Read(value, border, fill)
        array = self.graph.constants[value]
        return np.pad(array, border, constant_values=fill) if border else array

    def _temporary(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
        self.slots[name] = type_of(np.empty(0, dtype)).scalar[shape]
        return name


@kernel
def copy_all(x: Any, out: Any) -> None:
    """out[i] = x[i]."""
    for i in sf.grid(out.shape):
        out[i] = x[i]


def copied(kind: OperandType, target: Target) -> LoopNest:
    """The nest that copies an array of a type, with one axis for each of its sizes."""
    flat = kind.scalar[kind.size]
    nest = aligned(copy_all.specialize(x=flat, out=flat, target=target).nest, kind.shape)
    assert nest is not None, "a row of elements spreads to any shape"
    return nest


def compiled(step: Step, nest: LoopNest, target: Target) -> CompiledKernel:
    """The kernel of a step, for operand types as they lie in memory."""
    types = tuple(sorted((o.name, o.type) for o in nest.operands if o.type is not None))
    return CompiledKernel(Request(nest, types, (), step.dataflow, target))


def realigned(step: Step, nest: LoopNest) -> Step:
    """The step with its axes spread; a dataflow names the axes that were."""
    return step if nest is step.nest else replace(step, nest=nest, dataflow=None)


def rebound(nest: LoopNest, types: Mapping[str, OperandType]) -> LoopNest:
    """The nest with other types for some operands: frames and slack change no index."""
    operands = tuple(replace(o, type=types.get(o.name, o.type)) for o in nest.operands)
    return replace(nest, operands=operands, constants=())
