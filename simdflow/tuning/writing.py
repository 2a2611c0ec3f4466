"""Writing a file whole or not at all: under another name first, then renamed.

A reader never sees half a page, and a failure leaves what was there before.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..dsl.errors import OperandError


def written(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that then takes the place of `path`.

    Raises OperandError where the folder cannot be written to; what `write` raises is passed on.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise refused(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        with suppress(OSError):
            os.unlink(name)


def refused(path: Path, error: OSError) -> OperandError:
    """The error for a file that cannot be written."""
    return OperandError(
        f"explore: file={str(path)!r} cannot be written: {error.strerror or error}; a place in a "
        "folder that exists and is yours is allowed. Name another file"
    )


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
