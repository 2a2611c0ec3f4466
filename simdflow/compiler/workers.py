"""Workers: several kernels compiled at once, by other processes.

Turns requests into (interface, object code), the caller's process compiling too. A worker is a
plain `python -m` of this file, fed through pipes: nothing is forked, and the caller's main module
is not imported again. Where no worker can be started, the caller compiles everything.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from ..targets import target
from .artifact import Artifact
from .request import Request, stored

# A worker starts in 0.4 s, half of it importing numba; a kernel takes 0.1 to 0.3 s with its choice.
WORTH = 6
MAX_WORKERS = 8
SIZE = struct.Struct("<Q")

Built = tuple[Artifact, bytes]


def compile_all(requests: Sequence[Request]) -> dict[Request, Built]:
    """Each request's kernel, from the cache or compiled.

    Raises what compiling raises: KernelError, DataflowError.
    """
    found = {r: stored(r) for r in dict.fromkeys(requests)}
    missing = [r for r, built in found.items() if built is None]
    made: dict[Request, Built] = {r: b for r, b in found.items() if b is not None}
    # Targets travel by name: one that was made by hand is compiled for here.
    local = [r for r in missing if target(r.target.name) != r.target]
    made |= {r: _compiled(r) for r in local}
    missing = [r for r in missing if r not in made]
    todo: queue.SimpleQueue[Request] = queue.SimpleQueue()
    for r in missing:
        todo.put(r)
    helpers = [
        threading.Thread(target=_feed, args=(todo, made), daemon=True)
        for _ in range(_worth(len(missing)))
    ]
    for h in helpers:
        h.start()
    while (mine := _next(todo)) is not None:
        made[mine] = _compiled(mine)
    for h in helpers:
        h.join()
    # What a worker could not do is done here, and raises here.
    for r in missing:
        if r not in made:
            made[r] = _compiled(r)
    return made


def _worth(missing: int) -> int:
    """How many workers to start: one for each further core, if there is enough to do."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min((cores or 1) - 1, missing // WORTH, MAX_WORKERS)


def _next(todo: queue.SimpleQueue[Request]) -> Request | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


def _compiled(r: Request) -> Built:
    from .compile import Stages, compile_request

    return compile_request(Stages(r))


def _feed(todo: queue.SimpleQueue[Request], made: dict[Request, Built]) -> None:
    """Let one worker process compile until nothing is left; what it fails at is left out."""
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
    except OSError:
        return
    assert worker.stdin is not None and worker.stdout is not None
    with suppress(OSError, EOFError, struct.error, pickle.PickleError):
        while (r := _next(todo)) is not None:
            _send(worker.stdin, (r.nest, r.types, r.constants, r.flow, r.target.name))
            answer = _received(worker.stdout)
            if answer is not None:
                record, code = answer
                made[r] = Artifact.from_record(record), code
    with suppress(OSError):
        worker.stdin.close()
    worker.wait()


def serve() -> None:
    """Compile what comes in, until nothing more does."""
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write between the answers
    with suppress(EOFError):
        while True:
            nest, types, constants, flow, name = _received(given)
            try:
                artifact, code = _compiled(Request(nest, types, constants, flow, target(name)))
                _send(answers, (artifact.record(), code))
            except Exception:  # the caller compiles it again and meets the same error
                _send(answers, None)


def _send(pipe: IO[bytes], value: Any) -> None:
    content = pickle.dumps(value)
    pipe.write(SIZE.pack(len(content)) + content)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    head = pipe.read(SIZE.size)
    if len(head) < SIZE.size:
        raise EOFError
    (size,) = SIZE.unpack(head)
    return pickle.loads(pipe.read(size))
