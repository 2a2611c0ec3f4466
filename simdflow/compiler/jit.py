"""Jit: a Program becomes object code, through Numba (`numba_target`) and LLVM.

The code is for the target's own machine, and LLVM's vectorizers do not run: the vectors are the
program's and no wider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..targets import Target
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
    import llvmlite.binding as llvm

    from .numba_target import module_text

    machine = target_machine(target)
    module = llvm.parse_assembly(module_text(program, target))
    module.data_layout = str(machine.target_data)
    module.verify()
    # Only the passes over one function: all others saw nothing to do in 320 kernels, for a third of
    # the time. Loops and vectors are the program's own; short loops are unrolled, as values.py
    # expects.
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getFunctionPassManager().run(module.get_function(program.name), passes)
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
