"""Explore: a design space predicted, measured as far as a budget goes, ranked and explained.

Turns a Space into a frozen Exploration that prints itself, and is drawn by `picture` and `page`.
The measuring itself is `measure`'s.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random

from ..compiled import CompiledKernel
from ..compiler.cost import Cost, cost
from ..compiler.lower import lower
from ..compiler.plan import RegisterPlan
from ..compiler.records import of_key
from ..dsl.dataflow import Dataflow
from ..dsl.errors import OperandError
from ..kernel import Kernel
from ..peaks import Peaks, peaks
from .keep import WORTH, Keeper
from .measure import BATCH, SECONDS, Measurement, measure, workers
from .memory_operations import memory_operations
from .space import Space
from .verdict import Parts, parts, rank_correlation, verdict

PREDICTED = 400  # dataflows that are lowered and counted, about 30 ms each
MEASURED = 200  # dataflows that are measured at most
FIRST = 8  # of these, so many of the best predicted come before any other
SHOWN = 20  # lines of a ranking
Progress = Callable[[str, int, int], None]  # what is done, how many, of how many


@dataclass(frozen=True)
class Variant:
    """A dataflow of the space: what was predicted, and what was measured if it was.

    cost         the cost model's prediction
    operations   vector memory operations of a call, by YFlows' heuristic
    us           predicted microseconds: the cycles at the measured clock
    """

    flow: Dataflow
    plan: RegisterPlan
    cost: Cost
    operations: float
    us: float
    measurement: Measurement | None = None

    @property
    def cycles(self) -> float:
        """Predicted cycles of a call."""
        return self.cost.cycles

    @property
    def measured_us(self) -> float | None:
        """Measured microseconds of a call, or None."""
        return self.measurement.us if self.measurement else None

    @property
    def time_us(self) -> float:
        """Microseconds: measured where they are, else predicted."""
        return self.us if self.measured_us is None else self.measured_us

    @property
    def why(self) -> str:
        """Why there is no time although it was tried; '' otherwise."""
        return self.measurement.why if self.measurement else ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a call; elements, where there is no reduction."""
        return max(self.plan.nest.macs, 1)

    @cached_property
    def parts(self) -> Parts:
        """Predicted cycles by what takes them."""
        return parts(self.plan.target, self.cost)


@dataclass(frozen=True)
class Exploration:
    """A space, ranked: measured dataflows by their times, then the others by predicted cycles, then
    those that were tried and have no time.

    name         what the layer is called
    default      the dataflow that the kernel has when none is given
    count        legal dataflows in the space; `variants` are a stratified sample of them, or all
    refusals     why candidates are not legal -> how many
    complete     whether there was time to count them all: else there are more
    budget       the seconds that were given
    gmac         multiply-accumulates this core reaches for these types, 1e9 a second; None where
                 there is no product
    recorded     whether the fastest is now what the kernel uses when none is given (records.py)
    """

    name: str
    space: Space
    variants: tuple[Variant, ...]
    default: Dataflow | None
    count: int
    refusals: Mapping[str, int]
    complete: bool
    budget: float
    peaks: Peaks
    gmac: float | None
    recorded: bool = False

    @property
    def measured(self) -> tuple[Variant, ...]:
        """The variants that have a time, fastest first."""
        return tuple(v for v in self.variants if v.measured_us is not None)

    @property
    def best(self) -> Variant | None:
        """The fastest measured variant, or the best predicted one where none was measured."""
        return next(iter(self.variants), None)

    @property
    def verdict(self) -> tuple[str, ...]:
        """Which dataflow wins and why, in sentences."""
        measured = self.measured
        return verdict(measured or self.variants, bool(measured))

    def correlation(self, predicted: Callable[[Variant], float]) -> float | None:
        """Spearman's rank correlation of a prediction with the measured times."""
        measured = self.measured
        return rank_correlation([predicted(v) for v in measured], [v.time_us for v in measured])

    def share(self, v: Variant) -> float | None:
        """Fraction of the measured peak that a measured variant reaches."""
        if self.gmac is None or v.measured_us is None:
            return None
        return v.macs / v.measured_us / 1e3 / self.gmac

    def made(self, v: Variant) -> CompiledKernel:
        """The kernel with that dataflow: its stages, its assembly."""
        return self.space.made(v.flow)

    def png(self, path: str | Path) -> None:
        """Write one figure: predicted against measured, roofline, heat map. Raises OperandError
        without matplotlib (extra `plot`) or where the file cannot be written.
        """
        from .picture import png

        png(self, Path(path))

    def html(self, path: str | Path, progress: Progress | None = None) -> None:
        """Write one page that needs nothing else, neither files nor a network. Compiles the first
        variants again for their assembly. Raises OperandError where the file cannot be written.
        """
        from .page import html

        html(self, Path(path), progress)

    def __str__(self) -> str:
        from .ranking import text

        return text(self, SHOWN)

    def _repr_html_(self) -> str:
        from .ranking import table

        return table(self, SHOWN)


