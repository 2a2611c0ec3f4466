"""Emit: a Program as Python text whose calls are instructions, and running that on numpy.

    def kernel(x, w, out, begin, end):
        for oc in range(0, 64, 64):
            for ow in range(max(begin, 0), min(end, 54), 6):
                acc_0_0 = copy_i32x16(v3)
                for ic in range(0, 64, 4):
                    b_0 = load_i8x64(w, oc*64 + ic*64)
                    a_0 = broadcast_u8x64(x, ow*64 + ic, 4)
                    acc_0_0 = dot_i32x16(acc_0_0, a_0, b_0)
                store_i32x16(out, ow*64 + oc, acc_0_0)

`codegen` writes the same for LLVM, loop by loop and instruction by instruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..targets import Target
from .program import Address, Arg, Fetch, Loop, Op, Program, Statement


def emit(program: Program) -> str:
    """The program as readable, runnable Python."""
    args = ", ".join([*(m.name for m in program.memories), "begin", "end"])
    lines = [f"def {program.name}({args}):", *_lines(program.body, 1)]
    if len(lines) == 1:
        lines.append("    pass")
    return "\n".join(lines) + "\n"


def _lines(body: Sequence[Statement], depth: int) -> Iterator[str]:
    indent = "    " * depth
    if not body:
        yield f"{indent}pass"
    for s in body:
        if isinstance(s, Loop):
            yield f"{indent}{loop_header(s)}"
            yield from _lines(s.body, depth + 1)
        elif isinstance(s, Fetch):
            yield f"{indent}{s.var} = {s.text(f'int({s.operand}[{s.offset}])')}"
        else:
            yield indent + _op(s)


def loop_header(s: Loop) -> str:
    """`for var in range(...):`, cut to the thread's range where the loop is parallel."""
    start, stop = s.start, s.stop
    if s.parallel:
        start, stop = f"max(begin, {start})", f"min(end, {stop})"
    return f"for {s.var} in range({start}, {stop}, {s.step}):"


def _op(s: Op) -> str:
    shown = ", ".join(_arg(a) for a in s.args)
    return f"{s.dst} = {s.text_name}({shown})" if s.dst else f"{s.text_name}({shown})"


def _arg(a: Arg) -> str:
    if isinstance(a, Address):
        return f"{a.operand}, {a.offset}"
    if isinstance(a, float) and not np.isfinite(a):
        return f"float('{a}')"
    return str(a)


def meanings(program: Program, target: Target) -> dict[str, Any]:
    """The instructions of a program as functions on numpy arrays, by their names in the text."""
    return {op.text_name: partial(target.table[op.name].meaning, op.vec) for op in program.ops()}


def run_text(
    program: Program,
    target: Target,
    text: str,
    arrays: Mapping[str, np.ndarray],
    begin: int = 0,
    end: int = -1,
) -> None:
    """Run emitted text un-jitted on flat arrays, one for each memory of the program."""
    namespace = meanings(program, target)
    exec(compile(text, f"<simdflow {program.name}>", "exec"), namespace)
    flat = [arrays[m.name] for m in program.memories]
    stop = program.parallel[1] if end < 0 else end
    with np.errstate(all="ignore"):
        namespace[program.name](*flat, begin, stop)
