"""trace: a Python function over ops becomes a Graph.

Runs the function once on symbolic tensors (see `tensor`), records every op and kernel that is
called on them, and turns the arrays that it uses into constants. Compiles and computes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import ops
from ..dsl.errors import ModelError, OperandError
from ..dsl.types import OperandType, Scalar, f32
from ..kernel import Kernel
from ..operands import PackedOperand
from ..ops import Quantization
from .graph import Builder, Function, Graph
from .tensor import Tensor


def trace(
    function: Callable[..., Any], *types: OperandType, name: str | None = None, **named: OperandType
) -> Graph:
    """The graph of `function(*tensors)`, given the operand type of each tensor.

    types, named  what the function takes, by position and by keyword: `sf.f32[1, 96, 96, 3]`; the
                  inputs have the names of its parameters
    name          of the graph; by default the function's

    The outputs are what it returns: a tensor, a tuple or list of them, or a dict by name. Arrays,
    packed operands and numbers that ops are given become constants named after the node and the
    parameter ("conv2d.w"); the same object is one constant, as it is when first used.

    Raises ModelError for an argument that is no operand type, for a function that returns anything
    else, or looks at the numbers in a tensor; OperandError where an op refuses what it is given.
    """
    called = name or str(getattr(function, "__name__", "graph"))
    recorder = Recorder(called)
    tensors = {
        key: Tensor(recorder, recorder.builder.input(key, kind))
        for key, kind in _named(called, function, types, named).items()
    }
    positional = list(tensors.values())[: len(types)]
    result = function(*positional, **{key: tensors[key] for key in named})
    if isinstance(result, Mapping):
        return recorder.graph([(str(key), value) for key, value in result.items()])
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return recorder.graph([("", value) for value in parts])


def _named(
    called: str,
    function: Callable[..., Any],
    types: tuple[OperandType, ...],
    named: Mapping[str, OperandType],
) -> dict[str, OperandType]:
    """The operand types by the function's parameters, the positional ones first."""
    for key, kind in (*enumerate(types), *named.items()):
        if not isinstance(kind, OperandType):
            raise ModelError(
                f"{called}: argument {key}={kind!r} is not an operand type; sf.f32[1, 96, 96, 3] "
                "is one. Give the type of each input"
            )
    try:
        bound = inspect.signature(function).bind(*types, **named)
    except TypeError as error:
        raise ModelError(
            f"{called}: {error}; it is traced with {len(types)} types by position and "
            f"{sorted(named)} by name. Give one type for each parameter without a default"
        ) from None
    names: list[str] = []
    for p in bound.signature.parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            names += [f"{p.name}_{i}" for i in range(len(types) - len(names))]
        elif len(names) < len(types) and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            names.append(p.name)
    return dict(zip(names, types, strict=True)) | dict(named)


