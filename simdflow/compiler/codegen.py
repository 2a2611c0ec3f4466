"""Codegen: the LLVM instructions of a Program, its loops included, in a function being built.

Registers that live from one straight-line run of instructions to another are slots on the stack,
which LLVM's first pass takes apart into registers again. An address is computed once for all
instructions of a run that share its variable part. Knows nothing of Numba or of nests; imported
late, by what compiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from ..dsl.nest import Affine, Quotient, integer
from ..targets import Target
from ..targets.emission import Pointer, Value, llvm_type
from .program import Address, Fetch, Loop, Memory, Op, Program, Statement, Vec


@dataclass(frozen=True)
class Frame:
    """What every statement of one function needs.

    pointers    memory -> i8 pointer to its first element
    share       begin and end of the parallel axis
    slots       register -> its stack slot, of those that outlive a run
    """

    builder: Any
    target: Target
    memories: Mapping[str, Memory]
    pointers: Mapping[str, Any]
    share: tuple[Any, Any]
    slots: Mapping[str, tuple[Any, Vec]]


Variables = Mapping[str, Any]  # loop variables and fetched integers in scope, as i64 values


def write_body(builder: Any, program: Program, target: Target, arguments: Sequence[Any]) -> None:
    """Write a program where `builder` stands; arguments: a pointer a memory, begin, end."""
    *pointers, begin, end = arguments
    memories = {m.name: m for m in program.memories}
    named = dict(zip(memories, pointers, strict=True))
    with builder.goto_entry_block():  # LLVM takes only those apart
        slots = {name: (builder.alloca(llvm_type(v)), v) for name, v in _outliving(program).items()}
    _body(Frame(builder, target, memories, named, (begin, end), slots), program.body, {})


def _runs(body: Sequence[Statement]) -> Iterator[tuple[bool, list[Statement]]]:
    """(straight line of instructions?, statements), in order."""
    for straight, run in itertools.groupby(body, key=lambda s: isinstance(s, Op)):
        yield straight, list(run)


def _outliving(program: Program) -> dict[str, Vec]:
    """Registers that are read in some run before they are written there."""
    found: dict[str, Vec] = {}
    kinds = {op.dst: op.vec for op in program.ops() if op.dst}

    def look(body: Sequence[Statement]) -> None:
        for _, run in _runs(body):
            written: set[str] = set()
            for s in run:
                if isinstance(s, Op):
                    found.update((r, kinds[r]) for r in s.registers if r not in written)
                    written.add(s.dst)
                elif isinstance(s, Loop):
                    look(s.body)

    look(program.body)
    return found


def _body(f: Frame, body: Sequence[Statement], outer: Variables) -> None:
    variables = dict(outer)
    for straight, run in _runs(body):
        if straight:
            _run(f, [s for s in run if isinstance(s, Op)], variables)
            continue
        for s in run:
            if isinstance(s, Loop):
                _loop(f, s, variables)
            elif isinstance(s, Fetch):
                variables[s.var] = _fetch(f, s, variables)


def _loop(f: Frame, s: Loop, variables: Variables) -> None:
    b = f.builder
    start, stop = (variables[v] if isinstance(v, str) else _i64(v) for v in (s.start, s.stop))
    if s.parallel:
        start, stop = _larger(b, f.share[0], start), _smaller(b, f.share[1], stop)
    before = b.block
    head, body, after = (b.append_basic_block(f"{s.var}.{x}") for x in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    variable = b.phi(start.type, s.var)
    variable.add_incoming(start, before)
    b.cbranch(b.icmp_signed("<", variable, stop), body, after)
    b.position_at_end(body)
    _body(f, s.body, {**variables, s.var: variable})
    variable.add_incoming(b.add(variable, _i64(s.step), flags=["nsw"]), b.block)
    b.branch(head)
    b.position_at_end(after)


def _fetch(f: Frame, s: Fetch, variables: Variables) -> Any:
    b, scalar = f.builder, f.memories[s.operand].scalar
    typed = b.bitcast(f.pointers[s.operand], ir.IntType(scalar.bits).as_pointer())
    value = b.load(b.gep(typed, [_integer(b, s.offset, variables)]))
    if scalar.bits < 64:
        value = (b.sext if scalar.kind == "i" else b.zext)(value, ir.IntType(64))
    if s.limits is None:
        return value
    least, most = s.limits
    return _smaller(b, _larger(b, value, _i64(least)), _i64(most))


def _run(f: Frame, ops: Sequence[Op], variables: Variables) -> None:
    """A straight line: registers out of their slots when first read, back into them at the end."""
    b = f.builder
    held: dict[str, Value] = {}
    bases: dict[object, Any] = {}

    def argument(a: object) -> object:
        if isinstance(a, Address):
            return Pointer(_address(f, a, variables, bases), f.memories[a.operand].scalar.name)
        if not isinstance(a, str):
            return a
        if a not in held:
            slot, vec = f.slots[a]
            held[a] = Value(b.load(slot), vec.scalar, vec.lanes)
        return held[a]

    written: dict[str, None] = {}
    for op in ops:
        result = f.target.table[op.name].emit(b, op.vec, *map(argument, op.args))
        if op.dst:
            held[op.dst] = Value(result, op.vec.scalar, op.vec.lanes)
            written[op.dst] = None
    for name in written:
        if name in f.slots:
            b.store(held[name].llvm, f.slots[name][0])


def _address(f: Frame, a: Address, variables: Variables, bases: dict[object, Any]) -> Any:
    """base + variable part, shared by all addresses that have it, + a constant displacement."""
    b, item = f.builder, max(f.memories[a.operand].scalar.bits // 8, 1)
    key = (a.operand, a.offset.terms)
    if key not in bases:
        moved = _integer(b, Affine(a.offset.terms), variables, item)
        bases[key] = b.gep(f.pointers[a.operand], [moved], inbounds=True)
    const = integer(a.offset.const) * item
    return b.gep(bases[key], [_i64(const)], inbounds=True) if const else bases[key]


def _integer(b: Any, a: Affine, variables: Variables, factor: int = 1) -> Any:
    total = _i64(integer(a.const) * factor)
    for term, c in a.terms:
        if isinstance(term, Quotient):
            inner, d = _integer(b, term.inner, variables), _i64(integer(term.divisor))
            value = b.udiv(inner, d) if term.op == "//" else b.urem(inner, d)
        else:
            assert isinstance(term, str), f"{term} was not fetched"
            value = variables[term]
        product = b.mul(value, _i64(integer(c) * factor), flags=["nsw"])
        total = b.add(total, product, flags=["nsw"])
    return total


def _i64(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


def _larger(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed(">", x, y), x, y)


def _smaller(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.icmp_signed("<", x, y), x, y)
