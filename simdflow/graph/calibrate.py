"""Calibrate: the range of every value of a network, from sample inputs.

Runs the compiled network with every value as an output, twice: for the extremes, then for
histograms between them. What is made of the ranges is the business of `quantize`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..dsl.errors import ModelError
from ..dsl.types import f32
from ..targets import target as find_target
from .compile import Stages
from .graph import Graph
from .model import Model

BINS = 2048
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Spread:
    """How the values of one tensor are spread: extremes, and counts in equal bins between them."""

    low: float
    high: float
    counts: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin."""
        step = (self.high - self.low) / len(self.counts)
        return self.low + step * (np.arange(len(self.counts)) + 0.5)


def spreads(graph: Graph, samples: np.ndarray | Arrays) -> dict[str, Spread]:
    """The spread of every f32 value over samples [n, ...], by name.

    Raises ModelError for samples that do not fit the inputs, and for values that are not finite.
    """
    names = [
        v.name
        for v in graph.values.values()
        if v.type.scalar == f32 and v.name not in graph.constants
    ]
    model = every_value(graph, names)
    lows = dict.fromkeys(names, np.inf)
    highs = dict.fromkeys(names, -np.inf)
    for found in runs(model, samples):
        for name in names:
            lows[name] = min(lows[name], float(found[name].min()))
            highs[name] = max(highs[name], float(found[name].max()))
            if not np.isfinite(lows[name] + highs[name]):
                raise ModelError(
                    f"{graph.name}: value={name!r} is not finite for some sample; quantization "
                    "needs finite values. Correct the samples"
                )
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for found in runs(model, samples):
        for name in names:
            low, high = lows[name], highs[name]
            if high > low:
                counts[name] += np.histogram(found[name], BINS, (low, high))[0]
    return {n: Spread(lows[n], highs[n], counts[n]) for n in names}


def every_value(graph: Graph, names: list[str]) -> Model:
    """A model of the graph as it is, no pass run over it, with these values as outputs."""
    made = [n for n in names if n not in graph.inputs]
    whole = replace(graph, outputs=tuple(dict.fromkeys((*made, *graph.outputs))))
    stages = Stages(whole, find_target(None), optimized=False)
    return Model(stages.network(), lambda: whole, {})


def runs(model: Model, samples: np.ndarray | Arrays) -> Iterator[dict[str, np.ndarray]]:
    """All values, inputs with them, for each group of samples of the model's batch.

    Raises ModelError for samples of other shapes or types, of different numbers, or fewer than a
    batch; a rest is left out.
    """
    names = [p.name for p in model.inputs]
    given = samples if isinstance(samples, Mapping) else dict(zip(names, (samples,), strict=False))
    if set(given) != set(names) or not names:
        raise ModelError(
            f"{model.name}: samples are for {', '.join(given) or 'none'}; inputs are "
            f"{', '.join(names) or 'none'}. Give an array [n, ...] for each"
        )
    counts = set()
    for port in model.inputs:
        a, kind = np.asarray(given[port.name]), port.type
        if not kind.shape or a.shape[1:] != kind.shape[1:] or a.dtype != kind.scalar.dtype:
            shown = ", ".join(("n", *map(str, kind.shape[1:])))
            raise ModelError(
                f"{model.name}: samples of {port.name} are {a.dtype}{list(a.shape)}; "
                f"{kind.scalar.dtype}[{shown}] is needed. Convert them"
            )
        counts.add(len(a) // kind.shape[0])
    if len(counts) > 1 or not min(counts):
        raise ModelError(
            f"{model.name}: samples={sorted(counts)} batches; the same number for each input, 1 or "
            "more, is allowed. Give more, or as many for each"
        )
    sizes = {p.name: p.type.shape[0] for p in model.inputs}
    for at in range(counts.pop()):
        part = {
            n: np.ascontiguousarray(given[n][at * size : (at + 1) * size])
            for n, size in sizes.items()
        }
        yield part | model.run(part)
