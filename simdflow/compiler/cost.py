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
from ..dsl.types import SCALARS
from ..targets import Target
from .plan import RegisterPlan
from .program import Address, Fetch, Loop, Op, Program, Statement
from .turn import NEAR, PIECE

LATENCY = 4.0  # of a dot product or a fused multiply-add
MISPREDICT = 14.0  # leaving a loop
# A window read once per pass, its pixels 2 or 4 KB apart, touches many pages and few sets of L1: 6
# cycles a page on one Zen 5 core (depthwise 7x7x1024 f32: 24 us with 16 channels in a tile, 12 us
# with 64).
PAGE, PAGES, PAGE_CYCLES, RETURN_CYCLES = 4096, 8, 6.0, 1.5
# 13 rows 4 KB apart are more than the 12 ways of their set of L1: a 1x1 layer of 7x7x1024 f32,
# alone on the core, took 430 us with tiles of 13 rows and 421 us with tiles of 10.
LINE, CROWDED_CYCLES = 64, 0.1
EXPENSIVE = {
    "exp": 14,
    "log": 20,
    "tanh": 22,
    "erf": 25,
    "sigmoid": 20,
    "div": 5,
    "sqrt": 9,
    "rsqrt": 14,
}
EXPENSIVE |= {"mod": 40, "floordiv": 40, "hadd": 10, "hmax": 10, "hmin": 10}


Counts = dict[str, float]  # instructions by kind


@dataclass(frozen=True)
class Cost:
    """Predicted cycles, and what they are made of.

    Vector instructions, loads, stores, bytes beyond L1.
    """

    cycles: float
    issue: float
    traffic: float
    arithmetic: float
    loads: float
    stores: float
    far_bytes: float

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
    far, traffic = _traffic(program, plan.target)
    # Loads from L2 overlap with arithmetic but not wholly.
    cycles = max(issue, traffic) + 0.3 * min(issue, traffic)
    return Cost(
        cycles, issue, traffic, counts["arithmetic"], counts["loads"], counts["stores"], far
    )


def _pieces(op: Op, target: Target) -> float:
    """Registers one instruction works on: wide vectors are split, 8-bit ones count as they are."""
    bits = 8 if op.vec.scalar == "bool" else SCALARS[op.vec.scalar].bits
    return max(1.0, op.vec.lanes * bits / target.width)


def _number(op: Op, place: int) -> int:
    """An argument that is an immediate."""
    value = op.args[place]
    assert isinstance(value, int), f"{op.name}: argument {place} is {value}, not an integer"
    return value


def _uops(op: Op, plan: RegisterPlan) -> dict[str, float]:
    """Instructions by the port that takes them."""
    target = plan.target
    n = _pieces(op, target)
    if op.name == "load":
        return {"load": n}
    if op.name == "broadcast":
        group_extra = 3.0 * _number(op, 2) if len(op.args) == 3 else 0.0
        return {"broadcast": 1.0 + group_extra}
    if op.name == "collect":
        return {"broadcast": 2.0, "other": 1.0}  # put together outside the vector registers
    if op.name == "pieces":
        return {"load": 1.0}  # of scales and starts, which LLVM keeps over the pixels
    if op.name == "gather":
        group, stride, lanes = _number(op, 1), _number(op, 2), _number(op, 4)
        if stride == 1:
            return {"load": float(group), "shuffle": group + 1.0}
        if group == 1 and 0 < abs(stride) <= NEAR:
            return {"load": n * abs(stride), "shuffle": n * abs(stride)}
        return {"broadcast": 1.0 * lanes * group, "other": 1.0 * lanes * group + 1}
    if op.name == "rows":
        count = float(_number(op, 2))
        whole = _number(op, 3) * SCALARS[op.vec.scalar].bits == PIECE
        return {"load": count if whole else 2.0 * count, "shuffle": count - whole}
    if op.name == "interleave":
        return {"shuffle": n * (len(op.args) - 1)}
    if op.name in ("store", "store_bits"):
        return {"store": n}
    if op.name == "scatter":
        return {"store": 2.0 * op.vec.lanes}
    if op.name == "dot" and plan.dot is not None:
        return {"dot": plan.dot.uops * n}
    if op.name == "dotbits" and plan.dot is not None:
        return {"other": 2.0 * plan.dot.uops}
    if op.name in ("const", "copy", "unweave", "join"):
        return {}  # the last two become part of the permutation that ends a narrowing
    if op.name == "narrow":
        return {"shuffle": float(len(op.args))}
    if op.name == "narrow_add":
        return {"shuffle": len(op.args) - 1.0, "dot": 0.5 * (len(op.args) - 1)}
    if op.name == "lookup":
        return {"broadcast": 3.0 * op.vec.lanes}
    if op.name == "mul":
        return {"dot": n}
    if op.name in ("zip", "convert", "round", "round_bounded", "round_saturate", "saturate"):
        return {"shuffle": n}
    return {"other": n * EXPENSIVE.get(op.name, 1)}


