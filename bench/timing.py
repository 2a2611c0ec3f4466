"""Times several engines fairly: pinned, by turns, each turn long enough to warm its own caches.

Gives minimum and median of single calls; it does not check results.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from .cases import Run

# A turn is at least this long: its first calls reload what the others evicted, of 8 MB of weights
# from memory.
TURN_NS = 1_000_000


@dataclass(frozen=True)
class Timing:
    """Single calls of one engine, in microseconds."""

    min_us: float
    median_us: float
    calls: int


def pin(threads: int) -> None:
    """Keep this process on its last `threads` cores: the first ones get the interrupts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """`pin` for as long as something is timed: compiling before and after has all cores."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    pin(threads)
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


def interleaved(
    calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int = 5
) -> dict[str, Timing]:
    """Time `calls` by turns, at least `rounds` turns each and about `seconds` each in all.

    The first call of a turn is not counted: it runs in the caches that the others left behind.
    """
    clock = time.perf_counter_ns
    samples: dict[str, list[int]] = {name: [] for name in calls}
    bursts = {name: _burst(call) for name, call in calls.items()}
    end = clock() + int(seconds * 1e9) * max(len(calls), 1)
    collecting = gc.isenabled()
    gc.disable()
    try:
        order, done = list(calls), 0
        while calls and (done < rounds or clock() < end):
            for name in order:
                call, taken = calls[name], samples[name]
                call()
                for _ in range(bursts[name]):
                    before = clock()
                    call()
                    taken.append(clock() - before)
            order.append(order.pop(0))  # nobody always runs after the same neighbour
            done += 1
    finally:
        if collecting:
            gc.enable()
    return {
        name: Timing(min(taken) / 1e3, median(taken) / 1e3, len(taken))
        for name, taken in samples.items()
    }


def fastest(candidates: Iterable[Run]) -> Run:
    """Of several ways to run one case in one engine, the quicker: a peer is shown at its best."""
    runs = {str(at): run for at, run in enumerate(candidates)}
    if len(runs) == 1:
        return runs["0"]
    timings = interleaved({at: run.call for at, run in runs.items()}, 0.01, rounds=3)
    return runs[min(timings, key=lambda at: timings[at].min_us)]


def _burst(call: Callable[[], object]) -> int:
    clock = time.perf_counter_ns
    call()
    before = clock()
    call()
    return max(1, min(100, TURN_NS // max(clock() - before, 1)))
