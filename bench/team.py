"""Suite "team": what it costs to have threads, ours beside libgomp and numba's `prange`.

Fork and join of an empty region, a barrier inside one, the same after a pause, and the processor
time that idle threads use; each engine runs in processes of its own. Nothing is computed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .rows import Options, Result, Row, cpu_name, machine, number, table

PEERS = ("libgomp", "prange")
# The bar is for a layer: a network forks once and has a barrier after each layer.
BARS = {
    "fork and join": 0.3,
    "barrier": 0.3,
    "fork and join, after 20 ms": None,
    "idle for 20 ms": 1000.0,
}


def run(options: Options) -> Result:
    """Measure the suite on two threads or `options.threads`; the smallest of several processes."""
    options = replace(options, threads=max(options.threads, 2))
    engines = ("ours", *PEERS) if options.peers else ("ours",)
    found: dict[str, dict[str, float]] = {engine: {} for engine in engines}
    why: dict[str, str] = {}
    for _ in range(2 if options.quick else 5):
        for engine in engines:
            measured = _probe(engine, options.threads)
            if "why" in measured:
                why[engine] = str(measured["why"])
                continue
            for case, us in measured.items():
                found[engine][case] = min(float(us), found[engine].get(case, float("inf")))
    rows = [
        _row(case, bar, options, found, why) for case, bar in BARS.items() if options.only in case
    ]
    lines = [
        [row.case, *(number(us, 3) for us in (row.ours_us, *map(row.peers.get, PEERS), row.bar))]
        for row in rows
    ]
    reasons = tuple(f"not run ({engine}): {reason}" for engine, reason in why.items())
    text = table([f"team of {options.threads}, us", "ours", *PEERS, "bar"], lines)
    return Result(tuple(rows), machine(options), (text, *reasons))


def _row(
    case: str,
    bar: float | None,
    options: Options,
    found: dict[str, dict[str, float]],
    why: dict[str, str],
) -> Row:
    ours = found["ours"].get(case)
    peers = {name: found[name][case] for name in PEERS if case in found.get(name, {})}
    return Row(
        suite="team",
        case=case,
        threads=options.threads,
        ours_us=ours,
        peers=peers,
        ratio=min(peers.values()) / ours if peers and ours else None,
        cpu=cpu_name(),
        limit="at most, in microseconds" if bar else "",
        bar=bar,
        bar_on="us" if bar else "",
        why=why,
    )


def _probe(engine: str, threads: int) -> dict[str, float | str]:
    """The figures of one engine in a fresh process, or {"why"}."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.team_probe", engine, str(threads)],
        cwd=Path(__file__).parents[1],  # where bench is found
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"why": errors[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])
