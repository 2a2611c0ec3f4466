"""Turns the address of a kernel into a Python callable that costs less than the kernels it calls.

A kernel is `void f(void *a0, ..., void *an, int64 begin, int64 end)`. `caller` takes numpy arrays
and runs the kernel only if each is exactly what the kernel was made for; `bound` has its arrays
fixed and takes nothing. Neither converts or explains: on False the slow path does (`conform`, a
typed error).

Nanoseconds a call, empty kernel, CPython 3.11, one core of an AMD EPYC (Zen 5), minimum of 7 times
100,000 calls; "none" is `bound`, which takes no array:

    way                                                         3 arrays   none
    ctypes, `a.ctypes.data` of each array, checked in Python        3710
    ctypes, addresses read from the array objects, unchecked         700
    ctypes, addresses kept                                           410    400
    a built-in function whose machine code checks (used here)         70     55
"""

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dsl.errors import OperandError
from .assemble import assembled
from .native import Function, Library, link
from .thunk import (
    ALIGNED,
    C_CONTIGUOUS,
    HEAD,
    MAX_ARRAYS,
    MAX_RANK,
    SLOT,
    WRITEABLE,
    layout_holds,
    thunk_ir,
)

METH_NOARGS, METH_FASTCALL = 0x4, 0x80


