"""Jit: a Program becomes object code through Numba. The only file that imports numba.

Numba sees a function of one line: the whole kernel is one intrinsic, which `codegen` writes. Loops
that Numba types and lowers statement by statement took three times as long to compile.
The object code is for the target's own machine, with LLVM's vectorizers off, so that the vectors
are the program's and no wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

from ..targets import Target
from .codegen import write_program
from .program import Program


@dataclass(frozen=True)
class Compiled:
    """Object code, the symbol in it, and the texts one may want to read, made when asked for."""

    symbol: str
    object: bytes
    module: Any
    machine: Any

    @cached_property
    def llvm(self) -> str:
        """Optimized LLVM assembly."""
        return str(self.module)

    @cached_property
    def asm(self) -> str:
        """Machine code as text, by a second run of the code generator."""
        return str(self.machine.emit_assembly(self.module))


def compile_program(program: Program, target: Target) -> Compiled:
    """Object code for `void symbol(void* memory..., int64 begin, int64 end)`."""
    return _optimized(program, target, *_numba_ir(program, target))


# From a program to Numba's IR.


@dataclass(frozen=True)
class Numba:
    """Numba's compiler for functions that do nothing but call the one intrinsic, `body`."""

    typing: Any
    context: Any
    library: Any
    body: Callable[..., None]


@cache
def _numba() -> Numba:
    """Numba's CPU compiler, without its library of Python and numpy functions.

    Loading that takes 0.4 s of a process's first kernel; a kernel calls none of it.
    """
    from numba.core import types, typing
    from numba.core.codegen import JITCodeLibrary
    from numba.core.cpu import CPUContext
    from numba.core.typing.templates import AbstractTemplate

    def body(*_: object) -> None:
        """Stands for the program in the function that Numba compiles."""

    class Body(AbstractTemplate):
        key = body

        def generic(self, given: Any, _named: Any) -> Any:
            return typing.signature(types.void, *given)

    class Typing(typing.Context):
        def load_additional_registries(self) -> None:
            pass

    class Context(CPUContext):
        def load_additional_registries(self) -> None:
            pass

        def post_lowering(self, _module: Any, _library: Any) -> None:
            """Nothing to link: a kernel counts no references."""

    class Library(JITCodeLibrary):
        """One program's code, as it was written: it is optimized later, for its own target."""

        def __init__(self, codegen: Any, program: Program, target: Target) -> None:
            super().__init__(codegen, program.name)
            self.write = partial(write_program, program=program, target=target)

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        context.active_code_library.write(builder, arguments=arguments)
        return context.get_dummy_value()

    typed = Typing()
    context = Context(typed)
    context.refresh()
    typed.insert_global(body, types.Function(Body))
    context.insert_func_defn([(emit, body, (types.VarArg(types.Any),))])
    return Numba(typed, context, Library, body)


def _numba_ir(program: Program, target: Target) -> tuple[str, str]:
    """The module of a program before any optimization, and its function's mangled name."""
    from numba.core import types
    from numba.core.compiler import Flags, compile_extra
    from numba.core.compiler_lock import global_compiler_lock

    names = ", ".join([*(f"m{i}" for i in range(len(program.memories))), "begin", "end"])
    text = f"def {program.name}({names}):\n    __body({names})\n"
    # Numba's compiler is not reentrant; two kernels may be compiled from two threads.
    with global_compiler_lock:
        numba = _numba()
        space: dict[str, Any] = {"__body": numba.body}
        exec(compile(text, f"<simdflow {program.name}>", "exec"), space)
        flags: Any = Flags()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        kinds = (*[types.voidptr] * len(program.memories), types.int64, types.int64)
        library = numba.library(numba.context.codegen(), program, target)
        function = space[program.name]
        result = compile_extra(
            numba.typing, numba.context, function, kinds, types.void, flags, {}, library
        )
        return str(result.library._final_module), result.fndesc.llvm_func_name


# From Numba's IR to object code.


# The stack is aligned because registers that do not fit lie there: 64 bytes across two cache lines
# are two loads (a depthwise layer of 25x5x64 took 0.42 us, aligned 0.37).
WRAPPER = """
define void @{symbol}({parameters}) nounwind alignstack(64) {{
  %result = alloca ptr
  %error = alloca ptr
  %status = call i32 @{inner}(ptr %result, ptr %error, {arguments})
  ret void
}}
"""


def _optimized(program: Program, target: Target, ir_text: str, inner: str) -> Compiled:
    import llvmlite.binding as llvm

    machine = target_machine(target)
    pointers = [f"%m{i}" for i in range(len(program.memories))]
    ranges = ["i64 %begin", "i64 %end"]
    wrapper = WRAPPER.format(
        symbol=program.name,
        inner=inner,
        parameters=", ".join([*(f"ptr noalias {p}" for p in pointers), *ranges]),
        arguments=", ".join([*(f"ptr {p}" for p in pointers), *ranges]),
    )
    module = llvm.parse_assembly(ir_text + wrapper)
    module.get_function(inner).linkage = llvm.Linkage.internal
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = True  # small loops of known trips, as values.py expects
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return Compiled(program.name, machine.emit_object(module), module, machine)


def target_machine(target: Target) -> Any:
    """LLVM's code generator for a target: position independent, for the linker to place."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.Target.from_default_triple()
    return triple.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )


# Kernels inside a user's own @njit function.


def numba_function(
    name: str, address: int, slots: Sequence[tuple[tuple[int, ...], int | None]], end: int
) -> Any:
    """An @njit function of the arrays that are left open.

    `slots` has (shape, None) for those, (shape, address) for the ones that are fixed. Raises
    ValueError in native code for an array of another shape or not in C order.
    """
    import ctypes

    from numba import njit

    kinds = [*[ctypes.c_void_p] * len(slots), ctypes.c_int64, ctypes.c_int64]
    space: dict[str, Any] = {"native": ctypes.CFUNCTYPE(None, *kinds)(address)}
    open_names = [f"a{i}" for i, (_, fixed) in enumerate(slots) if fixed is None]
    lines = [f"def {name}({', '.join(open_names)}):"]
    for i, (shape, fixed) in enumerate(slots):
        if fixed is None:
            message = (
                f"{name}: argument {open_names.index(f'a{i}')} must have shape {shape} in C order"
            )
            lines.append(
                f"    if a{i}.shape != {shape!r} or not a{i}.flags.c_contiguous: raise "
                f"ValueError({message!r})"
            )
    arguments = [
        f"a{i}.ctypes" if fixed is None else f"{fixed}" for i, (_, fixed) in enumerate(slots)
    ]
    lines.append(f"    native({', '.join(arguments)}, 0, {end})")
    exec("\n".join(lines), space)
    return njit(space[name])
