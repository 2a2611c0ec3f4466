"""Kernels for measuring: compiled and counted in worker processes, outside the user's cache.

Turns kernels into the same kernels with object code, and counts what each program does; or says why
there is none. Workers may use every core while they compile, the caller keeps to its own while it
times (timing.pinned), and the two take turns. A pool serves a few hundred kernels and makes place
for the next one: what Numba compiles is never freed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from typing import Any

import simdflow as sf
from simdflow.compiler.artifact import Artifact
from simdflow.compiler.request import Request

from .barrier import with_barriers


@dataclass(frozen=True)
class Counts:
    """What a program does in one call, without running it.

    cycles          predicted by the cost model
    operations      vector memory operations, as YFlows counts them
    instructions    name -> how often
    """

    flow: str
    cycles: float
    operations: float
    instructions: Mapping[str, float]


@contextmanager
def compilers(workers: int = 0) -> Iterator[Executor]:
    """Worker processes that compile, one a core unless said otherwise; nothing is cached."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with ProcessPoolExecutor(
        workers or len(cores) or os.cpu_count() or 1,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(cores,),
    ) as pool:
        yield pool


def compile_kernels(
    pool: Executor, kernels: Mapping[str, sf.CompiledKernel], barriers: Collection[str] = ()
) -> tuple[dict[str, Counts], dict[str, str]]:
    """Compile all of `kernels`. Gives the counts of each, and why of those that have no code.

    barriers    names of kernels in which LLVM keeps nothing that the program does not keep
    """
    waiting = {}
    for name, kernel in kernels.items():
        r = kernel.request
        parts = (r.nest, r.types, r.constants, r.flow, r.target.name)
        waiting[name] = pool.submit(_built, parts, name in barriers)
    counts, why = dict[str, Counts](), dict[str, str]()
    for name, future in waiting.items():
        try:
            record, code, counts[name] = future.result()
            kernels[name].adopt(Artifact.from_record(record), code)
        except Exception as failure:  # a worker's death, too: one kernel's failure is a remark
            first = str(failure).partition("\n")[0][:200]
            why[name] = f"{type(failure).__name__}: {first}"
    return counts, why


def _begin(cores: Sequence[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)
    os.environ["SIMDFLOW_CACHE"] = "off"


def _built(parts: tuple[Any, ...], barriers: bool) -> tuple[dict[str, Any], bytes, Counts]:
    """In a worker: (record of the artifact, object code, counts)."""
    from simdflow.compiler.compile import Stages
    from simdflow.compiler.cost import cost
    from simdflow.compiler.jit import compile_program
    from simdflow.tuning.memory_operations import instructions, memory_operations

    nest, types, constants, flow, name = parts
    stages = Stages(Request(nest, types, constants, flow, sf.target(name)))
    plan, program, target = stages.plan, stages.program, stages.request.target
    counts = Counts(
        str(stages.flow),
        cost(plan, program).cycles,
        memory_operations(plan, program),
        instructions(plan, program),
    )
    if barriers:
        program, target = with_barriers(program, target)
    built = compile_program(program, target)
    return Artifact.of(plan, program, stages.flow).record(), built.object, counts


def code(kernel: sf.CompiledKernel) -> str:
    """A hash of a kernel's machine instructions: equal where two kernels are the same code."""
    import llvmlite.binding as llvm

    found = sha256()
    for section in llvm.ObjectFileRef.from_data(kernel.object).sections():
        if section.is_text():
            found.update(section.data())
    return found.hexdigest()[:16]