@dataclass(frozen=True)
class Slot:
    """What a kernel was made for: the array's sizes, its dtype, and if the kernel writes it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    written: bool = False

    def __post_init__(self) -> None:
        # numpy has one dtype object for each built-in type, and the thunk compares addresses; a
        # dtype that comes out of a pickle is a copy, equal but elsewhere.
        object.__setattr__(self, "dtype", np.dtype(self.dtype.str))

    @property
    def flags(self) -> int:
        """The numpy flags an array must have."""
        return C_CONTIGUOUS | ALIGNED | (WRITEABLE if self.written else 0)

    @property
    def nbytes(self) -> int:
        """Bytes of such an array."""
        return math.prod(self.shape) * self.dtype.itemsize


def caller(function: Function, slots: Sequence[Slot], begin: int, end: int) -> Callable[..., bool]:
    """A callable of `len(slots)` arrays that runs the kernel over [begin, end), or returns False.

    It runs, and returns True, only if every argument is an `ndarray` (no subclass) of the slot's
    shape and dtype, C-contiguous, aligned and, if written, writeable and overlapping no other
    argument. On False nothing was touched. Threads may call it at once; the GIL is released while
    the kernel runs.
    """
    slots = tuple(slots)
    if not _fits_thunks(len(slots), max((len(slot.shape) for slot in slots), default=0)):
        return _portable_caller(function, slots, begin, end)
    plan = _head(function, begin, end, len(slots))
    for slot in slots:
        sizes = slot.shape + (0,) * (MAX_RANK - len(slot.shape))
        plan += SLOT.pack(id(slot.dtype), slot.flags, len(slot.shape), slot.nbytes, *sizes)
    return _built_in(_thunks().call, (plan, function, slots))


def with_fixed(
    call: Callable[..., bool], arrays: Sequence[np.ndarray | None]
) -> Callable[..., bool]:
    """`call` as a callable of the arrays that are None here; the others are passed as they are.

    Written out: to pass arrays on by `*` takes as long again as the call (0.18 us).
    """
    if all(a is None for a in arrays):
        return call
    names = [f"a{i}" for i in range(len(arrays))]
    fixed = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    free = [n for n in names if n not in fixed]
    text = f"lambda {', '.join(free)}: call({', '.join(names)})"
    made: Callable[..., bool] = eval(text, {"call": call, **fixed})
    return made


def bound(
    function: Function, arrays: Sequence[np.ndarray], begin: int, end: int
) -> Callable[[], bool]:
    """A callable without arguments that runs the kernel over [begin, end) of these very arrays.

    It keeps the arrays alive and checks nothing: they must be what the kernel was made for (see
    `conform`). It returns True. The GIL is released, so threads may run disjoint ranges at once.
    """
    kept = tuple(arrays)
    if not _fits_thunks(len(kept), 0):
        return _portable_bound(function, kept, begin, end)
    plan = _head(function, begin, end, len(kept))
    plan += struct.pack(f"{len(kept)}Q", *map(_address, kept))
    return _built_in(_thunks().bound, (plan, function, kept))


def conform(array: np.ndarray, slot: Slot) -> np.ndarray:
    """`array` itself if `caller` would take it for `slot`, else a copy that it takes.

    A copy for a written slot has to be copied back by whoever asked. Byte order and layout are
    converted, nothing else: OperandError if shape or type differ.
    """
    if array.shape != slot.shape or not np.can_cast(array.dtype, slot.dtype, "equiv"):
        raise OperandError(
            f"operand: {array.dtype}{list(array.shape)} is not what the kernel was compiled for; "
            f"{slot.dtype}{list(slot.shape)} is. Specialize the kernel for it, or convert it"
        )
    if type(array) is np.ndarray and array.dtype is slot.dtype and _has_flags(array, slot):
        return array
    copy = np.empty(slot.shape, slot.dtype)
    np.copyto(copy, array, casting="equiv")
    return copy


def _has_flags(array: np.ndarray, slot: Slot) -> bool:
    return array.flags.num & slot.flags == slot.flags


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _portable_caller(
    function: Function, slots: tuple[Slot, ...], begin: int, end: int
) -> Callable[..., bool]:
    """`caller` by ctypes: for more arrays than a thunk takes, or objects that lie elsewhere."""
    kernel = _prototype(len(slots))(function.address)
    # ctypes knows an address, not that the code behind it must stay.
    kernel.owner = function

    def call(*arrays: np.ndarray) -> bool:
        if len(arrays) != len(slots):
            return False
        spans: list[tuple[int, int]] = []
        for array, slot in zip(arrays, slots, strict=True):
            if (
                type(array) is not np.ndarray
                or array.shape != slot.shape
                or array.dtype is not slot.dtype
                or not _has_flags(array, slot)
            ):
                return False
            spans.append((_address(array), _address(array) + slot.nbytes))
        for i, slot in enumerate(slots):
            others = spans[:i] + spans[i + 1 :] if slot.written else []
            if any(max(spans[i][0], low) < min(spans[i][1], high) for low, high in others):
                return False
        kernel(*(low for low, _ in spans), begin, end)
        return True

    return call


def _portable_bound(
    function: Function, arrays: tuple[np.ndarray, ...], begin: int, end: int
) -> Callable[[], bool]:
    kernel = _prototype(len(arrays))(function.address)
    kernel.owner = (function, arrays)
    arguments = (*map(_address, arrays), begin, end)

    def call() -> bool:
        kernel(*arguments)
        return True

    return call


def _prototype(arrays: int) -> Any:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arrays, ctypes.c_int64, ctypes.c_int64)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@dataclass(frozen=True)
class _Thunks:
    """The thunks as method definitions, which must outlive every function made from them."""

    library: Library
    call: _MethodDef
    bound: _MethodDef


_held: dict[str, _Thunks] = {}


def _thunks() -> _Thunks:
    """The process's thunks; the first of several threads that ask at once decides, so that none is
    unloaded while it is in use.
    """
    return _held.get("thunks") or _held.setdefault("thunks", _new_thunks())


def _new_thunks() -> _Thunks:
    """Compiled once for a machine (20 ms), then taken from the cache (1 ms)."""
    library = link(assembled(thunk_ir(), "thunks"), ["simdflow_call", "simdflow_bound"])
    return _Thunks(
        library,
        _MethodDef(b"kernel", library.address("simdflow_call"), METH_FASTCALL, None),
        _MethodDef(b"kernel", library.address("simdflow_bound"), METH_NOARGS, None),
    )


def _fits_thunks(arrays: int, rank: int) -> bool:
    return arrays <= MAX_ARRAYS and rank <= MAX_RANK and layout_holds()


def _head(function: Function, begin: int, end: int, arrays: int) -> bytes:
    python = ctypes.pythonapi
    helpers = (python.PyBool_FromLong, python.PyEval_SaveThread, python.PyEval_RestoreThread)
    addresses = [ctypes.cast(helper, ctypes.c_void_p).value for helper in helpers]
    return HEAD.pack(function.address, begin, end, arrays, id(np.ndarray), *addresses)


def _built_in(definition: _MethodDef, state: tuple[object, ...]) -> Callable[..., bool]:
    """A built-in function with `state` as its `self`: the plan, and what the plan points to."""
    prototype = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p
    )
    make = prototype(("PyCFunction_NewEx", ctypes.pythonapi))
    function: Callable[..., bool] = make(ctypes.addressof(definition), state, None)
    return function
