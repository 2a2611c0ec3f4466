"""YFlows' heuristic: the vector memory operations of one call, counted in a Program.

Loads and stores of the operands of the product and of the output, each times the trips of its
loops. It knows no caches, ports or latencies: that is the cost model's business
(compiler/cost.py), beside which it stands as a second, simpler model. Nothing is compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..compiler.plan import RegisterPlan
from ..compiler.program import Address, Fetch, Loop, Op, Program, Statement
from ..dsl.types import SCALARS

BESIDE = ("sums", "indptr", "indices")  # memories that are not the operand itself
WRITING = ("store", "store_bits", "scatter")


@dataclass(frozen=True)
class Operations:
    """Loads and stores of one operand in one call, a vector (or a broadcast element) each."""

    loads: float
    stores: float


def memory_operations(plan: RegisterPlan, program: Program) -> float:
    """Vector memory operations of one call, as YFlows counts them: loads and stores of the three
    operands. An output-anchored layer of R taps has 2 R + 1 for each output and filter without
    auxiliary registers; a weight that is kept saves one, so does an input that the window takes
    along. Accumulators in memory count for the output, start and end included. Biases, scales and
    tables do not count.
    """
    found = operations(plan, program).values()
    return sum(n.loads + n.stores for n in found)


def operations(plan: RegisterPlan, program: Program) -> Mapping[str, Operations]:
    """The same for each operand: name -> Operations. A nest without a product has all its operands
    counted. What a gather reads element by element is as many operations.
    """
    nest, out = plan.nest, plan.nest.out.name
    sides = [x.operand for x in (plan.a, plan.b) if x is not None]
    counted = {*(sides or (o.name for o in nest.operands)), out}
    memories = {m.name: m for m in program.memories}
    loads: dict[str, float] = defaultdict(float)
    stores: dict[str, float] = defaultdict(float)
    for op, times in executed(plan, program):
        for where in (x for x in op.args if isinstance(x, Address)):
            memory = memories[where.operand]
            name = out if memory.role == "scratch" else memory.operand
            if memory.role in BESIDE or name not in counted:
                continue
            into = stores if op.name in WRITING else loads
            into[name] += times * _vectors(op, plan)
    return {name: Operations(loads[name], stores[name]) for name in sorted(counted)}


def instructions(plan: RegisterPlan, program: Program) -> Mapping[str, float]:
    """How often a call runs each instruction of the table: name -> times."""
    found: dict[str, float] = defaultdict(float)
    for op, times in executed(plan, program):
        found[op.name] += times
    return dict(found)


def executed(plan: RegisterPlan, program: Program) -> Iterator[tuple[Op, float]]:
    """Every instruction, and how often a call runs it. The rows of a compressed operand are taken
    to be of equal length.
    """
    yield from _executed(program.body, plan, 1.0)


def _executed(
    body: Sequence[Statement], plan: RegisterPlan, times: float
) -> Iterator[tuple[Op, float]]:
    for s in body:
        if isinstance(s, Loop):
            yield from _executed(s.body, plan, times * _trips(s, plan))
        elif not isinstance(s, Fetch):
            yield s, times


def _trips(s: Loop, plan: RegisterPlan) -> float:
    if isinstance(s.start, int) and isinstance(s.stop, int):
        return max(0, -(-(s.stop - s.start) // s.step))
    types = (plan.nest.type_of(o.name) for o in plan.nest.operands)
    rows = next(t for t in types if t.storage == "csr")
    return rows.nonzeros / max(rows.shape[0], 1)


def _vectors(op: Op, plan: RegisterPlan) -> float:
    """Memory operations of one instruction: registers it fills, or elements it picks."""
    if op.name == "gather":
        _, group, stride, _, lanes, _ = op.args
        assert isinstance(group, int) and isinstance(lanes, int)
        return group if stride == 1 else group * lanes
    if op.name in ("scatter", "lookup"):
        return op.vec.lanes
    if op.name == "broadcast":
        return 1
    bits = 1 if op.vec.scalar == "bool" else SCALARS[op.vec.scalar].bits
    return max(1.0, op.vec.lanes * bits / plan.target.width)
