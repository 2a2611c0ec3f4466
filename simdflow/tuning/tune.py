"""Tune: `sf.tune` of a kernel, or of all kernels of a network by their share of its time.

What it finds is recorded, and used by every later call and process that names no dataflow. Speed
changes, integers never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..compiled import CompiledKernel
from ..compiler.request import Request
from ..dsl.dataflow import Dataflow
from ..dsl.errors import OperandError
from ..dsl.nest import LoopNest
from ..graph.graph import Graph
from ..graph.model import Model
from ..kernel import Kernel
from ..targets import Target
from ..targets import target as find_target
from .progress import Show, shown
from .search import Tuning, search
from .space import Space, dataflows

if TYPE_CHECKING:
    from ..graph.steps import Step

LEAST_SHARE = 0.01  # of a network's time: kernels below it are left as they are


@dataclass(frozen=True)
class ModelTuning:
    """What tuning a network came to: its kernels, those with the most time first.

    shares   each kernel's part of the network's multiply-accumulates or bytes, before tuning
    skipped  kernels that had no time, or have a dataflow of their own
    """

    graph: Graph
    options: Mapping[str, Any]
    tunings: tuple[Tuning, ...]
    shares: tuple[float, ...]
    skipped: int

    @cached_property
    def model(self) -> Model:
        """The network with the recorded choices; `sf.compile` of the graph gives it too."""
        from ..graph.compile import compile

        return compile(self.graph, **self.options)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(t.interrupted for t in self.tunings)

    def __str__(self) -> str:
        lines = [
            f"tuning {self.graph.name}: {len(self.tunings)} kernels, {self.skipped} others left"
        ]
        for share, t in zip(self.shares, self.tunings, strict=True):
            lines.append(f"  {100 * share:3.0f} %  {t.kernel}: {t.best}")
        return "\n".join(lines)


def tune(
    subject: Kernel | Model | Graph,
    *,
    budget: float = 60.0,
    executor: Executor | None = None,
    target: str | Target | None = None,
    progress: Callable[[str], object] | bool | None = None,
    **given: Any,
) -> Any:
    """Find the fastest dataflow of a kernel for operand types, `sf.tune(conv2d, x=sf.u8[1, 58, 58,
    64], w=sf.i8[3, 3, 64, 64])`, or of each kernel of a Model or Graph, and record it.

    budget    seconds, as a rule kept within a few of them; at least the default and one more
              dataflow of a kernel are measured
    executor  any concurrent.futures.Executor: measuring is spread over it, and what machines of
              another kind measure is recorded as theirs. By default worker processes of this one
    target    as in `specialize`
    progress  None: a bar on a terminal, else lines, on standard error; False: nothing; a function:
              called with each line
    given     operand types and constants of a kernel; `batch` and `threads` of a Graph

    Ctrl-C ends it and returns what there is: each measurement is recorded as it comes. Raises
    OperandError for anything else than these, and what `specialize` or `compile` raises. Returns a
    Tuning, or a ModelTuning.
    """
    if not isinstance(budget, (int, float)) or isinstance(budget, bool) or not budget > 0:
        raise OperandError(
            f"tune: budget={budget!r} is no time; seconds above 0 are. Give e.g. budget=60"
        )
    with shown(budget, progress) as show:
        if isinstance(subject, Kernel):
            space = dataflows(subject, target=target, **given)
            tuning = search(space, budget, executor, _timer(show))
            subject.refresh()
            return tuning
        if isinstance(subject, Model):
            if given:
                raise OperandError(
                    f"tune: {next(iter(given))}={next(iter(given.values()))!r} is not taken with a "
                    "model, which was compiled with its own options. Tune its graph"
                )
            options = subject.options | ({} if target is None else {"target": target})
            return _network(subject.graph, options, budget, executor, _timer(show))
        if isinstance(subject, Graph):
            return _network(subject, {**given, "target": target}, budget, executor, _timer(show))
    raise OperandError(
        f"tune: subject={subject!r} cannot be tuned; a kernel, a Model and a Graph can. Trace a "
        "function over layers with sf.trace first"
    )


def _timer(show: Show) -> Callable[[str], None]:
    began = monotonic()
    return lambda text: show(monotonic() - began, text)


@dataclass(frozen=True)
class StepKernel:
    """A step of a network as something that has dataflows."""

    request: Request

    @property
    def nest(self) -> LoopNest:
        """The step's loop nest."""
        return self.request.nest

    @property
    def dataflow(self) -> Dataflow | None:
        """None: a step with one of its own is not tuned."""
        return None

    def specialize(
        self, *, dataflow: Dataflow | None = None, target: str | Target | None = None, **given: Any
    ) -> CompiledKernel:
        """The step's kernel; its types are its own."""
        r = self.request
        return CompiledKernel(Request(r.nest, r.types, r.constants, dataflow, find_target(target)))


def _network(
    graph: Graph,
    options: Mapping[str, Any],
    budget: float,
    executor: Executor | None,
    say: Callable[[str], None],
) -> ModelTuning:
    """Tune a network's distinct kernels, each for its share of the budget that is left."""
    from ..graph.build import cycles_of
    from ..graph.compile import staged
    from ..graph.steps import compiled

    end = monotonic() + budget
    options = {"batch": None, "threads": 1, **options}
    target = find_target(options["target"])
    stages, _ = staged(graph, options["batch"], options["threads"], target)
    weights: dict[Request, float] = {}
    steps: tuple[Step, ...] = stages.stored.schedule.steps
    for step in steps:
        request = compiled(step, step.nest, target).request
        weights[request] = weights.get(request, 0.0) + cycles_of(step)
    total = sum(weights.values()) or 1.0
    ranked = sorted((r for r in weights if r.flow is None), key=lambda r: -weights[r])
    left = [r for r in ranked if weights[r] >= LEAST_SHARE * total]
    tunings: list[Tuning] = []
    shares = []
    while left and (not tunings or monotonic() < end):
        request, *left = left
        rest = weights[request] / (weights[request] + sum(weights[r] for r in left))
        space = Space(StepKernel(request), {}, target)
        tuning = search(space, max(0.0, rest * (end - monotonic())), executor, say)
        tunings.append(tuning)
        shares.append(weights[request] / total)
        if tuning.interrupted:
            break
    return ModelTuning(
        graph, {**options, "target": target.name}, tuple(tunings), tuple(shares),
        len(weights) - len(tunings),
    )  # fmt: skip
