"""Choose: the default dataflow of a nest, by the cost model."""

from __future__ import annotations

from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..targets import Target


def choose(nest: LoopNest, target: Target) -> Dataflow:
    return Dataflow()
