"""Suite "choice": the default dataflow of a layer beside the best of its design space.

All legal dataflows of a layer if there are at most 200, else a stratified sample of 200. Every
result is checked before anything is timed, then all take turns; the best of a first short round are
timed against the default for longer. It shows what the cost model is worth, and YFlows' count of
memory operations beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from statistics import median

import simdflow as sf
from simdflow.peaks import clock_loop
from simdflow.tuning.verdict import rank_correlation

from .cases import Case
from .choice_layers import Subject, layers, subject
from .compiling import Counts, compile_kernels, compilers
from .dataflows import chosen_targets
from .rows import Options, Result, Row, cpu_name, machine, number, table, write_json
from .timing import interleaved, pinned

SEED = 2024
FLOWS, QUICK_FLOWS = 200, 12
FINALISTS = 5
POOLED = 300  # kernels of one pool of workers
SECONDS, QUICK_SECONDS = 0.15, 0.05  # of each finalist
MEDIAN_WITHIN, ALL_WITHIN = 1.05, 1.15  # the default's time over the best, as asked for
DEFAULT = "default"


@dataclass(frozen=True)
class Candidate:
    """A dataflow that gives the right result: how to run it, and what was counted."""

    call: Callable[[], object]
    counts: Counts


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error, rows into --json as they come."""
    count = QUICK_FLOWS if options.quick else FLOWS
    todo = [
        (target, case)
        for target in chosen_targets(options.target)
        for case in layers(sf.target(target), options.quick)
        if options.only in case.name
    ]
    rows, about, begin = list[Row](), machine(options), time.monotonic()
    seconds, together = (QUICK_SECONDS if options.quick else SECONDS), max(1, POOLED // count)
    for first in range(0, len(todo), together):
        with compilers() as pool:
            for target, case in todo[first : first + together]:
                rows.append(measure(case, target, count, seconds, pool))
                left = (time.monotonic() - begin) / len(rows) * (len(todo) - len(rows))
                over = number(times_over(rows[-1]))
                line = f"[{len(rows)}/{len(todo)}] {case.name} {target}: {over}, {left:.0f} s left"
                print(line, file=sys.stderr, flush=True)
                if options.json:
                    write_json(options.json, Result(tuple(rows), about, ()))
    return Result(tuple(rows), about, (flow_table(rows), *summary(rows, count)))


def measure(case: Case, target: str, count: int, seconds: float, pool: Executor) -> Row:
    """One row: the default dataflow and `count` others of a layer."""
    given = subject(case, target)
    kernels = {DEFAULT: given.space.made(None)}
    kernels |= {str(f): given.space.made(f) for f in given.space.sample(count, SEED)}
    counts, why = compile_kernels(pool, kernels)
    # What the cost model chose, the workers say: here a record of tuning might be in its place.
    chosen = counts[DEFAULT].flow if DEFAULT in counts else ""
    kernels.pop(chosen, None)
    row = Row(
        suite="choice",
        case=case.name,
        threads=1,
        ours_us=None,
        target=target,
        cpu=cpu_name(),
        dataflows=len(kernels),
        notes={"ours": chosen},
    )
    with pinned(1):
        candidates = _right(given, kernels, counts, why)
        wrong = any(reason.startswith("wrong") for reason in why.values())
        row = replace(row, why=why, exact=False if wrong else case.dtype != "f32" or None)
        if DEFAULT in why or len(candidates) < 2:
            return row
        return _timed(row, candidates, seconds)


def _right(
    given: Subject,
    kernels: dict[str, sf.CompiledKernel],
    counts: dict[str, Counts],
    why: dict[str, str],
) -> dict[str, Candidate]:
    """The kernels whose result is right; the others get a reason in `why`."""
    found = {}
    for name, made in kernels.items():
        if name in why:
            continue
        call = given.bind(made)
        if wrong := given.wrong(call):
            why[name] = f"wrong: {wrong}"
        else:
            found[name] = Candidate(call, counts[name])
    return found


def _timed(row: Row, candidates: dict[str, Candidate], seconds: float) -> Row:
    """The row with its times."""
    clock, cycles = clock_loop()
    first = interleaved({n: c.call for n, c in candidates.items()}, 0.0, rounds=3)
    others = sorted((n for n in candidates if n != DEFAULT), key=lambda n: first[n].min_us)
    finalists = {n: candidates[n].call for n in (DEFAULT, *others[:FINALISTS])}
    final = interleaved({"clock": clock, **finalists}, seconds)
    ghz = cycles / final.pop("clock").min_us / 1e3
    best = min(others[:FINALISTS], key=lambda n: final[n].min_us)
    times = [first[n].min_us for n in candidates]
    default = candidates[DEFAULT].counts
    ours, theirs = final[DEFAULT].min_us, final[best].min_us
    return replace(
        row,
        ours_us=round(ours, 2),
        peers={"best": round(theirs, 2)},
        ratio=round(theirs / ours, 3),
        predicted_us=round(default.cycles / ghz / 1e3, 2),
        rank_correlation=_correlation([c.counts.cycles for c in candidates.values()], times),
        operations_correlation=_correlation(
            [c.counts.operations for c in candidates.values()], times
        ),
        clock_ghz=round(ghz, 3),
        notes={**row.notes, "best": best},
    )


def _correlation(predicted: Sequence[float], times: Sequence[float]) -> float:
    return round(rank_correlation(predicted, times) or 0.0, 3)


def times_over(row: Row) -> float | None:
    """The default's time over the best measured, its own included."""
    return max(1.0, 1 / row.ratio) if row.ratio else None


def flow_table(rows: Sequence[Row]) -> str:
    """The rows, the worst default first, and below them the dataflows."""
    header = [
        *("layer", "target", "dataflows", "default us", "predicted us", "best us", "over"),
        *("rank: cost", "operations", "exact"),
    ]
    ordered = sorted(rows, key=lambda row: (row.ratio is None, row.ratio or 0.0))
    lines = [
        [
            row.case,
            row.target,
            str(row.dataflows),
            number(row.ours_us, 1),
            number(row.predicted_us, 1),
            number(row.peers.get("best"), 1),
            number(times_over(row)),
            number(row.rank_correlation),
            number(row.operations_correlation),
            {True: "yes", False: "NO", None: "-"}[row.exact],
        ]
        for row in ordered
    ]
    flows = [
        f"{r.case} {r.target}\n    default {r.notes['ours']}\n    best    {r.notes['best']}"
        for r in ordered
        if "best" in r.notes
    ]
    return "\n".join((table(header, lines), *flows))


def summary(rows: Sequence[Row], count: int) -> tuple[str, ...]:
    """For each target how far the default is from the best, and how well either model ranks."""
    lines = [
        f"over: the default's time over the best of all dataflows, or of {count} where there are "
        f"more; rank: correlation (Spearman's) of the cost model's cycles, and of YFlows' memory "
        f"operations, with the times"
    ]
    for target in dict.fromkeys(row.target for row in rows):
        mine = [row for row in rows if row.target == target]
        over = [x for row in mine if (x := times_over(row)) is not None]
        if not over:
            continue
        middle, worst = median(over), max(over)
        reached = middle <= MEDIAN_WITHIN and worst <= ALL_WITHIN
        lines.append(
            f"{target}: over the best: median {middle:.3f}, worst {worst:.3f} of {len(over)} "
            f"layers; asked {MEDIAN_WITHIN} and {ALL_WITHIN}: {'reached' if reached else 'MISSED'}"
        )
        for what, values in (
            ("cost model", [r.rank_correlation for r in mine]),
            ("memory operations", [r.operations_correlation for r in mine]),
        ):
            known = [v for v in values if v is not None]
            if known:
                lines.append(
                    f"{target}: rank correlation, {what}: median {median(known):.2f}, "
                    f"lowest {min(known):.2f}"
                )
    failed = [(row.case, row.target, *item) for row in rows for item in row.why.items()]
    lines.append(f"dataflows without a right result: {len(failed)}")
    lines += [f"    {case} {target}: {flow}: {why}" for case, target, flow, why in failed]
    return tuple(lines)
