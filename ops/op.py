"""Op: a layer as a callable that is planned once for shapes, types and weights, then only runs.

Turns a function that describes a layer as data (`Layer`: which kernels run on which buffers) into
an eager call on numpy arrays, a bound call without arguments, a shape rule, and a hook for symbolic
tensors. Knows no layer.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import update_wrapper
from typing import Any

import numpy as np

from ..compiled import CompiledKernel
from ..compiler.packing import aligned
from ..dsl.errors import OperandError
from ..dsl.types import OperandType
from ..operands import Bits, PackedOperand, pack, type_of

SLACK = 64
# Prepared calls are kept with their weights; the oldest goes when an op has this many.
KEPT = 512
# Plain arrays up to this size (biases) are part of the key of a prepared call, by their bytes.
KEYED_BYTES = 1 << 15


@dataclass(frozen=True)
class Buffer:
    """An array between two kernels: zero or `fill` everywhere at first, 64 bytes of slack after."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fill: float = 0

    def make(self) -> np.ndarray:
        return filled(self.shape, self.dtype, self.fill)


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel of a layer.

    operands  names of inputs and buffers, or constants
    out       the buffer it writes; `view` is the shape in which it does, if it is another one
    """

    kernel: CompiledKernel
    operands: tuple[Any, ...]
    out: str = "out"
    view: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """What a layer runs, as data.

    inputs    name -> the shape in which the kernels read the array (a reshape, no copy)
    out       the operand type of the result
    """

    inputs: Mapping[str, tuple[int, ...]]
    out: OperandType
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...] = ()


def filled(shape: tuple[int, ...], dtype: np.dtype, value: float = 0) -> np.ndarray:
    """A C-ordered array of `value` on a 64-byte boundary, with 64 readable bytes after it."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array = aligned(size + SLACK)[:size].view(dtype).reshape(shape)
    if value:
        array.fill(value)
    return array


