"""Fork, join and barrier of one way to run threads: `python -m bench.team_probe ENGINE THREADS`.

Prints a JSON object of microseconds by case, or {"why": ...}. Each engine has a process of its own,
because an idle pool that spins would slow its neighbour down.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from statistics import median

import numpy as np

from simdflow.compiler.assemble import assembled
from simdflow.compiler.native import Library, link
from simdflow.graph import team

CALLS, TIMES, SECONDS = 200, 2000, 0.3
LINE = 16  # items of 8 bytes that no two threads should share
IDLE_SECONDS = 0.02

LOOPS = """
define void @empty(ptr %table, i64 %tid, i64 %count, ptr %team) {
  ret void
}

; table: the barrier, how often
define void @meet(ptr %table, i64 %tid, i64 %count, ptr %team) {
entry:
  %barrier = load ptr, ptr %table
  %calls_p = getelementptr i64, ptr %table, i64 1
  %calls = load i64, ptr %calls_p
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i_next, %next ]
  call void %barrier(ptr %team, i64 %tid, i64 %count)
  %i_next = add i64 %i, 1
  %more = icmp slt i64 %i_next, %calls
  br i1 %more, label %next, label %out
out:
  ret void
}

; `calls` times f(a, b, c, d): simdflow_team_run takes three of them, GOMP_parallel all
define void @repeat(ptr %f, i64 %calls, ptr %a, ptr %b, i64 %c, i64 %d) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i_next, %next ]
  call void %f(ptr %a, ptr %b, i64 %c, i64 %d)
  %i_next = add i64 %i, 1
  %more = icmp slt i64 %i_next, %calls
  br i1 %more, label %next, label %out
out:
  ret void
}
"""

Region = Callable[[int], object]


def simdflow_team(threads: int) -> dict[str, float]:
    """The workers of simdflow.graph.team, called by machine code."""
    ours = team.new_team(threads)
    run, barrier = (team.symbols()[f"simdflow_team_{name}"] for name in ("run", "barrier"))
    meet, empty = _loops().address("meet"), _loops().address("empty")
    table = np.array([barrier, CALLS], np.int64)
    repeat = _repeat()
    found = _figures(
        lambda calls: repeat(run, calls, ours.address, empty, 0, 0),
        lambda: repeat(run, 1, ours.address, meet, table.ctypes.data, 0),
    )
    ours.close()
    return found


def libgomp(threads: int) -> dict[str, float]:
    """GOMP_parallel and GOMP_barrier, called by machine code."""
    library = ctypes.CDLL(ctypes.util.find_library("gomp") or "libgomp.so.1")
    parallel, barrier = (
        ctypes.cast(function, ctypes.c_void_p).value or 0
        for function in (library.GOMP_parallel, library.GOMP_barrier)
    )
    meet, empty = _loops().address("meet"), _loops().address("empty")
    table = np.array([barrier, CALLS], np.int64)
    repeat = _repeat()
    return _figures(
        lambda calls: repeat(parallel, calls, empty, 0, threads, 0),
        lambda: repeat(parallel, 1, meet, table.ctypes.data, threads, 0),
    )


def prange(threads: int) -> dict[str, float]:
    """A numba loop over `prange`, on numba's OpenMP layer."""
    os.environ["NUMBA_THREADING_LAYER"] = "omp"  # read when numba is imported
    import numba

    numba.set_num_threads(threads)

    @numba.njit(parallel=True)
    def regions(calls: int, items: np.ndarray) -> None:
        for _ in range(calls):
            for i in numba.prange(items.size // LINE):
                items[i * LINE] = 0

    items = np.zeros(threads * LINE, np.int64)
    regions(1, items)
    return _figures(lambda calls: regions(calls, items), None)


ENGINES = {"ours": simdflow_team, "libgomp": libgomp, "prange": prange}


def _figures(region: Region, barriers: Callable[[], object] | None) -> dict[str, float]:
    """`barriers` makes CALLS of them in one region."""
    region(CALLS)  # makes the threads
    figures = {"fork and join": _best_us(lambda: region(CALLS)) / CALLS}
    if barriers is not None:
        figures["barrier"] = _best_us(barriers) / CALLS
    asleep, used = [], []
    for _ in range(20):
        before = time.process_time_ns()
        time.sleep(IDLE_SECONDS)
        used.append((time.process_time_ns() - before) / 1e3)
        start = time.perf_counter_ns()
        region(1)
        asleep.append((time.perf_counter_ns() - start) / 1e3)
    return {**figures, "fork and join, after 20 ms": median(asleep), "idle for 20 ms": median(used)}


def _best_us(call: Callable[[], object]) -> float:
    """The shortest of TIMES calls, or of as many as SECONDS have room for."""
    best, end = 2**63, time.perf_counter_ns() + int(SECONDS * 1e9)
    for _ in range(TIMES):
        before = time.perf_counter_ns()
        call()
        after = time.perf_counter_ns()
        best = min(best, after - before)
        if after > end:
            break
    return best / 1e3


@cache
def _loops() -> Library:
    return link(assembled(LOOPS, "team_probe"), ["empty", "meet", "repeat"])


def _repeat() -> Callable[..., None]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    prototype = ctypes.CFUNCTYPE(None, pointer, number, pointer, pointer, number, number)
    return prototype(_loops().address("repeat"))


def main(engine: str, threads: str) -> None:
    """Print what one engine takes; why, if it is not there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-int(threads) :])
    try:
        found: dict[str, float] | dict[str, str] = ENGINES[engine](int(threads))
    except (ImportError, OSError, ValueError, AttributeError) as error:
        found = {"why": str(error)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
