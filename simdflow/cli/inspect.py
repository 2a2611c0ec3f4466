"""`simdflow inspect`: a stage of a kernel, of a user's file or a module, as text.

It turns names and operand types into a CompiledKernel and prints its stages; only `--time` runs it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..dsl.types import OperandType
from .words import Commands, constants, kernel_of, kernels_of, operands, parse_dataflow

if TYPE_CHECKING:
    import numpy as np

    from ..compiled import CompiledKernel
    from ..operands import Bits, PackedOperand

STAGES: dict[str, Callable[[CompiledKernel], object]] = {
    "nest": lambda c: c.nest,
    "plan": lambda c: f"{c.flow}\n{c.plan}",
    "program": lambda c: c.program,
    "source": lambda c: c.source,
    "llvm": lambda c: c.llvm(),
    "asm": lambda c: c.asm(),
    "report": lambda c: c.report(),
}


def add(commands: Commands) -> None:
    """Add the command's parser."""
    inspect = commands.add_parser(
        "inspect",
        allow_abbrev=False,  # --d may be an operand's name
        help="print the stages of a kernel",
        usage="simdflow inspect KERNEL --OPERAND TYPE ... [--constant NAME=VALUE] "
        "[--dataflow TEXT] [--target NAME] [--stage STAGE]",
        description="Prints what a kernel becomes, e.g. `simdflow inspect layers.py:conv2d "
        "--x u8[1,58,58,64] --w i8[3,3,64,64] --constant stride=2`. The file is executed. Without "
        "a kernel's name, its kernels are listed.",
    )
    inspect.add_argument("kernel", metavar="KERNEL", help="FILE.py:NAME or MODULE:NAME")
    inspect.add_argument("--constant", action="append", default=[], metavar="NAME=VALUE")
    inspect.add_argument("--dataflow", help="as printed: \"anchor='out', tile={'ow': 6}\"")
    inspect.add_argument("--target", help="compile for this target (default: the best)")
    inspect.add_argument("--stage", choices=[*STAGES, "all"], default="report")
    inspect.add_argument("--time", action="store_true", help="time it, for --stage report")
    inspect.set_defaults(action=_act, rest=[])


def _act(given: argparse.Namespace) -> None:
    place, _, name = given.kernel.partition(":")
    if not name:
        print("\n".join(kernels_of(place)) or f"{place} has no kernels")
        return
    types = operands(given.rest)
    kernel = kernel_of(place, name)
    compiled = kernel.specialize(
        target=given.target,
        dataflow=parse_dataflow(given.dataflow) if given.dataflow else None,
        **types,
        **constants(given.constant),
    )
    for stage in STAGES if given.stage == "all" else [given.stage]:
        if given.stage == "all":
            print(f"---- {stage} ".ljust(80, "-"))
        timed = given.time and stage == "report"
        print(_timed_report(compiled) if timed else STAGES[stage](compiled))


def _timed_report(compiled: CompiledKernel) -> str:
    """The report with the time of a call on random operands, beside the peak measured now."""
    import numpy as np

    from ..operands import pack, pack_bits
    from ..peaks import peaks

    rng = np.random.default_rng(0)
    out = compiled.nest.out.name

    def operand(kind: OperandType) -> np.ndarray | Bits | PackedOperand:
        if kind.storage == "packed":
            return pack(operand(replace(kind, storage="dense")))
        if kind.scalar.is_float:
            return rng.standard_normal(kind.shape).astype(kind.scalar.dtype)
        if kind.scalar.kind == "b":
            return pack_bits(rng.standard_normal(kind.shape))
        values = rng.integers(int(kind.low), int(kind.high), kind.shape, np.int64, endpoint=True)
        return values.astype(kind.scalar.dtype)

    types = {o.name: compiled.nest.type_of(o.name) for o in compiled.nest.operands}
    operands = {name: operand(kind) for name, kind in types.items() if name != out}
    run = compiled.bind(**operands, **{out: compiled(*operands.values())})
    clock, best = time.perf_counter_ns, 2**63
    end = clock() + 300_000_000
    while clock() < end:
        before = clock()
        run()
        best = min(best, clock() - before)
    first = next(kind for name, kind in types.items() if name != out)
    rate = peaks(compiled.target).gmac(first.scalar)
    products = compiled.plan.dot is not None
    return compiled.report(best / 1e9, rate * 1e9 if products else None)
