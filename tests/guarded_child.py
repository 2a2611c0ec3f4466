"""Run by test_guarded in a process of its own: samples' machine code with guard pages all around.

Arguments: a target, then names of samples; each name is printed when it has survived. With
`--short` an array ends one element earlier than the kernel was told, to show that the guard works.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from samples import BY_NAME, Sample

import simdflow as sf
from simdflow import testing
from simdflow.compiler.packing import aligned
from simdflow.kernel import Kernel
from simdflow.operands import PackedOperand, packed_parts
from simdflow.testing.checking import Case

at_end = True


def guard_what_the_kernel_makes() -> None:
    """Packed parts and scratch: not the user's arrays, and just as easy to overrun."""

    def guarded_parts(*arguments: Any) -> tuple[np.ndarray, ...]:
        parts = packed_parts(*arguments)
        return tuple(testing.guarded(part, at_end, read_only=True) for part in parts)

    def guarded_scratch(size: int) -> np.ndarray:
        return testing.guarded(aligned(size), at_end)

    replaced("simdflow.arguments", "packed_parts", guarded_parts)
    replaced("simdflow.operands", "packed_parts", guarded_parts)
    replaced("simdflow.compiled", "aligned", guarded_scratch)


def replaced(module: str, name: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of another, which has to be there."""
    space = vars(importlib.import_module(module))
    assert name in space, f"{module}.{name} has moved: what it makes is no longer guarded"
    space[name] = function


def protected(operand: Any) -> Any:
    """An operand on read-only pages next to pages without access."""
    if isinstance(operand, PackedOperand):
        if operand.csr is not None:
            csr = {k: testing.guarded(a, at_end, read_only=True) for k, a in operand.csr.items()}
            return PackedOperand(operand.type, None, csr)
        assert operand.array is not None
        # Not the same object: packed parts are kept, and these are to be guarded at another end.
        return PackedOperand(operand.type, operand.array, None)
    if isinstance(operand, sf.Bits):
        # Bits copies words that are not in C order; these are, so they stay where they are.
        return sf.Bits(testing.guarded(operand.words, at_end, read_only=True), operand.shape)
    return testing.guarded(operand, at_end, read_only=True)


def output(kind: sf.OperandType) -> Any:
    """A guarded output that may be written."""
    if kind.scalar == sf.bit:
        words = np.zeros((*kind.shape[:-1], -(-kind.shape[-1] // 8)), np.uint8)
        return sf.Bits(testing.guarded(words, at_end), kind.shape)
    return testing.guarded(np.zeros(kind.shape, kind.scalar.dtype), at_end)


def survive(sample: Sample, target: str) -> None:
    """Call a few drawn specializations with every array guarded at its end, then at its start."""

    @settings(
        max_examples=3,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def attempt(data: st.DataObject) -> None:
        global at_end
        problem = data.draw(testing.problems(sample.kernel, **sample.given))
        nest = problem.nest(sample.kernel)
        flow = data.draw(st.none() | testing.dataflows(nest, sf.target(target)))
        given = {**dict(problem.types), **dict(problem.constants)}
        print(Case(problem, "compiled", target, flow).line(sample.kernel), flush=True)
        operands = problem.operands(sample.kernel)
        for side in (True, False):
            at_end = side
            made = Kernel(sample.kernel.function).specialize(target=target, dataflow=flow, **given)
            made(*map(protected, operands.values()), out=output(made.out_type))

    attempt()


def read_too_far(sample: Sample, target: str) -> None:
    """Call conv2d on an image whose last element is missing."""
    made = sample.kernel.specialize(x=sf.u8[1, 2, 2, 64], w=sf.i8[1, 1, 64, 5], target=target)
    short = testing.guarded(np.ones(2 * 2 * 64 - 1, np.uint8))
    x = np.lib.stride_tricks.as_strided(short, (1, 2, 2, 64))
    run = made.bind(x=x, w=sf.pack(np.ones((1, 1, 64, 5), np.int8)), out=output(made.out_type))
    print(f"{sample}(short)", flush=True)
    run()


def main(target: str, *names: str) -> None:
    guard_what_the_kernel_makes()
    if names[0] == "--short":
        read_too_far(BY_NAME[names[1]], target)
        sys.exit("the kernel read past the end and lived")
    for name in names:
        survive(BY_NAME[name], target)
    print(*names)


if __name__ == "__main__":
    main(*sys.argv[1:])
