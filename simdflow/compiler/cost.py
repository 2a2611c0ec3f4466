"""Cost: predicted cycles of a Program, from what it issues and what it moves.

Instructions are counted by kind and multiplied by the trips of their loops; each straight-line run
takes as long as its busiest port, or its longest chain of accumulations. A load is charged to the
cache that holds what is touched until it comes round again. Predicts on which side of another
dataflow this one lies, not absolute times.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..dsl.nest import integer
from .plan import RegisterPlan
from .ports import arithmetic, busiest, together
from .program import Address, Fetch, Loop, Op, Program, Statement
from .traffic import traffic
from .values import remaining, written_out

OVERLAP = 0.05  # of traffic that the arithmetic does not hide, or the other way round
# A remainder is code of its own, which is cold when it comes: depthwise 14x14x512 f32 takes 23 us
# in tiles of 7 + 7 pixels, 27 in 5 + 5 + 4 (one Zen 4 core).
UNEVEN = 1.03
LATENCY = 4.0  # of a dot product or a fused multiply-add
MISPREDICT = 14.0  # leaving a loop
FORESEEN = 0.3  # of it, where the trips are few enough to be predicted
# Depthwise 7x7x1024 f32 in tiles of 7 pixels by 48 channels takes 1.3 cycles a product, of 4 by 32
# 2.3, and 14x14x512 one vector of channels after the other 1.8, all together 1.2 (one Zen 4 core).
PAGE, PAGES, VISIT, THRASHED = 4096, 8, 3.5, 100.0
# 13 rows 4 KB apart are more than the 12 ways of their set of L1: a 1x1 layer of 7x7x1024 f32,
# alone on the core, took 430 us with tiles of 13 rows and 421 us with tiles of 10.
LINE, CROWDED_CYCLES = 64, 0.5
Counts = dict[str, float]  # instructions by kind


@dataclass(frozen=True)
class Cost:
    """Predicted cycles, and what they are made of.

    Vector instructions, loads, stores, bytes beyond L1; `ports` has the instructions by the port
    that takes them (ports.py).
    """

    cycles: float
    issue: float
    traffic: float
    arithmetic: float
    loads: float
    stores: float
    far_bytes: float
    ports: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.cycles:.0f} cycles: issue {self.issue:.0f}, cache traffic {self.traffic:.0f} "
            f"({self.far_bytes:.0f} bytes beyond L1); {self.arithmetic:.0f} arithmetic "
            f"instructions, {self.loads:.0f} loads, {self.stores:.0f} stores"
        )


def cost(plan: RegisterPlan, program: Program) -> Cost:
    """The predicted cost of one call."""
    counts: Counts = defaultdict(float)
    issue = _issue(program.body, plan, 1.0, counts)
    far, moving = traffic(program, plan.target)
    cycles = max(issue, moving) + OVERLAP * min(issue, moving)
    extents, grid = plan.nest.extents, {a.name for a in plan.nest.grid}
    uneven = sum(x.axis in grid and extents[x.axis] % x.step > 0 for x in plan.levels)
    cycles *= UNEVEN**uneven
    loads = counts["load"] + counts["broadcast"]
    ports = tuple(sorted(counts.items()))
    return Cost(cycles, issue, moving, arithmetic(counts), loads, counts["store"], far, ports)


def _straight(
    ops: Sequence[Op], plan: RegisterPlan, times: float, counts: Counts, chained: bool, var: str
) -> float:
    """Cycles of a straight-line run, in each pass of a loop over `var`."""
    parts = remaining(ops, plan, var)
    ports = together(parts)
    for port, n in ports.items():
        counts[port] += times * n
    chains = Counter(
        op.dst
        for op in ops
        if op.name in ("dot", "dotbits", "max_into", "min_into")
        or (op.dst and op.dst in op.registers)
    )
    chain = max(chains.values(), default=0) * LATENCY if chained else 0.0
    cycles = busiest(ports, plan.target)
    # A tile with its reduction and its epilogue in one run: the longer the run, the less the next
    # tile's products hide the epilogue.
    end = max((i for i, op in enumerate(ops) if op.name == "dot"), default=-1) + 1
    if end:
        phases = sum(busiest(together(part), plan.target) for part in (parts[:end], parts[end:]))
        cycles += late(arithmetic(ports)) * (phases - cycles)
    return max(cycles, chain) + (_waiting if plan.whole_window else _crowding)(ops, plan)


def late(instructions: float) -> float:
    """Which part of a straight-line run of so many instructions the CPU cannot overlap with the
    next: 1x1 layers of 16 and 24 channels in tiles of 8 to 24 accumulators, on one Zen 5 core.
    """
    return min(1.0, max(0.0, (instructions - 100) / 150))


def _crowding(ops: Sequence[Op], plan: RegisterPlan) -> float:
    """Cycles for rows of a tile that lie a multiple of 4 KB apart: more of them than a set of L1
    has ways push each other out.
    """
    found = (_dense_bytes(op, plan, LINE) for op in ops)
    lines = Counter(place for place in found if place is not None)
    caches = plan.target.core.caches
    number = caches.l1 // caches.ways // LINE
    sets = Counter((name, line % number) for name, line in lines)
    # A quarter of the ways is the other operands'.
    most = caches.ways * 3 // 4
    return CROWDED_CYCLES * sum(
        n for (name, line), n in lines.items() if sets[name, line % number] > most
    )


def _dense_bytes(op: Op, plan: RegisterPlan, unit: int) -> tuple[str, int] | None:
    """(operand, which `unit` of its bytes) a load of a dense operand starts in, the loops' part
    left out; None for other instructions.
    """
    where = op.args[0] if op.name in ("load", "broadcast", "gather") else None
    dense = {o.name for o in plan.nest.operands if plan.packing(o.name) is None}
    if not isinstance(where, Address) or where.operand not in dense:
        return None
    item = max(plan.nest.type_of(where.operand).scalar.bits // 8, 1)
    return where.operand, integer(where.offset.const) * item // unit


def _waiting(ops: Sequence[Op], plan: RegisterPlan) -> float:
    """Cycles in which a window waits for pixels that lie far apart: for each page that is not among
    the last it went to, and where so many lines are in one set of L1 that what is fetched ahead is
    gone before it is used.
    """
    found = (_dense_bytes(op, plan, LINE) for op in ops if op.name != "broadcast")
    lines = list(dict.fromkeys(place for place in found if place is not None))
    pages = [(name, line * LINE // PAGE) for name, line in lines]
    if not pages:
        return 0.0
    caches = plan.target.core.caches
    way = caches.l1 // caches.ways
    sets = Counter((name, line % (way // LINE)) for name, line in lines)
    known, visits = list[object](), 0
    for page in pages:
        visits += page not in known
        known = [page, *(p for p in known if p != page)][:PAGES]
    thrashed = max(sets.values()) > caches.ways and _whole_ways(plan, way)
    return VISIT * visits + (THRASHED if thrashed else 0.0)


def _whole_ways(plan: RegisterPlan, way: int) -> bool:
    """Whether neighbouring pixels lie whole ways of L1 apart, so that all are in the same sets."""
    steps = [
        integer(c) * plan.nest.type_of(load.operand).scalar.bits // 8
        for load in (plan.a, plan.b)
        if load is not None and plan.packing(load.operand) is None
        for term, c in load.index[-1].terms
        if isinstance(term, str) and term != plan.flow.lanes
    ]
    return any(n and n % way == 0 for n in steps) and min(n for n in steps if n > LINE) >= way


def _issue(
    body: Sequence[Statement], plan: RegisterPlan, times: float, counts: Counts, var: str = ""
) -> float:
    total = 0.0
    body = written_out(body)
    innermost = not any(isinstance(s, Loop) for s in body)
    for straight, run in itertools.groupby(body, key=lambda s: isinstance(s, Op)):
        if straight:
            total += _straight(
                [s for s in run if isinstance(s, Op)],
                plan,
                times,
                counts,
                innermost,
                var if innermost else "",
            )
            continue
        for s in run:
            if isinstance(s, Fetch):
                total += 1.0
            elif isinstance(s, Loop):
                trips = _trips(s, plan)
                inner = not any(isinstance(x, Loop) for x in written_out(s.body))
                leaving = MISPREDICT * (FORESEEN if trips <= 24 else 1.0) if inner else 1.0
                once = _issue(s.body, plan, times * trips, counts, s.var)
                total += trips * (once + (0.5 if inner else 2.0)) + leaving
    return total


def _trips(s: Loop, plan: RegisterPlan) -> float:
    if isinstance(s.start, int) and isinstance(s.stop, int):
        return max(0, -(-(s.stop - s.start) // s.step))
    csr = [
        plan.nest.type_of(o.name)
        for o in plan.nest.operands
        if plan.nest.type_of(o.name).storage == "csr"
    ]
    return csr[0].nonzeros / max(csr[0].shape[0], 1) if csr else 1.0