def _straight(
    ops: Sequence[Op], plan: RegisterPlan, times: float, counts: Counts, chained: bool
) -> float:
    """Cycles of a straight-line run."""
    ports = _ports(ops, plan)
    counts["arithmetic"] += times * _arithmetic(ports)
    counts["loads"] += times * (ports["load"] + ports["broadcast"])
    counts["stores"] += times * ports["store"]
    chains = Counter(
        op.dst
        for op in ops
        if op.name in ("dot", "dotbits", "max_into", "min_into")
        or (op.dst and op.dst in op.registers)
    )
    chain = max(chains.values(), default=0) * LATENCY if chained else 0.0
    busiest = _busiest(ports, plan.target)
    # A tile with its reduction and its epilogue in one run: the longer the run, the less the next
    # tile's products hide the epilogue.
    end = max((i for i, op in enumerate(ops) if op.name == "dot"), default=-1) + 1
    if end:
        phases = sum(_busiest(_ports(part, plan), plan.target) for part in (ops[:end], ops[end:]))
        busiest += late(_arithmetic(ports)) * (phases - busiest)
    return max(busiest, chain) + (_paging if plan.whole_window else _crowding)(ops, plan)


def late(arithmetic: float) -> float:
    """Which part of a straight-line run of so many instructions the CPU cannot overlap with the
    next: 1x1 layers of 16 and 24 channels in tiles of 8 to 24 accumulators, on one Zen 5 core.
    """
    return min(1.0, max(0.0, (arithmetic - 100) / 150))


def _ports(ops: Sequence[Op], plan: RegisterPlan) -> Counts:
    ports: Counts = defaultdict(float)
    for op in ops:
        for kind, n in _uops(op, plan).items():
            ports[kind] += n
    return ports


def _arithmetic(ports: Counts) -> float:
    return ports["dot"] + ports["shuffle"] + ports["other"]


def _busiest(ports: Counts, target: Target) -> float:
    """Cycles of the port that is busy the longest."""
    return max(
        *(ports[kind] / target.rate(kind) for kind in ("dot", "store", "shuffle")),
        ports["load"] / target.rate("load") + ports["broadcast"] / target.rate("broadcast"),
        _arithmetic(ports) / target.rate("other"),
    )


