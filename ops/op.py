"""Op: a layer as a callable that is planned once for shapes, types and weights, then only runs.

Turns a function that describes a layer as data (`Layer`: which kernels run on which buffers) into
an eager call on numpy arrays, a bound call without arguments, a shape rule, and a hook for symbolic
tensors. Knows no layer.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import update_wrapper
from typing import Any

import numpy as np

from ..dsl.errors import OperandError
from ..dsl.types import OperandType
from ..operands import Bits, PackedOperand, pack, type_of
from .layer import SLACK, Layer
from .ready import Ready

# Prepared calls are kept with their weights; the oldest goes when an op has this many.
KEPT = 512
# Plain arrays up to this size (biases) are part of the key of a prepared call, by their bytes.
KEYED_BYTES = 1 << 15


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
        self._plan, self._shape = plan, shape
        self._signature = inspect.signature(plan)
        positional = [
            p
            for p in self._signature.parameters.values()
            if p.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        self._names = tuple(p.name for p in positional)
        # `*xs`: any number of operands, all of them inputs.
        self._many = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in positional)
        self._inputs = sys.maxsize if self._many else inputs
        self._ready: dict[Any, Ready] = {}
        self._lock = threading.Lock()
        update_wrapper(self, plan)

    def __call__(self, *operands: Any, out: np.ndarray | None = None, **options: Any) -> Any:
        try:
            ready = self._ready.get(_key(operands, self._inputs, options))
        except (TypeError, AttributeError, IndexError):
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
        names = self._named(len(operands))
        for name, a in (*zip(names, arrays, strict=False), ("out", out)):
            if not a.flags.c_contiguous:
                raise OperandError(
                    f"{self.name}: {name} does not lie in C order; a bound buffer must. Copy it "
                    "first."
                )
        return Ready(self.name, names, self._planned(operands, options, True)).bind(arrays, out)

    def shape(self, *operands: Any, **options: Any) -> OperandType:
        """The operand type of the result, by the op's shape rule; no kernel is made.

        Arrays, packed operands and operand types are taken alike. Raises OperandError where the
        call would.
        """
        operands, options = self._bound(operands, options)
        return self._shape(*(None if a is None else described(a) for a in operands), **options)

    def layer(self, *operands: Any, **options: Any) -> Layer:
        """What a call would run, as data: for operand types of the inputs, and packed weights.

        Raises OperandError where the call would.
        """
        operands, options = self._bound(operands, options)
        return self._planned(operands, options, False)

    @property
    def inputs(self) -> int:
        """How many of the operands, counted from the first, are inputs; the others are weights."""
        return self._inputs

    @property
    def reference(self) -> Callable[..., Any]:
        """The numpy definition of the layer: the function of this name in `ops.reference`."""
        from . import reference

        found: Callable[..., Any] = getattr(reference, self.name)
        return found

    def __reduce__(self) -> str:
        return self.name  # pickled by its name, as a function is

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
        if self._many:
            (first,) = first
        return first, {k: found[k] for k in options if k in found}

    def _named(self, count: int) -> tuple[str, ...]:
        """The names of `count` operands: the parameters', or xs0, xs1, ... of `*xs`."""
        return tuple(f"{self._names[0]}{i}" for i in range(count)) if self._many else self._names

    def _first(self, operands: Any, options: dict[str, Any], out: Any) -> Any:
        """A call that is not prepared yet, or whose weights are arrays."""
        for a in (*operands, *options.values()):
            if hasattr(a, "__simdflow_op__"):
                return a.__simdflow_op__(
                    self, operands, options if out is None else options | {"out": out}
                )
        given = operands, options
        operands, options = self._bound(operands, options)
        names = self._named(len(operands))
        ready = Ready(self.name, names, self._planned(operands, options, False))
        for keyed in (given, (operands, options)):
            try:
                key = _key(keyed[0], self._inputs, keyed[1])
                with self._lock:
                    while key not in self._ready and len(self._ready) >= KEPT:
                        del self._ready[next(iter(self._ready))]
                    self._ready[key] = ready
            except (TypeError, AttributeError, IndexError):
                continue  # something in the call may change or cannot be compared
        return ready(operands, out)

    def _planned(self, operands: Any, options: dict[str, Any], fixed: bool) -> Layer:
        """The layer for operands: inputs stand for their types, weights are packed."""
        n, names = self._inputs, self._named(len(operands))
        inputs = [described(a, fixed) for a in operands[:n]]
        weights = [None if a is None else pack(a) for a in operands[n:]]
        for name, a in zip(names, (*operands[:n], *weights), strict=True):
            if isinstance(a, PackedOperand) and (name in names[:n] or a.csr is not None):
                what = "compressed" if a.csr is not None else "packed"
                raise OperandError(
                    f"{self.name}: {name}={a.type} is {what}; this operand is a dense array"
                    f"{'' if name in names[:n] else ', packed or not'}. Pass the array."
                )
        self._shape(*inputs, *(None if a is None else a.type for a in weights), **options)
        return self._plan(*inputs, *weights, **options)


def op(shape: Callable[..., OperandType], inputs: int = 1) -> Callable[[Callable[..., Layer]], Op]:
    """Make an Op of a function that describes a layer.

    The function takes the operand types of the first `inputs` operands (of all, if it takes `*xs`),
    the packed others (or None), and the options; `shape` takes the same with operand types only,
    and raises OperandError for what the layer refuses.
    """
    return lambda plan: Op(plan, shape, inputs)


def _key(operands: Any, inputs: int, options: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a prepared call depends on: types of inputs, packed operands themselves, the bytes of
    small arrays, options. TypeError or AttributeError when there is no such key.
    """
    parts: list[Any] = []
    # A loop, not a comprehension: it takes a tenth less of a call.
    for i, a in enumerate(operands):
        if i < inputs:
            if type(a) is not np.ndarray and hasattr(a, "__simdflow_op__"):
                raise TypeError("a symbolic tensor has the shape and type of an array; it is none")
            parts += (a.shape, a.dtype)
        elif type(a) is PackedOperand or a is None:
            parts.append(a)
        else:
            parts.append(_content(a))
    return (*parts, *options, *options.values())


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