class Op:
    """A layer. Call it with numpy arrays of any strides; weights may be `sf.pack`ed.

    op(x, w, ..., out=None, target=None, dataflow=None, **options) -> array
    op.bind(x, w, ..., out=y) -> a callable without arguments that fills `y` from these very arrays
    op.shape(x, w, ...) -> the OperandType of the result, for arrays or operand types
    op.reference -> the function of the same name in `simdflow.ops.reference`

    Everything that depends on shapes, options and weights is done once for packed weights; a plain
    weight array may change, so it is packed, and what follows from it computed, on every call.

    Symbolic tensors: an argument that has a method `__simdflow_op__(op, arguments, options)` gets
    the whole call, and its answer is the result. `op` is this object, `arguments` the positional
    and `options` the keyword arguments as they were given, so that `op(*arguments, **options)` is
    the same call; `op.shape` tells what the result will be.
    """

    def __init__(
        self,
        plan: Callable[..., Layer],
        shape: Callable[..., OperandType],
        inputs: int,
    ) -> None:
        self.name: str = getattr(plan, "__name__", "op")
        self._plan, self._shape, self._inputs = plan, shape, inputs
        self._signature = inspect.signature(plan)
        self._names = tuple(
            p.name
            for p in self._signature.parameters.values()
            if p.kind is not inspect.Parameter.KEYWORD_ONLY
        )
        self._ready: dict[Any, Ready] = {}
        update_wrapper(self, plan)

    def __call__(self, *operands: Any, out: np.ndarray | None = None, **options: Any) -> Any:
        try:
            ready = self._ready.get(_key(operands, self._inputs, options))
        except (TypeError, AttributeError):
            ready = None
        if ready is None:
            return self._first(operands, options, out)
        return ready(operands, out)

    def bind(self, *operands: Any, out: np.ndarray, **options: Any) -> Callable[[], object]:
        """A callable without arguments: the layer on these very buffers, prepared once.

        Raises OperandError for what the op refuses, and for buffers not in C order.
        """
        operands, options = self._bound(operands, options)
        arrays = tuple(np.asarray(a) for a in operands[: self._inputs])
        for name, a in (*zip(self._names, arrays, strict=False), ("out", out)):
            if not a.flags.c_contiguous:
                raise OperandError(
                    f"{self.name}: {name} does not lie in C order; a bound buffer must. Copy it "
                    "first."
                )
        return Ready(self.name, self._names, self._planned(operands, options, True)).bind(
            arrays, out
        )

    def shape(self, *operands: Any, **options: Any) -> OperandType:
        """The operand type of the result, by the op's shape rule; no kernel is made.

        Arrays, packed operands and operand types are taken alike. Raises OperandError where the
        call would.
        """
        operands, options = self._bound(operands, options)
        return self._shape(*(None if a is None else described(a) for a in operands), **options)

    @property
    def reference(self) -> Callable[..., Any]:
        """The numpy definition of the layer: the function of this name in `ops.reference`."""
        from . import reference

        found: Callable[..., Any] = getattr(reference, self.name)
        return found

    def __repr__(self) -> str:
        return f"<op {self.name}{self._signature}>"

    def _bound(self, operands: Any, options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Operands in the order of the signature, and the options."""
        try:
            given = self._signature.bind(*operands, **options)
        except TypeError as error:
            raise OperandError(
                f"{self.name}: {error}; it is called as {self.name}{self._signature}. Correct the "
                "call."
            ) from None
        given.apply_defaults()
        found = dict(given.arguments)
        first = tuple(found.pop(n) for n in self._names)
        return first, {k: found[k] for k in options if k in found}

    def _first(self, operands: Any, options: dict[str, Any], out: Any) -> Any:
        """A call that is not prepared yet, or whose weights are arrays."""
        for a in (*operands, *options.values()):
            if hasattr(a, "__simdflow_op__"):
                return a.__simdflow_op__(
                    self, operands, options if out is None else options | {"out": out}
                )
        given = operands, options
        operands, options = self._bound(operands, options)
        ready = Ready(self.name, self._names, self._planned(operands, options, False))
        for keyed in (given, (operands, options)):
            try:
                key = _key(keyed[0], self._inputs, keyed[1])
                while key not in self._ready and len(self._ready) >= KEPT:
                    self._ready.pop(next(iter(self._ready)), None)
                self._ready[key] = ready
            except (TypeError, AttributeError):
                continue  # something in the call may change or cannot be compared
        return ready(operands, out)

    def _planned(self, operands: Any, options: dict[str, Any], fixed: bool) -> Layer:
        """The layer for operands: inputs stand for their types, weights are packed."""
        n = self._inputs
        inputs = [described(a, fixed) for a in operands[:n]]
        weights = [None if a is None else pack(a) for a in operands[n:]]
        self._shape(*inputs, *(None if a is None else a.type for a in weights), **options)
        return self._plan(*inputs, *weights, **options)


def op(shape: Callable[..., OperandType], inputs: int = 1) -> Callable[[Callable[..., Layer]], Op]:
    """Make an Op of a function that describes a layer.

    The function takes the operand types of the first `inputs` operands, the packed others (or
    None), and the options; `shape` takes the same with operand types only, and raises OperandError
    for what the layer refuses.
    """
    return lambda plan: Op(plan, shape, inputs)


def _key(operands: Any, inputs: int, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a prepared call depends on: types of inputs, packed operands themselves, the bytes of
    small arrays, options. TypeError or AttributeError when there is no such key.
    """
    weights = [
        a if type(a) is PackedOperand or a is None else _content(a) for a in operands[inputs:]
    ]
    if inputs == 1:
        x = operands[0]
        return (x.shape, x.dtype, *weights, *options, *options.values())
    types = [(a.shape, a.dtype) for a in operands[:inputs]]
    return (*types, *weights, *options, *options.values())


def _content(a: Any) -> tuple[Any, ...]:
    if type(a) is not np.ndarray or a.nbytes > KEYED_BYTES:
        raise TypeError(f"{type(a).__name__} is no key")
    return a.shape, a.dtype, a.tobytes()


def described(a: Any, fixed: bool = False) -> OperandType:
    """The dense operand type of an array, packed operand, Bits or operand type.

    With `fixed`, the array is the one that will be read, so bytes after it may be promised.
    """
    if isinstance(a, OperandType):
        return replace(a, storage="dense", slack=0)
    if isinstance(a, (PackedOperand, Bits)):
        return replace(a.type, storage="dense")
    array = np.asarray(a)
    kind = type_of(array)
    return replace(kind, slack=_slack(array)) if fixed else kind


def _slack(array: np.ndarray) -> int:
    """64 when the memory that the array is a view of goes on for as long after it, else 0."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if not owner.flags.c_contiguous:
        return 0
    after = owner.ctypes.data + owner.nbytes - (array.ctypes.data + array.nbytes)
    return SLACK if after >= SLACK else 0


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
    """What one thread has of a layer: the buffers between the kernels, and its steps."""

    buffers: Mapping[str, np.ndarray]
    runs: tuple[Run, ...] | None


class Ready:
    """A layer with its kernels at hand and the buffers between them, one set for each thread."""

    def __init__(self, op: str, names: tuple[str, ...], layer: Layer) -> None:
        self.op, self.names, self.layer = op, names, layer
        self._inputs = tuple(layer.inputs.items())
        self._shape, self._dtype = layer.out.shape, layer.out.scalar.dtype
        self._local = threading.local()
        self._shared = None if layer.buffers else self._mine()
        self._quick = self._quickly()

    def __call__(self, operands: tuple[Any, ...], out: np.ndarray | None) -> np.ndarray:
        if out is None and self._quick is not None:
            fresh = self._quick(operands[0])
            if fresh is not None:
                return fresh
        result = np.empty(self._shape, self._dtype) if out is None else self._checked(out, operands)
        runs = (self._shared or self._mine()).runs
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
        empty, shape, dtype = np.empty, self._shape, self._dtype

        def quick(x: Any) -> np.ndarray | None:
            result = empty(shape, dtype)
            target = result if view is None else result.reshape(view)
            if type(x) is np.ndarray and x.shape != seen:
                x = x.reshape(seen)
            return result if call(x, target) else None

        return quick

    def _mine(self) -> Held:
        """The buffers and prepared steps of this thread."""
        held: Held | None = getattr(self._local, "held", None)
        if held is None:
            buffers = {b.name: b.make() for b in self.layer.buffers}
            held = self._local.held = Held(buffers, self._runs(buffers))
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
            names = [o.name for o in step.kernel.nest.operands if o.role == "in"]
            given = [values[o] if type(o) is str else o for o in step.operands]
            target = {step.kernel.nest.out.name: _seen(values[step.out], step.view)}
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
