"""Turns a number of threads into a team: native workers that run the entry functions of models.

A team has one address, to be passed to `simdflow_team_run`; its workers are made at the first run,
spin for a moment when they have nothing to do, then sleep, and are made anew after a fork. What a
run computes, and how many threads it is worth, is decided elsewhere.

Microseconds of two threads on the two cores of an AMD EPYC (Zen 5), the shortest of many while all
are awake; a network forks and joins once and has a barrier after each layer (python -m bench team):

    way                                             fork and join    barrier
    a `prange` loop of numba, its OpenMP layer               0.88          -
    GOMP_parallel, GOMP_barrier from machine code            0.47       0.23
    this team                                                0.11       0.05
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..compiler.assemble import assembled
from ..compiler.native import Library, link
from ..dsl.errors import ModelError
from .team_ir import LINE, LIVE, MAX_THREADS, SIZE, THREAD, THREADS, team_ir
from .wait_ir import this_platform

SYMBOLS = (
    "simdflow_team_run",
    "simdflow_team_run_measured",
    "simdflow_team_barrier",
    "simdflow_team_stop",
)
# A worker that is woken is often put on the core of who woke it, and gets it only when that one
# yields: with 5 us of spinning the first run after a pause takes 60 us, with 50 us it takes 150.
SPIN_US, YIELD_US = 5, 200

_libraries: dict[str, Library] = {}
_teams: dict[int, Team] = {}
_all: weakref.WeakSet[Team] = weakref.WeakSet()


@dataclass(frozen=True, eq=False)
class Team:
    """The caller and `threads - 1` workers. Who uses `address` must keep the team.

    `close` ends the workers; afterwards a run is the caller's alone, with the same result.
    """

    threads: int
    address: int
    _memory: object = field(repr=False)

    def close(self) -> None:
        """End the workers, after the run they are in. May be called twice."""
        _all.discard(self)
        _stop(self.address)

    @property
    def live(self) -> int:
        """Threads there are, the caller included; 0 before the first run."""
        return ctypes.c_int64.from_address(self.address + LIVE).value


def team(threads: int) -> Team:
    """The process's team of `threads`, or of as many as `available` allows.

    ModelError if `threads` is not in 1..256.
    """
    size = min(_checked(threads), available())
    # Two threads may both get here first. A team that never ran is only memory, so one of the two
    # is dropped, and no lock is there to be held when the process forks.
    return _teams.get(size) or _teams.setdefault(size, new_team(size))


def new_team(threads: int) -> Team:
    """A team of its own, of exactly `threads` even where that is more than the cores there are."""
    size = _checked(threads)
    nbytes = THREADS + size * THREAD
    memory = ctypes.create_string_buffer(nbytes + LINE)
    address = -(-ctypes.addressof(memory) // LINE) * LINE
    ctypes.c_int64.from_address(address + SIZE).value = size
    made = Team(size, address, memory)
    # Runs when the team is collected or the interpreter ends: before the memory, or the code that
    # the workers are in, is gone.
    weakref.finalize(made, _stop, address, memory)
    _all.add(made)
    return made


def symbols() -> Mapping[str, int]:
    """The addresses of what an entry function calls.

    void simdflow_team_run(ptr team, ptr body, ptr table)
        body(table, tid, count, team) on every thread, tid in 0..count-1, and returns when all have;
        body(table, 0, 1, team) on the calling thread alone if team is null, another thread is
        inside it, or it has no workers
    void simdflow_team_run_measured(ptr team, ptr body, ptr table, ptr state)
        the same, but alone where that is faster. `state` is eight i64, zero at first, of this body:
        the first four runs are alone and tell what that takes; if four runs with the team take
        longer (another process has the core), some alone follow. A body that takes less than
        200 us does not wait for sleeping workers; the second of two close runs wakes them
    void simdflow_team_barrier(ptr team, i64 tid, i64 count)
        to be called by a body with its own arguments: returns when all threads have called it
    """
    library = _library()
    return {name: library.address(name) for name in SYMBOLS[:3]}


def available() -> int:
    """How many threads can run at once: the cores allowed, and the quota of the control groups."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, int(quota()), MAX_THREADS))


def quota(root: Path = Path("/")) -> float:
    """Processors that the control groups (version 1 or 2) give time for; 256 if they set no limit.

    A limit of 1.5 is not rounded up: a thread that is throttled makes all others wait for it.
    """
    smallest = float(MAX_THREADS)
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")  # number:controllers:path
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in ("cpu", "cpu,cpuacct", "unified") if controllers else ("", "unified"):
            top = root / "sys/fs/cgroup" / mount
            inner = top / group.strip("/")
            # A limit counts for all groups inside; in a container the path may be the host's.
            for folder in (inner, *inner.parents):
                if folder.is_relative_to(top):
                    smallest = min(smallest, _limit(folder))
    return smallest


def _limit(folder: Path) -> float:
    given = _text(folder / "cpu.max").split() or [
        _text(folder / "cpu.cfs_quota_us").strip(),
        _text(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        microseconds, period = map(int, given)
    except ValueError:  # "max", or no such file
        return MAX_THREADS
    return microseconds / period if microseconds > 0 and period > 0 else MAX_THREADS


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _checked(threads: int) -> int:
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ModelError(
            f"team: threads={threads!r} is not a number of threads; 1..{MAX_THREADS} is. "
            "Pass threads=1 for the calling thread alone"
        )
    return threads


def _library() -> Library:
    # `functools.cache` would keep the last of several threads' libraries, and unload the others
    # from under those who have their addresses.
    if found := _libraries.get("team"):
        return found
    made = link(assembled(team_ir(this_platform(), SPIN_US, YIELD_US), "team"), SYMBOLS)
    return _libraries.setdefault("team", made)


def _stop(address: int, memory: object = None) -> None:
    """`memory` is only kept."""
    if _libraries:  # or no team has ever run
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_library().address("simdflow_team_stop"))(address)


def _after_fork() -> None:
    """The child has the memory of the teams but not their threads: they start again."""
    for each in _all:
        ctypes.memset(each.address, 0, THREADS + each.threads * THREAD)
        ctypes.c_int64.from_address(each.address + SIZE).value = each.threads


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
