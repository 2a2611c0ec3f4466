"""Compile: the whole pipeline on one screen.

LoopNest --bind--> with extents --check--> --choose--> Dataflow --flatten--> --plan--> RegisterPlan
         --lower--> Program --emit--> text --jit--> object code
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from . import cache
from .artifact import Artifact
from .bind import bind
from .check import check
from .choose import Choice, choose
from .emit import emit
from .flatten import flatten
from .lower import lower
from .plan import RegisterPlan, plan
from .program import Program
from .request import Request, cache_key


class Stages:
    """Every stage of one request, each computed when it is first looked at."""

    def __init__(self, request: Request) -> None:
        self.request = request

    @cached_property
    def nest(self) -> LoopNest:
        """Bound and checked."""
        r = self.request
        bound = bind(r.nest, dict(r.types), dict(r.constants))
        check(bound)
        return bound

    @cached_property
    def _chosen(self) -> Choice:
        """The dataflow of lowest predicted cost, lowered already, for a request without one."""
        return choose(self.nest, self.request.target)

    @cached_property
    def flow(self) -> Dataflow:
        """The one that was given, else the chosen one."""
        return self.request.flow or self._chosen.flow

    @cached_property
    def plan(self) -> RegisterPlan:
        """Planned."""
        if self.request.flow is None:
            return self._chosen.plan
        return plan(flatten(self.nest, self.flow), self.flow, self.request.target)

    @cached_property
    def program(self) -> Program:
        """Lowered."""
        if self.request.flow is None:
            return replace(self._chosen.program, name=native_name(self.plan))
        return lower(self.plan, native_name(self.plan))

    @cached_property
    def source(self) -> str:
        """The emitted text."""
        return emit(self.program)


def native_name(decided: RegisterPlan) -> str:
    """A variant's name, made from its data and never parsed: conv2d_u8i8_os_w4x1_6x64__avx512."""
    nest, flow = decided.nest, decided.flow
    inputs = "".join(nest.type_of(o.name).scalar.name for o in nest.operands if o.role == "in")
    anchor = {nest.out.name: "os"}.get(flow.anchor, f"{flow.anchor}s")
    slots = "".join(f"{name}{n}" for name, n in decided.slots)
    tile = "x".join(str(n) for _, n in flow.tile)
    parts = [nest.name, inputs, anchor, slots, tile]
    return "_".join(p for p in parts if p) + f"__{decided.target.name}"


def compile_request(stages: Stages) -> tuple[Artifact, bytes]:
    """(interface, object code), freshly compiled and put into the cache."""
    from .jit import compile_program

    built = compile_program(stages.program, stages.request.target)
    artifact = Artifact.of(stages.plan, stages.program, stages.flow)
    cache.current().store(cache_key(stages.request), built.object, artifact.record())
    return artifact, built.object
