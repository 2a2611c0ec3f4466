"""Choose: the default dataflow of a nest: the candidate of lowest predicted cost.

Candidates are ranked by arithmetic; the first few are planned, lowered and counted. Nothing is
measured, so the choice is the same on a busy machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..dsl.dataflow import Dataflow
from ..dsl.errors import DataflowError
from ..dsl.nest import LoopNest
from ..targets import Target
from .candidates import candidates
from .cost import cost
from .flatten import flatten
from .lower import lower
from .plan import RegisterPlan, plan
from .program import Program

# Candidates that are lowered and counted; the rest are ranked by arithmetic alone. Six find what
# ten find in every layer of ResNet-8; four lose 2 % of that network and compile it 10 % faster.
# Windows of f32 in one body (depthwise) differ in what arithmetic does not see.
LOWERED, WINDOWS = 6, 8


@dataclass(frozen=True)
class Choice:
    """A dataflow with its plan, and its program under a name that is not its own yet: whoever
    compiles it needs not lower it again.
    """

    cycles: float
    flow: Dataflow
    plan: RegisterPlan
    program: Program


def choose(nest: LoopNest, target: Target) -> Choice:
    """The choice of lowest predicted cost among a few tens of candidates."""
    best: Choice | None = None
    ranked = sorted(candidates(nest, target), key=lambda c: c[0])
    counted = 0
    for _, flow in ranked:
        try:
            decided = plan(flatten(nest, flow), flow, target)
        except DataflowError:
            continue
        program = lower(decided, "candidate")
        predicted = cost(decided, program).cycles
        if best is None or predicted < best.cycles:
            best = Choice(predicted, flow, decided, program)
        counted += 1
        if counted == (WINDOWS if decided.whole_window and decided.group == 1 else LOWERED):
            break
    if best is None:
        decided = plan(flatten(nest, Dataflow()), Dataflow(), target)
        best = Choice(math.inf, Dataflow(), decided, lower(decided, "candidate"))
    return best
