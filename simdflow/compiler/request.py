"""Request: what is to be compiled, and what the cache has of it. Runs no stage and imports none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..dsl.types import OperandType
from ..targets import Target
from ..targets.detect import features_string
from . import cache
from .artifact import Artifact


@dataclass(frozen=True)
class Request:
    """What is to be compiled: a parsed nest, operand types, constants, a dataflow, a target.

    No dataflow: one is chosen.
    """

    nest: LoopNest
    types: tuple[tuple[str, OperandType], ...]
    constants: tuple[tuple[str, int | float], ...]
    flow: Dataflow | None
    target: Target


def stored(request: Request) -> tuple[Artifact, bytes] | None:
    """(interface, object code) from the cache; None when it does not have them."""
    entry = cache.current().load(cache_key(request))
    if entry is None:
        return None
    try:
        return Artifact.from_record(entry.record), entry.object
    except (KeyError, TypeError, ValueError):
        return None  # written by something else under our key: compile again


def cache_key(r: Request) -> str:
    """The name of a request in the cache: everything its object code depends on."""
    return cache.key(_parts(r))


def _parts(r: Request) -> Mapping[str, str]:
    nest = replace(r.nest, origin=type(r.nest.origin)())
    return {
        "nest": repr(nest),
        "types": repr(r.types),
        "constants": repr(r.constants),
        "flow": repr(r.flow),
        "target": f"{r.target.name};{features_string(r.target)}",
    }
