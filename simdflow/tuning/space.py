"""Space: the dataflows of a kernel for given operand types, in a stable order.

Turns a bound nest and a target into candidates (lanes x anchors x groups x tiles x unrolling x
auxiliary allocations, after the compiler's own candidates) and asks the planner which are legal.
Nothing is lowered, compiled or measured.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any, Protocol

from ..compiled import CompiledKernel
from ..compiler.candidates import candidates
from ..compiler.choose import choose
from ..compiler.plan import RegisterPlan, plan
from ..compiler.tile import tile_keys
from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import Load, LoopNest
from ..targets import Target
from ..targets import target as find_target
from .candidates import WIDTHS, Axes, Candidate


class Source(Protocol):
    """What has dataflows: a Kernel, or a step of a network."""

    @property
    def nest(self) -> LoopNest:
        """The loop nest."""

    @property
    def dataflow(self) -> Dataflow | None:
        """The dataflow of its own, if it has one."""

    def specialize(
        self, *, dataflow: Dataflow | None = None, target: str | Target | None = None, **given: Any
    ) -> CompiledKernel:
        """The kernel for operand types."""


@dataclass(frozen=True)
class Space:
    """The legal dataflows of a kernel; iterating over it plans one after the other.

    kernel, given  the kernel, and its operand types and constants as `specialize` takes them
    target         the CPU
    anchors, auxiliary, lanes, registers, width   filters: see `where`
    """

    kernel: Source
    given: Mapping[str, Any]
    target: Target
    anchors: tuple[str, ...] = ()
    auxiliary: bool | tuple[tuple[str, int], ...] | None = None
    lanes: tuple[str, ...] = ()
    registers: int = 0
    width: int = 0

    @cached_property
    def nest(self) -> LoopNest:
        """The kernel's nest, bound to the operand types and checked."""
        return self.made(None).nest

    def made(self, flow: Dataflow | None) -> CompiledKernel:
        """The kernel with that dataflow, or with its default; compiled on its first call."""
        return self.kernel.specialize(target=self.target, dataflow=flow, **self.given)

    @cached_property
    def default(self) -> Dataflow:
        """The kernel's own dataflow, else what the cost model chooses; never a tuned one."""
        given: Dataflow | None = self.kernel.dataflow
        return given or choose(self.nest, self.target).flow

    def where(
        self,
        *,
        anchors: str | Collection[str] | None = None,
        auxiliary: bool | Mapping[str, int] | Collection[str] | None = None,
        lanes: str | Collection[str] | None = None,
        registers: int | None = None,
        width: int | None = None,
    ) -> Space:
        """The part of the space that satisfies every filter; those set before are kept.

        anchors    names of operands; "out" is the output
        auxiliary  True: only with auxiliary registers, False: only without; a collection of operand
                   names: those have some; a mapping: those have exactly so many
        lanes      names of axes
        registers  the most vector registers a plan may use
        width      vectors of that many bits in place of the widest

        Raises DataflowError for a name or number that can choose nothing, with those that can.
        """
        changed: dict[str, Any] = {}
        if anchors is not None:
            names = [self._output(a) for a in _names(anchors)]
            changed["anchors"] = self._known("anchors", names, self._axes.anchors)
        if isinstance(auxiliary, bool):
            changed["auxiliary"] = auxiliary
        elif auxiliary is not None:
            counts = (
                auxiliary if isinstance(auxiliary, Mapping) else dict.fromkeys(_names(auxiliary), 0)
            )
            counts = {self._axes.out if a == "out" else a: n for a, n in counts.items()}
            self._known("auxiliary", list(counts), self._axes.operands)
            changed["auxiliary"] = tuple(sorted(counts.items()))
        if lanes is not None:
            changed["lanes"] = self._known("lanes", list(_names(lanes)), self._axes.lanes)
        if registers is not None:
            self._number("registers", registers, range(1, self.target.registers + 1))
            changed["registers"] = registers
        if width is not None:
            self._number("width", width, [w for w in WIDTHS if w <= self.target.width])
            changed["width"] = width
        return replace(self, **changed)

    def __iter__(self) -> Iterator[Dataflow]:
        return (flow for flow, why in self._judged() if not why)

    def refused(self) -> Iterator[tuple[Dataflow, str]]:
        """The candidates that the planner refuses, each with its reason."""
        return ((flow, why) for flow, why in self._judged() if why)

    def refusals(self) -> Mapping[str, int]:
        """Reason, with its numbers left out -> how many candidates it refuses; the most first."""
        return dict(Counter(_kind(why) for _, why in self.refused()).most_common())

    def count(self) -> int:
        """How many legal dataflows there are: plans every candidate, about 0.5 ms each."""
        return sum(1 for _ in self)

    def census(self, seconds: float = math.inf) -> tuple[int, Mapping[str, int], bool]:
        """(legal dataflows, refusals, whether that is all of them): both in one pass, which ends
        when the seconds are over.
        """
        end = time.monotonic() + seconds
        legal, whys = 0, Counter[str]()
        for _, why in self._judged():
            if why:
                whys[_kind(why)] += 1
            else:
                legal += 1
            if time.monotonic() > end:
                return legal, dict(whys.most_common()), False
        return legal, dict(whys.most_common()), True

    def _repr_html_(self) -> str:
        from .ranking import space_table

        return space_table(self)

    def sample(self, n: int, seed: int = 0) -> tuple[Dataflow, ...]:
        """`n` legal dataflows, taken by turns from each (anchor, lanes, with or without auxiliary);
        all of them if there are no more. The same ones for the same seed.

        Only what is drawn is planned.
        """
        strata: dict[tuple[str, str, bool], list[Candidate]] = defaultdict(list)
        for c in dict.fromkeys(self.candidates()):
            strata[c.stratum].append(c)
        random = Random(seed)
        piles = [strata[name] for name in sorted(strata)]
        for pile in piles:
            random.shuffle(pile)
        seen: set[object] = set()
        found: list[Dataflow] = []
        while piles and len(found) < n:
            for pile in piles:
                while pile and len(found) < n:
                    flow, why = self._judge(pile.pop(), seen)
                    if flow is not None and not why:
                        found.append(flow)
                        break
            piles = [pile for pile in piles if pile]
        return tuple(found)

    def candidates(self) -> Iterator[Candidate]:
        """Dataflows that may be legal, within those filters that need no plan."""
        axes = self._axes
        if not self.width:
            for _, flow in candidates(self.nest, self.target):
                c = Candidate(replace(flow, anchor=self._output(flow.anchor)))
                if self._wanted(c):
                    yield c
        for lanes, anchor in itertools.product(axes.lanes, axes.anchors):
            for c in axes.of(lanes, anchor, self.width):
                if self._wanted(c):
                    yield c

    def plan(self, flow: Dataflow) -> RegisterPlan:
        """The plan of a dataflow. Raises DataflowError if there is none."""
        return plan(self._axes.fused(flow), flow, self.target)

    @cached_property
    def _axes(self) -> Axes:
        return Axes(self.nest, self.target)

    def _output(self, name: str) -> str:
        """ "out" for the output's own name."""
        return "out" if name == self.kernel.nest.out.name else name

    def _wanted(self, c: Candidate) -> bool:
        """Whether a candidate can satisfy the filters; its open registers may be any number."""
        has = {**dict.fromkeys(c.fill, -1), **{a: n for a, n in c.flow.auxiliary if n}}
        wanted = self.auxiliary
        if isinstance(wanted, bool):
            fits = bool(has) == wanted
        else:
            fits = all(a in has and (not n or has[a] in (-1, n)) for a, n in wanted or ())
        return (
            fits
            and (not self.anchors or c.flow.anchor in self.anchors)
            and (not self.lanes or c.flow.lanes in self.lanes)
        )

    def _judged(self) -> Iterator[tuple[Dataflow, str]]:
        seen: set[object] = set()
        for c in dict.fromkeys(self.candidates()):
            flow, why = self._judge(c, seen)
            if flow is not None:
                yield flow, why

    def _judge(self, c: Candidate, seen: set[object]) -> tuple[Dataflow | None, str]:
        """(dataflow, why it is refused or ''), or (None, '') if a filter leaves it out or it was
        there before.
        """
        flow, why = c.flow, ""
        try:
            flow = self._filled(c)
            decided = self.plan(flow)
            if self.registers and decided.registers > self.registers:
                return None, ""
        except DataflowError as error:
            why = str(error)
        if flow in seen or not (why or self._wanted(Candidate(flow))):
            return None, ""
        seen.add(flow)
        return flow, why

    def _filled(self, c: Candidate) -> Dataflow:
        """The candidate with the registers that are left given away. Raises DataflowError."""
        if not c.fill:
            return c.flow
        if self._axes.last is None or self._axes.last[0] != c.flow:
            self._axes.last = c.flow, self.plan(c.flow)
        decided = self._axes.last[1]
        most = _needs(decided)
        held = dict(decided.slots)
        for name, n in decided.hoisted:
            held[name] += n
        if decided.in_memory:
            held[self._axes.out] = 1
        left = self.target.budget - decided.registers + sum(held[n] for n in c.fill if n in held)
        counts: dict[str, int] = {}
        for i, name in enumerate(c.fill):
            if name in held:
                others = sum(1 for n in c.fill[i + 1 :] if n in held)
                counts[name] = max(1, min(most[name], left - others))
                left -= counts[name]
        return replace(c.flow, auxiliary=tuple(sorted(counts.items())))

    def _known(self, what: str, names: list[str], known: Collection[str]) -> tuple[str, ...]:
        wrong = [n for n in names if n not in known]
        if wrong or not names:
            raise DataflowError(
                f"{self.nest.name}: {what}={wrong[0] if wrong else ''!r} chooses nothing; "
                f"{', '.join(known)} exist in this space. Use one of them."
            )
        return tuple(names)

    def _number(self, what: str, given: Any, allowed: Collection[int]) -> None:
        if isinstance(given, bool) or given not in allowed:
            shown = (
                f"{allowed[0]} to {allowed[-1]}"
                if isinstance(allowed, range)
                else ", ".join(map(str, allowed))
            )
            raise DataflowError(
                f"{self.nest.name}: {what}={given!r} is not possible on {self.target.name}; "
                f"{shown} is. Use one of these."
            )


