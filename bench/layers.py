"""Suite "layers": each convolution and dense layer of three networks, beside the peers.

Every engine's output is checked against numpy before anything is timed; then all take turns in
one process. The int8 layers end in u8, so requantization is part of the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial

from simdflow.peaks import Peaks, clock_loop, peaks

from . import ours, peers
from .bounds import at_clock, bound
from .cases import Case, Problem, Run, Unsupported, mismatch, problem
from .networks import layers
from .rows import Options, Result, Row, cpu_name, machine, number, table
from .summary import summary
from .timing import interleaved, pin

OURS = "ours"
INPUT_STATEMENT = (
    "* where there is padding, the input of ours has its border before the timed call, as between "
    "the layers of a network; the peers pad as they do there"
)
ALONE_STATEMENT = (
    "dense layers: peak and bound are of ours running alone in the same run (alone_us in --json), "
    "as engines in turn push each other's weights out of the cache; times and ratios are in turn"
)
PEER_LSB = 1  # engines differ in how they round; ours must be exact


def run(options: Options) -> Result:
    """Measure the suite; progress goes to standard error."""
    pin(options.threads)
    limits, rows = peaks(), list[Row]()
    cases = [case for case in layers(options.quick) if options.only in case.name]
    seconds = 0.08 if options.quick else 0.3
    for at, case in enumerate(cases, 1):
        print(f"[{at}/{len(cases)}] {case.name}", file=sys.stderr, flush=True)
        rows.append(_measure(case, options, limits, seconds))
    about = {
        **machine(options),
        "peaks": asdict(limits),
        "peers": peers.versions() if options.peers else {},
    }
    text = (*_machine_lines(limits, options), layer_table(rows), *summary(rows))
    return Result(tuple(rows), about, text)


def _measure(case: Case, options: Options, limits: Peaks, seconds: float) -> Row:
    """One row: prepare and check every engine, then let them take turns."""
    given = problem(case)
    runs: dict[str, Run] = {}
    why: dict[str, str] = {}
    engines: dict[str, Callable[[Problem, int], Run]] = {OURS: ours.prepare}
    if options.peers:
        engines |= {name: partial(peers.prepare, name) for name in peers.PACKAGES}
    for name, prepare in engines.items():
        try:
            run = prepare(given, options.threads)
            for call in (run.copying, run.call):
                if call is None:
                    continue
                call()
                if wrong := mismatch(run.output(), given, 0 if name == OURS else PEER_LSB):
                    raise Wrong(f"wrong: {wrong}")
            runs[name] = run
        except (Unsupported, Wrong) as reason:
            why[name] = str(reason)
        except (
            Exception
        ) as failure:  # one engine's failure is a remark in its row, not the end of the run
            why[name] = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0][:200]}"
    clock_call, cycles = clock_loop()
    calls = {"clock": clock_call, **{name: run.call for name, run in runs.items()}}
    copying = runs[OURS].copying if OURS in runs else None
    if copying:
        calls["copying"] = copying
    timed = interleaved(calls, seconds)
    # Engines in turn push each other's weights out of the cache: four times 16 MB are in memory,
    # one is not. What a layer reads in its own turns alone is beside the bandwidth.
    alone = None
    if case.op == "dense" and OURS in runs:
        alone = interleaved({"clock": clock_call, OURS: runs[OURS].call}, seconds)[OURS].min_us
    clock_ghz = cycles / timed.pop("clock").min_us / 1e3
    copied = timed.pop("copying", None)
    limit = bound(case, at_clock(limits, clock_ghz, options.threads))
    mine = timed.pop(OURS, None)
    fastest = min((t.min_us for t in timed.values()), default=None)
    row = Row(
        suite="layers",
        case=case.name,
        threads=options.threads,
        ours_us=None,
        peers={name: round(t.min_us, 2) for name, t in timed.items()},
        exact=False if why.get(OURS, "").startswith("wrong") else None,
        target=limits.target,
        cpu=cpu_name(),
        peers_median_us={name: round(t.median_us, 2) for name, t in timed.items()},
        limit=limit.limit,
        peer_fraction=fastest and round(limit.peak_us / fastest, 3),
        bar=limit.bar,
        bar_on=limit.bar_on,
        clock_ghz=round(clock_ghz, 3),
        notes={name: run.note for name, run in runs.items() if run.note},
        why=why,
    )
    if mine is None:
        return row
    counted = alone or mine.min_us
    return replace(
        row,
        ours_us=round(mine.min_us, 2),
        ours_median_us=round(mine.median_us, 2),
        ratio=fastest and round(fastest / mine.min_us, 3),
        peak_fraction=round(limit.peak_us / counted, 3),
        bound_fraction=round(limit.bound_us / counted, 3),
        alone_us=alone and round(alone, 2),
        exact=case.dtype != "f32" or None,
        input=runs[OURS].note,
        copying_us=round(copied.min_us, 2) if copied else None,
    )


class Wrong(Exception):
    """An engine's output is not the expected one."""


def layer_table(rows: Sequence[Row]) -> str:
    """The rows, worst ratio first; without ours, the peer furthest from the peak first."""
    peer_names = sorted({name for row in rows for name in row.peers})
    header = ["case", "ours us*", "exact", *peer_names, "ratio", "peak", "bound", "peer", "limit"]

    def order(row: Row) -> tuple[bool, float, float]:
        return row.ratio is None, row.ratio or 0.0, row.peer_fraction or 0.0

    lines = [
        [
            row.case,
            number(row.ours_us, 1),
            {True: "yes", False: "NO", None: "-"}[row.exact],
            *(number(row.peers.get(name), 1) for name in peer_names),
            number(row.ratio),
            number(row.peak_fraction),
            number(row.bound_fraction),
            number(row.peer_fraction),
            row.limit,
        ]
        for row in sorted(rows, key=order)
    ]
    return f"{table(header, lines)}\n{INPUT_STATEMENT}\n{ALONE_STATEMENT}"


def _machine_lines(limits: Peaks, options: Options) -> tuple[str, ...]:
    rates = ", ".join(f"{b.level} {b.gb_per_s:.0f}" for b in limits.bandwidth)
    return (
        f"{cpu_name()}, {options.threads} thread(s), target {limits.target}, "
        f"clock {limits.clock_ghz:.2f} GHz",
        f"peaks of one core: f32 {limits.f32_gmac:.0f} GMAC/s, u8 x i8 {limits.i8_gmac:.0f} "
        f"GMAC/s, xnor-popcount {limits.bit_gop:.0f} GOP/s; streaming GB/s: {rates}",
    )
