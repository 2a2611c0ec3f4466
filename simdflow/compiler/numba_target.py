"""Numba target: what Numba needs to know to compile a kernel, a function of one line.

    def kernel(x, w, out, begin, end):
        body(x, w, out, begin, end)

`body` is an intrinsic, which `codegen` writes. A target is a typing context, a context that makes
code, and a calling convention. This one knows no function but `body`: to load Numba's library of
Python's and numpy's functions takes 0.4 s of a process's first kernel, and a kernel calls none of
them. When Numba saw the loops, typed and lowered them statement by statement, a kernel took 2.5
times as long to compile. Imports numba on top: only `jit` imports this file, and late.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.callconv import BaseCallConv
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Flags, compile_extra
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.imputils import builtin_registry
from numba.core.typing.context import Context as TypingContext
from numba.core.typing.templates import AbstractTemplate, signature

from ..targets import Target
from .codegen import write_body
from .program import Program


def body(*_: object) -> None:
    """The intrinsic: stands for the program in the function that Numba compiles."""


class BodyType(AbstractTemplate):
    """It takes anything and returns nothing."""

    key = body

    def generic(self, args: Any, *_: Any) -> Any:
        """The types of one call."""
        return signature(types.void, *args)


class Typing(TypingContext):
    """Numba's typing, without its library."""

    def load_additional_registries(self) -> None:
        """None."""

    def refresh(self) -> None:
        """Not for every kernel: to see what has come since, Numba loads the library after all."""


class NativeCall(BaseCallConv):
    """`void name(i8* noalias memory..., i64 begin, i64 end)`: no status, no exceptions."""

    def get_function_type(self, _result: Any, argtypes: Any) -> Any:
        """In LLVM's types."""
        return ir.FunctionType(ir.VoidType(), list(self._get_arg_packer(argtypes).argument_types))

    def decorate_function(self, fn: Any, args: Any, *_: Any, **__: Any) -> None:
        """What LLVM may assume, and names to read."""
        fn.attributes.add("nounwind")
        # Registers that do not fit lie on the stack, and 64 bytes across two cache lines are two
        # loads (a depthwise layer of 25x5x64 took 0.42 us, aligned 0.37).
        fn.attributes.alignstack = 64
        for argument, name in zip(fn.args, args, strict=True):
            argument.name = name
            if argument.type.is_pointer:
                argument.add_attribute("noalias")

    def get_arguments(self, func: Any) -> Any:
        """All of them."""
        return func.args

    def return_value(self, builder: Any, _value: Any) -> None:
        """Nothing."""
        builder.ret_void()

    def _make_call_helper(self, _builder: Any) -> None:
        """Of exceptions, which there are none of."""


class Context(CPUContext):
    """Numba's CPU, with our calling convention and nothing to link."""

    @property
    def call_conv(self) -> NativeCall:
        """Ours."""
        return NativeCall(self)

    def load_additional_registries(self) -> None:
        """None."""

    def refresh(self) -> None:
        """Not for every kernel, as above."""

    def mangler(self, name: str, *_: object, **__: object) -> str:
        """The kernel's own name, without the module's that Numba puts before it."""
        return name.rpartition(".")[2]

    def declare_env_global(self, *_: Any) -> None:
        """No globals of Python's are read."""

    def post_lowering(self, *_: Any) -> None:
        """No references are counted."""


class Library(JITCodeLibrary):
    """One program and its module, which is kept as it is written: `jit` optimizes it."""

    module: Any = None

    def __init__(self, codegen: Any, program: Program, target: Target) -> None:
        super().__init__(codegen, program.name)
        self.write = partial(write_body, program=program, target=target)

    def add_ir_module(self, ir_module: Any) -> None:
        """Only kept."""
        self.module = ir_module


@cache
def _contexts() -> tuple[Typing, Context]:
    def emit(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        context.active_code_library.write(builder, arguments=arguments)
        return context.get_dummy_value()

    typed = Typing()
    context = Context(typed)
    TypingContext.refresh(typed)
    context.install_registry(builtin_registry)
    typed.insert_global(body, types.Function(BodyType))
    context.insert_func_defn([(emit, body, (types.VarArg(types.Any),))])
    return typed, context


def module_text(program: Program, target: Target) -> str:
    """LLVM assembly of a program before any optimization; its function has the program's name."""
    names = ", ".join([*(m.name for m in program.memories), "begin", "end"])
    space: dict[str, Any] = {"__body": body}
    text = f"def {program.name}({names}):\n    __body({names})\n"
    exec(compile(text, f"<simdflow {program.name}>", "exec"), space)
    flags: Any = Flags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    kinds = (*[types.voidptr] * len(program.memories), types.int64, types.int64)
    # Numba's compiler is not reentrant; two kernels may be compiled from two threads.
    with global_compiler_lock:
        typed, context = _contexts()
        library = Library(context.codegen(), program, target)
        function = space[program.name]
        compile_extra(typed, context, function, kinds, types.void, flags, {}, library)
        return str(library.module)