def explore(
    space: Space,
    *,
    budget: float = 60.0,
    executor: Executor | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> Exploration:
    """Predict the dataflows of a space, measure those that a budget of seconds allows, rank them.

    All are predicted, up to PREDICTED; beyond, a stratified sample. The best predicted ones are
    measured first, then by turns the next best and one from each (anchor, lanes, auxiliary), so
    that predicted against measured says something of the whole space. Counting and predicting take
    a third of a budget at most; a budget of 0 measures nothing, and takes the time it takes.
    Ctrl-C keeps what was measured. Each measurement is recorded, as `sf.tune` does, and the fastest
    is the choice from then on, if it is faster than the default and than what was chosen before.
    `name` is what to call the layer, if not as its kernel.

    Raises OperandError for a negative budget, and what `measure` raises.
    """
    if not 0 <= budget < math.inf:
        raise OperandError(
            f"explore: budget={budget!r} is not a number of seconds; 0 (predict only) and more "
            "are. Give such a number."
        )
    start = time.monotonic()
    thinking = start + budget / 3 if budget else math.inf
    tell = progress or (lambda what, done, total: None)
    limits = peaks(space.target, seconds=0.03)
    count, refusals, complete = space.census(budget / 6 if budget else math.inf)
    default = _default(space)
    flows = dict.fromkeys([*((default,) if default else ()), *space.sample(PREDICTED)])
    predicted: list[Variant] = []
    for flow in flows:
        predicted.append(_predicted(space, flow, limits.clock_ghz))
        over = len(predicted) >= FIRST and time.monotonic() > thinking
        tell("predicted", len(predicted), len(predicted) if over else len(flows))
        if over:
            break
    predicted.sort(key=lambda v: v.cycles)
    order = _order(predicted, default)
    found = _measured(space, order, start + budget, executor, tell) if budget else {}
    recorded = _remembered(space, found)
    variants = [replace(v, measurement=found.get(v.flow)) for v in predicted]
    variants.sort(key=lambda v: (_class(v), v.time_us))
    return Exploration(
        name or space.nest.name,
        space,
        tuple(variants),
        default,
        count,
        refusals,
        complete,
        budget,
        limits,
        _gmac(variants, limits),
        recorded,
    )


def predicted(space: Space, most: int) -> tuple[Variant, ...]:
    """The ranking of at most so many dataflows by the cost model alone, at 1 GHz."""
    found = [_predicted(space, flow, 1.0) for flow in space.sample(most)]
    return tuple(sorted(found, key=lambda v: v.cycles))


def _class(v: Variant) -> int:
    """0 measured, 1 not tried, 2 tried in vain."""
    return 0 if v.measured_us is not None else 2 if v.measurement else 1


def _default(space: Space) -> Dataflow | None:
    """The kernel's own choice as a member of the space; None if filters may leave it out."""
    filters = (space.anchors, space.lanes, space.registers, space.width)
    return None if any(filters) or space.auxiliary is not None else space.default


def _predicted(space: Space, flow: Dataflow, ghz: float) -> Variant:
    decided = space.plan(flow)
    program = lower(decided, "candidate")
    found = cost(decided, program)
    operations = memory_operations(decided, program)
    return Variant(flow, decided, found, operations, found.cycles / ghz / 1e3)


def _order(ranked: Sequence[Variant], default: Dataflow | None) -> list[Dataflow]:
    """The order of measuring: the default, the best predicted, then those and others by turns."""
    best = [v.flow for v in ranked]
    piles: dict[tuple[str, str, bool], list[Dataflow]] = defaultdict(list)
    for flow in best:
        piles[flow.anchor, flow.lanes, bool(flow.auxiliary)].append(flow)
    random = Random(0)
    for pile in piles.values():
        random.shuffle(pile)
    spread = [
        pile[i]
        for i in range(max(map(len, piles.values()), default=0))
        for pile in piles.values()
        if i < len(pile)
    ]
    turns = (flow for pair in zip(best[FIRST:], spread, strict=False) for flow in pair[::-1])
    first = [default] if default else []
    return list(dict.fromkeys([*first, *best[:FIRST], *turns, *spread]))[:MEASURED]


def _measured(
    space: Space,
    flows: Sequence[Dataflow],
    end: float,
    executor: Executor | None,
    tell: Progress,
) -> dict[Dataflow, Measurement]:
    """What there is when the time is over; the fastest have been timed a second time, together."""
    found: dict[Dataflow, Measurement] = {}

    def add(some: Sequence[Dataflow], again: bool, seconds: float) -> float:
        """Measure some; the seconds that it took."""
        before = time.monotonic()
        for m in measure(space, some, seconds=seconds, executor=executor):
            if again or m.flow not in found:
                found[m.flow] = m
            tell("measured", len(found), len(flows))
        return time.monotonic() - before

    left, took = end - time.monotonic(), 0.0
    step = BATCH * workers(executor)
    pending = list(flows)
    try:
        # A turn for those that are timed again is left, after the first.
        while pending and left > 2 * took:
            some = min(step, max(1, int(left))) if not found else step
            took = add(pending[:some], False, SECONDS) if left > 0 else 0.0
            pending = pending[some:]
            left = end - time.monotonic()
        best = sorted((m for m in found.values() if m.us), key=lambda m: -m.gain)[:BATCH]
        if len(best) > 2 and left > took / 2:
            add([m.flow for m in best], True, 3 * SECONDS)
    except KeyboardInterrupt:
        tell("stopped", len(found), len(flows))
    return found


def _remembered(space: Space, found: Mapping[Dataflow, Measurement]) -> bool:
    """Whether the fastest is now the recorded choice: it is faster than the default, and no choice
    on record is faster than this one, each beside the default of its own rounds.
    """
    here = [m for m in found.values() if m.us and m.about is None]
    best = max(here, key=lambda m: m.gain, default=None)
    if best is None:
        return False
    request = space.made(None).request
    keeper = Keeper.of(request)
    for m in found.values():
        keeper.keep(m, choice=False)
    before = of_key(keeper.key)
    known = (before.reference or 0.0) / before.us if before is not None and before.us else WORTH
    recorded = best.gain >= known and keeper.keep(best, choice=True)
    if recorded and isinstance(space.kernel, Kernel):
        space.kernel.refresh()
    return recorded


def _gmac(variants: Sequence[Variant], limits: Peaks) -> float | None:
    products = next((v.plan for v in variants if v.plan.dot is not None), None)
    if products is None or products.a is None:
        return None
    return limits.gmac(products.nest.type_of(products.a.operand).scalar)
