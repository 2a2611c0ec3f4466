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

from .plan import RegisterPlan
from .ports import DOTS, arithmetic, busiest, loading, together
from .program import Fetch, Loop, Op, Program, Statement
from .traffic import traffic
from .values import remaining, written_out

# Of stores to lines beyond L2, which wait in line: 3x3 of 224x224x3-64 u8 takes 462 us with whole
# lines of 64 channels, and 494 in two passes of half lines (one Zen 4 core).
STORED = 0.5
OVERLAP = 0.05  # of traffic that the arithmetic does not hide, or the other way round
# A remainder is code of its own, which is cold when it comes: depthwise 14x14x512 f32 takes 23 us
# in tiles of 7 + 7 pixels, 27 in 5 + 5 + 4 (one Zen 4 core).
UNEVEN = 1.03
# An order of its own, down the columns of some lanes, reads pieces of pixels that no prefetcher
# sees coming: depthwise 28x28x256 f32, stride 2, takes 19.2 us so, 16.1 row by row (AVX2, Zen 4).
APART = 1.05
LATENCY = 4.0  # of a dot product or a fused multiply-add
MISPREDICT = 14.0  # leaving a loop
FORESEEN = 0.3  # of it, where the trips are few enough to be predicted
# Cycles of a pass of a loop besides its body: of an innermost one, of one whose body is a whole
# window with its epilogue, and of one around others.
PASS, WINDOW, PASSES = 0.5, 2.5, 2.0
# Loads that the arithmetic hides are not for nothing: 3x3 of 56x56x64-64 u8 takes 498 us with 10
# loads for 16 products and 539 us with 17 (one Zen 4 core).
BESIDE = 0.1
# What the next tile does not hide of the sums over lanes that end a tile: of 8 sums 0.40, of 16
# 0.47 (3x3 of 56x56x64-8 u8 with the channels as lanes, one Zen 4 core).
REDUCED = 0.45
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
    far, moving, stores = traffic(program, plan.target)
    cycles = max(issue, moving) + OVERLAP * min(issue, moving) + STORED * min(issue, stores)
    extents, grid = plan.nest.extents, {a.name for a in plan.nest.grid}
    uneven = sum(x.axis in grid and extents[x.axis] % x.step > 0 for x in plan.levels)
    cycles *= UNEVEN**uneven * (APART if plan.flow.order else 1.0)
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
        if op.name in (*DOTS, "dotbits", "max_into", "min_into")
        or (op.dst and op.dst in op.registers)
    )
    chain = max(chains.values(), default=0) * LATENCY if chained else 0.0
    cycles = busiest(ports, plan.target) + BESIDE * loading(ports, plan.target)
    # A tile with its reduction and its epilogue in one run: the longer the run, the less the next
    # tile's products hide the epilogue.
    end = max((i for i, op in enumerate(ops) if op.name in DOTS), default=-1) + 1
    if end:
        phases = sum(busiest(together(part), plan.target) for part in (parts[:end], parts[end:]))
        apart = REDUCED if plan.lanes_reduced else late(arithmetic(ports))
        cycles += apart * (phases - cycles)
    return max(cycles, chain)


def late(instructions: float) -> float:
    """Which part of a straight-line run of so many instructions the CPU cannot overlap with the
    next: 1x1 layers of 16 and 24 channels in tiles of 8 to 24 accumulators on a Zen 5 core; 3x3 of
    96x96x3-8 u8 in tiles of 6 to 14, 100 to 230 instructions, on a Zen 4 core (4.1 to 3.8 us).
    """
    return min(1.0, max(0.0, (instructions - 130) / 150))


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
                pass_ = (WINDOW if plan.whole_window else PASS) if inner else PASSES
                total += trips * (once + pass_) + leaving
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
