"""Jit: a Program becomes object code through Numba. The only file that imports numba.

Numba sees the loops; every straight-line run of instructions is one intrinsic, a Block, made from
the Program. What must live from one block to the next (accumulators, hoisted loads) travels as one
Numba value whose data model is an LLVM struct of vectors, which LLVM takes apart into registers.
Compiled for the target's own machine with LLVM's vectorizers off, so that the vectors are the
program's and no wider.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ..dsl.nest import Affine, Quotient, integer
from ..targets import Target
from ..targets.emission import Pointer, Value, llvm_type
from .emit import loop_header
from .program import Address, Fetch, Loop, Op, Program, Statement, Vec


@dataclass(frozen=True)
class Block:
    """A straight-line run of instructions; the memories and loop variables it reads, in order."""

    name: str
    ops: tuple[Op, ...]
    memories: tuple[str, ...]
    variables: tuple[str, ...]


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
    blocks: list[Block] = []
    text = _text(program, blocks)
    state = _state(program, blocks)
    namespace: dict[str, Any] = {"max": _bound(">"), "min": _bound("<")}
    integers = {m.scalar for m in program.memories if m.scalar.kind in "ui"}
    namespace |= {f"__fetch_{s}": _fetch(s.bits, s.kind == "i") for s in integers}
    namespace["__fresh"] = _fresh(state)
    for block in blocks:
        namespace[block.name] = _intrinsic(block, program, target, state)
    exec(compile(text, f"<simdflow {program.name}>", "exec"), namespace)
    ir_text, inner = _numba_ir(namespace[program.name], len(program.memories))
    return _optimized(program, target, ir_text, inner)


# The text Numba sees: loops and blocks. Our own names begin with `__`, which no axis or operand
# may.


def _text(program: Program, blocks: list[Block]) -> str:
    args = ", ".join([*(m.name for m in program.memories), "begin", "end"])
    head = [f"def {program.name}({args}):", "    __r = __fresh()"]
    return "\n".join([*head, *_block_lines(program, program.body, 1, blocks)]) + "\n"


def _block_lines(
    program: Program, body: Sequence[Statement], depth: int, blocks: list[Block]
) -> Iterator[str]:
    indent = "    " * depth
    for straight, run in itertools.groupby(body, key=lambda s: isinstance(s, Op)):
        if straight:
            block = _block(f"__block_{len(blocks)}", [s for s in run if isinstance(s, Op)])
            blocks.append(block)
            given = ", ".join(["__r", *block.memories, *block.variables])
            yield f"{indent}__r = {block.name}({given})"
            continue
        for s in run:
            if isinstance(s, Loop):
                yield indent + loop_header(s)
                yield from _block_lines(program, s.body, depth + 1, blocks)
            elif isinstance(s, Fetch):
                kind = program.memory(s.operand).scalar
                yield f"{indent}{s.var} = {s.text(f'__fetch_{kind}({s.operand}, {s.offset})')}"


def _block(name: str, ops: list[Op]) -> Block:
    addresses = [a for op in ops for a in op.args if isinstance(a, Address)]
    memories = dict.fromkeys(a.operand for a in addresses)
    variables = dict.fromkeys(v for a in addresses for v in sorted(a.offset.axes))
    return Block(name, tuple(ops), tuple(memories), tuple(variables))


def _state(program: Program, blocks: list[Block]) -> dict[str, Vec]:
    """Registers that live from one block to another: read in some block before written there."""
    vecs = {op.dst: op.vec for op in program.ops() if op.dst}
    live: dict[str, Vec] = {}
    for block in blocks:
        written: set[str] = set()
        for op in block.ops:
            live.update((r, vecs[r]) for r in op.registers if r not in written)
            written.add(op.dst)
    return live


# Numba types and intrinsics.


@cache
def _state_type(vecs: tuple[Vec, ...]) -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import models, register_model

    struct = ir.LiteralStructType([llvm_type(v) for v in vecs])

    class Registers(types.Type):
        def __init__(self) -> None:
            super().__init__(name=f"registers({', '.join(map(str, vecs))})")

    @register_model(Registers)
    class RegistersModel(models.PrimitiveModel):
        def __init__(self, manager: Any, fe: Any) -> None:
            super().__init__(manager, fe, struct)

    return Registers()


def _fresh(state: dict[str, Vec]) -> Any:
    from llvmlite import ir
    from numba.extending import intrinsic

    kind = _state_type(tuple(state.values()))

    @intrinsic
    def fresh(typing: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(context.get_value_type(kind), ir.Undefined)

        return kind(), emit

    return fresh


@cache
def _bound(order: str) -> Any:
    """`max` and `min` of two integers: Numba's own take many functions to compile."""
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def bound(typing: Any, a: Any, b: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(order, *args), *args)

        return types.int64(types.int64, types.int64), emit

    return bound


