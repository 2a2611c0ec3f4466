"""Profile: the time of every step of a model, and what that is of the CPU's peak.

Steps run in order on buffers of their own, so each finds the caches as its predecessor left them.
It measures and reports; it changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .graph import short
from .model import Model
from .network import Network


@dataclass(frozen=True)
class Line:
    """One step: its layers, kernel, shapes; microseconds, multiply-accumulates a call, share of
    all steps' time, and GMAC/s over the measured peak for its element types (None where there is
    no product, or no peak was given).
    """

    name: str
    kernel: str
    out: str
    us: float
    macs: int
    share: float
    peak_fraction: float | None

    @property
    def gmacs(self) -> float:
        """Multiply-accumulates a nanosecond."""
        return self.macs / self.us / 1e3 if self.us else 0.0


@dataclass(frozen=True)
class Profile:
    """The lines of a model in order, and the microseconds of a whole run without clock readings in
    between.
    """

    model: str
    target: str
    lines: tuple[Line, ...]
    whole_us: float

    def __str__(self) -> str:
        head = f"{'us':>9} {'share':>6} {'GMAC/s':>7} {'of peak':>7}  layer"
        rows = [f"{self.model} on {self.target}: {self.whole_us:.2f} us", head]
        for x in self.lines:
            rate = f"{x.gmacs:7.1f}" if x.macs else " " * 7
            peak = f"{x.peak_fraction:7.2f}" if x.peak_fraction is not None else " " * 7
            rows.append(f"{x.us:9.3f} {x.share:6.1%} {rate} {peak}  {x.name}  {x.kernel} {x.out}")
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{x.us:.3f}</td><td>{x.share:.1%}</td>"
            f"<td>{f'{x.gmacs:.1f}' if x.macs else ''}</td>"
            f"<td>{'' if x.peak_fraction is None else f'{x.peak_fraction:.2f}'}</td>"
            f"<td style='text-align:left'>{_escaped(x.name)}</td></tr>"
            for x in self.lines
        )
        return (
            f"<table><caption>{_escaped(self.model)}: {self.whole_us:.2f} us</caption><tr>"
            f"<th>us</th><th>share</th><th>GMAC/s</th><th>of peak</th><th>layer</th></tr>"
            f"{cells}</table>"
        )

    def trace(self, path: str | Path) -> None:
        """Write the steps as a trace file, for Perfetto or chrome://tracing."""
        at, events = 0.0, []
        for x in self.lines:
            event: dict[str, Any] = {"name": x.name, "ph": "X", "pid": 1, "tid": 1, "ts": at}
            event["dur"] = x.us
            event["args"] = {"kernel": x.kernel, "out": x.out, "macs": x.macs}
            events.append(event)
            at += x.us
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))


def profile(model: Model, arrays: Sequence[np.ndarray], seconds: float = 0.5) -> Profile:
    """The shortest of many runs of each step, in order, for the given inputs.

    A batch that goes through in groups is measured for one group. The peak of the CPU is measured
    first, for the element types that the model multiplies.
    """
    b = model.bind()
    for place, a in zip(b.inputs.values(), arrays, strict=False):
        place[...] = a
    network = model.network
    peaks = _peaks(network)
    calls = model.calls(b)
    best, whole, nothing = [2**63] * len(calls), 2**63, 2**63
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    passes = 0
    while passes < 5 or clock() < end:
        for at, call in enumerate(calls):
            before = clock()
            call()
            best[at] = min(best[at], clock() - before)
        before = clock()
        nothing = min(nothing, clock() - before)
        before = clock()
        b.run()
        whole = min(whole, clock() - before)
        passes += 1
    us = [max(t - nothing, 0) / 1e3 for t in best]
    total = sum(us) or 1.0
    lines = []
    for task, t in zip(network.tasks, us, strict=True):
        peak = peaks.get(task.factor)
        fraction = task.macs / t / 1e3 / peak if task.macs and t and peak else None
        name = " + ".join(map(short, task.nodes))
        lines.append(Line(name, task.kernel, task.out, t, task.macs, t / total, fraction))
    return Profile(model.name, model.target, tuple(lines), whole / 1e3 / model.repeats)


def _peaks(network: Network) -> dict[str, float]:
    """Measured GMAC/s of the target by the type of the second factor; {} where there is none."""
    if not any(t.factor for t in network.tasks):
        return {}
    from ..peaks import peaks

    measured = peaks(network.target, seconds=0.02)
    return {"f32": measured.f32_gmac, "i8": measured.i8_gmac}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
