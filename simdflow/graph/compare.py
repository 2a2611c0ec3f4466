"""Compare: how far a quantized network is from its f32 one, layer by layer and in the end.

Runs both on the same samples; it judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dsl.errors import ModelError
from ..dsl.types import f32
from .calibrate import Arrays, every_value, runs
from .graph import Graph, short
from .passes import run as optimize
from .quantize import small_name


@dataclass(frozen=True)
class LayerError:
    """A value in both networks: signal to noise in dB, largest absolute difference."""

    name: str
    snr_db: float
    largest: float


@dataclass(frozen=True)
class Comparison:
    """Errors by layer in order; shares of right answers where labels were given; how often both
    networks' largest output is the same one.
    """

    layers: tuple[LayerError, ...]
    accuracy: tuple[float, float] | None
    agreement: float
    samples: int

    def __str__(self) -> str:
        lines = [f"{'SNR dB':>7} {'largest':>10}  layer"]
        lines += [f"{x.snr_db:7.1f} {x.largest:10.4g}  {short(x.name)}" for x in self.layers]
        lines.append(f"same answer for {self.agreement:.2%} of {self.samples} samples")
        if self.accuracy:
            before, after = self.accuracy
            lines.append(f"accuracy {before:.2%} before, {after:.2%} after")
        return "\n".join(lines)


def compare(
    graph: Graph,
    quantized: Graph,
    samples: np.ndarray | Arrays,
    labels: np.ndarray | None = None,
) -> Comparison:
    """The f32 graph beside what `quantize` made of it, on samples [n, ...].

    `labels` [n] are the right classes of the first output's last axis. Raises ModelError for
    samples or labels that do not fit, and for a graph that was made of another one.
    """
    if (graph.inputs, graph.outputs) != (quantized.inputs, quantized.outputs):
        raise ModelError(
            f"{graph.name}: quantized={quantized.name} has other inputs or outputs: "
            f"{', '.join((*quantized.inputs, *quantized.outputs))}; those of {graph.name} are "
            f"{', '.join((*graph.inputs, *graph.outputs))}. Give what quantize made of it"
        )
    before = optimize(graph)
    named = [n.output for n in before.nodes if before.values[n.output].type.scalar == f32]
    pairs = {
        a: b
        for a in named
        for b in (a, small_name(before, a))  # the 8-bit form where there are both
        if b in quantized.values
    }
    whole = every_value(before, list(pairs))
    small = every_value(quantized, list(dict.fromkeys(pairs.values())))
    signal = dict.fromkeys(pairs, 0.0)
    noise = dict.fromkeys(pairs, 0.0)
    largest = dict.fromkeys(pairs, 0.0)
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    for x, y in zip(runs(whole, samples), runs(small, samples), strict=True):
        for a, b in pairs.items():
            real = x[a].astype(np.float64)
            difference = _real(quantized, b, y[b]) - real
            signal[a] += float((real**2).sum())
            noise[a] += float((difference**2).sum())
            largest[a] = max(largest[a], float(np.abs(difference).max(initial=0)))
        first, second = x[before.outputs[0]], y[quantized.outputs[0]]
        answers.append((_largest(first), _largest(second)))
    f32s, smalls = (np.concatenate(part) for part in zip(*answers, strict=True))
    accuracy = None
    if labels is not None:
        right = np.asarray(labels)
        if right.ndim != 1 or len(right) < len(f32s):
            raise ModelError(
                f"{graph.name}: labels are {list(right.shape)}; one for each of {len(f32s)} "
                "samples is needed. Correct them"
            )
        right = right[: len(f32s)]
        accuracy = float(np.mean(f32s == right)), float(np.mean(smalls == right))
    layers = tuple(
        LayerError(
            n, 10 * float(np.log10(max(signal[n], 1e-30) / max(noise[n], 1e-30))), largest[n]
        )
        for n in pairs
    )
    return Comparison(layers, accuracy, float(np.mean(f32s == smalls)), len(f32s))


def _real(graph: Graph, name: str, q: np.ndarray) -> np.ndarray:
    """What a value means."""
    meaning = graph.values[name].quantization
    if meaning is None or q.dtype.kind == "f":
        return q.astype(np.float64)
    return (q.astype(np.float64) - meaning.zero_point) * float(meaning.single)


def _largest(y: np.ndarray) -> np.ndarray:
    return y.reshape(len(y), -1).argmax(axis=1)
