"""Compile: a graph becomes a Model. The whole way on one screen.

Graph --passes--> Graph --steps_of--> Schedule --fuse--> Schedule --store--> Stored
      --network--> Network (kernels, plan, weights, entry) --> Model
"""

from __future__ import annotations

from ..targets import Target
from ..targets import target as find_target
from .batch import with_batch
from .build import network
from .fuse import fuse
from .graph import Graph
from .model import Model, checked_threads
from .network import Network
from .passes import run as optimize
from .steps import Schedule, steps_of
from .storage import Stored, store


class Stages:
    """Every stage of a compilation, to be printed or tested alone."""

    def __init__(
        self, graph: Graph, target: Target, threads: int = 1, optimized: bool = True
    ) -> None:
        self.source, self.target, self.threads = graph, target, threads
        self.graph = optimize(graph) if optimized else graph
        self.schedule: Schedule = fuse(steps_of(self.graph, target))
        self.stored: Stored = store(self.schedule)

    def network(self) -> Network:
        """Compiled."""
        return network(self.stored, self.target, self.threads)


def compile(
    graph: Graph,
    *,
    batch: int | None = None,
    threads: int = 1,
    target: str | Target | None = None,
) -> Model:
    """The model of a graph.

    batch    the first axis of every input, where it is not as the graph says
    threads  how many threads one call may use; the results are the same bits for any number
    target   the CPU: "avx512", "avx2", "portable"; by default what this one has

    Raises ModelError for a graph that cannot be compiled, TargetError for a target that cannot run
    here.
    """
    chosen = find_target(target)
    sized = graph if batch is None else with_batch(graph, batch)
    made = Stages(sized, chosen, checked_threads(threads)).network()
    options = {"batch": batch, "threads": threads, "target": chosen.name}
    return Model(made, lambda: graph, options)
