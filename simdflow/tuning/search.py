"""Search: the kernel of a space is tuned within a budget, and each measurement is kept at once.

Turns a Space into a Tuning: the cost model ranks candidates, worker processes measure them, the
neighbours of the best come next, and the winner is measured again before it is recorded as the
choice. Chooses nothing for machines that measured elsewhere but a record of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from time import monotonic

from ..compiler.candidates import candidates
from ..compiler.cost import cost
from ..compiler.lower import lower
from ..compiler.records import place_of, resolved
from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from .keep import WORTH, Keeper
from .measure import BATCH, SECONDS, Measurement, measure, workers
from .neighbours import neighbours
from .space import Space

FINALISTS = 3
UNUSUAL = 0.10  # a second measurement further away from the first than this asks for a third
UNSTEADY = 0.25  # so does a spread as large
RANKING = 0.1  # part of the budget for predicting
SAMPLED = 200  # dataflows that are predicted at the most
NEAR_PREDICTED = 24  # neighbours that are lowered for a prediction


@dataclass(frozen=True)
class Tuning:
    """What tuning a kernel came to; printed, a ranking.

    default, best  the default dataflow, and the one that is now the choice (it may be the same)
    measurements   every dataflow that was measured here, the fastest first, failures last
    recorded       whether the choice is in the records
    interrupted    whether Ctrl-C ended it
    """

    kernel: str
    target: str
    default: Measurement
    best: Measurement
    measurements: tuple[Measurement, ...]
    recorded: bool
    interrupted: bool = False

    @property
    def flow(self) -> Dataflow:
        """The chosen dataflow."""
        return self.best.flow

    def __str__(self) -> str:
        failed = sum(m.us is None for m in self.measurements)
        lines = [
            f"tuning {self.kernel} on {self.target}: {len(self.measurements)} dataflows measured"
            f"{f', {failed} of them failed' if failed else ''}"
            f"{', interrupted' if self.interrupted else ''}"
            f"{'' if self.recorded else '; the choice is not recorded'}",
            f"  default  {self.default}",
            f"  chosen   {self.best}",
        ]
        lines += [f"  {at:7d}  {m}" for at, m in enumerate(self.measurements[:10], 1)]
        return "\n".join(lines)


@dataclass
class Search:
    """A tuning run of one kernel, as far as it is."""

    space: Space
    executor: Executor | None
    say: Callable[[str], None]
    tried: set[Dataflow] = field(default_factory=set)
    found: dict[Dataflow, Measurement] = field(default_factory=dict)
    away: dict[str, list[Measurement]] = field(default_factory=dict)
    recorded: bool = False

    def __post_init__(self) -> None:
        self.request = self.space.made(None).request
        self.default = self.space.default
        self.keeper = Keeper.of(self.request)

    def run(self, end: float) -> Tuning:
        """Search until `end` (of time.monotonic) or Ctrl-C."""
        interrupted = False
        try:
            self._search(end)
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            self._tell()
            self._choose(self.best())
        ranked = sorted(self.found.values(), key=lambda m: (m.us is None, -m.gain))
        failed = Measurement(self.default, None, None, 0, "nothing was measured on this machine")
        default = self.found.get(self.default, failed)
        nest = self.space.nest
        chosen = self.best() or default
        return Tuning(
            nest.name, self.space.target.name, default, chosen, tuple(ranked), self.recorded,
            interrupted,
        )  # fmt: skip

    def _search(self, end: float) -> None:
        began = monotonic()
        queue = self._ideas(RANKING * (end - began))
        each = 1.0  # seconds a dataflow takes, at first a guess
        while True:
            left = end - monotonic() - (FINALISTS + 2) * each
            batch = self._batch(
                queue, max(1, min(BATCH * workers(self.executor), int(left / each)))
            )
            if not batch or (self.tried and left <= 0):
                break
            started, leader = monotonic(), self.best()
            self._measure(batch, SECONDS)
            each = (monotonic() - started) / len(batch)
            if (best := self.best()) is not None and best != leader and not _unsteady(best):
                self._choose(best)  # so that a run that is killed leaves a choice
        self._confirm()

    def _ideas(self, seconds: float) -> Iterator[Dataflow]:
        """Candidates to begin with: what was chosen before, then by predicted time."""
        before = resolved(self.request)[1]
        if before is not None:
            yield before.flow
        space = self.space
        own = [flow for _, flow in sorted(candidates(space.nest, space.target), key=_rough)]
        yield from _predicted(space, own[: 2 * FINALISTS])
        end = monotonic() + seconds
        yield from _predicted(space, space.sample(max(8, min(SAMPLED, int(4 * seconds)))), end)

    def _batch(self, queue: Iterator[Dataflow], size: int) -> list[Dataflow]:
        """What to measure next: neighbours of the best so far and candidates, half of each."""
        batch: dict[Dataflow, None] = {}
        best = self.best()
        if best is not None:
            near = [f for f in neighbours(self.space, best.flow) if f not in self.tried]
            for flow in _predicted(self.space, near[:NEAR_PREDICTED]):
                if len(batch) >= (size + 1) // 2:
                    break
                batch[flow] = None
        for flow in queue:
            if flow not in self.tried and flow != self.default:
                batch[flow] = None
            if len(batch) >= size:
                break
        return list(batch) or ([] if self.tried else [self.default])

    def _measure(self, flows: list[Dataflow], seconds: float) -> list[Measurement]:
        """Measure, keep and count; those of this machine."""
        self.tried.update(flows)
        made = []
        for m in measure(
            self.space, flows, seconds=seconds, executor=self.executor, default=self.default
        ):
            self.keeper.keep(m, choice=False)
            if m.about is not None:
                self.away.setdefault(place_of(m.about), []).append(m)
                continue
            made.append(m)
            self.found[m.flow] = m
        self._tell()
        return made

    def _tell(self) -> None:
        best = self.best()
        shown = f"{best.us:.2f} us, x{best.gain:.2f}" if best and best.us else "nothing yet"
        self.say(f"{self.space.nest.name}: {len(self.found)} measured, best {shown}")

    def _confirm(self) -> None:
        """Measure the best again, against the default in a fresh worker; what is unusual, once
        more; then record the choice, for other machines their own.
        """
        ranked = sorted((m for m in self.found.values() if m.us), key=lambda m: -m.gain)
        finalists = [m for m in ranked if m.flow != self.default][:FINALISTS]
        if finalists:
            again = self._measure([m.flow for m in finalists], 3 * SECONDS)
            first = {m.flow: m.gain for m in finalists}
            odd = [
                m.flow
                for m in again
                if m.flow in first and (_unsteady(m) or _unlike(m.gain, first[m.flow]))
            ]
            if odd:
                self._measure(odd, 6 * SECONDS)
            final = [self.found[m.flow] for m in finalists if self.found[m.flow].us]
            best = max(final, key=lambda m: m.gain, default=None)
            self.found = {
                f: m for f, m in self.found.items()
                if best is None or m.gain <= best.gain or m in final or f == self.default
            }  # fmt: skip
        self._choose(self.best())
        for measured in self.away.values():
            timed = [m for m in measured if m.us]
            if timed:
                self.keeper.keep(max(timed, key=lambda m: m.gain), choice=True)

    def best(self) -> Measurement | None:
        """The fastest beside the default of its own rounds; the default where none is worth it."""
        timed = [m for m in self.found.values() if m.us]
        best = max(timed, key=lambda m: m.gain, default=None)
        if best is not None and best.gain < WORTH:
            return self.found.get(self.default, best)
        return best

    def _choose(self, m: Measurement | None) -> None:
        if m is not None:
            self.recorded = self.keeper.keep(m, choice=True)


def _rough(candidate: tuple[float, Dataflow]) -> float:
    return candidate[0]


def _unsteady(m: Measurement) -> bool:
    return m.spread is not None and m.spread > UNSTEADY


def _unlike(a: float, b: float) -> bool:
    return abs(a - b) > UNUSUAL * b


def _predicted(
    space: Space, flows: Sequence[Dataflow], end: float | None = None
) -> Iterator[Dataflow]:
    """Dataflows by the cost model's time, the least first; those there is no time for come last."""
    cycles: dict[Dataflow, float] = {}
    for flow in flows:
        if end is not None and monotonic() > end:
            break
        try:
            decided = space.plan(flow)
        except DataflowError:
            continue
        cycles[flow] = cost(decided, lower(decided, "candidate")).cycles
    yield from sorted(cycles, key=lambda f: cycles[f])
    yield from (f for f in flows if f not in cycles)


def search(
    space: Space, budget: float, executor: Executor | None, say: Callable[[str], None]
) -> Tuning:
    """Tune the kernel of a space for about `budget` seconds."""
    return Search(space, executor, say).run(monotonic() + budget)
