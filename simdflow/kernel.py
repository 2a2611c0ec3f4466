"""Kernel: what `@sf.kernel` makes of a Python function, and CompiledKernel: one specialization of it.

Calling a Kernel with arrays looks up or makes the specialization for their types and calls its machine code. Every
stage of the compiler can be read from a CompiledKernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property, update_wrapper
from typing import Any

import numpy as np

from .compiler.artifact import Artifact, stored_dtype, stored_shape
from .compiler.call import Slot, bound, caller, conform
from .compiler.compile import Request, Stages, compile_request
from .compiler.emit import run_text
from .compiler.native import Function, link
from .compiler.packing import aligned
from .compiler.program import Memory
from .compiler.report import report
from .dsl.dataflow import Dataflow
from .dsl.errors import OperandError
from .dsl.interpret import interpret
from .dsl.nest import LoopNest
from .dsl.parse import parse
from .dsl.types import OperandType
from .operands import Bits, PackedOperand, check_range, pack, packed_parts, type_of
from .targets import Target, target

Operand = Any  # an array, Bits, PackedOperand, or a SciPy CSR matrix


class Kernel:
    """A loop nest with a name. Call it with arrays, or `specialize` it for operand types.

    `kernel(x, w, stride=2)`: inputs in parameter order, constants by keyword; returns the output, or fills `out=`.
    `target=` and `dataflow=` choose the CPU and the dataflow.
    """

    def __init__(self, function: Callable[..., None], dataflow: Dataflow | None = None) -> None:
        self.function, self.dataflow = function, dataflow
        self.nest = parse(function)
        self.name = self.nest.name
        self._inputs = tuple(o.name for o in self.nest.operands if o.role == "in")
        self._constants = dict(self.nest.constants)
        self._made: dict[Any, CompiledKernel] = {}
        self._quick: dict[Any, CompiledKernel] = {}
        self._lock = threading.Lock()
        update_wrapper(self, function)

    def specialize(
        self,
        *,
        dataflow: Dataflow | None = None,
        target: str | Target | None = None,
        **given: OperandType | float,
    ) -> CompiledKernel:
        """The kernel for operand types: `conv2d.specialize(x=sf.u8[1, 58, 58, 64], w=sf.i8[3, 3, 64, 64], stride=2)`.

        The output's type may be given by its name, else it is inferred. Compiles on the first call of the result.
        Raises KernelError, OperandError or DataflowError for what does not fit.
        """
        types = {k: v for k, v in given.items() if isinstance(v, OperandType)}
        constants = {k: v for k, v in given.items() if not isinstance(v, OperandType)}
        unknown = [
            k
            for k in given
            if k not in self._constants and k not in {o.name for o in self.nest.operands}
        ]
        if unknown:
            raise OperandError(
                f"{self.name}: {unknown[0]} is neither an operand nor a constant; they are "
                f"{', '.join([*(o.name for o in self.nest.operands), *self._constants])}. Use one of them."
            )
        return self._specialized(types, constants, dataflow, target)

    def _specialized(
        self,
        types: Mapping[str, OperandType],
        constants: Mapping[str, Any],
        dataflow: Dataflow | None,
        choice: str | Target | None,
    ) -> CompiledKernel:
        request = Request(
            self.nest,
            tuple(sorted(types.items())),
            tuple(sorted((self._constants | dict(constants)).items())),
            dataflow or self.dataflow,
            _target(choice),
        )
        with self._lock:
            found = self._made.get(request)
            if found is None:
                found = self._made[request] = CompiledKernel(self, request)
        return found

    def __call__(
        self,
        *operands: Operand,
        out: Operand = None,
        dataflow: Dataflow | None = None,
        target: str | Target | None = None,
        **constants: Any,
    ) -> Any:
        if constants and self.nest.out.name in constants:
            out = constants.pop(self.nest.out.name)
        if len(operands) == len(self._inputs) + 1 and out is None:
            place = [o.role for o in self.nest.operands].index("out")
            out = operands[place]
            operands = (*operands[:place], *operands[place + 1 :])
        try:
            key = (
                *((a.dtype, a.shape) if type(a) is np.ndarray else a.type for a in operands),
                tuple(constants.items()),
                dataflow,
                target,
            )
            made = self._quick.get(key)
        except (AttributeError, TypeError):
            key, made = None, None
        if made is None:
            made = self._for(operands, constants, dataflow, target)
            if key is not None:
                self._quick[key] = made
        return made(*operands, out=out)

    def _for(
        self,
        operands: tuple[Operand, ...],
        constants: Mapping[str, Any],
        flow: Dataflow | None,
        choice: Any,
    ) -> CompiledKernel:
        if len(operands) != len(self._inputs):
            raise OperandError(
                f"{self.name}: {len(operands)} operands given; it takes {len(self._inputs)}: "
                f"{', '.join(self._inputs)}. Give them in this order."
            )
        types = {n: operand_type(a) for n, a in zip(self._inputs, operands, strict=True)}
        unknown = [k for k in constants if k not in self._constants]
        if unknown:
            raise OperandError(
                f"{self.name}: {unknown[0]}={constants[unknown[0]]!r} is not a constant of the kernel; "
                f"they are {', '.join(self._constants) or 'none'}. Remove it."
            )
        return self._specialized(types, constants, flow, choice)

    def interpret(self, *operands: Operand, out: Operand = None, **constants: Any) -> Any:
        """Run the body as Python, value by value, exactly; the oracle of every compiled form."""
        types = {n: operand_type(a) for n, a in zip(self._inputs, operands, strict=True)}
        from .compiler.bind import bind

        nest = bind(self.nest, types, constants)
        arrays = {n: _plain(a) for n, a in zip(self._inputs, operands, strict=True)}
        result = _fresh(nest.type_of(nest.out.name)) if out is None else out
        arrays[nest.out.name] = result.words if isinstance(result, Bits) else result
        bits = {
            k: t
            for k, t in ((o.name, nest.type_of(o.name)) for o in nest.operands)
            if t.scalar.kind == "b"
        }
        interpret(self.function, arrays, dict(nest.constants), bits)
        return result

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"


def kernel(function: Callable[..., None] | None = None, *, dataflow: Dataflow | None = None) -> Any:
    """Make a Kernel of a Python loop nest; with or without `(dataflow=...)`. Raises KernelError with file and line."""
    if function is None:
        return lambda f: Kernel(f, dataflow)
    return Kernel(function, dataflow)


def _target(choice: str | Target | None) -> Target:
    return target(choice)


def operand_type(a: Operand) -> OperandType:
    """The operand type of anything a kernel takes."""
    if isinstance(a, (PackedOperand, Bits)):
        return a.type
    if hasattr(a, "indptr"):
        return pack(a).type
    return type_of(np.asarray(a))


def _plain(a: Operand) -> Any:
    if isinstance(a, Bits):
        return a.words
    if isinstance(a, PackedOperand):
        if a.csr is not None:
            return _Csr(a.csr, a.type.shape)
        return a.array
    return a


class _Csr:
    """A CSR operand as the interpreter reads it."""

    def __init__(self, parts: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> None:
        self.indptr, self.indices, self.data = parts["indptr"], parts["indices"], parts["data"]
        self.shape = shape


def _fresh(kind: OperandType) -> Any:
    stored = np.empty(stored_shape(kind), stored_dtype(kind))
    return Bits(stored, kind.shape) if kind.scalar.kind == "b" else stored


class CompiledKernel:
    """A kernel for given operand types, dataflow and target.

    `kernel(*operands, out=None)` calls it; `bind(...)` fixes the buffers. Stages: `nest`, `flow`, `plan`, `program`,
    `source`, `llvm()`, `asm()`, `report()`.
    """

    def __init__(self, owner: Kernel, request: Request) -> None:
        self._owner, self._stages = owner, Stages(request)
        self._inputs = owner._inputs
        self._types = dict(request.types)
        self.target = request.target
        self._local = threading.local()
        self._lock = threading.Lock()

    # The stages.

    @property
    def nest(self) -> LoopNest:
        """The nest with extents."""
        return self._stages.nest

    @property
    def flow(self) -> Dataflow:
        """The dataflow, chosen by the cost model if none was given."""
        return self._stages.flow

    @property
    def plan(self) -> Any:
        return self._stages.plan

    @property
    def program(self) -> Any:
        return self._stages.program

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
        """Registers, spills, instructions and bytes per multiply-accumulate; with `seconds` (of one call) and `peak`
        (multiply-accumulates a second, from `simdflow.peaks`) the rate and the fraction of the peak.
        """
        plain = tuple(
            p.operand for p in self.plan.packings if self._types[p.operand].storage != "packed"
        )
        return report(self.plan, self.program, self.asm(), seconds, peak, plain)

    # Calling.

    @cached_property
    def _native(self) -> tuple[Artifact, Function]:
        with self._lock:
            artifact, code = compile_request(self._stages)
            return artifact, link(code, [artifact.symbol]).function(artifact.symbol)

    @property
    def out_type(self) -> OperandType:
        return self._native[0].out_type

    @cached_property
    def _call(self) -> Callable[..., bool]:
        artifact, function = self._native
        slots = [self._slot(m) for m in artifact.memories]
        return caller(function, slots, 0, artifact.parallel[1])

    @cached_property
    def _shape(self) -> tuple[tuple[int, ...], np.dtype, bool, bool]:
        """(stored shape, dtype of the output, whether it is bits, whether arrays go straight in)."""
        artifact, _ = self._native
        kind = artifact.out_type
        simple = [m.role in ("in", "out", "packed", "sums") for m in artifact.memories]
        ranged = any((t.low, t.high) != (t.scalar.low, t.scalar.high) for t in self._types.values())
        order = [m.operand for m in artifact.memories if m.role != "sums"]
        straight = (
            all(simple) and not ranged and order == [*self._inputs, self._owner.nest.out.name]
        )
        return stored_shape(kind), stored_dtype(kind), kind.scalar.kind == "b", straight

    def _slot(self, m: Memory) -> Slot:
        dtype = np.dtype("u1") if m.scalar.kind == "b" else m.scalar.dtype
        if m.role == "in":
            return Slot(stored_shape(self._types[m.operand]), dtype)
        if m.role == "out":
            return Slot(stored_shape(self._native[0].out_type), dtype, written=True)
        return Slot((m.size,), dtype, written=m.role == "scratch")

    def __call__(self, *operands: Operand, out: Operand = None) -> Any:
        shape, dtype, bits, straight = self._shape
        if straight and not bits:
            result = np.empty(shape, dtype) if out is None else out
            parts: list[Any] = []
            for name, a in zip(self._inputs, operands, strict=False):
                packing = self._packing.get(name)
                if packing is None:
                    parts.append(_plain(a) if type(a) is not np.ndarray else a)
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
        result = _fresh(kind) if out is None else self._checked_out(out, kind, named)
        words = result.words if isinstance(result, Bits) else result
        arrays = self._arrays(named, words)
        parts = [conform(arrays[m.name], self._slot(m)) for m in self._native[0].memories]
        place = next(i for i, m in enumerate(self._native[0].memories) if m.role == "out")
        if not self._call(*parts):
            raise OperandError(
                f"{self._owner.name}: {self._owner.nest.out.name} overlaps an input; an output must be memory of its "
                f"own. Pass another array."
            )
        if parts[place] is not words:
            words[...] = parts[place]
        return result

    def _named(self, operands: tuple[Operand, ...]) -> dict[str, Operand]:
        name = self._owner.name
        if len(operands) != len(self._inputs):
            raise OperandError(
                f"{name}: {len(operands)} operands given; it takes {len(self._inputs)}: "
                f"{', '.join(self._inputs)}. Give them in this order."
            )
        for n, a in zip(self._inputs, operands, strict=True):
            want, have = self._types[n], operand_type(a)
            if (have.scalar, have.shape) != (want.scalar, want.shape):
                raise OperandError(
                    f"{name}: {n} is {have.scalar}[{', '.join(map(str, have.shape))}]; compiled for "
                    f"{want.scalar}[{', '.join(map(str, want.shape))}]. Specialize the kernel for it."
                )
            if isinstance(a, np.ndarray):
                check_range(name, n, a, want)
        return dict(zip(self._inputs, operands, strict=True))

    def _checked_out(
        self, out: Operand, kind: OperandType, named: Mapping[str, Operand]
    ) -> Operand:
        name = self._owner.name
        have = out.words if isinstance(out, Bits) else out
        label = self._owner.nest.out.name
        if (
            not isinstance(have, np.ndarray)
            or have.dtype != stored_dtype(kind)
            or have.shape != stored_shape(kind)
        ):
            shown = (
                f"{have.dtype}{list(have.shape)}"
                if isinstance(have, np.ndarray)
                else type(have).__name__
            )
            raise OperandError(
                f"{name}: {label} is {shown}; {stored_dtype(kind)}{list(stored_shape(kind))} is needed. "
                f"Pass such an array, or none."
            )
        if not have.flags.writeable:
            raise OperandError(
                f"{name}: {label} is read-only; an output is written. Pass a writeable array."
            )
        for n, a in named.items():
            if isinstance(a, np.ndarray) and np.may_share_memory(a, have):
                raise OperandError(
                    f"{name}: {label} overlaps {n}; an output must be memory of its own. Pass another array."
                )
        return out

    def _arrays(self, named: Mapping[str, Operand], out: np.ndarray) -> dict[str, np.ndarray]:
        """Memory name -> array, in the form the kernel reads."""
        artifact, _ = self._native
        arrays: dict[str, np.ndarray] = {}
        for m in artifact.memories:
            if m.role == "scratch":
                arrays[m.name] = self._scratch(m)
                continue
            if m.role == "out":
                arrays[m.name] = out
                continue
            if m.name in arrays:
                continue
            a = named[m.operand]
            if m.role in ("indptr", "indices", "data"):
                csr = (a if isinstance(a, PackedOperand) else pack(a)).csr
                assert csr is not None
                arrays[m.name] = csr[m.role]
                continue
            packing = artifact.packing(m.operand)
            if packing is None:
                plain = _plain(a)
                arrays[m.name] = plain if type(plain) is np.ndarray else np.asarray(plain)
                continue
            if isinstance(a, PackedOperand):
                parts = a.parts(packing)
            else:
                parts = packed_parts(np.asarray(_plain(a)), packing)
            for suffix, part in zip(("", "_sums"), parts, strict=False):
                arrays[f"{m.operand}{suffix}"] = part
        return arrays

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
        out = operands[self._owner.nest.out.name]
        self._checked_out(out, self.out_type, named)
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
                    f"{self._owner.name}: {m.name} does not lie in C order; a bound buffer must. Copy it first."
                )
            parts.append(a)
        return bound(function, parts, 0, artifact.parallel[1])

    def njit(self, **fixed: Operand) -> Any:
        """The kernel for use inside a user's own `@njit` function.

        `fixed` operands (packed ones must be) are built in; the function takes the other inputs in parameter order,
        then the output: `f = conv.njit(w=packed)`, and in native code `f(x, out)`. Wrong shapes raise ValueError.
        """
        from .compiler.jit import numba_function

        artifact, function = self._native
        arrays: dict[str, np.ndarray] = {}
        for m in artifact.memories:
            packing = artifact.packing(m.operand)
            if m.role in ("packed", "sums", "indptr", "indices", "data") and m.operand not in fixed:
                raise OperandError(
                    f"{self._owner.name}: {m.operand} is read in the kernel's own order; inside native code it must be "
                    f"fixed. Pass {m.operand}=sf.pack({m.operand}) to njit()."
                )
            if m.role == "scratch":
                arrays[m.name] = self._scratch(m)
            elif m.operand in fixed and m.name not in arrays:
                given = pack(fixed[m.operand])
                if given.csr is not None:
                    arrays[m.name] = given.csr[m.role]
                elif packing is None:
                    arrays[m.name] = given.array
                else:
                    for suffix, part in zip(("", "_sums"), given.parts(packing), strict=False):
                        arrays[f"{m.operand}{suffix}"] = part
        slots = [
            (self._slot(m).shape, arrays[m.name].ctypes.data if m.name in arrays else None)
            for m in artifact.memories
        ]
        made = numba_function(self._owner.name, function.address, slots, artifact.parallel[1])
        made.kept = (function, arrays)
        return made

    def run_text(self, *operands: Operand) -> Any:
        """The emitted text run with numpy meanings: what every instruction means, with no machine code."""
        named = self._named(operands)
        plan = self.plan
        kind = plan.nest.type_of(plan.nest.out.name)
        result = _fresh(kind)
        words = result.words if isinstance(result, Bits) else result
        words[...] = 0
        arrays: dict[str, np.ndarray] = {}
        for m in self.program.memories:
            if m.role == "scratch":
                arrays[m.name] = np.zeros(m.size, m.scalar.dtype)
            elif m.role == "out":
                arrays[m.name] = words.reshape(-1)
            elif m.role in ("indptr", "indices", "data"):
                csr = pack(named[m.operand]).csr
                assert csr is not None
                arrays[m.name] = csr[m.role]
            elif m.role == "in":
                arrays[m.name] = np.ascontiguousarray(_plain(named[m.operand])).reshape(-1)
            elif m.name not in arrays:
                packing = plan.packing(m.operand)
                parts = packed_parts(np.ascontiguousarray(_plain(named[m.operand])), packing)
                for suffix, part in zip(("", "_sums"), parts, strict=False):
                    arrays[f"{m.operand}{suffix}"] = part
        run_text(self.program, self.target, self.source, arrays)
        return result

    @property
    def address(self) -> int:
        """The address of `void f(void* memory..., int64 begin, int64 end)`."""
        return self._native[1].address

    @property
    def types(self) -> dict[str, OperandType]:
        return dict(self._types)

    def __repr__(self) -> str:
        types = ", ".join(f"{k}={v}" for k, v in self._types.items())
        return f"<compiled {self._owner.name}({types}) for {self.target.name}>"
