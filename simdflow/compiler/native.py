"""Turns object code into addresses that can be called, with LLVM's linker and without numba.

One LLJIT serves the process; each object becomes a library of its own and is unloaded with the
last reference to it. Whoever has an address must keep the `Library` it came from, which is why
the two travel together as a `Function`. Nothing is compiled here and nothing is checked: the
object code is trusted (see cache.py).
"""

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

# What numba's lowering leaves behind for errors and reference counting. Kernels have neither, so
# the calls are never reached; the linker wants an address all the same. The names are looked for in
# the bytes of the object, which needs no reader for ELF and Mach-O; one too many does no harm.
UNREACHED = re.compile(rb"(?:NRT_|numba_)\w+(?=\0)")

_serial = count()


@dataclass(frozen=True)
class Function:
    """Machine code at `address`, and what must be kept so that the code stays there."""

    address: int
    owner: object


class Library:
    """Linked object code; its symbols stay callable for as long as this object lives."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def address(self, symbol: str) -> int:
        """The address of a symbol; KeyError if it was not among those `link` was given."""
        return int(self._tracker[symbol])

    def function(self, symbol: str) -> Function:
        """The same, with this library as its owner."""
        return Function(self.address(symbol), self)


_linkers: dict[str, Any] = {}


def _linker() -> Any:
    """The process's LLJIT. Several threads may ask for it first: `functools.cache` would keep the
    last one's and unload the others', with code in use.
    """
    return _linkers.get("lljit") or _linkers.setdefault("lljit", _new_linker())


def _new_linker() -> Any:
    import llvmlite.binding as llvm

    # LLVM's mutexes are taken inside llvmlite's lock only. Whoever forks while another thread is
    # in LLVM would leave the child a lock that nobody gives back, so the fork waits for it.
    # (llvmlite is pinned: `_lock` has no public name.)
    lock = llvm.ffi.lib._lock
    os.register_at_fork(
        before=lock.__enter__, after_in_parent=lock.__exit__, after_in_child=lock.__exit__
    )
    return llvm.create_lljit_compiler(host_machine())


def host_machine() -> Any:
    """A new LLVM target machine for plain code on this computer; kernels have a target."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine()


def link(code: bytes, symbols: Sequence[str], imports: Mapping[str, int] | None = None) -> Library:
    """Load object code made for this CPU and find the addresses of `symbols` (0.3 ms).

    Undefined symbols are those of `imports`, or looked for in the process (libm, Python); those of
    numba's runtime, which kernels never reach, become `abort`. RuntimeError with LLVM's text if
    `code` is not an object file, lacks a symbol or needs one that is nowhere. May be called from
    any thread.
    """
    import llvmlite.binding as llvm

    builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for symbol in symbols:
        builder.export_symbol(symbol)
    for name, address in (imports or {}).items():
        builder.import_symbol(name, address)
    if unreached := set(UNREACHED.findall(code)):
        abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
        for name in unreached:
            builder.import_symbol(name.decode(), abort)
    # LLVM never lets a library's name be used twice, not even after it is gone.
    return Library(builder.link(_linker(), f"simdflow_{next(_serial)}"))