@cache
def _fetch(bits: int, signed: bool) -> Any:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def fetch(typing: Any, memory: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            typed = builder.bitcast(args[0], ir.IntType(bits).as_pointer())
            value = builder.load(builder.gep(typed, [args[1]]))
            if bits == 64:
                return value
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return types.int64(types.voidptr, types.int64), emit

    return fetch


def _intrinsic(block: Block, program: Program, target: Target, state: dict[str, Vec]) -> Any:
    from numba import types
    from numba.extending import intrinsic

    kind = _state_type(tuple(state.values()))
    arity = len(block.memories) + len(block.variables)

    def typed() -> Any:
        signature = kind(
            kind, *[types.voidptr] * len(block.memories), *[types.int64] * len(block.variables)
        )
        return signature, lambda context, builder, signature, args: _emit(
            builder, block, program, target, state, args
        )

    names = ", ".join(["registers", *(f"a{i}" for i in range(arity))])
    space: dict[str, Any] = {"typed": typed}
    exec(f"def {block.name}(typing, {names}):\n    return typed()\n", space)
    return intrinsic(space[block.name])


def _emit(
    b: Any, block: Block, program: Program, target: Target, state: dict[str, Vec], args: Any
) -> Any:
    """LLVM code of a block: its instructions, on registers out of and back into the state."""
    order = list(state)
    pointers = dict(zip(block.memories, args[1 : 1 + len(block.memories)], strict=True))
    variables = dict(zip(block.variables, args[1 + len(block.memories) :], strict=True))
    held: dict[str, Value] = {}
    bases: dict[tuple, Any] = {}
    written: dict[str, None] = {}

    def register(name: str) -> Value:
        if name not in held:
            vec = state[name]
            held[name] = Value(b.extract_value(args[0], order.index(name)), vec.scalar, vec.lanes)
        return held[name]

    def pointer(a: Address) -> Pointer:
        memory = program.memory(a.operand)
        item = max(memory.scalar.bits // 8, 1)
        return Pointer(
            _address(b, pointers[a.operand], a, item, variables, bases), memory.scalar.name
        )

    for op in block.ops:
        given = [
            register(a) if isinstance(a, str) else pointer(a) if isinstance(a, Address) else a
            for a in op.args
        ]
        result = target.table[op.name].emit(b, op.vec, *given)
        if op.dst:
            held[op.dst] = Value(result, op.vec.scalar, op.vec.lanes)
            written[op.dst] = None
    out = args[0]
    for name in written:
        if name in state:
            out = b.insert_value(out, held[name].llvm, order.index(name))
    return out


def _address(b: Any, base: Any, a: Address, item: int, variables: dict, bases: dict) -> Any:
    """base + variable part, shared by all addresses that have it, + a constant displacement."""
    from llvmlite import ir

    i64 = ir.IntType(64)
    key = (a.operand, a.offset.terms)
    if key not in bases:
        bases[key] = b.gep(
            base, [_integer(b, Affine(a.offset.terms), variables, item)], inbounds=True
        )
    const = integer(a.offset.const) * item
    return b.gep(bases[key], [i64(const)], inbounds=True) if const else bases[key]


def _integer(b: Any, a: Affine, variables: dict, factor: int = 1) -> Any:
    from llvmlite import ir

    i64 = ir.IntType(64)
    total = i64(integer(a.const) * factor)
    for term, c in a.terms:
        if isinstance(term, Quotient):
            inner, d = _integer(b, term.inner, variables), i64(integer(term.divisor))
            value = b.udiv(inner, d) if term.op == "//" else b.urem(inner, d)
        else:
            assert isinstance(term, str), f"{term} was not fetched"
            value = variables[term]
        step = i64(integer(c) * factor)
        total = b.add(total, b.mul(value, step, flags=["nsw"]), flags=["nsw"])
    return total


# From Numba's IR to object code.


def _numba_ir(function: Any, memories: int) -> tuple[str, str]:
    """The unoptimized module of a function and its mangled name, as Numba's front end makes it."""
    from numba import types
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Flags, compile_extra
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.registry import cpu_target

    class Unoptimized(JITCodeLibrary):
        """As it was lowered: Numba's passes are a seventh of the time, and run again later."""

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

    typing, context = cpu_target.typing_context, cpu_target.target_context
    # Numba's compiler is not reentrant; two kernels may be compiled from two threads.
    with global_compiler_lock:
        typing.refresh()
        context.refresh()
        flags: Any = Flags()
        flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        flags.error_model = "numpy"
        signature = (*[types.voidptr] * memories, types.int64, types.int64)
        library = Unoptimized(context.codegen(), function.__name__)
        result = compile_extra(typing, context, function, signature, types.void, flags, {}, library)
        library = result.library
        return str(library._final_module), result.fndesc.llvm_func_name


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
