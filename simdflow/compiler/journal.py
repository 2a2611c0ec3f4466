"""Journal: a file of lines that only grows, for several writers.

Turns bytes into a line at the end of a file, and a file into bytes if nobody else can have written
it. Knows nothing of what the lines say.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
import warnings
from pathlib import Path

from ..dsl.errors import TuningWarning
from .cache import distrust

MOST = 64 << 20  # bytes; of a larger file, the end is read
LOCK_SECONDS = 2.0

_warned: set[str] = set()


def append(file: Path, text: bytes) -> bool:
    """Add a line (given without its line feed); True if it is there, else a warning, once.

    One write of a whole line at the end, under a lock. Where the last line is torn, by a crash or a
    full disk, a new one is begun; nothing is ever cut off.
    """
    try:
        if not file.parent.exists():
            file.parent.parent.mkdir(parents=True, exist_ok=True)
            file.parent.mkdir(mode=0o700, exist_ok=True)
        with _opened(file, os.O_RDWR | os.O_APPEND | os.O_CREAT) as descriptor:
            _lock(descriptor)
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            line = (b"\n" if torn else b"") + text + b"\n"
            written = os.write(descriptor, line)
            if written < len(line):
                raise OSError(f"the disk took {written} of {len(line)} bytes")
    except OSError as error:
        warn(file, f"a measurement cannot be kept: {error}")
        return False
    return True


def content(file: Path) -> bytes:
    """The file, or its last 64 MB; nothing if it cannot be believed, with a warning."""
    try:
        with _opened(file, os.O_RDONLY) as descriptor:
            size = os.fstat(descriptor).st_size
            return os.pread(descriptor, MOST, max(0, size - MOST))
    except FileNotFoundError:
        return b""
    except OSError as error:
        warn(file, f"it cannot be read: {error}")
        return b""


def clear(file: Path) -> int:
    """Empty the file; how many lines it had. Processes that add to it go on doing so.

    Raises OSError where that is not allowed.
    """
    try:
        with _opened(file, os.O_RDWR) as descriptor:
            _lock(descriptor)
            lines = content(file).count(b"\n")
            os.ftruncate(descriptor, 0)
            return lines
    except FileNotFoundError:
        return 0


class _opened:
    """The descriptor of a regular file that nobody else can have written."""

    def __init__(self, file: Path, flags: int) -> None:
        # O_NONBLOCK: a FIFO in place of the file must not hang the program.
        more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(file, flags | more, 0o600)

    def __enter__(self) -> int:
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError("it is not a file")
            if reason := distrust(status):
                raise PermissionError(f"it {reason}")
        except BaseException:
            os.close(self._descriptor)
            raise
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    """Hold the file until it is closed, or go on without after two seconds: the write is one piece
    even then, and a stopped process must not stop the others.
    """
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                return
            time.sleep(0.002)
        except OSError:
            return  # a file system without locks


def warn(file: Path, what: str) -> None:
    """Say once for a file what cannot be done with it."""
    if str(file) in _warned:
        return
    _warned.add(str(file))
    warnings.warn(
        f"tuning: SIMDFLOW_TUNING={str(file)!r}: {what}. Free the disk or correct the file, or "
        "name another one",
        TuningWarning,
        stacklevel=3,
    )