def dataflows(kernel: Source, *, target: str | Target | None = None, **given: Any) -> Space:
    """Every legal dataflow of a kernel: `sf.dataflows(conv2d, x=sf.u8[1, 58, 58, 64], w=sf.i8[3, 3,
    64, 64], stride=1)`.

    Lazy, without repetition, in the same order every time. Anchors: output, weights, input;
    auxiliary allocations: none, and what is left to one operand first (YFlows, section 4 of the
    paper's allocation rules). Raises what `specialize` raises for operands that do not fit.
    """
    space = Space(kernel, given, find_target(target))
    _ = space.nest
    return space


def _needs(decided: RegisterPlan) -> dict[str, int]:
    """operand -> the registers with which every vector of a tile is loaded once."""

    def keys(load: Load) -> int:
        return tile_keys(decided.nest, decided.flow, load, decided.lanes, decided.group)

    found = {x.operand: keys(x) for x in (decided.a, decided.b) if x is not None}
    store = decided.nest.store
    return {**found, store.operand: keys(Load(store.operand, store.index))}


def _names(given: str | Collection[str]) -> Collection[str]:
    return [given] if isinstance(given, str) else given


def _kind(why: str) -> str:
    """A reason without its numbers and what is in brackets: equal ones are counted together."""
    what = why.partition(": ")[2].partition(";")[0]
    return re.sub(r"\d+", "N", re.sub(r" ?\([^()]*\)", "", what)).strip()
