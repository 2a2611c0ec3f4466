"""Worker: the process in which candidates are compiled and timed, and which may die of one.

Reads one task from a pipe and answers with what it is doing and what came of it. A candidate that
hangs ends it by the alarm clock. Keeps no record and knows nothing of other workers.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np

from ..compiled import CompiledKernel
from ..compiler.records import machine
from ..compiler.request import Request
from ..dsl.dataflow import Dataflow
from ..dsl.nest import LoopNest
from ..dsl.types import OperandType
from ..operands import Bits
from ..placing import empty
from ..targets import target
from .operands import operands

TURN_NS = 200_000  # a turn is at least this long: its first calls reload what others evicted
ROUNDS = 5
DROPPED = 2.0  # times the best: a candidate this slow after a round is timed no more
BOUND = 1e-5  # of the largest result: what two orders of one floating point sum may differ by
_pinned: list[socket.socket] = []


@dataclass(frozen=True)
class Task:
    """Dataflows of one kernel to measure by turns; the first is the reference, whose result the
    others must have.

    seconds   of timing for each
    limit     seconds that compiling one, or one turn of it, may take
    owner     who may stop it
    """

    nest: LoopNest
    types: tuple[tuple[str, OperandType], ...]
    constants: tuple[tuple[str, int | float], ...]
    target: str
    flows: tuple[Dataflow, ...]
    seconds: float
    limit: float
    owner: str = ""

    def request(self, flow: Dataflow) -> Request:
        """What is compiled for a dataflow."""
        return Request(self.nest, self.types, self.constants, flow, target(self.target))


def serve(descriptor: int) -> None:
    """Do one task."""
    with Connection(descriptor) as pipe, suppress(BrokenPipeError, EOFError):
        task = pipe.recv()
        pin()
        pipe.send(("machine", dict(machine())))
        work(task, pipe.send)
        os._exit(0)  # object code of candidates has no business in an orderly end


def pin() -> None:
    """Keep this process on a core that no other worker has taken, if there is one.

    A core is taken by a name in the abstract socket namespace, which goes with its process.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    # The last cores first: the first ones get the interrupts.
    for core in sorted(os.sched_getaffinity(0), reverse=True):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0simdflow-core-{core}")
        except OSError:
            name.close()
            continue
        _pinned.append(name)
        os.sched_setaffinity(0, [core])
        return


def work(task: Task, say: Callable[[tuple[Any, ...]], None]) -> None:
    """Compile, check and time the task's dataflows, saying ("start", i), ("failed", i, why),
    ("timing",) and at last ("times", {i: (least us, spread, calls)}).
    """
    first = CompiledKernel(task.request(task.flows[0]))
    given = operands(first.nest)
    expected: np.ndarray | None = None
    runs: dict[int, Callable[[], object]] = {}
    for i, flow in enumerate(task.flows):
        say(("start", i))
        alarm(task.limit)
        try:
            made = CompiledKernel(task.request(flow))
            run, out = _bound(made, given)
            run()
            wrong = "" if expected is None else difference(out, expected)
        except Exception as error:  # whatever a candidate does is its own affair
            wrong = f"{type(error).__name__}: {str(error)[:300]}"
        if wrong:
            say(("failed", i, wrong))
            if i == 0:
                return
            continue
        if i == 0:
            expected = out.copy()
        runs[i] = run
    say(("timing",))
    say(("times", timed(runs, task.seconds, lambda: alarm(task.limit))))
    signal.setitimer(signal.ITIMER_REAL, 0)


def alarm(seconds: float) -> None:
    """Be ended by SIGALRM in so many seconds, whatever is being run then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _bound(
    made: CompiledKernel, given: Mapping[str, Any]
) -> tuple[Callable[[], object], np.ndarray]:
    kind = made.out_type
    beside = next((a for a in given.values() if type(a) is np.ndarray), None)
    out = empty(kind, beside=beside)
    words = out.words if isinstance(out, Bits) else out
    words.view(np.uint8).reshape(-1)[...] = 0xA5
    return made.bind(**given, **{made.output: out}), words


def difference(out: np.ndarray, expected: np.ndarray) -> str:
    """How a result differs from the reference's, or "".

    Integers and bits must be equal; floating point numbers may differ by 1e-5 of the largest one,
    and are NaN or infinite at the same places.
    """
    if out.dtype.kind != "f":
        wrong = out != expected
    else:
        finite = np.isfinite(expected)
        with np.errstate(invalid="ignore"):
            largest = float(np.abs(expected[finite]).max(initial=0.0))
            far = np.abs(out.astype(np.float64) - expected) > BOUND * largest
        same = (out == expected) | (np.isnan(out) & np.isnan(expected))
        wrong = np.where(finite & np.isfinite(out), far, ~same)
    if not wrong.any():
        return ""
    at = tuple(int(n) for n in np.argwhere(wrong)[0])
    return (
        f"wrong result: {int(wrong.sum())} of {wrong.size} values differ from the default "
        f"dataflow's, the first at {list(at)}: {out[at]} for {expected[at]}"
    )


def timed(
    runs: Mapping[int, Callable[[], object]], seconds: float, before: Callable[[], None]
) -> dict[int, tuple[float, float, int]]:
    """(least us, (median - least) / least, calls) of each, timed by turns.

    `before` is called before each turn. Those twice as slow as the best are left out of later
    rounds.
    """
    clock = time.perf_counter_ns
    bursts = {}
    for i, run in runs.items():
        before()
        began = clock()
        run()
        bursts[i] = max(1, min(200, TURN_NS // max(clock() - began, 1)))
    samples: dict[int, list[int]] = {i: [] for i in runs}
    # The least so far is kept: looking for it among a million samples each round takes minutes.
    least = dict.fromkeys(runs, 1 << 62)
    spent, done, order = dict.fromkeys(runs, 0), 0, list(runs)
    gc.disable()
    while order and (done < ROUNDS or min(spent[i] for i in order) < seconds * 1e9):
        for i in order:
            before()
            run, taken = runs[i], []
            turn = clock()
            run()
            for _ in range(bursts[i]):
                began = clock()
                run()
                taken.append(clock() - began)
            spent[i] += clock() - turn
            least[i] = min(least[i], *taken)
            samples[i] += taken
        done += 1
        best = min(least[i] for i in order)
        order = [i for i in order if i == 0 or least[i] <= DROPPED * best]
        order.append(order.pop(0))  # nobody always runs after the same neighbour
    gc.enable()
    return {i: summary(taken) for i, taken in samples.items()}


def summary(taken: Sequence[int]) -> tuple[float, float, int]:
    """(least us, spread, calls) of single calls in nanoseconds."""
    least = max(min(taken), 1)
    return least / 1e3, (median(taken) - least) / least, len(taken)
