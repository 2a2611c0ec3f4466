"""Single instructions of a target's table as machine code that can be called with numpy arrays.

Turns (target, row, types, immediates) into a function of raw addresses, by llvmlite alone: neither
numba nor the compiler's own stages take part, so a failure here is the row's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from simdflow.compiler import native
from simdflow.compiler.program import Vec
from simdflow.targets import Target
from simdflow.targets.emission import Pointer, Value, dtype, llvm_type


@dataclass(frozen=True)
class Memory:
    """An argument that is an address: the element name, and the offset the meaning is given."""

    scalar: str
    offset: int = 0


Argument = Vec | Memory | int | float


@dataclass(frozen=True)
class Use:
    """One use of a row: `name(arguments)` giving `vec`; of a store, `vec` is what it stores."""

    name: str
    vec: Vec
    arguments: tuple[Argument, ...]

    @property
    def stores(self) -> bool:
        return self.name in ("store", "store_bits", "scatter")


def _module(target: Target, use: Use) -> Any:
    """`void use(out, argument...)`: registers are read from memory, masks as one byte a lane."""
    from llvmlite import ir

    byte = ir.IntType(8)
    module = ir.Module()
    passed = [a for a in use.arguments if isinstance(a, Vec | Memory)]
    signature = ir.FunctionType(ir.VoidType(), [byte.as_pointer()] * (1 + len(passed)))
    function = ir.Function(module, signature, "use")
    b = ir.IRBuilder(function.append_basic_block())
    pointers = iter(function.args[1:])
    given: list[Any] = []
    for a in use.arguments:
        if isinstance(a, Vec):
            given.append(Value(_register(b, next(pointers), a), a.scalar, a.lanes))
        elif isinstance(a, Memory):
            moved = b.gep(next(pointers), [ir.IntType(64)(a.offset * dtype(a.scalar).itemsize)])
            given.append(Pointer(moved, a.scalar))
        else:
            given.append(a)
    result = target.table[use.name].emit(b, use.vec, *given)
    if not use.stores:
        assert result.type == llvm_type(use.vec), f"{use}: {result.type}"
        if use.vec.scalar == "bool":
            result = b.zext(result, ir.VectorType(byte, use.vec.lanes))
        b.store(result, b.bitcast(function.args[0], result.type.as_pointer()), align=1)
    b.ret_void()
    return module


def _register(b: Any, pointer: Any, vec: Vec) -> Any:
    from llvmlite import ir

    if vec.scalar != "bool":
        return b.load(b.bitcast(pointer, llvm_type(vec).as_pointer()), align=1)
    t = ir.VectorType(ir.IntType(8), vec.lanes)
    return b.trunc(b.load(b.bitcast(pointer, t.as_pointer()), align=1), llvm_type(vec))


@cache
def code(target: Target, use: Use) -> tuple[bytes, str]:
    """Object code and assembly of one use, optimized as kernels are."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(str(_module(target, use)))
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module), machine.emit_assembly(module)


def assembly(target: Target, use: Use) -> list[str]:
    """The instructions of one use, without directives, labels and the VEX prefix."""
    lines = [line.strip() for line in code(target, use)[1].split("\n")]
    return [
        line.removeprefix("{vex}").strip().replace("\t", " ")
        for line in lines
        if line
        and not line.startswith((".", "#"))
        and not line.split("#")[0].rstrip().endswith(":")
    ]


@cache
def _linked(target: Target, use: Use) -> tuple[Callable[..., None], object]:
    passed = [a for a in use.arguments if isinstance(a, Vec | Memory)]
    found = native.link(code(target, use)[0], ["use"]).function("use")
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (1 + len(passed)))
    return signature(found.address), found.owner


def run(target: Target, use: Use, *arrays: np.ndarray) -> np.ndarray | None:
    """What the machine code gives for these arrays: one for every register and memory, in order."""
    function, _ = _linked(target, use)
    out = np.zeros(use.vec.lanes, dtype(use.vec.scalar))
    function(out.ctypes.data, *(a.ctypes.data for a in arrays))
    return None if use.stores else out


def meaning(target: Target, use: Use, *arrays: np.ndarray) -> np.ndarray | None:
    """What the row's numpy meaning gives for the same arrays."""
    left = iter(arrays)
    given: list[Any] = []
    for a in use.arguments:
        if isinstance(a, Vec):
            given.append(next(left))
        elif isinstance(a, Memory):
            given += [next(left), a.offset]
        else:
            given.append(a)
    return target.table[use.name].meaning(use.vec, *given)
