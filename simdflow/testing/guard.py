"""Turns an array into a copy that touches an inaccessible page, so one byte too far is a crash.

The crash is a signal, not an exception: run the code under test in a child process. Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dsl.errors import OperandError, TargetError

# From <sys/mman.h>: the mmap module has the others, but not "no access".
_PROT_NONE = 0


def guarded(array: NDArray[Any], at_end: bool = True, read_only: bool = False) -> NDArray[Any]:
    """A C-order copy of an array with an inaccessible page right after its last (or first) byte.

        at_end=True     | no access | ......... array | no access |
        at_end=False    | no access | array ......... | no access |

    A read or write past that side dies with SIGSEGV; past the other side only after the rest of the
    page, so test both. With `read_only` a write into the array itself dies too, from native code as
    well. The pages live as long as the array or a view of it, and are private after a fork.

    Raises TargetError where there is no Linux `mprotect`, OperandError for an array of Python
    objects.
    Source: the electric-fence idea (B. Perens, 1987).
    """
    if sys.platform != "linux":
        raise TargetError(
            f"guarded: platform={sys.platform!r} has no guard pages here; "
            "allowed is 'linux'. Skip this test elsewhere."
        )
    if array.dtype.hasobject:
        raise OperandError(
            f"guarded: array.dtype={array.dtype} holds Python objects; "
            "allowed are plain numbers. Convert the array."
        )
    page = mmap.PAGESIZE
    body = max(-(-array.nbytes // page), 1) * page
    memory = mmap.mmap(-1, body + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = page + body - array.nbytes if at_end else page
    copy: NDArray[Any] = np.ndarray(array.shape, array.dtype, memory, offset=start)
    copy[...] = array
    address = np.frombuffer(memory, np.uint8).ctypes.data
    _protect(address, page, _PROT_NONE)
    _protect(address + page + body, page, _PROT_NONE)
    if read_only:
        _protect(address + page, body, mmap.PROT_READ)
        copy.flags.writeable = False
    return copy


def _protect(address: int, size: int, access: int) -> None:
    """mprotect(2), with its error as a TargetError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(address, size, access):
        reason = os.strerror(ctypes.get_errno())
        raise TargetError(
            f"guarded: mprotect={access} failed on {size} bytes ({reason}); "
            "allowed is what this system permits. Skip this test here."
        )
