"""A measurement as a row, the options of a run, and the tables and JSON made of them.

The same for every suite; it measures nothing.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    quick       a few cases, under a minute
    only        a part of the names of the cases to run
    target      the target to compile for; "": what the suite takes by itself
    json        where rows go as soon as they are there, in suites that take long
    csv, png    where the numbers and the heat map of "dataflows" go
    """

    quick: bool = False
    peers: bool = False
    threads: int = 1
    only: str = ""
    target: str = ""
    json: Path | None = None
    csv: Path | None = None
    png: Path | None = None


@dataclass(frozen=True)
class Row:
    """One case of one suite; None where nothing was measured.

    ours_us, peers      the shortest single call in microseconds; *_median_us the median
    ratio               best peer / ours: above 1, ours is faster
    peak_fraction       the share that ours reaches of the measured peak that `limit` names
    bound_fraction      the same with the epilogue counted
    peer_fraction       the share of the peak that the best peer reaches
    exact               integer results are equal to numpy's; None for f32 within its error bound
    bar, bar_on         the share asked for, and of what: "peak" or "bound" ("us": a time)
    clock_ghz           the clock while the case ran
    input               "bordered": the input of ours has its border before the call, as inside a
                        network; copying_us is the time from one that has to be given it
    alone_us            ours of a dense layer while no other engine takes turns with it
    rank_correlation    of predicted and measured times of several dataflows (Spearman's)
    operations_correlation  the same of YFlows' count of memory operations
    predicted_us        by the cost model, at the clock of the run
    dataflows           how many were measured
    notes, why          for each engine: how it runs; or why it has no time
    """

    suite: str
    case: str
    threads: int
    ours_us: float | None
    peers: dict[str, float] = field(default_factory=dict)
    ratio: float | None = None
    peak_fraction: float | None = None
    exact: bool | None = None
    target: str = ""
    cpu: str = ""
    ours_median_us: float | None = None
    peers_median_us: dict[str, float] = field(default_factory=dict)
    limit: str = ""
    bound_fraction: float | None = None
    peer_fraction: float | None = None
    bar: float | None = None
    bar_on: str = ""
    clock_ghz: float | None = None
    input: str = ""
    copying_us: float | None = None
    alone_us: float | None = None
    rank_correlation: float | None = None
    operations_correlation: float | None = None
    predicted_us: float | None = None
    dataflows: int | None = None
    notes: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a suite returns: its rows, the machine it ran on, and lines to print below the table."""

    rows: tuple[Row, ...]
    machine: dict[str, Any]
    lines: tuple[str, ...]


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine(options: Options) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "cpu": cpu_name(),
        "threads": options.threads,
        "python": platform.python_version(),
        **{package: version(package) for package in ("numba", "llvmlite", "numpy")},
    }


def write_json(path: Path, result: Result) -> None:
    """{"machine": ..., "rows": [...], "summary": [...]}."""
    found = {
        "machine": result.machine,
        "rows": [asdict(row) for row in result.rows],
        "summary": list(result.lines),
    }
    path.write_text(json.dumps(found, indent=1) + "\n")


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left, the others to the right."""
    widths = [max(len(line[at]) for line in (header, *lines)) for at in range(len(header))]

    def text(line: Sequence[str]) -> str:
        first, *rest = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join((text(header), *map(text, lines)))


def number(value: float | None, digits: int = 2) -> str:
    """`value` with `digits` places, "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"