def _crowding(ops: Sequence[Op], plan: RegisterPlan) -> float:
    """Cycles for rows of a tile that lie a multiple of 4 KB apart: more of them than a set of L1
    has ways push each other out.
    """
    found = (_dense_bytes(op, plan, LINE) for op in ops)
    lines = Counter(place for place in found if place is not None)
    caches = plan.target.core.caches
    number = caches.l1 // caches.ways // LINE
    sets = Counter((name, line % number) for name, line in lines)
    # One way is the other operands'.
    return CROWDED_CYCLES * sum(
        n for (name, line), n in lines.items() if sets[name, line % number] >= caches.ways
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


def _paging(ops: Sequence[Op], plan: RegisterPlan) -> float:
    """Cycles for the pages one pass over the body touches, and for coming back to one."""
    found = [_dense_bytes(op, plan, PAGE) for op in ops if op.name != "broadcast"]
    visited = [place for place in found if place is not None]
    pages = len(set(visited))
    returns = sum(a != b for a, b in itertools.pairwise(visited)) + 1 - pages
    return PAGE_CYCLES * pages + RETURN_CYCLES * returns if pages > PAGES else 0.0


def _issue(body: Sequence[Statement], plan: RegisterPlan, times: float, counts: Counts) -> float:
    total = 0.0
    innermost = not any(isinstance(s, Loop) for s in body)
    for straight, run in itertools.groupby(body, key=lambda s: isinstance(s, Op)):
        if straight:
            total += _straight(
                [s for s in run if isinstance(s, Op)], plan, times, counts, innermost
            )
            continue
        for s in run:
            if isinstance(s, Fetch):
                total += 1.0
            elif isinstance(s, Loop):
                trips = _trips(s, plan)
                inner = not any(isinstance(x, Loop) for x in s.body)
                leaving = MISPREDICT * (0.3 if trips <= 24 else 1.0) if inner else 1.0
                total += (
                    trips * (_issue(s.body, plan, times * trips, counts) + (0.5 if inner else 2.0))
                    + leaving
                )
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


@dataclass(frozen=True)
class _Access:
    memory: str
    variables: frozenset[str]
    bytes: float
    loops: tuple[tuple[str, float], ...]


def _traffic(program: Program, target: Target) -> tuple[float, float]:
    """(bytes that come from beyond L1, cycles they take)."""
    accesses: dict[tuple, _Access] = {}
    _collect(program.body, program, (), accesses)
    sizes = {m.name: m.size * max(m.scalar.bits, 8) / 8 for m in program.memories}
    far = cycles = 0.0
    for a in accesses.values():
        names = [v for v, _ in a.loops]
        reuse = [i for i, v in enumerate(names) if v not in a.variables]
        depth = reuse[-1] if reuse else -1
        prefix = names[: depth + 1]
        span = sum(
            _footprint(b, tuple(prefix), sizes)
            for b in accesses.values()
            if names[:depth] == [v for v, _ in b.loops][:depth]
        )
        moved = a.bytes
        for v, n in a.loops:
            if v in a.variables or depth >= 0:
                moved *= n
        if depth < 0:
            moved = min(moved, sizes[a.memory]) if a.variables else a.bytes
            span = sizes[a.memory]
        core = target.core
        if span <= core.caches.l1:
            continue
        far += moved
        if span <= core.caches.l2:
            cycles += moved / core.l2_bytes
        else:
            cycles += moved / (core.l3_bytes if span <= core.caches.l3 else core.memory_bytes)
    return far, cycles


def _footprint(a: _Access, outside: tuple[str, ...], sizes: dict[str, float]) -> float:
    """Bytes an access touches while the loops of `outside` stand still."""
    touched = a.bytes
    for v, n in a.loops:
        if v not in outside and v in a.variables:
            touched *= n
    return min(touched, sizes[a.memory])


def _collect(
    body: Sequence[Statement],
    program: Program,
    loops: tuple[tuple[str, float], ...],
    accesses: dict[tuple, _Access],
) -> None:
    for s in body:
        if isinstance(s, Loop):
            trips = 4.0
            if isinstance(s.start, int) and isinstance(s.stop, int):
                trips = max(0, -(-(s.stop - s.start) // s.step))
            _collect(s.body, program, (*loops, (s.var, float(trips))), accesses)
        elif isinstance(s, Op):
            for arg in s.args:
                if isinstance(arg, Address):
                    item = max(program.memory(arg.operand).scalar.bits // 8, 1)
                    wide = s.vec.lanes if s.name != "broadcast" else _number(s, 1)
                    key = (arg.operand, arg.offset.terms, loops)
                    old = accesses.get(key)
                    add = float(wide * item) + (old.bytes if old else 0.0)
                    accesses[key] = _Access(arg.operand, frozenset(arg.offset.axes), add, loops)
