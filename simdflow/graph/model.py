"""Model: a compiled network, called with arrays.

Every Python thread that calls it has an arena of its own, so threads may call it at once. A call
copies the inputs in, runs one native function, and copies the outputs out; `bind` gives the buffers
themselves, for callers who want no copy.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..compiler.call import bound
from ..dsl.errors import ModelError, OperandError
from .buffers import Arrays, Bound, bind, direct
from .network import Network, Port

if TYPE_CHECKING:
    from .graph import Graph
    from .profile import Profile

# An executor sends the model with every batch; a worker must not compile it every time.
MAX_RESTORED = 4
_RESTORED: dict[str, Model] = {}


class _Slot(NamedTuple):
    """Where an input goes, and what its array must be."""

    place: np.ndarray
    port: Port
    shape: tuple[int, ...]
    dtype: np.dtype
    ranged: bool


class _Held(NamedTuple):
    """What a thread has of a model; `direct` where arrays may go straight in."""

    direct: Callable[..., Any] | None
    run: Callable[[], object]
    slots: tuple[_Slot, ...]
    outputs: tuple[np.ndarray, ...]


class Model:
    """A network compiled for one CPU.

    `model(x)` runs it: inputs in order or by name, one array back, or a tuple of several.
    `predict` takes any number of samples, `run` names and returns everything, `bind` gives the
    buffers. `summary`, `profile`, `memory` and `plot` show what it is made of.
    """

    def __init__(
        self,
        network: Network,
        source: Callable[[], Graph],
        options: Mapping[str, Any],
        repeats: int = 1,
    ) -> None:
        self.network, self._source, self._options = network, source, dict(options)
        self.repeats = repeats
        self._local = threading.local()
        self._token = ""  # of its pickles, once there are some
        self._linked = network.linked()
        self._names = tuple(p.name for p in network.inputs)

    @property
    def name(self) -> str:
        """The name of the graph."""
        return self.network.name

    @property
    def target(self) -> str:
        """The CPU it was compiled for."""
        return self.network.target

    @property
    def options(self) -> dict[str, Any]:
        """What `compile` was given beside the graph."""
        return dict(self._options)

    @property
    def threads(self) -> int:
        """How many threads a call uses; 1 where no layer is worth sharing."""
        return self.network.threads

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes: names, types and quantizations."""
        return tuple(self._repeated(p) for p in self.network.inputs)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it returns."""
        return tuple(self._repeated(p) for p in self.network.outputs)

    def _repeated(self, port: Port) -> Port:
        """The port for all runs of a call: the network's own batch, `repeats` times."""
        kind = port.type
        if self.repeats == 1:
            return port
        return replace(
            port, type=replace(kind, shape=(self.repeats * kind.shape[0], *kind.shape[1:]))
        )

    @cached_property
    def graph(self) -> Graph:
        """The graph it was compiled from; read again from its file if it came from the cache."""
        return self._source()

    def bind(self) -> Bound:
        """Buffers of your own, and a callable that runs the network on them: 0.1 us a call beyond
        the network.
        """
        return bind(self.network, self._linked.entry, self.repeats)

    def calls(self, buffers: Bound) -> list[Callable[[], object]]:
        """Each step alone, on these buffers: what `run` does one after the other."""
        return [
            bound(step, buffers.memories, 0, call.extent)
            for step, call in zip(self._linked.steps, self.network.calls, strict=True)
        ]

    def _directly(self, arena: np.ndarray) -> Callable[..., Any] | None:
        """The network on arrays as they are; None where values have to be looked at, or where it
        runs several times a call.
        """
        if self.repeats > 1 or any(p.ranged for p in self.network.inputs):
            return None
        return direct(self.network, self._linked.arrays, arena)

    def _mine(self) -> _Held:
        """This thread's buffers."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            b = self.bind()
            slots = tuple(
                _Slot(b.inputs[p.name], p, p.type.stored, p.type.scalar.dtype, p.ranged)
                for p in self.inputs
            )
            # By port: a graph may have one value as two outputs.
            outputs = tuple(b.outputs[p.name] for p in self.outputs)
            held = self._local.held = _Held(self._directly(b.memories[0]), b.run, slots, outputs)
        return held

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        direct, run, slots, outputs = self._mine()
        if direct is not None and not named:
            fresh = direct(*arrays)
            if fresh is not None:
                return fresh
        ordered = self._ordered(arrays, named)
        for a, (place, port, shape, dtype, ranged) in zip(ordered, slots, strict=True):
            if ranged or type(a) is not np.ndarray or a.shape != shape or a.dtype != dtype:
                a = self._checked(port, a)
            place[...] = a
        run()
        if len(outputs) == 1:
            return outputs[0].copy()
        return tuple(y.copy() for y in outputs)

    def run(self, inputs: Arrays | Sequence[Any], out: Arrays | None = None) -> dict[str, Any]:
        """All outputs by name, of inputs by name or in order; written into `out` where it has an
        array for one. Raises OperandError for arrays of other shapes or types, before anything
        runs.
        """
        given = dict(inputs) if isinstance(inputs, Mapping) else {}
        ordered = () if isinstance(inputs, Mapping) else tuple(inputs)
        for name, y in (out or {}).items():
            self._writeable(name, y)
        held = self._mine()
        arrays = self._ordered(ordered, given)
        checked = [self._checked(p, a) for p, a in zip(self.inputs, arrays, strict=True)]
        for slot, a in zip(held.slots, checked, strict=True):
            slot.place[...] = a
        held.run()
        found: dict[str, Any] = {}
        for name, y in zip((p.name for p in self.outputs), held.outputs, strict=True):
            target = (out or {}).get(name)
            if target is None:
                found[name] = y.copy()
            else:
                target[...] = y
                found[name] = target
        return found

    def predict(self, x: Any) -> Any:
        """The outputs of any number of samples: [n, ...] for a model with one input of [b, ...].

        Samples go through in groups of the model's batch, the last one filled up with one of its
        own. Raises OperandError for samples of another shape or type, and for a model whose inputs
        and outputs are not along one batch.
        """
        if len(self.inputs) != 1:
            raise OperandError(
                f"{self.name}: inputs={len(self.inputs)}; predict is for one. Call the model"
            )
        _, run, ((place, port, shape, dtype, _),), outputs = self._mine()
        if not shape or any(y.shape[:1] != shape[:1] for y in outputs):
            raise OperandError(
                f"{self.name}: inputs and outputs are {port} and "
                f"{', '.join(map(str, self.outputs))}; predict needs the samples along the first "
                "axis of all. Call the model"
            )
        x = self._array(port.name, x)
        if x.ndim != len(shape) or x.shape[1:] != shape[1:] or x.dtype != dtype:
            raise OperandError(
                f"{self.name}: {port.name} is {x.dtype}{list(x.shape)}; {dtype}"
                f"[n, {', '.join(map(str, shape[1:]))}] is needed. Reshape or convert it"
            )
        self._ranged(port, x)
        size = shape[0]
        found = tuple(np.empty((len(x), *y.shape[1:]), y.dtype) for y in outputs)
        for at in range(0, len(x), size):
            n = min(size, len(x) - at)
            place[:n] = x[at : at + n]
            place[n:] = x[at]
            run()
            for whole, y in zip(found, outputs, strict=True):
                whole[at : at + n] = y[:n]
        return found[0] if len(found) == 1 else found

    def _ordered(self, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, ...]:
        """The arrays in the order of the inputs. OperandError if some are missing or unknown."""
        names = self._names
        given = dict(zip(names, arrays, strict=False)) | dict(named)
        if len(arrays) + len(named) != len(names) or set(given) != set(names):
            shown = ", ".join(given) or "none"
            raise OperandError(
                f"{self.name}: inputs given are {shown} ({len(arrays) + len(named)}); it takes "
                f"{', '.join(names)}. Give each once"
            )
        return tuple(given[n] for n in names)

    def _checked(self, port: Port, a: Any) -> np.ndarray:
        a = self._array(port.name, a)
        shape, dtype = port.type.stored, port.type.scalar.dtype
        if a.shape != shape or a.dtype != dtype:
            raise OperandError(
                f"{self.name}: {port.name} is {a.dtype}{list(a.shape)}; {dtype}{list(shape)} is "
                "needed. Reshape or convert it, or compile with another batch"
            )
        self._ranged(port, a)
        return a

    def _array(self, name: str, a: Any) -> np.ndarray:
        try:
            return np.asarray(a)
        except ValueError as error:
            raise OperandError(
                f"{self.name}: {name} is {type(a).__name__} that is no array: {error}. Give rows "
                "of one length"
            ) from error

    def _ranged(self, port: Port, a: np.ndarray) -> None:
        """OperandError for values outside a promised range, such as an index outside its table."""
        kind = port.type
        if port.ranged and a.size and (a.min() < kind.low or a.max() > kind.high):
            raise OperandError(
                f"{self.name}: {port.name} has values {a.min()} to {a.max()}; {kind.low} to "
                f"{kind.high} is allowed. Correct them"
            )

    def _writeable(self, name: str, y: Any) -> None:
        kinds = {p.name: p.type for p in self.outputs}
        if name not in kinds:
            raise OperandError(
                f"{self.name}: out={name!r} is no output; outputs are {', '.join(kinds)}. Use one "
                "of them"
            )
        kind = kinds[name]
        fits = isinstance(y, np.ndarray) and y.shape == kind.stored and y.dtype == kind.scalar.dtype
        if not fits or not y.flags.writeable:
            raise OperandError(
                f"{self.name}: out[{name!r}] is no writeable array {kind.scalar.dtype}"
                f"{list(kind.stored)}. Pass such an array, or none"
            )

    def profile(self, *arrays: Any, seconds: float = 0.5, **named: Any) -> Profile:
        """The time of every layer for these inputs (zeros if there are none): see `Profile`."""
        from .profile import profile

        given = self._ordered(arrays, named) if arrays or named else ()
        return profile(
            self, [self._checked(p, a) for p, a in zip(self.inputs, given, strict=False)], seconds
        )

    def summary(self) -> str:
        """The steps, what each computes and how large its result is."""
        from .show import summary

        return summary(self.network)

    def memory(self) -> str:
        """The arena as a picture of bytes against steps, its peak against the lower bound."""
        from .show import memory

        return memory(self.network)

    def plot(self, path: str | Path) -> None:
        """Write the network as a picture: an SVG file of its layers and what flows between them."""
        from .show import plot

        plot(self.graph, path)

    def map(self, batches: Iterable[Any], executor: Executor) -> Iterator[Any]:
        """`model(batch)` for each batch, in order, on the workers of an executor.

        In other processes the model is compiled again, or taken from the cache, once each.
        """
        return executor.map(partial(_call, self), batches)

    def __reduce__(self) -> Any:
        self._token = self._token or uuid.uuid4().hex
        return _restored, (self._token, self.graph, self._options)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from .show import html

        return html(self.network)

    def __repr__(self) -> str:
        shown = ", ".join(str(p) for p in self.inputs)
        return f"<model {self.name}({shown}) for {self.target}, threads={self.threads}>"


def _restored(token: str, graph: Graph, options: Mapping[str, Any]) -> Model:
    """The model of a pickle, compiled once a process for as long as few others come."""
    found = _RESTORED.get(token)
    if found is None:
        from .compile import compile

        found = compile(graph, **options)
        found._token = token
        while len(_RESTORED) >= MAX_RESTORED:
            _RESTORED.pop(next(iter(_RESTORED)), None)
        _RESTORED[token] = found
    return found


def _call(model: Model, batch: Any) -> Any:
    return model(batch)


def checked_threads(threads: int) -> int:
    """`threads`; ModelError if that is no number of threads."""
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ModelError(
            f"compile: threads={threads!r} is not a number of threads; 1 or more is allowed. "
            "Correct it"
        )
    return threads
