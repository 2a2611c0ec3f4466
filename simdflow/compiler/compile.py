"""Compile: the whole pipeline on one screen.

LoopNest --bind--> with extents --check--> --choose--> Dataflow --flatten--> --plan--> RegisterPlan
         --lower--> Program --emit--> text --jit--> object code
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..dsl.types import OperandType
from ..targets import Target
from ..targets.detect import features_string
from . import cache
from .artifact import Artifact
from .bind import bind
from .check import check
from .choose import choose
from .emit import emit
from .flatten import flatten
from .lower import lower
from .plan import RegisterPlan, plan
from .program import Program


@dataclass(frozen=True)
class Request:
    """What is to be compiled: a parsed nest, operand types, constants, a dataflow (None: choose one), a target."""

    nest: LoopNest
    types: tuple[tuple[str, OperandType], ...]
    constants: tuple[tuple[str, int | float], ...]
    flow: Dataflow | None
    target: Target


class Stages:
    """Every stage of one request, each computed when it is first looked at."""

    def __init__(self, request: Request) -> None:
        self.request = request

    @cached_property
    def nest(self) -> LoopNest:
        r = self.request
        bound = bind(r.nest, dict(r.types), dict(r.constants))
        check(bound)
        return bound

    @cached_property
    def flow(self) -> Dataflow:
        return self.request.flow or choose(self.nest, self.request.target)

    @cached_property
    def plan(self) -> RegisterPlan:
        return plan(flatten(self.nest, self.flow), self.flow, self.request.target)

    @cached_property
    def program(self) -> Program:
        return lower(self.plan, native_name(self.plan))

    @cached_property
    def source(self) -> str:
        return emit(self.program)


def native_name(decided: RegisterPlan) -> str:
    """The name of a variant, made from its data and never parsed: conv2d_u8i8_os_w4x1_6x64__avx512."""
    nest, flow = decided.nest, decided.flow
    inputs = "".join(nest.type_of(o.name).scalar.name for o in nest.operands if o.role == "in")
    anchor = {nest.out.name: "os"}.get(flow.anchor, f"{flow.anchor}s")
    slots = "".join(f"{name}{n}" for name, n in decided.slots)
    tile = "x".join(str(n) for _, n in flow.tile)
    parts = [nest.name, inputs, anchor, slots, tile]
    return "_".join(p for p in parts if p) + f"__{decided.target.name}"


def compile_request(stages: Stages) -> tuple[Artifact, bytes]:
    """(interface, object code), from the cache when it has them."""
    store, name = cache.current(), cache.key(_key(stages.request))
    entry = store.load(name)
    if entry is not None:
        try:
            return Artifact.from_record(entry.record), entry.object
        except (KeyError, TypeError, ValueError):
            pass  # written by something else under our key: compile again
    from .jit import compile_program

    built = compile_program(stages.program, stages.request.target)
    artifact = Artifact.of(stages.plan, stages.program, stages.flow)
    store.store(name, built.object, artifact.record())
    return artifact, built.object


def _key(r: Request) -> Mapping[str, str]:
    nest = replace(r.nest, origin=type(r.nest.origin)())
    return {
        "nest": repr(nest),
        "types": repr(r.types),
        "constants": repr(r.constants),
        "flow": repr(r.flow),
        "target": f"{r.target.name};{features_string(r.target)}",
    }
