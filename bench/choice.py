"""Suite "dataflows": the default dataflow of a layer against random legal ones of its design space.

Every result is checked before anything is timed, then all take turns in one process; it shows what
the cost model is worth: how far its choice is from the best, and how well it predicts the order.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

import simdflow as sf
from simdflow.compiler.cost import cost
from simdflow.dataflows import space

from .cases import Case, Run, mismatch, problem
from .nests import LayerNest, layer_nest
from .networks import mobilenet_v1, resnet50
from .rows import Options, Result, Row, cpu_name, machine, number, table
from .timing import interleaved, pin

SEED = 2024
FLOWS, QUICK_FLOWS = 50, 12
FINALISTS = 5  # the best of a first round are timed against the default for longer
LEAST_MACS = 10e6  # of a convolution; depthwise and dense layers are all in
WITHIN = 1.10
QUICK = frozenset(
    {
        "resnet50 conv3x3 14x14x256-256 int8",
        "resnet50 conv1x1 56x56x64-256 int8",
        "mobilenet dw3x3 112x112x32-32 int8",
        "resnet50 dense 2048-1000 int8",
        "resnet50 conv3x3 56x56x64-64 f32",
        "mobilenet dw3x3 14x14x512-512 f32",
    }
)


@dataclass(frozen=True)
class Candidate:
    """A dataflow that gives the right result: how to run it and what the cost model says."""

    flow: sf.Dataflow
    run: Run
    cycles: float


def layers(quick: bool) -> list[Case]:
    """The layers of ResNet-50 and MobileNetV1 in int8 and f32, each shape once."""
    distinct: dict[tuple[object, ...], Case] = {}
    for case in (*resnet50(), *mobilenet_v1()):
        if case.op != "conv2d" or case.macs > LEAST_MACS:
            shape = (case.op, case.h, case.w, case.ic, case.oc, case.k, case.stride)
            distinct.setdefault(shape, case)
    found = [replace(case, dtype=dtype) for dtype in ("int8", "f32") for case in distinct.values()]
    return [case for case in found if case.name in QUICK] if quick else found


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error."""
    pin(1)
    count = QUICK_FLOWS if options.quick else FLOWS
    cases = [case for case in layers(options.quick) if options.only in case.name]
    rows = []
    with _no_cache():
        for at, case in enumerate(cases, 1):
            print(f"[{at}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
            rows.append(measure(case, count, 0.05 if options.quick else 0.15))
    return Result(tuple(rows), machine(options), (flow_table(rows), *summary(rows, count)))


def sample(nest: LayerNest, count: int) -> Iterator[sf.Dataflow]:
    """`count` different legal dataflows, each as likely as any other; the same in every run.

    Candidates are drawn first and planned then: of thousands, only the drawn ones need a plan.
    """
    chosen = sf.target()
    candidates = list(dict.fromkeys(space(nest.made().nest, chosen)))
    random.Random(SEED).shuffle(candidates)
    for flow in candidates:
        if count == 0:
            return
        try:
            _ = nest.made(flow).plan
        except sf.DataflowError:
            continue
        count -= 1
        yield flow


def measure(case: Case, count: int, seconds: float) -> Row:
    """One row: the default dataflow and `count` random ones of a layer."""
    nest = layer_nest(problem(case))
    default = nest.made()
    row = Row(
        suite="dataflows",
        case=case.name,
        threads=1,
        ours_us=None,
        target=default.target.name,
        cpu=cpu_name(),
    )
    candidates, why = list[Candidate](), dict[str, str]()
    flows = [default.flow, *(f for f in sample(nest, count) if f != default.flow)]
    for flow in flows:
        try:
            made = nest.made(flow)
            run = nest.run(made)
            run.call()
        except Exception as failure:  # a dataflow that does not compile is a remark in the row
            why[str(flow)] = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0][:200]}"
            continue
        if wrong := mismatch(run.output(), nest.problem, 0):
            why[str(flow)] = f"wrong: {wrong}"
            continue
        candidates.append(Candidate(flow, run, cost(made.plan, made.program).cycles))
    row = replace(row, why=why, exact=_exactness(case, why))
    if str(default.flow) in why or len(candidates) < 2:
        return row
    return _timed(row, candidates, seconds)


