"""simdflow: a kernel DSL for neural-network layers on CPUs.

Importing it compiles nothing and imports neither numba nor llvmlite.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

try:
    from . import dsl
except ImportError as error:  # run from the source tree without an installation
    raise ImportError(
        "simdflow is not installed: simdflow.dsl is missing. Run `pip install -e .` in the repository."
    ) from error

from .dsl import *  # noqa: F403
from .dsl import __all__ as _words

del pack_bits, unpack_bits  # noqa: F821  (of plain words; `sf.pack_bits` makes Bits, which know their shape)
_language = [n for n in _words if n not in ("pack_bits", "unpack_bits", "parse", "interpret")]

if TYPE_CHECKING:
    from . import cache, ops, testing
    from .compiled import CompiledKernel
    from .kernel import Kernel, kernel
    from .operands import Bits, PackedOperand, pack, pack_bits
    from .targets import Target, target

__version__ = "0.1.0"

# Looked up when first used: the language costs a few milliseconds, the compiler's front more.
_LAZY = {
    "kernel": "kernel",
    "Kernel": "kernel",
    "CompiledKernel": "compiled",
    "pack": "operands",
    "pack_bits": "operands",
    "Bits": "operands",
    "PackedOperand": "operands",
    "target": "targets",
    "host_targets": "targets",
    "Target": "targets",
    "dataflows": "dataflows",
    "cache": "",
    "ops": "",
    "testing": "",
}

__all__ = [*_language, *_LAZY]


class _Package(ModuleType):
    """Keeps `sf.kernel` the decorator: importing the submodule of that name would put it there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and _LAZY.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'simdflow' has no attribute {name!r}")
    from importlib import import_module

    place = _LAZY[name]
    module = import_module(f".{place or name}", __name__)
    value = getattr(module, name) if place else module
    globals()[name] = value
    return value
