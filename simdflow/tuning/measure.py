"""Measure: dataflows of a kernel become Measurements, made by worker processes.

A candidate can do what it likes to its worker: a crash, a hang, a wrong result is a Measurement
with a reason. Which dataflows are worth it, and what is kept, is not decided here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Pipe
from typing import Any

from ..compiler.records import here, place_of
from ..compiler.request import Request
from ..dsl.dataflow import Dataflow
from ..dsl.errors import TargetError
from ..targets import target as find_target
from .space import Space
from .worker import Task

BATCH = 6  # dataflows of one worker beside the default: it starts in 0.7 s, each compiles in 0.3 s
LIMIT = 20.0  # seconds that one may take to compile, or to run once
SECONDS = 0.03  # of timing for each


@dataclass(frozen=True)
class Measurement:
    """One dataflow's time.

    us         least time of a call in microseconds; None if there is none, and `why` says why
    spread     (median - least) / least
    reference  the default dataflow's least time, in the same rounds of the same worker
    about      the machine that measured, if it is another one than this
    """

    flow: Dataflow
    us: float | None
    spread: float | None
    calls: int
    why: str = ""
    reference: float | None = None
    about: Mapping[str, Any] | None = None

    @property
    def gain(self) -> float:
        """How many times faster than the default; 0 without a time."""
        return self.reference / self.us if self.us and self.reference else 0.0

    def __str__(self) -> str:
        if self.us is None:
            return f"failed: {self.why}: {self.flow}"
        shown = f"{self.us:.2f} us +{100 * (self.spread or 0):.0f} %, x{self.gain:.2f}"
        return f"{shown}: {self.flow}"


def measure(
    subject: Space | Request,
    flows: Iterable[Dataflow],
    *,
    seconds: float = SECONDS,
    executor: Executor | None = None,
    progress: Callable[[Measurement], None] | None = None,
    default: Dataflow | None = None,
    limit: float = LIMIT,
) -> Iterator[Measurement]:
    """Measure dataflows in worker processes, each by turns with the default dataflow, whose result
    it must have; Measurements come as they are ready, the default's first.

    seconds   of timing for each
    executor  any concurrent.futures.Executor; a task starts a worker process where it runs. By
              default tasks run here, half as many at once as there are cores
    progress  called with each Measurement
    limit     seconds that compiling one dataflow, or a turn of it, may take

    Raises what `specialize` raises, TargetError for a target made by hand, and what the executor
    raises. Closing the iterator ends the workers on this machine.
    """
    request = _request(subject)
    default = default or (subject.default if isinstance(subject, Space) else None)
    if default is None:
        from ..compiler.compile import Stages

        default = Stages(request).flow
    if find_target(request.target.name) != request.target:
        raise TargetError(
            f"{request.nest.name}: target={request.target.name!r} was made by hand and has no name "
            "that a worker process knows; avx512, avx2 and portable are measured. Use one of them."
        )
    rest = [f for f in dict.fromkeys(flows) if f != default]
    owner = uuid.uuid4().hex
    batches = [rest[i : i + BATCH] for i in range(0, len(rest), BATCH)] or [[]]
    tasks = [
        Task(
            request.nest, request.types, request.constants, request.target.name,
            (default, *batch), seconds, limit, owner,
        )
        for batch in batches
    ]  # fmt: skip
    seen = False
    with _running(executor, owner) as pool:
        for answer in _answers(pool, tasks):
            for m in answer:
                if m.flow == default:
                    if seen:
                        continue
                    seen = True
                if progress is not None:
                    progress(m)
                yield m


def _request(subject: Space | Request) -> Request:
    request = subject.made(None).request if isinstance(subject, Space) else subject
    nest = request.nest
    return replace(request, nest=replace(nest, origin=type(nest.origin)()), flow=None)


def _answers(pool: Executor, tasks: Sequence[Task]) -> Iterator[tuple[Measurement, ...]]:
    waiting: set[Future[tuple[Measurement, ...]]] = {pool.submit(run, t) for t in tasks}
    try:
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()


def workers(executor: Executor | None) -> int:
    """How many tasks run at once: half as many as there are cores here; of an executor, what it
    tells, else four.
    """
    if executor is not None:
        return int(getattr(executor, "_max_workers", 4))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    return max(1, cores // 2)


@contextmanager
def _running(executor: Executor | None, owner: str) -> Iterator[Executor]:
    """The executor, or threads of this process, each with a worker; in the end no worker is left
    on this machine.
    """
    own = executor is None
    pool = executor or ThreadPoolExecutor(workers(None), "simdflow-measure")
    try:
        yield pool
    finally:
        _stopped.add(owner)
        with _lock:
            for worker in _workers.get(owner, ()):
                worker.kill()
        if own:
            pool.shutdown(wait=True, cancel_futures=True)
            _stopped.discard(owner)


# ---- what runs where the executor runs it --------------------------------------------------------

_lock = threading.Lock()
_workers: dict[str, set[subprocess.Popen[bytes]]] = {}
_stopped: set[str] = set()


def run(task: Task) -> tuple[Measurement, ...]:
    """Measure a task's dataflows in worker processes of this machine, as many as it takes to get
    round those that die.
    """
    reference, *rest = task.flows
    found: dict[Dataflow, Measurement] = {}
    about: Mapping[str, Any] = {}
    pending = [rest]
    while pending and task.owner not in _stopped:
        batch = pending.pop()
        left = [f for f in batch if f not in found]
        if not left and reference in found:
            continue
        end = _attempt(replace(task, flows=(reference, *left)))
        about = end.about or about
        found = {**end.found, **found}
        if not end.why:
            continue
        if end.culprit is not None:
            found[end.culprit] = Measurement(end.culprit, None, None, 0, end.why)
        if end.culprit == reference or (end.culprit is None and not left):
            why = f"the default dataflow cannot be measured: {end.why}"
            found |= {f: Measurement(f, None, None, 0, why) for f in task.flows if f not in found}
            break
        if end.culprit is None and len(left) == 1:  # died while they took turns
            found[left[0]] = Measurement(left[0], None, None, 0, end.why)
            left = []
        half = len(left) // 2 if end.culprit is None else 0
        pending += [part for part in (left[:half], left[half:]) if part]
        if not pending and reference not in found:
            pending.append([])
    away = None if not about or place_of(about) == here() else about
    return tuple(replace(found[f], about=away) for f in task.flows if f in found)


@dataclass(frozen=True)
class _End:
    """How a worker ended: what it measured; if it died, why and, unless it was timing, of what."""

    about: Mapping[str, Any]
    found: Mapping[Dataflow, Measurement]
    culprit: Dataflow | None = None
    why: str = ""


def _attempt(task: Task) -> _End:
    ours, theirs = Pipe()
    code = f"from {Task.__module__} import serve; serve({theirs.fileno()})"
    path = os.pathsep.join(p for p in sys.path if p)
    # Nobody asks for a candidate again, and the default must be the compiler's own.
    environment = {"PYTHONPATH": path, "SIMDFLOW_CACHE": "off", "SIMDFLOW_TUNING": "off"}
    with theirs:
        worker = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the one who asked
        )
    with _lock:
        _workers.setdefault(task.owner, set()).add(worker)
    about: Mapping[str, Any] = {}
    found: dict[Dataflow, Measurement] = {}
    at: Dataflow | None = None
    finished = False
    try:
        if task.owner in _stopped:
            worker.kill()
        with ours, suppress(EOFError, OSError):
            ours.send(task)
            while True:
                what, *rest = ours.recv()
                if what == "machine":
                    about = rest[0]
                elif what == "start":
                    at = task.flows[rest[0]]
                elif what == "failed":
                    flow = task.flows[rest[0]]
                    found[flow] = Measurement(flow, None, None, 0, rest[1])
                elif what == "timing":
                    at = None
                else:
                    times = rest[0]
                    reference = times[0][0]
                    for i, (us, spread, calls) in times.items():
                        flow = task.flows[i]
                        found[flow] = Measurement(flow, us, spread, calls, "", reference)
                    finished = True
        _, said = worker.communicate()
    finally:
        worker.kill()
        worker.wait()
        with _lock:
            _workers[task.owner].discard(worker)
            if not _workers[task.owner]:
                del _workers[task.owner]
    if finished:
        return _End(about, found)
    if (failed := found.get(task.flows[0])) is not None:
        return _End(about, found, task.flows[0], failed.why)
    return _End(about, found, at, _death(worker.returncode, said, task.limit))


def _death(code: int, said: bytes, limit: float) -> str:
    """What a worker died of, by its return code and its last words."""
    if code == -signal.SIGALRM:
        return f"no answer in {limit:g} s"
    if code < 0:
        with suppress(ValueError):
            return f"the worker was killed by {signal.Signals(-code).name}"
    words = said.decode(errors="replace").strip().splitlines()
    return f"the worker ended with code {code}{': ' + words[-1][:200] if words else ''}"
