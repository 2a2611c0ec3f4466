"""Ready: a layer with its kernels at hand and the buffers between them, ready to be called.

Turns arrays into the result by running each kernel once, straight on the arrays if they lie as the
kernels read them, through copies if not. What a layer is made of is `layer`'s business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dsl.errors import OperandError
from ..placing import large, new
from .layer import Layer


def _seen(array: np.ndarray, view: tuple[int, ...] | None) -> np.ndarray:
    return array if view is None else array.reshape(view)


@dataclass(frozen=True, eq=False)
class Run:
    """A prepared step: `call(*inputs, target)` with the inputs `reads` (None: all); target None is
    the result, seen in the shape `view`.
    """

    call: Callable[..., bool]
    reads: tuple[int, ...] | None
    target: np.ndarray | None
    view: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Held:
    """What one thread has of a layer: the buffers between the kernels, and its steps.

    last   the buffers that the last step reads
    """

    buffers: Mapping[str, np.ndarray]
    runs: tuple[Run, ...] | None
    last: tuple[np.ndarray, ...]


class Ready:
    """A layer with its kernels at hand and the buffers between them, one set for each thread."""

    def __init__(self, op: str, names: tuple[str, ...], layer: Layer) -> None:
        self.op, self.names, self.layer = op, names, layer
        self._inputs = tuple(layer.inputs.items())
        self._shape, self._dtype = layer.out.shape, layer.out.scalar.dtype
        self._large = large(self._shape, self._dtype)
        self._local = threading.local()
        self._shared = None if layer.buffers else self._mine()
        self._quick = self._quickly()

    def __call__(self, operands: tuple[Any, ...], out: np.ndarray | None) -> np.ndarray:
        if out is None and self._quick is not None:
            fresh = self._quick(operands[0])
            if fresh is not None:
                return fresh
        held = self._shared or self._mine()
        if out is not None:
            result = self._checked(out, operands)
        elif self._large:
            result = new(self._shape, self._dtype, held.last or operands)
        else:
            result = np.empty(self._shape, self._dtype)
        runs = held.runs
        # Seen in another shape, an array in another order is a copy: not what is to be written.
        if runs is None or (out is not None and not out.flags.c_contiguous):
            return self._slowly(operands, result)
        inputs = [
            a if type(a) is not np.ndarray or a.shape == shape else a.reshape(shape)
            for a, (_, shape) in zip(operands, self._inputs, strict=False)
        ]
        for run in runs:
            target = run.target
            if target is None:
                target = result if run.view is None else result.reshape(run.view)
            reads = inputs if run.reads is None else [inputs[i] for i in run.reads]
            if not run.call(*reads, target):
                return self._slowly(operands, result)
        return result

    def _quickly(self) -> Callable[[Any], np.ndarray | None] | None:
        """One kernel of one input, the most frequent layer, with nothing left to look up: the
        result, or None if the input does not lie as the kernel reads it.
        """
        runs = self._shared.runs if self._shared is not None else None
        if runs is None or len(runs) != 1 or len(self._inputs) != 1:
            return None
        call, view, seen = runs[0].call, runs[0].view, self._inputs[0][1]
        empty, shape, dtype, placing = np.empty, self._shape, self._dtype, self._large

        def quick(x: Any) -> np.ndarray | None:
            result = new(shape, dtype, (x,)) if placing else empty(shape, dtype)
            target = result if view is None else result.reshape(view)
            if call(x, target):
                return result
            if type(x) is np.ndarray and x.shape != seen and call(x.reshape(seen), target):
                return result
            return None

        return quick

    def _mine(self) -> Held:
        """The buffers and prepared steps of this thread."""
        held: Held | None = getattr(self._local, "held", None)
        if held is None:
            buffers = {b.name: b.make() for b in self.layer.buffers}
            last = tuple(
                buffers[o] for o in self.layer.steps[-1].operands if type(o) is str and o in buffers
            )
            held = self._local.held = Held(buffers, self._runs(buffers), last)
        return held

    def _runs(self, buffers: Mapping[str, np.ndarray]) -> tuple[Run, ...] | None:
        """The steps with everything fixed but inputs and result; None if a kernel does not take
        arrays as they are.
        """
        names = [name for name, _ in self._inputs]
        runs = []
        for step in self.layer.steps:
            free = [o for o in step.operands if type(o) is str and o in names]
            given = (
                o if type(o) is not str else None if o in names else buffers[o]
                for o in step.operands
            )
            call = step.kernel.prepared(*given)
            if call is None:
                return None
            target = buffers.get(step.out)
            if target is not None:
                target = _seen(target, step.view)
            reads = None if free == names else tuple(names.index(o) for o in free)
            runs.append(Run(call, reads, target, step.view))
        return tuple(runs)

    def _slowly(self, operands: tuple[Any, ...], result: np.ndarray) -> np.ndarray:
        """All steps, on arrays of any strides, through the buffers between them."""
        target = result
        if not result.flags.c_contiguous or result.dtype is not self._dtype:
            target = np.empty(self._shape, self._dtype)
        inputs = [np.asarray(a) for a in operands[: len(self._inputs)]]
        values: dict[Any, np.ndarray] = dict(self._mine().buffers)
        values["out"] = target
        for (name, shape), a in zip(self._inputs, inputs, strict=True):
            values[name] = a if a.shape == shape else a.reshape(shape)
        for step in self.layer.steps:
            read = (values[o] if type(o) is str else o for o in step.operands)
            step.kernel(*read, out=_seen(values[step.out], step.view))
        if target is not result:
            result[...] = target
        return result

    def bind(self, arrays: tuple[np.ndarray, ...], out: np.ndarray) -> Callable[[], object]:
        """All steps bound to these arrays and to buffers of their own."""
        self._checked(out, arrays)
        values: dict[Any, np.ndarray] = {b.name: b.make() for b in self.layer.buffers}
        values["out"] = out
        for (name, shape), a in zip(self._inputs, arrays, strict=True):
            values[name] = a.reshape(shape)
        calls = []
        for step in self.layer.steps:
            names = step.kernel.inputs
            given = [values[o] if type(o) is str else o for o in step.operands]
            target = {step.kernel.output: _seen(values[step.out], step.view)}
            calls.append(step.kernel.bind(**dict(zip(names, given, strict=True)), **target))
        if len(calls) == 1:
            return calls[0]

        def run() -> None:
            for call in calls:
                call()

        return run

    def _checked(self, out: np.ndarray, operands: tuple[Any, ...]) -> np.ndarray:
        if not isinstance(out, np.ndarray) or out.shape != self._shape or out.dtype != self._dtype:
            shown = (
                f"{out.dtype}{list(out.shape)}"
                if isinstance(out, np.ndarray)
                else type(out).__name__
            )
            raise OperandError(
                f"{self.op}: out is {shown}; {self._dtype}{list(self._shape)} is needed. Pass such "
                "an array, or none."
            )
        if not out.flags.writeable:
            raise OperandError(
                f"{self.op}: out is read-only; it is written. Pass a writeable array."
            )
        for name, a in zip(self.names, operands[: len(self._inputs)], strict=False):
            if isinstance(a, np.ndarray) and np.may_share_memory(a, out):
                raise OperandError(
                    f"{self.op}: out overlaps {name}; an output must be memory of its own. Pass "
                    "another array."
                )
        return out
