"""CompiledKernel: one specialization of a kernel, called with arrays.

Its stages can be read one by one; its machine code is made, or found in the cache, when first
needed. What its operands must be is checked in `arguments`, not here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from .arguments import Operand, checked_inputs, checked_out, native_arrays, plain
from .compiler.artifact import Artifact, stored_dtype
from .compiler.call import Slot, bound, caller, conform, with_fixed
from .compiler.native import Function, link
from .compiler.packing import aligned
from .compiler.program import Memory
from .compiler.records import Record, resolved
from .compiler.request import Request, stored
from .dsl.dataflow import Dataflow
from .dsl.errors import OperandError
from .dsl.nest import LoopNest
from .dsl.types import OperandType
from .operands import Bits, PackedOperand, check_range, pack
from .placing import empty, new


class CompiledKernel:
    """A kernel for given operand types, dataflow and target.

    `kernel(*operands, out=None)` calls it; `bind(...)` fixes the buffers. Stages: `nest`, `flow`,
    `plan`, `program`, `source`, `llvm()`, `asm()`, `report()`.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._name, self._out = request.nest.name, request.nest.out.name
        self._inputs = tuple(o.name for o in request.nest.operands if o.role == "in")
        self._types = dict(request.types)
        self.target = request.target
        self._local = threading.local()
        self._lock = threading.Lock()

    @property
    def request(self) -> Request:
        """What was asked for."""
        return self._request

    @property
    def resolved(self) -> Request:
        """What this kernel is made from: the request, with the dataflow that tuning chose for it
        where none was given and there is such a record.
        """
        return self._choice[0]

    @property
    def tuned(self) -> Record | None:
        """The record that the dataflow comes from, if it does come from one."""
        return self._choice[1]

    @cached_property
    def _choice(self) -> tuple[Request, Record | None]:
        return resolved(self._request)

    # The stages, each made when it is first looked at. A kernel from the cache needs none of them,
    # so their code is not even imported.

    @cached_property
    def _stages(self) -> Any:
        from .compiler.compile import Stages

        return Stages(self.resolved)

    @property
    def nest(self) -> LoopNest:
        """The nest with extents."""
        return self._stages.nest

    @property
    def flow(self) -> Dataflow:
        """The dataflow; if none was given, tuning's choice or, without one, the cost model's."""
        return self._stages.flow

    @property
    def plan(self) -> Any:
        """The RegisterPlan: lanes, groups, loops, packings and registers."""
        return self._stages.plan

    @property
    def program(self) -> Any:
        """The Program: loops over vector instructions."""
        return self._stages.program

    @cached_property
    def cost(self) -> Any:
        """The cost model's prediction (`compiler.cost.Cost`): cycles, and what they are made of."""
        from .compiler.cost import cost

        return cost(self.plan, self.program)

    @property
    def source(self) -> str:
        """The emitted text."""
        return self._stages.source

    @cached_property
    def _compiled(self) -> Any:
        from .compiler.jit import compile_program

        return compile_program(self.program, self.target)

    def llvm(self) -> str:
        """The optimized LLVM module."""
        return str(self._compiled.llvm)

    def asm(self) -> str:
        """The assembly of the kernel."""
        return str(self._compiled.asm)

    def report(self, seconds: float | None = None, peak: float | None = None) -> str:
        """Registers, spills, instructions and bytes per multiply-accumulate.

        With `seconds` (of one call) and `peak` (multiply-accumulates a second, from
        `simdflow.peaks`) the rate and the fraction of the peak.
        """
        unpacked = tuple(
            p.operand for p in self.plan.packings if self._types[p.operand].storage != "packed"
        )
        from .compiler.report import report

        text = report(self.plan, self.program, self.asm(), seconds, peak, unpacked)
        return f"{text}\ntuned        {self.tuned}" if self.tuned else text

    @cached_property
    def _built(self) -> tuple[Artifact, bytes]:
        asked = self.resolved
        with self._lock:
            found = stored(asked)
            if found is None:
                from .compiler.compile import compile_request

                found = compile_request(self._stages)
            return found

    def adopt(self, artifact: Artifact, code: bytes) -> None:
        """Take over what was compiled for this very request elsewhere."""
        self.__dict__.setdefault("_built", (artifact, code))

    @cached_property
    def _native(self) -> tuple[Artifact, Function]:
        artifact, code = self._built
        return artifact, link(code, [artifact.symbol]).function(artifact.symbol)

    @property
    def artifact(self) -> Artifact:
        """The native interface: memories, packings, the parallel axis."""
        return self._built[0]

    @property
    def object(self) -> bytes:
        """The object code, from the cache or freshly compiled."""
        return self._built[1]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in parameter order."""
        return self._inputs

    @property
    def output(self) -> str:
        """The name of the output."""
        return self._out

    @property
    def out_type(self) -> OperandType:
        """The operand type of the output."""
        return self._native[0].out_type

    @cached_property
    def _call(self) -> Callable[..., bool]:
        artifact, function = self._native
        slots = [self._slot(m) for m in artifact.memories]
        return caller(function, slots, 0, artifact.parallel[1])

    @cached_property
    def _shape(self) -> tuple[tuple[int, ...], np.dtype, bool, bool]:
        """(stored shape, dtype of the output, whether it is bits, if arrays go straight in)."""
        artifact, _ = self._native
        kind = artifact.out_type
        simple = [m.role in ("in", "out", "packed", "sums") for m in artifact.memories]
        order = [m.operand for m in artifact.memories if m.role != "sums"]
        straight = all(simple) and order == [*self._inputs, self._out]
        return kind.stored, stored_dtype(kind), kind.scalar.kind == "b", straight

    @cached_property
    def _promised(self) -> frozenset[str]:
        """Operands whose type promises a range: a plain array is checked on every call."""
        types = self._types.items()
        return frozenset(n for n, t in types if (t.low, t.high) != (t.scalar.low, t.scalar.high))

    def _keeps_promise(self, name: str, a: Operand) -> bool:
        """Whether an operand's own type makes the promise, so that its values need no look."""
        t = self._types[name]
        return type(a) is PackedOperand and t.low <= a.type.low and a.type.high <= t.high

    def _slot(self, m: Memory) -> Slot:
        dtype = np.dtype("u1") if m.scalar.kind == "b" else m.scalar.dtype
        if m.role == "in":
            return Slot(self._types[m.operand].stored, dtype)
        if m.role == "out":
            return Slot(self._native[0].out_type.stored, dtype, written=True)
        return Slot((m.size,), dtype, written=m.role == "scratch")

    def __call__(self, *operands: Operand, out: Operand = None) -> Any:
        shape, dtype, bits, straight = self._shape
        if self._promised:
            given = dict(zip(self._inputs, operands, strict=False))
            straight &= all(self._keeps_promise(n, given[n]) for n in self._promised if n in given)
        if straight and not bits:
            result = new(shape, dtype, operands[:1]) if out is None else out
            parts: list[Any] = []
            for name, a in zip(self._inputs, operands, strict=False):
                packing = self._packing.get(name)
                if packing is None:
                    parts.append(plain(a) if type(a) is not np.ndarray else a)
                elif type(a) is PackedOperand:
                    parts += a.parts(packing)
                else:
                    break
            else:
                if len(operands) == len(self._inputs) and self._call(*parts, result):
                    return result
        return self._slow(operands, out)

    @cached_property
    def _packing(self) -> dict[str, Any]:
        return {p.operand: p for p in self._native[0].packings}

    def _slow(self, operands: tuple[Operand, ...], out: Operand) -> Any:
        """Check everything, copy what does not lie as the kernel wants it, call, and copy back."""
        named = self._named(operands)
        kind = self.out_type
        result = (
            empty(kind) if out is None else checked_out(self._name, self._out, out, kind, named)
        )
        words = result.words if isinstance(result, Bits) else result
        arrays = self._arrays(named, words)
        parts = [conform(arrays[m.name], self._slot(m)) for m in self._native[0].memories]
        place = next(i for i, m in enumerate(self._native[0].memories) if m.role == "out")
        if not self._call(*parts):
            raise OperandError(
                f"{self._name}: {self._out} overlaps an input; an output must be memory of its "
                f"own. Pass another array."
            )
        if parts[place] is not words:
            words[...] = parts[place]
        return result

    def _named(self, operands: tuple[Operand, ...]) -> dict[str, Operand]:
        return checked_inputs(self._name, self._inputs, self._types, operands)

    def _arrays(self, named: Mapping[str, Operand], out: np.ndarray) -> dict[str, np.ndarray]:
        artifact, _ = self._native
        return native_arrays(artifact.memories, self._packing, named, out, self._scratch)

    def _scratch(self, m: Memory) -> np.ndarray:
        """Scratch memory of this thread, made once."""
        held = self._local.__dict__.setdefault("scratch", {})
        if m.name not in held:
            held[m.name] = aligned(m.size * m.scalar.dtype.itemsize).view(m.scalar.dtype)
        found: np.ndarray = held[m.name]
        return found

    def bind(self, **operands: Operand) -> Callable[[], Any]:
        """A callable without arguments that runs the kernel on these very buffers, output included.

        Raises OperandError if one does not lie as the kernel reads it (C order, type, shape).
        """
        named = {n: operands[n] for n in self._inputs}
        self._named(tuple(named.values()))
        out = operands[self._out]
        checked_out(self._name, self._out, out, self.out_type, named)
        arrays = self._arrays(named, out.words if isinstance(out, Bits) else out)
        artifact, function = self._native
        parts = []
        for m in artifact.memories:
            a = arrays[m.name]
            if m.role == "scratch":
                a = np.empty_like(a)
            fitted = conform(a, self._slot(m))
            if fitted is not a:
                raise OperandError(
                    f"{self._name}: {m.name} does not lie in C order; a bound buffer must. Copy it "
                    f"first."
                )
            parts.append(a)
        return bound(function, parts, 0, artifact.parallel[1])

    def njit(self, **fixed: Operand) -> Any:
        """The kernel for use inside a user's own `@njit` function.

        `fixed` operands (packed ones must be) are built in; the function takes the other inputs in
        parameter order, then the output: `f = conv.njit(w=packed)`, and in native code `f(x, out)`.
        Wrong shapes raise ValueError.
        """
        from .compiler.jit import numba_function

        artifact, function = self._native
        arrays: dict[str, np.ndarray] = {}
        for m in artifact.memories:
            packing = artifact.packing(m.operand)
            if m.role in ("packed", "sums", "indptr", "indices", "data") and m.operand not in fixed:
                raise OperandError(
                    f"{self._name}: {m.operand} is read in the kernel's own order; inside native "
                    f"code it must be fixed. Pass {m.operand}=sf.pack({m.operand}) to njit()."
                )
            if m.role == "scratch":
                arrays[m.name] = self._scratch(m)
            elif m.operand in fixed and m.name not in arrays:
                given = pack(fixed[m.operand])
                if given.csr is not None:
                    arrays[m.name] = given.csr[m.role]
                elif packing is None:
                    arrays[m.name] = plain(given)
                else:
                    for suffix, part in zip(("", "_sums"), given.parts(packing), strict=False):
                        arrays[f"{m.operand}{suffix}"] = part
        slots = [
            (self._slot(m).shape, arrays[m.name].ctypes.data if m.name in arrays else None)
            for m in artifact.memories
        ]
        made = numba_function(self._name, function.address, slots, artifact.parallel[1])
        made.kept = (function, arrays)
        return made

    def prepared(self, *operands: Operand | None) -> Callable[..., bool] | None:
        """A callable of the operands given as None and the output; the others are fixed.

        It runs the kernel and returns True if each array is exactly what the kernel reads or
        writes; on False nothing was touched, and the kernel itself says why or makes a copy. None
        where arrays do not go straight in: bits, scratch memory, promised ranges, a packed operand
        that is not fixed. An array that is fixed is the very array.
        """
        *_, bits, straight = self._shape
        if bits or not straight:
            return None
        parts: list[Any] = []
        for name, a in zip(self._inputs, operands, strict=True):
            packing = self._packing.get(name)
            if a is None and packing is None and name not in self._promised:
                parts.append(None)
                continue
            if name in self._promised and isinstance(a, np.ndarray):
                check_range(self._name, name, a, self._types[name])
            if type(a) is PackedOperand:
                parts += a.parts(packing) if packing is not None else [a.array]
            elif type(a) is np.ndarray and packing is None:
                parts.append(a)
            else:
                return None
        return with_fixed(self._call, [*parts, None])

    def run_text(self, *operands: Operand) -> Any:
        """The emitted text run with the numpy meaning of every instruction: no machine code."""
        named = self._named(operands)
        plan = self.plan
        result = empty(plan.nest.type_of(plan.nest.out.name))
        words = result.words if isinstance(result, Bits) else result
        words[...] = 0
        packings = {p.operand: p for p in plan.packings}
        memories, scratch = self.program.memories, lambda m: np.zeros(m.size, m.scalar.dtype)
        found = native_arrays(memories, packings, named, words, scratch)
        arrays = {name: np.ascontiguousarray(a).reshape(-1) for name, a in found.items()}
        from .compiler.emit import run_text

        run_text(self.program, self.target, self.source, arrays)
        return result

    @property
    def address(self) -> int:
        """The address of `void f(void* memory..., int64 begin, int64 end)`."""
        return self._native[1].address

    @property
    def types(self) -> dict[str, OperandType]:
        """Operand name -> operand type."""
        return dict(self._types)

    def _repr_html_(self) -> str:
        from .notebook import stages_html

        return stages_html(self)

    def __repr__(self) -> str:
        types = ", ".join(f"{k}={v}" for k, v in self._types.items())
        return f"<compiled {self._name}({types}) for {self.target.name}>"