def _exactness(case: Case, why: dict[str, str]) -> bool | None:
    if any(reason.startswith("wrong") for reason in why.values()):
        return False
    return case.dtype != "f32" or None


def _timed(row: Row, candidates: Sequence[Candidate], seconds: float) -> Row:
    """The row with its times; the first of `candidates` is the default."""
    first = interleaved({str(i): c.run.call for i, c in enumerate(candidates)}, 0.0, rounds=3)
    times = [first[str(i)].min_us for i in range(len(candidates))]
    order = sorted(range(1, len(candidates)), key=lambda i: times[i])[:FINALISTS]
    calls = {str(i): candidates[i].run.call for i in (0, *order)}
    final = {int(i): t.min_us for i, t in interleaved(calls, seconds).items()}
    best = min(order, key=lambda i: final[i])
    return replace(
        row,
        ours_us=round(final[0], 2),
        peers={"best": round(final[best], 2)},
        ratio=round(final[best] / final[0], 3),
        rank_correlation=round(rank_correlation([c.cycles for c in candidates], times), 3),
        notes={"ours": str(candidates[0].flow), "best": str(candidates[best].flow)},
    )


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing theirs; 0 if all are equal."""
    ranks = []
    for values in (a, b):
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    x, y = (r - r.mean() for r in ranks)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else 0.0


def flow_table(rows: Sequence[Row]) -> str:
    """The rows, worst ratio first, and below them the dataflows."""
    header = ["layer", "default us", "best us", "ratio", "rank corr.", "exact"]
    ordered = sorted(rows, key=lambda row: (row.ratio is None, row.ratio or 0.0))
    lines = [
        [
            row.case,
            number(row.ours_us, 1),
            number(row.peers.get("best"), 1),
            number(row.ratio),
            number(row.rank_correlation),
            {True: "yes", False: "NO", None: "-"}[row.exact],
        ]
        for row in ordered
    ]
    flows = [
        f"{r.case}\n    default {r.notes['ours']}\n    best    {r.notes['best']}"
        for r in ordered
        if r.notes
    ]
    return "\n".join((table(header, lines), *flows))


def summary(rows: Sequence[Row], count: int) -> tuple[str, ...]:
    """Median and worst ratio, the layers within 10 %, and every dataflow that failed."""
    lines = [f"ratio: best of {count} random dataflows / default; above 1, the default is faster"]
    ratios = [row.ratio for row in rows if row.ratio]
    if ratios:
        near = sum(ratio * WITHIN >= 1 for ratio in ratios)
        correlations = [r.rank_correlation for r in rows if r.rank_correlation is not None]
        lines += [
            f"ratio: median {median(ratios):.3f}, worst {min(ratios):.3f}; within 10 % of the "
            f"best: {near} of {len(ratios)} layers, asked all: "
            f"{'reached' if near == len(ratios) else 'MISSED'}",
            f"rank correlation of predicted and measured times: median {median(correlations):.2f}, "
            f"lowest {min(correlations):.2f}",
        ]
    failed = [(row.case, *item) for row in rows for item in row.why.items()]
    lines.append(f"dataflows without a right result: {len(failed)}")
    lines += [f"    {case}: {flow}: {reason}" for case, flow, reason in failed]
    return tuple(lines)


@contextmanager
def _no_cache() -> Iterator[None]:
    """Thousands of kernels that nobody asks for again stay out of the user's cache."""
    before = os.environ.get("SIMDFLOW_CACHE")
    os.environ["SIMDFLOW_CACHE"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["SIMDFLOW_CACHE"]
        else:
            os.environ["SIMDFLOW_CACHE"] = before
