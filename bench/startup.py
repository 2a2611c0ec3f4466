"""Suite "startup": what a user waits for before the first result, and what an eager call costs.

Import time, the first call from the cache, compiling, and loading from the cache are measured in
fresh processes with a cache folder of their own; it compares with fixed bars, not with peers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from .rows import Options, Result, Row, cpu_name, machine, number, table


@dataclass(frozen=True)
class Measure:
    """One figure of bench/startup_probe.py: its bar in microseconds and what the cache holds."""

    probe: str
    case: str
    bar_us: float
    cached: bool


MEASURES = (
    Measure("import", "import simdflow, beyond numpy", 50e3, True),
    Measure("first_call", "first call of a kernel from the cache, beyond numpy", 150e3, True),
    Measure("first_op", "first call of a layer from the cache, beyond numpy", 150e3, True),
    Measure("compile", "compile one kernel", 1e6, False),
    Measure("load", "load one kernel from the cache", 5e3, True),
    Measure("eager", "eager call with packed weights, beyond the kernel", 3.0, True),
)


def run(options: Options) -> Result:
    """Measure the suite; each figure is the smallest of several processes."""
    repeats = 3 if options.quick else 7
    with tempfile.TemporaryDirectory() as warm:
        for name in ("first_call", "first_op", "load"):
            _probe(name, warm)  # fills the cache that the cached figures read
        rows = [
            _measure(measure, repeats, warm) for measure in MEASURES if options.only in measure.case
        ]
    lines = [
        [
            row.case,
            number(row.ours_us, 1),
            number(row.ours_median_us, 1),
            number(row.bar, 1),
            "-" if row.ours_us is None else "yes" if row.ours_us <= (row.bar or 0) else "NO",
        ]
        for row in rows
    ]
    reasons = tuple(f"not run ({row.case}): {row.why['ours']}" for row in rows if row.why)
    text = table(["startup", "min us", "median us", "bar us", "reached"], lines)
    return Result(tuple(rows), machine(options), (text, *reasons))


def _measure(measure: Measure, repeats: int, warm: str) -> Row:
    times: list[float] = []
    row = Row(
        suite="startup",
        case=measure.case,
        threads=1,
        ours_us=None,
        cpu=cpu_name(),
        limit="at most, in microseconds",
        bar=measure.bar_us,
        bar_on="us",
    )
    for _ in range(repeats):
        if measure.cached:
            found = _probe(measure.probe, warm)
        else:
            with tempfile.TemporaryDirectory() as cold:
                found = _probe(measure.probe, cold)
        if "why" in found:
            return replace(row, why={"ours": str(found["why"])})
        times.append(float(found["us"]))
    return replace(
        row,
        ours_us=round(min(times), 2),
        ours_median_us=round(median(times), 2),
        target=str(found["target"]),
    )


def _probe(name: str, cache: str) -> Mapping[str, float | str]:
    """One figure from a fresh process: {"us", "target"} or {"why"}."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.startup_probe", name],
        cwd=Path(__file__).parents[1],  # where bench is found
        env=_environment(cache),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"why": errors[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def _environment(cache: str) -> dict[str, str]:
    """A cache of its own; and Python keeps its bytecode, as it does for an installed package."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "SIMDFLOW_CACHE": "rw", "SIMDFLOW_CACHE_DIR": cache}
