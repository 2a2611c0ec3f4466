"""One startup figure, measured inside a fresh process: `python -m bench.startup_probe NAME`.

Prints {"us": ..., "target": ...} as JSON; bench/startup.py decides which cache the process finds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from . import ours
from .cases import Case, Problem, Unsupported, problem

LAYER = Case("startup", "conv2d", 28, 28, 64, 64, k=3, dtype="int8")
OTHER = Case("startup", "conv2d", 14, 14, 64, 64, k=3, dtype="int8")  # another kernel
CALLS = 2000


def import_us() -> float:
    """`import simdflow`; numpy is there already."""
    return _us(lambda: __import__("simdflow"))


def first_call_us() -> float:
    """Import, pack, make the kernel, call it once."""
    given = problem(LAYER)
    return _us(lambda: ours.eager(given)())


def second_kernel_us() -> float:
    """Make one more kernel in a process that has made one: compiling, or loading from the cache."""
    _first(problem(LAYER))
    given = problem(OTHER)
    call = ours.eager(given)
    first = _us(call)
    return max(first - _best_us(call, 50), 0.0)


def eager_us() -> float:
    """What a plain call on numpy arrays costs beyond the kernel itself, called through `bind`."""
    tiny = problem(Case("startup", "conv2d", 7, 7, 16, 16, dtype="int8"))
    bound, eager = ours.prepare(tiny, 1).call, ours.eager(tiny)
    return max(_best_us(eager, CALLS) - _best_us(bound, CALLS), 0.0)


PROBES: dict[str, Callable[[], float]] = {
    "import": import_us,
    "first_call": first_call_us,
    "compile": second_kernel_us,
    "load": second_kernel_us,
    "eager": eager_us,
}


def _first(given: Problem) -> None:
    ours.eager(given)()


def _us(call: Callable[[], object]) -> float:
    before = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before) / 1e3


def _best_us(call: Callable[[], object], calls: int) -> float:
    return min(_us(call) for _ in range(calls))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROBES:
        sys.exit(f"usage: python -m bench.startup_probe {'|'.join(PROBES)}")
    try:
        print(json.dumps({"us": PROBES[sys.argv[1]](), "target": ours.target()}))
    except Unsupported as reason:
        sys.exit(str(reason))
