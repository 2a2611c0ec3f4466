"""Compile: a graph becomes a Model. The whole way on one screen.

Graph --passes--> Graph --steps_of--> Schedule --fuse--> Schedule --store--> Stored
      --network--> Network (kernels, plan, weights, entry) --> Model
"""

from __future__ import annotations

from ..dsl.errors import ModelError
from ..targets import Target
from ..targets import target as find_target
from .arena import plan
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

    batch    the first axis of every input, where it is not as the graph says; samples go through in
             groups whose tensors stay in the L2 cache
    threads  how many threads one call may use; the results are the same bits for any number
    target   the CPU: "avx512", "avx2", "portable"; by default what this one has

    Raises ModelError for a graph that cannot be compiled, TargetError for a target that cannot run
    here.
    """
    if not isinstance(graph, Graph):
        raise ModelError(
            f"compile: graph={type(graph).__name__} is no Graph; sf.trace, sf.from_tflite and "
            f"sf.from_onnx make one, and a Model has one. Pass model.graph for another batch."
        )
    chosen = find_target(target)
    stages, repeats = staged(graph, batch, threads, chosen)
    options = {"batch": batch, "threads": threads, "target": chosen.name}
    return Model(stages.network(), lambda: graph, options, repeats)


def staged(graph: Graph, batch: int | None, threads: int, target: Target) -> tuple[Stages, int]:
    """(stages, how often they run for one batch): what `compile` makes a model of."""
    group = None if batch is None else group_of(graph, batch, target)
    sized = graph if group is None else with_batch(graph, group)
    repeats = 1 if batch is None or not group else batch // group
    return Stages(sized, target, checked_threads(threads)), repeats


def group_of(graph: Graph, batch: int, target: Target) -> int:
    """How many samples go through the network together: the largest divisor of the batch with which
    the tensors take a quarter of L2, or a quarter of what the weights take where these do not fit
    L2: then it is the weights that are worth reading less often.

    MobileNetV1-0.25 in 8 bits took 26.4 us an image with 32 at once, 24.4 with one.
    """
    whole = with_batch(graph, batch)
    if batch == 1:
        return 1
    arena = plan(Stages(with_batch(graph, 1), target).stored, {}).nbytes
    weights = sum(a.nbytes for a in whole.constants.values())
    l2 = target.core.caches.l2
    limit = max(l2 // 4, weights // 4 if weights > l2 else 0)
    fits = [n for n in range(1, batch + 1) if batch % n == 0 and n * arena <= limit]
    return max(fits, default=1)