class Recorder:
    """What a trace has recorded so far."""

    def __init__(self, name: str) -> None:
        self.builder = Builder(name)
        # By identity; the objects are kept, so that no other one gets their address.
        self._constants: dict[int, tuple[object, str]] = {}
        self._made: set[str] = set()

    def call(
        self, function: Function, arguments: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Tensor:
        """Record `function(*arguments, **options)`; the tensor of its result."""
        operands, rest = _operands(function, arguments, options)
        node = self.builder.fresh(function.name)
        kind = [a.kind for _, a in operands if isinstance(a, Tensor)][-1]
        inputs = [
            None if a is None else self._value(f"{node}.{key}", a, kind, rest.get(f"{key}_q"))
            for key, a in operands
        ]
        made = self.builder.call(function, *inputs, name=node, output=node, **rest)
        self._made.add(made)
        return Tensor(self, made)

    def _value(
        self, name: str, value: Any, kind: OperandType, quantization: Quantization | None
    ) -> str:
        """The name of the value that an operand is; a new constant for an array or number."""
        if isinstance(value, Tensor):
            if value.recorder is not self:
                raise ModelError(
                    f"{self.builder.name}: {name} is a tensor of another trace; a function may "
                    "use what it is given and what it makes of that. Pass it as an argument"
                )
            return value.name
        if isinstance(value, PackedOperand) and value.array is None:
            raise ModelError(
                f"{self.builder.name}: {name}={value.type} is compressed; a graph has dense "
                "constants. Pass the dense array"
            )
        array = value.array if isinstance(value, PackedOperand) else value
        if isinstance(array, (bool, int, float)):
            array = _number(name, array, kind.scalar)
        array = np.asarray(array)
        known = self._constants.get(id(value))
        if known is not None and np.array_equal(self.builder.constants[known[1]], array):
            return known[1]
        made = self.builder.constant(name, array, quantization)
        self._constants[id(value)] = (value, made)
        return made

    def graph(self, results: list[tuple[str, Any]]) -> Graph:
        """The graph that gives `results`, (name or "", tensor) each."""
        if not results:
            raise ModelError(f"{self.builder.name}: it returns no tensor; one or more are needed")
        names: dict[str, str] = {}
        for key, value in results:
            if not isinstance(value, Tensor) or value.recorder is not self:
                raise ModelError(
                    f"{self.builder.name}: it returns {key or 'a value'}={value!r}, which is not a "
                    "tensor of this trace; tensors, tuples and dicts of them are allowed. Return "
                    "what an op gives"
                )
            made = value.name
            # An output is a value of its own, which a node makes.
            if made in names or made not in self._made:
                made = self.builder.call(ops.reshape, made, shape=value.shape)
            names[made] = key or made
        return _renamed(self.builder.graph(*names), {k: v for k, v in names.items() if k != v})


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with outputs renamed; ModelError for a name that another value has."""
    taken = [new for new in names.values() if new in graph.values and new not in names]
    if taken or len(set(names.values())) != len(names):
        name = (taken or list(names.values()))[0]
        raise ModelError(
            f"{graph.name}: output={name!r} is the name of another value; inputs, constants and "
            "outputs have one each. Return it under another name"
        )
    nodes = tuple(
        replace(
            n,
            inputs=tuple(None if i is None else names.get(i, i) for i in n.inputs),
            output=names.get(n.output, n.output),
        )
        for n in graph.nodes
    )
    values = {names.get(k, k): replace(v, name=names.get(k, k)) for k, v in graph.values.items()}
    outputs = tuple(names.get(o, o) for o in graph.outputs)
    return Graph(graph.name, graph.inputs, outputs, values, graph.constants, nodes)


def _operands(
    function: Function, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    """([(parameter, operand), ...], options) of a call, as the function's signature sorts them."""
    if "out" in options:
        raise OperandError(
            f"{function.name}: out= is given for a symbolic tensor, which has no memory; a graph "
            "decides where its values lie. Leave it out"
        )
    if isinstance(function, Kernel):
        names = [o.name for o in function.nest.operands if o.role == "in"]
        found = [*zip(names, arguments, strict=True)]
        return found, {k: _frozen(v) for k, v in options.items()}
    try:
        bound = inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise OperandError(f"{function.name}: {error}. Correct the call") from None
    found, rest = [], {}
    for p in bound.signature.parameters.values():
        if p.name not in bound.arguments:
            if p.kind is p.POSITIONAL_OR_KEYWORD:
                found.append((p.name, None))
            continue
        value = bound.arguments[p.name]
        if p.kind is p.VAR_POSITIONAL:
            found += [(f"{p.name}_{i}", v) for i, v in enumerate(value)]
        elif p.kind is p.KEYWORD_ONLY:
            rest[p.name] = _frozen(value)
        else:
            found.append((p.name, value))
    while found and found[-1][1] is None:
        found.pop()
    return found, rest


def _number(name: str, value: float, scalar: Scalar) -> np.ndarray:
    """A Python number as the element type of the tensor that it meets; a float is f32 at least."""
    try:
        kind = f32 if isinstance(value, float) and not scalar.is_float else scalar
        return np.asarray(value, kind.dtype)
    except OverflowError:
        raise OperandError(
            f"{name}: value={value} does not fit {scalar}, the type of the tensor that it meets; "
            f"{scalar.low:g} to {scalar.high:g} is allowed. Cast the tensor first"
        ) from None


def _frozen(value: Any) -> Any:
    """An option that nobody changes afterwards: lists as tuples."""
    if isinstance(value, Tensor):
        raise OperandError(
            f"{value.name}: a symbolic tensor is given as an option; options are numbers known "
            "before. Compute it from shapes"
        )
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
